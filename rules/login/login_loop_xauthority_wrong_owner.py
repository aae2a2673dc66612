"""A user cannot use their own ~/.Xauthority.

What you see
    The login screen accepts the password and comes back, or freezes. A login on a text console works.
Why
    The display manager writes the key of the X server into ~/.Xauthority as the user. After a graphical program was
    run with plain sudo, the file belongs to root, and the user cannot write it. A power cut or a full disk leaves a
    file that is incomplete or full of zeros, and contains no X server keys.

    Wayland sessions and gdm do not use this file: gdm keeps the key in /run/user.

    A missing file is normal. So is an empty one with lightdm, which removes the key at logout. An empty file is
    reported only for a login loop without lightdm.
Repair
    Move the file out of the way; the next login creates a new one.
What the repair risks
    The file is moved, not deleted. If a graphical session of that user is still running, it cannot start programs
    until the next login.
By hand
    mv ~/.Xauthority ~/.Xauthority.bak
    # or
    sudo chown $USER: ~/.Xauthority
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
    title = "A user cannot use their own ~/.Xauthority"
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
                    yield Unknown(f"{file.path} is empty, which is a problem only in a login loop", f"user:{user}")
                    continue
            fault = _fault(home, file)
            if not fault:
                continue
            if file.link:
                yield Unknown(f"{file.path} is a link to {file.link}, which {user} cannot use", f"user:{user}")
                continue
            unused = not loop and (manager.startswith("gdm") or "belongs" not in fault)
            status = file.status
            yield self.finding(
                f"file:{file.path}",
                f"{file.path} {fault}: {user}'s X sessions cannot use it",
                Evidence(file.path, status.shown),
                severity=Severity.WARNING if unused else None,
                about=(f"user:{user}",),
                path=file.path,
                kind=status.kind,
                user=user,
                group=str(home.account.gid),
                mode=status.mode | 0o600,
                closed=not may_write(home.account, status),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        path, user, group, mode = (finding.detail[k] for k in ("path", "user", "group", "mode"))
        if finding.detail["kind"] != "file":
            yield Plan(
                f"Move {path} out of the way; the next login creates a new one",
                Risk.LOW,
                (ByHand(f"mv {path} {path}.bak"),),
            )
            return
        yield Plan(f"Move {path} out of the way; the next login creates a new one", Risk.LOW, (MoveAside(path),))
        if finding.detail["closed"]:
            yield Plan(
                f"Make {user} the owner of {path}",
                Risk.MEDIUM,
                (ChangeOwner(path, user, group), ChangeMode(path, mode)),
            )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        path = "/home/alice/.Xauthority"
        debian, ubuntu = Machine.debian12, Machine.ubuntu2404
        yield Scenario(
            "it belongs to root",
            debian().file(path, COOKIE, 0o600),
            finds=f"file:{path}",
            steps=("move-aside",),
            ladder=(
                ("low", "move-aside /home/alice/.Xauthority"),
                (
                    "medium",
                    "change-owner /home/alice/.Xauthority alice 1000",
                    "change-mode /home/alice/.Xauthority 0600",
                ),
            ),
        )
        yield Scenario(
            "it belongs to root, and a loop", ubuntu().file(path, COOKIE, 0o600).login_loop(), finds=f"file:{path}"
        )
        yield Scenario(
            "it contains text",
            debian().file(path, "garbage\n", 0o600, 1000),
            finds=f"file:{path}",
            ladder=(("low", "move-aside /home/alice/.Xauthority"),),
        )
        yield Scenario("zeros after a power cut", debian().file(path, bytes(4096), 0o600, 1000), finds=f"file:{path}")
        yield Scenario("incomplete", debian().file(path, COOKIE[:-3], 0o600, 1000), finds=f"file:{path}")
        yield Scenario(
            "a directory",
            debian().folder(path, 0o755, 1000),
            finds=f"file:{path}",
            ladder=(("low", "by-hand /home/alice/.Xauthority /home/alice/.Xauthority.bak"),),
        )
        yield Scenario("nobody can write it", debian().file(path, COOKIE, 0o400, 1000), finds=f"file:{path}")
        yield Scenario(
            "empty in a loop with sddm",
            debian().file(path, "", 0o600, 1000).login_loop(manager="sddm"),
            finds=f"file:{path}",
        )
        yield Scenario("a correct file", debian().file(path, COOKIE, 0o600, 1000))
        yield Scenario("two keys", debian().file(path, COOKIE * 2, 0o600, 1000))
        yield Scenario("missing", debian())
        yield Scenario("empty after a logout from lightdm", debian().file(path, "", 0o600, 1000).login_loop())
        yield Scenario("empty, no loop", debian().file(path, "", 0o600, 1000), unknown=True)
        yield Scenario("a home that is not mounted", Machine().os_release("debian", "12").append(
            "/etc/passwd", "alice:x:1000:1000::/home/alice:/bin/bash\n"), unknown=True)  # fmt: skip
        yield Scenario("no users are known", Machine().file("/etc/hostname", "disk"), unknown=True)


COOKIE = b"\x01\x00\x00\x0bworkstation\x00\x010\x00\x12MIT-MAGIC-COOKIE-1\x00\x10" + bytes(range(16))


def _fault(home: Home, file: HomeFile) -> str:
    """What is wrong with the file; "" if nothing is."""
    status = file.status
    if status.kind != "file":
        return f"is a {status.named}, not a file"
    if not may_write(home.account, status):
        if status.uid != home.account.uid:
            return f"belongs to {f'UID {status.uid}' if status.uid else 'root'}"
        return f"has mode {status.mode:04o}, so even its owner cannot write it"
    if not status.size:
        return "is empty"
    if home.authority is None:
        return ""
    fault = authority_fault(home.authority)
    return f"does not contain X server keys ({fault})" if fault else ""
