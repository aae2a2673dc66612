"""A start-up file sets XAUTHORITY to a wrong file.

What you see
    "Authorization required, but no authorization protocol specified", or "xrdb: Can't open display ':0'".

    The login screen comes back after each login.
Why
    The display manager creates the key of the X server and tells the session its file in XAUTHORITY. A line in
    ~/.profile, ~/.xprofile or another start-up file sets another file, so the X server refuses all programs of the
    session. The driver is not the cause.

    The line alone is not reported: some set-ups have such a file.
Repair
    Remove the line.
What the repair risks
    None: the display manager sets the variable.
By hand
    cd; grep -n XAUTHORITY .profile .xprofile .xsessionrc
    grep -n XAUTHORITY /etc/environment
    # remove the line, then log in again
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    EditFile,
    Environments,
    Evidence,
    Finding,
    LoopLogs,
    Machine,
    Place,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
)
from dlhealth.lazy import regex

REFUSED = regex(r"Authorization required|No protocol specified|[Cc]an't open display|cannot open display")


class XauthorityVariableWrong(Rule):
    id = "xauthority-variable-wrong"
    title = "A start-up file sets XAUTHORITY to a wrong file"
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR
    explains = ("login-loop-unexplained",)

    def detect(self, environments: Environments, logs: LoopLogs) -> Iterator[Finding]:
        for user, lines in logs.lines.items():
            said = [li for li in lines if REFUSED.search(li.text)]
            login = environments.get(user, "graphical")
            setting = login.last("XAUTHORITY") if login else None
            if not said or setting is None or setting.how == "unset":
                continue
            subject, about = environments.subject(setting.source)
            shown = setting.line.strip() or "sets XAUTHORITY"
            yield self.finding(
                f"user:{user}",
                f"{setting.source} sets XAUTHORITY, and the X server refuses all programs of {user}'s session: {said[0].text.strip()[:150]}",
                Evidence(setting.source, shown),
                *(Evidence(f"{li.source} ({li.identifier})", li.text.strip()[:200]) for li in said),
                about=tuple(x for x in (subject, *about) if x != f"user:{user}"),
                source=setting.source,
                line=setting.line,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        source: Place = finding.detail["source"]
        line = finding.detail["line"]
        if line and source.line:
            edit = EditFile(source.path, ((source.line, line, None),))
            yield Plan(f"Remove the line that sets XAUTHORITY from {source}", Risk.LOW, (edit,))
        else:
            text = f"Remove the setting of XAUTHORITY from {source}, then log in again"
            yield Plan(f"Remove the setting of XAUTHORITY from {source}", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        export = 'export XAUTHORITY="$XDG_RUNTIME_DIR"/X11/Xauthority\n'

        def looping(text: str, said: str, file: str = "/home/alice/.profile") -> Machine:
            machine = Machine.debian12().login_loop().append(file, text)
            for number in range(4):
                machine.says("Xorg", said, 1001.0 + 30.0 * number, uid=1000)
            return machine

        refused = "Authorization required, but no authorization protocol specified"
        yield Scenario(
            "set in ~/.profile",
            looping(export, refused),
            finds="user:alice",
            ladder=(("low", "edit-file /home/alice/.profile 13: -"),),
        )
        yield Scenario(
            "a file that nothing creates",
            looping("export XAUTHORITY=/home/alice/.xauth\n", refused),
            finds="user:alice",
        )
        yield Scenario("nothing was refused", looping(export, "the session begins"))
        yield Scenario("refused, but no line sets it", looping("", refused))
        yield Scenario("no logs", Machine.debian12(), unknown=True)
