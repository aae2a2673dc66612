"""The few lines that say which machine a report is about."""

from typing import Any

from dlhealth.engine.facts import Facts
from dlhealth.host import Host, Unreadable
from dlhealth.probes.cuda.toolkits import CudaToolkits
from dlhealth.probes.driver.cardhealth import CardHealth
from dlhealth.probes.driver.gpu import Gpus
from dlhealth.probes.driver.libraries import DriverLibraries
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.probes.machine.platform import Platform
from dlhealth.probes.machine.system import os_release
from dlhealth.probes.python.pythonenv import PythonEnvironments


def describe_machine(facts: Facts) -> dict[str, Any]:
    """The `host` object of the JSON report; values that could not be checked are null or empty."""
    host: Host = facts.get(Host)
    kernel: Kernel | None = _fact(facts, Kernel)
    modules: KernelModules | None = _fact(facts, KernelModules)
    libraries: DriverLibraries | None = _fact(facts, DriverLibraries)
    gpus: Gpus | None = _fact(facts, Gpus)
    toolkits: CudaToolkits | None = _fact(facts, CudaToolkits)
    pythons: PythonEnvironments | None = _fact(facts, PythonEnvironments)
    target = kernel.target if kernel else None
    on_disk = modules.seen(target) if modules else None
    return {
        "root": host.name,
        "hostname": _first_line(host, "/proc/sys/kernel/hostname") or _first_line(host, "/etc/hostname") or None,
        "os": _system(host) or None,
        "platform": _platform(_fact(facts, Platform)),
        # A container has no kernel to check, but runs on one.
        "kernel": target or _first_line(host, "/proc/sys/kernel/osrelease") or None,
        "gpus": [
            {
                "pci": gpu.address,
                "id": f"10de:{gpu.device}" if gpu.device else None,
                "name": gpu.name,
                "compute_capability": gpu.capability or None,
            }
            for gpu in (gpus.gpus if gpus else ())
        ],
        "driver": {
            "loaded": modules.loaded_version if modules else None,
            "on_disk": on_disk.version if on_disk else None,
            "libraries": libraries.version if libraries else None,
        },
        "cuda": list(dict.fromkeys(t.version for t in toolkits.toolkits if t.version)) if toolkits else [],
        "python_environments": {
            "found": [environment.path for environment in pythons.environments] if pythons else [],
            "bounds": pythons.bounds if pythons else "",
        },
    }


def card_health(facts: Facts) -> dict[str, dict[str, Any]]:
    """What each GPU said of its health, by its address: names and values of the readings that are known."""
    health: CardHealth | None = _fact(facts, CardHealth)
    cards = health.cards if health else ()
    return {
        c.address: {k: v for k, v in c.readings._asdict().items() if v is not None and k != "problems"} for c in cards
    }


def _platform(platform: Platform | None) -> dict[str, Any] | None:
    return platform and {
        "name": platform.name,
        "family": platform.family,
        "setting": platform.setting,
        "container": platform.manager,
        "supported": platform.managed,
        "notes": list(platform.sentences),
    }


def _fact(facts: Facts, kind: type) -> Any:
    try:
        return facts.get(kind)
    except Exception:
        # Unavailable; or the probe has a defect, which the rules that need it report.
        return None


def _first_line(host: Host, path: str) -> str:
    try:
        return (host.text(path) or "").partition("\n")[0].strip()
    except Unreadable:
        return ""


def _system(host: Host) -> str:
    """Id and version: "debian 12", "ubuntu 24.04"; "debian trixie" before a release has a number."""
    values = os_release(host)
    return f"{values.get('ID', '')} {values.get('VERSION_ID') or values.get('VERSION_CODENAME', '')}".strip()


def system_name(host: Host) -> str:
    """The full name: "Debian GNU/Linux 12 (bookworm)"; "" if unknown."""
    return os_release(host).get("PRETTY_NAME", "")
