"""Posted outputs about the GPUs: lspci, ubuntu-drivers, nvidia-smi, inxi, lshw."""

import re

from dlhealth.host.posted.known import Output, Pieces
from dlhealth.lazy import regex

_PCI = "/sys/bus/pci/devices"
_HELD = "/proc/driver/nvidia/gpus"
_CUT_OUT = 5
"""Devices of lspci. Every machine has more."""
_SHORT = r"(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
"""A PCI address, with or without its domain."""

_LSPCI = regex(
    rf"^(?P<address>{_SHORT}) (?P<what>.*?)"
    r"\[(?P<kind>[0-9a-f]{4})\]: .*\[(?P<vendor>[0-9a-f]{4}):(?P<device>[0-9a-f]{4})\]"
    r".*$",
    re.MULTILINE,
)
_LSPCI_DEVICE = regex(
    rf"^(?P<address>{_SHORT}) \S.*"
    r"(?P<more>(?:\n(?:[ \t]+\S|Subsystem:|DeviceName:|Kernel driver in use:|Kernel modules:).*)+)",
    re.MULTILINE,
)
_LSPCI_NAMED = regex(
    rf"^(?P<address>{_SHORT}) (?P<kind>VGA compatible|3D|Display) controller: (?P<maker>NVIDIA|nVidia|Intel|Advanced Micro|AMD)\b"
    r"(?:.*\[(?P<name>[^\]\n]+)\])?",
    re.MULTILINE,
)
_KINDS = {"VGA": "0300", "3D": "0302", "Display": "0380"}
_MAKERS = {"nvidia": "10de", "intel": "8086"}
_ATI = "1002"
_MODALIAS = regex(
    r"^== /sys/devices/\S*/(?P<address>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) ==\n"
    r"modalias *: pci:v0000(?P<vendor>[0-9A-F]{4})d0000(?P<device>[0-9A-F]{4})\S*bc(?P<kind>[0-9A-F]{2})sc(?P<sub>[0-9A-F]{2})",
    re.MULTILINE,
)
_SMI_ROW = regex(
    r"^\| +\d+ +(?P<name>(?:NVIDIA |Tesla|GeForce|Quadro|GRID|TITAN|RTX|[ABHLV]\d)[^|\n]*?) +(?:On|Off|N/A) *\| *"
    r"(?P<address>[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]) ",
    re.MULTILINE,
)
_SMI_LIST = regex(
    r"^GPU (?P<number>\d+): (?P<name>(?:NVIDIA |Tesla|GeForce|Quadro)[^(\n]+?)(?: \(UUID: GPU-\S+\))?$", re.MULTILINE
)
_SMI_QUERY = regex(
    r"^GPU (?P<address>[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7])\n(?P<more>(?:[ \t]+.*\n?)+)", re.MULTILINE
)
_REPORT = regex(r"^=+NVSMI LOG=+$", re.MULTILINE)
_TABLE = regex(r"NVIDIA-SMI \d[\d.]+ +(?:KMD|Driver) Version: \d")
_INXI_DEVICE = regex(
    r"(?:Device-\d+|Card(?:-\d+)?): (?P<name>(?:(?!Device-|Display:|Card).)*?)driver: (?P<driver>[\w/,-]+|N/A)"
    r"(?:(?!Device-|Display:|Card).)*?bus[- ]ID: (?P<address>\S+)"
    r"(?:(?!Device-|Display:|Card-|Audio:).)*?chip[- ]ID: (?P<vendor>[0-9a-f]{4}):(?P<device>[0-9a-f]{4})"
)
_INXI = regex(r"^Graphics: *(?:(?:Device|Card)(?:-\d+)?: |$)", re.MULTILINE)


def lspci(output: Output, pieces: Pieces) -> bool:
    """`lspci -nn`, with or without drivers; or without numbers."""
    found = list(_LSPCI.finditer(output.text))
    source = output.source("lspci -nnk")
    for match in found:
        _device(pieces, full(match["address"]), match["vendor"], match["device"], match["kind"], source)
    bound = list(_LSPCI_DEVICE.finditer(output.text))
    for match in bound:
        _driver(pieces, full(match["address"]), match["more"], source)
    # Who cuts lines out of a list leaves the NVIDIA devices in; without any, more than a few lines are all.
    if len(found) > _CUT_OUT or any(m["vendor"] == "10de" and m["kind"].startswith("03") for m in found):
        pieces.listed(_PCI, source)
    named = [] if found else list(_LSPCI_NAMED.finditer(output.text))
    for match in named:
        _named(pieces, match, output.source("lspci"))
    if any(m["maker"].lower() == "nvidia" for m in named):
        pieces.listed(_PCI, output.source("lspci"))
    return bool(found or named)


def _named(pieces: Pieces, match: "re.Match[str]", source: str) -> None:
    """A display device of a list without numbers. Its name is where the kernel has what the firmware calls a device."""
    folder = f"{_PCI}/{full(match['address'])}"
    pieces.file(f"{folder}/class", f"0x{_KINDS[match['kind'].split()[0]]}00\n", source)
    pieces.file(f"{folder}/vendor", f"0x{_MAKERS.get(match['maker'].lower(), _ATI)}\n", source)
    pieces.file(f"{folder}/label", f"{match['name'] or ''}\n", source)
    pieces.missing(f"{folder}/device", source)
    pieces.missing(f"{folder}/uevent", source)


