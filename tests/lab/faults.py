"""What people do to a machine: faults that are injected as they come about, not as the rules look for them."""

import binascii
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.lab.lab import LabMachine

Break = Callable[[LabMachine], None]


def a_kernel_without_headers(lab: LabMachine) -> None:
    """As when a kernel came with an upgrade and its headers did not: DKMS had nothing to build against."""
    a_module_that_was_never_built(lab)
    lab.run("sh", "-c", "apt-get -qy remove 'linux-headers-*amd64'")


def another_kernel_without_headers(lab: LabMachine) -> None:
    """The one that comes next: DKMS skips it, which apt takes for no error."""
    lab.run("sh", "-c", "apt-get -q update && apt-get -qy --no-install-recommends install linux-image-cloud-amd64")


def a_module_that_was_never_built(lab: LabMachine) -> None:
    lab.run("dkms", "remove", "nvidia-current/535.261.03", "--all")
    lab.run("dkms", "add", "nvidia-current/535.261.03")


def an_interrupted_upgrade(lab: LabMachine) -> None:
    lab.run(
        "sh", "-c", "cd /root && apt-get -q update && apt-get -q download nvidia-smi && dpkg --unpack nvidia-smi_*.deb"
    )


def dpkg_cut_off_while_it_unpacks(lab: LabMachine) -> None:
    """By a power cut: the package is not complete, and the last entry of dpkg's journal did not reach the disk."""
    script = """
    apt-get -q update && : > /var/log/dpkg.log
    apt-get -qy install --reinstall libnvidia-glcore &
    until grep -q 'status half-installed libnvidia-glcore' /var/log/dpkg.log; do :; done
    kill -9 $(pidof dpkg); wait
    rm "$(ls /var/lib/dpkg/updates/[0-9]* | tail -1)"
    """
    lab.run("sh", "-c", script)


def tmp_without_its_mode(lab: LabMachine) -> None:
    (lab.root / "tmp").chmod(0o755)  # from outside: a container has a /tmp of its own


def no_login_screen(lab: LabMachine) -> None:
    lab.run("systemctl", "disable", "lightdm.service")


def a_masked_login_screen(lab: LabMachine) -> None:
    """To get out of a login loop, and then forgotten."""
    lab.run("systemctl", "mask", "lightdm.service")


def another_login_screen_removed(lab: LabMachine) -> None:
    """The one that was chosen; Debian's packages leave the link."""
    lab.run("sh", "-c", "apt-get -q update && apt-get -qy --no-install-recommends install xdm")
    lab.run("sh", "-c", "echo /usr/bin/xdm > /etc/X11/default-display-manager && dpkg-reconfigure xdm || true")
    lab.run("ln", "-sfn", "/lib/systemd/system/xdm.service", "/etc/systemd/system/display-manager.service")
    lab.run("apt-get", "-qy", "remove", "xdm")


def path_lost_in_environment(lab: LabMachine) -> None:
    lab.run("sh", "-c", "echo 'PATH=/usr/local/cuda/bin:$PATH' > /etc/environment")


def path_swallowed_in_bashrc(lab: LabMachine) -> None:
    lab.run("useradd", "-m", "-s", "/bin/bash", "alice")
    lab.run("sh", "-c", "echo 'export PATH=/usr/local/cuda/bin' >> /home/alice/.bashrc")


def sudo_startx(lab: LabMachine) -> None:
    lab.run("useradd", "-m", "alice")
    lab.run("sh", "-c", "HOME=/home/alice; touch $HOME/.Xauthority; chmod 600 $HOME/.Xauthority")


def a_purged_half(lab: LabMachine) -> None:
    lab.run("dpkg", "-r", "--force-depends", "libnvidia-glcore", "libglx-nvidia0")


def another_python(lab: LabMachine) -> None:
    lab.run("ln", "-sfn", "/opt/python3.13/bin/python3.13", "/usr/bin/python3")


def nouveau_chosen_again(lab: LabMachine) -> None:
    """From a forum's answer to a black screen."""
    lab.run("sh", "-c", "echo 'blacklist nvidia' > /etc/modprobe.d/fix.conf && update-initramfs -u")


def libraries_deleted_by_hand(lab: LabMachine) -> None:
    lab.run("sh", "-c", "rm /usr/lib/x86_64-linux-gnu/nvidia/current/libcuda.so*; ldconfig")


LIB = "/usr/lib/x86_64-linux-gnu"
RUNFILE = "470.256.02"


