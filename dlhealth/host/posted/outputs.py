"""What the outputs of common programs tell of a machine. Each is recognised by its content."""

import re
from collections.abc import Callable, Iterator

from dlhealth.host.base import Space
from dlhealth.host.elf import Elf
from dlhealth.host.posted.known import Pieces
from dlhealth.lean import NamedTuple, regex

_WHOLE_LIST = 200
"""Packages. A list with fewer, or without dpkg itself, is a part that somebody cut out."""
_PCI = "/sys/bus/pci/devices"
_CUT_OUT = 5
"""Devices of lspci. Every machine has more."""

_ANSI = regex(r"\x1b\[[0-9;]*[A-Za-z]")

_PACKAGE = regex(
    r"^[>\s]{0,8}([uihrp][nicufhtFHUW])[ R]?\s+([a-z0-9][a-z0-9.+-]+)(?::([a-z0-9]+))?\s+(\S*\d\S*)\s+(?:([a-z][a-z0-9-]*)\b)?",
    re.MULTILINE,
)
_SELECTION = {"u": "unknown", "i": "install", "h": "hold", "r": "deinstall", "p": "purge"}
_STATE = {
    "n": "not-installed",
    "i": "installed",
    "c": "config-files",
    "u": "unpacked",
    "f": "half-configured",
    "F": "half-configured",
    "U": "unpacked",
    "h": "half-installed",
    "H": "half-installed",
    "W": "triggers-awaited",
    "t": "triggers-pending",
}
_UPTIME = regex(r"^\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ", re.MULTILINE)
_STAMPED = regex(
    r"^(?:[A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT\S+) \S+ (?:kernel|[\w.@/-]+\[\d+\]): ", re.MULTILINE
)
_HUMAN = regex(r"^\[[A-Z][a-z]{2} ([A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d) (\d{4})\] (.*)$", re.MULTILINE)
_UNAME = regex(r"^(?:uname: )?Linux (\S+) (\d\S+) #.*$", re.MULTILINE)
_RELEASE = regex(r"\buname -r[ \t]*\n(\d\S+)$", re.MULTILINE)
_BANNER = regex(r"Linux version (\d\S+) \(")
_RELEASE_FILE = regex(r'^ID="?([a-z]+)"?$', re.MULTILINE)
_LSB = regex(r"^Distributor ID:\s*(\S+)\n(?:.*\n)*?Release:\s*(\S+)", re.MULTILINE)
_DKMS = regex(
    r"^(?P<name>[\w.+-]+)(?:/|, )(?P<version>[\w.+~-]+)(?:, (?P<kernel>[^\s,]+), (?P<arch>[\w-]+))?: "
    r"(?P<state>added|built|installed)\b",
    re.MULTILINE,
)
_LSPCI = regex(
    r"^(?P<address>(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) (?P<what>.*?)"
    r"\[(?P<kind>[0-9a-f]{4})\]: .*\[(?P<vendor>[0-9a-f]{4}):(?P<device>[0-9a-f]{4})\]"
    r".*$",
    re.MULTILINE,
)
_LSPCI_DEVICE = regex(
    r"^(?P<address>(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) \S.*"
    r"(?P<more>(?:\n(?:[ \t]+\S|Subsystem:|Kernel driver in use:|Kernel modules:).*)+)",
    re.MULTILINE,
)
_LSMOD = regex(r"^Module +Size +Used by\s*$", re.MULTILINE)
_PROC_MODULES = regex(r"^\w+ \d+ \d+ \S+ (?:Live|Loading|Unloading) 0x[0-9a-f]+", re.MULTILINE)
_NVRM = regex(r"^NVRM version: NVIDIA UNIX .*$(?:\nGCC version: .*)?", re.MULTILINE)
_SMI = regex(r"NVIDIA-SMI \d[\d.]+ +(?:KMD|Driver) Version: (\d[\d.]+)")
_NO_DRIVER = regex(r"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver")
_REPORT = regex(r"^=+NVSMI LOG=+$", re.MULTILINE)
_DF = regex(
    r"^Filesystem\s+(?P<type>Type\s+)?(?:Size|1K-blocks|1024-blocks)\s+Used\s+Avail\S*\s+(?:Use%|Capacity)\s+Mounted on$"
)
_DF_ROW = regex(r"^\S+\s+(?P<type>[a-z]\S*\s+)?(?P<total>\S+)\s+\S+\s+(?P<free>\S+)\s+(?:\d+%|-)\s+(?P<path>/\S*)$")
_SIZE = regex(r"(\d+(?:[.,]\d+)?)([KMGTP]?)")
_MODINFO = regex(r"^filename: +(/\S+/nvidia[\w.-]*\.ko\S*)\n((?:[\w-]+:.*\n?|[ \t]+.*\n?)+)", re.MULTILINE)
_LS_HEADER = regex(r"^(/[\w./+-]+):$", re.MULTILINE)
_LS_LINE = regex(
    r"^(?P<kind>[-ld])[rwxsStT-]{9}[.+@]? +\d+ +\S+ +\S+ +(?P<size>\d[\d.,KMG]*) +(?:\S+ +\d{1,2} +[\d:]+|\d{4}-\d\d-\d\d \S+(?: [+-]\d{4})?|\d{1,2}\S* +\S+ +[\d:]+) "
    r"(?P<name>\S.*?)(?: -> (?P<target>\S+))?$",
    re.MULTILINE,
)
_LDCONFIG = regex(r"\d+ libs found in (?:the )?cache")
_CACHED = regex(r"^\s+(lib\S+) \((libc6\S*)[^)]*\) => (/\S+)$", re.MULTILINE)
_SECURE_BOOT = regex(r"^SecureBoot (enabled|disabled)\s*$", re.MULTILINE)
_SECURE_BOOT_STATE = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_SHIM_STATE = "/sys/firmware/efi/efivars/MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23"
_XORG = regex(r"^(?:\[[ \d.]+\] )?X\.Org X Server \d", re.MULTILINE)
_MAKE_LOG = regex(
    r"^DKMS make\.log for (?P<name>[\w.+-]+?)-(?P<version>\d[\w.+~]*) for kernel (?P<kernel>\S+)", re.MULTILINE
)
_COMPLAINT = regex(
    r"^(?:[EW]: |Err:\d+ |dpkg: error |dpkg: dependency problems|\s+trying to overwrite '/|\s+The following signatures "
    r"|Error! Bad return status|\s*subprocess .* returned error exit status)"
)


