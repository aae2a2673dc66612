"""The commands of the service: what they print of its state, and to whom they say no."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dlhealth.cli import run
from dlhealth.host.exec import Output
from dlhealth.host.newfile import replace
from dlhealth.service import state
from dlhealth.txn.store import Store

PROJECT = Path(__file__).parents[2]


class Done(NamedTuple):
    status: int
    out: str
    err: str


class Cli:
    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capfd = capfd

    def __call__(self, *words: str) -> Done:
        self._capfd.readouterr()
        return Done(run(words), *self._capfd.readouterr())

    def knows(self, *findings: dict[str, Any], name: str = "watch/state.json", **more: Any) -> None:
        (self.folder / "watch").mkdir(exist_ok=True)
        replace(str(self.folder / name), json.dumps({"checked": 1_700_000_000, "findings": findings, **more}).encode())


@pytest.fixture
def dlhealth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    (tmp_path / "root").mkdir()
    monkeypatch.setattr(state, "FOLDER", f"{tmp_path}/watch")
    monkeypatch.setattr(state, "BOOT_STATE", f"{tmp_path}/boot.json")
    monkeypatch.setattr("dlhealth.service.install.running", lambda: False)
    monkeypatch.setattr(state, "Store", lambda folder: Store(f"{tmp_path}/root"))
    monkeypatch.setenv("TZ", "UTC")
    return Cli(tmp_path, capfd)


def finding(id: str, severity: str = "error", **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "subject": "host",
        "severity": severity,
        "layer": "login",
        "title": f"{id} is wrong",
        "next_boot": False,
        "fingerprint": "0123",
        "caused_by": [],
        "files": ["/etc/secret"],
        "repair": "low",
        **more,
    }


def test_a_history_that_cannot_be_listed_is_told_and_does_not_end_status(dlhealth: Cli) -> None:
    dlhealth.knows()
    folder = dlhealth.folder / "root/var/lib/dlhealth/txn"
    folder.mkdir(parents=True)
    (folder / "history").write_text("")
    done = dlhealth("status")
    assert done.status in (0, 6)
    assert "history" in done.err
    assert "Last check" in done.out


def test_without_a_service_status_says_so(dlhealth: Cli) -> None:
    done = dlhealth("status")
    assert (done.status, done.err) == (6, "")
    assert done.out.splitlines()[0] == "Unknown: the service has not checked this machine since it started"
    assert "Nothing is open" not in done.out
    assert json.loads(dlhealth("status", "--json").out) == {
        "schema": 1,
        "checked": None,
        "findings": [],
        "transaction": None,
        "unknown": "the service has not checked this machine since it started",
    }


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("LoadState=loaded\nActiveState=active\n", ""),
        ("ActiveState=failed\nLoadState=loaded\n", "does not run (failed). Details: systemctl status dlhealth.service"),
        ("LoadState=not-found\nActiveState=inactive\n", "not installed. To install it: dlhealth service install"),
        ("", ""),
    ],
)
def test_a_service_that_does_not_run_is_told_in_one_line(
    dlhealth: Cli, monkeypatch: pytest.MonkeyPatch, shown: str, said: str
) -> None:
    monkeypatch.setattr("dlhealth.service.install.running", lambda: True)
    monkeypatch.setattr(state, "run", lambda argv, timeout: Output(0, shown))
    nothing = dlhealth("status").out
    assert said in nothing
    assert ("has not checked" in nothing) == (not said)
    dlhealth.knows()
    done = dlhealth("status")
    assert (done.status, done.err) == (6 if said else 0, "")
    assert said in done.out
    assert ("No open problems" in done.out) == (not said)
    document = json.loads(dlhealth("status", "--json").out)
    assert said in (document["unknown"] or "")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"problem": "/etc/dlhealth/config.toml: not TOML"}, "Unknown: /etc/dlhealth/config.toml: not TOML"),
        ({"problem": "a check failed: it did not finish"}, "Unknown: a check failed"),
        ({"began": 1.0}, "Unknown: a repair or an undo ended after the last check"),
    ],
)
def test_a_service_that_does_not_know(dlhealth: Cli, more: dict[str, Any], said: str) -> None:
    store = Store(f"{dlhealth.folder}/root")
    with store.locked():
        store.end(store.begin("abcd", {"actions": []}, []), "applied")
    dlhealth.knows(began=time.time() + 1)
    assert dlhealth("status").status == 0
    dlhealth.knows(**{"began": time.time() + 1, **more})
    done = dlhealth("status")
    assert done.status == 6
    assert done.out.startswith(said)
    assert "Nothing is open" not in done.out


def test_what_was_found_stands_where_not_everything_was_checked(dlhealth: Cli) -> None:
    left_out = {"problem": "not everything was checked: /home/bob (nfs4) does not answer", "unchecked": "/home/bob ..."}
    dlhealth.knows(**left_out)
    assert dlhealth("status").status == 6
    dlhealth.knows(finding("a"), **left_out)
    done = dlhealth("status")
    assert done.status == 3
    assert "Unknown: not everything was checked: /home/bob (nfs4) does not answer" in done.out


def test_nothing_is_open(dlhealth: Cli) -> None:
    dlhealth.knows()
    done = dlhealth("status")
    assert (done.status, done.err) == (0, "")
    assert "Last check: 2023-11-14 22:13:20" in done.out
    assert "No open problems." in done.out
    assert "fix" not in done.out


def test_what_is_open_with_what_it_explains(dlhealth: Cli) -> None:
    dlhealth.knows(
        finding("cause"), finding("effect", caused_by=["cause"]), finding("coming", "warning", next_boot=True)
    )
    done = dlhealth("status")
    assert done.status == 3
    assert done.out.splitlines()[1:] == [
        "error: cause is wrong  [cause]",
        "  explains: effect is wrong",
        "warning: at the next boot: coming is wrong  [coming]",
        "To repair: dlhealth fix",
    ]


def test_only_warnings(dlhealth: Cli) -> None:
    dlhealth.knows(finding("a", "warning"))
    assert dlhealth("status").status == 1
    assert dlhealth("status", "--json").status == 1


def test_as_one_document(dlhealth: Cli) -> None:
    dlhealth.knows(finding("cause", title="f\udcffle"), finding("effect", caused_by=["cause", "other"], next_boot=True))
    done = dlhealth("status", "--json")
    assert done.status == 3
    document: dict[str, Any] = json.loads(done.out)
    assert document["checked"] == 1_700_000_000
    common = {"subject": "host", "severity": "error", "layer": "login"}
    assert document["findings"] == [
        {"id": "cause", **common, "title": "f?le", "boot": "", "caused_by": []},
        {"id": "effect", **common, "title": "effect is wrong", "boot": "next", "caused_by": ["cause", "other"]},
    ]


def test_before_the_first_look_what_the_check_at_boot_found(dlhealth: Cli) -> None:
    dlhealth.knows(finding("early"), name="boot.json")
    assert "[early]" in dlhealth("status").out
    dlhealth.knows(finding("late"))
    done = dlhealth("status")
    assert "[late]" in done.out
    assert "[early]" not in done.out


@pytest.mark.parametrize("content", ["", "garbage", "[]", '{"findings": [{"id": "a"}], "checked": 1}'])
def test_a_state_that_cannot_be_read_is_none(dlhealth: Cli, content: str) -> None:
    (dlhealth.folder / "watch").mkdir()
    (dlhealth.folder / "watch/state.json").write_text(content)
    done = dlhealth("status")
    assert (done.status, done.err) == (6, "")
    assert "state.json cannot be used: its result is not valid" in done.out


def test_old_and_new_versions_know_each_others_state(dlhealth: Cli) -> None:
    """An upgrade replaces the command before the service; a downgrade, after it."""
    dlhealth.knows(finding("a"))  # before the form had a number
    assert dlhealth("status").status == 3
    dlhealth.knows(finding("a", colour="red"), schema=1, more={"of": "a newer version"})
    assert dlhealth("status").status == 3
    dlhealth.knows({"id": "a"}, schema=2)
    done = dlhealth("status")
    assert done.status == 6
    assert "state.json cannot be used: its result is of another version of dlhealth" in done.out
    assert json.loads(dlhealth("status", "--json").out)["unknown"].endswith("systemctl restart dlhealth")


def test_a_repair_that_waits(dlhealth: Cli) -> None:
    dlhealth.knows(finding("a"))
    store = Store(f"{dlhealth.folder}/root")
    with store.locked():
        record = store.begin("abcd", {"actions": []}, [])
    assert (
        f"Repair {record.name} is running or waits for a reboot: dlhealth show {record.name}" in dlhealth("status").out
    )
    assert json.loads(dlhealth("status", "--json").out)["transaction"] == record.name


def test_a_repair_that_is_damaged(dlhealth: Cli) -> None:
    dlhealth.knows(finding("a"))
    store = Store(f"{dlhealth.folder}/root")
    with store.locked():
        record = store.begin("abcd", {"actions": []}, [])
    (Path(record.folder) / "plan.json").write_text("torn")
    done = dlhealth("status")
    assert done.status == 3
    assert "error: a is wrong" in done.out
    assert f"then move {record.folder} away" in done.err


def test_nothing_in_a_title_is_a_command_to_the_terminal(dlhealth: Cli) -> None:
    dlhealth.knows(finding("a", title="\x1b[2Jbad\x07\rname\nx"), finding("b", caused_by=["a"], title="\x9bm"))
    out = dlhealth("status").out
    assert not {c for c in out if not c.isprintable()} - {"\n"}
    assert len(out.splitlines()) == 4


def test_apt_hears_of_what_the_next_boot_lacks_without_commands_to_its_terminal(
    dlhealth: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlhealth.report.story import Line, Mark
    from dlhealth.service import boot

    verdict = Line(Mark.ERROR, "reboot", "do not reboot: no module\x1b[2J\rfor it")
    monkeypatch.setattr(boot, "next_boot_verdict", lambda: verdict)
    done = dlhealth("boot-check", "--next")
    assert (done.status, done.out) == (3, "")
    assert not {c for c in done.err if not c.isprintable()} - {"\n"}
    assert len(done.err.splitlines()) == 2


# Who may.

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["boot-check"], "needs root"),
        (["service", "install"], "needs root"),
        (["service", "remove"], "needs root"),
    ],
)
def test_a_plain_user_is_told_that_it_needs_root(
    dlhealth: Cli, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = dlhealth(*words)
    assert (done.status, done.out) == (2, "")
    assert said in done.err


@as_root
@pytest.mark.parametrize("words", [["boot-check"], ["service", "install"], ["service", "remove"]])
def test_another_user_as_the_kernel_knows_him(words: list[str], tmp_path: Path) -> None:
    """Forked from this process: the checkout may be root's alone."""
    child = os.fork()
    if not child:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os._exit(run(words))
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


