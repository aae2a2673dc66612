"""Asks the driver through NVML. Runs as a process of its own, because a call into a wedged driver never returns.

Prints one JSON document a line: what it is about to call, each time, that it has waited for it for too long, and at the
end the answer. What crashes is then the last call that was printed. Everything else of dlhealth stays outside, so that
it starts fast.
"""

import json
import sys
from contextlib import suppress
from ctypes import CDLL
from threading import Timer
from typing import Any

MOST_GPUS = 64
MOST_INSTANCES = 16
PATIENCE = 2.0
"""Seconds that one call may take. A sound driver answers within 0.3; where persistence is off, it first starts the GPU."""


def say(**document: Any) -> None:
    """One line, at once: the next call may be the last."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def text(value: Any) -> str:
    """NVML's strings are bytes in older bindings, and may hold anything."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def ask(nvml: Any, name: str, *arguments: Any) -> Any:
    """What a call gives; None if the device or the driver does not know it, or what it gives is no text."""
    say(call=name)
    # A thread, because a call that hangs in the kernel does not come back to be asked.
    waited = Timer(PATIENCE, say, kwargs={"call": name, "seconds": PATIENCE})
    waited.daemon = True
    waited.start()
    try:
        return getattr(nvml, name)(*arguments)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, AttributeError, UnicodeDecodeError):
        return None
    finally:
        waited.cancel()


def instances(nvml: Any, handle: Any) -> int:
    """How many MIG instances a GPU has. Of a number without an instance, NVML says that there is none."""
    found = 0
    for number in range(min(ask(nvml, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0, MOST_INSTANCES)):
        with suppress(nvml.NVMLError):
            found += ask(nvml, "nvmlDeviceGetMigDeviceHandleByIndex", handle, number) is not None
    return found


def device(nvml: Any, index: int) -> dict[str, Any]:
    """One GPU; an error of one says nothing about the others."""
    try:
        handle = ask(nvml, "nvmlDeviceGetHandleByIndex", index)
        capability = ask(nvml, "nvmlDeviceGetCudaComputeCapability", handle)
        pending = ask(nvml, "nvmlDeviceGetRetiredPagesPendingStatus", handle)
        mode = ask(nvml, "nvmlDeviceGetComputeMode", handle)
        pci = ask(nvml, "nvmlDeviceGetPciInfo", handle)
        mig = ask(nvml, "nvmlDeviceGetMigMode", handle)
        divided = bool(mig and mig[0])
        return {
            "name": text(ask(nvml, "nvmlDeviceGetName", handle) or ""),
            "uuid": text(ask(nvml, "nvmlDeviceGetUUID", handle) or ""),
            "pci": text(pci.busId) if pci else "",
            "capability": "{}.{}".format(*capability) if capability else "",
            "compute_mode": mode,
            "pages_pending": None if pending is None else bool(pending),
            "mig": None if mig is None else divided,
            "instances": instances(nvml, handle) if divided else None,
        }
    except nvml.NVMLError as error:
        return {"code": error.value, "text": text(error)}


def main() -> None:
    """Ask, and say the answer as the last line."""
    say(call="import")
    try:
        import pynvml as nvml  # type: ignore[import-untyped]
    except ImportError as error:
        return say(outcome="no-binding", text=str(error))
    with suppress(OSError):
        CDLL("libnvidia-ml.so.1")  # from a slow disk that takes long, which is not the driver's fault
    try:
        ask(nvml, "nvmlInit")
        versions = [text(ask(nvml, f"nvmlSystemGet{part}Version") or "") for part in ("Driver", "NVML")]
        cuda = ask(nvml, "nvmlSystemGetCudaDriverVersion")
        count = ask(nvml, "nvmlDeviceGetCount") or 0
        if count > MOST_GPUS:
            return say(outcome="nonsense", text=f"{count} GPUs")
        gpus = [device(nvml, index) for index in range(count)]
        return say(outcome="ok", driver=versions[0], nvml=versions[1], cuda=cuda, gpus=gpus)
    except nvml.NVMLError_LibraryNotFound as error:
        return say(outcome="absent", code=error.value, text=text(error))
    except nvml.NVMLError as error:
        return say(outcome="error", code=error.value, text=text(error))


if __name__ == "__main__":
    main()
