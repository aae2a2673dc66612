"""A file named libcudnn is a different library.

What you see
    Nothing at first: a program that lacked libcudnn.so.8 starts. Then "undefined symbol", "version
    libcudnn_ops_infer.so.8 not defined", a crash, or convolutions that never run on the GPU.
Why
    Many guides suggest a link or a copy with the missing name, made from another version of cuDNN or even from
    libcuda.so. The loader only checks the name.
Repair
    Move the file with the wrong name out of the way, install the real library, then run ldconfig.
What the repair risks
    A program that only needed the name to start fails again and names the library that it lacks.
By hand
    f=/usr/local/cuda/lib64/libcudnn.so.8
    readelf -d $f | grep SONAME; readlink -f $f
    mv $f /root; apt-get install libcudnn8; ldconfig
"""

import posixpath
from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    CudaToolkits,
    Cudnn,
    CudnnFolder,
    CudnnLibrary,
    Evidence,
    Finding,
    Machine,
    MakeLink,
    MoveAside,
    Plan,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    cudnn_package_names,
)


class CudnnFakeSymlinkWrongLibrary(Rule):
    id = "cudnn-fake-symlink-wrong-library"
    title = "A file named libcudnn is a different library"
    stage = Stage.LOADER
    severity = Severity.ERROR
    explains = ("cudnn-runtime-missing", "cudnn-mixed-sublibraries", "cudnn-major-8-vs-9", "cudnn-wrong-cuda-major")

    def detect(self, cudnn: Cudnn) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in cudnn.problems)
        false = {x.path for x in cudnn.libraries() if not x.special and _false(x)}
        for library in cudnn.libraries():
            if library.special:
                yield Unknown(library.problem)
            elif (why := _false(library)) and _next(library) not in false:
                leads = f"link to {library.real or f'{library.target}, which does not exist'}"
                yield self.finding(
                    f"file:{library.path}",
                    f"{library.path} is not {library.name}: {why}",
                    Evidence(library.path, leads if library.target is not None else "a file"),
                    *([Evidence(library.real, f"SONAME {library.soname}")] if library.soname else []),
                    *([Evidence(library.real, f"belongs to package {library.package}")] if library.package else []),
                    path=library.path,
                    folder=posixpath.dirname(library.path),
                    major=library.major,
                )

    def remedies(self, finding: Finding, cudnn: Cudnn, toolkits: CudaToolkits) -> Iterator[Plan]:
        path = finding.detail["path"]
        folder = next((f for f in cudnn.folders if f.path == finding.detail["folder"]), None)
        right = _right(folder, path) if folder else None
        if right:
            yield Plan(f"Point {path} to {right}", Risk.LOW, (MakeLink(path, right), RefreshLoaderCache()))
            return
        major = finding.detail["major"]
        cuda = toolkits.default.version if toolkits.default else ""
        if major and (names := cudnn_package_names(major, cuda, development=False)):
            yield Plan(
                f"Move {path} out of the way and install the real cuDNN {major}",
                Risk.LOW,
                (MoveAside(path), AptInstall(names), RefreshLoaderCache()),
                network=True,
            )
        yield Plan(
            f"Move {path} out of the way",
            Risk.LOW,
            (MoveAside(path), RefreshLoaderCache()),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/usr/lib/x86_64-linux-gnu"
        real = "/usr/local/cuda-12.2/targets/x86_64-linux/lib"

        def cuda() -> Machine:
            return Machine.ubuntu2404_gpu().cuda_toolkit("12.2")

        yield Scenario(
            "libcuda under the name libcudnn",
            Machine.ubuntu2404_gpu().link(f"{lib}/libcudnn.so.8", f"{lib}/libcuda.so.550.120"),
            finds=f"file:{lib}/libcudnn.so.8",
            steps=("move-aside", "apt-install", "refresh-loader-cache"),
            ladder=(
                (
                    "low network",
                    "move-aside /usr/lib/x86_64-linux-gnu/libcudnn.so.8",
                    "apt-install libcudnn8",
                    "refresh-loader-cache",
                ),
                ("low", "move-aside /usr/lib/x86_64-linux-gnu/libcudnn.so.8", "refresh-loader-cache"),
            ),
        )
        yield Scenario(
            "the other library is missing too",
            cuda().cudnn("8.9.7").link(f"{lib}/libcudnn.so.7", f"{lib}/libcuda.so.515.43.04"),
            finds=f"file:{lib}/libcudnn.so.7",
            steps=("move-aside", "refresh-loader-cache"),
            ladder=(("low", "move-aside /usr/lib/x86_64-linux-gnu/libcudnn.so.7", "refresh-loader-cache"),),
        )
        yield Scenario(
            "a copy of cuDNN 8 under the name of 5",
            cuda().cudnn("8.0.5").library("/usr/local/cuda/lib64/libcudnn.so.5", "libcudnn.so.8"),
            finds=f"file:{real}/libcudnn.so.5",
            ladder=(
                (
                    "low",
                    "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so.5",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "cuDNN 9 under the name of 8",
            Machine.ubuntu2404_gpu()
            .library(f"{lib}/libcudnn.so.9.1.0", "libcudnn.so.9")
            .link(f"{lib}/libcudnn.so.9", "libcudnn.so.9.1.0")
            .link(f"{lib}/libcudnn.so.8", "libcudnn.so.9"),
            finds=f"file:{lib}/libcudnn.so.8",
        )
        yield Scenario(
            "a chain of links ends in a wrong file",
            cuda().library(f"{lib}/libcudnn.so.8", "libcudnn.so.9").link(f"{lib}/libcudnn.so", "libcudnn.so.8"),
            finds=f"file:{lib}/libcudnn.so.8",
            alone=False,
            ladder=(
                (
                    "low network",
                    "move-aside /usr/lib/x86_64-linux-gnu/libcudnn.so.8",
                    "apt-install libcudnn8=8.9.7.29-1+cuda12.2",
                    "refresh-loader-cache",
                ),
                ("low", "move-aside /usr/lib/x86_64-linux-gnu/libcudnn.so.8", "refresh-loader-cache"),
            ),  # the headers are missing too
        )
        yield Scenario("a correct chain of links", cuda().cudnn("8.9.7"))
        yield Scenario("NVIDIA's packages", cuda().cudnn_packages())
        yield Scenario("8 and 9 side by side", cuda().cudnn("9.1.0").cudnn_packages())
        yield Scenario("the library is not readable", cuda().cudnn().fifo(f"{real}/libcudnn.so.8.9.7"), unknown=True)


def _false(library: CudnnLibrary) -> str:
    """Why a name does not fit the file behind it; "" if it fits. A file without a SONAME is judged by its own name."""
    behind = posixpath.basename(library.real or library.target or "")
    stem, _, number = (library.soname or behind).partition(".so")
    if not library.real and stem == library.stem:
        return ""  # a broken link to a library of the same name was right once
    if stem != library.stem:
        return f"it is {library.soname or behind}"
    major = library.suffix.partition(".")[0]
    other = number.lstrip(".").partition(".")[0]
    if major and other and major != other:
        return f"it is {library.soname or behind}"
    return ""


def _next(library: CudnnLibrary) -> str:
    """The direct target of a link; "" for a file."""
    target = library.target
    return posixpath.normpath(posixpath.join(posixpath.dirname(library.path), target)) if target else ""


def _right(folder: CudnnFolder, path: str) -> str | None:
    """The newest file of that library in the same directory."""
    name = posixpath.basename(path)
    files = [x for x in folder.libraries if x.name.startswith(f"{name}.") and x.target is None and not _false(x)]
    return max(files, key=lambda x: [int(n) for n in x.suffix.split(".")]).name if files else None
