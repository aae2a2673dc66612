"""Posted outputs about the kernel, its log, its modules and DKMS."""

import re
from collections.abc import Iterable, Iterator
from functools import cache

from dlhealth.host.base import PostedSymptom, Symptom
from dlhealth.host.elf import Elf
from dlhealth.host.posted.known import Output, Pieces
from dlhealth.host.posted.transcript import Command
from dlhealth.lazy import regex

_ENGLISH = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UPTIME = regex(r"^\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? ", re.MULTILINE)
_STAMPED = regex(
    r"^(?:\S*\.log(?:\.\d)?:)?(?:(?P<date>(?P<month>[^\W\d]{3,10}\.?) +(?P<day>\d{1,2})\.?|(?P<first>\d{1,2})\.? (?P<name>[^\W\d]{3,10}\.?)"
    r"|(?P<number>\d{1,2})月 +(?P<of>\d{1,2})) (?P<time>\d\d:\d\d:\d\d)|(?P<iso>\d{4}-\d\d-\d\dT\S+))"
    r"(?P<who> \S+ (?:kernel|[\w.@/-]+\]?\[\d+\]): )(?P<text>.*)$"
)
"""A line of syslog or journalctl, which writes dates in the language of whoever ran it."""
_MONTHS = (
    "jan|gen|ene|янв|sty|led", "feb|fév|fev|фев|lut|úno", "mar|mär|mrt|maa|мар|bře", "apr|avr|abr|апр|kwi|dub",
    "mai|may|mag|mei|maj|май|мая|kvě", "jun|juin|giu|июн|cze|čer", "jul|juil|lug|июл|lip|čvc", "aug|aoû|ago|авг|sie|srp",
    "sep|set|сен|wrz|zář", "oct|okt|ott|out|окт|paź|říj", "nov|ноя|lis", "dec|dez|déc|dic|дек|gru|pro",
)  # fmt: skip
"""How the names of the months begin in the languages that people post in."""
_HUMAN = regex(
    r"^\[\w{1,4}\.? +(?:([A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d) \d{4}|[^\].\n]{2,24}\d\d:\d\d:\d\d[^\].\n]{0,12})\] (.*)$"
)
_BARE = regex(
    r"^(?P<line>NVRM: .*|nvidia(?:-\w+)?(?: \d{4}:[0-9a-f:.]+)?: .*|nouveau \d{4}:[0-9a-f:.]+: .*"
    r"|[Ll]oading of (?:unsigned )?module.* is rejected|Lockdown: .*|PKCS#7 signature not signed with a trusted key)$",
    re.MULTILINE,
)
"""Messages of the kernel without timestamps, as dmesg --notime prints them."""
_UNAME = regex(r"^(?:uname: )?Linux (?:(?P<host>\S+) )?(?P<release>\d+\.\d+\S+) #.*$", re.MULTILINE)
_RELEASE = regex(
    r"(?:\buname -r\)?[ \t`*:]*|^#+ Kernel Release\s*?)(?:\n+(?:```\w*\n)?|[ \t]+)(\d+\.\d+\.\d[\w.+-]*)(?:[`*]*| #\d.*)$",
    re.MULTILINE,
)
_LONE_RELEASE = regex(r"\A\s*(\d+\.\d+\.\d+-[\w.+-]+)\s*\Z")
_SHORT = 200
_LONG = 200_000
"""Characters. No summary of a machine is longer."""
_BANNER = regex(r"Linux version (\d\S+) \(")
_RELEASE_FILE = regex(r'^ID="?([a-z]+)"?$', re.MULTILINE)
_LSB = regex(
    r"^(?:Distributor ID:\s*(?P<id>\S+)\n)?Description:\s*(?P<what>Ubuntu|Debian|Linux Mint|Pop!_OS)\b.*\nRelease:\s*(?P<number>\S+)",
    re.MULTILINE,
)
_SUMMARY = regex(
    r"^(?:System:.*?\b|[ \t*|#-]{0,30})(?:Operating System(?: and Version)?|OS|Distro|System)\W{1,6}(?:Description:\s*)?(?:\w+ )?(?P<name>Ubuntu|Debian GNU/Linux|Debian|Linux Mint|Pop!_OS) (?P<number>\d+(?:\.\d+)?)",
    re.MULTILINE,
)
_SUMMARY_KERNEL = regex(
    r"^[ \t*|-]{0,30}(?:System:\s+|.*\bHost: \S+ )?Kernel(?: [Vv]ersion)?\W{1,4}(?:Linux )?(?P<release>\d+\.\d+\.\d+-[\w.+-]+)",
    re.MULTILINE,
)
_IDS = {"debian gnu/linux": "debian", "linux mint": "linuxmint", "pop!_os": "pop"}
_DKMS = regex(
    r"^(?P<name>[\w.+-]+)(?:/|, )(?P<version>[\w.+~-]+)(?:, (?P<kernel>[^\s,]+), (?P<arch>[\w-]+))?: "
    r"(?P<state>added|built|installed)\b",
    re.MULTILINE,
)
_MAKE_LOG = regex(
    r"^DKMS \(?[\w.-]*\)? ?make\.log for (?P<name>[\w.+-]+?)[-/](?P<version>\d[\w.+~]*) for kernel (?P<kernel>\S+)",
    re.MULTILINE,
)
_BAD_STATUS = regex(
    r"^\s*(?:dkms: )?Error! Bad return status for module build on kernel: (?P<kernel>\S+) \(\S+\)"
    r"(?:\n+\s*Consult (?P<log>/var/lib/dkms/(?P<name>[\w.+-]+)/(?P<version>[\w.+~-]+)/build/make\.log))?",
    re.MULTILINE,
)
_ASKED = regex(
    r"dkms (?:install|build|add) (?:-m (?P<name>[\w.+-]+) -v (?P<version>[\w.+~-]+)|(?P<of>[\w.+-]+)/(?P<number>\d[\w.+~-]*))"
)
"""What somebody asked DKMS for, where its answer does not name it."""
_COMPILER_SAID = regex(
    r"^[ \t]*(?:\S+:\d+(?::\d+)?: (?:fatal )?error: .*|ERROR: modpost: .*|(?:gcc|cc)\S*: error: .*"
    r"|make(?:\[\d+\])?: \*\*\* .*|Error! Bad return status for module build.*|\S+: internal compiler error: .*|FATAL: modpost: .*)$",
    re.MULTILINE,
)
_CUT_ERROR = regex(r"^(?:\S+:\d+(?::\d+)?: (?:fatal )?error: |(?:gcc|cc)\S*: error: |ERROR: modpost: )", re.MULTILINE)
_BUILD_TREE = regex(r"/var/lib/dkms/(?P<name>nvidia[\w-]*)/(?P<version>\d[\w.]*)/build/")
_BUILT_FOR = regex(r"/(?:usr/src/linux-headers-|lib/modules/)(?P<kernel>\d[^\s/'\"]+?)(?:/build)?['\"/\s]")
_ENTERED = regex(
    r"[Ee]ntering directory [`'‘](?:/usr)?(?:/lib/modules/(?P<of>[^/'’\s]+)/build|/src/linux-headers-(?P<kernel>[^/'’\s]+))['’]"
)
"""The headers that make found."""
_NO_HEADERS = regex(r"kernel headers for kernel (?P<kernel>\d\S+) cannot be found")
_NO_MODULE = regex(
    r"modprobe: FATAL: Module (?P<module>nvidia[\w-]*) not found in directory (?:/usr)?/lib/modules/(?P<kernel>\d\S+)"
)
_NO_MODULE_FILE = regex(r"mod(?:info|probe): (?:ERROR|FATAL): Module nvidia not found\.?$", re.MULTILINE)
_REFUSED = regex(
    r"(?:could not|Could not) insert (?:module )?['\"‘]?nvidia(?:[_-]current)?['\"’]?: (?P<why>[A-Z][\w' ]+)"
)
_OTHER_REFUSED = regex(
    r"could not insert (?:module )?['\"‘]?(?!nvidia)[\w./-]+['\"’]?: (?:Key was rejected|Required key)[a-z ]+",
    re.IGNORECASE,
)
_WHY = {
    "Key was rejected by service": "Loading of module with unavailable key is rejected",
    "Required key not available": "Loading of module with unavailable key is rejected",
}
"""What the kernel logs where modprobe prints this (kernel/module/signing.c)."""
_LSMOD = regex(r"^Module +Size +Used by\s*$", re.MULTILINE)
_LSMOD_ROW = regex(
    r"^(?P<name>nvidia(?:_\w+)?|nouveau) +(?P<size>\d{4,}) +(?P<uses>-?\d+) *(?P<by>[\w,]*)\s*$", re.MULTILINE
)
_PROC_MODULES = regex(r"^\w+ \d+ \d+ \S+ (?:Live|Loading|Unloading) 0x[0-9a-f]+", re.MULTILINE)
_NVRM = regex(r"^NVRM version: +NVIDIA UNIX .*$(?:\nGCC version: .*)?", re.MULTILINE)
_SMI = regex(r"NVIDIA-SMI \d[\d.]+ +(?:KMD|Driver) Version: (\d[\d.]+)")
_SMI_QUERY = regex(r"^Driver Version +: (\d{3}\.[\d.]+)$", re.MULTILINE)
_GLX = regex(r"^OpenGL (?:core profile )?version string: .*NVIDIA (\d{3}\.[\d.]+)$", re.MULTILINE)
_INXI_DRIVER = regex(r"\bdriver: nvidia v: (\d{2,3}\.[\d.]+)")
_NO_DRIVER = regex(r"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver")
_MISMATCH = regex(
    r"(?:Failed to initialize NVML: |NVML: |nvml error: |Failed to initialize nvml: )[Dd]river/library version mismatch(?:\n+NVML library version: (?P<version>[\d.]+))?",
)
_NO_LIBRARY = regex(r"Could not load dynamic library '(?P<name>[\w.]+)'")
_NO_DEVICES = regex(r"^No devices were found$", re.MULTILINE)
_MODINFO = regex(r"^filename: +(/\S+/nvidia[\w.-]*\.ko\S*)\n((?:[\w-]+:.*\n?|[ \t]+.*\n?)+)", re.MULTILINE)
_SECURE_BOOT = regex(r"^\W{0,3}Secure ?Boot:? (enabled|disabled)\b", re.MULTILINE)
_SECURE_BOOT_STATE = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
_SHIM_STATE = "/sys/firmware/efi/efivars/MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23"


