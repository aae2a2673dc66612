"""Every file that a diagnosis looks at, made hostile: it says so or ignores it, in bounded time, and leaks nothing."""

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule
from dlhealth.host import Host
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis
from dlhealth.probes import Options
from dlhealth.testing import Machine
from dlhealth.testing.machine import place

CANARY = "the-secret-outside-the-root"
QUESTIONS = ("read", "head", "tail", "elf", "initramfs", "sha256", "listdir", "stat")


def rich_machine() -> Machine:
    """Something of everything, so that nearly every probe has something to read."""
    return (
        Machine.ubuntu2404_gpu()
        .user("bob", 1001, "/usr/bin/zsh")
        .user("carol", 1002, "/usr/bin/fish")
        .user("dave", 1003, "/bin/tcsh")
        .cuda_toolkit()
        .file("/etc/environment", 'PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"\n')
        .file("/etc/default/grub", "GRUB_DEFAULT=0\n")
        .file("/boot/grub/grub.cfg", "menuentry 'Ubuntu' {\n linux /boot/vmlinuz-6.8.0-50-generic\n}\n")
        .file("/etc/X11/xorg.conf", 'Section "Device"\n Identifier "a"\n Driver "nvidia"\nEndSection\n')
        .file(
            "/var/log/auth.log",
            "Nov 23 07:00:01 host lightdm: pam_unix(lightdm:session): session opened for user alice(uid=1000)\n",
        )
        .file("/var/log/Xorg.0.log", "[ 1.0] (II) NVIDIA\n")
        .file("/var/log/apt/history.log", "Start-Date: 2026-11-01\nCommandline: apt-get install x\n")
        .file("/home/alice/.Xauthority", b"", 0o600, 1000)
        .file("/home/alice/.config/environment.d/a.conf", "A=1\n", uid=1000)
        .file("/home/bob/.zshrc", "export PATH=/usr/local/cuda/bin:$PATH\n", uid=1001)
        .file("/home/carol/.config/fish/config.fish", "set -gx PATH /usr/local/cuda/bin $PATH\n", uid=1002)
        .file("/home/dave/.tcshrc", "setenv PATH /usr/local/cuda/bin:$PATH\n", uid=1003)
        .file("/home/alice/venv/pyvenv.cfg", "home = /usr/bin\nversion = 3.12.3\n", uid=1000)
        .file(
            "/home/alice/venv/lib/python3.12/site-packages/torch/version.py",
            "__version__ = '2.3.0+cu121'\ncuda = '12.1'\n",
        )
        .file("/home/alice/venv/lib/python3.12/site-packages/torch-2.3.0+cu121.dist-info/METADATA", "Version: 2.3.0\n")
        .library("/usr/local/cuda/lib64/libcudnn.so.8.9.7", "libcudnn.so.8")
        .file("/usr/local/cuda/include/cudnn.h", '#include "cudnn_version.h"\n')
        .file("/usr/local/cuda/include/cudnn_version.h", "#define CUDNN_MAJOR 8\n")
    )


def fifo(path: Path, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path, outside: Path) -> None:
    path.unlink()
    path.mkdir()


def device(path: Path, outside: Path) -> None:
    path.unlink()
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero: endless


def way_out(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(os.path.relpath(outside, path.parent))


def loop(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def garbage(path: Path, outside: Path) -> None:
    path.write_bytes(b"\x7fELF\x02\x01\x01" + random.Random(7).randbytes(5000))


def binary_lines(path: Path, outside: Path) -> None:
    path.write_bytes(b"\xff\xfe=\x00'\"$({\n" * 400 + b"PATH=" + b"a:" * 20_000 + b"\n")


def sparse(path: Path, outside: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(300 << 20)


def empty(path: Path, outside: Path) -> None:
    path.write_bytes(b"")


FORMS = (fifo, folder, device, way_out, loop, garbage, binary_lines, sparse, empty)


def looked_at(root: Path, rules: tuple[Rule, ...]) -> list[str]:
    host = RootHost(str(root))
    diagnose(rules, Facts(host, Options()))
    return sorted(
        {question[1] for question, answer in host.seen.items() if question[0] in QUESTIONS and answer is not None}
    )


def texts(diagnosis: Diagnosis) -> str:
    return repr(diagnosis)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_hostile_files(form: Callable[[Path, Path], None], part: int, tmp_path: Path, rules: tuple[Rule, ...]) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.write_text(f"{CANARY}\nexport PATH={CANARY}\n" * 3)
    rich_machine().build(root)
    paths = looked_at(root, rules)
    assert len(paths) > 100, "the machine must make the doctor look at something"
    changed = 0
    for number, path in enumerate(paths):
        where = place(root, path)
        if number % 4 == part and where.is_file() and not where.is_symlink():
            form(where, outside)
            changed += 1
    assert changed > 5
    host: Host = RootHost(str(root))
    started = time.monotonic()
    diagnosis = diagnose(rules, Facts(host, Options()))
    assert time.monotonic() - started < 20
    assert not diagnosis.failed
    assert CANARY not in texts(diagnosis)
    assert CANARY not in repr(host.seen)


def test_folders_that_vanish_meanwhile(tmp_path: Path, rules: tuple[Rule, ...]) -> None:
    root = tmp_path / "root"
    root.mkdir()
    rich_machine().build(root)
    names = sorted(p for p in root.iterdir())
    stop = threading.Event()

    def vanish() -> None:
        while not stop.is_set():
            for path in names:
                hidden = tmp_path / f"hidden-{path.name}"
                path.rename(hidden)
                time.sleep(0.002)
                hidden.rename(path)

    thread = threading.Thread(target=vanish)
    thread.start()
    try:
        for _ in range(5):
            assert not diagnose(rules, Facts(RootHost(str(root)), Options())).failed
    finally:
        stop.set()
        thread.join()
    shutil.rmtree(root)
    with pytest.raises(FileNotFoundError):
        RootHost(str(root))


def test_memory_and_time_of_a_huge_status_are_bounded(tmp_path: Path) -> None:
    rich_machine().build(tmp_path)
    with (tmp_path / "var/lib/dpkg/status").open("ab") as file:
        file.truncate(300 << 20)
    started = time.monotonic()
    # Its own mark of the most memory: what wait4(2) tells includes that of the process that started it.
    code = (
        "import sys; from dlhealth.cli import run; status = run(sys.argv[1:]); "
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')), file=sys.stderr); "
        "sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "doctor", "--root", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1, 3), done.stderr
    assert int(done.stderr.split()[-1]) < 200 << 10
    assert time.monotonic() - started < 10
