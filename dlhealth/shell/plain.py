"""The files that hold assignments without being scripts: pam_env's, systemd's environment.d, login.defs."""

import posixpath
import re
from collections.abc import Callable, Iterator

from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.shell.malformed import LISTS, Problem
from dlhealth.shell.state import Session, Unsure
from dlhealth.shell.values import AFTER, BEFORE, UNKNOWN, is_known, join, tidy

ENVIRONMENT = "/etc/environment"
_PAM_CONF = "/etc/security/pam_env.conf"
_ENVIRONMENT_D = ("/etc/environment.d", "/run/environment.d", "/usr/local/lib/environment.d", "/usr/lib/environment.d")


def pam(session: Session, service: str) -> None:
    """What pam_env sets for a login through a service. Its options are those of its manual page; the parsing follows
    linux-pam's pam_env.c, which is the same in this since 1.1."""
    lines = list(_pam_lines(session.host, service, 0))
    if not lines:
        # No PAM configuration at all is a root that was put together; a service that is not there has the default.
        try:
            configured = session.host.exists(f"/etc/pam.d/{service}")
        except Unreadable as problem:
            session.forget(str(problem))
            return
        if configured:
            return
        lines = [[]]
    for options in lines:
        named = dict(o.split("=", 1) for o in options if "=" in o)
        _attempt(session, _pam_conf, named.get("conffile", _PAM_CONF))
        if named.get("readenv", "1") != "0":
            _attempt(session, _env_file, named.get("envfile", ENVIRONMENT))
        if named.get("user_readenv", "0") != "0":
            own = posixpath.join(session.account.home, named.get("user_envfile", ".pam_environment"))
            _attempt(session, _pam_conf, own)


def _attempt(session: Session, read: Callable[[Session, str], None], path: str) -> None:
    try:
        read(session, path)
    except (Unsure, Unreadable) as problem:
        session.source = Place(path)
        session.forget(str(problem))


def _pam_lines(host: Host, service: str, depth: int) -> Iterator[list[str]]:
    """The options of each pam_env.so of the session and auth stacks."""
    try:
        text = host.text(f"/etc/pam.d/{service}") or ""
    except Unreadable:
        return
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split("#")[0].split()
        if words[:1] == ["@include"] and len(words) == 2 and depth < 8:
            yield from _pam_lines(host, posixpath.basename(words[1]), depth + 1)
        elif words and words[0].lstrip("-") in ("session", "auth"):
            module = next((i for i, w in enumerate(words) if w.endswith("pam_env.so")), 0)
            if module:
                yield words[module + 1 :]
            elif words[1:2] in (["include"], ["substack"]) and len(words) > 2 and depth < 8:
                yield from _pam_lines(host, posixpath.basename(words[2]), depth + 1)


def _assembled(text: str) -> Iterator[tuple[int, str]]:
    """Lines as pam_env puts them together: blank before, a comment and a backslash at the end are taken off."""
    number, begin, pending = 0, 0, ""
    for raw in text.split("\n"):
        number += 1
        line = raw.lstrip(" \t")
        line, hash_sign, _ = line.partition("#")
        if not pending:
            begin = number
        stripped = line.rstrip(" \t")
        if stripped.endswith("\\") and not hash_sign:
            pending += stripped[:-1]
            continue
        if pending + line:
            yield begin, pending + line
        pending = ""


def _env_file(session: Session, path: str) -> None:
    """The format of /etc/environment: NAME=value, nothing is expanded."""
    text = session.text(path)
    for number, line in _assembled(text or ""):
        session.source = Place(path, number)
        _report(session, line)
        assignment = line.removeprefix("export ")
        name, equals, value = assignment.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            continue
        if value[:1] in ("'", '"'):
            # The first quote is removed, and one at the very end; those in between stay.
            value = value[1:-1] if value[1:] and value[-1] in "'\"" else value[1:]
        if equals:
            session.set(name, value, "pam_env", exported=True)
        else:
            session.unset(name)


def _report(session: Session, line: str) -> None:
    """Mistakes in a line of /etc/environment, besides the value that it gives."""
    for name in LISTS:
        found: list[tuple[str, str]] = []
        if re.match(rf"(export|set|setenv|declare|typeset)\s+(-\w+\s+)?{name}\b", line):
            found.append(
                ("export-keyword", "export is a shell command: pam_env skips it, other readers of the file do not")
            )
        if re.match(rf"(export\s+)?{name}\s+=", line):
            found.append(("space-around-equals", "a space before the = makes pam_env ignore the line"))
        elif re.match(rf"(export\s+)?{name}=[ \t]+\S", line):
            found.append(("space-around-equals", "a space after the = becomes part of the value"))
        value = re.match(rf"(?:export\s+)?{name}=(.*)", line)
        if value and re.fullmatch(r"\"[^\"]*|'[^']*", value[1].rstrip("\r")):
            found.append(("open-quote", "a quote is left open"))
        for kind, text in found:
            session.trace.problems[Problem(session.source, name, kind, line.strip(), text)] = None


