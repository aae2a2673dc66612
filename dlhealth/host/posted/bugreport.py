"""NVIDIA's bug report: the log that nvidia-bug-report.sh writes, and that people post in forums.

A line of underscores separates the sections. A section is a file ("*** /path", its line of `ls`, its text), a path that
does not exist, or a command with its output. Anything that the log does not contain is unknown.
"""

import posixpath
import re

from dlhealth.host.posted.kernel import log, os_release
from dlhealth.host.posted.known import Output, Pieces
from dlhealth.host.posted.outputs import read_outputs
from dlhealth.lazy import regex

MARK = "NVIDIA bug report log file"
_PARTS = regex(r"^_{40,}$", re.MULTILINE)
_FILE = regex(
    r"\A\s*\*\*\* (?P<path>/\S+)\n\*\*\* ls: (?P<kind>.)\S* [^\n]*?(?: -> (?P<target>\S+))?\n(?P<text>.*)\Z", re.DOTALL
)
_ABSENT = regex(r"\A\s*\*\*\* (/\S+) does not exist")
_COMMAND = regex(r"\A\s*(?:/\S*/)?(?P<name>[a-z][\w.-]*)")
_UNREAD = regex(r"\*\*\* (?:/\S+ )?(?:is not readable|contains no data)|^\*\*\* Unable to", re.MULTILINE)
_HELD = regex(r"/proc/driver/nvidia/gpus/([0-9a-f:.]+)/")
"""The driver lists its devices."""


def read_bug_report(text: str, name: str, pieces: Pieces) -> None:
    """Take the content of a log; the readable part of an incomplete one."""
    for section in _PARTS.split(text):
        if file := _FILE.match(section):
            _file(file, pieces)
        elif absent := _ABSENT.match(section):
            pieces.missing(posixpath.normpath(absent[1]))
        else:
            _command(section, name, pieces)
    if issue := pieces.files.get("/etc/issue"):
        _release(issue.decode(errors="replace"), pieces)
    for path in list(pieces.files):
        if gpu := _HELD.match(path):
            pieces.directory("/sys/bus/pci/drivers/nvidia")
            pieces.link(f"/sys/bus/pci/devices/{gpu[1]}/driver", "/sys/bus/pci/drivers/nvidia")


def _command(section: str, name: str, pieces: Pieces) -> None:
    """The output of a command. A log has lines of everything, and a dump is no text: no other reader looks at them."""
    command = _COMMAND.match(section)
    if command and command["name"] in ("journalctl", "dmesg"):
        log(Output(section, name), pieces)
    elif not command or command["name"] != "nvidia-debugdump":
        read_outputs(section, name, pieces)


def _file(match: "re.Match[str]", pieces: Pieces) -> None:
    path, target = posixpath.normpath(match["path"]), match["target"]
    if match["kind"] == "l" and target:
        pieces.link(path, target)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if match["kind"] == "d" or path.startswith("/sys/bus/pci/devices/"):
        return
    text = match["text"].strip("\n")
    if _UNREAD.search(text[:500]):
        return
    pieces.file(path, f"{text}\n" if text else "")


def _release(issue: str, pieces: Pieces) -> None:
    found = re.match(
        r"(Ubuntu|Debian GNU/Linux|Linux Mint|Pop!_OS|Fedora|Arch) ?(?:Linux )?(?:release )?(\d+(?:\.\d+)?)?", issue
    )
    if found:
        ids = {"Debian GNU/Linux": "debian", "Linux Mint": "linuxmint", "Pop!_OS": "pop"}
        name_of = ids.get(found[1], found[1].lower())
        pieces.file("/etc/os-release", os_release(name_of, found[2] or ""))
