"""Public start-up files, read by dlhealth and by the real shells: how often both give the same value.

    python -m tests.corpus.startup_files ROOT FOLDER [SHELL]

ROOT is the directory of a Debian with bash, dash, zsh, fish and tcsh, for instance made by

    mmdebstrap --variant=essential --include=bash,dash,zsh,fish,tcsh bookworm ROOT

FOLDER has start-up files under their own names, in any directories below it: .bashrc, .zshrc, config.fish … Each becomes
the file of one person without rights in ROOT, without a network and in a session of its own, so this needs root. The
files themselves are no part of the project. One count is one kind of login and one of PATH and LD_LIBRARY_PATH.
Prints a table, and every value that was wrong.
"""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dlhealth.host.account import Account
from dlhealth.host.root import RootHost
from dlhealth.probes.login.environment import Environments, LoginEnvironment
from dlhealth.probes.login.users import Users

HOME = "/home/alice"
UID = 1000
HOSTNAME = "corpus"
VARIABLES = ("PATH", "LD_LIBRARY_PATH")
SHELLS = {
    ".bashrc": "/bin/bash", ".bash_profile": "/bin/bash", ".profile": "/bin/bash", ".zshrc": "/bin/zsh",
    ".zshenv": "/bin/zsh", ".zprofile": "/bin/zsh", ".cshrc": "/bin/tcsh", ".tcshrc": "/bin/tcsh", ".login": "/bin/tcsh",
    "config.fish": "/usr/bin/fish",
}  # fmt: skip
SECONDS = 12
SCRIPT = """\
ip link set lo up 2>/dev/null; hostname corpus; mount --bind "$1" "$1"; mount -t proc proc "$1/proc"
mount --bind /dev "$1/dev"; shift; exec "$@"
"""


class Real(NamedTuple):
    """What a shell had after its start; `values` is None if it did not live to tell."""

    values: dict[str, str] | None


def run(root: Path, kind: str, shell: str) -> Real:
    """Start a shell as a login of this kind does, and have it write its environment."""
    out = root / "tmp/environment"
    out.unlink(missing_ok=True)
    login = kind == "console"
    name = os.path.basename(shell)
    arguments = [("-" if login else "") + name, *(["-i"] if name != "tcsh" and not login else [])]
    start = {"HOME": HOME, "USER": "alice", "LOGNAME": "alice", "SHELL": shell, "TERM": "linux",
             "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"}  # fmt: skip
    if not login:
        before = graphical(root, start)
        if before.values is None:
            return before
        if kind == "graphical":
            return before
        start = {n: v for n, v in before.values.items() if n not in ("PWD", "OLDPWD", "SHLVL", "_")}
    code = f"import os; os.chdir({HOME!r}); os.execve({shell!r}, {arguments!r}, {start!r})"
    talk([*isolated(root), "/usr/bin/python3", "-c", code], b"\n/usr/bin/env -0 > /tmp/environment\nexit\nexit\n", out)
    return Real(parsed(out.read_bytes()) if out.exists() and out.stat().st_size else None)


def graphical(root: Path, start: dict[str, str]) -> Real:
    """As a display manager's session script reads the profiles."""
    files = ("/etc/profile", f"{HOME}/.profile", "/etc/xprofile", f"{HOME}/.xprofile")
    script = "".join(f"[ -r {f} ] && . {f}; " for f in files) + "/usr/bin/env -0 > /tmp/environment"
    start = {**start, "PATH": "/usr/local/bin:/usr/bin:/bin"}
    code = f"import os; os.chdir({HOME!r}); os.execve('/bin/sh', ['sh', '-c', {script!r}], {start!r})"
    command = [*isolated(root), "/usr/bin/python3", "-c", code]
    try:
        subprocess.run(command, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL, capture_output=True)
    except subprocess.TimeoutExpired:
        return Real(None)
    out = root / "tmp/environment"
    found = parsed(out.read_bytes()) if out.exists() else None
    out.unlink(missing_ok=True)
    return Real(found)


