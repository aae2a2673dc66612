"""A user unit stops GNOME from starting its session.

What you see
    gdm accepts the password, then its login screen comes back. The log says "Session never registered, failing",
    newer GNOME also "A graphical session is already running!". A new user can log in.
Why
    Somebody enabled a unit in ~/.config/systemd/user for default.target that has Wants=, Requires= or
    BindsTo=graphical-session.target. It starts that target as soon as the user's service manager runs. GNOME finds
    the target active, takes it for another session and gives up.

    Enabling such a unit inside a session does no harm, so the loop begins only after the next reboot.

    A unit that only follows the target (WantedBy=, PartOf=) is correct. It is reported only if the log has gdm's
    message and no error about the GPU's libraries.
Repair
    Remove the link that enables the unit.
What the repair risks
    The unit's program no longer starts by itself. The unit stays, and the link is kept.
By hand
    systemctl --user disable NAME
    # or as root
    cd ~alice/.config/systemd/user/default.target.wants
    mv NAME.service /root
"""

from collections.abc import Iterator

from dlhealth.api import (
    Evidence,
    Finding,
    HomeFiles,
    Journal,
    Machine,
    MoveAside,
    Plan,
    Risk,
    Rule,
    Scenario,
    SessionLogs,
    Sessions,
    Severity,
    Stage,
    Unknown,
)

_NEVER = r"Session never registered, failing|A graphical session is already running"
_GPU = r"NVIDIA|GLX|EGL|Unrecoverable failure in required component"


class LoginLoopCustomUserUnit(Rule):
    id = "login-loop-custom-user-unit"
    title = "A user unit stops GNOME from starting its session"
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR
    explains = ("login-loop-unexplained",)

    def detect(
        self, homes: HomeFiles, journal: Journal, sessions: Sessions | None, logs: SessionLogs
    ) -> Iterator[Finding | Unknown]:
        said = next(journal.matching(_NEVER, last_boot=True), None)
        if said is None:
            return
        looping = {loop.user for loop in sessions.loops()} if sessions else set()
        for home in homes.homes:
            user = home.account.name
            if (looping and user not in looping) or (sessions and sessions.got_in(user)):
                continue
            for problem in filter(None, (home.problem, *home.problems)):
                yield Unknown(problem, f"user:{user}")
            starting = [unit for unit in home.units if unit.starts]
            for unit in starting or (() if logs.matching(_GPU) else home.units):
                does = "starts" if unit.starts else "is tied to"
                yield self.finding(
                    f"file:{unit.path}",
                    f"{unit.path} {does} the graphical session's target ({unit.setting}), and gdm reports that {user}'s session never registered",
                    Evidence(unit.source, unit.setting),
                    Evidence(f"{said.source} ({said.identifier})", said.text),
                    about=(f"user:{user}",),
                    links=unit.links,
                )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield Plan("Disable the unit", Risk.LOW, tuple(MoveAside(link) for link in finding.detail["links"]))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        folder = "/home/alice/.config/systemd/user"
        loop = "Gdm: GdmDisplay: Session never registered, failing"

        def machine(unit: str, target: str = "default.target") -> Machine:
            return (
                Machine.ubuntu2404()
                .folder("/home/alice/.config", 0o700, 1000)
                .folder("/home/alice/.config/systemd", 0o700, 1000)
                .file(f"{folder}/ydotoold.service", unit, uid=1000)
                .link(f"{folder}/{target}.wants/ydotoold.service", f"{folder}/ydotoold.service")
            )

        early = machine(
            "[Unit]\nWants=graphical-session.target\n[Service]\nExecStart=/usr/bin/ydotoold\n[Install]\nWantedBy=default.target\n"
        )
        yield Scenario(
            "starts the target at every login",
            early.login_loop(manager="gdm").says("gdm3", loop, 1010.0),
            finds=f"file:{folder}/ydotoold.service",
            steps=("move-aside",),
            ladder=(("low", "move-aside /home/alice/.config/systemd/user/default.target.wants/ydotoold.service"),),
        )
        follows = "[Unit]\nPartOf=graphical-session.target\n[Install]\nWantedBy=graphical-session.target\n"
        yield Scenario(
            "tied to the target",
            machine(follows, "graphical-session.target").login_loop(manager="gdm").says("gdm3", loop, 1010.0),
            finds=f"file:{folder}/ydotoold.service",
            ladder=(
                ("low", "move-aside /home/alice/.config/systemd/user/graphical-session.target.wants/ydotoold.service"),
            ),
        )
        yield Scenario(
            "a unit for everybody in /etc",
            Machine.ubuntu2404()
            .file("/etc/systemd/user/mouse.service", "[Unit]\nRequires=graphical-session.target\n")
            .link("/etc/systemd/user/default.target.wants/mouse.service", "/etc/systemd/user/mouse.service")
            .login_loop(manager="gdm")
            .says("gnome-session-init-worker", "A graphical session is already running!", 1010.0)
            .says("gdm3", loop, 1011.0),
            finds="file:/etc/systemd/user/mouse.service",
            ladder=(("low", "move-aside /etc/systemd/user/default.target.wants/mouse.service"),),
        )
        yield Scenario("such a unit without the message", machine(follows).login(manager="gdm"))
        yield Scenario(
            "the message, but the unit is not enabled",
            Machine.ubuntu2404().file(f"{folder}/x.service", follows, uid=1000).login_loop(manager="gdm").says("gdm3", loop, 1010.0),
        )  # fmt: skip
        yield Scenario(
            "the message, and a unit unrelated to sessions",
            machine("[Service]\nExecStart=/usr/bin/sync\n").login_loop(manager="gdm").says("gdm3", loop, 1010.0),
        )
        yield Scenario(
            "the message, caused by the GPU's libraries",
            machine(follows, "graphical-session.target").login_loop(manager="gdm").says("gdm3", loop, 1010.0)
            .says("gnome-session-binary", "Unrecoverable failure in required component org.gnome.Shell.desktop", 1009.0),
        )  # fmt: skip
        yield Scenario("no logs", machine(follows), unknown=True)
