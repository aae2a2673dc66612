"""What every reader of start-up files shares: the variables at one moment, and the trace of how they came to be."""

import posixpath

from dlhealth.host import Host, Unreadable
from dlhealth.host.account import Account, may_read
from dlhealth.lean import NamedTuple, regex
from dlhealth.shell.malformed import LISTS, Problem, problems
from dlhealth.shell.values import UNKNOWN, Truth, elements, is_known, join

WATCHED = regex(
    r"PATH|LD_(LIBRARY_PATH|PRELOAD)|(LIBRARY|C(PLUS_INCLUDE)?_?|PYTHON)PATH|(CUDA|CUDNN|NVCC|NVIDIA|TF|XLA)_\w+|CUDAHOSTCXX|XAUTHORITY"
)
"""The variables that the rules are about. Values of others never leave this package."""

_FILE_LIMIT = 64 << 10
_STEPS = 5_000
_DEPTH = 10
_SETTINGS = 300
_LONGEST = 4096
"""Characters of a value. What is longer is not followed."""

# What a session sets for itself: nothing is known of these, of any other variable that it is not set.
_SESSION = {
    "LANG", "LANGUAGE", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "SHLVL", "TERM", "COLORTERM", "WINDOWID", "STY",
    "LS_COLORS", "COLUMNS", "LINES", "HOSTNAME", "HOST", "PPID", "HOSTTYPE", "MACHTYPE", "RANDOM", "SECONDS",
    "PIPESTATUS", "MAIL", "INVOCATION_ID", "JOURNAL_STREAM", "MANAGERPID", "NAME", "XMODIFIERS", "WINDOWPATH",
    "STARTUP", "ERRFILE", "OPTIONS", "BASHOPTS", "SHELLOPTS", "OLDPWD", "INSIDE_EMACS", "EMACS", "TERMINAL_EMULATOR",
}  # fmt: skip
_SESSION_FAMILIES = (
    "XDG_", "DBUS_", "LC_", "DESKTOP_", "GDM", "GNOME_", "KDE_", "PLASMA_", "TERM_", "VTE_", "KONSOLE_", "SSH_",
    "TMUX", "SYSTEMD_", "WSL", "IM_", "GTK_", "QT_", "CLUTTER_", "SESSION", "XSESSION", "PAM_", "KRB5", "GPG_",
    "VSCODE", "WEZTERM", "KITTY", "ALACRITTY",
)  # fmt: skip


class Setting(NamedTuple):
    """One line that sets, changes or unsets a variable. `value` is what the variable has afterwards ("" when it is
    unset), None where that can't be told without running something. `how` says by which means: "assignment", "export",
    "unset", "pam_env" …"""

    variable: str
    value: str | None
    source: str
    how: str


class Ending(NamedTuple):
    """The line at which the shell that starts the session certainly ends before its time. `how` is "exit", "exec",
    "syntax", "missing", "set -e" or "error"; `text` says it in words."""

    source: str
    how: str
    text: str


class Variable(NamedTuple):
    """`value` is None where it is not set. `origin` names the programs whose output the value is."""

    value: str | None
    exported: Truth
    origin: frozenset[str] | None = None


class Unsure(Exception):
    """From here on nothing of the variables is known; the message says why."""


class Trace:
    """What happened on the way, on all branches. `doubts` are the reasons why something is unknown, `stops` those of
    them for which the rest of a file was not looked at."""

    def __init__(self) -> None:
        self.settings: list[Setting] = []
        self.problems: dict[Problem, None] = {}
        self.doubts: dict[str, None] = {}
        self.stops: dict[str, None] = {}
        self.files: dict[str, None] = {}
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps > _STEPS:
            raise Unsure(f"more than {_STEPS} steps")


