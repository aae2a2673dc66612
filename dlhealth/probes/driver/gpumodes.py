"""Modes that somebody gave to the GPUs: who may compute on them, and whether they are divided into instances."""

import re

from dlhealth.host import Host
from dlhealth.lazy import regex
from dlhealth.probes import Unavailable
from dlhealth.probes.driver.nvml import Nvml
from dlhealth.records import NamedTuple

_COMPUTE = {0: "Default", 2: "Prohibited", 3: "Exclusive_Process"}
"""As nvidia-smi names what NVML numbers."""
_GPU = regex(r"^GPU ([0-9A-Fa-f]{8}:[0-9A-Fa-f:.]+)$", re.MULTILINE)
_NAME = regex(r"^ +Product Name +: (.+)$", re.MULTILINE)
_MODE = regex(r"^ +Compute Mode +: (\w+)$", re.MULTILINE)
_MIG = regex(r"^ +MIG Mode\n +Current +: (Enabled|Disabled)$", re.MULTILINE)
_INSTANCE = regex(r"^ +MIG Device$", re.MULTILINE)
_MPS = "/tmp/nvidia-mps/control"


class GpuMode(NamedTuple):
    """One GPU. `compute` is "Default", "Exclusive_Process", "Prohibited" or "" (not known); `mig` says whether it is
    divided into instances and `instances` how many there are (None: not known)."""

    address: str
    name: str
    compute: str
    mig: bool | None
    instances: int | None


class GpuModes(NamedTuple):
    """`source` is the source of the modes. `sharing` shows that a daemon shares GPUs in exclusive mode (MPS), and
    `manager` that a program manages instances; "" for neither."""

    gpus: tuple[GpuMode, ...]
    source: str
    sharing: str
    manager: str

    @classmethod
    def probe(cls, host: Host, nvml: Nvml | None) -> "GpuModes":
        if report := host.posted("nvidia-smi -q"):
            sharing = "nvidia-cuda-mps-server" if "nvidia-cuda-mps-server" in report else ""
            none = "No MIG devices found" in (host.posted("nvidia-smi") or "")
            return cls(tuple(_from_report(report, none=none)), "nvidia-smi -q", sharing, "")
        if nvml is None or nvml.outcome != "ok":
            raise Unavailable("only a running driver knows the modes of the GPUs")
        gpus = tuple(
            GpuMode(
                g.pci, g.name, _COMPUTE.get(-1 if g.compute_mode is None else g.compute_mode, ""), g.mig, g.instances
            )
            for g in nvml.gpus
            if g.code is None
        )
        kubelet = "/var/lib/kubelet/config.yaml"
        return cls(gpus, "NVML", _MPS if host.exists(_MPS) else "", kubelet if host.exists(kubelet) else "")


def _from_report(report: str, *, none: bool) -> list[GpuMode]:
    """The GPUs of a report. `none` says that the table of the instances was posted too, and is empty."""
    parts = _GPU.split(report)
    found = []
    for address, text in zip(parts[1::2], parts[2::2], strict=True):
        name, mode, mig = _NAME.search(text), _MODE.search(text), _MIG.search(text)
        instances = len(_INSTANCE.findall(text))
        found.append(
            GpuMode(
                re.sub(r"^0000(?=[0-9a-f]{4}:)", "", address.lower()),
                name[1] if name else "",
                mode[1] if mode else "",
                mig[1] == "Enabled" if mig else None,
                instances if instances else 0 if none else None,
            )
        )
    return found
