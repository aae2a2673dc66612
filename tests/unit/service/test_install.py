"""The service is put in place below a directory: everything but what changes users and talks to systemd."""

import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from dlhealth.host.base import Output
from dlhealth.service import install as module
from dlhealth.service.install import NotInstalled, install, remove
from dlhealth.txn.store import Store

pytestmark = pytest.mark.real_programs


class Place:
    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = base
        self.prefix = base / "usr/local/lib/dlhealth"
        self.command = base / "usr/local/bin/dlhealth"
        self.called: list[str] = []
        self.said: list[str] = []
        self.missing: set[str] = set()
        self.store = Store(str(base))
        files = {name: f"{base}{path}" for name, path in module.FILES.items()}
        real = module.run

        def run(argv: list[str], timeout: float) -> Output:
            if argv[0].startswith("/"):
                return real(argv, timeout)
            self.called.append(" ".join(argv))
            return Output(2 if argv[0] == "getent" else 0, "")

        for name, value in {
            "PREFIX": str(self.prefix),
            "COMMAND": str(self.command),
            "_ENVIRONMENTS": (str(self.prefix), f"{self.prefix}.new", f"{self.prefix}.old"),
            "FILES": files,
            "CONFIG": f"{base}/etc/dlhealth/config.toml",
            "FOLDER": f"{base}/run",
            "_ISSUES": f"{base}/etc/issue.d",
            "_LEFT": tuple(f"{base}{path}" for path in module._LEFT),
            "_check_python": lambda: None,
            "run": run,
            "running": lambda: False,
            "find_program": lambda name: None if name in self.missing else f"/usr/bin/{name}",
            "_PATIENCE": 0.1,
            "Store": lambda root: self.store,
        }.items():
            monkeypatch.setattr(module, name, value)

    def install(self) -> None:
        before = os.umask(0o077)
        try:
            install(self.said.append)
        finally:
            os.umask(before)

    def files(self) -> list[str]:
        return sorted(str(p.relative_to(self.base)) for p in self.base.rglob("*") if not p.is_dir() or p.is_symlink())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    yield Place(tmp_path, monkeypatch)


def test_it_can_be_run_by_the_services_user_and_written_by_root_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the administrator's umask is, and the modes of what was installed with pip."""
    careless = tmp_path_factory.mktemp("site-packages") / "dlhealth_rules"
    careless.mkdir()
    (careless / "rule.py").write_text("")
    (careless / "rule.py").chmod(0o666)
    careless.chmod(0o777)
    real = module._folder_of
    monkeypatch.setattr(module, "_folder_of", lambda name: str(careless) if name == "dlhealth_rules" else real(name))
    place.install()
    for path in place.base.joinpath("usr").rglob("*"):
        mode = path.lstat().st_mode
        assert path.is_symlink() or (mode & 0o022 == 0 and mode & 0o444 == 0o444), path
        assert path.is_symlink() or not path.is_dir() or mode & 0o111 == 0o111, path
    assert list(place.prefix.rglob("rule.py"))


