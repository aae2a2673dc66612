"""Posted outputs about files: listings, the loader's cache, and files that somebody printed or attached."""

import posixpath
import re

from dlhealth.host.base import Space
from dlhealth.host.elf import Elf
from dlhealth.host.posted.known import Output, Pieces
from dlhealth.host.posted.transcript import Command
from dlhealth.lazy import regex

_LS_HEADER = regex(r"^(/[\w./+-]+):$", re.MULTILINE)
_LS_LINE = regex(
    r"^(?P<kind>[-ld])[rwxsStT-]{9}[.+@]? +\d+ +\S+ +\S+ +(?P<size>\d[\d.,KMG]*) +(?:\S+ +\d{1,2} +[\d:]+|\d{4}-\d\d-\d\d \S+(?: [+-]\d{4})?|\d{1,2}\S* +\S+ +[\d:]+) "
    r"(?P<name>\S.*?)(?: -> (?P<target>\S+))?$",
    re.MULTILINE,
)
_ABSENT = regex(
    r"^(?:ls|cat|stat|file|less|head|tail): (?:cannot (?:access|open) )?['‘]?(?P<path>/[^\s'’:*?]+)['’]?(?: for reading)?: No such file or directory",
    re.MULTILINE,
)
_LDCONFIG = regex(r"\d+ libs found in (?:the )?cache")
_CACHED = regex(r"^\s*(lib\S+) \((libc6\S*)[^)]*\) => (/\S+)$", re.MULTILINE)
_XORG = regex(r"^(?:\[[ \d.]+\] )?X\.Org X Server \d", re.MULTILINE)
_DF = regex(
    r"^Filesystem\s+(?P<type>Type\s+)?(?:Size|1K-blocks|1024-blocks)\s+Used\s+Avail\S*\s+(?:Use%|Capacity)\s+Mounted on$"
)
_DF_ROW = regex(r"^\S+\s+(?P<type>[a-z]\S*\s+)?(?P<total>\S+)\s+\S+\s+(?P<free>\S+)\s+(?:\d+%|-)\s+(?P<path>/\S*)$")
_SIZE = regex(r"(\d+(?:[.,]\d+)?)([KMGTP]?)")
_ATTACHED = {
    "xorg.conf": "/etc/X11/xorg.conf",
    "environment": "/etc/environment",
    "os-release": "/etc/os-release",
    "daemon.json": "/etc/docker/daemon.json",
    "prime-discrete": "/etc/prime-discrete",
    "sources.list": "/etc/apt/sources.list",
    "fstab": "/etc/fstab",
}
"""Files that people attach under their own names."""
_TITLE = regex(
    r"^[\s*#`_-]*(?P<path>/(?:etc|proc|sys|usr|var|lib|run)/[\w./+@-]+)[`*_]*:?[*_]*\n+\s*```[^\n]*\n(?P<text>(?:(?!\s*```).*\n)+)\s*```",
    re.MULTILINE,
)
"""A path as the headline of a block of code."""


def listing(output: Output, pieces: Pieces) -> bool:
    """`ls -l` of directories of libraries, headers and the like: whole under a header, else the lines alone."""
    directory, any_line = "", False
    source = output.source("ls -l")
    for absent in _ABSENT.finditer(output.text):
        pieces.missing(posixpath.normpath(absent["path"]), source)
        any_line = True
    for line in output.text.splitlines():
        if header := _LS_HEADER.match(line):
            directory = header[1]
            continue
        match = _LS_LINE.match(line)
        if match is None:
            continue
        name = match["name"]
        path = name if name.startswith("/") else f"{directory}/{name}" if directory else ""
        if path.startswith("/"):
            any_line = True
            _entry(path, match, source, pieces)
            if directory and not name.startswith("/"):
                pieces.listed(directory, source)
    return any_line


def listed(command: Command, output: Output, pieces: Pieces) -> bool:
    """A typed `ls -l DIRECTORY`, whose output does not name the directory."""
    rows = list(_LS_LINE.finditer(command.output))
    if (
        command.words[:1] != ("ls",)
        or not command.path
        or not command.output.lstrip().startswith(("total ", "insgesamt "))
    ):
        return False
    source = output.source(f"ls -l {command.path}")
    for match in rows:
        if match["name"] not in (".", ".."):
            _entry(f"{command.path}/{match['name']}", match, source, pieces)
    pieces.listed(command.path, source)
    return True


def _entry(path: str, match: "re.Match[str]", source: str, pieces: Pieces) -> None:
    if match["kind"] == "l":
        pieces.link(path, match["target"] or "", source)
    elif match["kind"] == "-" and ".so" in posixpath.basename(path):
        pieces.elf(path, Elf(64, 62, "", (), "", (), "", 1), source)
    elif match["kind"] == "d":
        pieces.directory(path, source)


def loader_cache(output: Output, pieces: Pieces) -> bool:
    """`ldconfig -p`, also with most lines cut out."""
    found = list(_CACHED.finditer(output.text))
    for match in found:
        pieces.elf(match[3], Elf(64, 62, match[1], (), "", (), "", 1), output.source("ldconfig -p"))
    return bool(found or _LDCONFIG.search(output.text))


def xorg_log(output: Output, pieces: Pieces) -> bool:
    """The log of the X server."""
    if not _XORG.search(output.text):
        return False
    pieces.file("/var/log/Xorg.0.log", output.text, output.source("Xorg.0.log"))
    return True


def space(output: Output, pieces: Pieces) -> bool:
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


def printed(command: Command, output: Output, pieces: Pieces) -> bool:
    """A typed `cat FILE`."""
    said = command.output.strip()
    if command.words[:1] != ("cat",) or not said or said.startswith("cat: "):
        return False
    if len(command.words) == 2 and command.words[1].startswith("~/.") and not command.home:
        pieces.at_home(command.words[1][2:], command.output.strip("\n") + "\n", output.source(command.line))
        return True
    path = command.path
    if not path or path == "/":
        return False
    pieces.file(posixpath.normpath(path), command.output.strip("\n") + "\n", output.source(f"cat {path}"))
    return True


def attached(output: Output, pieces: Pieces) -> bool:
    """A configuration file under its own name, or one whose path is the headline of a block of code."""
    titled = list(_TITLE.finditer(output.text))
    for match in titled:
        pieces.file(posixpath.normpath(match["path"]), match["text"], output.name)
    path = _ATTACHED.get(output.name, "")
    if path:
        pieces.file(path, output.text, output.name)
    return bool(titled or path)
