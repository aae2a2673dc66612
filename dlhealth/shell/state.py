"""What every reader of start-up files shares: the variables at one moment, and the trace of how they came to be."""

import posixpath
import re

from dlhealth.host import Host, Unreadable
from dlhealth.host.account import Account, may_read
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.records import NamedTuple
from dlhealth.shell.malformed import LISTS, Problem, problems
from dlhealth.shell.values import UNKNOWN, Truth, elements, is_known, join, known_elements

WATCHED = regex(
    r"PATH|LD_(LIBRARY_PATH|PRELOAD)|(LIBRARY|C(PLUS_INCLUDE)?_?|PYTHON)PATH|PYTHONNOUSERSITE|(CUDA|CUDNN|NVCC|NVIDIA|TF|XLA)_\w+|CUDAHOSTCXX|XAUTHORITY"
)
"""The variables that the rules are about. Values of others never leave this package."""

_FILE_LIMIT = 512 << 10
_STEPS = 20_000
_STEPS_OF_A_FILE = 50
"""What reading a sourced file counts: two files that source each other are read up to 2 ** _DEPTH times."""
_DEPTH = 10
_SETTINGS = 300
_CANDIDATES = 20
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
    "XDG_", "DBUS_", "LC_", "DESKTOP_", "GDM", "GNOME_", "KDE_", "PLASMA_", "TERM_", "VTE_", "KONSOLE_", "SSH_A", "SSH_C",
    "SSH_T", "TMUX", "SYSTEMD_", "WSL", "IM_", "GTK_", "QT_", "CLUTTER_", "SESSION", "XSESSION", "PAM_", "KRB5",
    "GPG_AGENT", "GPG_TTY", "VSCODE", "WEZTERM", "KITTY", "ALACRITTY",
)  # fmt: skip
_NOT_SESSION = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")
"""Only files of people set these."""


SHELLS = ("bash", "dash", "sh", "zsh", "fish", "tcsh", "csh")
"""Those whose files are read."""


class Setting(NamedTuple):
    """One line that sets, changes or unsets a variable. `value` is the value afterwards ("" if it is unset), None if it
    is unknown without running something. `how` is the kind of change: "assignment", "export", "unset", "pam_env" …"""

    variable: str
    value: str | None
    source: Place
    how: str


class Ending(NamedTuple):
    """The line at which the shell that starts the session certainly ends before its time. `how` is "exit", "exec",
    "syntax", "missing", "set -e" or "error"; `text` says it in words."""

    source: Place
    how: str
    text: str


class Variable(NamedTuple):
    """`value` is None if it is not set. `origin` names the programs whose output the value is."""

    value: str | None
    exported: Truth
    origin: frozenset[tuple[str, ...]] | None = None


class Successor(NamedTuple):
    """A shell that replaces the reading one by `exec`. `state` is its first state."""

    state: "State"
    program: str
    login: bool


class Harmless:
    """The body of a function that zsh loads with `autoload`. To call it changes no variable, and nor does a program
    of that name."""


HARMLESS = Harmless()


class Unsure(Exception):
    """A command may have set any variable to anything; the message says why. `ends` if it may also have ended the
    shell."""

    def __init__(self, why: str, *, ends: bool = False) -> None:
        super().__init__(why)
        self.ends = ends


class Exhausted(Unsure):
    """The rest of a file is not read."""


class Trace:
    """The events on all branches. `problems` have the wrong element of the list, if there is one. `doubts` are the
    reasons why something is unknown, `stops` those after which the rest of a file was not read."""

    def __init__(self) -> None:
        self.settings: list[Setting] = []
        self.problems: dict[Problem, str | None] = {}
        self.doubts: dict[str, None] = {}
        self.stops: dict[str, None] = {}
        self.files: dict[str, None] = {}
        self.steps = 0

    def step(self, count: int = 1) -> None:
        self.steps += count
        if self.steps > _STEPS:
            raise Exhausted(f"cannot follow more than {_STEPS} steps", ends=True)