class Installer:
    """Puts files in place as NVIDIA's .run installer does: what is there is kept in /var/lib/nvidia, and its log there
    lists all of it (backup.c of nvidia-installer)."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._kept = root / "var/lib/nvidia"
        self._kept.mkdir(mode=0o700)
        self._number = 100
        self._log = [RUNFILE, f"NVIDIA Accelerated Graphics Driver for Linux-x86_64 ({RUNFILE})"]

    def file(self, path: str, source: bytes | Path, mode: int = 0o755) -> None:
        place = self._clear(path)
        content = source if isinstance(source, bytes) else source.read_bytes()
        place.write_bytes(content)
        place.chmod(mode)
        self._log += [f"1: {path}", str(binascii.crc32(content))]

    def link(self, path: str, target: str) -> None:
        self._clear(path).symlink_to(target)
        self._log += [f"0: {path}", target]

    def end(self) -> None:
        log = self._kept / "log"
        log.write_text("\n".join([*self._log, ""]))
        log.chmod(0o600)
        text = f"nvidia-installer log file '/var/log/nvidia-installer.log'\ninstaller version: {RUNFILE}\n"
        (self._root / "var/log/nvidia-installer.log").write_text(text)
        blacklist = "# generated by nvidia-installer\nblacklist nouveau\noptions nouveau modeset=0\n"
        (self._root / "etc/modprobe.d/nvidia-installer-disable-nouveau.conf").write_text(blacklist)

    def _clear(self, path: str) -> Path:
        place = self._root / path.strip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink():
            self._log += [f"2: {path}", os.readlink(place), "120777 0 0"]
            place.unlink()
        elif place.exists():
            self._log += [f"{self._number}: {path}", f"0 {place.stat().st_mode:o} 0 0"]
            shutil.move(place, self._kept / str(self._number))
            self._number += 1
        return place


def a_run_file_over_the_packages(lab: LabMachine) -> None:
    """Of an older version, whose real files come from Debian's packages of it. Only the modules are the ones that are
    there, called so: building others would take minutes and change nothing."""
    parts = ("cuda1", "ml1", "ptxjitcompiler1", "glcore", "cfg1")
    names = " ".join(
        [*(f"libnvidia-tesla-470-{part}" for part in parts), "nvidia-tesla-470-smi", "libglx-nvidia-tesla-470-0"]
    )
    script = (
        f"apt-get -q update && mkdir /tmp/470 && cd /tmp/470 && for name in {names}; do apt-get -q download $name; done"
    )
    lab.run("sh", "-c", f"{script}; for deb in *.deb; do dpkg-deb -x $deb /opt/470; done; rm -r /tmp/470")
    unpacked = lab.root / "opt/470"
    installer = Installer(lab.root)
    for library in sorted(p for p in unpacked.rglob(f"*.so.{RUNFILE}") if p.is_file() and not p.is_symlink()):
        installer.file(f"{LIB}/{library.name}", library)
    for stem in ("libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler", "libnvidia-cfg"):
        installer.link(f"{LIB}/{stem}.so.1", f"{stem}.so.{RUNFILE}")
    installer.link(f"{LIB}/libcuda.so", "libcuda.so.1")
    installer.link(f"{LIB}/libGLX_nvidia.so.0", f"libGLX_nvidia.so.{RUNFILE}")
    installer.file("/usr/bin/nvidia-smi", next(p for p in unpacked.rglob("nvidia-smi") if p.is_file()))
    persistenced = (lab.root / "usr/bin/nvidia-persistenced").read_bytes()  # which belongs to a package
    installer.file("/usr/bin/nvidia-persistenced", persistenced + b"another version")
    installer.file("/usr/bin/nvidia-installer", persistenced)
    installer.link("/usr/bin/nvidia-uninstall", "nvidia-installer")
    kernel = next((lab.root / "usr/lib/modules").iterdir()).name
    for module in sorted((lab.root / f"usr/lib/modules/{kernel}/updates/dkms").glob("nvidia-current*.ko")):
        other = module.read_bytes().replace(b"version=535.261.03", f"version={RUNFILE}".encode())
        place = f"/lib/modules/{kernel}/kernel/drivers/video"
        installer.file(f"{place}/{module.name.replace('-current', '')}", other, 0o644)
    installer.end()
    shutil.rmtree(unpacked)
    lab.run("depmod", "-a", kernel)
    lab.run("ldconfig")
