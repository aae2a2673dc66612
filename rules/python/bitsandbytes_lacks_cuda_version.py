"""bitsandbytes was not built for the CUDA version of PyTorch.

What you see
    CUDA Setup failed despite GPU being available

    Configured CUDA binary not found at …/bitsandbytes/libbitsandbytes_cuda124.so

    The installed version of bitsandbytes was compiled without GPU support
Why
    bitsandbytes has one library for each version of CUDA, and loads the one for PyTorch's version. An older release has
    none for a newer CUDA. The driver and the CUDA toolkit are not the cause.
Repair
    Upgrade bitsandbytes in this environment.
What the repair risks
    Low: only this environment changes. A package that pins the old bitsandbytes may need an update.
By hand
    python -c 'import torch; print(torch.version.cuda)'
    ls "$(python -c 'import site; print(site.getsitepackages()[0])')/bitsandbytes"
    pip install --upgrade bitsandbytes
"""

from collections.abc import Iterator

from dlhealth.api import (
    BitsandbytesBuild,
    BitsandbytesBuilds,
    Evidence,
    Finding,
    Machine,
    Plan,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UsableGpu,
    pip_install,
)


class BitsandbytesLacksCudaVersion(Rule):
    id = "bitsandbytes-lacks-cuda-version"
    title = "bitsandbytes was not built for the CUDA version of PyTorch"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    gpu_wheels = True

    def detect(self, bitsandbytes: BitsandbytesBuilds, gpu: UsableGpu) -> Iterator[Finding | Unknown]:
        if not gpu.source:
            return
        yield from (Unknown(problem) for problem in bitsandbytes.problems)
        for build in bitsandbytes.builds:
            environment = build.environment
            torch = environment.torch
            if torch is None or not torch.cuda or torch.cuda in build.versions:
                continue
            version = environment.packages["bitsandbytes"]
            yield self.finding(
                environment.subject,
                f"bitsandbytes {version} in {environment.path} has no library for CUDA {torch.cuda} of PyTorch "
                f"{torch.version}",
                Evidence(build.folder, f"built for CUDA {', '.join(build.versions)}"),
                Evidence(torch.source, torch.shows),
                about=environment.about,
                build=build,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        build: BitsandbytesBuild = finding.detail["build"]
        environment = build.environment
        arguments = ("--upgrade", "--no-deps", "bitsandbytes")
        summary = f"Upgrade bitsandbytes in {environment.path}"
        yield pip_install(environment.path, environment.python, environment.manager, arguments, summary)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        folder = "/home/alice/venv/lib/python3.11/site-packages/bitsandbytes"

        def machine(*built: str, cuda: str = "12.4", base: Machine | None = None) -> Machine:
            machine = (base or Machine.ubuntu2404_gpu()).python_environment(
                packages=["bitsandbytes-0.41.1"], torch=f"2.5.1+cu{cuda.replace('.', '')}", cuda=cuda
            )
            for tag in built:
                machine.file(f"{folder}/libbitsandbytes_{tag}.so", b"\x7fELF", uid=1000)
            return machine

        yield Scenario(
            "PyTorch is newer",
            machine("cpu", "cuda118", "cuda121"),
            finds="python:/home/alice/venv",
            alone=False,
            ladder=(("low network", "pip-install /home/alice/venv/bin/python --upgrade --no-deps bitsandbytes"),),
        )
        yield Scenario(
            "PyTorch is older", machine("cuda124", cuda="11.8"), finds="python:/home/alice/venv", alone=False
        )
        yield Scenario("built for it", machine("cpu", "cuda121", "cuda124"), alone=False)
        yield Scenario("built without numbers", machine("cpu", "hip"), alone=False)
        yield Scenario(
            "no GPU", machine("cuda121", base=Machine.debian12().folder("/sys/bus/pci/devices")), alone=False
        )
        yield Scenario(
            "the environment is not readable",
            machine("cuda124").fifo("/home/alice/venv/pyvenv.cfg"),
            unknown=True,
        )
