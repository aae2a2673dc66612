"""The CUDA toolkit is newer than the driver supports.

What you see
    Every program built with this toolkit fails with "CUDA driver version is insufficient for CUDA runtime version"
    (error 35).
Why
    A driver runs programs built for its own CUDA version or an older one. From CUDA 11 on it also runs newer ones
    of the same major version ("minor version compatibility"). The "CUDA Version" that nvidia-smi prints is this
    limit, not the version of the toolkit.
Repair
    Use a toolkit that the driver supports (an installed one if there is one), or install a newer driver if one
    still supports the GPU.
What the repair risks
    Changing /usr/local/cuda affects everybody who uses that link. A new driver needs a reboot.
By hand
    nvidia-smi | grep CUDA; nvcc --version; ls -d /usr/local/cuda-*
    # either an older toolkit
    ln -sfn /usr/local/cuda-12.2 /usr/local/cuda
    # or a newer driver
    apt-get install nvidia-driver-NNN && reboot
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CudaDriver,
    CudaToolkits,
    DriverUpgrade,
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
    title = "The CUDA toolkit is newer than the driver supports"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    risk = Risk.MEDIUM

    def detect(
        self, toolkits: CudaToolkits, driver: CudaDriver, libcuda: LibcudaChoice | None
    ) -> Iterator[Finding | Unknown]:
        toolkit = toolkits.default
        if not toolkit or not driver.versions:
            return  # the missing driver is a problem of its own
        if not toolkit.version:
            yield Unknown(f"cannot find out the CUDA version of {toolkit.path}")
            return
        runs = driver.runs(toolkit.version)
        if runs is None:
            yield Unknown(
                f"dlhealth does not know yet whether driver {driver.numbers[0]} supports CUDA {toolkit.version}"
            )
        # With a cuda-compat library another limit applies.
        compat = libcuda and any(x.kind == "compat" for x in (*libcuda.personal, *libcuda.common[:1]))
        if runs is not False or compat:
            return
        fitting = [t for t in toolkits.toolkits if t.version and driver.runs(t.version)]
        version = driver.numbers[0]
        yield self.finding(
            f"file:{toolkit.path}",
            f"CUDA {toolkit.version} in {toolkit.path} needs "
            f"{f'driver {toolkit.needs_driver} or newer' if toolkit.needs_driver else 'a newer driver'}; "
            f"installed: {version}",
            Evidence(toolkit.source, f"CUDA {toolkit.release}"),
            *(Evidence(s, f"driver {v}") for v, s in driver.versions),
            severity=Severity.WARNING if fitting else Severity.ERROR,
            driver=version,
            needs=toolkit.needs_driver,
        )

    def remedies(
        self, finding: Finding, toolkits: CudaToolkits, driver: CudaDriver, upgrade: DriverUpgrade
    ) -> Iterator[Plan]:
        link = next((x for x in toolkits.links if x.path == "/usr/local/cuda"), None)
        for toolkit in toolkits.toolkits:
            if link and toolkit.nvcc and not toolkit.distribution and driver.runs(toolkit.version):
                change = SetAlternative("cuda", toolkit.path) if link.alternative else MakeLink(link.path, toolkit.path)
                yield Plan(f"Point /usr/local/cuda to CUDA {toolkit.version}", Risk.MEDIUM, (change,))
        needs, running = finding.detail["needs"], finding.detail["driver"]
        known = max_cuda(running)
        newest = f" (up to CUDA {known[0]}.{known[1]})" if known else ""
        yield Plan(
            "Install an older toolkit or a newer driver",
            Risk.MEDIUM,
            (
                ByHand(f"install a CUDA toolkit that driver {running} supports{newest}"),
                ByHand(f"or, if the newer driver supports your GPU: {upgrade.to(needs)}"),
            ),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "CUDA 12.4 on driver 470",
            Machine.debian12().gpu().debian_driver("470.256.02").cuda_toolkit("12.4", "12.4.131"),
            finds="file:/usr/local/cuda-12.4",
            alone=False,
            ladder=(("medium", "by-hand 470.256.02 11.4", "by-hand 525.60.13"),),  # Debian 12 does not ship that driver
        )
        yield Scenario(
            "CUDA 13 on driver 550",
            Machine.ubuntu2404_gpu().cuda_toolkit("13.0", "13.0.88"),
            finds="file:/usr/local/cuda-13.0",
            alone=False,  # CUDA 13 does not compile for this GPU, either
            ladder=(("medium", "by-hand 550.120 12.4", "by-hand 580"),),
        )
        yield Scenario(
            "CUDA 13 is the default, and an older toolkit fits",
            Machine.ubuntu2404_gpu().cuda_toolkit("12.2", default=False).cuda_toolkit("13.0", "13.0.88"),
            finds="file:/usr/local/cuda-13.0",
            steps=("make-link",),
            ladder=(
                ("medium", "make-link /usr/local/cuda /usr/local/cuda-12.2"),
                ("medium", "by-hand 550.120 12.4", "by-hand 580"),
            ),
        )
        yield Scenario(
            "a newer minor version of the same major version", Machine.debian12_gpu().cuda_toolkit("12.9", "12.9.86")
        )
        yield Scenario("an old toolkit", Machine.ubuntu2404_gpu().cuda_toolkit("8.0", "8.0.61"))
        yield Scenario("no driver: a build container", Machine.debian12().cuda_toolkit("13.0", "13.0.88"))
        yield Scenario(
            "a toolkit newer than our table",
            Machine.ubuntu2404().gpu().ubuntu_driver("650.10").cuda_toolkit("19.0", "19.0.10"),
            unknown=True,
        )
