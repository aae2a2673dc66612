"""~/.Xauthority belongs to root, or has something else in it than keys of X servers.

What you see
    The login screen accepts the password and comes back, or freezes. A login on a text console works.
Why
    The display manager writes the key of the X server into ~/.Xauthority in the user's name. After a graphical program
    was run with plain sudo the file belongs to root, and the user can't. A power cut or a full disk leaves a file that
    is cut off or full of zeros. Wayland sessions and gdm do not use this file: gdm keeps the key in /run/user.
    That the file is missing is normal. So is an empty one below lightdm, which takes the key out at logout: an empty
    file counts only where a loop is seen that lightdm has no part in.
Repair
    Take the file out of the way; the next login makes a new one.
What the repair risks
    The file is moved, not deleted. A graphical session of that user that still runs can't start programs until the
    next login.
By hand
    mv ~/.Xauthority ~/.Xauthority.bak, or: sudo chown $USER: ~/.Xauthority
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    ChangeMode,
    ChangeOwner,
    DisplaySetup,
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
    authority_fault,
    may_write,
)


class LoginLoopXauthorityWrongOwner(Rule):
    id = "login-loop-xauthority-wrong-owner"
    title = "~/.Xauthority can't be used by its user"
    stage = Stage.DISK
    severity = Severity.ERROR
    explains = ("login-loop-unexplained",)

    def detect(
        self, homes: HomeFiles, sessions: Sessions | None, display: DisplaySetup | None
    ) -> Iterator[Finding | Unknown]:
        manager = display.manager if display else ""
        for home in homes.homes:
            user = home.account.name
            loop = sessions.loop(user) if sessions else None
            for problem in filter(None, (home.problem, *home.problems)):
                yield Unknown(problem, f"user:{user}")
            file = home.file(".Xauthority")
            if file is None:
                continue
            managers = {manager, *(loop.services if loop else ())}
            if file.status.kind == "file" and not file.status.size and may_write(home.account, file.status):
                if any(m.startswith(("lightdm", "gdm")) for m in managers):
                    continue
                if not loop:
                    yield Unknown(f"{file.path} is empty, which says nothing without a login loop", f"user:{user}")
                    continue
            fault = _fault(home, file)
            if not fault:
                continue
            if file.link:
                yield Unknown(f"{file.path} is a link to {file.link}, which {user} can't use", f"user:{user}")
                continue
            unused = not loop and (manager.startswith("gdm") or "belongs" not in fault)
            status = file.status
            yield self.finding(
                f"file:{file.path}",
                f"{file.path} {fault}: {user}'s X sessions can't use it",
                Evidence(file.path, f"{status.kind}, mode {status.mode:04o}, owner {status.uid}"),
                severity=Severity.WARNING if unused else None,
                about=(f"user:{user}",),
                path=file.path,
                kind=status.kind,
                user=user,
                group=str(home.account.gid),
                mode=status.mode | 0o600,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        path, user, group, mode = (finding.detail[k] for k in ("path", "user", "group", "mode"))
        if finding.detail["kind"] != "file":
            yield Plan(
                f"Make way for {path}", Risk.LOW, (ByHand(f"mv {path} {path}.bak; the next login makes a file"),)
            )
            return
        yield Plan(f"Move {path} aside; the next login makes a new one", Risk.LOW, (MoveAside(path),))
        yield Plan(
            f"Give {path} back to {user}",
            Risk.MEDIUM,
            (ChangeOwner(path, user, group), ChangeMode(path, mode)),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        path = "/home/alice/.Xauthority"
        debian, ubuntu = Machine.debian12, Machine.ubuntu2404
        yield Scenario(
            "owned by root",
            debian().file(path, COOKIE, 0o600),
            finds=f"file:{path}",
            steps=("move-aside",),
            ladder=(
                (
                    "low",
                    "move-aside /home/alice/.Xauthority",
                ),
                (
                    "medium",
                    "change-owner /home/alice/.Xauthority alice 1000",
                    "change-mode /home/alice/.Xauthority 0600",
                ),
            ),
        )
        yield Scenario(
            "owned by root, and a loop", ubuntu().file(path, COOKIE, 0o600).login_loop(), finds=f"file:{path}"
        )
        yield Scenario("text in it", debian().file(path, "garbage\n", 0o600, 1000), finds=f"file:{path}")
        yield Scenario("zeros after a power cut", debian().file(path, bytes(4096), 0o600, 1000), finds=f"file:{path}")
        yield Scenario("cut off", debian().file(path, COOKIE[:-3], 0o600, 1000), finds=f"file:{path}")
        yield Scenario(
            "a folder",
            debian().folder(path, 0o755, 1000),
            finds=f"file:{path}",
            ladder=(
                (
                    "low",
                    "by-hand /home/alice/.Xauthority /home/alice/.Xauthority.bak",
                ),
            ),
        )
        yield Scenario("nobody may write it", debian().file(path, COOKIE, 0o400, 1000), finds=f"file:{path}")
        yield Scenario(
            "empty in a loop of sddm",
            debian().file(path, "", 0o600, 1000).login_loop(manager="sddm"),
            finds=f"file:{path}",
        )
        yield Scenario("as X writes it", debian().file(path, COOKIE, 0o600, 1000))
        yield Scenario("two keys", debian().file(path, COOKIE * 2, 0o600, 1000))
        yield Scenario("missing", debian())
        yield Scenario("empty after a logout from lightdm", debian().file(path, "", 0o600, 1000).login_loop())
        yield Scenario("empty, no loop", debian().file(path, "", 0o600, 1000), unknown=True)
        yield Scenario("a home that is not mounted", Machine().os_release("debian", "12").append(
            "/etc/passwd", "alice:x:1000:1000::/home/alice:/bin/bash\n"), unknown=True)  # fmt: skip
        yield Scenario("no people in sight", Machine().file("/etc/hostname", "disk"), unknown=True)


COOKIE = b"\x01\x00\x00\x0bworkstation\x00\x010\x00\x12MIT-MAGIC-COOKIE-1\x00\x10" + bytes(range(16))


def _fault(home: Home, file: HomeFile) -> str:
    """What is wrong with the file, "" for nothing."""
    status = file.status
    if status.kind != "file":
        return f"is a {status.kind}, not a file"
    if not may_write(home.account, status):
        if status.uid != home.account.uid:
            return f"belongs to {f'UID {status.uid}' if status.uid else 'root'}"
        return f"has mode {status.mode:04o}, so that not even its owner can write it"
    if not status.size:
        return "is empty"
    if home.authority is None:
        return ""
    fault = authority_fault(home.authority)
    return f"is no list of X keys ({fault})" if fault else ""
