"""Posted outputs about the packages: dpkg, apt and apt's error messages."""

import re
from collections.abc import Iterator

from dlhealth.host.posted.known import STATUS, Output, Pieces
from dlhealth.host.posted.transcript import Command
from dlhealth.lazy import regex

_PACKAGE = regex(
    r"^[>\s]{0,8}(?P<state>[uihrp][nicufhtFHUW])[ R]?\s+(?P<name>[a-z0-9][a-z0-9.+-]+)(?::(?P<architecture>[a-z0-9]+))?"
    r"\s+(?P<version>\S*\d\S*|<none>|\(none\))(?:\s+(?P<of>[a-z][a-z0-9-]*)\b)?",
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
_APT_LIST = regex(
    r"^(?P<name>[a-z0-9][a-z0-9.+-]+)/(?:\S+ )?(?P<version>\d\S*) (?P<architecture>[a-z0-9-]+) \[(?P<state>[^\]\n]+)\]",
    re.MULTILINE,
)
_POLICY = regex(
    r"^(?P<name>[a-z0-9][a-z0-9.+-]+)(?::(?P<architecture>[a-z0-9]+))?:\n {2}Installed: (?P<version>\S+)\n {2}Candidate: ",
    re.MULTILINE,
)
_SELECTED = regex(
    r"^(?P<name>[a-z0-9][a-z0-9.+-]+)(?::(?P<architecture>[a-z0-9]+))?[ \t]+(?P<want>install|hold|deinstall|purge)$",
    re.MULTILINE,
)
_FAILED = regex(
    # The words before the name are in the language of whoever ran apt.
    r"^dpkg: \w[^\n]{5,60}? (?P<name>[a-z0-9][a-z0-9.+-]+)(?::(?P<architecture>[a-z0-9]+))? \(--configure\)",
    re.MULTILINE,
)
_SETTING_UP = regex(
    r"^Setting up (?P<name>[a-z0-9][a-z0-9.+-]+)(?::[a-z0-9]+)? \((?P<version>\S+)\) \.\.\.", re.MULTILINE
)
_COMPLAINT = regex(
    r"^(?:[EW]: |Err:\d+ |dpkg: error |dpkg: dependency problems|\s+trying to overwrite '/|\s+The following signatures "
    r"|Error! Bad return status|\s*subprocess .* returned error exit status)"
)
_GREP = regex(r"\| *e?grep (?:-\w+ )*(?:-e )?(['\"]?)(?P<words>[\w.|\\-]+)\1")


def dpkg(output: Output, pieces: Pieces) -> bool:
    """`dpkg -l`."""
    return _know(_listed(output.text), output.source("dpkg -l"), pieces)


def apt(output: Output, pieces: Pieces) -> bool:
    """`apt list --installed`, `apt-cache policy` and `dpkg --get-selections`, and the packages that apt could not
    configure."""
    command = "apt-cache policy" if _POLICY.search(output.text) else "the output of apt"
    return _know(_of_apt(output.text), output.source(command), pieces)


def complaints(output: Output, pieces: Pieces) -> bool:
    """What apt and dpkg complained about; on the machine, dpkg's part is in apt's terminal log."""
    lines = [line for line in output.text.splitlines() if _COMPLAINT.match(line)]
    if lines:
        pieces.log("/var/log/apt/term.log", "\n".join(lines), output.source("apt"))
    return bool(lines)


def _know(rows: "Iterator[_Row]", source: str, pieces: Pieces) -> bool:
    found = list(rows)
    for name, architecture, status, version in found:
        pieces.package(name, architecture, status, version, source)
    return bool(found)


def searched(command: Command, pieces: Pieces) -> None:
    """Which packages a typed `dpkg -l | grep WORD` shows all of."""
    lists = command.words[:2] in (("dpkg", "-l"), ("dpkg", "--list")) or command.words[:1] == ("apt",)
    found = _GREP.search(command.line)
    if lists and found and command.line.count("|") == 1 + found["words"].count("|") and _PACKAGE.search(command.output):
        words = re.split(r"\\?\|", found["words"])
        pieces.every_line_with.setdefault(STATUS, set()).update(words)


_Row = tuple[str, str, str, str]
"""Name, architecture, status, version."""


def _listed(text: str) -> Iterator[_Row]:
    for match in _PACKAGE.finditer(text):
        want, state = _SELECTION[match["state"][0]], _STATE[match["state"][1]]
        if match["version"].startswith(("<", "(")):
            state = "not-installed"
        yield (match["name"], match["architecture"] or match["of"] or "amd64", f"{want} ok {state}", match["version"])


def _of_apt(text: str) -> Iterator[_Row]:
    failed = {m["name"]: m["architecture"] for m in _FAILED.finditer(text)}
    versions = {m["name"]: m["version"] for m in _SETTING_UP.finditer(text)}
    for name, architecture in failed.items():
        yield (name, architecture or "amd64", "install ok half-configured", versions.get(name, ""))
    for match in _APT_LIST.finditer(text):
        if match["state"].startswith(("installed", "upgradable from")):
            old = re.match(r"upgradable from: (\S+)", match["state"])
            version = old[1] if old else match["version"]
            yield (match["name"], match["architecture"], "install ok installed", version)
        elif match["state"] == "residual-config":
            yield (match["name"], match["architecture"], "deinstall ok config-files", match["version"])
    for match in _POLICY.finditer(text):
        there = match["version"] != "(none)"
        status = "install ok installed" if there else "unknown ok not-installed"
        yield (match["name"], match["architecture"] or "amd64", status, match["version"] if there else "")
    for match in _SELECTED.finditer(text):
        want = match["want"]
        state = "installed" if want in ("install", "hold") else "config-files"
        yield (match["name"], match["architecture"] or "amd64", f"{want} ok {state}", "")
