"""What people do to a machine: faults that are injected as they come about, not as the rules look for them."""

from collections.abc import Callable

from tests.lab.lab import LabMachine

Break = Callable[[LabMachine], None]


def a_kernel_without_headers(lab: LabMachine) -> None:
    """As when a kernel came with an upgrade and its headers did not: DKMS had nothing to build against."""
    a_module_that_was_never_built(lab)
    lab.run("sh", "-c", "apt-get -qy remove 'linux-headers-*amd64'")


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
