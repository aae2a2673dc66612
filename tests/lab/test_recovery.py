"""The recovery at boot, as the unit of the service does it."""

import time

import pytest

from dlhealth.host.alert import Kind
from tests.lab.conftest import Fresh
from tests.lab.looks import COMMAND, alerts, within

pytestmark = pytest.mark.lab

RECOVERED = Kind.RECOVERED.value
UNIT = "dlhealth-recover.service"
# A package that goes when it is told to, and a transaction that was cut off when it had installed it.
SLOW = """
mkdir -p /root/slow/DEBIAN && cd /root/slow/DEBIAN
printf 'Package: slow\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b.c>\\nDescription: a\\n' > control
printf '#!/bin/sh\\nuntil [ -e /run/go ]; do sleep 1; done\\n' > prerm && chmod 755 prerm
dpkg-deb -b /root/slow /root/slow.deb && dpkg -i /root/slow.deb
"""
CUT_OFF = """
from dlhealth.actions import AptInstall, action_to_json
from dlhealth.steps import step_of
from dlhealth.steps.base import Target
from dlhealth.txn.journal import Journal
from dlhealth.txn.store import Store
store, action = Store("/"), AptInstall(("slow",))
with store.locked():
    plan = {"actions": [action_to_json(action)], "findings": [], "known": []}
    journal = Journal(store.begin("abcd", plan, [step_of(action).observe(Target("/", "abcd"))]).folder)
    journal.write("BEGIN")
    journal.write("INTENT", n=0)
"""
THE_BOOT_WAITS_LESS = f"""
mkdir -p /etc/systemd/system/{UNIT}.d
printf '[Unit]\\nJobRunningTimeoutSec=3\\n' > /etc/systemd/system/{UNIT}.d/lab.conf
"""


def test_one_that_takes_long_holds_the_boot_up_for_a_while_and_is_not_cut_off(fresh: Fresh) -> None:
    lab = fresh("plain")
    lab.install_dlhealth()
    lab.run(COMMAND, "service", "install")
    lab.run("/opt/dlhealth/bin/python", "-c", CUT_OFF)
    lab.run("sh", "-c", SLOW + THE_BOOT_WAITS_LESS)

    def state() -> str:
        return lab.run("systemctl", "show", "-P", "ActiveState", UNIT).stdout.strip()

    lab.boot()
    assert state() == "activating"
    lab.run("systemctl", "stop", "--no-block", UNIT)  # as a shutdown does
    time.sleep(2)
    assert state() == "deactivating"
    lab.run("touch", "/run/go")
    within(80, lambda: state() in ("inactive", "failed"))
    assert lab.run("dpkg-query", "-W", "slow", check=False).returncode == 1
    assert "1-abcd: rolled-back" in lab.run("journalctl", "-o", "cat", "-u", UNIT).stdout
    (told,) = alerts(lab, RECOVERED)
    assert told["DLHEALTH_TRANSACTION"] == "1-abcd"