def log(output: Output, pieces: Pieces) -> bool:
    """Lines of the kernel log, with the stamps of dmesg, dmesg -T, journalctl, rsyslog, or none."""
    text = output.text
    human = list(_with_date(text, pieces.hostname))
    if human:
        pieces.log("/var/log/kern.log", "\n".join(human), output.source("dmesg -T"))
    stamped = list(_stamped(text))
    if stamped:
        pieces.log("/var/log/kern.log", "\n".join(stamped), output.source("journalctl"))
    uptimes = list(_with_continuations(text))
    bare = [] if uptimes else [f"[    0.000000] {m['line']}" for m in _BARE.finditer(text)]
    if uptimes or bare:
        pieces.log("/var/log/dmesg", "\n".join([*uptimes, *bare]), output.source("dmesg"))
    if banner := _BANNER.search(text):
        line = text[banner.start() :].partition("\n")[0]
        _built_by(line, output.source("dmesg"), pieces)
        pieces.file("/proc/sys/kernel/osrelease", f"{banner[1]}\n", output.source("dmesg"))
        pieces.guess("/proc/version", f"{line}\n", output.source("dmesg"))
    return bool(human or stamped or uptimes or bare)


def _stamped(text: str) -> Iterator[str]:
    """Lines of syslog. Of a message with several lines, journalctl indents all but the first. `less` cuts long lines, and
    ends them with ">"."""
    stamp = ""
    for line in text.splitlines():
        if match := _STAMPED.match(line):
            stamp = f"{match['iso'] or _english(match)}{match['who']}"
            yield f"{stamp}{match['text'].removesuffix('>')}"
        elif stamp and line.startswith("     "):
            yield f"{stamp}{line.strip().removesuffix('>')}"
        else:
            stamp = ""