class State:
    """The variables at one moment, copied at each fork. `lost`: a variable that is not listed may be set. `foreign`:
    there may be functions that no file here defines."""

    def __init__(self, variables: dict[str, Variable] | None = None) -> None:
        self.variables = variables or {}
        self.functions: dict[str, object] = {}
        self.arguments: list[str] | None = []
        self.options: dict[str, Truth] = {}
        self.status: Truth = True
        self.folder = ""
        self.lost = False
        self.foreign = False

    def copy(self) -> "State":
        new = State(dict(self.variables))
        new.functions, new.options = dict(self.functions), dict(self.options)
        new.arguments, new.status, new.folder, new.lost = self.arguments, self.status, self.folder, self.lost
        new.foreign = self.foreign
        return new

    def get(self, name: str) -> Variable:
        known = self.variables.get(name)
        if known is None:
            unknown = (
                (self.lost and name != "IFS")
                or name in _SESSION
                or (name.startswith(_SESSION_FAMILIES) and name not in _NOT_SESSION)
            )
            return Variable(UNKNOWN, None) if unknown else Variable(None, False)
        return known

    def merge(self, other: "State") -> None:
        """Become a state that covers both."""
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
        for name in self.functions.keys() | other.functions.keys():
            body = self.functions.get(name, HARMLESS)
            self.functions[name] = body if body is other.functions.get(name, HARMLESS) else None
        for name in self.options.keys() | other.options.keys():
            if self.options.get(name, False) != other.options.get(name, False):
                self.options[name] = None
        self.status = self.status if self.status == other.status else None
        self.arguments = self.arguments if self.arguments == other.arguments else None
        self.folder = self.folder if self.folder == other.folder else UNKNOWN
        self.lost |= other.lost
        self.foreign |= other.foreign

    def forget(self) -> None:
        """Forget everything except the user and the place."""
        self.lost = self.foreign = True
        self.status = self.arguments = None
        for name, variable in self.variables.items():
            if name not in ("HOME", "USER", "LOGNAME", "SHELL", "UID", "EUID", "IFS"):
                exported = True if name == "PATH" and variable.exported else None
                self.variables[name] = Variable(UNKNOWN, exported)


