"""The doctor on real Debian machines with the real NVIDIA packages: silent where they are healthy, and right where
somebody broke them as people do."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.faults import (
    Break,
    a_kernel_without_headers,
    a_masked_login_screen,
    a_module_that_was_never_built,
    an_interrupted_upgrade,
    another_login_screen_removed,
    another_python,
    no_login_screen,
    path_lost_in_environment,
    sudo_startx,
    tmp_without_its_mode,
)
from tests.lab.lab import LabMachine
from tests.lab.looks import doctor, roots

pytestmark = pytest.mark.lab

Fresh = Callable[[str], LabMachine]


@pytest.mark.ci
@pytest.mark.parametrize("kind", ["plain", "nvidia"])
def test_a_healthy_machine_from_outside(kind: str, fresh: Fresh) -> None:
    status, report = doctor(fresh(kind).root)
    assert (status, report["verdict"]) == (0, "healthy"), report["findings"]
    assert not [f for f in report["findings"] if f["severity"] != "note"]
    assert not report["checks"]["failed"]


@pytest.mark.ci
def test_a_healthy_machine_from_inside(fresh: Fresh) -> None:
    lab = fresh("nvidia")
    command = lab.install_dlhealth()
    lab.run("useradd", "-m", "alice")
    lab.boot()
    for user in ("root", "alice"):
        done = lab.run("runuser", "-u", user, "--", command, "doctor", "--json", check=False)
        report = json.loads(done.stdout)
        assert (done.returncode, report["verdict"]) == (0, "healthy"), (user, report["findings"])
        assert not report["checks"]["failed"]
    status, outside = doctor(lab.root)
    assert status == 0, outside["findings"]


@pytest.mark.ci
def test_a_bundle_gives_the_same_findings_elsewhere(fresh: Fresh, tmp_path: Any) -> None:
    lab = fresh("nvidia")
    command = lab.install_dlhealth()
    lab.run("useradd", "-m", "alice")
    (lab.root / "home/alice/.Xauthority").write_bytes(b"")
    lab.run("apt-mark", "hold", "libcuda1")
    lab.run("sh", "-c", "echo 'export PATH=$PATH:/usr/local/cuda/bin' >> /etc/environment")
    inside = json.loads(lab.run(command, "doctor", "--json", check=False).stdout)
    lab.run(command, "capture", "-o", "/root/bundle.tar.gz")
    status, replayed = doctor(lab.root / "root/bundle.tar.gz")
    assert status == 3
    assert replayed["findings"] == inside["findings"]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (a_kernel_without_headers, "kernel-headers-missing"),
        (a_module_that_was_never_built, "dkms-module-missing-for-running-kernel"),
        (an_interrupted_upgrade, "half-configured-driver-packages"),
        (tmp_without_its_mode, "login-loop-tmp-permissions"),
        (path_lost_in_environment, "login-loop-broken-path-environment"),
        (sudo_startx, "login-loop-xauthority-wrong-owner"),
        (no_login_screen, "display-manager-not-started"),
        (a_masked_login_screen, "display-manager-not-started"),
        (another_login_screen_removed, "display-manager-not-started"),
        (another_python, "system-python-changed-breaks-postinst"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_people_do(broken: Break, expected: str, fresh: Fresh) -> None:
    lab = fresh("nvidia")
    broken(lab)
    _, report = doctor(lab.root)
    assert roots(report) == {expected}, json.dumps(report["findings"], indent=1)


@pytest.mark.parametrize(
    "command",
    [
        "systemctl set-default multi-user.target; systemctl disable lightdm",
        "apt-get -qy purge lightdm",
        "systemctl disable lightdm; rm /etc/X11/default-display-manager",
    ],
)
def test_a_machine_that_is_to_have_no_login_screen(command: str, fresh: Fresh) -> None:
    lab = fresh("nvidia")
    lab.run("sh", "-c", command)
    status, report = doctor(lab.root, "--next-boot")
    assert status == 0, report["findings"]


def test_headers_explain_the_missing_module(fresh: Fresh) -> None:
    lab = fresh("nvidia")
    a_kernel_without_headers(lab)
    status, report = doctor(lab.root)
    assert status == 3
    missing = next(f for f in report["findings"] if f["id"] == "dkms-module-missing-for-running-kernel")
    assert missing["caused_by"] == ["kernel-headers-missing"]
    assert missing["remedy"] is None


@pytest.mark.ci
def test_nothing_of_the_root_is_written(fresh: Fresh) -> None:
    lab = fresh("nvidia")
    an_interrupted_upgrade(lab)
    upper = lab.root.parent / "upper"

    def written() -> set[tuple[str, float]]:
        return {
            (f"{where}/{name}", os.lstat(f"{where}/{name}").st_mtime)
            for where, _, names in os.walk(upper)
            for name in names
        }

    before = written()
    doctor(lab.root)
    assert written() == before