def _english(match: "re.Match[str]") -> str:
    """A date as syslog writes it; with the first month if its name is in a language that is not known here."""
    day, name = match["day"] or match["of"] or match["first"], match["month"] or match["name"] or ""
    number = min(int(match["number"]), 12) - 1 if match["number"] else _month(name)
    return f"{_ENGLISH[number]} {day:>2} {match['time']}"


@cache
def _month(name: str) -> int:
    return next((n for n, starts in enumerate(_MONTHS) if name.lower().startswith(tuple(starts.split("|")))), 0)


def _with_date(text: str, hostname: str) -> Iterator[str]:
    """Lines of `dmesg -T`. Where one message has several, only the first has a date."""
    stamp = ""
    for line in text.splitlines():
        if match := _HUMAN.match(line):
            stamp = f"{match[1] or 'Jan  1 00:00:00'} {hostname} kernel: "
            yield f"{stamp}{match[2].removesuffix('>')}"
        elif stamp and line.startswith("     "):
            yield f"{stamp}{line.strip().removesuffix('>')}"
        else:
            stamp = ""


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


def system(output: Output, pieces: Pieces) -> bool:
    """The kernel and the distribution: uname, lsb_release, os-release, and tools that sum up a machine."""
    text = output.text
    uname = _UNAME.search(text)
    if uname:
        _built_by(uname[0], output.source("uname -a"), pieces)
        pieces.file("/proc/sys/kernel/osrelease", f"{uname['release']}\n", output.source("uname -a"))
        if uname["host"]:
            pieces.file("/proc/sys/kernel/hostname", f"{uname['host']}\n", output.source("uname -a"))
    release = _RELEASE.search(text)
    if release:
        pieces.file("/proc/sys/kernel/osrelease", f"{release[1]}\n", output.source("uname -r"))
    lsb = _LSB.search(text)
    if lsb:
        name = (lsb["id"] or lsb["what"]).lower()
        pieces.file("/etc/os-release", os_release(_IDS.get(name, name), lsb["number"]), output.source("lsb_release -a"))
    elif "VERSION" in text and _RELEASE_FILE.search(text):
        lines = [line for line in text.splitlines() if re.match(r"[A-Z_]+=", line)]
        pieces.file("/etc/os-release", "\n".join(lines) + "\n", output.source("/etc/os-release"))
        return True
    return bool(uname or release or lsb)


