"""cuDNN's header and library have different versions.

What you see
    "cuDNN version mismatch: PyTorch was compiled against 7102 but linked against 7600", undefined symbols when a
    program is linked, or CUDNN_STATUS_VERSION_MISMATCH when it runs.
Why
    Header and library come from different installations: for example a package beside an old archive in
    /usr/local/cuda, or the alternative `libcudnn` set to the other major version.

    A header with a lower minor version than the library is compatible and not reported.
Repair
    Keep one installation: move the archive's headers out of the way if a package has its own, or bring header and
    library to the same version.
What the repair risks
    Programs that were built with the removed header must be rebuilt.
By hand
    cd /usr/local/cuda
    grep -n 'define CUDNN_M' include/cudnn*.h /usr/include/cudnn*.h
    ls -l lib64/libcudnn*
    # if a package has its own headers
    mkdir /root/cudnn-headers; mv include/cudnn*.h /root/cudnn-headers
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    Cudnn,
    CudnnHeaders,
    CudnnLibrary,
    Evidence,
    Finding,
    Machine,
    MoveAside,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    Unowned,
)


class CudnnHeaderSoVersionMismatch(Rule):
    id = "cudnn-header-so-version-mismatch"
    title = "cuDNN's header and library have different versions"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING

    def detect(self, cudnn: Cudnn) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in cudnn.problems)
        yield from (Unknown(h.problem) for h in cudnn.headers if h.problem)
        yield from (Unknown(x.problem) for x in cudnn.libraries() if x.special)
        for headers in cudnn.headers:
            libraries = _linked(headers, cudnn)
            if not headers.version or not libraries or any(_compatible(headers.version, x.version) for x in libraries):
                continue
            same_major = any(_numbers(x.version)[0] == _numbers(headers.version)[0] for x in libraries)
            versions = " and ".join(sorted({x.version for x in libraries}))
            yield self.finding(
                f"file:{headers.main}",
                f"{headers.main} is from cuDNN {headers.version}, but the library is from {versions}",
                Evidence(headers.source, f"cuDNN {headers.version}"),
                *(
                    Evidence(x.path, f"cuDNN {x.version}{f', package {x.package}' if x.package else ''}")
                    for x in libraries
                ),
                severity=Severity.WARNING if same_major else Severity.ERROR,
                folder=headers.folder,
                library=libraries[0].path,
            )

    def remedies(self, finding: Finding, cudnn: Cudnn) -> Iterator[Plan]:
        headers = cudnn.headers_in(finding.detail["folder"])
        library = next(x for x in cudnn.libraries() if x.path == finding.detail["library"])
        packages = [p for p in cudnn.packages if p.role in ("dev", "headers")]
        runtime = next((p for p in cudnn.packages if p.package.name == library.package), None)
        if headers and headers.owner is Unowned.NOBODY and packages and not headers.folder.startswith("/usr/include"):
            names = ("cudnn.h", *headers.others)
            yield Plan(
                "Move the headers that belong to no package out of the way",
                Risk.LOW,
                tuple(MoveAside(f"{headers.folder}/{name}") for name in names),
            )
        if runtime:
            dev = next((p for p in packages if p.major == runtime.major), None)
            name = (
                dev.package.name if dev else runtime.package.name.replace(f"{runtime.major}", f"{runtime.major}-dev", 1)
            )
            yield Plan(
                f"Install the headers of cuDNN {runtime.package.version}",
                Risk.LOW,
                (AptInstall((f"{name}={runtime.package.version}",)),),
                network=True,
            )
        yield Plan(
            f"Copy the headers of cuDNN {library.version}",
            Risk.LOW,
            (
                ByHand(
                    f"Copy include/cudnn*.h from NVIDIA's archive of cuDNN {library.version} to {finding.detail['folder']}, "
                    "or replace the libraries with those of the header's version"
                ),
            ),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        include = "/usr/local/cuda-12.2/targets/x86_64-linux/include"

        def cuda() -> Machine:
            return Machine.ubuntu2404_gpu().cuda_toolkit("12.2")

        yield Scenario(
            "an old archive's headers beside the package's library",
            cuda().cudnn_packages("8.9.7.29-1+cuda12.2").file(f"{include}/cudnn.h", header(7, 6, 5)),
            finds=f"file:{include}/cudnn.h",
            steps=("move-aside",),
            ladder=(
                ("low", "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn.h"),
                ("low network", "apt-install libcudnn8-dev=8.9.7.29-1+cuda12.2"),
                ("low", "by-hand include/cudnn*.h 8.9.7 /usr/local/cuda-12.2/targets/x86_64-linux/include"),
            ),
        )
        yield Scenario(
            "the header is newer than the library",
            cuda().cudnn("8.6.0").file(f"{include}/cudnn_version.h", header(8, 9, 7)),
            finds=f"file:{include}/cudnn.h",
            ladder=(("low", "by-hand include/cudnn*.h 8.6.0 /usr/local/cuda-12.2/targets/x86_64-linux/include"),),
        )
        yield Scenario(
            "library of cuDNN 9, headers of 8",
            cuda().cudnn("8.9.7", lib="/opt/aside").cudnn("9.1.0", include="/opt/aside"),
            finds=f"file:{include}/cudnn.h",
            ladder=(("low", "by-hand include/cudnn*.h 9.1.0 /usr/local/cuda-12.2/targets/x86_64-linux/include"),),
        )
        yield Scenario("the same version", cuda().cudnn("8.9.7"))
        yield Scenario(
            "the header's minor version is lower",
            cuda().cudnn("8.9.7").file(f"{include}/cudnn_version.h", header(8, 6, 0)),
        )
        yield Scenario("8 and 9 side by side, each with its own headers", cuda().cudnn("9.1.0").cudnn_packages())
        yield Scenario(
            "another toolkit has another version",
            cuda()
            .cudnn("8.9.7")
            .cuda_toolkit("11.8", default=False)
            .cudnn("8.6.0", lib="/usr/local/cuda-11.8/lib64", include="/usr/local/cuda-11.8/include"),
        )
        yield Scenario("a header is not readable", cuda().cudnn().fifo(f"{include}/cudnn_version.h"), unknown=True)


def header(major: int, minor: int, patch: int) -> str:
    """The version macros of a header."""
    return f"#define CUDNN_MAJOR {major}\n#define CUDNN_MINOR {minor}\n#define CUDNN_PATCHLEVEL {patch}\n"


def _linked(headers: CudnnHeaders, cudnn: Cudnn) -> list[CudnnLibrary]:
    """The libraries that programs compiled with this header use: that of the same installation, else what the loader
    finds."""
    own = [f for f in cudnn.folders if headers.folder in f.includes]
    for folders in ([f for f in own if f.for_development], own, cudnn.search_path()):
        mains = [x for f in folders for x in f.libraries if x.stem == "libcudnn" and x.version and x.real]
        linked = [x for x in mains if not x.suffix]
        if mains:
            return linked or mains
    return []


def _compatible(header: str, library: str) -> bool:
    (major, *minor), (other, *newer) = _numbers(header), _numbers(library)
    return major == other and minor[:1] <= newer[:1]


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
