"""cuDNN is built for another CUDA major version than the toolkit.

What you see
    "Could not load library libcublasLt.so.12. Error: libcublasLt.so.12: cannot open shared object file". The
    message comes from cuDNN, not from the program.
Why
    Each CUDA major version has its own build of cuDNN. Up to cuDNN 8, only the version of the package shows which
    ("+cuda12.0"), and apt installs the highest.
Repair
    Install library and headers of the build for the toolkit's CUDA version.
What the repair risks
    Programs that need cuDNN for the other CUDA version lose it. The two builds of cuDNN 8 cannot be installed
    together.
By hand
    apt list libcudnn8 -a; cd /usr/lib/x86_64-linux-gnu
    readelf -d libcudnn_ops_infer.so.8 | grep cublas
    v=8.9.7.29-1+cuda11.8
    apt-get install libcudnn8=$v libcudnn8-dev=$v
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    CudaToolkits,
    Cudnn,
    CudnnFolder,
    CudnnPackage,
    Evidence,
    Finding,
    LoaderConfig,
    Machine,
    Plan,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UserPaths,
    cudnn_package_names,
)


class CudnnWrongCudaMajor(Rule):
    id = "cudnn-wrong-cuda-major"
    title = "cuDNN is built for another CUDA major version than the toolkit"
    stage = Stage.PACKAGE_SET
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("tf-cannot-dlopen-gpu-libraries",)

    def detect(
        self, cudnn: Cudnn, toolkits: CudaToolkits, loader: LoaderConfig, paths: UserPaths | None
    ) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in cudnn.problems)
        yield from (Unknown(x.problem) for x in cudnn.libraries() if x.special)
        majors = {t.major for t in toolkits.toolkits if t.major}
        if not majors:
            return  # programs that bring their own CUDA are checked elsewhere
        reported = set()
        for package in cudnn.packages:
            built = int(package.cuda.partition(".")[0] or 0)
            if package.role == "runtime" and built and built not in majors and not self._found(built, loader):
                reported.add(package.package.name)
                yield self._package(package, built, toolkits)
        personal = {name for d in paths.libraries() for name in d.names} if paths else set()
        for folder in cudnn.folders:
            if not any(x.package in reported for x in folder.libraries):
                yield from self._needed(folder, toolkits, loader, personal)

    def _found(self, built: int, loader: LoaderConfig) -> bool:
        return any(loader.find(f"{stem}.so.{built}") for stem in ("libcublasLt", "libcublas"))

    def _package(self, package: CudnnPackage, built: int, toolkits: CudaToolkits) -> Finding:
        name, version = package.package.name, package.package.version
        known = [t.version for t in (toolkits.default, *toolkits.toolkits) if t and t.version]
        there = ", ".join(f"{t.version} in {t.path}" for t in toolkits.toolkits if t.version)
        return self.finding(
            f"package:{name}",
            f"{name} {version} is built for CUDA {built}; installed toolkit: CUDA {there}",
            Evidence("/var/lib/dpkg/status", f"{name} {version}"),
            *(Evidence(t.source, f"CUDA {t.release}") for t in toolkits.toolkits if t.version),
            major=package.major or 0,
            cuda=known[0],
        )

    def _needed(
        self, folder: CudnnFolder, toolkits: CudaToolkits, loader: LoaderConfig, personal: set[str]
    ) -> Iterator[Finding]:
        """Report a library of this directory that needs libcublas of another CUDA version."""
        own = toolkits.at(folder.toolkit) or toolkits.default
        for library in folder.libraries:
            for name in library.needed:
                match = re.fullmatch(r"libcublas(?:Lt)?\.so\.(\d+)(?:\.\d+)*", name, re.ASCII)
                anywhere = name in personal or any(name in t.provides for t in toolkits.toolkits) or loader.find(name)
                if not match or anywhere or not own or not own.major or int(match[1]) == own.major:
                    continue
                yield self.finding(
                    f"file:{folder.path}",
                    f"cuDNN in {folder.path} is built for CUDA {match[1]} (it needs {name}); installed toolkit: "
                    f"CUDA {own.version} in {own.path}",
                    Evidence(library.real, f"NEEDED {name}"),
                    Evidence(own.source, f"CUDA {own.release}"),
                    major=library.major or 0,
                    cuda=own.version,
                )
                return

    def remedies(self, finding: Finding, cudnn: Cudnn) -> Iterator[Plan]:
        major, cuda = finding.detail["major"], finding.detail["cuda"]
        has_dev = any(p.role in ("dev", "headers") for p in cudnn.packages)
        names = cudnn_package_names(major, cuda, development=has_dev)
        if names and finding.subject.startswith("package:"):
            yield Plan(
                f"Install cuDNN {major} for CUDA {cuda}",
                Risk.MEDIUM,
                (AptInstall(names), RefreshLoaderCache()),
                network=True,
            )
        build = cuda if major < 8 else cuda.partition(".")[0]
        yield Plan(
            f"Use a cuDNN that is built for CUDA {build}",
            Risk.MEDIUM,
            (ByHand(f"Replace it with the archive or package of cuDNN {major} with cuda{build} in its name"),),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/usr/lib/x86_64-linux-gnu"
        real = "/usr/local/cuda-11.8/targets/x86_64-linux/lib"

        def cuda(version: str = "11.8") -> Machine:
            return (
                Machine.ubuntu2404_gpu()
                .cuda_toolkit(version, f"{version}.89")
                .library(f"/usr/local/cuda-{version}/lib64/libcublasLt.so.{version.partition('.')[0]}")
            )

        yield Scenario(
            "apt installed the highest version",
            cuda().cudnn_packages("8.8.0.121-1+cuda12.0"),
            finds="package:libcudnn8",
            steps=("apt-install", "refresh-loader-cache"),
            ladder=(
                (
                    "medium network",
                    "apt-install libcudnn8=8.9.7.29-1+cuda11.8 libcudnn8-dev=8.9.7.29-1+cuda11.8",
                    "refresh-loader-cache",
                ),
                ("medium", "by-hand 8 cuda11"),
            ),
        )
        yield Scenario(
            "cuDNN 9 for CUDA 13, by its package name",
            cuda("12.2")
            .library(f"{lib}/libcudnn.so.9.12.0", "libcudnn.so.9")
            .package("libcudnn9-cuda-13", "9.12.0.46-1"),
            finds="package:libcudnn9-cuda-13",
            alone=False,
            ladder=(
                ("medium network", "apt-install libcudnn9-cuda-12", "refresh-loader-cache"),
                ("medium", "by-hand 9 cuda12"),
            ),  # its headers are missing, which is another finding
        )
        yield Scenario(
            "an archive for CUDA 12 in a toolkit 11.8",
            cuda()
            .cudnn("8.9.7")
            .library(f"{real}/libcudnn_ops_infer.so.8.9.7", "libcudnn_ops_infer.so.8", ["libcublasLt.so.12"]),
            finds=f"file:{real}",
            ladder=(("medium", "by-hand 8 cuda11"),),
        )
        yield Scenario(
            "the right build",
            cuda()
            .cudnn("8.9.7")
            .library(f"{real}/libcudnn_ops_infer.so.8.9.7", "libcudnn_ops_infer.so.8", ["libcublasLt.so.11"]),
        )
        yield Scenario("the package for the toolkit's CUDA", cuda("12.2").cudnn_packages("8.9.7.29-1+cuda12.2"))
        yield Scenario("another minor version of the same CUDA", cuda("12.4").cudnn_packages("8.9.7.29-1+cuda12.2"))
        yield Scenario(
            "two toolkits, the build is for the second",
            cuda().cuda_toolkit("12.2", default=False).cudnn_packages("8.9.7.29-1+cuda12.2"),
        )
        yield Scenario("no toolkit", Machine.ubuntu2404_gpu().cudnn_packages("8.8.0.121-1+cuda12.0"))
        yield Scenario("a library is not readable", cuda().cudnn().fifo(f"{real}/libcudnn.so.8.9.7"), unknown=True)
