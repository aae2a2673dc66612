"""What may be repaired without a person: the administrator's settings, and the decision for each of its reasons."""

import posixpath
import re
from pathlib import Path

import pytest

from dlhealth.engine.policy import BadConfig, Policy, Trigger, Verdict, decide, read_policy, restart_at
from dlhealth.host import Unreadable
from dlhealth.host.root import RootHost
from dlhealth.model import Plan, Risk
from dlhealth.service.check import policy_of

CONFIG = "etc/dlhealth/config.toml"
ALL = """
[repair]
max_risk = "medium"
max_attempts = 3
local_rules = ["my-rule"]
[reboot]
hours = "02:00-05:30"
[rules]
ignore = ["nvcc-not-in-path", "other"]
[watch]
users = ["alice"]
"""


def write(root: Path, text: str, path: str = CONFIG) -> RootHost:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return RootHost(str(root))


def test_without_settings_only_low_risk_is_repaired_once_and_nothing_is_restarted(tmp_path: Path) -> None:
    assert read_policy(RootHost(str(tmp_path))) == Policy(Risk.LOW, 1, "", (), (), ())


def test_every_setting(tmp_path: Path) -> None:
    assert read_policy(write(tmp_path, ALL)) == Policy(
        Risk.MEDIUM, 3, "02:00-05:30", ("nvcc-not-in-path", "other"), ("alice",), ("my-rule",)
    )


@pytest.mark.parametrize(("word", "risk"), [("none", None), ("low", Risk.LOW), ("high", Risk.HIGH)])
def test_each_risk(tmp_path: Path, word: str, risk: Risk | None) -> None:
    assert read_policy(write(tmp_path, f'[repair]\nmax_risk = "{word}"')).max_risk is risk


def test_no_attempt_at_all_can_be_meant_and_so_can_no_restart(tmp_path: Path) -> None:
    policy = read_policy(write(tmp_path, '[repair]\nmax_attempts = 0\n[reboot]\nhours = ""'))
    assert (policy.max_attempts, policy.reboot_hours) == (0, "")


@pytest.mark.parametrize(
    ("hours", "clock", "moment"),
    [
        ("02:30-05:00", "02:29", "02:30"),
        ("02:30-05:00", "02:30", "+1"),
        ("02:30-05:00", "04:59", "+1"),
        ("02:30-05:00", "05:00", "02:30"),
        ("22:15-04:20", "22:14", "22:15"),
        ("22:15-04:20", "22:15", "+1"),
        ("22:15-04:20", "00:00", "+1"),
        ("22:15-04:20", "04:19", "+1"),
        ("22:15-04:20", "04:20", "22:15"),
        ("03:00-03:00", "03:00", "03:00"),
    ],
)
def test_a_restart_waits_for_its_hours(hours: str, clock: str, moment: str) -> None:
    hour, minute = map(int, clock.split(":"))
    assert restart_at(hours, hour * 60 + minute) == moment


def test_drop_ins_replace_what_they_set_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, ALL)
    write(tmp_path, '[repair]\nmax_risk = "high"\n[rules]\nignore = []', f"{CONFIG}.d/90-last.toml")
    write(tmp_path, '[repair]\nmax_risk = "none"\nmax_attempts = 7', f"{CONFIG}.d/10-first.toml")
    write(tmp_path, "[repair]\nmax_attempts = 9", f"{CONFIG}.d/95-not-read.toml.dpkg-old")
    host = write(tmp_path, "[repair]\nmax_attempts = 9", f"{CONFIG}.d/.hidden.toml")
    assert read_policy(host) == Policy(Risk.HIGH, 7, "02:00-05:30", (), ("alice",), ("my-rule",))