def summary(output: Output, pieces: Pieces) -> bool:
    """hostnamectl, neofetch, inxi, and the forms of bug trackers."""
    if len(output.text) > _LONG:
        return False
    named, kernel = _SUMMARY.search(output.text), _SUMMARY_KERNEL.search(output.text)
    if named:
        name = named["name"].lower()
        pieces.guess("/etc/os-release", os_release(_IDS.get(name, name), named["number"]), output.name)
    if kernel:
        pieces.guess("/proc/sys/kernel/osrelease", f"{kernel['release']}\n", output.name)
    return bool(named or kernel)


def os_release(name: str, number: str) -> str:
    """What /etc/os-release has of a distribution and its release."""
    like = 'ID_LIKE="ubuntu debian"\n' if name in ("linuxmint", "pop") else ""
    return f'ID={name}\n{like}VERSION_ID="{number}"\n'


def lone_release(output: Output, pieces: Pieces) -> bool:
    """A text that is nothing but the output of `uname -r`."""
    release = _LONE_RELEASE.match(output.text) if len(output.text) < _SHORT else None
    if release:
        pieces.file("/proc/sys/kernel/osrelease", f"{release[1]}\n", output.source("uname -r"))
    return release is not None


def _built_by(line: str, source: str, pieces: Pieces) -> None:
    """Ubuntu's and Debian's kernels name their distribution, and those for a release of long support the release."""
    if ubuntu := re.search(r"#\d+(?:~(\d\d\.\d\d)\.\d+)?-Ubuntu", line):
        release = f'VERSION_ID="{ubuntu[1]}"\n' if ubuntu[1] else ""
        pieces.guess("/etc/os-release", f"ID=ubuntu\n{release}", source)
    elif re.search(r" Debian \d+\.", line):
        pieces.guess("/etc/os-release", "ID=debian\n", source)
    elif re.search(r"-microsoft-standard", line, re.IGNORECASE):
        pieces.guess("/proc/version", f"{line}\n", source)


