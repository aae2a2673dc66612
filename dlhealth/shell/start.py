"""Which files a shell reads at its start, and the shells that take its place.

Sources: the manual pages of bash, zsh, fish, tcsh and dash; Debian's places of zsh's and fish's files.
"""

import posixpath
from collections.abc import Iterable

from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.lazy import later
from dlhealth.shell.reader import Reader
from dlhealth.shell.sh.evaluate import Shell
from dlhealth.shell.state import Ending, Session, Variable
from dlhealth.shell.values import UNKNOWN, is_known

Fish = later("dlhealth.shell.fish.evaluate", "Fish")
Csh = later("dlhealth.shell.csh", "Csh")

_REPLACEMENTS = 3


class Starter:
    """Starts shells on one machine. `sh` is the dialect of /bin/sh."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.texts: dict[str, list[str]] = {}
        self.read: set[str] = set()
        self.sh = "bash" if posixpath.basename(self.real("/bin/sh")) == "bash" else "sh"

    def there(self, path: str) -> bool:
        try:
            return self.host.exists(path)
        except Unreadable:
            return True

    def real(self, path: str) -> str:
        try:
            return self.host.realpath(path) or ""
        except Unreadable:
            return ""

    def lines(self, path: str) -> list[str]:
        if path not in self.texts:
            try:
                self.texts[path] = (self.host.text(path) or "").split("\n")
            except Unreadable:
                self.texts[path] = []
        return self.texts[path]

    def shell(self, session: Session, dialect: str, *, interactive: bool, posix: bool = False) -> Shell:
        session.execute()
        fixed = {"UID": str(session.account.uid), "EUID": str(session.account.uid)}
        if dialect == "bash":
            fixed |= {"BASH": "/bin/sh" if posix else "/bin/bash", "BASH_VERSION": UNKNOWN + ".", "OSTYPE": "linux-gnu"}
        elif dialect == "zsh":
            fixed |= {"ZSH_NAME": "zsh", "ZSH_VERSION": UNKNOWN + ".", "OSTYPE": "linux-gnu"}
        else:
            fixed = {}
        if fixed and (hostname := session.hostname()):
            fixed["HOST" if dialect == "zsh" else "HOSTNAME"] = hostname
        if interactive:
            fixed["PS1"] = UNKNOWN + "$ "
        for name, value in fixed.items():
            session.state.variables[name] = Variable(value, False)
        return Shell(session, dialect, interactive=interactive, posix=posix)

    def login_shell(self, session: Session, *, interactive: bool) -> Ending | None:
        """A person's login shell."""
        return self.begin(session, session.account.shell, login=True, interactive=interactive)

    def terminal(self, session: Session) -> Ending | None:
        """A shell in a terminal window."""
        return self.begin(session, session.account.shell, login=False, interactive=True)

    def begin(
        self, session: Session, program: str, *, login: bool, interactive: bool, replaced: int = 0
    ) -> Ending | None:
        """Read what a shell reads at its start, and then what the shells read that replaced it by `exec`."""
        session.successors = []
        ending = self.files(session, program, login=login, interactive=interactive)
        successors, session.successors = session.successors, []
        if not successors:
            return ending
        ways = [] if ending else [session.state]
        endings = []
        for successor in successors:
            session.state = successor.state
            if replaced == _REPLACEMENTS:
                session.forget("cannot follow shells that replace each other without end")
            else:
                endings.append(
                    self.begin(
                        session, successor.program, login=successor.login, interactive=True, replaced=replaced + 1
                    )
                )
            ways.append(session.state)
        session.state = ways[0]
        for state in ways[1:]:
            session.state.merge(state)
        return endings[0] if ending and ending.how == "exec" and len(endings) == 1 else None

    def files(self, session: Session, program: str, *, login: bool, interactive: bool) -> Ending | None:
        """Read what a shell reads at its start."""
        name = posixpath.basename(program)
        home = session.account.home
        if name in ("bash", "rbash"):
            shell = self.shell(session, "bash", interactive=interactive)
            shell.state.options["login_shell"] = login
            if not login:
                return _first_of(shell, ("/etc/bash.bashrc",), (f"{home}/.bashrc",)) if interactive else None
            own = tuple(f"{home}/{f}" for f in (".bash_profile", ".bash_login", ".profile"))
            return _first_of(shell, ("/etc/profile",), own)
        if name in ("sh", "dash"):
            dialect = "sh" if name == "dash" else self.sh
            shell = self.shell(session, dialect, interactive=interactive, posix=dialect == "bash")
            # Without login it reads only the file in ENV.
            return _first_of(shell, ("/etc/profile",), (f"{home}/.profile",)) if login else None
        if name == "zsh":
            return self.zsh(session, login=login, interactive=interactive)
        if name == "fish":
            return self.fish(session, login=login, interactive=interactive)
        if name in ("csh", "tcsh", "bsd-csh"):
            return self.csh(session, program, login=login, interactive=interactive)
        session.source = Place("")
        session.forget(f"cannot follow the start-up files of {program}")
        return None

    def zsh(self, session: Session, *, login: bool, interactive: bool) -> Ending | None:
        shell = self.shell(session, "zsh", interactive=interactive)
        stages = [("zshenv", True), ("zprofile", login), ("zshrc", interactive), ("zlogin", login)]
        for name, wanted in stages:
            if not wanted:
                continue
            for path in (f"/etc/zsh/{name}", f"{self.zdotdir(session)}/.{name}"):
                if is_known(path):
                    shell.start(path)
                else:
                    session.forget("cannot tell the value of ZDOTDIR")
                if shell.ending:
                    return shell.ending
        return None

    def zdotdir(self, session: Session) -> str:
        """Where a person's files of zsh are. Where nothing is known any more, but none of the files that were read says
        a word of ZDOTDIR, they are at home: no program sets it."""
        folder = session.state.get("ZDOTDIR").value or session.account.home
        self.read.update(session.trace.files)
        if is_known(folder) or "ZDOTDIR" in session.state.variables:
            return folder
        own = [path for path in self.read if path.startswith((f"{session.account.home}/", "/etc/", "/usr/"))]
        said = any("ZDOTDIR" in line.partition("#")[0] for path in own for line in self.lines(path))
        return UNKNOWN if said else session.account.home

    def fish(self, session: Session, *, login: bool, interactive: bool) -> Ending | None:
        session.execute()
        return self.replaced(Fish(session, login=login, interactive=interactive))

    def csh(self, session: Session, program: str, *, login: bool, interactive: bool) -> Ending | None:
        session.execute()
        tcsh = posixpath.basename(self.real(program) or program) == "tcsh"
        return self.replaced(Csh(session, tcsh=tcsh, login=login, interactive=interactive))

    @staticmethod
    def replaced(reader: Reader) -> Ending | None:
        """Read, and say whether another shell certainly replaces this one."""
        reader.start()
        if reader.left != "exec" or not reader.session.successors:
            return None
        return Ending(reader.session.source, "exec", "exec replaces the shell")


def _first_of(shell: Shell, always: tuple[str, ...], choice: tuple[str, ...]) -> Ending | None:
    """Read all of `always`, then the first of `choice` that is there."""
    if ending := read_all(shell, always):
        return ending
    for path in choice:
        if shell.start(path):
            return shell.ending
    return None


def read_all(shell: Shell, paths: Iterable[str]) -> Ending | None:
    """Read one file after the other, until the shell ends."""
    for path in paths:
        shell.start(path)
        if shell.ending:
            return shell.ending
    return None
