"""cuDNN's libraries have different versions.

What you see
    "symbol cudnn… version libcudnn_ops_infer.so.8 not defined in file libcudnn_ops_infer.so.8", "Could not load
    library libcudnn_cnn_train.so.8", or CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH.
Why
    From version 8 on, cuDNN is one small library and several large ones, which it opens by name when they are
    needed. All must have the same version.

    Versions get mixed when an archive is copied only partly over another one, or when an archive in the toolkit
    lies beside a package in /usr/lib.

    A Python package of cuDNN can lack a part, as nvidia-cudnn-cu13 9.20.0.48 lacks libcudnn_engines_tensor_ir. The
    loader then takes that part from the system.
Repair
    Move the files that belong to no package out of the way, reinstall one version, then run ldconfig. In a Python
    environment, install a complete version of the package.
What the repair risks
    Programs that were built with the removed version must work with the remaining one. Within one major version,
    the newer one serves both.
By hand
    ldconfig -p | grep libcudnn; ls -l /usr/local/cuda/lib64/libcudnn*
    # for each file that belongs to no package (dpkg -S FILE)
    mv FILE FILE.bak
    apt-get install --reinstall libcudnn8; ldconfig
"""

import posixpath
from collections.abc import Iterator, Sequence

from dlhealth.api import (
    AptInstall,
    ByHand,
    CudaToolkits,
    Cudnn,
    CudnnFolder,
    CudnnLibrary,
    Evidence,
    Finding,
    Machine,
    MoveAside,
    PipInstall,
    Plan,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    Severity,
    SplitWheels,
    Stage,
    Unknown,
    Unowned,
    cudnn_package_names,
)


