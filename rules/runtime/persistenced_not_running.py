"""nvidia-persistenced cannot start: its account or its program does not exist.

What you see
    nvidia-persistenced.service: Control process exited, code=exited, status=1/FAILURE

    nvidia-smi and containers take many seconds to start, or settings of the GPU are lost between programs.
Why
    The daemon keeps the GPU initialized while no program uses it. Its unit names an account that does not exist (the
    package that creates it was removed, or the unit was copied from another machine), or a program that is not
    installed.

    A machine with a desktop does not need the daemon. If it fails because the driver's module is not loaded, that is
    the problem to repair.
Repair
    Do not start a daemon that is not installed. Create the missing account.
What the repair risks
    Low: no program on the GPU is affected.
By hand
    systemctl status nvidia-persistenced
    systemctl cat nvidia-persistenced | grep ExecStart
    adduser --system --group --no-create-home --home /nonexistent nvidia-persistenced
    systemctl restart nvidia-persistenced
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Machine,
    MoveAside,
    Persistenced,
    Plan,
    Platform,
    PlatformSetting,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)


class PersistencedNotRunning(Rule):
    id = "persistenced-not-running"
    title = "nvidia-persistenced cannot start"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    explained_by = ("partial-driver-install", "half-configured-driver-packages", "runfile-uninstall-leftovers")

    def detect(self, platform: Platform, daemon: Persistenced) -> Iterator[Finding | Unknown]:
        if not daemon.unit or platform.setting is not PlatformSetting.MACHINE:
            return
        if not daemon.installed:
            if daemon.enabled:  # without a link, nothing starts it
                yield self.finding(
                    f"file:{daemon.unit}",
                    f"{daemon.enabled} starts {daemon.program} at boot, but this program is not installed",
                    Evidence(daemon.unit, f"ExecStart={daemon.program}"),
                    Evidence(daemon.program, "does not exist"),
                    kind="program",
                    link=daemon.enabled,
                )
        elif daemon.user and daemon.account is None:
            yield Unknown(f"cannot tell whether the account {daemon.user} exists: accounts may come from a network")
        elif daemon.user and not daemon.account:
            yield self.finding(
                f"file:{daemon.unit}",
                f"nvidia-persistenced cannot start: its account {daemon.user} does not exist",
                Evidence(daemon.unit, f"ExecStart={daemon.program} --user {daemon.user}"),
                Evidence("/etc/passwd", f"no account {daemon.user}"),
                kind="account",
                user=daemon.user,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if finding.detail["kind"] == "program":
            yield Plan("Do not start the missing program at boot", Risk.LOW, (MoveAside(finding.detail["link"]),))
            text = "reinstall the driver's package that has the daemon, and run systemctl enable nvidia-persistenced"
            yield Plan("Reinstall the daemon", Risk.LOW, (ByHand(text),))
            return
        user = finding.detail["user"]
        text = f"adduser --system --group --no-create-home --home /nonexistent {user} && systemctl restart nvidia-persistenced"
        yield Plan(f"Create the account {user}", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        unit = "/usr/lib/systemd/system/nvidia-persistenced.service"
        program = "/usr/bin/nvidia-persistenced"
        link = "/etc/systemd/system/multi-user.target.wants/nvidia-persistenced.service"

        def machine(user: str = "nvidia-persistenced", *, installed: bool = True) -> Machine:
            text = f"[Service]\nType=forking\nExecStart={program} --user {user} --no-persistence-mode --verbose\n"
            machine = Machine.ubuntu2404_gpu().file(unit, text)
            return machine.file(program, "", 0o755) if installed else machine

        account = "nvidia-persistenced:x:121:128::/nonexistent:/usr/sbin/nologin\n"
        yield Scenario(
            "its account does not exist",
            machine(),
            finds=f"file:{unit}",
            ladder=(("low", "by-hand --system --no-create-home nvidia-persistenced"),),
        )
        yield Scenario(
            "its program is not installed",
            machine(installed=False).link(link, unit),
            finds=f"file:{unit}",
            ladder=(("low", f"move-aside {link}"), ("low", "by-hand systemctl enable")),
            steps=("move-aside",),
        )
        yield Scenario("complete", machine().append("/etc/passwd", account))
        yield Scenario("not installed, and not started", machine(installed=False))
        yield Scenario(
            "masked by its owner", machine().link(f"/etc/systemd/system/{unit.rpartition('/')[2]}", "/dev/null")
        )
        yield Scenario("no such unit", Machine.ubuntu2404_gpu())
        yield Scenario(
            "accounts come from a network",
            machine().file("/etc/nsswitch.conf", "passwd: files systemd sss\n"),
            unknown=True,
        )