class Output(NamedTuple):
    """A text that somebody posted, and the name of the file that holds it."""

    text: str
    name: str

    def source(self, command: str) -> str:
        """For people: the command whose output this is, and where it lies."""
        return f"{command}, {self.name}"


Reader = Callable[[Output, Pieces], bool]


def read_outputs(text: str, name: str, pieces: Pieces) -> tuple[str, ...]:
    """Take what any known output in a text tells. The names of what was recognised."""
    output = Output(_ANSI.sub("", text.replace("\r\n", "\n")), name)
    return tuple(kind for kind, reader in READERS.items() if reader(output, pieces))


def _packages(output: Output, pieces: Pieces) -> bool:
    found = list(_PACKAGE.finditer(output.text))
    if not found:
        return False
    source = output.source("dpkg -l")
    stanzas = [_stanza(match) for match in found]
    pieces.file("/var/lib/dpkg/status", "\n".join(stanzas), source)
    names = {match[2] for match in found}
    if len(names) < _WHOLE_LIST or "dpkg" not in names:
        pieces.partial.add("/var/lib/dpkg/status")
    return True


def _stanza(match: "re.Match[str]") -> str:
    letters = match[1]
    return (
        f"Package: {match[2]}\nStatus: {_SELECTION[letters[0]]} ok {_STATE[letters[1]]}\n"
        f"Architecture: {match[3] or match[5] or 'amd64'}\nVersion: {match[4]}\n"
    )


