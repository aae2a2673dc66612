"""PyTorch is built for a CUDA version that the driver does not support.

What you see
    torch.cuda.is_available() is False; "The NVIDIA driver on your system is too old (found version 12020). Please
    update your GPU driver". nvidia-smi works.
Why
    `pip install torch` installs the newest build, and its CUDA version needs a newer driver. A driver runs every
    older CUDA version and, from CUDA 11 on, also later minor versions of the same major version (with limits), but
    no newer major version.

    The number in the message is the CUDA version that the driver supports: 12020 is CUDA 12.2. The installed nvcc
    does not matter: PyTorch brings its own libraries.
Repair
    Install a PyTorch for a CUDA version that this driver supports, into this environment.
What the repair risks
    A download of several gigabytes. Packages that need one version of PyTorch may have to change too. The driver
    stays unchanged.
By hand
    cd /path/to/venv
    index=https://download.pytorch.org/whl/cu126
    bin/python -m pip install torch==2.9.1+cu126 --index-url $index
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    CudaDriver,
    DriverUpgrade,
    Evidence,
    Finding,
    Gpus,
    Machine,
    Plan,
    PythonEnvironments,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    branch_of,
    fitting_wheel,
    lowest_driver,
    replace_torch,
)


class TorchWheelNewerThanDriver(Rule):
    id = "torch-wheel-newer-than-driver"
    title = "PyTorch is built for a CUDA version that the driver does not support"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    gpu_wheels = True
    # PyTorch refuses the driver before it searches code for the GPU.
    explains = ("torch-no-kernel-image-new-gpu", "torch-no-kernel-image-old-gpu")

    def detect(
        self, environments: PythonEnvironments, gpus: Gpus | None, driver: CudaDriver
    ) -> Iterator[Finding | Unknown]:
        if not driver.versions or (gpus and all(gpu.driver == "vfio-pci" for gpu in gpus.gpus)):
            return
        for problem in environments.problems:
            yield Unknown(problem)
        for environment in environments.environments:
            torch = environment.torch
            if torch is None or torch.cuda == "":
                continue
            runs = driver.runs(torch.cuda) if torch.cuda else None
            if runs is None:
                what = f"CUDA {torch.cuda}" if torch.cuda else "its CUDA version is unknown"
                yield Unknown(
                    f"{environment.path}: dlhealth does not know whether the driver supports PyTorch {torch.version} ({what})",
                    environment.subject,
                )
            elif not runs:
                needed = lowest_driver(torch.cuda or "") or ""
                version, source = driver.versions[0]
                yield self.finding(
                    environment.subject,
                    f"PyTorch {torch.version} in {environment.path} is built for CUDA {torch.cuda}, which needs "
                    f"{f'driver {needed} or newer' if needed else 'a newer driver'}; installed: {version}",
                    Evidence(torch.source, torch.shows),
                    Evidence(source, version),
                    about=environment.about,
                    site=environment.site,
                    needed=needed,
                )

    def remedies(
        self,
        finding: Finding,
        environments: PythonEnvironments,
        gpus: Gpus | None,
        driver: CudaDriver,
        upgrade: DriverUpgrade,
    ) -> Iterator[Plan]:
        environment = environments.at(finding.detail["site"])
        if environment is None or environment.torch is None:
            return
        installed = environment.torch.version
        usable = [g for g in gpus.gpus if g.driver != "vfio-pci"] if gpus else []
        wheel = fitting_wheel(installed, driver.numbers, [g.capability for g in usable if g.capability])
        yield replace_torch(
            environment.path,
            environment.python,
            environment.manager,
            installed,
            environment.packages,
            (wheel.version, wheel.tag) if wheel else None,
        )
        needed = branch_of(finding.detail["needed"]) or 0
        if all(g.last_branch is None or g.last_branch >= needed for g in usable):
            step = ByHand(upgrade.to(str(needed or ""), f"nvidia-driver-{needed}" if needed else ""))
            yield Plan("Upgrade the driver", Risk.HIGH, (step,), reboot=upgrade.reboots, network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        yield Scenario(
            "the default wheel of CUDA 13 on driver 535",
            Machine.debian12_gpu().gpu("2204").python_environment(torch="2.9.1+cu130", cuda="13.0"),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/venv/bin/python torch==2.9.1+cu128 --index-url https://download.pytorch.org/whl/cu128",
                ),
                ("high reboot network", "by-hand 580 nvidia-driver-580"),
            ),
        )
        yield Scenario(
            "CUDA 12 on driver 470",
            Machine.ubuntu2404().gpu().ubuntu_driver("470.256.02").python_environment(torch="2.3.0", cuda="12.1"),
            finds="python:/home/alice/venv",
            ladder=(
                (
                    "low network",
                    "pip-install /home/alice/venv/bin/python torch==2.3.0+cu118 --index-url https://download.pytorch.org/whl/cu118",
                ),
                ("high reboot network", "by-hand 525 nvidia-driver-525"),
            ),
        )
        yield Scenario(
            "in /opt, known only by the package's name",
            Machine.debian12_gpu()
            .gpu("2204")
            .python_environment("/opt/train", ["numpy-1.26.4", "torch-2.10.0+cu130"], uid=0),
            finds="python:/opt/train",
            ladder=(
                (
                    "low network",
                    "pip-install /opt/train/bin/python torch==2.10.0+cu128 --index-url https://download.pytorch.org/whl/cu128",
                ),
                ("high reboot network", "by-hand 580 nvidia-driver-580"),
            ),
        )
        yield Scenario(
            "a later minor version of the same major version",
            Machine.debian12_gpu().gpu("2204").python_environment(torch="2.8.0+cu128", cuda="12.8"),
        )
        yield Scenario(
            "an older toolkit does not matter",
            Machine.debian12_gpu().cuda_toolkit("11.8", "11.8.89").python_environment(torch="2.3.0+cu121", cuda="12.1"),
        )
        yield Scenario(
            "the new driver waits for a reboot",
            Machine.ubuntu2404()
            .gpu("2204")
            .ubuntu_driver("580.95.05", loaded=False)
            .loaded_driver("550.120")
            .python_environment(torch="2.9.1+cu130", cuda="13.0"),
        )
        yield Scenario("without a driver", Machine.debian12().python_environment(torch="2.9.1+cu130", cuda="13.0"))
        yield Scenario("built without CUDA", Machine.debian12_gpu().python_environment(torch="2.3.0+cpu"))
        yield Scenario(
            "without a sign of its CUDA version",
            Machine.debian12_gpu().python_environment(packages=["torch-2.3.0"]),
            unknown=True,
        )