class State:
    """The variables at one moment, copied where the way forks."""

    def __init__(self, variables: dict[str, Variable] | None = None) -> None:
        self.variables = variables or {}
        self.functions: dict[str, object] = {}
        self.arguments: list[str] | None = []
        self.options: dict[str, Truth] = {}
        self.status: Truth = True
        self.folder = ""
        self.lost = False

    def copy(self) -> "State":
        new = State(dict(self.variables))
        new.functions, new.options = dict(self.functions), dict(self.options)
        new.arguments, new.status, new.folder, new.lost = self.arguments, self.status, self.folder, self.lost
        return new

    def get(self, name: str) -> Variable:
        known = self.variables.get(name)
        if known is None:
            unknown = self.lost or name in _SESSION or name.startswith(_SESSION_FAMILIES)
            return Variable(UNKNOWN, None) if unknown else Variable(None, False)
        return known

    def merge(self, other: "State") -> None:
        """Become what covers both."""
        for name in self.variables.keys() | other.variables.keys():
            a, b = self.get(name), other.get(name)
            if a == b:
                self.variables[name] = a
                continue
            value = UNKNOWN if a.value is None or b.value is None else join(a.value, b.value)
            if a.value is None and b.value is None:
                value_or_unset: str | None = None
            else:
                value_or_unset = value
            exported = a.exported if a.exported == b.exported else None
            self.variables[name] = Variable(value_or_unset, exported, a.origin if a.origin == b.origin else None)
        for name, body in other.functions.items():
            if self.functions.setdefault(name, body) is not body:
                self.functions[name] = None
        for name in self.functions.keys() - other.functions.keys():
            self.functions[name] = None
        for name in self.options.keys() | other.options.keys():
            if self.options.get(name, False) != other.options.get(name, False):
                self.options[name] = None
        self.status = self.status if self.status == other.status else None
        self.arguments = self.arguments if self.arguments == other.arguments else None
        self.folder = self.folder if self.folder == other.folder else UNKNOWN
        self.lost |= other.lost

    def forget(self) -> None:
        """Nothing is known any more but who and where one is."""
        self.lost = True
        self.status = None
        for name, variable in self.variables.items():
            if name not in ("HOME", "USER", "LOGNAME", "SHELL", "UID", "EUID"):
                exported = True if name == "PATH" and variable.exported else None
                self.variables[name] = Variable(UNKNOWN, exported)