class Session:
    """One person's login up to the present point. The readers of all shells continue with the same one."""

    def __init__(self, host: Host, account: Account, terminal: bool) -> None:
        self.host = host
        self.account = account
        self.terminal = terminal
        self.state = State()
        self.state.folder = account.home
        self.trace = Trace()
        self.depth = 0
        self.source = Place("")
        self.successors: list[Successor] = []
        self._complete: bool | None = None

    @property
    def complete(self) -> bool:
        """Whether the root has the programs that every system has; otherwise a missing program proves nothing."""
        if self._complete is None:
            self._complete = any(self.test_file("-e", path) for path in ("/usr/bin/env", "/usr/bin/ls", "/bin/ls"))
        return self._complete

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
        """A new program starts: it gets the exported variables only."""
        fresh = State({n: self._inherited(v) for n, v in self.state.variables.items() if v.exported is not False})
        fresh.lost, fresh.folder = self.state.lost, self.account.home
        fresh.foreign = self.state.lost  # bash passes functions on
        self.state = fresh

    @staticmethod
    def _inherited(variable: Variable) -> Variable:
        return Variable(variable.value if variable.exported else UNKNOWN, True)

    def set(
        self, name: str, value: str, how: str, exported: Truth = False, origin: frozenset[tuple[str, ...]] | None = None
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
                raise Exhausted(f"cannot follow more than {_SETTINGS} lines that set variables", ends=True)
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
        """Continue without knowing anything; `stop` if the rest of a file is not read."""
        reason = f"{self.source}: {why}" if self.source else why
        self.trace.doubts[reason] = None
        if stop:
            self.trace.stops[reason] = None
        self.state.forget()
        for name in LISTS:
            self.trace.settings.append(Setting(name, UNKNOWN, self.source, why))

    def text(self, path: str) -> str | None:
        """A file as that user would read it; None if the user has none. Raises Unsure."""
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
        self.trace.step(_STEPS_OF_A_FILE)
        return text

    def enter(self) -> None:
        self.depth += 1
        if self.depth > _DEPTH:
            self.depth -= 1
            raise Unsure(f"cannot follow files that source each other more than {_DEPTH} deep")

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

    def candidates(self, path: str) -> list[str] | None:
        """The files that a partly known name may match; None if there are too many."""
        known = path.partition(UNKNOWN)[0]
        folder, start = posixpath.split(known)
        if not known.startswith("/") or not start or len(folder) < 2:
            return None
        try:
            names = [n for n in sorted(self.host.listdir(folder)) if n.startswith(start)]
        except Unreadable:
            return None
        # The part that is not known may have slashes.
        paths = [posixpath.join(folder, name) for name in names]
        if len(paths) > _CANDIDATES or any(self.test_file("-d", p) is not False for p in paths):
            return None
        pattern = ".*".join(map(re.escape, re.split("[\0\1\2]", posixpath.basename(path))))
        return [p for p in paths if re.fullmatch(pattern, posixpath.basename(p))]

    def absolute(self, path: str) -> str:
        return path if path.startswith("/") or not is_known(path) else posixpath.join(self.state.folder, path)

    def hostname(self) -> str | None:
        """The host name at boot; None if it is another one now, or none."""
        try:
            name = (self.host.text("/etc/hostname") or "").strip()
            if self.host.live and name != (self.host.text("/proc/sys/kernel/hostname") or "").strip():
                return None
        except Unreadable:
            return None
        return name or None

    def loads_no_modules(self) -> bool:
        """Whether Environment Modules or Lmod only define their functions: their own configuration has no module that
        is loaded at the start."""
        if self.state.get("LMOD_SYSTEM_DEFAULT_MODULES").value is not None or self.state.get("LOADEDMODULES").value:
            return False
        try:
            text = self.host.text("/etc/environment-modules/initrc")
            lmod = self.host.exists("/usr/share/lmod/lmod/init/sh")
        except Unreadable:
            return False
        lines = (text or "").splitlines()
        return (text is not None or lmod) and all(re.match(r"\s*(#|$|module\s+use\s)", line) for line in lines)

    def prints(self, program: str, arguments: list[str]) -> str | None:
        """The output of a program that only prints the user, the place, or the content of a file; None for all
        others."""
        account = self.account
        if (
            program in ("hostname", "uname")
            and arguments in ([], ["-s"], ["-n"])
            and [program, *arguments] not in (["uname"], ["uname", "-s"])
        ):
            name = self.hostname()
            return name and (name.partition(".")[0] if arguments == ["-s"] else name)
        if program == "cat" and len(arguments) == 1 and not arguments[0].startswith("-"):
            text = self.text(self.absolute(arguments[0]))
            return None if text is None or len(text) > _LONGEST else text.rstrip("\n")
        if program == "pwd" and not arguments:
            return self.state.folder
        return {
            ("id", "-u"): str(account.uid), ("id", "-un"): account.name, ("id", "-ru"): str(account.uid),
            ("id", "-g"): str(account.gid), ("whoami",): account.name, ("logname",): account.name,
            ("uname",): "Linux", ("uname", "-s"): "Linux",
        }.get((program, *arguments))  # fmt: skip

    def find(self, program: str) -> str | None:
        """The path of a program by PATH, "" if there is none, None if unknown."""
        path = self.state.get("PATH").value
        if path is None or not is_known(program) or not self.complete:
            return None
        for folder in elements(path):
            if any(c in folder for c in '\n"='):
                continue  # a malformed line made other text a part of PATH, which may be secret
            found = self.absolute(posixpath.join(folder, program))
            if not is_known(found):
                return None
            there = self.test_file("-f", found) and self.test_file("-x", found)
            if there is not False:
                return found if there else None
        return ""

    def look(self, name: str, before: str, after: str) -> None:
        """Note malformed elements that this line added. Elements that an earlier line added and this one removed do not
        count."""
        stay = known_elements(after)
        for problem, element in list(self.trace.problems.items()):
            if problem.variable == name and element is not None and element not in stay:
                del self.trace.problems[problem]
        for problem, element in problems(self.source, name, before, after):
            self.trace.problems[problem] = element
