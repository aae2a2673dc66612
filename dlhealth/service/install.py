"""Installs and removes the service, in its own environment.

The service runs from `PREFIX` with the system's own interpreter, so that it keeps working if the user's Python breaks.
"""

import os
import posixpath
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec

from dlhealth.engine.policy import CONFIG, Policy
from dlhealth.host.exec import find_program, run
from dlhealth.host.root import live_host
from dlhealth.lazy import regex
from dlhealth.service.check import policy_of
from dlhealth.service.watch import FOLDER, REPORT_ONLY
from dlhealth.txn.store import FOLDER as RECORDS
from dlhealth.txn.store import Busy, Store

PREFIX = "/usr/local/lib/dlhealth"
PYTHON = "/usr/bin/python3"
PORTABLE = "portable"
"""A file in the prefix of the interpreter that a portable build brings."""
USER = "dlhealth"
FILES = {
    "dlhealth.service": "/usr/local/lib/systemd/system/dlhealth.service",
    "dlhealth-boot.service": "/usr/local/lib/systemd/system/dlhealth-boot.service",
    "dlhealth-recover.service": "/usr/local/lib/systemd/system/dlhealth-recover.service",
    "dlhealth-repair.socket": "/usr/local/lib/systemd/system/dlhealth-repair.socket",
    "dlhealth-repair.service": "/usr/local/lib/systemd/system/dlhealth-repair.service",
    "dlhealth-metrics.path": "/usr/local/lib/systemd/system/dlhealth-metrics.path",
    "dlhealth-metrics.service": "/usr/local/lib/systemd/system/dlhealth-metrics.service",
    "90-dlhealth.preset": "/usr/local/lib/systemd/system-preset/90-dlhealth.preset",
    "dlhealth.sysusers": "/usr/local/lib/sysusers.d/dlhealth.conf",
    "dlhealth.tmpfiles": "/usr/local/lib/tmpfiles.d/dlhealth.conf",
    "dlhealth.catalog": "/usr/lib/systemd/catalog/dlhealth.catalog",
    "org.dlhealth.policy": "/usr/share/polkit-1/actions/org.dlhealth.policy",
    "dlhealth.hook": f"{PREFIX}.hook",
    "dlhealth.apt": "/etc/apt/apt.conf.d/90dlhealth",
    "dlhealth.kernel": "/etc/kernel/postinst.d/zzz-dlhealth",
    "dlhealth.motd": "/etc/update-motd.d/95-dlhealth",
}
"""Where each file of systemd/ goes."""
PACKAGED = "/usr/lib/systemd/system"
"""Where a package has the units."""
COMMAND = "/usr/local/bin/dlhealth"
"""On everybody's PATH, including root's and sudo's: the commands that dlhealth prints begin with this name."""
_FORMER = ("/usr/local/lib/systemd/system/dlhealth-repair@.service",)
"""Files of earlier versions that this one does not need."""
SCRIPTS = ("dlhealth.hook", "dlhealth.kernel", "dlhealth.motd")
_ENABLED = (
    "dlhealth-recover.service",
    "dlhealth-boot.service",
    "dlhealth-repair.socket",
    "dlhealth.service",
    "dlhealth-metrics.path",
)
_ISSUES = "/etc/issue.d"
_LEFT = ("/run/dlhealth", "/run/dlhealth-repair.sock", f"{_ISSUES}/90-dlhealth.issue")
_ENVIRONMENTS = (PREFIX, f"{PREFIX}.new", f"{PREFIX}.old")
_UNFINISHED = ".dlhealth-new"
_PATIENCE = 30.0
"""Seconds to wait for a running check or a short repair."""
_NAME = regex(r"[A-Za-z0-9._-]+")


