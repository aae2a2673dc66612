"""A start-up file ends the session.

What you see
    The login screen accepts the password and comes back. ~/.xsession-errors or the journal has a line like
    '/home/alice/.profile: 12: Syntax error: "(" unexpected' or '.: cannot open /opt/ros/setup.sh: No such file'.

    Or a login on a text console is logged out at once.
Why
    The script that starts a graphical session reads /etc/profile, everything in /etc/profile.d, ~/.profile,
    ~/.xprofile and ~/.xsessionrc with `.`. It runs in /bin/sh, which is dash on Debian and Ubuntu. Whatever ends
    that shell ends the session.

    These end it: `exit`, `exec zsh`, a syntax error (arrays and `function f()` only work in bash), ${name//a/b}, an
    `export` with spaces around the =, and `.` with a missing file, often from a removed ROS, CUDA or conda.

    A command that is not found does not end it.
Repair
    Remove that line, or guard it: [ -r FILE ] && . FILE. Move lines that only bash understands to ~/.bashrc.
What the repair risks
    The session no longer runs that line when it starts.
By hand
    dash -n ~/.profile
    sh -c '. ~/.profile; echo alive'
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    EditFile,
    Environments,
    Evidence,
    Finding,
    LoginEnvironment,
    Machine,
    MoveAside,
    Place,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)

_SHELLS = ("sh", "bash", "dash", "zsh", "fish", "tcsh", "csh", "ksh", "mksh", "nu", "xonsh", "elvish", "tmux", "screen")


class LoginLoopProfileScriptError(Rule):
    id = "login-loop-profile-script-error"
    title = "A start-up file ends the session"
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR
    explains = ("login-loop-unexplained",)

    def detect(self, environments: Environments) -> Iterator[Finding | Unknown]:
        by_source: dict[Place, list[LoginEnvironment]] = {}
        for login in environments.logins:
            user = login.account.name
            if login.ending and login.kind in ("graphical", "console"):
                fatal = _fatal(login)
                if fatal is None:
                    yield Unknown(f"{login.ending.source}: {login.ending.text}", f"user:{user}")
                elif fatal:
                    by_source.setdefault(login.ending.source, []).append(login)
            elif login.kind in ("graphical", "console"):
                yield from (Unknown(stop, f"user:{user}") for stop in login.stops)
        for source, logins in by_source.items():
            subject, about = environments.subject(source)
            first = logins[0]
            ending = first.ending
            if ending:
                shows = first.ending_line.strip() if ending.how == "missing" and first.ending_line else ending.text
                yield self.finding(
                    subject,
                    f"{source} ends every {_kinds(logins)} login{_of(logins)}: {ending.text}",
                    Evidence(source, shows),
                    about=(*about, f"line:{source}"),
                    source=source,
                    line=first.ending_line,
                    how=ending.how,
                )

    def remedies(self, finding: Finding, environments: Environments) -> Iterator[Plan]:
        source: Place = finding.detail["source"]
        path, number, line = source.path, source.line, finding.detail["line"]
        replaced = _replaced(line, finding.detail["how"])
        if number and replaced:
            what = "Guard" if "[ -r" in replaced else "Comment out"
            edit = EditFile(path, ((number, line, replaced),))
            yield Plan(f"{what} line {number} of {path}", Risk.LOW, (edit,))
        else:
            text = f"Correct line {number} of {path} for sh, or move it to ~/.bashrc if only bash understands it"
            if line.endswith("\r"):
                text = (
                    f"Remove the Windows line endings, which sh treats as part of each word: sed -i 's/\\r$//' {path}"
                )
            yield Plan(f"Correct {path}", Risk.LOW, (ByHand(text),))
        if path.startswith("/etc/profile.d/"):
            yield Plan(f"Move {path} out of the way", Risk.MEDIUM, (MoveAside(path),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def profile(text: str) -> Machine:
            return Machine.debian12().append("/home/alice/.profile", text)

        yield Scenario(
            "a bash array in ~/.profile",
            profile('dirs=("$HOME/a" "$HOME/b")\n'),
            finds="user:alice",
            ladder=(("low", "by-hand 13 /home/alice/.profile ~/.bashrc"),),
        )
        yield Scenario(
            "~/.profile sources a removed ROS",
            profile(". /opt/ros/noetic/setup.sh\n"),
            finds="user:alice",
            steps=("edit-file",),
            ladder=(
                (
                    "low",
                    "edit-file /home/alice/.profile 13: [ -r /opt/ros/noetic/setup.sh ] && . /opt/ros/noetic/setup.sh",
                ),
            ),
        )
        yield Scenario(
            "a bash function in profile.d",
            Machine.debian12().file("/etc/profile.d/motd.sh", "function motd() {\n  echo hello\n}\nmotd\n"),
            finds="file:/etc/profile.d/motd.sh",
            steps=("move-aside",),
            ladder=(
                ("low", "by-hand 1 /etc/profile.d/motd.sh ~/.bashrc"),
                ("medium", "move-aside /etc/profile.d/motd.sh"),
            ),
        )
        yield Scenario(
            "a ROS file that needs bash",
            profile(". /opt/ros/noetic/setup.bash\n").file(
                "/opt/ros/noetic/setup.bash",
                'D=$(builtin cd "`dirname "${BASH_SOURCE[0]}"`" && pwd)\n. "$D/setup.sh"\n',
            ),
            finds="user:alice",
            ladder=(("low", "edit-file /home/alice/.profile 13: : # . /opt/ros/noetic/setup.bash"),),
        )
        yield Scenario(
            "exec of another shell",
            profile("exec zsh\n"),
            finds="user:alice",
            ladder=(("low", "edit-file /home/alice/.profile 13: : # exec zsh"),),
        )
        yield Scenario(
            "exec of a program that is not installed",
            Machine.debian12().file("/usr/bin/env", "", 0o755).append("/home/alice/.bashrc", "exec tmux\n"),
            finds="user:alice",
            ladder=(("low", "edit-file /home/alice/.bashrc 15: : # exec tmux"),),
        )
        guarded = '[ -z "$SSH_CLIENT" -a -z "$TMUX" ] && exec tmux\n'
        yield Scenario(
            "exec of a program that is not installed, except in remote logins",
            Machine.debian12().file("/usr/bin/env", "", 0o755).append("/home/alice/.bashrc", guarded),
            finds="user:alice",
            ladder=(("low", f"edit-file /home/alice/.bashrc 15: : # {guarded.rstrip()}"),),
        )
        yield Scenario(
            "the same, and the program is installed",
            Machine.debian12().file("/usr/bin/tmux", "", 0o755).append("/home/alice/.bashrc", guarded),
            alone=False,
        )
        yield Scenario(
            "files that source each other",
            Machine.debian12().append("/home/alice/.bashrc", ". ~/.profile\n"),
            finds="user:alice",
            ladder=(("low", "edit-file /home/alice/.bashrc 15: : # . ~/.profile"),),
        )
        yield Scenario(
            "set -u and an unset variable",
            profile("set -u\nX=$NOTHING\n"),
            finds="user:alice",
            ladder=(("low", "by-hand 14 /home/alice/.profile ~/.bashrc"),),
        )
        yield Scenario(
            "exit",
            Machine.debian12().file("/home/alice/.xprofile", "exit 0\n", uid=1000),
            finds="user:alice",
            ladder=(("low", "edit-file /home/alice/.xprofile 1: : # exit 0"),),
        )
        yield Scenario(
            "spaces around the =",
            profile("export CUDA_HOME = /usr/local/cuda\n"),
            finds="user:alice",
            ladder=(("low", "edit-file /home/alice/.profile 13: : # export CUDA_HOME = /usr/local/cuda"),),
        )
        yield Scenario(
            "exit on the console",
            Machine.debian12().file("/home/alice/.bash_profile", ". ~/.bashrc\nexit\n", uid=1000),
            finds="user:alice",
            ladder=(("low", "edit-file /home/alice/.bash_profile 2: : # exit"),),
        )
        yield Scenario(
            "Windows line endings",
            Machine.debian12().file("/home/alice/.profile", "if true; then\r\n  umask 022\r\nfi\r\n", uid=1000),
            finds="user:alice",
            ladder=(("low", "by-hand -i s/\\r$// /home/alice/.profile"),),
        )
        yield Scenario("as installed", Machine.debian12())
        yield Scenario(
            "a missing command is harmless", profile("module load cuda\n[[ -d /opt ]] && echo yes\nfoo=bar\n")
        )
        yield Scenario(
            "only a subshell ends", profile('dir=$(dirname "${BASH_SOURCE[0]}")\nexport X="$(echo ${PATH//:/ })"\n')
        )
        yield Scenario("a guarded line", profile("[ -f /opt/ros/setup.sh ] && . /opt/ros/setup.sh\n"))
        yield Scenario("exec only on a console", profile('[ -t 0 ] && [ -n "$UNKNOWN_TTY" ] && exec zsh\n'))
        yield Scenario(
            "return ends only the file",
            profile('[ -n "$BASH_VERSION" ] || return\na=(1 2)\n'.replace("a=(1 2)", "a=1")),
        )
        yield Scenario(
            "bash syntax in ~/.bashrc",
            Machine.debian12().append("/home/alice/.bashrc", "a=(1 2)\nfunction f() { :; }\n"),
        )
        yield Scenario("~/.profile is not readable", Machine.debian12().fifo("/home/alice/.profile"), unknown=True)


def _fatal(login: LoginEnvironment) -> bool | None:
    """Whether the session does not start; None if it depends on the program that takes over."""
    ending = login.ending
    if not ending or ending.how != "exec":
        return bool(ending)
    program = ending.text.split()[1].rpartition("/")[2]
    if login.kind == "console":
        return False  # another shell or a session, which is wanted there
    # A window manager at the end of ~/.xsessionrc is a session too; a shell without a terminal ends at once.
    return True if program in _SHELLS else None


def _kinds(logins: list[LoginEnvironment]) -> str:
    return " and ".join(dict.fromkeys(login.kind for login in logins))


def _of(logins: list[LoginEnvironment]) -> str:
    names = list(dict.fromkeys(login.account.name for login in logins))
    return f" of {names[0]}" if len(names) == 1 else ""


def _replaced(line: str, how: str) -> str:
    """The changed line; "" if the line is not one complete command."""
    indent = line[: len(line) - len(line.lstrip())]
    text = line.strip()
    sourced = re.fullmatch(r"(?:\.|source)\s+([\w./~$\{\}\"-]+)", text)
    if how == "missing" and sourced:
        return f"{indent}[ -r {sourced[1]} ] && . {sourced[1]}"
    opened = re.search(
        r"(\\|\{|\bthen|\bdo|\belse|&&|\|\||;;)$|^(if|for|while|case|until|function|fi|done|esac|\})\b", text
    )
    if not text or opened or text.count("(") != text.count(")") or (how == "syntax" and text.count('"') % 2):
        return ""
    if how == "syntax" and not re.fullmatch(r"\w+=\(.*\)", text):
        return ""
    return f"{indent}: # {text}"
