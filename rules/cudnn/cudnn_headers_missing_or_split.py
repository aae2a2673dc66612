"""cudnn.h, or a header that it includes, is missing.

What you see
    "fatal error: cudnn.h: No such file or directory", or "fatal error: cudnn_version.h: No such file or directory".
    Programs that are already built still run.
Why
    Only the package of the library is installed, without its -dev package.

    Or the archive was copied by an old guide. From version 8 on, cudnn.h includes several other headers, and `cp
    cudnn.h` does not copy them.

    Or the alternative `libcudnn`, which provides /usr/include/cudnn.h, is a broken link.
Repair
    Install the -dev package of exactly the library's version. Or copy all cudnn*.h of that version from another
    directory of this machine (a Python environment with cuDNN's wheel has them too) or from the archive.
What the repair risks
    None: headers are added, nothing is replaced.
By hand
    update-alternatives --display libcudnn; ls -l /usr/include/cudnn*.h
    cd /usr/local/cuda/include; ls -l cudnn*.h
    cp -P ~/cudnn-*/include/cudnn*.h . && chmod a+r cudnn*.h
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    CopyFile,
    CudaToolkits,
    Cudnn,
    CudnnFolder,
    CudnnHeaderCopies,
    CudnnHeaders,
    CudnnPackage,
    Evidence,
    Finding,
    Machine,
    MoveAside,
    Plan,
    Risk,
    Rule,
    Scenario,
    SetAlternative,
    Severity,
    Stage,
    Unknown,
    Unowned,
    cudnn_package_names,
    version_key,
)


class CudnnHeadersMissingOrSplit(Rule):
    id = "cudnn-headers-missing-or-split"
    title = "cudnn.h, or a header that it includes, is missing"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR

    def detect(self, cudnn: Cudnn, toolkits: CudaToolkits) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in cudnn.problems)
        yield from (Unknown(h.problem) for h in cudnn.headers if h.problem)
        for headers in cudnn.headers:
            if headers.main and not headers.problem:
                yield from self._broken(headers, cudnn)
        reported = False
        for folder in cudnn.folders:
            for finding in self._without(folder, cudnn, toolkits):
                reported = True
                yield finding
        if not reported and not any(h.main for h in cudnn.headers):
            yield from self._not_installed(cudnn, toolkits)

    def _broken(self, headers: CudnnHeaders, cudnn: Cudnn) -> Iterator[Finding]:
        if not headers.real:
            whole = _whole(cudnn)
            yield self.finding(
                f"file:{headers.main}",
                f"{headers.main} is a broken link",
                Evidence(headers.main, "a broken link"),
                *([Evidence(whole.source, f"complete headers of cuDNN {whole.version}")] if whole else []),
                *(Evidence(f"{headers.folder}/{name}", "exists") for name in headers.others[:4]),
                # Compilers skip the link and find the other headers; scripts that test for the file do not.
                severity=Severity.WARNING if whole else Severity.ERROR,
                folder=headers.folder,
            )
            return
        missing = headers.missing
        newest = max((m for f in cudnn.folders if headers.folder in f.includes for m in f.majors), default=0)
        if not missing and not headers.version and newest >= 8:
            # From version 8 on, every cudnn.h has a version or includes; this one has neither.
            missing = ((headers.main, "cudnn_version.h"),)
        if missing:
            names = list(dict.fromkeys(name for _, name in missing))
            yield self.finding(
                f"file:{headers.main}",
                f"{headers.main} needs {', '.join(names)}, which {'is' if len(names) == 1 else 'are'} not installed",
                *(Evidence(source, f"includes {name}, which does not exist") for source, name in missing),
                folder=headers.folder,
            )

    def _without(self, folder: CudnnFolder, cudnn: Cudnn, toolkits: CudaToolkits) -> Iterator[Finding]:
        """Report a directory where a linker finds cuDNN, but a compiler finds no header."""
        library = next((x for x in folder.libraries if x.stem == "libcudnn" and x.real), None)
        if not library or not (folder.for_development or folder.toolkit):
            return
        places = [*folder.includes, "/usr/local/include", "/usr/include", "/usr/include/x86_64-linux-gnu"]
        default = f"{toolkits.default.path}/" if toolkits.default else "/usr/include/"  # nvcc searches it by default
        if any(h.main and (h.folder in places or h.folder.startswith(default)) for h in cudnn.headers):
            return
        include = folder.includes[-1] if folder.path.startswith("/usr/lib") else folder.includes[0]
        near = [f"{h.folder}/{name}" for h in cudnn.headers if h.folder in places for name in h.others]
        yield self.finding(
            f"file:{include}/cudnn.h",
            f"cuDNN is in {folder.path}, but its header {include}/cudnn.h does not exist",
            Evidence(
                library.real,
                f"cuDNN {library.version or library.major or ''}{f', package {library.package}' if library.package else ''}",
            ),
            Evidence(f"{include}/cudnn.h", "does not exist"),
            *(Evidence(path, "exists") for path in near[:4]),
            folder=include,
            library=library.path,
        )

    def _not_installed(self, cudnn: Cudnn, toolkits: CudaToolkits) -> Iterator[Finding]:
        """Report packages without headers: a -dev package whose header is missing, or a library's package on a machine
        with a CUDA compiler."""
        dev = [p for p in cudnn.packages if p.role in ("dev", "headers")]
        runtime = [p for p in cudnn.packages if p.role == "runtime" and p.package.name.startswith("libcudnn")]
        nvcc = next((t.nvcc for t in toolkits.toolkits if t.nvcc), "")
        for package in dev[:1] or (runtime[:1] if nvcc else ()):
            text = f"package {package.package.name} {package.package.version}"
            yield self.finding(
                f"package:{package.package.name}",
                f"{package.package.name} is installed, but its header /usr/include/cudnn.h does not exist",
                Evidence(text, package.package.state),
                Evidence("/usr/include/cudnn.h", "does not exist"),
                *([Evidence(nvcc, "CUDA compiler")] if nvcc else []),
                severity=Severity.ERROR if dev else Severity.WARNING,
                folder="/usr/include",
            )

    def remedies(
        self, finding: Finding, cudnn: Cudnn, toolkits: CudaToolkits, copies: CudnnHeaderCopies
    ) -> Iterator[Plan]:
        folder = finding.detail["folder"]
        path = f"{folder}/cudnn.h"
        system = folder.startswith("/usr/include")
        headers = cudnn.headers_in(folder)
        if headers and headers.main and not headers.real and not system and (whole := _whole(cudnn)):
            summary = f"Move the broken link {path} out of the way (the headers in {whole.folder} are complete)"
            yield Plan(summary, Risk.LOW, (MoveAside(path),))
            return
        dev = [p.package.name for p in cudnn.packages if p.role in ("dev", "headers")]
        runtime = next((p for p in cudnn.packages if p.role == "runtime"), None)
        if system and dev:
            if not headers or not headers.real:
                yield Plan(
                    "Restore the link /usr/include/cudnn.h with update-alternatives",
                    Risk.LOW,
                    (SetAlternative("libcudnn", ""),),
                )
            yield Plan(f"Reinstall {', '.join(dev)}", Risk.LOW, (AptInstall(tuple(dev), reinstall=True),), network=True)
        elif system and runtime:
            yield Plan(
                f"Install the headers for {runtime.package.name} {runtime.package.version}",
                Risk.LOW,
                (AptInstall((_development(runtime),)),),
                network=True,
            )
        libraries = [x for f in cudnn.folders if folder in f.includes for x in f.libraries]
        version = next((x.version for x in libraries if x.version), "")
        there = {*headers.others, *(["cudnn.h"] if headers.real else [])} if headers else set()
        same = [c for c in copies.of(version) if c.folder != folder]
        if same and same[0].roots and not system:
            # A file that a user could have written is never copied to where everybody uses it.
            steps = tuple(CopyFile(file, f"{folder}/{name}") for name, file in same[0].files if name not in there)
            yield Plan(f"Copy the headers of cuDNN {version} from {same[0].folder}", Risk.LOW, steps)
        default = toolkits.default
        fetched = _to_fetch(version, default.major if default else None)
        source = f"{same[0].folder}, if you trust its owner" if same else fetched
        yield Plan(
            f"Copy all headers of cuDNN {version}".rstrip(),
            Risk.LOW,
            (
                ByHand(
                    f"Take the headers from {source}. In their directory, run: "
                    f"cp -P cudnn*.h {folder}/ && chmod a+r {folder}/cudnn*.h"
                ),
            ),
        )
        majors = [x.major for x in libraries if x.major]
        stray = [x.path for x in libraries if x.owner is Unowned.NOBODY]
        names = cudnn_package_names(max(majors, default=0), default.version if default else "", development=True)
        if not system and majors and stray and names:
            lone = [path] if headers and headers.main else []
            yield Plan(
                "Move the copied files out of the way and install cuDNN's packages",
                Risk.MEDIUM,
                (
                    *(
                        MoveAside(p)
                        for p in [*stray, *lone, *(f"{folder}/{n}" for n in (headers.others if headers else ()))]
                    ),
                    AptInstall(names),
                ),
                network=True,
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        include = "/usr/local/cuda-12.2/targets/x86_64-linux/include"

        def cuda() -> Machine:
            return Machine.ubuntu2404_gpu().cuda_toolkit("12.2")

        def without(machine: Machine, *names: str, folder: str = include) -> Machine:
            for name in names:
                machine.remove(f"{folder}/{name}")
            return machine

        parts = [f"cudnn_{p}_{u}.h" for p in ("ops", "cnn", "adv") for u in ("infer", "train")]
        others = ["cudnn_version.h", "cudnn_backend.h", *parts]
        yield Scenario(
            "an old guide: cp cudnn.h",
            without(cuda().cudnn("8.9.7"), *others),
            finds=f"file:{include}/cudnn.h",
            steps=("move-aside", "apt-install"),
            ladder=(
                (
                    "low",
                    "by-hand cudnn-linux-x86_64-8.9.7.*_cuda12-archive.tar.xz developer.download.nvidia.com/compute/cudnn/redist/cudnn/linux-x86_64 python3 -m --no-deps nvidia-cudnn-cu12==8.9.7.*",
                ),
                (
                    "medium network",
                    "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so ... move-aside /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn.h (22)",
                    "apt-install libcudnn8=8.9.7.29-1+cuda12.2 libcudnn8-dev=8.9.7.29-1+cuda12.2",
                ),
            ),
        )
        yield Scenario(
            "only the libraries were copied",
            without(cuda().cudnn("8.9.7"), "cudnn.h", *others),
            finds=f"file:{include}/cudnn.h",
            ladder=(
                (
                    "low",
                    "by-hand cudnn-linux-x86_64-8.9.7.*_cuda12-archive.tar.xz developer.download.nvidia.com/compute/cudnn/redist/cudnn/linux-x86_64 python3 -m --no-deps nvidia-cudnn-cu12==8.9.7.*",
                ),
                (
                    "medium network",
                    "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so ... move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn_ops_train.so.8.9.7 (21)",
                    "apt-install libcudnn8=8.9.7.29-1+cuda12.2 libcudnn8-dev=8.9.7.29-1+cuda12.2",
                ),
            ),
        )
        yield Scenario(
            "cuDNN 9 without cudnn_graph.h",
            without(cuda().cudnn("9.1.0"), "cudnn_graph.h"),
            finds=f"file:{include}/cudnn.h",
            ladder=(
                (
                    "low",
                    "by-hand cudnn-linux-x86_64-9.1.0.*_cuda12-archive.tar.xz developer.download.nvidia.com/compute/cudnn/redist/cudnn/linux-x86_64 python3 -m --no-deps nvidia-cudnn-cu12==9.1.0.*",
                ),
                (
                    "medium network",
                    "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so ... move-aside /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn_version.h (30)",
                    "apt-install libcudnn9-cuda-12 libcudnn9-dev-cuda-12",
                ),
            ),
        )
        yield Scenario(
            "cuDNN 7 without its header",
            without(cuda().cudnn("7.6.5"), "cudnn.h"),
            finds=f"file:{include}/cudnn.h",
            ladder=(
                (
                    "low",
                    "by-hand 7.6.5 developer.nvidia.com/cudnn -P /usr/local/cuda-12.2/targets/x86_64-linux/include/ /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn*.h",
                ),
            ),
        )
        yield Scenario(
            "only the library's package, and a toolkit",
            cuda().cudnn_packages(development=False),
            finds="package:libcudnn8",
            steps=("apt-install",),
            ladder=(
                ("low network", "apt-install libcudnn8-dev=8.9.7.29-1+cuda12.2"),
                (
                    "low",
                    "by-hand cudnn-linux-x86_64-8.9.7.*_cuda12-archive.tar.xz developer.download.nvidia.com/compute/cudnn/redist/cudnn/linux-x86_64 python3 -m --no-deps nvidia-cudnn-cu12==8.9.7.*",
                ),
            ),
        )
        yield Scenario(
            "the alternative is a broken link",
            cuda().cudnn_packages().link("/etc/alternatives/libcudnn", "/usr/include/x86_64-linux-gnu/cudnn_v7.h"),
            finds="file:/usr/include/cudnn.h",
            steps=("set-alternative",),
            ladder=(
                ("low", "set-alternative libcudnn "),
                ("low network", "apt-install libcudnn8-dev reinstall"),
                (
                    "low",
                    "by-hand cudnn-linux-x86_64-8.9.7.*_cuda12-archive.tar.xz developer.download.nvidia.com/compute/cudnn/redist/cudnn/linux-x86_64 python3 -m --no-deps nvidia-cudnn-cu12==8.9.7.*",
                ),
            ),
        )
        wheel = "/opt/train/lib/python3.11/site-packages/nvidia/cudnn/include"
        yield Scenario(
            "a wheel of the same version has the headers",
            without(
                cuda().cudnn("8.9.7").python_environment("/opt/train", ("nvidia_cudnn_cu12-8.9.7.29",), uid=0),
                "cudnn.h",
                *others,
            ).cudnn("8.9.7", lib="/opt/train/lib/python3.11/site-packages/nvidia/cudnn/lib", include=wheel),
            finds=f"file:{include}/cudnn.h",
            ladder=(
                (
                    "low",
                    "copy-file /opt/train/lib/python3.11/site-packages/nvidia/cudnn/include/cudnn.h /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn.h ... copy-file /opt/train/lib/python3.11/site-packages/nvidia/cudnn/include/cudnn_version.h /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn_version.h (9)",
                ),
                (
                    "low",
                    "by-hand /opt/train/lib/python3.11/site-packages/nvidia/cudnn/include -P /usr/local/cuda-12.2/targets/x86_64-linux/include/ /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn*.h",
                ),
                (
                    "medium network",
                    "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so ... move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn_ops_train.so.8.9.7 (21)",
                    "apt-install libcudnn8=8.9.7.29-1+cuda12.2 libcudnn8-dev=8.9.7.29-1+cuda12.2",
                ),
            ),
        )
        yield Scenario("the archive, complete", cuda().cudnn("8.9.7"))
        yield Scenario("cuDNN 7 has one header", cuda().cudnn("7.6.5"))
        yield Scenario("cuDNN 9, complete", cuda().cudnn("9.1.0"))
        yield Scenario("NVIDIA's packages", cuda().cudnn_packages())
        yield Scenario(
            "the library's package without a toolkit", Machine.ubuntu2404_gpu().cudnn_packages(development=False)
        )
        yield Scenario("no cuDNN", cuda())
        yield Scenario(
            "a header is not readable", cuda().cudnn("8.9.7").fifo(f"{include}/cudnn_version.h"), unknown=True
        )


def _development(runtime: CudnnPackage) -> str:
    """The -dev package of the same version: libcudnn8-dev, libcudnn9-dev-cuda-12."""
    stem, dash, rest = runtime.package.name.partition("-")
    return f"{stem}-dev{dash}{rest}={runtime.package.version}"


def _to_fetch(version: str, cuda: int | None) -> str:
    """The download that contains the headers, by NVIDIA's file names (8.9.7 stands for 8.9.7.29 and similar)."""
    if version_key(version) < (8, 5):  # older versions have no public archives of these names, and no wheels
        return f"NVIDIA's archive of cuDNN {version or 'in the version of the library'} (developer.nvidia.com/cudnn)"
    name = f"cudnn-linux-x86_64-{version}.*_cuda{cuda or 12}-archive.tar.xz"
    wheel = f"nvidia-cudnn-cu{cuda or 12}=={version}.*"
    return (
        f"{name} (at developer.download.nvidia.com/compute/cudnn/redist/cudnn/linux-x86_64), or from nvidia/cudnn/include "
        f"in the wheel (python3 -m pip download --no-deps '{wheel}')"
    )


def _whole(cudnn: Cudnn) -> CudnnHeaders | None:
    """Complete headers of a version whose library is installed."""
    majors = {m for f in cudnn.folders for m in f.majors}
    complete = (h for h in cudnn.headers if h.real and h.version and not h.missing and not h.problem)
    return next((h for h in complete if int(h.version.partition(".")[0]) in majors), None)
