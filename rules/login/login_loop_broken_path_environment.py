"""A login sets PATH without /usr/bin.

What you see
    The login screen accepts the password and comes back. Or, after a login on a text console, every command fails
    with "command not found" ("Command 'ls' is available in '/bin/ls'").

    The system log may contain "pam_env(sddm:session): Unrecognized Option: PATH".
Why
    CUDA's guide says `export PATH=/usr/local/cuda/bin:$PATH`. That is a line for a shell, but no shell reads
    /etc/environment and pam_env.conf. Nothing is expanded there: "$PATH" stays as five characters, and the old
    value of PATH is lost.

    The same happens in a shell's file if $PATH is left out or quotes stop its expansion. Then the session finds no
    programs, and even the scripts that start it fail.
Repair
    Correct that line, and move the CUDA directory to /etc/profile.d, which shells do read.
What the repair risks
    Only that line changes; other variables in the file stay. Users who are logged in keep the old PATH until the
    next login. The repair itself calls every program by its full path.
By hand
    /usr/bin/nano /etc/environment
    # write this line
    PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    # and for CUDA
    f=/etc/profile.d/cuda.sh
    echo 'export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"' > $f
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    BrokenPath,
    ByHand,
    EditFile,
    Environments,
    Evidence,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    WriteFile,
)

_STANDARD = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games:/usr/local/games"
_PLAIN_FILES = ("/etc/environment", "/etc/default/locale")


class LoginLoopBrokenPathEnvironment(Rule):
    id = "login-loop-broken-path-environment"
    title = "A login sets PATH without /usr/bin"
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR
    explains = ("login-loop-profile-script-error", "nvcc-not-in-path")

    def detect(self, environments: Environments) -> Iterator[Finding | Unknown]:
        for broken in environments.broken_paths():
            subject, about = environments.subject(broken.source)
            yield self.finding(
                subject,
                f"{broken.source} sets PATH to {_short(broken.value)}, without /usr/bin: {_who(broken)} find no programs",
                Evidence(broken.source, f"PATH={broken.value}"),
                about=(*about, f"line:{broken.source}"),
                broken=broken,
            )
        for login in environments.logins:
            unclear = login.values.get("PATH", "") is None and login.kind in ("console", "graphical")
            known = ":".join(element for element, _ in login.lists.get("PATH", ()))
            if unclear and not environments.usable(known):
                reason = login.doubts[0] if login.doubts else "a program that dlhealth does not run sets it"
                yield Unknown(f"cannot find out {login.account.name}'s PATH: {reason}", f"user:{login.account.name}")

    def remedies(self, finding: Finding, environments: Environments) -> Iterator[Plan]:
        broken: BrokenPath = finding.detail["broken"]
        source = broken.source
        line = _corrected(broken, environments) if source.line else ""
        if source.line is None or not line:
            what = f"In {source}, add /usr/bin and /bin to PATH, or remove the line"
            yield Plan(f"Correct PATH in {source}", Risk.LOW, (ByHand(what),))
            return
        edit = EditFile(source.path, ((source.line, broken.line, line),))
        yield Plan(f"Correct PATH in {source}", Risk.LOW, (edit, *_moved(broken, environments)))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def environment(text: str) -> Machine:
            return Machine.debian12().file("/etc/environment", text)

        def profile(text: str) -> Machine:
            return Machine.debian12().append("/home/alice/.profile", text)

        yield Scenario(
            "a shell's line in /etc/environment",
            environment("LANG=C.UTF-8\nexport PATH=/usr/local/cuda/bin:$PATH\n"),
            finds="file:/etc/environment",
            steps=("edit-file", "write-file"),
            ladder=(
                (
                    "low",
                    'edit-file /etc/environment 2: PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games:/usr/local/games"',
                    'write-file /etc/profile.d/cuda.sh export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"',
                ),
            ),
        )
        yield Scenario(
            "a quoted line",
            environment('PATH="$PATH:/usr/local/cuda/bin"\n'),
            finds="file:/etc/environment",
            ladder=(
                (
                    "low",
                    'edit-file /etc/environment 1: PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games:/usr/local/games"',
                    'write-file /etc/profile.d/cuda.sh export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"',
                ),
            ),
        )
        yield Scenario(
            "a Windows line ending", environment('PATH="$PATH:/usr/local/cuda/bin"\r\n'), finds="file:/etc/environment"
        )
        yield Scenario(
            "a comment at the end of the line",
            environment("PATH=/opt/x/bin:$PATH # ours\n"),
            finds="file:/etc/environment",
            steps=("edit-file",),
            ladder=(
                (
                    "low",
                    'edit-file /etc/environment 1: PATH="/opt/x/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games:/usr/local/games"# ours',
                ),
            ),
        )
        yield Scenario(
            "a line that continues on the next",
            environment('PATH="/opt/x/bin:\\\n$PATH"\n'),
            finds="file:/etc/environment",
            ladder=(("low", "by-hand /etc/environment:1 /usr/bin /bin"),),
        )
        yield Scenario(
            "~/.profile replaces PATH",
            profile("export PATH=/usr/local/cuda/bin\n"),
            finds="user:alice",
            ladder=(("low", 'edit-file /home/alice/.profile 13: export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"'),),
        )
        yield Scenario(
            "single quotes in a file for everybody",
            Machine.debian12().file("/etc/profile.d/cuda.sh", "export PATH='/usr/local/cuda/bin:$PATH'\n"),
            finds="file:/etc/profile.d/cuda.sh",
            ladder=(("low", 'edit-file /etc/profile.d/cuda.sh 1: export PATH="/usr/local/cuda/bin:$PATH"'),),
        )
        yield Scenario(
            "pam_env.conf",
            Machine.debian12().file("/etc/security/pam_env.conf", "PATH DEFAULT=/usr/local/cuda/bin:$PATH\n"),
            finds="file:/etc/security/pam_env.conf",
            ladder=(("low", "by-hand /etc/security/pam_env.conf:1 /usr/bin /bin"),),
        )
        yield Scenario(
            "as installed", environment('PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"\n')
        )
        yield Scenario("a missing directory is harmless", profile('export PATH="/opt/gone/bin:$PATH"\n'))
        yield Scenario(
            "environment.d expands $PATH",
            Machine.debian12().file("/home/alice/.config/environment.d/cuda.conf", "PATH=/usr/local/cuda/bin:$PATH\n"),
        )
        yield Scenario(
            "only terminals are affected",
            Machine.debian12().append("/home/alice/.bashrc", "PATH=/opt/x\n"),
            alone=False,
        )
        yield Scenario("conda adds itself at the front", profile('eval "$(/opt/conda/bin/conda shell.posix hook)"\n'))
        yield Scenario("a program sets the whole PATH", profile("PATH=$(/opt/site/path)\n"), unknown=True)
        yield Scenario(
            "/etc/environment is not readable",
            Machine.debian12().remove("/etc/profile").fifo("/etc/environment"),
            unknown=True,
        )


def _short(value: str) -> str:
    value = " ".join(value.split())
    return value if len(value) < 60 else f"{value[:57]}..."


def _who(broken: BrokenPath) -> str:
    kinds = {"pam": "all sessions", "console": "console logins", "graphical": "graphical logins"}
    first = kinds[broken.kinds[0]]
    return first if len(broken.users) > 1 else f"{first} of {broken.users[0]}"


def _cuda(broken: BrokenPath) -> list[str]:
    # A quote or a Windows line ending may have become part of the last directory.
    folders = (e.strip("\"'\r") for e in broken.value.split(":"))
    return [e for e in folders if re.fullmatch(r"/[\w./-]*cuda[\w./-]*", e)]


def _corrected(broken: BrokenPath, environments: Environments) -> str:
    """The line with a PATH that works; "" if a person must decide."""
    if broken.source.path in _PLAIN_FILES:
        kept = [e for e in broken.value.split(":") if re.fullmatch(r"/[\w./+-]+", e) and e not in _cuda(broken)]
        standard = _STANDARD.split(":")
        if not broken.line or broken.line.endswith("\\"):
            return ""
        # pam_env treats a space before a comment as part of the value.
        _, hash_sign, comment = broken.line.rstrip().partition("#")
        return f'PATH="{":".join([*(e for e in kept if e not in standard), *standard])}"{hash_sign}{comment}'
    for login in environments.of(broken.users[0]):
        for problem in login.problems:
            if problem.source == broken.source and problem.variable == "PATH" and problem.correction:
                return problem.correction
    return broken.completed


def _moved(broken: BrokenPath, environments: Environments) -> Iterator[WriteFile]:
    """Move the CUDA directories from a file that no shell reads to one that shells read."""
    if broken.source.path not in _PLAIN_FILES or not _cuda(broken):
        return
    name = "cuda.sh" if "/etc/profile.d/cuda.sh" not in environments.readers else "dlhealth-cuda.sh"
    yield WriteFile(f"/etc/profile.d/{name}", f'export PATH="{":".join(_cuda(broken))}${{PATH:+:${{PATH}}}}"\n')
