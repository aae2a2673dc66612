"""Real Debian machines for the tests: base roots, a fresh copy of one for each case, and systemd in it."""

import atexit
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
TURN = Path("/run/lock/dlhealth-lab")
CACHE = Path(os.environ.get("DLHEALTH_LAB", "/var/cache/dlhealth-lab"))


def base(kind: str) -> Path:
    """A base root of build-base; built when it is missing, which takes minutes."""
    done = subprocess.run([HERE / "build-base", kind], check=True, stdout=subprocess.PIPE, text=True)
    return Path(done.stdout.strip())


@cache
def _made_once() -> Path:
    """A directory of this run: another one may test another checkout at the same time."""
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _wheel() -> Path:
    """The wheel of this checkout, beside those of all that it needs."""
    folder = _made_once() / "wheels"
    with tempfile.TemporaryDirectory() as copy:
        # pip builds in the source directory; a copy keeps the checkout clean.
        source = Path(copy) / "dlhealth"
        shutil.copytree(
            PROJECT, source, ignore=shutil.ignore_patterns(".git", ".venv", "*.egg-info", "build", "mutants")
        )
        _pip("wheel", "--wheel-dir", folder, source)
    return next(folder.glob("dlhealth-*.whl"))


def _pip(*argv: object) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", *map(str, argv)], check=True, stdout=subprocess.DEVNULL)


def wheelhouse(python: str) -> Path:
    """A directory with the wheels of this checkout and of all that it needs, for machines with this Python ("3.13") and
    without an index."""
    wheel = _wheel()
    # One that was built here, because its author gives only the source, is good for every Python.
    built = ("--only-binary=:all:", "--find-links", wheel.parent)
    _pip("download", *built, "--python-version", python, "--dest", wheel.parent, wheel)
    return wheel.parent


class LabMachine:
    """One copy of a base root. What is changed in it is gone afterwards."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # mkdtemp's "_" is none of a name of a machine.
        self._name = f"dlhealth-{root.parent.name}".replace("_", "0")
        self._booted: subprocess.Popen[bytes] | None = None

    def run(
        self, *argv: str, check: bool = True, timeout: float = 900, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """A command in the root, with /proc and /dev; in the booted system when it is booted."""
        settings = {"DEBIAN_FRONTEND": "noninteractive", **environment}
        if self._booted:
            inner = ["nsenter", "-t", str(self._leader()), "-m", "-u", "-i", "-p", "-n", "env", "-i"]
            inner += ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
            inner += [f"{k}={v}" for k, v in settings.items()]
        else:
            inner = ["systemd-nspawn", "-q", "-D", str(self.root), "--register=no", "--keep-unit", "--pipe"]
            inner += [f"--setenv={k}={v}" for k, v in settings.items()]
        done = subprocess.run(  # noqa: PLW1510  (its status is looked at below)
            [*inner, *argv], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
        if check and done.returncode:
            raise AssertionError(f"{argv} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def install_dlhealth(self) -> str:
        """Install this checkout into its own environment, as the README says; the path of the command."""
        environment = self.root / "opt/dlhealth"
        python = os.readlink(self.root / "usr/bin/python3").removeprefix("python")
        installed = _made_once() / python
        if installed.exists():
            shutil.copytree(installed, environment, symlinks=True)
        else:
            shutil.copytree(wheelhouse(python), self.root / "opt/wheels")
            self.run("python3", "-m", "venv", "/opt/dlhealth")
            self.run("/opt/dlhealth/bin/pip", "install", "-q", "--no-index", "--find-links", "/opt/wheels", "dlhealth")
            shutil.rmtree(self.root / "opt/wheels")
            shutil.copytree(environment, installed, symlinks=True)
        return "/opt/dlhealth/bin/dlhealth"

    def boot(self, *options: str, seconds: float = 120) -> None:
        """Start systemd as PID 1 and wait until it has settled. `options` are those of systemd-nspawn."""
        # Machines that are started with --keep-unit share their control groups: two at once would be in each other's way.
        self._turn = os.open(TURN, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        self._options = options
        command = ["systemd-nspawn", "-q", "-D", self.root, "-b", "--register=no", "--keep-unit", "-M", self._name]
        command += options
        console = self.root.parent / "console"
        with console.open("wb") as output:
            self._booted = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + seconds
        state = "not started"
        while time.monotonic() < deadline:
            time.sleep(1)
            try:
                state = self.run("systemctl", "is-system-running", check=False, timeout=20).stdout.strip()
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
            if state in ("running", "degraded"):
                return
        raise AssertionError(f"the machine did not come up ({state}):\n{console.read_text(errors='replace')[-2000:]}")

    def restart(self) -> None:
        """As a person does. nspawn ends with a status of its own, so that whoever started it starts it again."""
        assert self._booted
        self.run("systemctl", "reboot", "--no-block")
        assert self._booted.wait(60) == 133
        self._booted = None
        os.close(self._turn)
        self.boot(*self._options)

    def power_off(self) -> None:
        if self._booted:
            processes = [str(self._booted.pid)]
            try:
                processes.append(str(self._leader()))
                subprocess.run(["kill", "-s", "SIGRTMIN+4", processes[-1]], check=False)
                self._booted.wait(60)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                # nspawn alone would leave its machine behind, with an X server that keeps the next from its display.
                subprocess.run(["kill", "-s", "SIGKILL", *processes], check=False)
                self._booted.wait()
            self._booted = None
            os.close(self._turn)

    def _leader(self) -> int:
        """The container's PID 1: the only child of nspawn that is an init."""
        assert self._booted
        children = Path(f"/proc/{self._booted.pid}/task/{self._booted.pid}/children").read_text().split()
        if not children:
            raise ProcessLookupError("not started yet")
        return int(children[0])


@contextmanager
def machine(kind: str) -> Iterator[LabMachine]:
    """A fresh copy of a base root, as an overlay; nothing of it is left afterwards."""
    lower = base(kind)
    work = Path(tempfile.mkdtemp(prefix="case-", dir=CACHE))
    for name in ("upper", "work", "root"):
        (work / name).mkdir()
    options = f"lowerdir={lower},upperdir={work}/upper,workdir={work}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, work / "root"], check=True)
    made = LabMachine(work / "root")
    try:
        yield made
    finally:
        made.power_off()
        subprocess.run(["umount", "-l", work / "root"], check=True)
        shutil.rmtree(work, ignore_errors=True)