class CudnnMixedSublibraries(Rule):
    id = "cudnn-mixed-sublibraries"
    title = "cuDNN's libraries have different versions"
    stage = Stage.LOADER
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    gpu_wheels = True
    explains = ("tf-cannot-dlopen-gpu-libraries", "cudnn-header-so-version-mismatch")

    def detect(self, cudnn: Cudnn, wheels: SplitWheels | None) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in cudnn.problems)
        yield from (Unknown(x.problem) for x in cudnn.libraries() if x.special)
        mixed = set()
        for folder in cudnn.folders:
            for major in sorted(folder.all_majors):
                libraries = _loaded([folder], major)
                if _differ(libraries):
                    mixed.add((folder.path, major))
                    yield self._finding(libraries, major, (), Severity.ERROR)
        found: dict[tuple[CudnnLibrary, ...], list[str]] = {}
        for user in ("", *sorted({u for f in cudnn.folders for u in f.users})):
            path = cudnn.search_path(user or None)
            for major in sorted({m for f in path for m in f.all_majors}):
                if not any((f.path, major) in mixed for f in path):
                    libraries = _loaded(path, major)
                    if not _differ(libraries):
                        libraries = _package_and_archive(path, major)
                    if libraries:
                        found.setdefault(libraries, []).append(user)
        for libraries, users in found.items():
            stems = [x.stem for x in libraries]
            # Two complete sets work as long as the order of the directories does not change.
            severity = Severity.WARNING if len(stems) > len(set(stems)) else Severity.ERROR
            yield self._finding(libraries, libraries[0].major or 0, () if "" in users else users, severity)
        for split in wheels.parts if wheels else ():
            environment, part = split.environment, split.part
            yield self.finding(
                environment.subject,
                f"{split.package} {split.version} in {environment.path} lacks {part.stem}; the loader takes {part.path} "
                f"of cuDNN {part.version} instead",
                Evidence(split.main, f"cuDNN {split.version}, without {part.stem} in the same directory"),
                Evidence(
                    part.path, f"cuDNN {part.version}{f', package {part.owner}' if isinstance(part.owner, str) else ''}"
                ),
                about=environment.about,
                python=environment.python,
                manager=environment.manager,
                requirement=f"{split.package}=={split.version}"
                if split.reinstall
                else _newer(split.package, part.version),
            )

    def _finding(
        self, libraries: Sequence[CudnnLibrary], major: int, users: Sequence[str], severity: Severity
    ) -> Finding:
        folders = sorted({posixpath.dirname(x.path) for x in libraries})
        versions = sorted({x.version for x in libraries if x.version})
        return self.finding(
            f"file:{folders[0]}",
            f"cuDNN {major} is installed in versions {' and '.join(versions)} in {' and '.join(folders)}"
            + ("" if severity is Severity.ERROR else " (a package and an archive)"),
            *(
                Evidence(x.path, f"{x.version}{f', package {x.package}' if x.package else ''}")
                for x in libraries
                if x.version
            ),
            severity=severity,
            about=[f"user:{user}" for user in users],
            major=major,
            folders=folders,
        )

    def remedies(self, finding: Finding, cudnn: Cudnn, toolkits: CudaToolkits) -> Iterator[Plan]:
        if requirement := finding.detail.get("requirement"):
            options = ("--force-reinstall", "--no-deps", requirement)
            summary = f"Reinstall {requirement} with all its files"
            manager = finding.detail["manager"]
            if manager in ("pip", "uv"):
                install = PipInstall(finding.detail["python"], options, uv=manager == "uv")
                yield Plan(summary, Risk.LOW, (install,), network=True)
            else:
                text = f"With this environment's pip: pip install --force-reinstall --no-deps '{requirement}'"
                yield Plan(summary, Risk.LOW, (ByHand(text),), network=True)
            return
        major, folders = finding.detail["major"], finding.detail["folders"]
        there = [x for f in cudnn.folders if f.path in folders for x in f.libraries if x.major == major]
        stray = [x for x in there if x.owner is Unowned.NOBODY]
        aside = tuple(MoveAside(x.path) for x in stray)
        package = cudnn.runtime_package(major)
        cuda = toolkits.default.version if toolkits.default else ""
        if package and len(folders) > 1:
            yield Plan(
                f"Move the files that belong to no package out of the way, and use {package.package.name}",
                Risk.MEDIUM,
                (*aside, RefreshLoaderCache()),
            )
        elif package:
            yield Plan(
                f"Reinstall {package.package.name}",
                Risk.MEDIUM,
                (*aside, AptInstall((package.package.name,), reinstall=True), RefreshLoaderCache()),
                network=True,
            )
        else:
            if names := cudnn_package_names(major, cuda, development=False):
                yield Plan(
                    f"Move these files out of the way and install cuDNN {major} from NVIDIA's repository",
                    Risk.MEDIUM,
                    (*aside, AptInstall(names), RefreshLoaderCache()),
                    network=True,
                )
            yield Plan(
                f"Copy one complete version of cuDNN {major}",
                Risk.MEDIUM,
                (
                    ByHand(
                        f"Remove the files of the other version, copy all of lib/libcudnn* from one archive of cuDNN "
                        f"{major} to {folders[0]} with cp -P, then run ldconfig"
                    ),
                ),
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib, real = "/usr/local/cuda/lib64", "/usr/local/cuda-12.2/targets/x86_64-linux/lib"

        def cuda() -> Machine:
            return Machine.ubuntu2404_gpu().cuda_toolkit("12.2")

        yield Scenario(
            "an archive copied partly over another one",
            cuda()
            .cudnn("8.9.7")
            .library(f"{lib}/libcudnn_cnn_train.so.8.6.0", "libcudnn_cnn_train.so.8")
            .link(f"{lib}/libcudnn_cnn_train.so.8", "libcudnn_cnn_train.so.8.6.0"),
            finds=f"file:{real}",
            steps=("move-aside", "apt-install", "refresh-loader-cache"),
            ladder=(
                (
                    "medium network",
                    "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so ... move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn_ops_train.so.8.9.7 (22)",
                    "apt-install libcudnn8=8.9.7.29-1+cuda12.2",
                    "refresh-loader-cache",
                ),
                ("medium", "by-hand lib/libcudnn* 8 /usr/local/cuda-12.2/targets/x86_64-linux/lib -P"),
            ),
        )
        yield Scenario(
            "a part missing in the toolkit comes from the package",
            cuda()
            .cudnn_packages("8.9.7.29-1+cuda12.2")
            .library(f"{lib}/libcudnn.so.8.6.0", "libcudnn.so.8")
            .link(f"{lib}/libcudnn.so.8", "libcudnn.so.8.6.0"),
            finds="file:/usr/lib/x86_64-linux-gnu",
            steps=("move-aside", "refresh-loader-cache"),
            ladder=(
                (
                    "medium",
                    "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so.8",
                    "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so.8.6.0",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "an older archive beside the package",
            cuda().cudnn("8.6.0").cudnn_packages("8.9.7.29-1+cuda12.2"),
            finds="file:/usr/lib/x86_64-linux-gnu",
            ladder=(
                (
                    "medium",
                    "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so ... move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn_ops_train.so.8.6.0 (21)",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "two versions of cuDNN 9 in one directory",
            cuda()
            .cudnn("9.1.0")
            .library(f"{lib}/libcudnn_graph.so.9.5.1", "libcudnn_graph.so.9")
            .link(f"{lib}/libcudnn_graph.so.9", "libcudnn_graph.so.9.5.1"),
            finds=f"file:{real}",
            ladder=(
                (
                    "medium network",
                    "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so ... move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn_ops.so.9.1.0 (25)",
                    "apt-install libcudnn9-cuda-12",
                    "refresh-loader-cache",
                ),
                ("medium", "by-hand lib/libcudnn* 9 /usr/local/cuda-12.2/targets/x86_64-linux/lib -P"),
            ),
        )
        yield Scenario(
            "a part of cuDNN 8 is a link to that of 9",
            cuda()
            .cudnn("8.9.7")
            .cudnn_packages("9.1.0.70-1")
            .remove(f"{real}/libcudnn_adv_infer.so.8")
            .link(f"{lib}/libcudnn_adv_infer.so.8", "/usr/lib/x86_64-linux-gnu/libcudnn_adv.so.9.1.0"),
            finds=f"file:{real}",
            causes=("cudnn-fake-symlink-wrong-library",),
            ladder=(
                (
                    "medium network",
                    "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so ... move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn_ops_train.so.8.9.7 (19)",
                    "apt-install libcudnn8=8.9.7.29-1+cuda12.2",
                    "refresh-loader-cache",
                ),
                ("medium", "by-hand lib/libcudnn* 8 /usr/local/cuda-12.2/targets/x86_64-linux/lib -P"),
            ),
        )
        site = "/home/alice/venv/lib/python3.11/site-packages"

        def wheel(version: str, *parts: str) -> Machine:
            machine = Machine.ubuntu2404_gpu().python_environment(packages=[f"nvidia_cudnn_cu12-{version}"])
            for name in ("libcudnn", *parts):
                machine.library(f"{site}/nvidia/cudnn/lib/{name}.so.9", f"{name}.so.9")
            return machine

        nine = (
            "libcudnn_graph", "libcudnn_ops", "libcudnn_cnn", "libcudnn_adv", "libcudnn_heuristic",
            "libcudnn_engines_precompiled", "libcudnn_engines_runtime_compiled",
        )  # fmt: skip
        lib64 = "/usr/lib/x86_64-linux-gnu"

        def system(machine: Machine, version: str, *stems: str) -> Machine:
            for stem in stems:
                machine.library(f"{lib64}/{stem}.so.{version}", f"{stem}.so.9")
                machine.link(f"{lib64}/{stem}.so.9", f"{stem}.so.{version}")
            return machine

        yield Scenario(
            "a wheel lacks a part, and the system has it in another version",
            system(wheel("9.20.0.48", *nine), "9.22.0", "libcudnn", *nine, "libcudnn_engines_tensor_ir"),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/venv/bin/python --force-reinstall --no-deps nvidia-cudnn-cu12>=9.22.0",
                ),
            ),
        )
        yield Scenario(
            "a part of the wheel was deleted",
            system(wheel("9.1.0.70", *nine[:3], *nine[4:]), "9.5.1", "libcudnn", *nine),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/venv/bin/python --force-reinstall --no-deps nvidia-cudnn-cu12==9.1.0.70",
                ),
            ),
        )
        yield Scenario(
            "only the system has a part that the wheel's version does not use",
            system(wheel("9.1.0.70", *nine), "9.22.0", "libcudnn", *nine, "libcudnn_engines_tensor_ir"),
        )
        yield Scenario(
            "the system's part has the wheel's version",
            system(wheel("9.20.0.48", *nine), "9.20.0", "libcudnn", *nine, "libcudnn_engines_tensor_ir"),
        )
        yield Scenario("one version", cuda().cudnn("8.9.7"))
        yield Scenario("the same version twice", cuda().cudnn("8.9.7").cudnn_packages("8.9.7.29-1+cuda12.2"))
        yield Scenario("8 and 9 by packages", cuda().cudnn_packages("8.9.7.29-1+cuda12.2").cudnn("9.1.0"))
        yield Scenario(
            "another version in a toolkit that the loader does not search",
            cuda()
            .cuda_toolkit("11.8", default=False)
            .cudnn("8.9.7")
            .cudnn("8.6.0", lib="/usr/local/cuda-11.8/lib64", include="/usr/local/cuda-11.8/include"),
        )
        yield Scenario(
            "a library is not readable", cuda().cudnn().fifo(f"{real}/libcudnn_ops_infer.so.8.9.7"), unknown=True
        )


def _loaded(path: Sequence[CudnnFolder], major: int) -> tuple[CudnnLibrary, ...]:
    """The file that the loader takes for each library of a major version in these directories."""
    stems = sorted({x.stem for f in path for x in f.libraries if x.major == major})
    chosen = (next((x for f in path if (x := f.active(stem, major))), None) for stem in stems)
    return tuple(x for x in chosen if x)


def _differ(libraries: Sequence[CudnnLibrary]) -> bool:
    return len({x.version for x in libraries if x.version}) > 1


def _package_and_archive(path: Sequence[CudnnFolder], major: int) -> tuple[CudnnLibrary, ...]:
    """The main libraries of two versions, one from a package and one from an archive."""
    mains = [x for f in path if (x := f.active("libcudnn", major)) and x.version]
    packaged = {x.package is not None or x.path.startswith("/usr/lib/") for x in mains}
    return tuple(mains) if _differ(mains) and len(packaged) > 1 else ()


def _newer(package: str, version: str) -> str:
    return f"{package}>={version}"
