"""What the driver answers when it is asked through NVML, as nvidia-smi does.

Hazards: a call into a wedged driver never returns, so it runs in a child with a hard limit; and NVML loads the kernel
module and makes device nodes where these are missing, so it is asked only where they are there.
"""

import json
import posixpath
import re
import sys
from typing import Any

from dlhealth.host import Host, Output
from dlhealth.probes import Unavailable
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.driver.readings import Readings
from dlhealth.records import NamedTuple

LIMIT = 3.0
"""Seconds for all of it. With many GPUs, or on a machine that is busy, it may not be enough."""
DRIVER_NOT_LOADED, GPU_IS_LOST, VERSION_MISMATCH = 9, 15, 18


class NvmlGpu(NamedTuple):
    """One GPU as NVML sees it; "" and None for what it does not tell. `pci` is like "0000:01:00.0" (as Gpu.address),
    `compute_mode` 0 default, 2 prohibited, 3 exclusive process; `pages_pending` says that memory pages wait for a reset
    to be retired; `mig` whether it is divided into instances, and `instances` how many. `code` and `text` are set if this
    GPU answered with an error, also only to a later question."""

    name: str
    uuid: str
    pci: str
    capability: str
    compute_mode: int | None
    pages_pending: bool | None
    code: int | None
    text: str
    mig: bool | None = None
    instances: int | None = None
    readings: Readings = Readings()


class Nvml(NamedTuple):
    """`outcome` is:

    ok       the driver answered
    error    it answered with an error: `code` and `text`, like 18 "RM has detected an NVML/RM version mismatch."
    hung     one `call` did not come back
    crashed  the library crashed the child: `call`, and `text` names the signal
    absent   there is no libnvidia-ml.so.1 that the loader finds
    nonsense the answer makes no sense: `text`

    `driver` and `nvml` are versions like "535.261.03" and "12.535.261.03", `cuda` the newest CUDA, as (12, 2).
    """

    outcome: str
    code: int | None = None
    text: str = ""
    call: str = ""
    driver: str = ""
    nvml: str = ""
    cuda: tuple[int, int] | None = None
    gpus: tuple[NvmlGpu, ...] = ()

    @classmethod
    def probe(cls, host: Host, modules: KernelModules) -> "Nvml":
        if not host.live:
            raise Unavailable("cannot query the driver: this machine is not running")
        if "nvidia" not in (modules.loaded or ()):
            raise Unavailable("not queried: the nvidia kernel module is not loaded, and a query of NVML would load it")
        if not host.exists("/dev/nvidiactl") or _without_node(host):
            raise Unavailable("not queried: a device node of the GPUs is missing, and a query of NVML would create it")
        program = posixpath.join(posixpath.dirname(__file__), "nvml_child.py")
        return interpret(host.run(sys.executable or "/usr/bin/python3", "-I", "-B", program, timeout=LIMIT))


def _without_node(host: Host) -> bool:
    nodes = sum(name.removeprefix("nvidia").isdecimal() for name in host.listdir("/dev"))
    return nodes < len(host.listdir("/proc/driver/nvidia/gpus"))


def interpret(output: Output) -> Nvml:
    """What the child printed, and how it ended. Raises Unavailable when that says nothing about the driver."""
    answers = [document for line in output.stdout.splitlines() if isinstance(document := _json(line), dict)]
    answer = next((a for a in answers if "outcome" in a), None)
    if answer is not None and (output.status == 0 or answer["outcome"] == "ok"):
        # However the child ended after that, only readings are missing.
        return _answered(answer, [a for a in answers if "reading" in a])
    calls = [str(a["call"]) for a in answers if "call" in a]
    call = calls[-1] if calls else ""
    if not call.startswith("nvml"):
        why = output.problem or f"it ended with status {output.status}: {output.stderr.strip()[-200:]}"
        raise Unavailable(f"the program that queries NVML did not start ({why})")
    if output.status is None:
        if "did not" in output.problem:
            seconds = answers[-1].get("seconds")
            if not isinstance(seconds, float):
                raise Unavailable(f"NVML needed more than {LIMIT:g} seconds: the machine is busy, or has many GPUs")
            return Nvml("hung", text=f"no answer to {call} within {seconds:g} seconds", call=call)
        return Nvml("nonsense", text=output.problem, call=call)
    if output.status < 0:
        return Nvml("crashed", text=f"signal {-output.status} in {call}", call=call)
    lines = output.stderr.strip().splitlines() or [f"status {output.status}"]
    return Nvml("nonsense", text=lines[-1][:200], call=call)


def _answered(answer: dict[str, Any], readings: list[dict[str, Any]]) -> Nvml:
    outcome, code, text = answer["outcome"], answer.get("code"), str(answer.get("text", ""))[:200]
    if outcome == "no-binding":
        raise Unavailable(f"the Python module pynvml is missing ({text}); Debian has it in contrib as python3-pynvml")
    if outcome in ("error", "absent") and isinstance(code, int):
        return Nvml(outcome, code, text)
    driver, nvml, cuda, gpus = (answer.get(key) for key in ("driver", "nvml", "cuda", "gpus"))
    sound = isinstance(driver, str) and re.fullmatch(r"\d{3,}(\.\d+){1,2}", driver) and isinstance(gpus, list)
    if outcome != "ok" or not sound:
        return Nvml("nonsense", text=text or f"driver version {driver!r}"[:200])
    version = (cuda // 1000, cuda % 1000 // 10) if isinstance(cuda, int) and cuda > 0 else None
    return Nvml(
        "ok", None, "", "", str(driver), str(nvml), version,
        tuple(_gpu(g, [r for r in readings if r.get("gpu") == n]) for n, g in enumerate(gpus or ()) if isinstance(g, dict)),
    )  # fmt: skip


def _gpu(answer: dict[str, Any], readings: list[dict[str, Any]]) -> NvmlGpu:
    lost = next((r for r in readings if r.get("code") == GPU_IS_LOST), {})
    code, said = (
        (answer.get("code"), answer.get("text", ""))
        if "code" in answer
        else (lost.get("code"), lost.get("problem", ""))
    )
    mode, pending = answer.get("compute_mode"), answer.get("pages_pending")
    mig, instances = answer.get("mig"), answer.get("instances")
    # NVML writes the PCI domain with eight digits, the kernel with four.
    pci = re.sub(r"^0000(?=[0-9a-f]{4}:)", "", str(answer.get("pci", "")).lower())
    return NvmlGpu(
        str(answer.get("name", "")),
        str(answer.get("uuid", "")),
        pci,
        str(answer.get("capability", "")),
        mode if isinstance(mode, int) else None,
        pending if isinstance(pending, bool) else None,
        code if isinstance(code, int) else None,
        str(said),
        mig if isinstance(mig, bool) else None,
        instances if isinstance(instances, int) else None,
        Readings.of(readings),
    )


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
