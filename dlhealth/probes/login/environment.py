"""PATH, LD_LIBRARY_PATH and CUDA's variables as a login of each person gives them, evaluated without running anything.

Which files a login reads, and where that was looked up:

console      login sets PATH from login.defs, then PAM (shadow's login.c); then the login shell reads its files (the
             manual pages of bash, zsh, fish, tcsh and dash; Debian's places of zsh's and fish's files).
graphical    the display manager starts with /usr/local/bin:/usr/bin:/bin (lightdm's session-child.c, gdm's
             gdm-session-worker.c, sddm's DefaultPath), then PAM, then:
  gdm3       Debian's and Ubuntu's /etc/gdm3/Xsession is for sh: /etc/profile, ~/.profile, /etc/xprofile, ~/.xprofile,
             ~/.xsessionrc. A Wayland session goes through the login shell instead (gnome-session's script), with
             environment.d (gdm-wayland-session.c).
  lightdm    Ubuntu's lightdm-session sources the same files, since 2018 under bash with BASH_VERSION empty and with
             errors caught; Debian's goes to /etc/X11/Xsession, which sources ~/.xsessionrc and no profile.
  sddm       /etc/sddm/Xsession goes through the login shell (bash and zsh then do the rest as well, csh and fish hand
             their variables to sh) or reads the profiles with sh, then xprofile, which Debian's leaves out.
             All end in the scripts of /etc/X11/Xsession.d, one of which sources ~/.xsessionrc.
interactive  a terminal in that session: the shell's files for interactive shells.
"""

import posixpath
import re
from collections.abc import Iterable, Mapping

from dlhealth.host import Host, PostedEnvironment, Unreadable
from dlhealth.host.account import Account
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes.login.greeter import chosen_managers
from dlhealth.probes.login.users import Users
from dlhealth.records import NamedTuple
from dlhealth.shell import plain
from dlhealth.shell.malformed import LISTS, corrected
from dlhealth.shell.malformed import Problem as RawProblem
from dlhealth.shell.sh.evaluate import Shell
from dlhealth.shell.start import Starter, read_all
from dlhealth.shell.state import WATCHED, Ending, Session, Variable
from dlhealth.shell.state import Setting as RawSetting
from dlhealth.shell.values import UNKNOWN, is_known, known_elements

__all__ = ["BrokenPath", "Ending", "Environments", "LoginEnvironment", "Problem", "Setting"]