def test_wrong_usage(dlhealth: Cli) -> None:
    for words in (["status", "x"], ["boot-check", "--now"], ["service", "start"], ["daemon", "x"]):
        assert dlhealth(*words).status == 2, words


@pytest.mark.parametrize("words", [["service"], ["service", "install"], ["status"], ["daemon"], ["boot-check"]])
def test_each_explains_itself(dlhealth: Cli, words: list[str]) -> None:
    done = dlhealth(*words, "--help")
    assert done.status == 0
    assert len(done.out.splitlines()) > 3


def test_without_units_service_status_says_how_to_get_them(dlhealth: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlhealth.service import install

    monkeypatch.setattr(install, "FILES", {name: f"{dlhealth.folder}{path}" for name, path in install.FILES.items()})
    done = dlhealth("service", "status")
    assert done.status == 1
    assert "dlhealth service install" in done.out


def test_the_watcher_stays_small() -> None:
    """It imports none of what a look needs: rules, probes, the engine."""
    code = (
        "import sys; import dlhealth.service.watch;"
        " print(*(m for m in sys.modules if m.startswith(('dlhealth.', 'dlhealth_rules', 'structlog', 'rich'))))"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "dlhealth.service.watch" in loaded
    heavy = ("dlhealth.engine", "dlhealth.probes", "dlhealth.actions", "dlhealth_rules", "structlog", "rich")
    assert not [m for m in loaded if m.startswith(heavy)]


@pytest.mark.parametrize("verb", ["install", "remove"])
def test_where_a_package_has_the_service_no_second_one_is_installed(
    dlhealth: Cli, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    from dlhealth.service import install

    packaged = dlhealth.folder / "usr/lib/systemd/system"
    packaged.mkdir(parents=True)
    (packaged / "dlhealth.service").touch()
    monkeypatch.setattr(install, "PACKAGED", str(packaged))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    done = dlhealth("service", verb)
    assert (done.status, done.out) == (70, "")
    assert "the package dlhealth has installed the service" in done.err
    assert install.installed_units() == ["dlhealth.service"]