@pytest.mark.parametrize(
    ("text", "named", "allowed"),
    [
        ('[repair]\nmax_risk = "extreme"', "repair.max_risk = 'extreme'", '"none", "low", "medium" or "high"'),
        ("[repair]\nmax_risk = 3", "repair.max_risk = 3", '"none"'),
        ('[repair]\nmax_risk = ["low"]', "repair.max_risk = ['low']", '"none"'),
        ("[repair]\nmax_risk = {low = 1}", "repair.max_risk", '"none"'),
        ("[repair]\nmax_attempts = -1", "repair.max_attempts = -1", "a number, 0 or more"),
        ("[repair]\nmax_attempts = true", "repair.max_attempts = True", "a number"),
        ('[repair]\nmax_attempts = "2"', "repair.max_attempts = '2'", "a number"),
        ("[repair]\nmax_attempts = 1.5", "repair.max_attempts = 1.5", "a number"),
        ('[repair]\nlocal_rules = "my-rule"', "repair.local_rules = 'my-rule'", "a list of rule ids"),
        ("[rules]\nignore = [1]", "rules.ignore = [1]", "a list of rule ids"),
        ('[watch]\nusers = "alice"', "watch.users = 'alice'", "a list of user names"),
        ('[reboot]\nhours = "2-5"', "reboot.hours = '2-5'", '"02:00-05:00", or "" for never'),
        ('[reboot]\nhours = "25:00-05:00"', "reboot.hours = '25:00-05:00'", "02:00-05:00"),
        ('[reboot]\nhours = "02:00-05:00 daily"', "reboot.hours", "02:00-05:00"),
        ("[reboot]\nhours = 2", "reboot.hours = 2", "02:00-05:00"),
        ('[repair]\nmax_rsik = "none"', "no setting repair.max_rsik", "repair.max_risk"),
        ("[repiar]\nmax_attempts = 0", "no setting repiar.max_attempts", "repair.max_attempts"),
        ('max_risk = "none"', "max_risk is outside a section", "repair.max_risk"),
        ("[repair", "/etc/dlhealth/config.toml", "at end of document"),
        ("[repair]\nmax_risk = low", "/etc/dlhealth/config.toml", "line 2"),
        ("x = " + "[" * 5000 + "]" * 5000, "/etc/dlhealth/config.toml", "recursion"),
        ("[repair]\nmax_attempts = " + "9" * 6000, "/etc/dlhealth/config.toml", "digits"),
    ],
)
def test_what_cannot_be_meant_is_named_with_its_file(tmp_path: Path, text: str, named: str, allowed: str) -> None:
    with pytest.raises(BadConfig) as caught:
        read_policy(write(tmp_path, text))
    said = str(caught.value)
    assert re.match(r"/etc/dlhealth/config\.toml(:\d)?: ", said)
    assert named in said
    assert allowed in said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[repair]\n\n  max_risk="extreme"', ":3"),
        ('[watch]\nusers = []\n[ repair ] # mine\nmax_risk = "extreme"', ":4"),
        ('repair.max_risk = "extreme"', ":1"),
        ('# max_risk = "low"\n[repair]\nmax_rsik = 1', ":3"),
        ("max_risk = 1\n[repair]\nmax_attempts = 1", ":1"),
        ("[repair]\nmax_risk = low", ":2"),
        ("repair = {max_risk = 3}", ""),
        ('[repair]\n"max_risk" = 3', ""),
    ],
)
def test_the_line_is_named_where_it_can_be_found(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(BadConfig) as caught:
        read_policy(write(tmp_path, text))
    assert str(caught.value).partition(": ")[0] == f"/etc/dlhealth/config.toml{line}"


def test_a_bad_drop_in_is_named_and_not_the_main_file(tmp_path: Path) -> None:
    write(tmp_path, ALL)
    with pytest.raises(BadConfig, match=r"config\.toml\.d/50-site\.toml:2: repair\.max_attempts"):
        read_policy(write(tmp_path, "[repair]\nmax_attempts = []", f"{CONFIG}.d/50-site.toml"))


@pytest.mark.parametrize("place", [CONFIG, f"{CONFIG}.d/50-site.toml", f"{CONFIG}.d", posixpath.dirname(CONFIG)])
def test_settings_that_others_may_write_are_not_followed(place: str, tmp_path: Path) -> None:
    write(tmp_path, '[repair]\nmax_risk = "high"')
    host = write(tmp_path, "", f"{CONFIG}.d/50-site.toml")
    assert read_policy(host).max_risk is Risk.HIGH
    (tmp_path / place.strip("/")).chmod(0o777)
    with pytest.raises(BadConfig, match="must belong to root"):
        read_policy(RootHost(str(tmp_path)))


@pytest.mark.parametrize("path", [CONFIG, f"{CONFIG}.d/50-site.toml"])
def test_settings_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path, path: str) -> None:
    (tmp_path / path).mkdir(parents=True)
    with pytest.raises(Unreadable):
        read_policy(RootHost(str(tmp_path)))
    policy, problem = policy_of(RootHost(str(tmp_path)))
    assert policy.max_risk is None
    assert "automatic repair is off" in problem


