"""The CUDA toolkit is newer than the driver can run.

What you see
    "CUDA driver version is insufficient for CUDA runtime version" (error 35) from everything that this toolkit builds.
Why
    A driver runs programs of its own CUDA version and older ones, and from CUDA 11 on newer ones of the same major
    version ("minor version compatibility"). What nvidia-smi prints as "CUDA Version" is that limit, not the toolkit.
Repair
    Use a toolkit that the driver runs: one that is installed already, or an older one; or install a newer driver, as
    far as the GPU is supported by one.
What the repair risks
    Another toolkit behind /usr/local/cuda concerns everybody who uses that link. A new driver needs a reboot.
By hand
    nvidia-smi | grep 'CUDA'; nvcc --version; ls -d /usr/local/cuda-*
    ln -sfn /usr/local/cuda-12.2 /usr/local/cuda, or a newer driver: apt-get install nvidia-driver-NNN; reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CudaDriver,
    CudaToolkits,
    Evidence,
    Finding,
    LibcudaChoice,
    Machine,
    MakeLink,
    Plan,
    Risk,
    Rule,
    Scenario,
    SetAlternative,
    Severity,
    Stage,
    Unknown,
    max_cuda,
)


class CudaRuntimeNewerThanDriver(Rule):
    id = "cuda-runtime-newer-than-driver"
    title = "The CUDA toolkit is newer than the driver can run"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    risk = Risk.MEDIUM

    def detect(
        self, toolkits: CudaToolkits, driver: CudaDriver, libcuda: LibcudaChoice | None
    ) -> Iterator[Finding | Unknown]:
        toolkit = toolkits.default
        if not toolkit or not driver.versions:
            return  # without a driver, the missing driver is the fault
        if not toolkit.version:
            yield Unknown(f"the CUDA version of {toolkit.path} can't be told")
            return
        runs = driver.runs(toolkit.version)
        if runs is None:
            yield Unknown(f"whether driver {driver.numbers[0]} runs CUDA {toolkit.version} is not in our table")
        # A cuda-compat library that the loader takes makes its own rules.
        compat = libcuda and any(x.kind == "compat" for x in (*libcuda.personal, *libcuda.common[:1]))
        if runs is not False or compat:
            return
        fitting = [t for t in toolkits.toolkits if t.version and driver.runs(t.version)]
        version = driver.numbers[0]
        yield self.finding(
            f"file:{toolkit.path}",
            f"CUDA {toolkit.version} in {toolkit.path} needs driver {toolkit.needs_driver or 'a newer one'} or newer; "
            f"this one is {version}",
            Evidence(toolkit.source, f"CUDA {toolkit.release}"),
            *(Evidence(s, f"driver {v}") for v, s in driver.versions),
            severity=Severity.WARNING if fitting else Severity.ERROR,
            driver=version,
            needs=toolkit.needs_driver,
        )

    def remedies(self, finding: Finding, toolkits: CudaToolkits, driver: CudaDriver) -> Iterator[Plan]:
        link = next((x for x in toolkits.links if x.path == "/usr/local/cuda"), None)
        for toolkit in toolkits.toolkits:
            if link and toolkit.nvcc and not toolkit.distribution and driver.runs(toolkit.version):
                change = SetAlternative("cuda", toolkit.path) if link.alternative else MakeLink(link.path, toolkit.path)
                yield Plan(f"Let /usr/local/cuda lead to CUDA {toolkit.version}", Risk.MEDIUM, (change,))
        needs, running = finding.detail["needs"] or "newer", finding.detail["driver"]
        known = max_cuda(running)
        newest = f" (up to CUDA {known[0]}.{known[1]})" if known else ""
        yield Plan(
            "Choose between an older toolkit and a newer driver",
            Risk.MEDIUM,
            (
                ByHand(
                    f"Install a CUDA toolkit that driver {running} runs{newest}, or, if the GPU is supported by it, a "
                    f"driver {needs} or newer from the repository that the present one came from"
                ),
            ),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "CUDA 12.4 on driver 470",
            Machine.debian12().gpu().debian_driver("470.256.02").cuda_toolkit("12.4", "12.4.131"),
            finds="file:/usr/local/cuda-12.4",
            alone=False,  # that driver is not the one of Debian 12
        )
        yield Scenario(
            "CUDA 13 on driver 550",
            Machine.ubuntu2404_gpu().cuda_toolkit("13.0", "13.0.88"),
            finds="file:/usr/local/cuda-13.0",
        )
        yield Scenario(
            "CUDA 13 by default, and one that fits",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2", default=False).cuda_toolkit("13.0", "13.0.88"),
            finds="file:/usr/local/cuda-13.0",
            steps=("make-link",),
        )
        yield Scenario(
            "a newer minor version of the same major", Machine.debian12_gpu().cuda_toolkit("12.9", "12.9.86")
        )
        yield Scenario("an old toolkit", Machine.ubuntu2404_gpu().cuda_toolkit("8.0", "8.0.61"))
        yield Scenario("no driver: a container to build in", Machine.debian12().cuda_toolkit("13.0", "13.0.88"))
        yield Scenario(
            "a toolkit of the future",
            Machine.ubuntu2404().gpu().ubuntu_driver("650.10").cuda_toolkit("19.0", "19.0.10"),
            unknown=True,
        )
