"""What somebody typed into a terminal, and what each command printed."""

import re
import shlex
from collections.abc import Iterator

from dlhealth.lazy import regex
from dlhealth.records import NamedTuple

_PROMPT = regex(
    r"^(?:\([\w.-]+\) ?)*"
    r"(?:\[?(?P<user>[a-z_][\w.-]*)@[\w.-]+(?:[ :][^\n$#%]{0,80})?[\])]? ?[$#%]|[\w.~/-]{0,30}[$❯]|➜ +\S+(?: git:\(\S+\))?(?: ✗)?|>>>?|#) ?"
    r"(?P<sudo>sudo (?:-\w+ )*)?(?P<command>[a-z~./][\w./~-]*(?: .*)?|)$"
)
_FENCE = regex(r"^\s*(?:```|~~~|\[/?code\]|\{code.*\}|\{noformat\})")
_COMMANDS = frozenset(
    ("apt", "apt-cache", "apt-get", "apt-mark", "cat", "conda", "dkms", "dmesg", "dpkg", "dpkg-query", "echo", "env",
     "find", "free", "gcc", "glxinfo", "grep", "inxi", "journalctl", "ldconfig", "ldd", "ls", "lsb_release", "lsmod",
     "lspci", "modinfo", "modprobe", "mokutil", "nvcc", "nvidia-smi", "pip", "pip3", "printenv", "prime-select",
     "python", "python3", "snap", "systemctl", "ubuntu-drivers", "uname", "whereis", "which", "docker", "mount", "df",
     "lshw", "systemd-detect-virt", "reboot", "exit", "cd", "update-initramfs", "update-alternatives", "xrandr", "cp", "mv", "rm", "nano")
)  # fmt: skip


class Command(NamedTuple):
    """A command line that somebody typed, without sudo, and its output. `home` is the home directory of who typed it,
    "" if the prompt does not say; `ended` says that another prompt, or the end of the block, follows."""

    words: tuple[str, ...]
    line: str
    output: str
    home: str
    ended: bool

    @property
    def path(self) -> str:
        """Its only argument that is no option, as an absolute path; "" if there is no such, or it may mean several."""
        paths = [word for word in self.words[1:] if not word.startswith("-")]
        if len(paths) != 1 or re.search(r"[*?|<>&;$`]", self.line):
            return ""
        path = paths[0]
        if path.startswith("~/") and self.home:
            path = self.home + path[1:]
        return path.rstrip("/") or "/" if path.startswith("/") else ""


def commands(text: str) -> Iterator[Command]:
    """The commands in a text, in order."""
    words: tuple[str, ...] = ()
    line = home = ""
    output: list[str] = []
    for row in text.split("\n"):
        match = _PROMPT.match(row) if len(row) < 400 else None
        typed = match["command"] if match else ""
        known = typed.partition(" ")[0].rpartition("/")[2] in _COMMANDS
        if not known and not (match and match["user"]) and not _FENCE.match(row):
            output.append(row)
            continue
        if words:
            yield Command(words, line, "\n".join(output), home, True)
        words, line, output = (_words(typed), typed, []) if known or typed else ((), "", [])
        if match:
            user = "root" if match["sudo"] and not match["user"] else match["user"] or ""
            home = "/root" if user == "root" else f"/home/{user}" if user else ""
    if words:
        yield Command(words, line, "\n".join(output), home, False)


def _words(line: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(line))
    except ValueError:
        return tuple(line.split())