def _kernel_log(output: Output, pieces: Pieces) -> bool:
    human = list(_HUMAN.finditer(output.text))
    if human:
        lines = [f"{m[1]} {pieces.hostname} kernel: {m[3]}" for m in human]
        pieces.log("/var/log/kern.log", "\n".join(lines), output.source("dmesg -T"))
    stamped = [line for line in output.text.splitlines() if _STAMPED.match(line)]
    if stamped:
        pieces.log("/var/log/kern.log", "\n".join(stamped), output.source("journalctl"))
    uptimes = list(_with_continuations(output.text))
    if uptimes:
        pieces.log("/var/log/dmesg", "\n".join(uptimes), output.source("dmesg"))
    if banner := _BANNER.search(output.text):
        line = output.text[banner.start() :].partition("\n")[0]
        _built_by(line, output.source("dmesg"), pieces)
        pieces.file("/proc/sys/kernel/osrelease", f"{banner[1]}\n", output.source("dmesg"))
    return bool(human or stamped or uptimes)


def _system(output: Output, pieces: Pieces) -> bool:
    if uname := _UNAME.search(output.text):
        _built_by(uname[0], output.source("uname -a"), pieces)
        pieces.file("/proc/sys/kernel/osrelease", f"{uname[2]}\n", output.source("uname -a"))
        pieces.file("/proc/sys/kernel/hostname", f"{uname[1]}\n", output.source("uname -a"))
    elif release := _RELEASE.search(output.text):
        pieces.file("/proc/sys/kernel/osrelease", f"{release[1]}\n", output.source("uname -r"))
    lsb = _LSB.search(output.text)
    if lsb:
        named = f'ID={lsb[1].lower()}\nVERSION_ID="{lsb[2]}"\n'
        pieces.file("/etc/os-release", named, output.source("lsb_release -a"))
    elif _RELEASE_FILE.search(output.text) and "VERSION" in output.text:
        lines = [line for line in output.text.splitlines() if re.match(r"[A-Z_]+=", line)]
        pieces.file("/etc/os-release", "\n".join(lines) + "\n", output.source("/etc/os-release"))
        return True
    return bool(uname or lsb)


def _with_continuations(text: str) -> Iterator[str]:
    """Lines of dmesg. Where one message has several, only the first has a stamp."""
    stamp = ""
    for line in text.splitlines():
        if match := _UPTIME.match(line):
            stamp = match[0]
            yield line
        elif stamp and line.startswith("     "):
            yield f"{stamp}{line.strip()}"
        else:
            stamp = ""


def _built_by(line: str, source: str, pieces: Pieces) -> None:
    """Ubuntu's and Debian's kernels name their distribution, and those for a release of long support the release."""
    if ubuntu := re.search(r"#\d+(?:~(\d\d\.\d\d)\.\d+)?-Ubuntu", line):
        release = f'VERSION_ID="{ubuntu[1]}"\n' if ubuntu[1] else ""
        pieces.guess("/etc/os-release", f"ID=ubuntu\n{release}", source)
    elif re.search(r" Debian \d+\.", line):
        pieces.guess("/etc/os-release", "ID=debian\n", source)


def _dkms(output: Output, pieces: Pieces) -> bool:
    found = list(_DKMS.finditer(output.text))
    source = output.source("dkms status")
    for match in found:
        name, version, kernel = match["name"], match["version"], match["kernel"]
        tree = f"/var/lib/dkms/{name}/{version}"
        pieces.link(f"{tree}/source", f"/usr/src/{name}-{version}", source)
        pieces.listed(tree, source)
        pieces.listed(f"/var/lib/dkms/{name}", source)
        pieces.directory(f"/usr/src/{name}-{version}", source)
        if kernel and match["state"] in ("built", "installed"):
            built = f"{tree}/{kernel}/{match['arch']}"
            pieces.elf(f"{built}/module/nvidia.ko", _module(version, kernel), source)
            for directory in (f"{built}/module", built, f"{tree}/{kernel}"):
                pieces.listed(directory, source)
        if kernel and match["state"] == "installed" and name.startswith("nvidia"):
            pieces.elf(f"/lib/modules/{kernel}/updates/dkms/nvidia.ko", _module(version, kernel), source)
            pieces.listed(f"/lib/modules/{kernel}/updates/dkms", source)
    if found:
        pieces.listed("/var/lib/dkms", source)
    return bool(found)


def _module(version: str, kernel: str, license: str = "", signer: str = "") -> Elf:
    told = {"version": version, "vermagic": f"{kernel} ", "license": license, "signer": signer}
    return Elf(64, 62, "", (), "", tuple((k, v) for k, v in told.items() if v), "", 0)


