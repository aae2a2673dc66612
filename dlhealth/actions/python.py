"""Plans for Python environments that several rules share."""

from collections.abc import Mapping
from shlex import join

from dlhealth.actions.kinds import ByHand, PipInstall
from dlhealth.model import Plan, Risk

INDEX = "https://download.pytorch.org/whl"
_COMPANIONS = ("torchvision", "torchaudio")


def replace_torch(
    path: str, python: str, manager: str, installed: str, packages: Mapping[str, str], wheel: tuple[str, str] | None
) -> Plan:
    """Replace the PyTorch `installed` in the environment at `path` with `wheel`: its version and its index ("2.8.0",
    "cu128"). `packages` are the distributions of the environment; `manager` says who put PyTorch there: pip, uv, conda,
    or "" for the system, whose files are left alone."""
    if wheel is None:
        text = f"No prebuilt PyTorch fits this GPU and driver: build PyTorch from source in {path}, or use another GPU"
        return Plan(text, Risk.LOW, (ByHand(text),))
    version, tag = wheel
    same = version == installed.partition("+")[0]
    requirements = [f"torch=={version}+{tag}"]
    for name in _COMPANIONS:
        if name in packages:
            # Of the same release only the build differs; for another one pip finds what goes with it.
            requirements.append(f"{name}=={packages[name].partition('+')[0]}+{tag}" if same else name)
    arguments = (*requirements, "--index-url", f"{INDEX}/{tag}")
    # Wheels before 2.0 are for a Python that nothing newer is for.
    if manager in ("pip", "uv") and (same or not version.startswith(("0.", "1."))):
        install = PipInstall(python, arguments, uv=manager == "uv")
        return Plan(f"Install PyTorch {version} for {tag} into {path}", Risk.LOW, (install,), network=True)
    command = f"pip install {join(arguments)}"
    if manager == "conda":
        text = f"In the conda environment {path}: conda remove pytorch cpuonly pytorch-cpu; then {command}"
    elif manager in ("pip", "uv"):
        text = f"Make a new environment with a Python of the time of PyTorch {version}, and in it: {command}"
    else:
        text = f"Make a virtual environment (python3 -m venv ~/torch), and in it: {command}"
    return Plan(f"Use PyTorch {version} for {tag}", Risk.LOW, (ByHand(text),), network=True)


def pip_install(path: str, python: str, manager: str, requirements: tuple[str, ...], summary: str) -> Plan:
    """Install packages into the environment at `path`; by hand where it is no environment of pip's or uv's."""
    if manager in ("pip", "uv"):
        return Plan(summary, Risk.LOW, (PipInstall(python, requirements, uv=manager == "uv"),), network=True)
    text = f"In {path}: pip install {join(requirements)}"
    return Plan(summary, Risk.LOW, (ByHand(text),), network=True)


def pip_cudnn(python: str, manager: str, requirement: str) -> Plan:
    """Bring PyTorch's own cuDNN back into its environment; `requirement` is "" where TensorFlow in the same environment
    needs another major version of it."""
    if not requirement:
        text = "Make a second virtual environment, install one of the two into it, and uninstall that one here"
        return Plan("Give PyTorch and TensorFlow an environment each", Risk.LOW, (ByHand(text),), network=True)
    summary = f"Install {requirement}, which this PyTorch requires"
    if manager in ("pip", "uv"):
        return Plan(summary, Risk.LOW, (PipInstall(python, (requirement,), uv=manager == "uv"),), network=True)
    return Plan(
        summary, Risk.LOW, (ByHand(f"With the pip that installed PyTorch: pip install {requirement}"),), network=True
    )
