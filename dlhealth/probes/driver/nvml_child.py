"""Asks the driver through NVML. Runs as a process of its own, because a call into a wedged driver never returns.

Prints one JSON document a line: each call before it is made, a note if a call takes too long, then the answer, and after
it each reading of each GPU. If the program crashes or hangs, the last printed call is the cause, and everything printed
before is still true. It imports nothing of dlhealth, so that it starts fast.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from ctypes import CDLL, byref
from threading import Thread, Timer
from typing import Any

MOST_GPUS = 64
MOST_INSTANCES = 16
PATIENCE = 2.0
"""Seconds that one call may take. A sound driver answers within 0.3; where persistence is off, it first starts the GPU."""
READING_PATIENCE = 0.5
"""Seconds that one reading may take: when readings begin, the GPU is started."""
MOST_HUNG = 2
"""Readings that may hang before no more are tried."""
GPU_IS_LOST = 15


def same(value: Any) -> Any:
    """A number or a list of numbers, as it is."""
    return value


READINGS: tuple[tuple[str, tuple[str, ...], tuple[int, ...], Callable[[Any], Any]], ...] = (
    ("state", ("nvmlDeviceGetPerformanceState",), (), same),
    ("load", ("nvmlDeviceGetUtilizationRates",), (), lambda rates: rates.gpu),
    ("link_generation", ("nvmlDeviceGetCurrPcieLinkGeneration",), (), same),
    ("link_width", ("nvmlDeviceGetCurrPcieLinkWidth",), (), same),
    ("most_link_generation", ("nvmlDeviceGetMaxPcieLinkGeneration",), (), same),
    ("most_link_width", ("nvmlDeviceGetMaxPcieLinkWidth",), (), same),
    (
        "slowdowns",
        ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"),  # the older name
        (),
        same,
    ),
    ("temperature", ("nvmlDeviceGetTemperature",), (0,), same),
    ("slowdown_temperature", ("nvmlDeviceGetTemperatureThreshold",), (1,), same),
    ("margin", ("nvmlDeviceGetMarginTemperature",), (), same),
    ("power", ("nvmlDeviceGetPowerUsage",), (), same),
    ("power_limit", ("nvmlDeviceGetEnforcedPowerLimit",), (), same),
    ("default_power_limit", ("nvmlDeviceGetPowerManagementDefaultLimit",), (), same),
    ("ecc", ("nvmlDeviceGetEccMode",), (), lambda modes: modes[0]),
    ("corrected", ("nvmlDeviceGetTotalEccErrors",), (0, 0), same),
    ("uncorrected", ("nvmlDeviceGetTotalEccErrors",), (1, 0), same),
    ("corrected_ever", ("nvmlDeviceGetTotalEccErrors",), (0, 1), same),
    ("uncorrected_ever", ("nvmlDeviceGetTotalEccErrors",), (1, 1), same),
    ("remapped_rows", ("nvmlDeviceGetRemappedRows",), (), list),
    ("retired_pages", ("nvmlDeviceGetRetiredPages",), (1,), len),
    ("persistence", ("nvmlDeviceGetPersistenceMode",), (), same),
    ("fabric", ("nvmlDeviceGetGpuFabricInfoV",), (), same),
)
"""Each reading of a GPU's health: its name, the functions that may know it, their arguments after the GPU, and what to
take of the result."""


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


def device(nvml: Any, index: int) -> tuple[Any, dict[str, Any]]:
    """One GPU, and its handle; an error of one says nothing about the others, nor about what it answered before."""
    handle, known = None, dict[str, Any]()
    try:
        handle = ask(nvml, "nvmlDeviceGetHandleByIndex", index)
        pci = ask(nvml, "nvmlDeviceGetPciInfo", handle)
        known["pci"] = text(pci.busId) if pci else ""
        known["name"] = text(ask(nvml, "nvmlDeviceGetName", handle) or "")
        known["uuid"] = text(ask(nvml, "nvmlDeviceGetUUID", handle) or "")
        capability = ask(nvml, "nvmlDeviceGetCudaComputeCapability", handle)
        known["capability"] = "{}.{}".format(*capability) if capability else ""
        known["compute_mode"] = ask(nvml, "nvmlDeviceGetComputeMode", handle)
        pending = ask(nvml, "nvmlDeviceGetRetiredPagesPendingStatus", handle)
        known["pages_pending"] = None if pending is None else bool(pending)
        mig = ask(nvml, "nvmlDeviceGetMigMode", handle)
        divided = known["mig"] = None if mig is None else bool(mig[0])
        known["instances"] = instances(nvml, handle) if divided else None
    except nvml.NVMLError as error:
        known.update(code=error.value, text=text(error))
    return handle, known


class Hung(Exception):
    """A reading did not come back in time."""


def reading(nvml: Any, name: str, *arguments: Any) -> Any:
    """What a call gives, None if it is not known. The call is left behind in its thread if it does not come back."""
    say(call=name)
    given: list[Any] = []
    failed: list[Exception] = []

    def call() -> None:
        try:
            given.append(getattr(nvml, name)(*arguments))
        except Exception as error:  # judged where it can be caught
            failed.append(error)

    thread = Thread(target=call, daemon=True)
    thread.start()
    thread.join(READING_PATIENCE)
    if failed:
        raise failed[0]
    if not given:
        raise Hung
    return given[0]


def fabric(nvml: Any, name: str, handle: Any) -> int:
    """The state of a GPU in the fabric of NVSwitches; the caller gives NVML the structure to fill."""
    answer = nvml.c_nvmlGpuFabricInfo_v2_t()
    reading(nvml, name, handle, byref(answer))
    return int(answer.state)


def readings(nvml: Any, gpus: list[tuple[int, Any]]) -> None:
    """Say each reading of each GPU that answered so far. One that fails costs nothing but itself; a GPU that is lost
    meanwhile is not asked again."""
    hung = 0
    for index, handle in gpus:
        for fact, names, arguments, take in READINGS:
            answer = one_reading(nvml, handle, fact, names, arguments, take)
            if answer:
                say(gpu=index, reading=fact, **answer)
            hung += "problem" in answer and "code" not in answer
            if hung == MOST_HUNG:
                return
            if answer.get("code") == GPU_IS_LOST:
                break


def one_reading(
    nvml: Any, handle: Any, fact: str, names: tuple[str, ...], arguments: tuple[int, ...], take: Callable[[Any], Any]
) -> dict[str, Any]:
    """The value, or why there is none; empty if the GPU or the driver does not know it, or if it is nonsense."""
    for name in names:
        try:
            return {"value": take((fabric if fact == "fabric" else reading)(nvml, name, handle, *arguments))}
        except Hung:
            return {"problem": f"{name} did not answer within {READING_PATIENCE:g} seconds"}
        except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, AttributeError):
            continue
        except nvml.NVMLError as error:
            return {"problem": f"{name}: {text(error)}", "code": error.value}
        except (TypeError, LookupError, ValueError):
            break
    return {}


def main() -> None:
    """Ask, and say the answer and the readings."""
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
        say(outcome="ok", driver=versions[0], nvml=versions[1], cuda=cuda, gpus=[known for _, known in gpus])
        return readings(nvml, [(n, handle) for n, (handle, known) in enumerate(gpus) if "code" not in known])
    except nvml.NVMLError_LibraryNotFound as error:
        return say(outcome="absent", code=error.value, text=text(error))
    except nvml.NVMLError as error:
        return say(outcome="error", code=error.value, text=text(error))


if __name__ == "__main__":
    main()