def dkms(output: Output, pieces: Pieces) -> bool:
    """`dkms status`."""
    found = list(_DKMS.finditer(output.text))
    source = output.source("dkms status")
    for match in found:
        name, version, release = match["name"], match["version"], match["kernel"]
        tree = _tree(name, version, source, pieces)
        if release and match["state"] in ("built", "installed"):
            built = f"{tree}/{release}/{match['arch']}"
            pieces.elf(f"{built}/module/nvidia.ko", _module(version, release), source)
            for directory in (f"{built}/module", built, f"{tree}/{release}"):
                pieces.listed(directory, source)
        if release and match["state"] == "installed" and name.startswith("nvidia"):
            pieces.elf(f"/lib/modules/{release}/updates/dkms/nvidia.ko", _module(version, release), source)
            pieces.listed(f"/lib/modules/{release}/updates/dkms", source)
    if found:
        pieces.listed("/var/lib/dkms", source)
    return bool(found)


def _tree(name: str, version: str, source: str, pieces: Pieces) -> str:
    tree = f"/var/lib/dkms/{name}/{version}"
    pieces.link(f"{tree}/source", f"/usr/src/{name}-{version}", source)
    pieces.listed(tree, source)
    pieces.listed(f"/var/lib/dkms/{name}", source)
    pieces.directory(f"/usr/src/{name}-{version}", source)
    return tree


def _module(version: str, kernel: str, license: str = "", signer: str = "") -> Elf:
    told = {"version": version, "vermagic": f"{kernel} ", "license": license, "signer": signer}
    return Elf(64, 62, "", (), "", tuple((k, v) for k, v in told.items() if v), "", 0)


def failed_build(output: Output, pieces: Pieces) -> bool:
    """A make.log of DKMS, or what DKMS said in the output of apt."""
    text = output.text
    log_file = _MAKE_LOG.search(text)
    if log_file:
        name, version = log_file["name"], log_file["version"]
        path = f"{_tree(name, version, output.source('make.log'), pieces)}/build/make.log"
        pieces.file(path, text[log_file.start() :], output.source("make.log"))
        pieces.built_last(log_file["kernel"], output.source("make.log"))
        pieces.listed("/var/lib/dkms", output.source("make.log"))
    cut = None if log_file else _part_of_a_log(text)
    if cut:
        _cut_log(*cut, text, output.source("make.log"), pieces)
    failed = list(_BAD_STATUS.finditer(text))
    for match in failed:
        source = output.source("the output of DKMS")
        asked = _ASKED.search(text)
        name = match["name"] or (asked and (asked["name"] or asked["of"]))
        version = match["version"] or (asked and (asked["version"] or asked["number"]))
        if not name or not version:
            continue
        pieces.built_last(match["kernel"], source)
        _cut_log(name, version, match["kernel"], text, source, pieces)
    for match in _ENTERED.finditer(text):
        pieces.directory(f"/lib/modules/{match['of'] or match['kernel']}/build", output.source("make.log"))
    headers = list(_NO_HEADERS.finditer(text))
    for match in headers:
        release = match["kernel"].strip("'\".,")
        for name in ("build", "source"):
            pieces.missing(f"/lib/modules/{release}/{name}", output.source("the output of DKMS"))
    return bool(log_file or cut or failed or headers)