def _make_log(output: Output, pieces: Pieces) -> bool:
    match = _MAKE_LOG.search(output.text)
    if match is None:
        return False
    path = f"/var/lib/dkms/{match['name']}/{match['version']}/build/make.log"
    pieces.file(path, output.text[match.start() :], output.source("make.log"))
    return True


def _lspci(output: Output, pieces: Pieces) -> bool:
    found = list(_LSPCI.finditer(output.text))
    source = output.source("lspci -nnk")
    for match in found:
        device = _device(match["address"])
        pieces.file(f"{device}/class", f"0x{match['kind']}00\n", source)
        pieces.file(f"{device}/vendor", f"0x{match['vendor']}\n", source)
        pieces.file(f"{device}/device", f"0x{match['device']}\n", source)
        pieces.missing(f"{device}/uevent", source)
    for match in _LSPCI_DEVICE.finditer(output.text):
        _bound(_device(match["address"]), match["more"], source, pieces)
    # Who cuts lines out of a list leaves the NVIDIA devices in; without any, more than a few lines are all.
    if len(found) > _CUT_OUT or any(m["vendor"] == "10de" and m["kind"].startswith("03") for m in found):
        pieces.listed(_PCI, source)
    return bool(found)


def _device(address: str) -> str:
    return f"{_PCI}/{address if address.count(':') == 2 else f'0000:{address}'}"


def _bound(device: str, more: str, source: str, pieces: Pieces) -> None:
    """Which driver holds a device: lspci names those that could, and the one that does."""
    driver = re.search(r"Kernel driver in use: (\S+)", more)
    if driver:
        pieces.directory(f"/sys/bus/pci/drivers/{driver[1]}", source)
        if driver[1] == "nouveau":
            pieces.missing("/proc/driver/nvidia", source)
        pieces.link(f"{device}/driver", f"/sys/bus/pci/drivers/{driver[1]}", source)
    elif "Kernel modules:" in more:
        pieces.missing(f"{device}/driver", source)
        pieces.listed("/sys/bus/pci/drivers", source)


def _modules(output: Output, pieces: Pieces) -> bool:
    if _PROC_MODULES.search(output.text):
        lines = [line for line in output.text.splitlines() if _PROC_MODULES.match(line)]
        source = output.source("/proc/modules")
    elif header := _LSMOD.search(output.text):
        rows = (line.split() for line in output.text[header.end() :].splitlines())
        lines = [f"{r[0]} {r[1]} {r[2]} {r[3] + ',' if len(r) > 3 else '-'} Live 0x0" for r in _rows(rows)]
        source = output.source("lsmod")
    else:
        return False
    pieces.file("/proc/modules", "\n".join(lines) + "\n", source)
    for line in lines:
        pieces.file(f"/sys/module/{line.split()[0]}/initstate", "live\n", source)
    if not any(line.startswith("nvidia ") for line in lines):
        pieces.missing("/sys/module/nvidia", source)
        pieces.missing("/proc/driver/nvidia", source)
    return True


