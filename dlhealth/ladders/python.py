"""Plans for Python environments."""

from collections.abc import Mapping
from shlex import join

from dlhealth.actions import ByHand, PipInstall
from dlhealth.model import Plan, Risk

INDEX = "https://download.pytorch.org/whl"
_COMPANIONS = ("torchvision", "torchaudio")


def replace_torch(
    path: str, python: str, manager: str, installed: str, packages: Mapping[str, str], wheel: tuple[str, str] | None
) -> Plan:
    """Replace the PyTorch `installed` in the environment at `path` with `wheel`: its version and its index ("2.8.0",
    "cu128"). `packages` are the distributions of the environment; `manager` says what installed PyTorch: pip, uv, conda,
    or "" for the system, whose files are not changed."""
    if wheel is None:
        text = f"No prebuilt PyTorch fits this GPU and driver: build PyTorch from source in {path}, or use another GPU"
        return Plan(text, Risk.LOW, (ByHand(text),))
    version, tag = wheel
    same = version == installed.partition("+")[0]
    requirements = [f"torch=={version}+{tag}"]
    for name in _COMPANIONS:
        if name in packages:
            # In the same release only the build differs; for another release pip finds the matching version.
            requirements.append(f"{name}=={packages[name].partition('+')[0]}+{tag}" if same else name)
    arguments = (*requirements, "--index-url", f"{INDEX}/{tag}")
    # Wheels before 2.0 need a Python that is too old for newer packages.
    if manager in ("pip", "uv") and (same or not version.startswith(("0.", "1."))):
        install = PipInstall(python, arguments, uv=manager == "uv")
        return Plan(f"Install PyTorch {version} for {tag} into {path}", Risk.LOW, (install,), network=True)
    command = f"pip install {join(arguments)}"
    if manager == "conda":
        text = (
            f"In the conda environment {path}, run conda remove with those of pytorch, cpuonly and pytorch-cpu that "
            f"conda list shows; then {command}"
        )
    elif manager in ("pip", "uv"):
        text = f"Create a new environment with a Python that PyTorch {version} supports, and run in it: {command}"
    else:
        text = f"Create a virtual environment (python3 -m venv ~/torch), and run in it: {command}"
    return Plan(f"Use PyTorch {version} for {tag}", Risk.LOW, (ByHand(text),), network=True)


def pip_install(path: str, python: str, manager: str, requirements: tuple[str, ...], summary: str) -> Plan:
    """Install packages into the environment at `path`; by hand unless pip or uv manages it."""
    if manager in ("pip", "uv"):
        return Plan(summary, Risk.LOW, (PipInstall(python, requirements, uv=manager == "uv"),), network=True)
    text = f"With the pip of {path}, run: pip install {join(requirements)}"
    return Plan(summary, Risk.LOW, (ByHand(text),), network=True)


def pip_cudnn(python: str, manager: str, requirement: str) -> Plan:
    """Reinstall PyTorch's own cuDNN in its environment. `requirement` is "" if TensorFlow in the same environment needs
    another major version."""
    if not requirement:
        text = "Create a second virtual environment, install one of the two into it, and uninstall that one here"
        return Plan("Use separate environments for PyTorch and TensorFlow", Risk.LOW, (ByHand(text),), network=True)
    summary = f"Install {requirement}, which this PyTorch requires"
    if manager in ("pip", "uv"):
        return Plan(summary, Risk.LOW, (PipInstall(python, (requirement,), uv=manager == "uv"),), network=True)
    return Plan(
        summary, Risk.LOW, (ByHand(f"With the pip that installed PyTorch: pip install {requirement}"),), network=True
    )
