"""Removes the secrets from the content of an archive, so that the same faults are found in the rest.

Letters and digits of a secret become "x"; its length, quotes and punctuation stay, because they may contain a fault. In
shell start-up files, everything is secret except the parts that a diagnosis needs (redact_shell). In other texts,
everything that looks like a secret is. Files of packages and messages of the kernel are not secret and stay unchanged.
"""

import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dlhealth.lazy import regex
from dlhealth.report.redact_shell import Shell, hide, is_secret_name, is_wanted_name

Question = tuple[str, ...]

_NO_SECRETS = (
    "/boot/config-",
    "/etc/dkms/",
    "/etc/ld.so",
    "/etc/login.defs",
    "/etc/lsb-release",
    "/etc/modprobe.d/",
    "/etc/os-release",
    "/lib/modules/",
    "/proc/",
    "/sys/",
    "/usr/include/",
    "/usr/lib/",
    "/usr/src/",
    "/var/lib/apt/",
    "/var/lib/dpkg/",
)
_CERTIFICATES = (".pub", ".der", ".crt", ".cer")
_SECRETS_AFTER_ALL = regex(r"/proc/(?:cmdline$|.*/environ$|.*/cmdline$)|.*/environment\.d/|.*/direct_url\.json$")
_SHELL = regex(
    r"/etc/(?:profile|bash|zsh|zprofile|zlogin|fish/|csh|X11/Xsession|X11/xinit/|skel/|default/)"
    r"|.*/(?:environment\.d|profile\.d|plasma-workspace/env)/"
    r"|.*/\.(?:profile|login|logout|bash|zsh|zprofile|zlogin|tcsh|csh|ksh|kshrc|xinitrc|xsession|xprofile|env|alias|conda)[^/]*$"
    r"|.*\.(?:sh|bash|zsh|fish|csh|tcsh|env|rc)$"
)
_NOT_SHELL = regex(r".*/\.xsession-errors|.*\.(?:json|txt|cfg|toml|ya?ml|py|log|desktop|service)$")
_VARIABLES = regex(r"/etc/(?:environment|locale\.conf|default/locale|security/pam_env\.conf)$|.*/\.pam_environment$")

_URL_USER = regex(r"(\b[A-Za-z][A-Za-z0-9+.-]{1,20}://)([^/\s@'\"]+)(?=@)")
_URL_TOKEN = regex(r"(/t/)([^/\s'\"]+)(?=/)")
_BEARER = regex(r"(?i)(\bauthorization\s*[:=]\s*(?:[a-z]+\s+)?|\bbearer\s+)([^\s'\"]+)")
_SETTING_LINE = regex(r"(setting ([A-Za-z_]\w*)=)(.*)")
_VALUE = r"(\"(?:[^\"\\\n]|\\.)*\"?|'[^'\n]*'?|[^\s,;&}\]]+)"
_NAMED = regex(rf"(?<![\w-])((?:[\w.-]{{0,80}}[\w.])?)([\"']?\s?=\s?){_VALUE}")
_LABELLED = regex(rf"(?<![\w-])(?!gdm)([A-Za-z][\w-]{{2,40}})([\"']?\s*:\s+){_VALUE}")
_OPTION = regex(rf"(?<!\S)(--?[A-Za-z][\w-]*)(\s+){_VALUE}")
_COMMAND = regex(r"(COMMAND=(\S+) )(.*)")
_SYSTEM_COMMANDS = ("apt", "apt-get", "aptitude", "dpkg", "dkms", "modprobe", "rmmod", "systemctl", "update-initramfs")
_TOKEN = regex(
    r"\b(?:AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-|hf_|nvapi-|pypi-|npm_|eyJ)[A-Za-z0-9_.=-]{8,}"
    r"|(?<![A-Za-z0-9+/=_-])(?=[A-Za-z0-9+/]*[0-9])(?=[A-Za-z0-9+/]*[a-z])(?=[A-Za-z0-9+/]*[A-Z])[A-Za-z0-9+]{24,}[A-Za-z0-9+/]*=*"
    r"|\$(?:2[aby]|[156y])\$\S{10,}|grub\.pbkdf2\S+"
)
_GRUB_PASSWORD = regex(r"^(\s*password\s+\S+\s+)(\S+)", re.MULTILINE)
_QUOTED = regex(r"\"([\w .-]{2,40})(\"\s+)(\"[^\"\n]*\"?)")
_COMMENT = regex(r"^(\s*[#;])(.*(?:pass|secret|token|credential|api.?key|pwd).*)$", re.MULTILINE | re.IGNORECASE)
_UNIT_LINE = regex(r"^\s*Environment=(?:.*\\\n)*.*", re.MULTILINE)
_UNIT_VARIABLE = regex(r"([\s=])([\"'])?([A-Za-z_]\w*)(=)((?(2)[^\"'\n]|\S)*)")
_FISH_VARIABLE = regex(r"^(SET\w* (?:--\S+ )*)(\w+)(:)(.*)", re.MULTILINE)
_NO_IDENTIFIER = regex(r"(: `=?)([^'\n]+)(?=': not a valid identifier)")
_STRANGER = regex(r"(\b(?:[Ii]nvalid|[Ii]llegal) user )(\S+)")
_PRIVATE_KEY = regex(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)(.*?)(?=-----END|\Z)", re.DOTALL)
_LOG_NAMES = frozenset(("TTY", "PWD", "USER", "COMMAND", "UUID", "PARTUUID", "LABEL", "BOOT_IMAGE", "root", "initrd"))


