"""On the start-up files that the distributions ship, every login is known and nothing is wrong.

Debian's files come from its packages, which apt-get downloads when the test runs; they are read and never run, and kept
in $DLHEALTH_TEST_CACHE or ~/.cache/dlhealth-tests. Ubuntu's are samples of the same form.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dlhealth.host.account import Account
from dlhealth.host.root import RootHost
from dlhealth.probes.login.environment import Environments
from dlhealth.probes.login.users import Users
from dlhealth.testing import Machine

CACHE = Path(os.environ.get("DLHEALTH_TEST_CACHE", "~/.cache/dlhealth-tests")).expanduser()
MIRROR = "http://deb.debian.org/debian"
SHELLS = ("/bin/bash", "/bin/zsh", "/usr/bin/fish", "/bin/tcsh", "/bin/dash")
MANAGERS = ("", "gdm3", "lightdm", "sddm")
PACKAGES = """
    base-files bash zsh-common fish-common tcsh csh login login.defs libpam-runtime im-config byobu lmod
    environment-modules libvte-2.91-common flatpak snapd cloud-init gawk x11-common gdm3 lightdm sddm gnome-session-common
    at-spi2-core libatk-adaptor dbus-x11 dbus-user-session gpg-agent xfce4-session mate-session-manager
    cinnamon-session-common numlockx libxapp-gtk3-module pyenv vcstool podman-docker grc safe-rm imwheel qt5ct xbrlapi
    libvdpau-va-gl1 undistract-me debian-mate-default-settings vala-panel-appmenu-common osc systemd
""".split()  # noqa: SIM905
KEPT = ("./etc/*", "./usr/share/base-files/*", "./usr/share/im-config/*", "./usr/share/modules/*", "./usr/share/lmod/*",
        "./usr/lib/environment.d/*", "./usr/share/fish/*", "./usr/lib/byobu/*")  # fmt: skip
PROGRAMS = """
    env ls id cat tput dircolors lesspipe locale locale-check gawk byobu flatpak snap gpgconf systemctl tty xrdb im-launch ps
    basename dirname sed grep which uname hostname run-parts bash zsh fish tcsh dash expr pyenv
""".split()  # noqa: SIM905


def apt(work: Path, program: str, *arguments: str) -> str:
    """apt with a state of its own; skips the test where that is not possible."""
    options = {
        "Dir::State": work / "state", "Dir::State::lists": work / "lists", "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache", "Dir::Etc::sourcelist": work / "sources.list", "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::main": "/dev/null", "Dir::Etc::parts": "/dev/null", "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root", "Acquire::Languages": "none", "Acquire::Retries": "0", "Acquire::http::Timeout": "10",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    try:
        done = subprocess.run(
            [program, "-q", *words, *arguments], cwd=work, capture_output=True, text=True, check=True, timeout=300
        )
    except (OSError, subprocess.SubprocessError) as problem:
        pytest.skip(f"the packages of Debian can't be downloaded here: {problem}")
    return done.stdout


@pytest.fixture(params=["bullseye", "bookworm", "trixie", "sid"])
def stock(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A root with the start-up files of all these packages of one release."""
    files = CACHE / "startup-files" / request.param
    if not files.exists():
        work = tmp_path / "apt"
        for folder in ("state", "lists/partial", "cache/archives/partial"):
            (work / folder).mkdir(parents=True)
        (work / "status").touch()
        (work / "sources.list").write_text(f"deb [trusted=yes] {MIRROR} {request.param} main\n")
        apt(work, "apt-get", "update")
        known = set(apt(work, "apt-cache", "pkgnames").split())
        apt(work, "apt-get", "download", *(p for p in PACKAGES if p in known))
        made = tmp_path / "made"
        made.mkdir()
        for package in sorted(work.glob("*.deb")):
            with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as reader:
                unpack = ["tar", "-x", "-C", made, "--no-same-owner", "--wildcards", *KEPT]
                subprocess.run(unpack, stdin=reader.stdout, stderr=subprocess.DEVNULL, check=False)
        files.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, files)
    root = tmp_path / "root"
    shutil.copytree(files, root, symlinks=True)
    shutil.copy(root / "usr/share/base-files/profile", root / "etc/profile")
    for program in PROGRAMS:
        put(root, f"usr/bin/{program}", "", 0o755)
    for name in ("bin", "sbin", "lib"):
        if not (root / name).exists():
            (root / "usr" / name).mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(f"usr/{name}")
    put(root, "etc/hostname", "workstation\n")
    put(root, "usr/lib/systemd/systemd", "")
    shutil.copytree(root / "etc/skel", root / "home/alice")
    for path in (root / "home/alice", *(root / "home/alice").rglob("*")):
        os.chown(path, 1000, 1000)
    return root


