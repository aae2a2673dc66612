"""Emulated machines with a kernel and a boot loader of their own, for what a container has not: a reboot that starts
what GRUB chooses, and a power cut. A disk is a copy of a machine of the lab; what is changed on it lies in a layer of
its own, so that a copy costs nothing."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import LabMachine

needs_qemu = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("qemu-system-x86_64", "qemu-img", "sfdisk", "partx", "losetup")),
    reason="needs qemu-system-x86, qemu-utils and fdisk",
)
GUEST = Path(__file__).parent / "guest"
_AGENT = """[Unit]
Description=What the tests ask for
DefaultDependencies=no
After=systemd-udevd.service systemd-remount-fs.service
Before=dlhealth-recover.service
[Service]
Type=notify
NotifyAccess=all
Environment=DEBIAN_FRONTEND=noninteractive HOME=/root
ExecStart=/usr/bin/python3 /opt/agent.py
KillMode=process
[Install]
WantedBy=sysinit.target
"""
_GRUB = """GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX="console=ttyS0"
GRUB_TERMINAL=console
"""
# Only what the disk needs: Debian's own choice takes minutes to pack, emulated.
_INITRAMFS, _MODULES = "MODULES=list\nCOMPRESS=gzip\n", "virtio_pci\nvirtio_blk\next4\n"
# Emulated, a start takes tens of seconds and building an initramfs minutes.
_LOADER, _START, _COMMAND = 90.0, 600.0, 1800.0


def _run(*argv: object) -> str:
    done = subprocess.run([str(a) for a in argv], check=False, capture_output=True, text=True)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout


def make_disk(lab: LabMachine, disk: Path) -> Path:
    """The machine, whose lists of packages have to be there, on a disk of its own, with GRUB as Debian installs it and
    with the agent of the tests."""
    shutil.copy(GUEST / "agent.py", lab.root / "opt/agent.py")
    (lab.root / "etc/systemd/system/agent.service").write_text(_AGENT)
    (lab.root / "etc/initramfs-tools/conf.d/disk").write_text(_INITRAMFS)
    with (lab.root / "etc/initramfs-tools/modules").open("a") as modules:
        modules.write(_MODULES)
    lab.run("systemctl", "enable", "agent.service")
    lab.run("apt-get", "-qy", "install", "--no-install-recommends", "grub-pc")
    (lab.root / "etc/default/grub").write_text(_GRUB)
    lab.run("update-initramfs", "-u", "-k", "all")
    _run("truncate", "-s", "8G", disk)
    subprocess.run(["sfdisk", "-q", disk], input="label: dos\nstart=2048, type=83, bootable\n", text=True, check=True)
    device = _run("losetup", "--find", "--show", "--partscan", disk).strip()
    mounted = disk.parent / "mounted"
    mounted.mkdir()
    try:
        _run("partx", "--update", device)  # for a kernel that can't read partitions itself
        _run("mkfs.ext4", "-q", f"{device}p1")
        _run("mount", f"{device}p1", mounted)
        try:
            _run("cp", "-a", f"{lab.root}/.", mounted)
            identity = _run("blkid", "-s", "UUID", "-o", "value", f"{device}p1").strip()
            (mounted / "etc/fstab").write_text(f"UUID={identity} / ext4 errors=remount-ro 0 1\n")
            for name in ("dev", "proc", "sys"):
                _run("mount", "--rbind", "--make-rslave", f"/{name}", mounted / name)
            _run("chroot", mounted, "grub-install", "--target=i386-pc", device)
            _run("chroot", mounted, "update-grub")
            # Without udev's links the disk is called as it is called here, and not as in the machine.
            menu = mounted / "boot/grub/grub.cfg"
            menu.write_text(menu.read_text().replace(f"{device}p1", f"UUID={identity}"))
        finally:
            _run("umount", "-R", mounted)
    finally:
        _run("losetup", "-d", device)
    return disk


def layer(disk: Path, made: Path) -> Path:
    """A disk with the content of another, which stays as it is."""
    _run(
        "qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2" if disk.suffix == ".qcow2" else "raw", made
    )
    return made


class Emulated:
    """One machine that runs from a disk. The power can go at any moment; what the disk was told by then is on it."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self.console = disk.with_suffix(".console")
        self._sockets = {name: disk.with_suffix(f".{name}") for name in ("control", "commands", "told")}
        command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1536", "-display", "none", "-no-reboot"]
        command += ["-nic", "none", "-drive", f"file={disk},if=virtio,cache=unsafe", "-serial", f"file:{self.console}"]
        command += ["-qmp", f"unix:{self._sockets['control']},server=on,wait=off", "-device", "virtio-serial"]
        for name in ("commands", "told"):
            command += ["-chardev", f"socket,id={name},path={self._sockets[name]},server=on,wait=off"]
            command += ["-device", f"virtserialport,chardev={name},name={name}"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._control, self._commands, self._told = (self._connect(path) for path in self._sockets.values())
        self._lines = iter(self._told.makefile(encoding="utf-8", errors="replace"))
        self._answers = self._commands.makefile(encoding="utf-8")
        self._control_answers = self._control.makefile(encoding="utf-8")
        self._control_answers.readline()
        self._order("qmp_capabilities")

    def _connect(self, path: Path) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 20
        while True:
            try:
                made.connect(str(path))
                return made
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _order(self, word: str) -> None:
        self._control.sendall(json.dumps({"execute": word}).encode() + b"\n")
        while "return" not in json.loads(self._control_answers.readline()):
            pass  # an event

    def starts_a_kernel(self) -> bool:
        """A boot loader that is emulated on a busy machine may hang before."""
        deadline = time.monotonic() + _LOADER
        while not self.console.stat().st_size:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.5)
        return True

    def wait_for_boot(self) -> str:
        """Until nothing more is to be started; what systemd calls its state then."""
        self._commands.settimeout(_START)
        assert json.loads(self._answers.readline()) == {"ready": True}
        return self.run("systemctl", "is-system-running", "--wait", check=False)

    def run(self, *argv: str, check: bool = True) -> str:
        """What a command of root's prints."""
        self.begin(*argv)
        done = self.end()
        assert not check or not done["status"], (argv, done)
        return str(done["out"])

    def begin(self, *argv: str) -> None:
        """A command that goes on while something else is watched; `end` is to follow."""
        self._commands.sendall(json.dumps(argv).encode() + b"\n")

    def end(self) -> dict[str, Any]:
        """What became of the command that was begun."""
        self._commands.settimeout(_COMMAND)
        answer: dict[str, Any] = json.loads(self._answers.readline())
        return answer

    def told(self) -> Iterator[str]:
        """The lines of dpkg's log and of the transaction's journal, as they come."""
        self._told.settimeout(_COMMAND)
        return self._lines

    def copy_of_disk(self, made: Path) -> Path:
        """The disk as it would be found if the power went now."""
        self._order("stop")
        shutil.copy(self._disk, made)
        self._order("cont")
        return made

    def ended(self) -> None:
        """Wait until it is off, or would start again."""
        self._process.wait(_START)

    def cut_power(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def started(disk: Path) -> Iterator[Emulated]:
    """A machine from its power switch on; off at the end, without being asked."""
    for _ in range(5):
        made = Emulated(disk)
        if made.starts_a_kernel():
            break
        made.cut_power()
    else:
        raise AssertionError(f"nothing starts from {disk}")
    try:
        yield made
    finally:
        made.cut_power()