def _rows(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    for row in rows:
        if len(row) < 3 or not (row[1].isdigit() and row[2].isdigit()):
            return
        yield row


def _driver(output: Output, pieces: Pieces) -> bool:
    if version := _NVRM.search(output.text):
        pieces.file("/proc/driver/nvidia/version", f"{version[0]}\n", output.source("/proc/driver/nvidia/version"))
    silent = _NO_DRIVER.search(output.text)
    if silent:
        pieces.missing("/proc/driver/nvidia", output.source("nvidia-smi"))
    smi = _SMI.search(output.text)
    if smi:
        pieces.file("/sys/module/nvidia/version", f"{smi[1]}\n", output.source("nvidia-smi"))
    return bool(version or smi or silent)


def _smi(output: Output, pieces: Pieces) -> bool:
    """What nvidia-smi prints is kept as it is: its table, and its full report."""
    report = _REPORT.search(output.text)
    if report:
        pieces.outputs.setdefault("nvidia-smi -q", output.text[report.start() :])
    table = _SMI.search(output.text)
    if table:
        pieces.outputs.setdefault("nvidia-smi", output.text[table.start() :])
    return bool(report or table)


def _space(output: Output, pieces: Pieces) -> bool:
    """The rows of df up to the first line that is none. Its sizes are in KiB unless they have a unit."""
    found = False
    rows = iter(output.text.splitlines())
    for line in rows:
        if not _DF.match(line.strip()):
            continue
        for row in rows:
            match = _DF_ROW.match(row.strip())
            if match is None:
                break
            total, free = _size(match["total"]), _size(match["free"])
            if total is not None and free is not None:
                pieces.spaces.setdefault(match["path"], Space(total, free, 0, 0))
                pieces.directory(match["path"], output.source("df"))
                found = True
    return found


def _size(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    power = "KMGTP".index(match[2] or "K") + 1
    return int(float(match[1].replace(",", ".")) * 1024**power)


def _modinfo(output: Output, pieces: Pieces) -> bool:
    found = list(_MODINFO.finditer(output.text))
    for match in found:
        told = dict(re.findall(r"^([\w-]+): +(.*)$", match[2], re.MULTILINE))
        kernel = told.get("vermagic", "").split(" ")[0]
        elf = _module(told.get("version", ""), kernel, told.get("license", ""), told.get("signer", ""))
        pieces.elf(match[1], elf, output.source("modinfo"))
    return bool(found)


def _listing(output: Output, pieces: Pieces) -> bool:
    """`ls -l` of directories of libraries, headers and the like: whole under a header, else the lines alone."""
    directory, any_line = "", False
    source = output.source("ls -l")
    for line in output.text.splitlines():
        if header := _LS_HEADER.match(line):
            directory = header[1]
            continue
        match = _LS_LINE.match(line)
        if match is None:
            continue
        name = match["name"]
        path = name if name.startswith("/") else f"{directory}/{name}" if directory else ""
        if not path.startswith("/"):
            continue
        any_line = True
        if match["kind"] == "l":
            pieces.link(path, match["target"] or "", source)
        elif match["kind"] == "-" and ".so" in name:
            pieces.elf(path, Elf(64, 62, "", (), "", (), "", 1), source)
        elif match["kind"] == "d":
            pieces.directory(path, source)
        if directory and not name.startswith("/"):
            pieces.listed(directory, source)
    return any_line


def _loader(output: Output, pieces: Pieces) -> bool:
    if not _LDCONFIG.search(output.text):
        return False
    for match in _CACHED.finditer(output.text):
        pieces.elf(match[3], Elf(64, 62, match[1], (), "", (), "", 1), output.source("ldconfig -p"))
    return True


def _secure_boot(output: Output, pieces: Pieces) -> bool:
    match = _SECURE_BOOT.search(output.text)
    if match is None:
        return False
    source = output.source("mokutil --sb-state")
    pieces.file(_SECURE_BOOT_STATE, _variable(match[1] == "enabled"), source)
    if "validation is disabled in shim" in output.text:
        pieces.file(_SHIM_STATE, _variable(True), source)
    else:
        pieces.missing(_SHIM_STATE, source)
    return True


def _variable(value: bool) -> bytes:
    """A variable of the firmware: four bytes of attributes, then the value."""
    return b"\x06\0\0\0" + bytes([value])


def _xorg(output: Output, pieces: Pieces) -> bool:
    if not _XORG.search(output.text):
        return False
    pieces.file("/var/log/Xorg.0.log", output.text, output.source("Xorg.0.log"))
    return True


def _apt(output: Output, pieces: Pieces) -> bool:
    """What apt and dpkg complained about; on the machine, dpkg's part is in apt's terminal log."""
    lines = [line for line in output.text.splitlines() if _COMPLAINT.match(line)]
    if lines:
        pieces.log("/var/log/apt/term.log", "\n".join(lines), output.source("apt"))
    return bool(lines)


READERS: dict[str, Reader] = {
    "uname": _system,
    "packages": _packages,
    "kernel log": _kernel_log,
    "dkms": _dkms,
    "make.log": _make_log,
    "lspci": _lspci,
    "modules": _modules,
    "modinfo": _modinfo,
    "driver": _driver,
    "nvidia-smi": _smi,
    "df": _space,
    "listing": _listing,
    "loader": _loader,
    "secure boot": _secure_boot,
    "Xorg log": _xorg,
    "apt": _apt,
}
"""By the name of what each recognises."""
