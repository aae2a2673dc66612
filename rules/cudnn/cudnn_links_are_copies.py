"""The links of cuDNN's libraries are copies of the file.

What you see
    At every ldconfig: "/sbin/ldconfig.real: /usr/local/cuda/lib64/libcudnn.so.5 is not a symbolic link".
Why
    The archive was copied with a cp that follows links (without -P or -a), or through a file system without links.
    So libcudnn.so -> libcudnn.so.8 -> libcudnn.so.8.9.7 became three files with the same content.

    Programs work until one of the files is updated and the others are not: then two versions are mixed.
Repair
    Compare the contents, replace the copies with links, then run ldconfig.
What the repair risks
    None: the contents are identical. If they differ, this problem is not reported.
By hand
    cd /usr/local/cuda/lib64; sha256sum libcudnn.so*
    ln -sf libcudnn.so.8.9.7 libcudnn.so.8
    ln -sf libcudnn.so.8 libcudnn.so; ldconfig
"""

from collections.abc import Iterator

from dlhealth.api import (
    Cudnn,
    CudnnFolder,
    CudnnLibrary,
    Evidence,
    Finding,
    Machine,
    MakeLink,
    Plan,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    count,
)


class CudnnLinksAreCopies(Rule):
    id = "cudnn-links-are-copies"
    title = "The links of cuDNN's libraries are copies of the file"
    stage = Stage.LOADER
    severity = Severity.WARNING

    def detect(self, cudnn: Cudnn) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in cudnn.problems)
        yield from (Unknown(x.problem) for x in cudnn.libraries() if x.special)
        for folder in cudnn.folders:
            pairs = copies(folder)
            if pairs:
                files = dict.fromkeys(x for pair in pairs for x in pair)
                names = ", ".join(copy.name for copy, _ in pairs[:3]) + (", …" if len(pairs) > 3 else "")
                wanted = "links, but are copies" if len(pairs) > 1 else "a link, but is a copy"
                yield self.finding(
                    f"file:{folder.path}",
                    f"{count(len(pairs), 'cuDNN file')} in {folder.path} should be {wanted}: {names}",
                    *(Evidence(x.path, f"file of {x.size} bytes, sha256 {x.digest[:16]}") for x in files),
                    folder=folder.path,
                )

    def remedies(self, finding: Finding, cudnn: Cudnn) -> Iterator[Plan]:
        folder = next(f for f in cudnn.folders if f.path == finding.detail["folder"])
        links = tuple(MakeLink(copy.path, _target(copy, file)) for copy, file in copies(folder))
        yield Plan("Replace the copies with links", Risk.LOW, (*links, RefreshLoaderCache()))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/usr/local/cuda-12.2/targets/x86_64-linux/lib"

        def copied(version: str) -> Machine:
            machine = Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn(version)
            major = version.partition(".")[0]
            for suffix in (f".{major}", ""):
                machine.remove(f"{lib}/libcudnn.so{suffix}").library(
                    f"{lib}/libcudnn.so{suffix}", f"libcudnn.so.{major}"
                )
            return machine

        yield Scenario(
            "cuDNN 8 copied with cp",
            copied("8.9.7"),
            finds=f"file:{lib}",
            steps=("make-link", "refresh-loader-cache"),
            ladder=(
                (
                    "low",
                    "make-link /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so libcudnn.so.8",
                    "make-link /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so.8 libcudnn.so.8.9.7",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "cuDNN 7 copied with cp",
            copied("7.6.5"),
            finds=f"file:{lib}",
            ladder=(
                (
                    "low",
                    "make-link /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so libcudnn.so.7",
                    "make-link /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so.7 libcudnn.so.7.6.5",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "only libcudnn.so.9 is a copy",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .cudnn("9.1.0")
            .remove(f"{lib}/libcudnn.so.9")
            .library(f"{lib}/libcudnn.so.9", "libcudnn.so.9"),
            finds=f"file:{lib}",
            ladder=(
                (
                    "low",
                    "make-link /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so.9 libcudnn.so.9.1.0",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario("correct links", Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn("8.9.7"))
        yield Scenario(
            "two versions, each with its own file",
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("12.2")
            .cudnn("8.9.7")
            .library(f"{lib}/libcudnn.so.8.6.0", "libcudnn.so.8"),
        )
        yield Scenario(
            "a library is not readable",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn().fifo(f"{lib}/libcudnn.so.8"),
            unknown=True,
        )


def copies(folder: CudnnFolder) -> list[tuple[CudnnLibrary, CudnnLibrary]]:
    """Pairs of a copy that should be a link and the file with the same content and the longest version."""
    files = [x for x in folder.libraries if x.target is None and x.digest]
    pairs = []
    for copy in files:
        same = [x for x in files if x.digest == copy.digest and x.name.startswith(f"{copy.name}.")]
        if same:
            pairs.append((copy, max(same, key=lambda x: len(x.suffix.split(".")))))
    return pairs


def _target(copy: CudnnLibrary, file: CudnnLibrary) -> str:
    """The links to make: libcudnn.so to libcudnn.so.8, and that to the file."""
    return file.name if copy.suffix else f"{copy.name}.{file.suffix.partition('.')[0]}"