class Session:
    """One person's login as far as it has come. Readers of several languages go on with the same one."""

    def __init__(self, host: Host, account: Account, terminal: bool) -> None:
        self.host = host
        self.account = account
        self.terminal = terminal
        self.state = State()
        self.state.folder = account.home
        self.trace = Trace()
        self.depth = 0
        self.source = ""

    def copy(self) -> "Session":
        """The same login, to go on in two ways."""
        new = Session(self.host, self.account, self.terminal)
        new.state = self.state.copy()
        trace = new.trace
        trace.settings, trace.problems = list(self.trace.settings), dict(self.trace.problems)
        trace.doubts, trace.files = dict(self.trace.doubts), dict(self.trace.files)
        trace.stops = dict(self.trace.stops)
        return new

    def execute(self) -> None:
        """A new program starts: it gets what is exported, and nothing else."""
        fresh = State({n: self._inherited(v) for n, v in self.state.variables.items() if v.exported is not False})
        fresh.lost, fresh.folder = self.state.lost, self.account.home
        self.state = fresh

    @staticmethod
    def _inherited(variable: Variable) -> Variable:
        return Variable(variable.value if variable.exported else UNKNOWN, True)

    def set(
        self, name: str, value: str, how: str, exported: Truth = False, origin: frozenset[str] | None = None
    ) -> None:
        """Give a variable a value; whether it is exported stays as it was unless `exported` is True."""
        if len(value) > _LONGEST:
            value = UNKNOWN
            self.trace.doubts[f"{self.source}: {name} has more than {_LONGEST} characters"] = None
        before = self.state.get(name)
        reasons = (exported, before.exported, self.state.options.get("allexport", False))
        kept = True if True in reasons else None if None in reasons else False
        self.state.variables[name] = Variable(value, kept, origin)
        if WATCHED.fullmatch(name):
            if len(self.trace.settings) > _SETTINGS:
                raise Unsure(f"more than {_SETTINGS} lines that set variables")
            self.trace.settings.append(Setting(name, value, self.source, how))
            if name in LISTS:
                self.look(name, before.value or "", value)

    def unset(self, name: str) -> None:
        self.state.variables[name] = Variable(None, False)
        if WATCHED.fullmatch(name):
            self.trace.settings.append(Setting(name, "", self.source, "unset"))

    def export(self, name: str, exported: bool = True) -> None:
        self.state.variables[name] = self.state.get(name)._replace(exported=exported)

    def forget(self, why: str, stop: bool = True) -> None:
        """Go on without knowing anything; `stop` where the rest of a file is not looked at."""
        reason = f"{self.source}: {why}" if self.source else why
        self.trace.doubts[reason] = None
        if stop:
            self.trace.stops[reason] = None
        self.state.forget()
        for name in LISTS:
            self.trace.settings.append(Setting(name, UNKNOWN, self.source, why))

    def text(self, path: str) -> str | None:
        """A file as the person would read it; None where there is none for them. Raises Unsure."""
        try:
            if not may_read(self.host, self.account, path):
                return None
            text = self.host.text(path, _FILE_LIMIT)
        except Unreadable as problem:
            raise Unsure(str(problem)) from problem
        if text is None:
            return None
        if not is_known(text):
            raise Unsure(f"{path} has control characters")
        self.trace.files[path] = None
        return text

    def enter(self) -> None:
        self.depth += 1
        if self.depth > _DEPTH:
            self.depth -= 1
            raise Unsure(f"start-up files that call each other more than {_DEPTH} deep")

    def test_file(self, operator: str, path: str) -> Truth:
        """What `test -f path` and its like say."""
        if not is_known(path):
            return None
        if not path:
            return False
        path = self.absolute(path)
        if not is_known(path) or (path.startswith(("/proc/", "/sys/", "/dev/", "/run/")) and not self.host.live):
            return None
        try:
            return self._test_file(operator, path)
        except Unreadable:
            return None

    def _test_file(self, operator: str, path: str) -> Truth:
        status = self.host.lstat(path) if operator in ("-h", "-L") else self.host.stat(path)
        if operator in ("-h", "-L"):
            return status is not None and status.kind == "link"
        if operator in ("-e", "-a"):
            return status is not None
        if status is None:
            return False
        kinds = {"-f": "file", "-d": "dir", "-p": "fifo", "-S": "socket", "-b": "block", "-c": "char"}
        if operator in kinds:
            return status.kind == kinds[operator]
        if operator == "-s":
            return status.size > 0
        if operator == "-r":
            return may_read(self.host, self.account, path)
        if operator == "-x":
            return bool(status.mode & 0o111) if self._plain(status.uid, status.mode) else None
        return None

    def _plain(self, uid: int, mode: int) -> bool:
        """Whether everybody has the same right to execute."""
        return mode & 0o111 in (0, 0o111) or (uid == self.account.uid and bool(mode & 0o100))

    def absolute(self, path: str) -> str:
        return path if path.startswith("/") or not is_known(path) else posixpath.join(self.state.folder, path)

    def prints(self, program: str, arguments: list[str]) -> str | None:
        """What a program prints that only tells who and where one is; None for all others."""
        account = self.account
        return {
            ("id", "-u"): str(account.uid), ("id", "-un"): account.name, ("id", "-ru"): str(account.uid),
            ("id", "-g"): str(account.gid), ("whoami",): account.name, ("logname",): account.name,
            ("uname",): "Linux", ("uname", "-s"): "Linux",
        }.get((program, *arguments))  # fmt: skip

    def find(self, program: str) -> str | None:
        """The path of a program by PATH, "" where there is none, None where that can't be told."""
        path = self.state.get("PATH").value
        if path is None or not is_known(program):
            return None
        for folder in elements(path):
            if any(c in folder for c in '\n"='):
                continue  # a malformed line has made other things a part of PATH, which may be secret
            found = self.absolute(posixpath.join(folder, program))
            if not is_known(found):
                return None
            there = self.test_file("-f", found) and self.test_file("-x", found)
            if there is not False:
                return found if there else None
        return ""

    def look(self, name: str, before: str, after: str) -> None:
        """Note what is malformed in the elements that this line has added."""
        for problem in problems(self.source, name, before, after):
            self.trace.problems[problem] = None
