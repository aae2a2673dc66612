"""A package with compiled code was built for another PyTorch than the installed one.

What you see
    RuntimeError: operator torchvision::nms does not exist

    ImportError: flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so: undefined symbol: _ZN3c10…

    Could not run 'torchvision::nms' with arguments from the 'CUDA' backend

    Detected that PyTorch and torchvision were compiled with different CUDA versions
Why
    Each release of torchvision, torchaudio, flash-attn, PyTorch Geometric and other packages with compiled code works
    only with the PyTorch that it was built with. An upgrade of PyTorch alone, or a package that pins another PyTorch,
    leaves them behind. Builds from the CPU index have no code for the GPU.

    The driver and the CUDA toolkit are not the cause.
Repair
    Install the release of the package for the installed PyTorch, into the same environment.
What the repair risks
    Low: only this environment changes. A package that pins the old release may need an update.
By hand
    pip list | grep -i torch
    pip install --force-reinstall --no-deps 'torchvision==0.19.*'
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Companion,
    Companions,
    Evidence,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    pip_install,
)

_INDEX = "https://download.pytorch.org/whl/"


class TorchCompanionBuiltForOtherTorch(Rule):
    id = "torch-companion-built-for-other-torch"
    title = "A package was built for another PyTorch than the installed one"
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    gpu_wheels = True

    def detect(self, companions: Companions) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in companions.problems)
        for companion in companions.found:
            environment, torch = companion.environment, companion.torch
            has = f"PyTorch {torch.version}" + (f" for CUDA {torch.cuda}" if torch.cuda else "")
            yield self.finding(
                environment.subject,
                f"{companion.name} {companion.version} in {environment.path} was built for {companion.built_for}; "
                f"installed: {has}",
                Evidence(environment.site, f"{companion.name} {companion.version}"),
                Evidence(torch.source, torch.shows),
                about=environment.about,
                companion=companion,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        companion: Companion = finding.detail["companion"]
        environment, torch = companion.environment, companion.torch
        summary = f"Install {companion.name} for PyTorch {torch.version} into {environment.path}"
        if not companion.fitting:
            cuda = f" and CUDA {torch.cuda}" if torch.cuda else ""
            text = f"Install a build of {companion.name} for PyTorch {torch.version}{cuda} into {environment.path}"
            yield Plan(summary, Risk.LOW, (ByHand(text),), network=True)
            return
        local = torch.version.partition("+")[2]
        index = ("--index-url", f"{_INDEX}{local}") if local.startswith(("cu", "cpu")) else ()
        arguments = ("--force-reinstall", "--no-deps", f"{companion.name}=={companion.fitting}.*", *index)
        yield pip_install(environment.path, environment.python, environment.manager, arguments, summary)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def machine(*packages: str, torch: str = "2.4.1+cu121", cuda: str = "12.1") -> Machine:
            return Machine.debian12_gpu().python_environment(packages=packages, torch=torch, cuda=cuda)

        python, subject = "/home/alice/venv/bin/python", "python:/home/alice/venv"
        yield Scenario(
            "PyTorch was upgraded alone",
            machine("torchvision-0.18.1+cu121", "torchaudio-2.4.1+cu121"),
            finds=subject,
            ladder=(
                (
                    "low network",
                    f"pip-install {python} --force-reinstall..{_INDEX}cu121(5)",
                ),
            ),
        )
        yield Scenario(
            "torchvision came from the CPU index",
            machine("torchvision-0.19.1+cpu", torch="2.4.1"),
            finds=subject,
            ladder=(("low network", f"pip-install {python} --force-reinstall --no-deps torchvision==0.19.*"),),
        )
        yield Scenario(
            "PyTorch for the CPU was upgraded alone",
            machine("torchvision-0.18.1+cpu", torch="2.4.1+cpu", cuda=""),
            finds=subject,
            alone=False,
            ladder=(("low network", f"pip-install {python} --force-reinstall..{_INDEX}cpu(5)"),),
        )
        yield Scenario("torchaudio for CUDA 11", machine("torchaudio-2.4.1+cu118"), finds=subject)
        yield Scenario(
            "flash-attn for an older PyTorch",
            machine("flash_attn-2.5.8+cu122torch2.3cxx11abifalse"),
            finds=subject,
            ladder=(("low network", "by-hand /home/alice/venv flash-attn PyTorch 2.4.1+cu121 CUDA 12.1"),),
        )
        yield Scenario("PyTorch Geometric", machine("torch_scatter-2.1.2+pt23cu121"), finds=subject)
        yield Scenario(
            "all of one release",
            machine(
                "torchvision-0.19.0+cu121",
                "torchaudio-2.4.0",
                "torch_scatter-2.1.2+pt24cu121",
                "flash_attn-2.6.3+cu123torch2.4cxx11abifalse",
            ),
        )
        yield Scenario("a release that is not known", machine("torchvision-0.99.0", torch="2.99.0+cu131", cuda="13.1"))
        yield Scenario("built by somebody else", machine("torchvision-0.18.0a0+6043bc2", torch="2.4.0a0+git1234567"))
        yield Scenario("another local version", machine("mypackage-1.0+cu118", "numpy-1.26.4"))
        yield Scenario("only the CPU", machine("torchvision-0.19.1+cpu", torch="2.4.1+cpu", cuda=""), alone=False)
        yield Scenario(
            "the environment is not readable",
            machine("torchvision-0.19.1").fifo("/home/alice/venv/pyvenv.cfg"),
            unknown=True,
        )