def isolated(root: Path) -> list[str]:
    return [
        "unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", SCRIPT, "sh",
        str(root), "chroot", f"--userspec={UID}:{UID}", str(root),
    ]  # fmt: skip


def talk(command: list[str], typed: bytes, out: Path) -> None:
    """Run a program on a terminal and type to it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    os.write(terminal, typed)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                if not os.read(terminal, 65536):
                    break
            except OSError:
                break
        if os.waitpid(pid, os.WNOHANG)[0]:
            pid = 0
            break
    if pid:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.close(terminal)


def parsed(text: bytes) -> dict[str, str]:
    pairs = (p.partition("=") for p in text.decode(errors="surrogateescape").split("\0") if p)
    return {name: value for name, _, value in pairs}


def judged(login: LoginEnvironment, real: Real, variable: str) -> str:
    """ "equal", "unknown", "wrong", or "ended" where the shell did not live to tell."""
    if real.values is None:
        return "ended"
    value = login.values.get(variable, None if login.lost else "")
    seen = real.values.get(variable, "")
    if value is None:
        known = [element for element, _ in login.lists.get(variable, ())]
        return "unknown" if is_part(known, seen.split(":")) else "wrong"
    return "equal" if value == seen and login.ending is None else "wrong"


def is_part(known: list[str], seen: list[str]) -> bool:
    """Whether all known elements are there, in their order."""
    rest = iter(seen)
    return all(element in rest for element in known)


def cases(folder: Path, wanted: str) -> Iterator[tuple[Path, str]]:
    for path in sorted(folder.rglob("*")):
        shell = SHELLS.get(path.name)
        if shell and path.is_file() and os.path.basename(shell).startswith(wanted):
            yield path, shell


def place(root: Path, path: Path, shell: str) -> None:
    """A home with the skeleton and this file."""
    home = root / HOME[1:]
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(root / "etc/skel", home)
    target = home / (".config/fish/config.fish" if path.name == "config.fish" else path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    for made in (home, *home.rglob("*")):
        os.chown(made, UID, UID, follow_symlinks=False)
    (root / "etc/hostname").write_text(f"{HOSTNAME}\n")


def main() -> int:
    root, folder = Path(sys.argv[1]), Path(sys.argv[2])
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    for path, shell in cases(folder, sys.argv[3] if len(sys.argv) > 3 else ""):
        place(root, path, shell)
        account = Account("alice", UID, UID, (UID,), HOME, shell)
        found = Environments.probe(RootHost(str(root)), Users((account,)))
        count = counts.setdefault(os.path.basename(shell), Counter())
        count["files"] += 1
        for kind in ("console", "graphical", "interactive"):
            login = found.get("alice", kind)
            assert login
            real = run(root, kind, shell)
            for variable in VARIABLES:
                verdict = judged(login, real, variable)
                count[verdict] += 1
                if verdict == "unknown":
                    reasons[re.sub(r"^\S+: ", "", login.doubts[0] if login.doubts else "?")] += 1
                if verdict == "wrong":
                    seen = (real.values or {}).get(variable, "")
                    value = login.values.get(variable)
                    print(f"{path}: {kind} {variable}\n  dlhealth {value!r} {login.ending or ''}\n  {shell} {seen!r}")
                    print("  known", [e for e, _ in login.lists.get(variable, ())], *login.doubts[:3])
                if verdict == "ended" and login.ending is None and variable == "PATH":
                    print(f"{path}: {kind}: the shell ended, dlhealth says it does not")
    print("| shell | files | equal | unknown | wrong | ended |\n|---|---|---|---|---|---|")
    for name, count in counts.items():
        total = sum(count[v] for v in ("equal", "unknown", "wrong")) or 1
        share = f"{count['unknown'] * 100 / total:.1f} %"
        print(
            f"| {name} | {count['files']} | {count['equal']} | {count['unknown']} ({share}) | {count['wrong']} | {count['ended']} |"
        )
    for reason, number in reasons.most_common(40):
        print(f"{number:4} {reason}")
    return 1 if any(count["wrong"] for count in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