POLICY = """\
# What the dlhealth service may do without asking. Each setting shows its
# default; remove the # to change it. Then run: dlhealth config check
# Files in /etc/dlhealth/config.toml.d/ are read after this one.

[repair]
# The highest risk of a repair that needs no question: "none" (report only),
# "low", "medium" or "high".
#max_risk = "low"
# How often the same problem may be repaired within a day before it is left
# to a person.
#max_attempts = 1
# Rules of /etc/dlhealth/rules.d that may repair without a question.
#local_rules = []

[reboot]
# When the machine may reboot to finish a repair, for example "02:00-05:00".
# Empty: never.
#hours = ""

[rules]
# Rules that raise no alert and are never repaired: ["nvcc-not-in-path"].
#ignore = []

[watch]
# Users whose logins are watched. Empty: all users.
#users = []
"""
"""The configuration file that an installation creates if there is none."""
_PROGRAMS = ("systemctl", "systemd-sysusers", "systemd-tmpfiles")
"""Programs of systemd that the installation runs. Some containers lack them."""


class NotInstalled(Exception):
    """The service could not be installed or removed; the message says why."""


def install(say: Callable[[str], None]) -> None:
    """Install the service or replace an older one, and start it if systemd runs. Raises NotInstalled."""
    _check_no_package()
    _check_systemd()
    if not _portable():
        _check_python()
    os.umask(0o022)  # the service's user must be able to read it, whatever the administrator's own umask is
    say(f"copying dlhealth to {PREFIX}")
    with _nothing_under_way():
        _make_environment()
    sources = _folder_of("dlhealth_systemd")
    for name, path in FILES.items():
        _write(f"{sources}/{name}", path, 0o755 if name in SCRIPTS else 0o644)
    for path in _FORMER:
        _remove(path)
    _link_command()
    say("creating the user, enabling the units")
    _must("systemd-sysusers", FILES["dlhealth.sysusers"])
    _must("systemd-tmpfiles", "--create", FILES["dlhealth.tmpfiles"])
    run(["journalctl", "--update-catalog"], timeout=30)  # only the explanations depend on it
    _lay_down_policy()
    _report_only()
    if running():
        _must("systemctl", "daemon-reload")
    _must("systemctl", "enable", "-q", *_ENABLED)
    if running():
        # systemd does not restart a socket while its service runs.
        _must("systemctl", "stop", "dlhealth-repair.socket", "dlhealth-repair.service")
        _must("systemctl", "restart", "dlhealth-repair.socket", "dlhealth.service", "dlhealth-metrics.path")
        say("dlhealth.service now watches this machine. To see what it finds: dlhealth status")
    else:
        say("the service starts at the next boot of this machine")
    for line in policy_in_words(*policy_of(live_host())):
        say(line)


def policy_in_words(policy: Policy, problem: str) -> Iterator[str]:
    """What the service will repair by itself, and how to change that."""
    if problem:
        yield problem
    elif policy.max_risk is None:
        yield "the service repairs nothing by itself"
    else:
        risk = policy.max_risk.value
        yield f"the first check only reports; later ones repair by themselves with {risk} risk{' or less' if risk != 'low' else ''}"
    yield f'to change that: repair.max_risk ("none", "low", "medium" or "high") in {CONFIG}'


def _lay_down_policy() -> None:
    if not os.path.lexists(CONFIG):
        os.makedirs(posixpath.dirname(CONFIG), mode=0o755, exist_ok=True)
        with open(CONFIG, "x", encoding="utf-8") as file:
            file.write(POLICY)


def _take_up_policy() -> None:
    """Remove the settings if nobody changed them."""
    with suppress(OSError):
        with open(CONFIG, encoding="utf-8") as file:
            unchanged = file.read(len(POLICY) + 1) == POLICY
        if unchanged:
            os.unlink(CONFIG)
            os.rmdir(posixpath.dirname(CONFIG))


