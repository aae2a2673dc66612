"""A reboot is called safe only if every item of the next boot was seen to be well."""

import json
import time
from pathlib import Path

import pytest

from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts, Options
from dlhealth.engine.load import load_rules
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis, State
from dlhealth.report.json import to_json
from dlhealth.report.story import Mark, reboot_of, story_of
from dlhealth.report.style import Style
from dlhealth.report.terminal import render
from dlhealth.testing import Machine

KERNEL, NEXT = "6.1.0-50-amd64", "6.1.0-51-amd64"
UNITS = "/usr/lib/systemd/system"
LATER = time.time() + 3600


def ready() -> Machine:
    """A machine whose next boot has everything."""
    machine = Machine.debian12_gpu().secure_boot(signed_by=2, enrolled=(2,)).initramfs(KERNEL, {}, mtime=LATER)
    machine.file("/etc/X11/default-display-manager", "/usr/sbin/lightdm\n").file("/usr/sbin/lightdm", "", 0o755)
    machine.file(f"{UNITS}/lightdm.service", "[Service]\nExecStart=/usr/sbin/lightdm\n")
    machine.file(f"{UNITS}/graphical.target").link("/etc/systemd/system/default.target", f"{UNITS}/graphical.target")
    machine.file("/usr/share/xsessions/xfce.desktop", "[Desktop Entry]\nExec=xfce\n")
    return machine.link("/etc/systemd/system/display-manager.service", f"{UNITS}/lightdm.service")


def coming(machine: Machine, root: Path) -> Diagnosis:
    machine.build(root)
    facts = Facts(RootHost(str(root)), Options(next_boot=True))
    return diagnose(load_rules("/nonexistent").rules, facts, whole=True)


def test_everything_was_verified(tmp_path: Path) -> None:
    diagnosis = coming(ready(), tmp_path)
    assert {a.name: a.state for a in diagnosis.areas} == dict.fromkeys(
        ("boot entry", "driver", "libraries", "signature", "initramfs", "blacklist", "/boot", "login screen"),
        State.WELL,
    )
    verdict = reboot_of(diagnosis)
    assert verdict.mark is Mark.WELL
    assert verdict.text == f"safe to reboot: 535.261.03 for kernel {KERNEL} (running and next), lightdm starts at boot"
    text = render(story_of(diagnosis), Style(False, True, 120))
    assert text.splitlines()[-1] == f"✓ S{verdict.text[1:]}"
    assert json.loads(to_json(diagnosis))["reboot"] == {"safe": True, "text": verdict.text}


@pytest.mark.parametrize(
    ("machine", "items"),
    [
        (ready().remove("/sys/firmware"), "signature (not checked: the Secure Boot state is not readable here)"),
        (ready().remove("/etc/systemd/system/default.target"), "login screen (not checked: default.target does not exist"),
        (ready().remove("/etc/systemd/system/display-manager.service"), "login screen (nothing was seen to start it)"),
        (ready().file("/etc/modprobe.d/old.conf", "blacklist nvidia\n"), "blacklist (/etc/modprobe.d/old.conf:1 keeps"),
        (ready().initramfs(KERNEL, {}, mtime=1.0).remove("/sys/firmware"), "signature, initramfs"),
    ],
)  # fmt: skip
def test_what_was_not_verified_is_named(machine: Machine, items: str, tmp_path: Path) -> None:
    diagnosis = coming(machine, tmp_path)
    verdict = reboot_of(diagnosis)
    assert verdict.mark is Mark.UNKNOWN
    assert verdict.text.startswith(f"no problem found for the next boot, but not verified: {items}")
    assert json.loads(to_json(diagnosis))["reboot"]["safe"] is None


def test_a_boot_without_a_driver_is_warned_of(tmp_path: Path) -> None:
    diagnosis = coming(ready().kernel(NEXT, running=False), tmp_path)
    verdict = reboot_of(diagnosis)
    assert verdict.mark is Mark.ERROR
    assert verdict.text.startswith("do not reboot: ")
    assert json.loads(to_json(diagnosis))["reboot"]["safe"] is False


def test_a_module_that_this_kernel_has_loaded_is_signed_well_enough(tmp_path: Path) -> None:
    areas = {a.name: a for a in coming(ready().secure_boot(signed_by=3), tmp_path).areas}
    assert (areas["signature"].state, areas["signature"].text) == (
        State.WELL,
        f"kernel {KERNEL} has loaded this module",
    )


def test_a_problem_of_one_program_bars_no_reboot(tmp_path: Path) -> None:
    machine = ready().cuda_toolkit("12.2").link("/usr/local/cuda", "/usr/local/cuda-9.9")
    diagnosis = coming(machine, tmp_path)
    assert diagnosis.findings
    assert reboot_of(diagnosis).mark is Mark.WELL


def test_without_a_driver_nothing_is_promised(tmp_path: Path) -> None:
    assert reboot_of(coming(Machine.debian12(), tmp_path)).mark is Mark.UNKNOWN


def test_the_running_machine_has_no_verdict_on_a_reboot(tmp_path: Path) -> None:
    Machine.debian12_gpu().build(tmp_path)
    now = diagnose((), Facts(RootHost(str(tmp_path)), Options()), whole=True)
    assert story_of(now).reboot is None
    assert json.loads(to_json(now))["reboot"] is None