def test_it_keeps_to_the_python_that_it_was_made_for(place: Place) -> None:
    """A release upgrade puts another behind /usr/bin/python3, which does not know its packages."""
    place.install()
    python = os.path.realpath("/usr/bin/python3")
    assert os.path.basename(python) != "python3"
    links = [p for p in (place.prefix / "bin").iterdir() if p.is_symlink()]
    assert {os.readlink(p) for p in links} <= {python, os.path.basename(python)}
    said = subprocess.run(
        [place.prefix / "bin/python", "-I", "-c", "import dlhealth.cli, dlhealth_rules; print(dlhealth.__file__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.startswith(str(place.prefix))
    assert (place.prefix / "rescue/txn/__main__.py").exists()


def test_what_was_cut_off_is_replaced_and_all_of_it_is_removed(place: Place) -> None:
    for name in ("new", "old"):
        left = place.prefix.with_name(f"dlhealth.{name}")
        (left / "lib").mkdir(parents=True)
    half = place.base / "etc/apt/apt.conf.d/90dlhealth.dlhealth-new"
    half.parent.mkdir(parents=True)
    half.write_text("half")
    place.install()
    place.install()
    assert not half.exists()
    half.write_text("half")
    place.prefix.with_name("dlhealth.old").mkdir()
    (place.base / "etc/issue.d").mkdir()
    (place.base / "etc/issue.d/90-dlhealth.issue").symlink_to("/run/dlhealth/watch/issue")
    remove(place.said.append)
    assert place.files() == ["var/lib/dlhealth/txn/lock"]
    assert not (place.base / "etc/issue.d").exists()
    assert any(call.startswith("systemctl disable -q dlhealth-recover.service ") for call in place.called)
    remove(place.said.append)


@pytest.mark.parametrize("program", ["systemctl", "systemd-sysusers", "systemd-tmpfiles"])
def test_without_systemd_nothing_is_installed(place: Place, program: str) -> None:
    place.missing.add(program)
    with pytest.raises(NotInstalled, match=f"{program} is not installed"):
        place.install()
    assert place.files() == []


def test_it_is_removed_where_systemd_was_removed_too(place: Place) -> None:
    place.install()
    place.called.clear()
    place.missing.add("systemctl")
    remove(place.said.append)
    assert place.files() == ["var/lib/dlhealth/txn/lock"]
    assert not [call for call in place.called if call.startswith("systemctl")]


def test_where_nothing_is_installed_nothing_is_removed(place: Place) -> None:
    remove(place.said.append)
    assert place.said == ["the service is not installed"]
    assert place.called == []


def test_it_lays_down_the_settings_and_says_what_will_be_repaired(place: Place) -> None:
    place.install()
    settings = place.base / "etc/dlhealth/config.toml"
    assert '#max_risk = "low"' in settings.read_text()
    assert any("repair.max_risk" in said for said in place.said)
    settings.write_text('[repair]\nmax_risk = "none"\n')
    place.install()
    assert settings.read_text() == '[repair]\nmax_risk = "none"\n'


def test_while_a_repair_is_under_way_its_code_stays(place: Place) -> None:
    place.install()
    before = place.files()
    with place.store.locked():
        with pytest.raises(NotInstalled, match="another dlhealth is changing this machine"):
            place.install()
        with pytest.raises(NotInstalled, match="another dlhealth is changing this machine"):
            remove(place.said.append)
    assert place.files() == before


def test_what_it_needs_may_have_been_installed_by_a_setup_py(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As the pip of Debian 12 does it where there is only a source: then files are listed that are not there."""
    packages = tmp_path_factory.mktemp("site-packages")
    described = packages / "old_way-1.0.egg-info"
    described.mkdir()
    (described / "PKG-INFO").write_text("Name: old-way\nVersion: 1.0\n")
    (described / "SOURCES.txt").write_text("LICENSE.txt\nsetup.py\nold_way/__init__.py\n")
    (packages / "old_way").mkdir()
    (packages / "old_way/__init__.py").write_text("")
    monkeypatch.setattr(module, "_needed", lambda name: [PathDistribution(described)])
    place.install()
    assert list(place.prefix.rglob("old_way/__init__.py"))


def test_the_command_is_on_everybodys_path(place: Place) -> None:
    """What dlhealth tells people to type begins with its name alone."""
    place.install()
    assert os.readlink(place.command) == f"{place.prefix}/bin/dlhealth"
    assert os.access(place.prefix / "bin/dlhealth", os.X_OK)
    remove(place.said.append)
    assert not place.command.is_symlink()


def test_a_command_of_the_administrators_own_stays(place: Place) -> None:
    mine = place.base / "opt/dlhealth/bin/dlhealth"
    mine.parent.mkdir(parents=True)
    mine.write_text("")
    place.command.parent.mkdir(parents=True)
    place.command.symlink_to(mine)
    place.install()
    remove(place.said.append)
    assert os.readlink(place.command) == str(mine)


def test_a_command_that_leads_nowhere_is_replaced(place: Place) -> None:
    place.command.parent.mkdir(parents=True)
    place.command.symlink_to("/opt/removed/bin/dlhealth")
    place.install()
    assert os.readlink(place.command) == f"{place.prefix}/bin/dlhealth"
