"""What a hostile program of another disk can reach of the machine that runs it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dlhealth.host import cell
from dlhealth.host import exec as door

pytestmark = [
    pytest.mark.real_programs,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces as root"),
]
PROGRAMS = ("sh", "cat", "id", "ls", "mknod", "mount", "chroot", "sleep")


@pytest.fixture(params=["bwrap", "unshare"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The program that confines; the other one is not installed."""
    find, name = door.find_program, str(request.param)
    if not find(name) or subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip(f"{name} is not installed, or this container may make no namespaces")
    monkeypatch.setattr(door, "find_program", lambda p: find(p) if p in (name, "unshare", "setpriv") else None)
    return name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a shell, and what it needs."""
    made = tmp_path / "root"
    for folder in ("bin", "dev", "etc", "proc", "run", "sys", "tmp"):
        (made / folder).mkdir(parents=True)
    for name in PROGRAMS:
        program = Path(shutil.which(name) or pytest.skip(f"{name} is not installed"))
        shutil.copy(program, made / "bin" / name)
        listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
        for library in [word for word in listed.split() if word.startswith("/")]:
            at = made / library.lstrip("/")
            at.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, at)
    return made


def run(root: Path, script: str, network: bool = False, within: tuple[str, ...] = ()) -> str:
    done = door.run([*within, *cell.words(str(root), ["sh", "-c", script], network)], 60)
    assert done.status is not None, done.problem
    return done.stdout + done.stderr


def test_it_sees_only_its_own_processes(root: Path, means: str) -> None:
    said = run(root, "ls /proc; cat /proc/[0-9]*/comm; ls /proc/[0-9]*/root/")
    assert {"systemd", "pytest"}.isdisjoint(said.split())
    assert str(os.getpid()) not in said.split()


def test_no_file_of_the_machine_can_be_reached(root: Path, means: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    climb = "../" * 30
    for place in (f"/{climb}", "/proc/1/root", "/proc/1/cwd", "/proc/self/root", "/proc/$PPID/root", "/proc/1/fd/3"):
        run(root, f"id > {place}{victim}; cd {place} && id > .{victim}")
    run(root, f"chroot /{climb} sh -c 'id > {victim}'")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "deed",
    [
        "echo x > /proc/sys/kernel/core_pattern",
        "echo h > /proc/sysrq-trigger",
        "mount -o remount,rw /proc",
        "mount -t proc proc /tmp",
        "mount -t tmpfs none /tmp",
        "mknod /tmp/disk b 8 0",
        "mknod /dev/disk b 8 0",
        "echo 1 > /sys/devices/system/cpu/online",
        "echo x > /sys/class/x",
    ],
)
def test_the_machine_can_not_be_changed(root: Path, means: str, deed: str) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    assert "succeeded" not in run(root, f"{deed} && echo succeeded")
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
def test_rights_that_a_container_lets_programs_inherit_are_dropped(root: Path, means: str) -> None:
    said = run(
        root,
        "cat /proc/self/status; mount -t tmpfs none /tmp && echo mounted",
        within=("setpriv", "--inh-caps", "+sys_admin,+mknod"),
    )
    capabilities = dict(line.split(":\t") for line in said.splitlines() if line.startswith("Cap"))
    allowed = sum(1 << number for number in cell._CAPABILITIES.values())
    assert int(capabilities["CapInh"], 16) & ~allowed == 0
    assert int(capabilities["CapEff"], 16) & ~allowed == 0
    assert "mounted" not in said


def test_it_has_no_device_of_the_machine(root: Path, means: str) -> None:
    names = set(run(root, "ls /dev").split())
    assert {"null", "zero", "urandom"} <= names
    assert names <= {
        *(
            "console",
            "core",
            "fd",
            "full",
            "mqueue",
            "null",
            "ptmx",
            "pts",
            "random",
            "shm",
            "stderr",
            "stdin",
            "stdout",
        ),
        *("tty", "urandom", "zero"),
    }
    assert run(root, "echo lost > /dev/null && ls -d /dev/pts/ptmx") == "/dev/pts/ptmx\n"


def test_it_has_the_network_only_where_it_needs_it(root: Path, means: str) -> None:
    links = Path("/proc/net/dev").read_text().split()
    beside = {word for word in links if word.endswith(":")} - {"lo:"}
    assert not beside & set(run(root, "cat /proc/net/dev").split())
    assert beside <= set(run(root, "cat /proc/net/dev", network=True).split())


def test_it_is_root_of_its_own_disk(root: Path, means: str) -> None:
    assert "done" in run(root, "id > /tmp/mine && id > /run/lost && echo done")
    assert (root / "tmp/mine").read_text().startswith("uid=0(root)") or (root / "tmp/mine").read_text().startswith(
        "uid=0"
    )
    assert not list((root / "run").iterdir())
    assert not list((root / "dev").iterdir())


def test_how_it_ended_is_known(root: Path, means: str) -> None:
    for script, status in (("exit 7", 7), ("kill -9 $$", 137)):
        assert door.run(cell.words(str(root), ["sh", "-c", script], False), 60).status == status
    assert door.run(cell.words(str(root), ["nothing"], False), 60).status not in (0, None)


def test_what_it_leaves_running_ends_with_it(root: Path, means: str) -> None:
    run(root, f"sleep 4321.{os.getpid()} >/dev/null 2>&1 & exit 0")
    lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not any(line == b"sleep\x004321.%d\0" % os.getpid() for line in lines)


def test_modules_of_the_disk_are_not_imported(root: Path, means: str) -> None:
    """What confines is a Python of this machine, which has left its own files behind."""
    import sys

    for folder in {p for p in sys.path if p.startswith("/")}:
        evil = root / folder.lstrip("/")
        evil.mkdir(parents=True, exist_ok=True)
        for name in ("warnings", "posixpath", "struct", "traceback"):
            (evil / f"{name}.py").write_text("open('/tmp/evil', 'w')")
    run(root, "exit 3")
    door.run(cell.words(str(root), ["nothing"], False), 60)
    assert not (root / "tmp/evil").exists()