_DISPLAY_PATH = "/usr/local/bin:/usr/bin:/bin"
_NOT_ON_A_CONSOLE = ("SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "TMUX", "TMUX_PANE", "STY")
"""Variables that a remote login or a terminal multiplexer sets. login starts with a new environment (login(1))."""
_LINE_LIMIT = 4096
_SETS = regex(r"\b(PATH|LD_(LIBRARY_PATH|PRELOAD)|CUDA_\w+)=")
_SERVICES = {"gdm3": "gdm-password", "gdm": "gdm-password"}


class Setting(NamedTuple):
    """One line that sets, changes or unsets a variable. `value` is what the variable has afterwards ("" if it is
    unset), None if unknown without running something. `how` says by which means: "assignment", "export",
    "unset", "pam_env" … `line` is the whole line ("" if it has other things in it, or there is none)."""

    variable: str
    value: str | None
    source: Place
    how: str
    line: str = ""


class Problem(NamedTuple):
    """A malformed line about one of the variables. `shown` the part of the line that is about
    the variable, `part` the wrong part of it or of the value, `kind` one of those that the rule
    ld-library-path-malformed names, `text` says it in words. `line` is the whole line, and `correction` the line as it
    was meant ("" both if it has other things in it, or it is not plain what was meant)."""

    source: Place
    variable: str
    kind: str
    shown: str
    part: str
    text: str
    line: str
    correction: str


def _without_empty(path: str) -> str:
    """A list of directories without empty elements: each of these would make a program of the current directory run."""
    return ":".join(filter(None, path.split(":")))


class BrokenPath(NamedTuple):
    """A line that gives a PATH in which /usr/bin or /bin is missing. `kinds` are the kinds of login in which it stays
    so, `line` as in Problem."""

    source: Place
    value: str
    users: tuple[str, ...]
    kinds: tuple[str, ...]
    line: str

    @property
    def completed(self) -> str:
        """The line so that it keeps what PATH was before; "" if it is no plain assignment."""
        if plain := re.fullmatch(r"(\s*(?:export\s+)?PATH=)([\"']?)(/[\w./:+-]+)\2(\s+#.*|\s*)", self.line):
            return f'{plain[1]}"{_without_empty(plain[3])}${{PATH:+:${{PATH}}}}"{plain[4].rstrip()}'
        # fish, whose lists make one word for each directory of this.
        fish = re.fullmatch(r"(\s*export\s+PATH=)((?:[\w./+-]+:)*\$PATH(?::[\w./+-]+)*)(\s+#.*|\s*)", self.line)
        if fish and self.source.path.endswith(".fish"):
            return f'{fish[1]}"{fish[2]}"{fish[3].rstrip()}'
        if csh := re.fullmatch(r"(\s*setenv\s+PATH\s+)([\"']?)(/[\w./:+-]+)\2\s*", self.line):
            return f'{csh[1]}"{_without_empty(csh[3])}:$PATH"'
        # zsh's and csh's array, which is PATH by another name.
        if array := re.fullmatch(r"(\s*(?:set\s+)?path\s*=\s*\(\s*/[\w./+ -]*[\w./+-])\s*\)\s*", self.line):
            return f"{array[1]} $path)"
        if re.fullmatch(r"\s*set\s+(?:-[gx]+\s+|--global\s+|--export\s+)*PATH(?:\s+/[\w./+-]+)+\s*", self.line):  # fish
            return f"{self.line.rstrip()} $PATH"
        return ""


class LoginEnvironment(NamedTuple):
    """The variables that one kind of login gives to a person. `kind` is "pam" (before any shell has started),
    "console", "graphical" or "interactive" (a terminal).

    `values` has the exported variables that the rules need; None stands for an unknown value. If `lost` is True,
    missing variables are unknown too. `lists` has for PATH and LD_LIBRARY_PATH the known elements with the line that
    added them, even if other parts of the value are unknown. `settings` are in the order in which they happen. `ending`
    is where the session certainly ends before it has begun, `ending_line` that line (as in Problem). `doubts` say why
    something is unknown, `stops` are those after which the rest of a file was not read; `files` were read (for a
    terminal, only by itself).
    """

    account: Account
    kind: str
    values: Mapping[str, str | None]
    lists: Mapping[str, tuple[tuple[str, Place], ...]] = {}
    settings: tuple[Setting, ...] = ()
    problems: tuple[Problem, ...] = ()
    ending: Ending | None = None
    ending_line: str = ""
    doubts: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    lost: bool = False

    def last(self, variable: str) -> Setting | None:
        """The line that has the last word on a variable."""
        return next((s for s in reversed(self.settings) if s.variable == variable), None)


class Environments(NamedTuple):
    """The login environments of all people. `display_manager` is the program that starts graphical sessions, "" if there
    is no sign of one. `merged` says that /bin is /usr/bin. `by_user` are the logins of each person, `homes` has the
    person of each home, `readers` the people who read each file: a machine may have thousands of people."""

    logins: tuple[LoginEnvironment, ...]
    display_manager: str
    merged: bool
    by_user: Mapping[str, tuple[LoginEnvironment, ...]]
    homes: Mapping[str, str]
    readers: Mapping[str, set[str]]

    @classmethod
    def probe(cls, host: Host, users: Users) -> "Environments":
        machine = _Machine(host)
        logins = [login for account in users.people for login in machine.fenced_logins(account)]
        if posted := host.environment:
            logins = [_as_posted(login, posted) for login in logins]
        by_user: dict[str, list[LoginEnvironment]] = {}
        homes: dict[str, str] = {}
        readers: dict[str, set[str]] = {}
        for login in logins:
            by_user.setdefault(login.account.name, []).append(login)
            homes.setdefault(login.account.home.rstrip("/"), login.account.name)
            for path in login.files:
                readers.setdefault(path, set()).add(login.account.name)
        own = {name: tuple(several) for name, several in by_user.items()}
        return cls(tuple(logins), machine.manager, machine.merged, own, homes, readers)

    def get(self, user: str, kind: str) -> LoginEnvironment | None:
        """One login; None if there is none of this kind."""
        return next((e for e in self.of(user) if e.kind == kind), None)

    def of(self, user: str) -> tuple[LoginEnvironment, ...]:
        """All logins of a person."""
        return self.by_user.get(user, ())

    def value(self, user: str, variable: str, kind: str = "interactive") -> str | None:
        """The value, "" if it is not set, None if it is unknown."""
        login = self.get(user, kind)
        return login.values.get(variable, None if login.lost else "") if login else None

    def elements(self, user: str, variable: str, kind: str = "interactive") -> list[tuple[str, Place]]:
        """The known elements of PATH or LD_LIBRARY_PATH, in order, each with the line that put it there."""
        login = self.get(user, kind)
        return list(login.lists.get(variable, ())) if login else []

    def subject(self, source: Place) -> tuple[str, tuple[str, ...]]:
        """The subject of a finding on a line: the person in whose home the file is, else the file; and the people who
        read it, if not everybody does."""
        path = folder = source.path
        while (folder := posixpath.dirname(folder)) not in ("", "/"):
            if folder in self.homes:
                return f"user:{self.homes[folder]}", (f"file:{path}",)
        readers = self.readers.get(path, set())
        everybody = len(readers) == len(self.by_user)
        return f"file:{path}", () if everybody else tuple(f"user:{name}" for name in sorted(readers))

    def usable(self, path: str) -> bool:
        """Whether a PATH has the directories without which no session works."""
        folders = {e.rstrip("/") for e in path.split(":")}
        return bool(folders & {"/usr/bin", "/bin"}) if self.merged else folders >= {"/usr/bin", "/bin"}

    def broken_paths(self, *, in_terminals: bool = False) -> tuple[BrokenPath, ...]:
        """The lines that leave PATH without /usr/bin or /bin at a login; or else those that do so only in the files of
        interactive shells."""
        found: dict[str, BrokenPath] = {}
        for login in self.logins:
            value = login.values.get("PATH")
            culprit = None if value is None or self.usable(value) else self._culprit(login)
            if culprit and culprit.value is not None:
                value = _masked(culprit.value.partition("\n")[0])
                before = found.get(culprit.source) or BrokenPath(culprit.source, value, (), (), culprit.line)
                users = tuple(dict.fromkeys((*before.users, login.account.name)))
                kinds = tuple(dict.fromkeys((*before.kinds, login.kind)))
                found[culprit.source] = before._replace(users=users, kinds=kinds)
        # Debian's ~/.profile reads ~/.bashrc, so that breaks a shell on the console, too; but it starts.
        terminals = {path for e in self.logins if e.kind == "interactive" for path in e.files}
        terminals -= {path for e in self.logins if e.kind == "graphical" for path in e.files}
        return tuple(b for b in found.values() if _only_in_terminals(b, terminals) is in_terminals)

    def _culprit(self, login: LoginEnvironment) -> Setting | None:
        """The first line after which PATH was not usable any more."""
        culprit = None
        for setting in login.settings:
            if setting.variable == "PATH":
                usable = setting.value is None or self.usable(setting.value)
                culprit = None if usable else culprit or setting
        return culprit


def _only_in_terminals(broken: BrokenPath, terminals: set[str]) -> bool:
    """`terminals` are the files that interactive shells read, but no graphical session does."""
    own = "interactive" in broken.kinds and "graphical" not in broken.kinds and "pam" not in broken.kinds
    return broken.kinds == ("interactive",) or (own and broken.source.path in terminals)


def _as_posted(login: LoginEnvironment, posted: PostedEnvironment) -> LoginEnvironment:
    """The terminal of a person, with the values that were printed there."""
    if login.kind != "interactive" or login.account.name != posted.user or not posted.variables:
        return login
    place = Place(posted.source)
    known = {name: value for name, value in posted.variables.items() if WATCHED.fullmatch(name)}
    lists = {n: tuple((e, place) for e in known[n].split(":") if e) for n in LISTS if n in known}
    settings = [Setting(name, value, place, "environment") for name, value in known.items()]
    return login._replace(
        values={**({} if posted.whole else login.values), **known},
        lists={**login.lists, **lists},
        settings=(*login.settings, *settings),
        lost=login.lost and not posted.whole,
        doubts=() if posted.whole else login.doubts,
        stops=() if posted.whole else login.stops,
    )


class _Machine(Starter):
    """What all logins of one machine share."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.manager = _display_manager(host)
        self.merged = self.real("/bin") in ("/usr/bin", "")
        # A root that has no init is put together from a few files: what is missing there says nothing.
        self.graphical = bool(self.manager) or not any(
            map(self.there, ("/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/sbin/init"))
        )

    def fenced_logins(self, account: Account) -> Iterable[LoginEnvironment]:
        """The logins of one account. A defect of a reader makes the logins that are left unknown, for this account
        alone."""
        seen = set()
        try:
            for login in self.logins(account):
                seen.add(login.kind)
                yield login
        except Exception as defect:
            text = f"dlhealth could not read the start-up files of {account.name} ({type(defect).__name__}: {defect})"
            for kind in ("pam", "console", *(["graphical"] if self.graphical else []), "interactive"):
                if kind not in seen:
                    values = dict.fromkeys(LISTS)
                    yield LoginEnvironment(account, kind, values, doubts=(text,), stops=(text,), lost=True)

    def logins(self, account: Account) -> Iterable[LoginEnvironment]:
        service = _SERVICES.get(self.manager, self.manager) or "login"
        base = self.session(account)
        pam = base.copy()
        pam.source = Place("the default of display managers")
        pam.set("PATH", _DISPLAY_PATH, "default", exported=True)
        plain.pam(pam, service)
        yield self.finish(pam, "pam", None)

        console = base.copy()
        console.terminal = True
        console.state.variables.update(dict.fromkeys(_NOT_ON_A_CONSOLE, Variable(None, True)))
        console.set("PATH", plain.login_path(console), "default", exported=True)
        plain.pam(console, "login")
        before = console
        ending = self.login_shell(console, interactive=True)
        yield self.finish(console, "console", ending)
        if self.graphical:
            graphical = pam.copy()
            ending_of_session = self.session_start(graphical)
            yield self.finish(graphical, "graphical", ending_of_session)
            if not ending_of_session:
                before = graphical
        elif not ending:
            before = console
        interactive = before.copy()
        interactive.terminal = True
        interactive.trace.files = {}
        ending = self.terminal(interactive)
        yield self.finish(interactive, "interactive", ending)

    def session(self, account: Account) -> Session:
        session = Session(self.host, account, terminal=False)
        for name, value in (
            ("HOME", account.home), ("USER", account.name), ("LOGNAME", account.name), ("SHELL", account.shell),
            ("PWD", account.home),
        ):  # fmt: skip
            session.state.variables[name] = Variable(value, True)
        return session

    def session_start(self, session: Session) -> Ending | None:
        """What a display manager's session script does up to the start of the desktop."""
        ending = self.profiles(session)
        if not ending:
            self.secure_execution(session)
        return ending

    def secure_execution(self, session: Session) -> None:
        """x11-common starts the session under ssh-agent. Where that is setgid, the loader takes LD_* out of its
        environment (ld.so(8), secure-execution mode)."""
        script, agent = "/etc/X11/Xsession.d/90x11-common_ssh-agent", "/usr/bin/ssh-agent"
        try:
            there = self.host.exists(script) and self.host.stat(agent)
            options = self.host.text("/etc/X11/Xsession.options") or ""
            wayland = self.manager in ("gdm3", "gdm", "sddm") and self.host.exists("/usr/share/wayland-sessions")
        except Unreadable:
            return
        uses = re.search(r"^use-ssh-agent$", options, re.MULTILINE)
        if not there or not there.mode & 0o6000 or not uses or "no-use-ssh-agent" in options:
            return
        session.source = Place(script)
        for name, variable in list(session.state.variables.items()):
            if not name.startswith("LD_") or variable.value is None or variable.exported is False:
                continue
            # On Wayland, and where an agent runs already, the script does not start one.
            if wayland or "SSH_AUTH_SOCK" in session.state.variables:
                session.set(name, UNKNOWN, "ssh-agent")
                session.state.variables[name] = Variable(UNKNOWN, None)
                session.trace.doubts[f"{script}: {agent} drops {name} where it starts the session"] = None
            else:
                session.unset(name)

    def profiles(self, session: Session) -> Ending | None:
        home = session.account.home
        if self.manager in ("gdm3", "gdm"):
            wayland_only = not self.there("/etc/gdm3/Xsession") and self.there("/usr/share/wayland-sessions")
            self.systemd_path(session)
            if wayland_only:
                return self.login_shell(session, interactive=False)
        elif self.manager == "sddm":
            return self.sddm(session, posixpath.basename(session.account.shell))
        elif self.manager == "lightdm" and "session-wrapper=/etc/X11/Xsession" in self.lightdm_configuration():
            return self.sources(session, *self.xsession(home))
        return self.sources(
            session, "/etc/profile", f"{home}/.profile", "/etc/xprofile", f"{home}/.xprofile", *self.xsession(home)
        )

    def sddm(self, session: Session, name: str) -> Ending | None:
        home = session.account.home
        script = "\n".join(self.lines("/etc/sddm/Xsession"))
        rest = self.xsession(home)
        if not script or "xprofile" in script:
            rest = ["/etc/xprofile", f"{home}/.xprofile", *rest]
        if name in ("bash", "zsh"):
            ending = self.login_shell(session, interactive=False)
            return ending or read_all(Shell(session, name, interactive=False), rest)
        if name in ("csh", "tcsh"):
            self.login_shell(session, interactive=False)
            return self.sources(session, *rest)
        profiles = ("/etc/profile", f"{home}/.profile")
        if name != "fish":
            return self.sources(session, *profiles, *rest)
        ending = self.sources(session, *profiles)
        if not ending:
            self.fish(session, login=True, interactive=False)
        return ending or self.sources(session, *rest)

    def xsession(self, home: str) -> list[str]:
        """What the scripts of Xsession.d come to: ~/.xsessionrc, and those that set one of the variables themselves."""
        folder, found = "/etc/X11/Xsession.d", []
        try:
            names = sorted(n for n in self.host.listdir(folder) if re.fullmatch(r"[A-Za-z0-9_-]+", n))
        except Unreadable:
            names = []
        for path in (f"{folder}/{name}" for name in names):
            if path.endswith("/40x11-common_xsessionrc"):
                found.append(f"{home}/.xsessionrc")
            elif any(_SETS.search(line) for line in self.lines(path)):
                found.append(path)
        return found if f"{home}/.xsessionrc" in found else [*found, f"{home}/.xsessionrc"]

    def systemd_path(self, session: Session) -> None:
        """gdm takes PATH from the user manager of systemd where that has one, and adds what the session has not."""
        manager = session.copy()
        manager.state.variables = {
            n: v for n, v in session.state.variables.items() if n in ("HOME", "USER", "LOGNAME", "SHELL")
        }
        manager.state.variables["PATH"] = Variable(plain.MANAGER_PATH, True)
        plain.environment_d(manager)
        session.trace = manager.trace
        for name, variable in manager.state.variables.items():
            if variable.value is None or variable.value == plain.MANAGER_PATH:
                continue
            if name == "PATH" or name not in session.state.variables:
                session.state.variables[name] = variable

    def lightdm_configuration(self) -> str:
        """The lines of lightdm's configuration, without comments."""
        lines = []
        for pattern in (
            "/usr/share/lightdm/lightdm.conf.d/*.conf",
            "/etc/lightdm/lightdm.conf.d/*.conf",
            "/etc/lightdm/lightdm.conf",
        ):
            try:
                for path in self.host.glob(pattern):
                    lines += (self.host.text(path) or "").splitlines()
            except Unreadable:
                continue
        return "\n".join(line.replace(" ", "") for line in lines if not line.lstrip().startswith("#"))

    def sources(self, session: Session, *paths: str) -> Ending | None:
        """One script of /bin/sh that sources these files."""
        dialect = self.sh
        if self.manager == "lightdm" and self.lightdm_uses_bash():
            dialect = "bash"
        shell = self.shell(session, dialect, interactive=False, posix=dialect == "bash" and self.sh == "bash")
        if self.manager == "lightdm":
            shell.state.variables["BASH_VERSION"] = Variable("", False)
        shell.state.arguments = None  # those of the script
        return read_all(shell, paths)

    def lightdm_uses_bash(self) -> bool:
        try:
            return b"bash" in (self.host.head("/usr/sbin/lightdm-session", 40) or b"")
        except Unreadable:
            return False

    def finish(self, session: Session, kind: str, ending: Ending | None) -> LoginEnvironment:
        """The record of a session as it is now."""
        exported = {
            name: v
            for name, v in session.state.variables.items()
            if WATCHED.fullmatch(name) and v.exported is not False
        }
        values: dict[str, str | None] = {}
        lists = {}
        for name, variable in exported.items():
            text = (variable.value or "") if variable.exported else UNKNOWN
            if variable.value is None and variable.exported is not None:
                continue
            values[name] = _masked(text) if is_known(text) else None
            if name in LISTS:
                lists[name] = tuple(
                    (element, source)
                    for element, source in _sources(name, text, session.trace.settings)
                    if _masked(element) == element and "\n" not in element  # no directory, and may be secret
                )
        if session.state.lost:
            for name in LISTS:
                values.setdefault(name, None)
        trace = session.trace
        self.read.update(trace.files)
        settings = tuple(self.setting(s) for s in trace.settings)
        # A value that ends with what it was may have been given whole: only the line tells that a colon is missing.
        problems = tuple(p for p in map(self.with_line, trace.problems) if p.correction or p.kind != "missing-colon")
        return LoginEnvironment(
            session.account, kind, values, lists, settings, problems, ending,
            self.plain_line(ending.source) if ending else "", tuple(trace.doubts), tuple(trace.stops), tuple(trace.files),
            session.state.lost,
        )  # fmt: skip

    def setting(self, raw: RawSetting) -> Setting:
        value = raw.value if raw.value is None or is_known(raw.value) else None
        return Setting(raw.variable, value, raw.source, raw.how, self.plain_line(raw.source))

    def line(self, source: Place) -> str:
        """The text of a line; "" if none is named."""
        if source.line is None:
            return ""
        lines = self.lines(source.path)
        line = lines[source.line - 1] if 0 < source.line <= len(lines) else ""
        return line if len(line) <= _LINE_LIMIT else ""

    def plain_line(self, source: Place) -> str:
        """The text of a line, unless it has something else in it that may be secret."""
        line = self.line(source)
        return line if _masked(line) == line and not _TELLING.search(line) else ""

    def with_line(self, problem: RawProblem) -> Problem:
        """A problem with the text of its line."""
        line = self.plain_line(problem.source)
        unexpanded = problem.source.path in _UNEXPANDED
        fixed = line
        if line and not (unexpanded and problem.kind == "literal-expansion"):
            fixed = corrected(line, problem.variable, problem.kind)
        if unexpanded:
            fixed = _unexpanded(fixed, problem.variable)
        elif problem.variable == "PATH" and problem.kind != "missing-colon":
            fixed = _completed(problem.source, fixed)
        fixed = "" if fixed == line else fixed
        shown = excerpt(self.line(problem.source), problem.variable)
        # Of a value that goes on in the next line, because a quote is open, that is none of its own.
        part = excerpt(problem.shows, problem.variable) or _masked(problem.shows.partition("\n")[0])
        return Problem(problem.source, problem.variable, problem.kind, shown, part, problem.text, line, fixed)


_UNEXPANDED = ("/etc/environment", "/etc/default/locale")
"""No shell reads these: nothing is expanded."""


def _unexpanded(line: str, variable: str) -> str:
    """A line without what only a shell understands: export, and what the variable was before; "" if it has more of
    that. A blank before a comment would become part of the value."""
    itself = rf"\$(?:{variable}|\{{{variable}(?::\+:\$\{{?{variable}\}}?)?\}})"
    text, hash_sign, comment = re.sub(r"^(\s*)export\s+", r"\1", line).partition("#")
    text = re.sub(rf"(?<==)([\"']?){itself}:|:?(?<=[\w/:]){itself}(?=[\"':\s]|$)", r"\1", text)
    return "" if "$" in text or "\\" in text else f"{text.rstrip()}{hash_sign}{comment}"


def _completed(source: Place, line: str) -> str:
    """A line that sets PATH once it is no longer malformed, so that it keeps what PATH was before: nothing was swallowed
    as long as it was malformed."""
    if re.search(r"(?<![\w/.])/(usr/)?bin/?(?![\w/.-])", line):
        return line
    return BrokenPath(source, "", (), (), line).completed or line


def _sources(name: str, value: str, settings: Iterable[RawSetting]) -> tuple[tuple[str, Place], ...]:
    """Each known element with the line that brought it in."""
    origin: dict[str, Place] = {}
    before: list[str] = []
    for setting in settings:
        if setting.variable == name:
            now = known_elements(setting.value or "")
            for element in now:
                if element not in before or element not in origin:
                    origin[element] = setting.source
            before = now
    return tuple((element, origin.get(element, Place(""))) for element in known_elements(value)) if value else ()


def excerpt(line: str, variable: str) -> str:
    """The part of a line that is about a variable; other commands, comments and values of others are left out, they may
    be secret."""
    found = re.search(
        rf"(?:(?:export|setenv|set(?: -\w+)?|typeset(?: -\w+)?|declare(?: -\w+)?)\s+)?\b{variable}\b.*", line
    )
    command = _COMMAND.match(found[0]) if found else None
    return _masked(command[0]).strip(" \t") if command else ""


def _masked(line: str) -> str:
    """Values of all but the variables that the rules are about may be secret."""

    def masked(match: "re.Match[str]") -> str:
        known = match[1] == "path" or WATCHED.fullmatch(match[1])  # zsh's PATH
        # A quote that was left open makes the lines after it, and what they set, part of a value.
        return f"{match[1]}={_masked(match[2])}" if known else f"{match[1]}=…"

    def given(match: "re.Match[str]") -> str:
        known = match[2] in ("path", "-") or WATCHED.fullmatch(match[2])
        return match[0] if known else f"{match[1]}…"

    return _SET.sub(given, _ASSIGNED.sub(masked, line))


_COMMAND = regex(r"(?:\"[^\"]*\"?|'[^']*'?|\\.|(?<=\S)#|[^\"'\\;&|#])*", re.DOTALL)
_ASSIGNED = regex(r"\b([A-Za-z_]\w*)=((?:\"[^\"]*\"?|'[^']*'?|[^\s;\"'])+)")
_SET = regex(r"((?<![\w-])(?:setenv|set)\s+(?:-\S+\s+)*([A-Za-z_]\w*)\s+)(?![=\s])[^;&|\n]+")
"""csh and fish."""
_TELLING = regex(r"passw|secret|token|credential|api_?key|\s-p\S", re.IGNORECASE)
"""What stands beside a secret in a comment or a command."""


def _display_manager(host: Host) -> str:
    """The program that Debian's default-display-manager or systemd's link names, or the one that is installed."""
    try:
        linked, chosen = chosen_managers(host)
        if found := chosen or linked:
            return found
        for name, path in (("gdm3", "/usr/sbin/gdm3"), ("lightdm", "/usr/sbin/lightdm"), ("sddm", "/usr/bin/sddm")):
            if host.exists(path):
                return name
    except Unreadable:
        pass
    return ""
