"""A session cannot write its files in the home directory.

What you see
    The login screen comes back without a message, or the desktop freezes with a dead cursor. A login on a text
    console works.
Why
    A session keeps its state in ~/.config, ~/.cache, ~/.local and ~/.ICEauthority. A program that was run with sudo
    (pip, conda, jupyter, an editor) wrote there, and now the files belong to root. Or a wrong `chmod` removed the
    user's own permission.

    Only files that a session needs to start are checked. Files of root deeper down, as containers leave them, stop
    nobody from logging in.
Repair
    Give only that file or directory to the user, with permission to read and write it. A session file is moved out
    of the way instead: the next login creates a new one.
What the repair risks
    Nothing below the directory changes. Do not use `chown -R` on a home: it would change the owner of data sets,
    shares and containers' volumes.
By hand
    sudo chown -h alice: /home/alice/.config
    sudo chmod u+rwX /home/alice/.config
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    ChangeMode,
    ChangeOwner,
    Evidence,
    Finding,
    Home,
    HomeFile,
    HomeFiles,
    Machine,
    MoveAside,
    Plan,
    Risk,
    Rule,
    Scenario,
    Sessions,
    Severity,
    Stage,
    Unknown,
    may_write,
)

_FILES = (".ICEauthority", ".profile")


class LoginLoopHomeDotfilePermissions(Rule):
    id = "login-loop-home-dotfile-permissions"
    title = "A session cannot write its files in the home directory"
    stage = Stage.DISK
    severity = Severity.ERROR
    explains = ("login-loop-unexplained",)

    def detect(self, homes: HomeFiles, sessions: Sessions | None) -> Iterator[Finding | Unknown]:
        for home in homes.homes:
            user = home.account.name
            for problem in filter(None, (home.problem, *home.problems)):
                yield Unknown(problem, f"user:{user}")
            looping = sessions is not None and sessions.loop(user) is not None
            for file in home.files:
                name = file.path.removeprefix(home.account.home).strip("/")
                if name == ".Xauthority" or not _judged(home, name, looping) or _usable(home, name, file):
                    continue
                if file.link:
                    yield Unknown(f"{file.path} is a link to {file.link}, which {user} cannot write", f"user:{user}")
                    continue
                status = file.status
                verb = "read" if name == ".profile" else "write"
                yield self.finding(
                    f"file:{file.path}",
                    f"{user} (UID {home.account.uid}) cannot {verb} {file.path}: {status.shown}",
                    Evidence(file.path, status.shown),
                    about=(f"user:{user}",),
                    path=file.path,
                    name=name,
                    kind=status.kind,
                    owner=user if status.uid != home.account.uid else None,
                    stranger=status.uid not in (0, home.account.uid),
                    group=str(home.account.gid),
                    mode=status.mode | (0o700 if status.kind == "dir" else 0o600),
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        path, name, kind = (finding.detail[k] for k in ("path", "name", "kind"))
        if kind not in ("dir", "file") or (name in _FILES) != (kind == "file"):
            yield Plan(
                f"Move {path} out of the way; the next login creates a new one",
                Risk.LOW,
                (ByHand(f"mv {path} {path}.bak"),),
            )
            return
        if name == ".ICEauthority":
            yield Plan(f"Move {path} out of the way; the next login creates a new one", Risk.LOW, (MoveAside(path),))
        owner = (
            (ChangeOwner(path, finding.detail["owner"], finding.detail["group"]),) if finding.detail["owner"] else ()
        )
        # A file may be a hard link to another user's file, and another user's directory may be intended: a person must
        # check before the owner changes.
        yield Plan(
            f"Let the user read and write {path}",
            Risk.LOW if kind == "dir" and not finding.detail["stranger"] else Risk.MEDIUM,
            (*owner, ChangeMode(path, finding.detail["mode"])),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        home = "/home/alice"
        debian = Machine.debian12
        yield Scenario(
            "~/.config belongs to root",
            debian().folder(f"{home}/.config", 0o700),
            finds=f"file:{home}/.config",
            steps=("change-owner", "change-mode"),
            ladder=(("low", "change-owner /home/alice/.config alice 1000", "change-mode /home/alice/.config 0700"),),
        )
        yield Scenario(
            "~/.cache belongs to root after sudo pip, and a loop",
            Machine.ubuntu2404().folder(f"{home}/.cache", 0o755).login_loop(manager="gdm"),
            finds=f"file:{home}/.cache",
            ladder=(("low", "change-owner /home/alice/.cache alice 1000", "change-mode /home/alice/.cache 0755"),),
        )
        yield Scenario(
            "the home cannot be entered",
            debian().folder(home, 0o444, 1000),
            finds=f"file:{home}",
            steps=("change-mode",),
            ladder=(("low", "change-mode /home/alice 0744"),),
        )
        yield Scenario(
            "the home belongs to another user",
            debian().folder(home, 0o755, 1005),
            finds=f"file:{home}",
            ladder=(("medium", "change-owner /home/alice alice 1000", "change-mode /home/alice 0755"),),
        )
        yield Scenario(
            "~/.ICEauthority read-only",
            debian().file(f"{home}/.ICEauthority", "x", 0o400, 1000),
            finds=f"file:{home}/.ICEauthority",
            steps=("move-aside",),
            ladder=(
                ("low", "move-aside /home/alice/.ICEauthority"),
                ("medium", "change-mode /home/alice/.ICEauthority 0600"),
            ),
        )
        yield Scenario(
            "~/.ICEauthority belongs to root",
            debian().file(f"{home}/.ICEauthority", "x", 0o600),
            finds=f"file:{home}/.ICEauthority",
            ladder=(
                ("low", "move-aside /home/alice/.ICEauthority"),
                (
                    "medium",
                    "change-owner /home/alice/.ICEauthority alice 1000",
                    "change-mode /home/alice/.ICEauthority 0600",
                ),
            ),
        )
        yield Scenario(
            "~/.profile unreadable",
            debian().file(f"{home}/.profile", "", 0o600),
            finds=f"file:{home}/.profile",
            ladder=(
                ("medium", "change-owner /home/alice/.profile alice 1000", "change-mode /home/alice/.profile 0600"),
            ),
        )
        used = debian().file(f"{home}/.ICEauthority", "x", 0o600, 1000).file(f"{home}/.profile", "", 0o644, 0)
        for name in (".config", ".cache", ".local", ".local/share"):
            used.folder(f"{home}/{name}", 0o700, 1000)
        yield Scenario("a normal desktop, with a .profile of root", used)
        yield Scenario(
            "files of a container deeper down",
            debian().folder(f"{home}/.cache", 0o700, 1000).folder(f"{home}/.cache/pip").folder(f"{home}/data"),
        )
        yield Scenario("~/.dbus belongs to root, no loop", debian().folder(f"{home}/.dbus", 0o700))
        yield Scenario(
            "writable through the group", debian().folder(home, 0o775, 0, 1000).folder(f"{home}/.config", 0o777)
        )
        yield Scenario(
            "a service account that does not own its home",
            debian().append("/etc/passwd", "svc:x:1001:1001::/opt/svc:/bin/bash\n").folder("/opt/svc"),
        )
        yield Scenario(
            "a home on NFS",
            debian().file("/etc/fstab", "server:/home /home nfs4 defaults 0 0\n").folder(home, 0o755, 99),
            unknown=True,
        )
        yield Scenario(
            "a locked encrypted home",
            debian().file(f"{home}/Access-Your-Private-Data.desktop").folder(home, 0o500, 1000),
            unknown=True,
        )
        yield Scenario(
            "a link of root to a directory of the user",
            debian().folder(f"{home}/dotfiles/config", 0o700, 1000).link(f"{home}/.config", "dotfiles/config"),
        )
        yield Scenario(
            "a link to a directory of root",
            debian().folder("/data/cache").link(f"{home}/.cache", "/data/cache"),
            unknown=True,
        )


def _judged(home: Home, name: str, looping: bool) -> bool:
    if name in (".dbus", ".config/dconf"):
        # sudo often leaves these to root; most sessions start anyway.
        return looping
    # A service account often does not own its home, and never has a desktop.
    return bool(name) or home.account.home.startswith("/home/") or home.file(".profile") is not None


def _usable(home: Home, name: str, file: HomeFile) -> bool:
    status, account = file.status, home.account
    if name == ".profile":
        # Sessions only read it; it may belong to an administrator.
        shift = 6 if status.uid == account.uid else 3 if status.gid in account.gids else 0
        return status.kind == "file" and bool(status.mode >> shift & 4)
    return (status.kind == "file") == (name in _FILES) and status.kind in ("file", "dir") and may_write(account, status)