def _cut_log(name: str, version: str, release: str, text: str, source: str, pieces: Pieces) -> None:
    """A failed build with only some lines of its make.log."""
    said = [m[0] for m in _COMPILER_SAID.finditer(text)]
    lines = [f"DKMS make.log for {name}-{version} for kernel {release} (x86_64)", *said]
    tree = _tree(name, version, source, pieces)
    pieces.guess(f"{tree}/build/make.log", "\n".join(lines) + "\n", source)
    pieces.listed("/var/lib/dkms", source)


def _part_of_a_log(text: str) -> tuple[str, str, str] | None:
    """Module, version and kernel of an error that somebody cut out of a make.log; None if it does not name them."""
    if _BAD_STATUS.search(text) or not _CUT_ERROR.search(text):
        return None
    place, kernel = _BUILD_TREE.search(text), _BUILT_FOR.search(text)
    return (place["name"], place["version"], kernel["kernel"]) if place and kernel else None


def refused(output: Output, pieces: Pieces) -> bool:
    """What modprobe and modinfo say of the nvidia module."""
    absent = _NO_MODULE.search(output.text)
    if absent:
        source, release = output.source("modprobe"), absent["kernel"]
        pieces.guess("/proc/sys/kernel/osrelease", f"{release}\n", source)
        if absent["module"] == "nvidia":
            pieces.no_module(release, source)
            pieces.missing("/proc/driver/nvidia", source)
    elif _NO_MODULE_FILE.search(output.text):
        source = output.source("modprobe")
        pieces.no_module("", source)
        pieces.missing("/proc/driver/nvidia", source)
    reason = _REFUSED.search(output.text)
    others = None if reason else _OTHER_REFUSED.search(output.text)
    if others:
        _says(Symptom.OTHER_REFUSED, others, output.source("modprobe"), pieces)
    if reason:
        _says(Symptom.REFUSED, reason, output.source("modprobe"), pieces)
    if reason and (said := _WHY.get(reason["why"].strip())):
        pieces.missing("/proc/driver/nvidia", output.source("modprobe"))
        pieces.log("/var/log/dmesg", f"[    0.000000] {said}", output.source(f"modprobe: {reason['why'].strip()}"))
    return bool(absent or reason or others or _NO_MODULE_FILE.search(output.text))


def loaded(output: Output, pieces: Pieces) -> bool:
    """`lsmod` and /proc/modules; of lines that somebody cut out, those of the GPU's modules."""
    whole = True
    if _PROC_MODULES.search(output.text):
        lines = [line for line in output.text.splitlines() if _PROC_MODULES.match(line)]
        source = output.source("/proc/modules")
    elif header := _LSMOD.search(output.text):
        rows = (line.split() for line in output.text[header.end() :].splitlines() if line.strip())
        lines = [_proc_line(r[0], r[1], r[2], r[3] if len(r) > 3 else "") for r in _rows(rows)]
        source = output.source("lsmod")
    else:
        lines = [_proc_line(m["name"], m["size"], m["uses"], m["by"]) for m in _LSMOD_ROW.finditer(output.text)]
        source, whole = output.source("lsmod"), False
    if not lines:
        return False
    if whole or any(line.startswith("nvidia ") for line in lines):
        pieces.file("/proc/modules", "\n".join(lines) + "\n", source)
    for line in lines:
        pieces.file(f"/sys/module/{line.split()[0]}/initstate", "live\n", source)
    if whole and not any(line.startswith("nvidia ") for line in lines):
        pieces.not_loaded(source)
    return True


