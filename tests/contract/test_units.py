"""What is installed into the system: units that systemd accepts, scripts that a shell accepts, nothing forgotten."""

import json
import os
import pty
import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dlhealth.cli.common import _STATUS
from dlhealth.host import alert as journal
from dlhealth.service import request
from dlhealth.service.answer import WATCHER
from dlhealth.service.install import _ENABLED, FILES, PREFIX, PYTHON, SCRIPTS
from dlhealth.service.watch import FOLDER, PROMPTS

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNITS = sorted(n for n in FILES if n.endswith((".service", ".socket", ".path")))
analyze = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(analyze is None, reason="systemd-analyze is not installed")


class Unit(dict[str, dict[str, list[str]]]):
    """Sections with settings; a setting may be given several times."""

    def __init__(self, name: str) -> None:
        super().__init__()
        section: dict[str, list[str]] = {}
        for line in (SYSTEMD / name).read_text().splitlines():
            if line.startswith("["):
                section = self.setdefault(line.strip("[]"), {})
            elif line and not line.startswith("#"):
                key, equals, value = line.partition("=")
                assert equals, line
                section.setdefault(key, []).append(value)

    def words(self, section: str, key: str) -> list[str]:
        return [word for value in self[section].get(key, []) for word in value.split()]


def filled(name: str, prefix: str) -> str:
    return (SYSTEMD / name).read_text().replace("@PREFIX@", prefix).replace("@PYTHON@", PYTHON)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as installed, in an environment whose program exists."""
    (tmp_path / "prefix/bin").mkdir(parents=True)
    (tmp_path / "prefix/bin/python").symlink_to("/bin/true")
    for name in UNITS:
        (tmp_path / name).write_text(filled(name, f"{tmp_path}/prefix"))
    return tmp_path


def verify(folder: Path) -> tuple[int, str]:
    words = [str(analyze), "verify", "--man=no", "--recursive-errors=no", *(str(folder / name) for name in UNITS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, "\n".join(
        line for line in done.stderr.splitlines() if str(folder) in line or "dlhealth" in line
    )


@needs_systemd
def test_systemd_accepts_every_unit(installed: Path) -> None:
    assert verify(installed) == (0, "")


@needs_systemd
def test_systemd_would_have_complained(installed: Path) -> None:
    unit = installed / "dlhealth.service"
    unit.write_text(unit.read_text().replace("ProtectClock=", "ProtektClock="))
    assert "ProtektClock" in verify(installed)[1]
    (installed / "prefix/bin/python").unlink()
    assert verify(installed)[0] != 0


@needs_systemd
def test_the_watcher_is_locked_in(installed: Path) -> None:
    words = [
        str(analyze),
        "security",
        "--offline=yes",
        "--json=short",
        "--threshold=20",
        str(installed / "dlhealth.service"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    exposed = [e for e in json.loads(done.stdout) if not e["set"] and float(e["exposure"] or 0) >= 0.2]
    assert done.returncode == 0, exposed


DISPLAY_MANAGERS = {
    "none": "",
    "gdm3": "Conflicts=getty@tty1.service\nAfter=getty@tty1.service plymouth-start.service systemd-user-sessions.service\n",
    "lightdm": "Conflicts=plymouth-quit.service\nAfter=systemd-user-sessions.service plymouth-quit.service\n",
    "sddm": "After=systemd-user-sessions.service getty@tty1.service plymouth-quit.service systemd-logind.service\n",
}


def boot_of(installed: Path, manager: str, more: str = "") -> str:
    """What systemd says of starting graphical.target with the units enabled, beside those of this machine."""
    for name in (n for n in _ENABLED if n in UNITS):
        for target in Unit(name).words("Install", "WantedBy"):
            (installed / f"{target}.wants").mkdir(exist_ok=True)
            (installed / f"{target}.wants" / name).symlink_to(installed / name)
    if manager != "none":
        text = f"[Unit]\n{DISPLAY_MANAGERS[manager]}{more}[Service]\nExecStart=/bin/true\n"
        (installed / "display-manager.service").write_text(text)
        (installed / "graphical.target.wants/display-manager.service").symlink_to(installed / "display-manager.service")
    path = f"{installed}:/usr/lib/systemd/system"
    words = [str(analyze), "verify", "--man=no", "graphical.target"]
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": path}
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=environment)
    return "\n".join(line for line in done.stderr.splitlines() if "cycle" in line or "dlhealth" in line)


@needs_systemd
@pytest.mark.parametrize("manager", DISPLAY_MANAGERS)
def test_nothing_waits_for_itself(installed: Path, manager: str) -> None:
    assert boot_of(installed, manager) == ""


@needs_systemd
def test_systemd_would_have_found_what_waits_for_itself(installed: Path) -> None:
    assert "ordering cycle" in boot_of(installed, "lightdm", "Before=dlhealth-recover.service\n")


# What the units say to each other.


def test_a_repair_that_was_cut_off_is_ended_by_the_systems_own_python_before_all_else() -> None:
    unit = Unit("dlhealth-recover.service")
    (start,) = unit["Service"]["ExecStart"]
    assert start.startswith("-@PYTHON@ -I -S @PREFIX@/rescue/txn/__main__.py recover"), "it may fail the boot"
    assert {"dlhealth-boot.service", "display-manager.service"} <= set(unit.words("Unit", "Before"))
    assert unit["Unit"]["ConditionPathExists"] == ["/var/lib/dlhealth/txn/active"]
    assert int(unit["Unit"]["JobRunningTimeoutSec"][0]) <= 600, "it may hold up the boot"
    assert unit["Service"]["TimeoutStartSec"] == ["infinity"], "it may be killed in the middle of dpkg"


@pytest.mark.parametrize("name", ["dlhealth-recover.service", "dlhealth-boot.service", "dlhealth-repair.service"])
def test_who_stops_a_repair_does_not_kill_its_dpkg(name: str) -> None:
    assert Unit(name)["Service"]["KillMode"] == ["mixed"]


def test_the_check_at_boot_comes_before_the_login_screen_and_does_not_keep_it_waiting() -> None:
    unit = Unit("dlhealth-boot.service")
    assert "display-manager.service" in unit.words("Unit", "Before")
    assert {"dlhealth-recover.service", "local-fs.target"} <= set(unit.words("Unit", "After"))
    assert unit["Service"]["Type"] == ["oneshot"]
    assert int(unit["Service"]["TimeoutStartSec"][0]) <= 30
    verdicts = {str(int(status)) for status in _STATUS.values()} - {"0"}
    assert set(unit.words("Service", "SuccessExitStatus")) == verdicts, "no verdict is a failed unit"
    # Nothing may need it: a check that fails must not take the login screen along.
    others = [Unit(name) for name in UNITS]
    needed = [w for u in others for kind in ("Requires", "BindsTo", "Requisite") for w in u.words("Unit", kind)]
    assert not [n for n in needed if n.startswith("dlhealth")]


@pytest.mark.parametrize("name", ["dlhealth-recover.service", "dlhealth-boot.service"])
def test_units_of_the_early_boot_end_with_the_machine(name: str) -> None:
    unit = Unit(name)
    assert unit["Unit"]["DefaultDependencies"] == ["no"]
    assert "shutdown.target" in unit.words("Unit", "Conflicts")
    assert "shutdown.target" in unit.words("Unit", "Before")
    assert not set(unit.words("Unit", "After")) & {"multi-user.target", "graphical.target", "network-online.target"}


def test_the_check_at_boot_may_ask_for_more_time() -> None:
    assert Unit("dlhealth-boot.service")["Service"].get("NotifyAccess") in (["main"], ["all"])


def test_nobody_can_have_the_repair_socket_closed_by_asking_often() -> None:
    socket = Unit("dlhealth-repair.socket")["Socket"]
    assert socket["SocketMode"] == ["0660"] or socket["TriggerLimitIntervalSec"] == ["0"]


def test_the_watcher_is_nobody_special_and_says_that_it_lives() -> None:
    service = Unit("dlhealth.service")["Service"]
    assert service["User"] == [WATCHER]
    assert service["Type"] == ["notify"]
    assert int(service["WatchdogSec"][0]) >= 30  # a journal line a minute costs nobody battery
    assert service["Restart"] == ["always"]
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == ["CAP_DAC_READ_SEARCH CAP_SYSLOG"]
    assert f"/run/{service['RuntimeDirectory'][0]}" == FOLDER
    assert service["SupplementaryGroups"] == ["systemd-journal"]
    users = (SYSTEMD / "dlhealth.sysusers").read_text()
    assert re.search(rf"^u\s+{WATCHER}\s", users, re.MULTILINE)


def test_a_driver_that_is_loaded_later_may_be_asked_too() -> None:
    # systemd looks a name up in /proc/devices when it starts the service, and a path on the disk; a number is a number.
    for device in Unit("dlhealth.service")["Service"]["DeviceAllow"]:
        assert re.match(r"(char-\d+ rw|/dev/kmsg r)$", device), device


def test_the_watcher_leaves_nothing_at_which_root_hangs_or_that_leads_elsewhere() -> None:
    (taken,) = [w[1:] for w in Unit("dlhealth.service")["Service"]["SystemCallFilter"] if w.startswith("~")]
    assert {"symlink", "symlinkat", "mknod", "mknodat", "@privileged", "@resources"} == set(taken.split())


def test_memory_that_one_look_or_compiler_took_ends_no_more_than_that() -> None:
    for name in UNITS:
        if name.endswith(".service"):
            assert Unit(name)["Service"].get("OOMPolicy") == ["continue"], name


@pytest.mark.parametrize("name", ["dlhealth-recover.service", "dlhealth-repair.service"])
def test_who_is_stopped_has_the_time_to_take_a_driver_back(name: str) -> None:
    # systemd's default is 90 seconds; then dpkg is killed with all else.
    assert int(Unit(name)["Service"]["TimeoutStopSec"][0]) >= 900


def test_no_text_console_waits_for_a_repair_at_boot() -> None:
    """Whom a repair keeps from the login screen for minutes still has a prompt."""
    for name in UNITS:
        assert not [u for u in Unit(name)["Unit"].get("Before", []) if "getty" in u], name


def test_a_kernel_is_looked_at_when_the_boot_loader_knows_it() -> None:
    # run-parts goes by the bytes of the names.
    assert all(os.path.basename(FILES["dlhealth.kernel"]) > name for name in ("zz-update-grub", "zz-systemd-boot"))


def test_one_process_decides_who_is_let_in() -> None:
    socket, service = Unit("dlhealth-repair.socket"), Unit("dlhealth-repair.service")
    assert socket["Socket"]["ListenStream"] == [request.SOCKET]
    assert not {"Accept", "MaxConnections", "MaxConnectionsPerSource"} & socket["Socket"].keys()
    assert service["Service"]["ExecStart"] == ["@PREFIX@/bin/python -I -m dlhealth.service.door"]
    assert service["Unit"]["StartLimitIntervalSec"] == ["0"], "a user could have it refused to everybody"
    assert "User" not in service["Service"]


def test_no_program_of_a_unit_sees_the_environment_or_the_users_packages() -> None:
    for name in UNITS:
        for start in Unit(name).get("Service", {}).get("ExecStart", []):
            assert re.match(r"-?(@PREFIX@/bin/python|@PYTHON@) -I ", start), name


def test_the_journal_and_the_sign_are_where_the_system_looks() -> None:
    assert journal.SOCKET == "/run/systemd/journal/socket"
    assert f"{FOLDER}/issue" in (SYSTEMD / "dlhealth.motd").read_text()


asks_agetty = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("agetty"), reason="mounts, and asks agetty")


def on_a_text_console(script: str) -> list[bytes]:
    """The lines that a script shows on a terminal of a machine with an /etc/issue, as Debian's and Ubuntu's are, and
    with what dlhealth installs; the agetty is the one that is installed here."""
    given = (
        "set -e; mount -t tmpfs none /run; mount -t tmpfs none /etc; echo 'Debian GNU/Linux' > /etc/issue\n"
        "printf 'root:x:0:0::/root:/bin/sh\\ndlhealth:x:999:999::/:/bin/sh\\n' > /etc/passwd\n"
        "printf 'root:x:0:\\ndlhealth:x:999:\\n' > /etc/group\n"
        f"systemd-tmpfiles --create {SYSTEMD}/dlhealth.tmpfiles 2>/dev/null || true\n"
        f"mkdir -p {FOLDER}; {script}\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("unshare", ["unshare", "-m", "sh", "-c", given])
    said = b""
    with suppress(OSError):  # the terminal is gone when its program has ended
        while chunk := os.read(terminal, 4096):
            said += chunk
    os.close(terminal)
    os.waitpid(pid, 0)
    return said.split(b"\r\n")


@asks_agetty
def test_a_text_console_shows_the_sign() -> None:
    said = on_a_text_console(f"echo 'sudo dlhealth fix' > {FOLDER}/issue; agetty --show-issue")
    assert said[:2] == [b"Debian GNU/Linux", b"sudo dlhealth fix"], said


@asks_agetty
def test_a_prompt_that_is_there_already_gets_the_sign() -> None:
    found = f"sleep 2; echo 'sudo dlhealth fix' > {FOLDER}/issue; setpriv --reuid=999 --regid=999 --clear-groups touch {PROMPTS}"
    said = on_a_text_console(f"({found}; sleep 4; kill $$) & exec agetty --noclear - 38400 vt100")
    assert said.count(b"Debian GNU/Linux") == 2, said
    assert said.count(b"sudo dlhealth fix") == 1, said


# What is put where.


def test_every_file_is_installed_and_every_installed_file_is_there() -> None:
    assert sorted(p.name for p in SYSTEMD.iterdir() if p.is_file()) == sorted(FILES)
    assert set(SCRIPTS) < set(FILES)
    assert set(_ENABLED) < set(FILES)
    assert len(set(FILES.values())) == len(FILES)


def test_what_starts_with_the_machine_says_so() -> None:
    preset = re.findall(r"^enable (\S+)$", (SYSTEMD / "90-dlhealth.preset").read_text(), re.MULTILINE)
    assert sorted(preset) == sorted(_ENABLED)
    for name in UNITS:
        assert ("Install" in Unit(name)) is (name in _ENABLED), name


def test_polkits_actions_are_those_that_are_asked_for() -> None:
    from xml.etree import ElementTree

    text = (SYSTEMD / "org.dlhealth.policy").read_text()
    actions = {a.attrib["id"]: a for a in ElementTree.fromstring(text).iter("action")}
    assert set(actions) == {
        f"org.dlhealth.{name}" for name in ("diagnose", "repair-low", "repair-medium", "repair-high", "undo")
    }
    for id, action in actions.items():
        for who in ("allow_any", "allow_inactive", "allow_active"):
            allowed = action.findtext(f"defaults/{who}")
            # Nobody changes the machine without a password; only who sits at it may look without one.
            assert allowed in ("auth_admin", "auth_admin_keep") or (id, who) == (
                "org.dlhealth.diagnose",
                "allow_active",
            )


# Scripts that others call.


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_shell_accepts_every_script(shell: str, name: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    assert (SYSTEMD / name).read_text().startswith("#!/bin/sh\n")
    done = subprocess.run([shell, "-n", SYSTEMD / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def hooks(tmp_path: Path) -> Path:
    """The scripts with another prefix, and another note of when it was looked."""
    for name in (*SCRIPTS, "dlhealth.apt"):
        text = (SYSTEMD / name).read_text().replace("@PREFIX@", f"{tmp_path}/dlhealth")
        text = text.replace("/run/dlhealth", f"{tmp_path}/run")
        target = tmp_path / ("dlhealth.hook" if name == "dlhealth.hook" else name)
        target.write_text(re.sub(r"(?<= )(/(?:boot|etc|lib|var|usr)/?[\w./*-]*)(?= )", rf"{tmp_path}/root\1", text))
        target.chmod(0o755)
    (tmp_path / "run").mkdir()
    for folder in (
        "boot",
        "etc/modprobe.d",
        "lib/modules/6.1/updates",
        "var/lib/dkms",
        "usr/src",
        "etc/systemd/system",
        "etc/X11",
    ):
        (tmp_path / "root" / folder).mkdir(parents=True)
    return tmp_path


def install_program(hooks: Path, script: str) -> None:
    (hooks / "dlhealth/bin").mkdir(parents=True)
    (hooks / "dlhealth/bin/python").write_text(f'#!/bin/sh\necho "$*" >> {hooks}/calls\n{script}\n')
    (hooks / "dlhealth/bin/python").chmod(0o755)


def calls(hooks: Path) -> list[str]:
    return (hooks / "calls").read_text().splitlines() if (hooks / "calls").exists() else []


def call(hooks: Path, name: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [hooks / name], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_dlhealth_a_script_says_nothing_and_succeeds(hooks: Path, name: str) -> None:
    assert call(hooks, name) == (0, "", "")
    if name != "dlhealth.hook":
        (hooks / "dlhealth.hook").unlink()
        assert call(hooks, name) == (0, "", "")


def test_when_a_release_upgrade_took_its_python_away_the_hook_says_so_and_systemd_does_not_try_for_ever(
    hooks: Path,
) -> None:
    (hooks / "dlhealth/bin").mkdir(parents=True)
    (hooks / "dlhealth/bin/python").symlink_to("/usr/bin/python3.0")
    status, out, err = call(hooks, "dlhealth.hook")
    assert (status, out, len(err.splitlines())) == (0, "", 1)
    assert "dlhealth service install" in err
    for name in ("dlhealth.service", "dlhealth-boot.service"):
        assert Unit(name)["Unit"]["ConditionFileIsExecutable"] == ["@PREFIX@/bin/python"]


@pytest.mark.parametrize("script", ["exit 3", "exit 70", "kill -9 $$", "exit 0"])
def test_whatever_the_check_says_who_called_goes_on(hooks: Path, script: str) -> None:
    install_program(hooks, script)
    assert call(hooks, "dlhealth.kernel", DPKG_MAINTSCRIPT_PACKAGE="")[0] == 0
    assert calls(hooks) == ["-I -m dlhealth boot-check --next"]


def test_a_kernel_of_a_package_is_looked_at_when_all_is_done(hooks: Path) -> None:
    install_program(hooks, "exit 3")
    assert call(hooks, "dlhealth.kernel", DPKG_MAINTSCRIPT_PACKAGE="linux-image-6.1") == (0, "", "")
    assert calls(hooks) == []


def test_apt_runs_the_hook_and_never_fails(hooks: Path) -> None:
    install_program(hooks, "exit 3")
    text = (hooks / "dlhealth.apt").read_text()
    (command,) = re.findall(r'^DPkg::Post-Invoke \{ "([^"]+)"; \};$', text, re.MULTILINE)
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
    assert len(calls(hooks)) == 1
    (hooks / "dlhealth.hook").unlink()
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0


def test_the_hook_looks_only_when_something_has_changed(hooks: Path) -> None:
    install_program(hooks, "exit 0")
    note = hooks / "run/boot.json"
    long_ago = 1_600_000_000
    for path in sorted((hooks / "root").rglob("*"), reverse=True):
        os.utime(path, (long_ago, long_ago))
    time.sleep(0.05)
    note.write_text("{}")
    assert call(hooks, "dlhealth.hook") == (0, "", "")
    assert calls(hooks) == []
    os.utime(note, (long_ago + 10, long_ago + 10))
    (hooks / "root/lib/modules/6.1/updates/dkms").mkdir()
    assert call(hooks, "dlhealth.hook") == (0, "", "")
    assert len(calls(hooks)) == 1
    assert note.stat().st_mtime > long_ago + 10
    assert call(hooks, "dlhealth.hook") == (0, "", "")
    assert len(calls(hooks)) == 1, "the same change twice"


@pytest.mark.parametrize("days", [1, 400])
def test_the_hook_looks_also_when_the_clock_was_set_back(hooks: Path, days: int) -> None:
    install_program(hooks, "exit 0")
    note = hooks / "run/boot.json"
    note.write_text("{}")
    os.utime(note, (time.time() + days * 86400,) * 2)
    (hooks / "root/lib/modules/6.1/updates/dkms").mkdir()
    call(hooks, "dlhealth.hook")
    assert len(calls(hooks)) == 1
    assert note.stat().st_mtime <= time.time()
    call(hooks, "dlhealth.hook")
    assert len(calls(hooks)) == 1


@pytest.mark.parametrize("link", ["etc/systemd/system/display-manager.service", "etc/X11/default-display-manager"])
def test_the_hook_sees_that_the_display_manager_is_another_or_gone(hooks: Path, link: str) -> None:
    install_program(hooks, "exit 0")
    (hooks / "root" / link).symlink_to("/lib/systemd/system/gdm3.service")
    time.sleep(0.05)
    (hooks / "run/boot.json").write_text("{}")
    call(hooks, "dlhealth.hook")
    assert len(calls(hooks)) == 0
    time.sleep(0.05)
    (hooks / "root" / link).unlink()
    call(hooks, "dlhealth.hook")
    assert len(calls(hooks)) == 1


def test_the_hook_sees_a_file_whose_time_is_that_of_its_package(hooks: Path) -> None:
    install_program(hooks, "exit 0")
    library = hooks / "root/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.570.86"
    library.parent.mkdir(parents=True)
    for path in sorted((hooks / "root").rglob("*"), reverse=True):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    (hooks / "run/boot.json").write_text("{}")
    os.utime(hooks / "run/boot.json", (os.stat(hooks / "root/boot").st_ctime + 0.01,) * 2)
    time.sleep(0.05)
    library.write_text("new")
    os.utime(library, (1_600_000_000, 1_600_000_000))
    os.utime(library.parent, (1_600_000_000, 1_600_000_000))
    call(hooks, "dlhealth.hook")
    assert len(calls(hooks)) == 1


def test_the_sign_is_shown_after_a_login_too(hooks: Path) -> None:
    (hooks / "run/watch").mkdir()
    (hooks / "run/watch/issue").write_text("dlhealth: this machine has a problem.\n")
    assert call(hooks, "dlhealth.motd") == (0, "dlhealth: this machine has a problem.\n", "")


def test_nobody_waits_at_the_sign_when_it_is_no_file(hooks: Path) -> None:
    (hooks / "run/watch").mkdir()
    sign = hooks / "run/watch/issue"
    os.mkfifo(sign)
    assert call(hooks, "dlhealth.motd") == (0, "", "")
    sign.unlink()
    (hooks / "secret").write_text("root's")
    sign.symlink_to(hooks / "secret")
    assert call(hooks, "dlhealth.motd") == (0, "", "")
    sign.unlink()
    sign.write_text("x" * 1_000_000)
    assert len(call(hooks, "dlhealth.motd")[1]) == 4096


def test_the_prefix_is_nowhere_else() -> None:
    for name in FILES:
        assert PREFIX not in (SYSTEMD / name).read_text(), name


def test_files_of_others_formats() -> None:
    for name in ("dlhealth.sysusers", "dlhealth.tmpfiles"):
        for line in (SYSTEMD / name).read_text().splitlines():
            assert line.startswith("#") or re.match(r"^[a-zA-Z]\+? +\S+ ", line), line