def drivers_for_devices(output: Output, pieces: Pieces) -> bool:
    """`ubuntu-drivers devices` names each device for which Ubuntu has a driver."""
    found = list(_MODALIAS.finditer(output.text))
    for match in found:
        kind = f"{match['kind']}{match['sub']}".lower()
        source = output.source("ubuntu-drivers devices")
        _device(pieces, match["address"], match["vendor"].lower(), match["device"].lower(), kind, source)
    if any(m["vendor"] == "10DE" for m in found):
        pieces.listed(_PCI, output.source("ubuntu-drivers devices"))
    return bool(found)


def gpus_of_the_driver(output: Output, pieces: Pieces) -> bool:
    """`nvidia-smi`, `nvidia-smi -L` and `nvidia-smi -q` list the GPUs that the driver holds."""
    source = output.source("nvidia-smi")
    rows = [(full(m["address"]), m["name"]) for m in _SMI_ROW.finditer(output.text) if "..." not in m["name"]]
    for query in _SMI_QUERY.finditer(output.text):
        told = dict(re.findall(r"^ +(Product Name|Device Id) *: (.*?)\s*$", query["more"], re.MULTILINE))
        rows.append((full(query["address"]), told.get("Product Name", "")))
        if number := re.fullmatch(r"0x([0-9A-F]{4})10DE", told.get("Device Id", "")):
            _device(pieces, full(query["address"]), "10de", number[1].lower(), "0300", source)
            _hold(pieces, full(query["address"]), "nvidia", source)
    if not rows:
        # Without addresses: only the names are known.
        rows = [(f"GPU {m['number']}", m["name"]) for m in _SMI_LIST.finditer(output.text)]
    for address, name in rows:
        if name:
            model(pieces, address, name, source)
    if rows:
        pieces.listed(_HELD, source)
    return bool(rows)


def inxi(output: Output, pieces: Pieces) -> bool:
    """`inxi -G` and `-F`, whose lines are broken at any word."""
    start = _INXI.search(output.text)
    if start is None:
        return False
    text = re.sub(r"\s*\n\s+", " ", output.text[start.start() :][:20_000])
    source = output.source("inxi")
    for match in _INXI_DEVICE.finditer(text):
        address = full(match["address"]) if match["address"].count(":") == 1 else match["address"]
        _device(pieces, address, match["vendor"], match["device"], "0300", source)
        driver = match["driver"].lower()
        if driver == "n/a":
            pieces.missing(f"{_PCI}/{address}/driver", source)
        else:
            _hold(pieces, address, driver.partition(",")[0], source)
        if match["vendor"] == "10de":
            pieces.listed(_PCI, source)
    return True


def reports(output: Output, pieces: Pieces) -> bool:
    """What nvidia-smi prints is kept as it is: its table, and its full report."""
    report = _REPORT.search(output.text)
    if report:
        pieces.outputs.setdefault("nvidia-smi -q", output.text[report.start() :])
    table = _TABLE.search(output.text)
    if table:
        pieces.outputs.setdefault("nvidia-smi", output.text[table.start() :])
    return bool(report or table)


def full(address: str) -> str:
    """A PCI address in the form that the kernel has: NVIDIA's tools write a domain of eight digits."""
    address = address.lower()
    if address.count(":") == 1:
        return f"0000:{address}"
    domain, _, rest = address.partition(":")
    return f"{domain[-4:]}:{rest}"


def model(pieces: Pieces, address: str, name: str, source: str) -> None:
    """A GPU with only a known name."""
    pieces.file(f"{_HELD}/{address}/information", f"Model: \t\t {name.strip()}\nBus Location: \t {address}\n", source)


def _device(pieces: Pieces, address: str, vendor: str, device: str, kind: str, source: str) -> None:
    folder = f"{_PCI}/{address}"
    pieces.file(f"{folder}/class", f"0x{kind}00\n", source)
    pieces.file(f"{folder}/vendor", f"0x{vendor}\n", source)
    pieces.file(f"{folder}/device", f"0x{device}\n", source)
    pieces.missing(f"{folder}/uevent", source)


def _driver(pieces: Pieces, address: str, more: str, source: str) -> None:
    """Which driver holds a device: lspci names those that could, and the one that does. Those that could are the modules
    of the running kernel."""
    driver = re.search(r"Kernel driver in use: (\S+)", more)
    able = re.search(r"Kernel modules: (.*)", more)
    if able and re.search(r"\bnouveau\b", able[1]):
        if re.search(r"\bnvidia(?!fb)", able[1]):
            pieces.has_module(source)
        else:
            pieces.no_module("", source)
    if driver:
        _hold(pieces, address, driver[1], source)
    elif "Kernel modules:" in more:
        pieces.missing(f"{_PCI}/{address}/driver", source)
        pieces.listed("/sys/bus/pci/drivers", source)


def _hold(pieces: Pieces, address: str, driver: str, source: str) -> None:
    pieces.directory(f"/sys/bus/pci/drivers/{driver}", source)
    if driver == "nouveau":
        pieces.missing("/proc/driver/nvidia", source)
    pieces.link(f"{_PCI}/{address}/driver", f"/sys/bus/pci/drivers/{driver}", source)
