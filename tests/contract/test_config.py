"""`config show` and `config check`: the values in force, and what is wrong with a file."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dlhealth.cli import config, run
from dlhealth.engine.policy import SETTINGS, Policy, read_policy
from dlhealth.host.root import RootHost
from dlhealth.service.install import POLICY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Done(NamedTuple):
    status: int
    out: str
    err: str


class Cli:
    def __init__(self, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capfd = capfd

    def __call__(self, *words: str) -> Done:
        self._capfd.readouterr()
        return Done(run(["config", *words]), *self._capfd.readouterr())

    def write(self, text: str, name: str = "config.toml") -> None:
        file = self.root / "etc/dlhealth" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def dlhealth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setattr(config, "live_host", lambda: RootHost(str(tmp_path)))
    return Cli(tmp_path, capfd)


def places(shown: str) -> dict[str, str]:
    """By the name of a setting, the comment on it."""
    lines = [line.partition("  # ") for line in shown.splitlines() if " = " in line]
    return {setting.partition(" = ")[0]: comment for setting, _, comment in lines}


def test_without_a_file_all_defaults_are_shown(dlhealth: Cli) -> None:
    done = dlhealth("show")
    assert (done.status, done.err) == (0, "")
    assert set(places(done.out).values()) == {"default"}
    assert len(places(done.out)) == len(SETTINGS)
    done = dlhealth("check")
    assert (done.status, done.out) == (0, "All settings are valid. Set in: no file; the defaults apply\n")


def test_each_value_names_its_place_and_the_last_one_counts(dlhealth: Cli) -> None:
    dlhealth.write('[repair]\nmax_risk = "medium"\nmax_attempts = 3\n[watch]\nusers = ["alice", "Zoë"]\n')
    dlhealth.write('# site\n[repair]\nmax_risk = "none"\n', "config.toml.d/50-site.toml")
    done = dlhealth("show")
    assert done.status == 0
    found = places(done.out)
    assert found["max_risk"] == "/etc/dlhealth/config.toml.d/50-site.toml:3"
    assert found["max_attempts"] == "/etc/dlhealth/config.toml:3"
    assert found["hours"] == "default"
    done = dlhealth("check")
    assert done.out.endswith("Set in: /etc/dlhealth/config.toml, /etc/dlhealth/config.toml.d/50-site.toml\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        '[repair]\nmax_risk = "high"\nlocal_rules = ["a-b"]\n[reboot]\nhours = "22:00-05:00"\n[watch]\nusers = ["q\\"t"]',
    ],
)
def test_what_is_shown_is_a_file_with_the_same_meaning(dlhealth: Cli, text: str, tmp_path: Path) -> None:
    dlhealth.write(text)
    before = read_policy(RootHost(str(tmp_path)))
    dlhealth.write(dlhealth("show").out)
    assert read_policy(RootHost(str(tmp_path))) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[repair]\nmax_risk = "extreme"', 'toml:2: repair.max_risk = \'extreme\' must be "none", "low", "medium" or "high"'),
        ("[repair]\n\nmax_rsik = 1", "toml:3: there is no setting repair.max_rsik; known settings are repair.max_risk"),
        ("[repair]\nmax_risk = low", "toml:2: not valid TOML: Invalid value (at line 2, column 12) (write it like this: max_risk"),
    ],
)  # fmt: skip
def test_one_sentence_says_what_is_wrong_and_where(dlhealth: Cli, text: str, said: str) -> None:
    dlhealth.write(text)
    done = dlhealth("check")
    assert (done.status, done.out) == (3, "")
    first, second = done.err.splitlines()
    assert f"/etc/dlhealth/config.{said}" in first
    assert second == "The service repairs nothing by itself until this is corrected."
    shown = dlhealth("show")
    assert (shown.status, shown.err) == (3, done.err)
    assert tomllib.loads(shown.out)["repair"]["max_risk"] == "none"
    assert set(places(shown.out).values()) == {"used until the settings are valid"}


def test_a_file_that_cannot_be_read_is_unknown(dlhealth: Cli) -> None:
    (dlhealth.root / "etc/dlhealth/config.toml").mkdir(parents=True)
    for name in ("check", "show"):
        done = dlhealth(name)
        assert done.status == 6
        assert "/etc/dlhealth/config.toml" in done.err


def test_a_rule_that_does_not_exist_is_a_warning(dlhealth: Cli) -> None:
    dlhealth.write('[rules]\nignore = [\n  "nvcc-not-in-path",\n  "nvcc-not-in-pat"\n]')
    done = dlhealth("check")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(
        "/etc/dlhealth/config.toml:2: there is no rule 'nvcc-not-in-pat' (did you mean nvcc-not-in-path"
    )
    assert len(done.err.splitlines()) == 1
    assert dlhealth("show").status == 0


def test_a_user_whose_logins_cannot_be_watched_is_a_warning(dlhealth: Cli) -> None:
    dlhealth.write('[watch]\nusers = ["alice", "alcie"]')
    assert dlhealth("check").status == 0  # nobody knows: there is no /etc/passwd
    (dlhealth.root / "etc/passwd").write_text("alice:x:1000:1000::/home/alice:/bin/bash\n")
    done = dlhealth("check")
    said = "/etc/dlhealth/config.toml:2: 'alcie' is not in /etc/passwd, so this user's logins are not watched\n"
    assert (done.status, done.out, done.err) == (1, "", said)
    dlhealth.write('[watch]\nusers = ["alice"]')
    assert dlhealth("check").status == 0


def test_the_laid_down_file_documents_every_setting_with_its_default(dlhealth: Cli, tmp_path: Path) -> None:
    dlhealth.write(POLICY)
    assert read_policy(RootHost(str(tmp_path))) == Policy()
    uncommented = "\n".join(
        line.removeprefix("#") if line.startswith("#") and not line.startswith("# ") else line
        for line in POLICY.splitlines()
    )
    written: dict[str, Any] = tomllib.loads(uncommented)
    assert {(section, name) for section, values in written.items() for name in values} == set(SETTINGS)
    dlhealth.write(uncommented)
    assert read_policy(RootHost(str(tmp_path))) == Policy()
    assert "default" not in places(dlhealth("show").out).values()