def put(root: Path, path: str, text: str, mode: int = 0o644) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def unclear(root: Path) -> list[str]:
    """What is not known, or wrong, of alice's logins with any shell."""
    found = []
    for shell in SHELLS:
        account = Account("alice", 1000, 1000, (1000,), "/home/alice", shell)
        for login in Environments.probe(RootHost(str(root)), Users((account,))).logins:
            values = [login.values.get(name, None if login.lost else "") for name in ("PATH", "LD_LIBRARY_PATH")]
            if None in values or login.problems or login.ending or login.stops:
                found.append(f"{shell} {login.kind}: {values} {login.problems} {login.ending} {login.doubts}")
    return found


@pytest.mark.real_programs
@pytest.mark.parametrize("manager", MANAGERS)
def test_every_login_of_a_stock_debian_is_known(stock: Path, manager: str) -> None:
    put(stock, "etc/X11/default-display-manager", f"/usr/sbin/{manager}\n" if manager else "")
    assert unclear(stock) == []


UBUNTU = {
    "/etc/profile.d/01-locale-fix.sh": "# a locale that is there\neval $(/usr/bin/locale-check C.UTF-8)\n",
    "/etc/profile.d/apps-bin-path.sh": 'dir="/snap/bin"\nif [ -n "${PATH##*${dir}}" ] && [ -n "${PATH##*${dir}:*}" ]; then\n'
    '    export PATH="$PATH:${dir}"\nfi\nxdg="/var/lib/snapd/desktop"\nif [ -n "${XDG_DATA_DIRS##*${xdg}}" ]; then\n'
    '    export XDG_DATA_DIRS="${XDG_DATA_DIRS:-/usr/local/share:/usr/share}:${xdg}"\nfi\n',
    "/etc/profile.d/cedilla-portuguese.sh": 'if [ "${LANG%%.*}" = "pt_BR" ] && [ -z "$GTK_IM_MODULE" ]; then\n'
    "    export GTK_IM_MODULE=cedilla\nfi\n",
    "/etc/profile.d/xdg_dirs_desktop_session.sh": 'if [ -n "$DESKTOP_SESSION" ]; then\n'
    "    XDG_CONFIG_DIRS=/etc/xdg/xdg-$DESKTOP_SESSION:${XDG_CONFIG_DIRS:-/etc/xdg}\n    export XDG_CONFIG_DIRS\nfi\n",
    "/etc/bash.bashrc": '[ -z "$PS1" ] && return\nshopt -s checkwinsize\nif [ -z "${debian_chroot:-}" ] && [ -r /etc/debian_chroot ]; then\n'
    '    debian_chroot=$(cat /etc/debian_chroot)\nfi\nif [ ! -e "$HOME/.sudo_as_admin_successful" ]; then\n'
    '    case " $(groups) " in *\\ admin\\ *|*\\ sudo\\ *)\n    if [ -x /usr/bin/sudo ]; then\n        cat <<-EOF\n\t\tTo run a command as'
    ' administrator, use "sudo <command>".\n\t\tEOF\n    fi\n    esac\nfi\n'
    "if [ -x /usr/lib/command-not-found ]; then\n    function command_not_found_handle {\n        return 127\n    }\nfi\n",
}


def test_every_login_of_a_stock_ubuntu_is_known(tmp_path: Path) -> None:
    machine = Machine.ubuntu2404()
    for path, text in UBUNTU.items():
        machine.file(path, text)
    for program in PROGRAMS:
        machine.file(f"/usr/bin/{program}", "", 0o755)
    assert unclear(machine.build(tmp_path)) == []