def _report_only() -> None:
    """Make the first check repair nothing. The watcher owns the directory: no link in it is followed."""
    with suppress(FileExistsError, FileNotFoundError):
        os.close(os.open(f"{FOLDER}/{REPORT_ONLY}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644))


def remove(say: Callable[[str], None]) -> None:
    """Remove the service, but not /var/lib/dlhealth, so that repairs can still be undone. Raises NotInstalled."""
    _check_no_package()
    if not any(map(os.path.lexists, (*FILES.values(), *_ENVIRONMENTS))):
        say("the service is not installed")
        return
    with _nothing_under_way():
        _remove_files(say)
    if running():
        _must("systemctl", "daemon-reload")
    run(["journalctl", "--update-catalog"], timeout=30)
    if run(["getent", "passwd", USER], timeout=10).status == 0:
        _must("userdel", USER)
    say(f"removed {PREFIX}{'; /var/lib/dlhealth keeps the records of repairs' * os.path.isdir(RECORDS)}")


def _remove_files(say: Callable[[str], None]) -> None:
    there = [unit for unit in _ENABLED if os.path.exists(FILES[unit])]
    if there and find_program("systemctl"):  # it may have been removed
        _must("systemctl", "disable", "-q", *(["--now"] if running() else []), *there)
        if running():
            _must("systemctl", "stop", "dlhealth-repair.service")
    for path in FILES.values():
        _remove(f"{path}{_UNFINISHED}")
        if os.path.lexists(path):
            os.unlink(path)
            say(f"removed {path}")
    if os.path.islink(COMMAND) and os.readlink(COMMAND).startswith(f"{PREFIX}/"):
        os.unlink(COMMAND)
    _take_up_policy()
    for path in (*_ENVIRONMENTS, *_LEFT, *_FORMER):
        _remove(path)
    for folder in {posixpath.dirname(p) for p in FILES.values() if p.startswith("/usr/local/")}:
        _remove_empty(folder)
    with suppress(OSError):  # not empty
        os.rmdir(_ISSUES)


@contextmanager
def _nothing_under_way() -> Iterator[None]:
    """Keep repairs from beginning, and wait for a running one: it must finish with the code that it began with."""
    store = Store("/")
    deadline = time.monotonic() + _PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(store.locked())
                break
            except Busy as busy:
                if time.monotonic() > deadline:
                    raise NotInstalled(store.explain(busy)) from busy
                time.sleep(0.2)
        yield


def installed_units() -> list[str]:
    """The installed units that start at boot."""
    return [u for u in _ENABLED if os.path.exists(FILES[u]) or os.path.exists(f"{PACKAGED}/{u}")]


def _check_no_package() -> None:
    """Two copies of the service would both check after each change of packages."""
    if os.path.exists(f"{PACKAGED}/dlhealth.service"):
        raise NotInstalled(
            "the package dlhealth has installed the service, and apt upgrades and removes it: apt remove dlhealth. "
            "To check it: dlhealth service status"
        )


def _check_systemd() -> None:
    missing = [program for program in _PROGRAMS if not find_program(program)]
    if missing:
        raise NotInstalled(f"the service needs systemd: {missing[0]} is not installed. Nothing was changed")


def running() -> bool:
    """Whether systemd is this machine's init (sd_booted(3))."""
    return os.path.isdir("/run/systemd/system")


def _link_command() -> None:
    """Create the command, unless one exists that works: the administrator installed it."""
    if not os.path.exists(COMMAND):
        os.makedirs(posixpath.dirname(COMMAND), exist_ok=True)
        _remove(COMMAND)
        os.symlink(f"{PREFIX}/bin/dlhealth", COMMAND)


def _check_python() -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    said = run([PYTHON, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], timeout=20)
    if said.status != 0:
        raise NotInstalled(
            f"the service needs {PYTHON}, which does not run: {said.problem or said.stderr.strip()[-200:]}"
        )
    if said.stdout.strip() != version:
        raise NotInstalled(
            f"the service runs with {PYTHON}, which is Python {said.stdout.strip()}, but this dlhealth is installed for "
            f"Python {version}: reinstall dlhealth with {PYTHON} -m venv, then run this command again from there"
        )


def _make_environment() -> None:
    _, new, old = _ENVIRONMENTS
    for left in (new, old):
        _remove(left)
    os.makedirs(posixpath.dirname(PREFIX), exist_ok=True)
    rescue = _copy_portable(new) if _portable() else _make_from_the_system(new)
    _keep_others_from_writing(f"{new}/lib")
    os.symlink(rescue, f"{new}/rescue")
    with open(f"{new}/bin/dlhealth", "w") as script:
        script.write(f'#!/bin/sh\nexec {PREFIX}/bin/python -I -m dlhealth "$@"\n')
    os.chmod(script.name, 0o755)  # noqa: S103  (a program)
    if os.path.exists(PREFIX):
        os.rename(PREFIX, old)
    os.rename(new, PREFIX)
    _remove(old)


def _portable() -> bool:
    """Whether this interpreter came with dlhealth: then the service gets a copy of it, and needs none of the system."""
    return os.path.exists(f"{sys.prefix}/{PORTABLE}")


def _copy_portable(new: str) -> str:
    """Copy the interpreter and all that it brings. Returns where dlhealth is in it."""
    shutil.copytree(sys.prefix, new, symlinks=True)
    os.chmod(new, 0o755)  # noqa: S103  (as all below /usr)
    return posixpath.relpath(_folder_of("dlhealth"), sys.prefix)


def _make_from_the_system(new: str) -> str:
    """Make an environment of the system's Python. Returns where dlhealth is in it."""
    # Use the versioned name: the packages are in a directory of that version, and a release upgrade keeps the old Python
    # while it is needed.
    _must(os.path.realpath(PYTHON), "-I", "-m", "venv", "--without-pip", new)
    library = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    for package in ("dlhealth", "dlhealth_rules", "dlhealth_systemd"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(_folder_of(package), f"{new}/{library}/{package}", ignore=ignore)
    for needed in _needed("dlhealth"):
        _copy_distribution(needed, f"{new}/{library}")
    _must(f"{new}/bin/python", "-I", "-m", "compileall", "-q", f"{new}/lib")
    return f"{library}/dlhealth"


def _keep_others_from_writing(folder: str) -> None:
    """Set the modes, whatever those of the copied installation were: root runs these files."""
    for parent, folders, files in os.walk(folder):
        for name in folders:
            os.chmod(f"{parent}/{name}", 0o755)  # noqa: S103  (as all below /usr)
        for name in files:
            os.chmod(f"{parent}/{name}", 0o644)


def _folder_of(package: str) -> str:
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise NotInstalled(f"this installation of dlhealth is incomplete: {package} is missing. Reinstall dlhealth")
    return places[0]


def _needed(name: str) -> Iterator[Distribution]:
    """All installed distributions that a distribution needs, each once."""
    seen, waiting = {name}, [name]
    while waiting:
        for line in distribution(waiting.pop()).requires or ():
            match = _NAME.match(line)
            if match is None or "extra ==" in line or match[0] in seen:
                continue
            seen.add(match[0])
            try:
                yield distribution(match[0])
            except PackageNotFoundError:
                continue  # for another version of Python
            waiting.append(match[0])


def _copy_distribution(needed: Distribution, library: str) -> None:
    for file in needed.files or ():
        if ".." in file.parts or "__pycache__" in file.parts:
            continue  # programs: the service calls none
        source, target = str(file.locate()), f"{library}/{file}"
        if not os.path.exists(source):
            continue  # setup.py lists source files that it did not install
        os.makedirs(posixpath.dirname(target), exist_ok=True)
        shutil.copyfile(source, target)


def _write(source: str, path: str, mode: int) -> None:
    with open(source) as file:
        text = (
            file.read()
            .replace("@PREFIX@", PREFIX)
            .replace("@PYTHON@", f"{PREFIX}/bin/python" if _portable() else PYTHON)
        )
    os.makedirs(posixpath.dirname(path), exist_ok=True)
    new = f"{path}{_UNFINISHED}"
    with open(new, "w") as file:
        file.write(text)
    os.chmod(new, mode)
    os.replace(new, path)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _remove_empty(folder: str) -> None:
    while folder != "/usr/local/lib":
        try:
            os.rmdir(folder)
        except OSError:
            return  # not empty
        folder = posixpath.dirname(folder)


def _must(program: str, *arguments: str) -> None:
    done = run([program, *arguments], timeout=300)
    if done.status != 0:
        what = done.problem or done.stderr.strip() or f"status {done.status}"
        raise NotInstalled(f"{find_program(program) or program} {' '.join(arguments)}: {what}")