def silent(typed: Iterable[Command], output: Output, pieces: Pieces) -> bool:
    """`lsmod | grep nvidia` and `dkms status` that printed nothing."""
    any_found = False
    for command in typed:
        if command.output.strip() or not command.ended:
            continue
        source = output.source(command.line)
        if re.fullmatch(r"lsmod *\| *grep (?:-i )?['\"]?nvidia['\"]?", command.line):
            pieces.not_loaded(source)
            any_found = True
        elif command.line == "dkms status":
            pieces.listed("/var/lib/dkms", source)
            any_found = True
    return any_found


def _proc_line(name: str, size: str, uses: str, by: str) -> str:
    return f"{name} {size} {uses} {by + ',' if by else '-'} Live 0x0"


def _rows(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    for row in rows:
        if len(row) < 3 or not (row[1].isdigit() and row[2].lstrip("-").isdigit()):
            return
        yield row


def driver(output: Output, pieces: Pieces) -> bool:
    """The version of the loaded driver, or that there is none."""
    version = _NVRM.search(output.text)
    if version:
        pieces.file("/proc/driver/nvidia/version", f"{version[0]}\n", output.source("/proc/driver/nvidia/version"))
    silent = _NO_DRIVER.search(output.text)
    if silent:
        pieces.missing("/proc/driver/nvidia", output.source("nvidia-smi"))
        _says(Symptom.NO_DRIVER, silent, output.source("nvidia-smi"), pieces)
    mismatch, none = _MISMATCH.search(output.text), _NO_DEVICES.search(output.text)
    library = _NO_LIBRARY.search(output.text)
    if mismatch:
        _says(Symptom.MISMATCH, mismatch, output.source("nvidia-smi"), pieces, mismatch["version"] or "")
    if library:
        _says(Symptom.NO_LIBRARY, library, output.source("TensorFlow"), pieces)
    if none:
        _says(Symptom.NO_DEVICES, none, output.source("nvidia-smi"), pieces)
    told = False
    for pattern, command in (
        (_SMI, "nvidia-smi"),
        (_SMI_QUERY, "nvidia-smi -q"),
        (_GLX, "glxinfo"),
        (_INXI_DRIVER, "inxi"),
    ):
        if match := pattern.search(output.text):
            pieces.file("/sys/module/nvidia/version", f"{match[1]}\n", output.source(command))
            told = True
    if told:
        pieces.outputs.setdefault("the driver's version", "")
    return bool(version or silent or told or mismatch or none or library)


def without_the_past(text: str) -> str:
    """A text without what nvidia-smi complained about before it worked: that is over."""
    works = max((m.start() for m in _SMI.finditer(text)), default=0)
    before = text[:works]
    for pattern in (_NO_DRIVER, _MISMATCH, _NO_DEVICES):
        before = pattern.sub("", before)
    return before + text[works:]


def _says(symptom: Symptom, match: "re.Match[str]", source: str, pieces: Pieces, version: str = "") -> None:
    text = " ".join(match[0].split())
    pieces.symptoms.append(PostedSymptom(symptom, text, source, version))


def modinfo(output: Output, pieces: Pieces) -> bool:
    """`modinfo nvidia`."""
    found = list(_MODINFO.finditer(output.text))
    for match in found:
        told = dict(re.findall(r"^([\w-]+): +(.*)$", match[2], re.MULTILINE))
        release = told.get("vermagic", "").split(" ")[0]
        elf = _module(told.get("version", ""), release, told.get("license", ""), told.get("signer", ""))
        pieces.elf(match[1], elf, output.source("modinfo"))
    return bool(found)


def secure_boot(output: Output, pieces: Pieces) -> bool:
    """`mokutil --sb-state`, or the same words in another tool's summary."""
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
