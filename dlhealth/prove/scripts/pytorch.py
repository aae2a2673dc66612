"""What the programs for PyTorch share."""

from __future__ import annotations

from typing import Any

from dlhealth.prove.scripts.common import Device, NotRun, chosen, without_gpu


def loaded(gpu: str) -> tuple[Any, Device]:
    """PyTorch, and the device to use. On a GPU, it computes with full precision."""
    import torch

    name = f"PyTorch {torch.__version__}"
    if getattr(torch.version, "hip", None):
        raise NotRun(f"{name} is built for GPUs of AMD")
    if not torch.cuda.is_available():
        device = without_gpu(name, bool(torch.version.cuda), _why(torch))
        device.name = torch.device("cpu")
        return torch, device
    index = chosen(gpu, torch.cuda.device_count(), name)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch, Device(torch.device("cuda", index), True, torch.cuda.get_device_name(index))


def _why(torch: Any) -> str:
    """What PyTorch says when it cannot use a GPU."""
    try:
        torch.zeros(1, device="cuda")
    except Exception as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return "it does not say why"


def wait(torch: Any, device: Device) -> None:
    """Wait until the device is done."""
    if device.gpu:
        torch.cuda.synchronize(device.name)
