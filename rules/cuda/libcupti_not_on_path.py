"""libcupti is installed, but the loader does not search its directory.

What you see
    TensorFlow logs "Could not load dynamic library 'libcupti.so.10.1'", and its profiler shows no GPU. Training
    works.
Why
    CUDA toolkits before 11 keep CUPTI in extras/CUPTI/lib64, apart from the other libraries. No package or
    installer adds that directory to the loader's list.
Repair
    Add the directory to /etc/ld.so.conf.d and run ldconfig.
What the repair risks
    All programs can then find libcupti. The directory contains nothing else.
By hand
    f=/etc/ld.so.conf.d/dlhealth-cupti.conf
    echo /usr/local/cuda/extras/CUPTI/lib64 > $f
    ldconfig
"""

import posixpath
from collections.abc import Iterator

from dlhealth.api import (
    CudaToolkits,
    Evidence,
    Finding,
    LoaderConfig,
    Machine,
    Plan,
    PythonEnvironments,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UserPaths,
    WriteFile,
)


class LibcuptiNotOnPath(Rule):
    id = "libcupti-not-on-path"
    title = "libcupti is installed, but the loader does not search its directory"
    stage = Stage.LOADER
    severity = Severity.WARNING

    def detect(
        self,
        toolkits: CudaToolkits,
        loader: LoaderConfig,
        paths: UserPaths | None,
        pythons: PythonEnvironments | None,
    ) -> Iterator[Finding | Unknown]:
        toolkit = toolkits.default
        if not toolkit or not toolkit.cupti:
            return
        if loader.cache_problem or loader.problems:
            yield Unknown(loader.cache_problem or "; ".join(loader.problems))
            return
        folder, name = posixpath.split(toolkit.cupti)
        personal = [d for d in paths.libraries() if name in d.names] if paths else []
        without = [u for u in paths.users if u not in {d.user for d in personal}] if paths else []
        if loader.find(name) or (personal and not without):
            return
        users = {e.path: e for e in pythons.environments if e.tensorflow and e.tensorflow.gpu} if pythons else {}
        yield self.finding(
            f"file:{toolkit.cupti}",
            f"{name} of CUDA {toolkit.version} is in {folder}, which the loader does not search: no profiling",
            Evidence(toolkit.cupti, f"{name} of CUDA {toolkit.release}"),
            Evidence("/etc/ld.so.conf", f"neither it nor the files it includes name {folder}"),
            *(Evidence(e.site, f"TensorFlow {e.tensorflow.version}") for e in users.values() if e.tensorflow),
            # Without a program that profiles, nobody misses it.
            severity=Severity.WARNING if users else Severity.NOTE,
            about=[f"user:{user}" for user in without] if personal else (),
            folder=folder,
        )

    def remedies(self, finding: Finding, loader: LoaderConfig) -> Iterator[Plan]:
        folder = finding.detail["folder"]
        entry = loader.configured(folder)
        write = () if entry else (WriteFile("/etc/ld.so.conf.d/dlhealth-cupti.conf", f"{folder}\n"),)
        yield Plan(f"Add {folder} to the loader's path", Risk.LOW, (*write, RefreshLoaderCache()))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def cuda(version: str) -> Machine:
            return Machine.ubuntu2404_gpu().cuda_toolkit(version, f"{version}.243")

        old = "/usr/local/cuda-10.1/extras/CUPTI/lib64"

        def apart() -> Machine:
            return (
                cuda("10.1")
                .library(f"{old}/libcupti.so.10.1.208", "libcupti.so.10.1")
                .link(f"{old}/libcupti.so.10.1", "libcupti.so.10.1.208")
            )

        yield Scenario(
            "CUDA 10.1 from its packages",
            apart(),
            finds=f"file:{old}/libcupti.so.10.1",
            steps=("write-file", "refresh-loader-cache"),
            ladder=(
                (
                    "low",
                    "write-file /etc/ld.so.conf.d/dlhealth-cupti.conf /usr/local/cuda-10.1/extras/CUPTI/lib64",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "CUDA 9.0, only the file without links",
            cuda("9.0").library("/usr/local/cuda-9.0/extras/CUPTI/lib64/libcupti.so.9.0.176", "libcupti.so.9.0"),
            finds="file:/usr/local/cuda-9.0/extras/CUPTI/lib64/libcupti.so.9.0.176",
            ladder=(
                (
                    "low",
                    "write-file /etc/ld.so.conf.d/dlhealth-cupti.conf /usr/local/cuda-9.0/extras/CUPTI/lib64",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "the loader does not search the toolkit",
            apart().remove("/etc/ld.so.conf.d/000_cuda.conf"),
            finds=f"file:{old}/libcupti.so.10.1",
            causes=("ldconfig-cuda-entry-missing",),
        )
        yield Scenario("the loader searches it", apart().file("/etc/ld.so.conf.d/cupti.conf", f"{old}\n"))
        yield Scenario(
            "everybody's LD_LIBRARY_PATH has it",
            apart().append("/home/alice/.bashrc", f"export LD_LIBRARY_PATH={old}:$LD_LIBRARY_PATH\n"),
        )
        yield Scenario(
            "newer toolkits keep it with the other libraries",
            cuda("12.2")
            .library("/usr/local/cuda-12.2/lib64/libcupti.so.12", "libcupti.so.12")
            .link("/usr/local/cuda-12.2/extras/CUPTI/lib64/libcupti.so.12", "../../../lib64/libcupti.so.12"),
        )
        yield Scenario("ld.so.conf is not readable", apart().fifo("/etc/ld.so.conf"), unknown=True)