def _pam_conf(session: Session, path: str) -> None:
    """The format of pam_env.conf: NAME [DEFAULT=value] [OVERRIDE=value], with ${NAME} and @{HOME} expanded."""
    for number, line in _assembled(session.text(path) or ""):
        session.source = Place(path, number)
        head = re.match(r"[^ \t\n]+", line)
        rest = line[head.end() :] if head else ""
        if not head or not re.fullmatch(r'([ \t]+(DEFAULT|OVERRIDE)=("[^"]*"(?=\s|$)|[^ \t"][^ \t]*)?)*[ \t\r]*', rest):
            name = next((n for n in LISTS if re.match(rf"(export\s+)?{n}\b", line)), "")
            if name:
                text = "pam_env ignores the line: this file needs NAME DEFAULT=value OVERRIDE=value, not a shell assignment"
                session.trace.problems[Problem(session.source, name, "wrong-syntax", line.strip(), text)] = None
            continue
        given = dict(re.findall(r'(DEFAULT|OVERRIDE)=("[^"]*"|[^ \t]*)', rest))
        override = _pam_expand(session, given.get("OVERRIDE", "").strip('"'))
        default = _pam_expand(session, given.get("DEFAULT", "").strip('"'))
        if override:
            session.set(head[0], override, "pam_env", exported=True)
        elif default or given.get("DEFAULT") == '""':
            session.set(head[0], default, "pam_env", exported=True)
        elif "DEFAULT" not in given:
            session.unset(head[0])


def _pam_expand(session: Session, text: str) -> str:
    def replaced(match: "re.Match[str]") -> str:
        if match[1]:
            return match[1]
        known = {"HOME": session.account.home, "SHELL": session.account.shell, "PAM_USER": session.account.name}
        if match[2] == "@":
            return known.get(match[3], UNKNOWN)
        return session.state.get(match[3]).value or ""

    return tidy(re.sub(r"\\([$@\\])|([$@])\{([^}]*)\}", replaced, text))


def environment_d(session: Session) -> None:
    """What systemd's user manager has from environment.d(5): later names win, a name hides the same one in directories
    of lower rank, values are expanded."""
    home = posixpath.join(session.account.home, ".config/environment.d")
    files: dict[str, str] = {}
    for folder in (home, *_ENVIRONMENT_D):
        try:
            for name in session.host.listdir(folder):
                if name.endswith(".conf"):
                    files.setdefault(name, posixpath.join(folder, name))
        except Unreadable as problem:
            session.forget(str(problem))
    for _, path in sorted(files.items()):
        try:
            real = session.host.realpath(path)
            text = None if real == "/dev/null" else session.text(path)
        except (Unsure, Unreadable) as problem:
            session.forget(str(problem))
            continue
        try:
            for number, name, value in _systemd_lines(text or ""):
                # Debian links /etc/environment here.
                session.source = Place(real or path, number)
                session.set(name, _systemd_expand(session, value), "environment.d", exported=True)
        except Unsure as problem:
            session.forget(str(problem))


_SYSTEMD_LINE = regex(
    r"[ \t]*(?:[#;][^\n]*|([^\n=]*)=[ \t]*((?:\"(?:[^\"\\]|\\.)*(?:\"|$)|'[^']*(?:'|$)|\\.|[^\n\"'\\])*)|[^\n]*)(?:\n|$)",
    re.DOTALL,
)


def _systemd_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, name, raw value) of the assignments, as systemd's parse_env_file reads them."""
    position = 0
    while position < len(text):
        match = _SYSTEMD_LINE.match(text, position)
        if not match or match.end() == position:
            return
        name = (match[1] or "").strip()
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            yield text.count("\n", 0, position) + 1, name, match[2].rstrip(" \t\r")
        position = match.end()


def _systemd_expand(session: Session, raw: str) -> str:
    """Quotes are removed, then $NAME, ${NAME}, ${NAME:-default} and ${NAME:+alternative} are expanded."""
    text = re.sub(
        r"\"((?:[^\"\\]|\\.)*)\"?|'([^']*)'?|\\(.)", lambda m: m[1] or m[2] or m[3] or "", raw, flags=re.DOTALL
    )

    def replaced(match: "re.Match[str]") -> str:
        value = session.state.get(match[1] or match[2]).value or ""
        if match[3] == ":-":
            return value or match[4]
        if match[3] == ":+":
            # The alternative may have one more level, as CUDA's own advice has.
            alternative = re.sub(r"\$\{?(\w+)\}?", lambda m: session.state.get(m[1]).value or "", match[4])
            return (alternative if is_known(value) else join("", alternative)) if value else ""
        return value

    pattern = r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?:(:[-+])((?:[^{}]|\$\{\w+\})*))?\})"
    return tidy(re.sub(pattern, replaced, text))


MANAGER_PATH = f"{BEFORE}/usr/bin{AFTER}"
"""What systemd's user manager starts with: a build-time list that has /usr/bin."""


def login_path(session: Session) -> str:
    """ENV_PATH (ENV_SUPATH for root) of login.defs(5), or the default of login."""
    path = "/etc/login.defs"
    try:
        text = session.host.text(path) or ""
    except Unreadable as problem:
        session.forget(str(problem))
        text = ""
    wanted = "ENV_SUPATH" if session.account.uid == 0 else "ENV_PATH"
    session.source = Place("the default of login")
    value = "/usr/local/bin:/usr/bin:/bin"
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(None, 1)
        if len(words) == 2 and words[0] == wanted:
            session.source = Place(path, number)
            value = words[1].strip().removeprefix("PATH=")
    return value