class Redactor:
    """Made from all texts together, because a variable that is part of PATH is set in one file and used in another."""

    def __init__(self, seen: Mapping[Question, Any]) -> None:
        scripts = {
            q[1]: a.decode(errors="surrogateescape")
            for q, a in seen.items()
            if isinstance(a, bytes) and _is_shell(q[1])
        }
        self._shell = Shell(scripts)

    def __call__(self, question: Question, content: bytes) -> bytes:
        """The answer to a question without its secrets."""
        path = question[1]
        if question[0] == "run":
            return _encode(_journal(content.decode(errors="surrogateescape")))
        if path.startswith(_NO_SECRETS) and not _SECRETS_AFTER_ALL.match(path):
            return content
        if posixpath.basename(path) == ".Xauthority":
            return _authority(content)
        if b"\0" in content[:4096] and not path.endswith("environ"):
            # Of the binary files, only programs, boot images and certificates are known to contain no secrets.
            public = path.startswith("/boot/") or path.endswith(_CERTIFICATES) or content[:4] == b"\x7fELF"
            return content if public else _blank(content)
        text = content.decode(errors="surrogateescape")
        if _VARIABLES.match(path):
            return _encode(self._variables(text))
        if path.endswith("/fish_variables"):
            return _encode(_FISH_VARIABLE.sub(_fish_variable, text))
        if _is_shell(path):
            masked = self._shell.mask(path, text)
            # GRUB's contain the kernel's parameters.
            return _encode(without_secrets(masked) if path.startswith("/etc/default/") else masked)
        if path == "/proc/cmdline":
            return _encode(without_secrets(text))
        if path.startswith("/proc/"):
            return _encode(self._arguments(text))
        return _encode(without_secrets(text))

    def _variables(self, text: str) -> str:
        """A file of pam_env or a locale: one variable per line, quotes end with the line."""
        lines: list[str] = []
        keep = False
        for line in text.split("\n"):
            match = re.match(r"(\s*(?:export\s+)?)([A-Za-z_]\w*)(\s*=|\s+|$)(.*)", line, re.DOTALL)
            if lines and lines[-1].endswith("\\"):
                lines.append(line if keep else hide(line))
            elif match:
                keep = self._shell.keeps(match[2])
                value = (
                    self._shell.own(match[4])
                    if keep
                    else re.sub(r"(DEFAULT=|OVERRIDE=)|[^\W_]|[^\x00-\x7f]", _label_or_x, match[4])
                )
                lines.append(f"{match[1]}{match[2]}{match[3]}{_url(value)}")
            else:
                lines.append(hide(line))
        return "\n".join(lines)

    def _arguments(self, text: str) -> str:
        """/proc/PID/environ, or cmdline, whose program name stays."""
        words = text.split("\0")
        shown = []
        for number, word in enumerate(words):
            name, equals, value = word.partition("=")
            if equals and self._shell.keeps(name):
                shown.append(word)
            else:
                shown.append(
                    word if number == 0 and not equals else f"{name if equals else ''}{equals}{hide(value or name)}"
                )
        return "\0".join(shown)