@pytest.mark.parametrize("leads", ["/srv/site/dlhealth.toml", "../elsewhere.toml", "config.toml", "50-site.toml"])
@pytest.mark.parametrize("path", [CONFIG, f"{CONFIG}.d/50-site.toml"])
def test_settings_on_a_disk_that_is_not_there_are_not_taken_for_none(tmp_path: Path, path: str, leads: str) -> None:
    link = tmp_path / path.lstrip("/")
    link.parent.mkdir(parents=True)
    link.symlink_to(leads)
    policy, problem = policy_of(RootHost(str(tmp_path)))
    assert policy.max_risk is None
    assert f"{path} is a link to {leads}, which does not exist" in problem
    assert "automatic repair is off" in problem


def test_who_forbids_in_a_broken_file_is_obeyed(tmp_path: Path) -> None:
    policy, problem = policy_of(write(tmp_path, '[repair]\nmax_risk = "none"\noops = 1'))
    assert policy.max_risk is None
    assert "oops" in problem


def plan(risk: Risk = Risk.LOW) -> Plan:
    return Plan("it", risk, ())


UNATTENDED = [Trigger.BOOT, Trigger.JOURNAL]


@pytest.mark.parametrize(
    ("risk", "verdict"), [(Risk.LOW, Verdict.DO), (Risk.MEDIUM, Verdict.DO), (Risk.HIGH, Verdict.ASK)]
)
def test_a_person_at_the_terminal_may_all_and_is_asked_before_a_high_risk(risk: Risk, verdict: Verdict) -> None:
    strict = Policy(None, 0, ignore=("rule",))
    assert decide(strict, Trigger.TERMINAL, "rule", plan(risk), 9, trusted=False).verdict is verdict


@pytest.mark.parametrize("trigger", UNATTENDED)
@pytest.mark.parametrize(
    ("policy", "risk", "attempts", "trusted", "verdict", "reason"),
    [
        (Policy(), Risk.LOW, 0, True, Verdict.DO, ""),
        (Policy(Risk.HIGH), Risk.HIGH, 0, True, Verdict.DO, ""),
        (Policy(ignore=("rule",)), Risk.LOW, 0, True, Verdict.NEVER, "rules.ignore"),
        (Policy(ignore=("other",)), Risk.LOW, 0, True, Verdict.DO, ""),
        (Policy(None), Risk.LOW, 0, True, Verdict.ASK, 'repair.max_risk = "none"'),
        (Policy(), Risk.MEDIUM, 0, True, Verdict.ASK, "its risk is medium; without a question, only low"),
        (Policy(Risk.MEDIUM), Risk.HIGH, 0, True, Verdict.ASK, "its risk is high; without a question, only medium"),
        (Policy(), Risk.LOW, 1, True, Verdict.ENOUGH, "repaired 1 times before, 1 allowed"),
        (Policy(max_attempts=2), Risk.LOW, 1, True, Verdict.DO, ""),
        (Policy(max_attempts=0), Risk.LOW, 0, True, Verdict.NEVER, "0 allowed"),
        (Policy(), Risk.LOW, 0, False, Verdict.ASK, "repair.local_rules lists rule"),
        (Policy(local_rules=("other",)), Risk.LOW, 0, False, Verdict.ASK, "repair.local_rules"),
        (Policy(local_rules=("rule",)), Risk.LOW, 0, False, Verdict.DO, ""),
    ],
)
def test_unattended(
    trigger: Trigger, policy: Policy, risk: Risk, attempts: int, trusted: bool, verdict: Verdict, reason: str
) -> None:
    decision = decide(policy, trigger, "rule", plan(risk), attempts, trusted)
    assert decision.verdict is verdict
    assert reason in decision.reason
    assert bool(decision.reason) is (verdict is not Verdict.DO)