def without_secrets(text: str) -> str:
    """A log or a configuration file, with everything that looks like a secret hidden."""
    text = _PRIVATE_KEY.sub(lambda m: m[1] + hide(m[2]), text)
    text = _url(text)
    for pattern in (_BEARER, _GRUB_PASSWORD, _COMMENT, _NO_IDENTIFIER, _STRANGER):
        text = pattern.sub(_hide_second, text)
    text = _UNIT_LINE.sub(lambda line: _UNIT_VARIABLE.sub(_unit_variable, line[0]), text)
    text = _SETTING_LINE.sub(lambda m: m[0] if is_wanted_name(m[2]) else m[1] + hide(m[3]), text)
    text = _COMMAND.sub(_sudo, text)
    text = "".join(_settings(_NAMED, text, _may_show))
    for pattern in (_LABELLED, _QUOTED, _OPTION):
        text = "".join(_settings(pattern, text, lambda name: not is_secret_name(name)))
    return _TOKEN.sub(lambda m: hide(m[0]), text)


def _settings(pattern: "re.Pattern[str]", text: str, may_show: Callable[[str], bool]) -> Iterator[str]:
    """Hide the values of settings; the groups are name, separator and value."""
    position = 0
    while match := pattern.search(text, position):
        # The visible values are searched too: `Environment=TOKEN=value`.
        end = match.end(2) if may_show(match[1]) else match.end()
        yield text[position : match.end(2)]
        yield hide(text[match.end(2) : end])
        position = end
    yield text[position:]


def _may_show(name: str) -> bool:
    """`name=value` in a log: environment variables have names in capitals, details of a message do not."""
    if is_wanted_name(name) or name in _LOG_NAMES:
        return True
    return not is_secret_name(name) and not re.fullmatch(r"(?:\S*\.)?[A-Z][A-Z0-9_]{2,}", name)


def _sudo(match: "re.Match[str]") -> str:
    known = posixpath.basename(match[2]) in _SYSTEM_COMMANDS
    return match[0] if known else match[1] + hide(match[3])


def _url(text: str) -> str:
    return _URL_TOKEN.sub(_hide_second, _URL_USER.sub(_hide_second, text))


def _unit_variable(match: "re.Match[str]") -> str:
    start, quote, name, equals, value = match.groups("")
    return match[0] if is_wanted_name(name) else f"{start}{quote}{name}{equals}{hide(value)}"


def _fish_variable(match: "re.Match[str]") -> str:
    start, name, colon, value = match.groups()
    return match[0] if name == "fish_user_paths" or is_wanted_name(name) else f"{start}{name}{colon}{hide(value)}"


def _hide_second(match: "re.Match[str]") -> str:
    return match[1] + hide(match[2])


def _label_or_x(match: "re.Match[str]") -> str:
    return match[1] or "x"


def _journal(text: str) -> str:
    """The output of `journalctl -o json`: only the messages can contain secrets."""
    lines = []
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
            message = entry["MESSAGE"]
            if isinstance(message, list):
                message = bytes(message).decode(errors="surrogateescape")
            if isinstance(message, str) and (masked := without_secrets(message)) != message:
                line = json.dumps({**entry, "MESSAGE": masked})
        except (ValueError, TypeError, KeyError, RecursionError):
            line = without_secrets(line)
        lines.append(line)
    return "\n".join(lines)


def _authority(content: bytes) -> bytes:
    """An X authority file (Xau(3)) without its cookies: each entry is a family and four counted fields, the last of
    which is the secret. Nothing is kept from where the format is wrong."""
    kept = bytearray()
    position = 0
    while position < len(content):
        end = position + 2
        for _ in range(4):
            start = end + 2
            end = start + int.from_bytes(content[start - 2 : start], "big")
        if end > len(content):
            break
        kept += content[position:start] + b"x" * (end - start)
        position = end
    return bytes(kept) + b"\xff" * (len(content) - position)


def _blank(content: bytes) -> bytes:
    return b"\0" * len(content)


def _is_shell(path: str) -> bool:
    return bool(_SHELL.match(path)) and not _NOT_SHELL.match(path) and not _VARIABLES.match(path)


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
