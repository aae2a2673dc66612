"""The portable build: it needs no newer glibc than 2.23, no Python, no network and no root, and starts quickly."""

import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from tests.lab.lab import CACHE, PROJECT, LabMachine, machine

pytestmark = [pytest.mark.lab, pytest.mark.ci]

GLIBC = (2, 23)
"""Ubuntu 16.04."""
SIZE = 40 << 20
COMMAND = "/root/dlhealth.run"


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the interpreter in the lab's cache."""
    sources = b"".join((PROJECT / "packaging/portable" / name).read_bytes() for name in ("interpreter", "modules"))
    key = sha256(sources).hexdigest()[:12]
    if not (CACHE / f"portable/python-{key}/complete").exists():
        pytest.skip(
            f"compile the interpreter once, which takes minutes: packaging/portable/interpreter {CACHE}/portable"
        )
    out = tmp_path_factory.mktemp("portable")
    done = subprocess.run(
        [PROJECT / "packaging/portable/build", CACHE / "portable", out], stdout=subprocess.PIPE, text=True, check=True
    )
    for folder in (out, *out.parents):  # for users other than root
        folder.chmod(folder.stat().st_mode | 0o5)
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def tree(portable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tree") / "dlhealth"
    subprocess.run(["sh", portable, "--extract", place], check=True, stdout=subprocess.DEVNULL)
    return place


def needed(path: Path) -> dict[str, set[tuple[int, ...]]]:
    """The versions of glibc's symbols that an ELF file needs, by library."""
    versions: dict[str, set[tuple[int, ...]]] = {}
    with path.open("rb") as file:
        for section in ELFFile(file).iter_sections():
            if isinstance(section, GNUVerNeedSection):
                for library, symbols in section.iter_versions():
                    names = [s.name for s in symbols]
                    numbers = {tuple(map(int, n[6:].split("."))) for n in names if re.fullmatch(r"GLIBC_[\d.]+", n)}
                    assert all(n.startswith("GLIBC_") and n != "GLIBC_PRIVATE" for n in names), (path, names)
                    versions[library.name] = numbers
    return versions


def test_no_file_in_it_needs_a_newer_glibc(tree: Path) -> None:
    elves = [p for p in tree.rglob("*") if p.is_file() and not p.is_symlink() and p.read_bytes()[:4] == b"\x7fELF"]
    assert tree / "bin/python" in elves
    assert any(p.suffix == ".so" for p in elves)
    seen: set[str] = set()
    for path in elves:
        for library, versions in needed(path).items():
            seen.add(library)
            assert max(versions) <= GLIBC, (path, library, versions)
    assert seen <= {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1"}


def test_it_is_small_and_a_damaged_one_does_not_start(portable: Path, tmp_path: Path) -> None:
    assert portable.stat().st_size <= SIZE
    content = bytearray(portable.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "damaged.run"
    damaged.write_bytes(content)
    done = subprocess.run(["sh", damaged, "--extract", tmp_path / "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "is damaged" in done.stderr
    assert not (tmp_path / "x").exists()


def nobody(*argv: object, home: Path) -> "subprocess.CompletedProcess[str]":
    words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "env",
        "-i",
        f"HOME={home}",
        *map(str, argv),
    ]
    return subprocess.run(["unshare", "-n", *words], capture_output=True, text=True, check=False, cwd="/")


def test_without_root_and_network_it_looks_at_an_ubuntu_16_04(portable: Path, tmp_path: Path) -> None:
    """Its Python is 3.5: nothing on it could run dlhealth, and nothing on it is run."""
    root = tmp_path / "xenial"
    for folder in ("etc", "home/alice", "usr/bin", "var/lib/dpkg/info", "boot", "lib/modules/4.4.0-210-generic"):
        (root / folder).mkdir(parents=True)
    (root / "etc/os-release").write_text('ID=ubuntu\nVERSION_ID="16.04"\nPRETTY_NAME="Ubuntu 16.04.7 LTS"\n')
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n")
    (root / "etc/environment").write_text("PATH=/usr/local/cuda/bin:$PATH\n")
    (root / "var/lib/dpkg/status").write_text(
        "Package: python3.5\nStatus: install ok installed\nArchitecture: amd64\nVersion: 3.5.2-2ubuntu0~16.04.13\n\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    tmp_path.chmod(0o755)
    done = nobody("sh", portable, "doctor", "--root", root, "--json", home=home)
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert report["host"]["os"] == "ubuntu 16.04"
    assert "login-loop-broken-path-environment" in {f["id"] for f in report["findings"]}
    assert report["checks"]["failed"] == []
    assert [p.name for p in (home / ".cache").iterdir()] == ["dlhealth-portable"]


def test_where_its_home_is_not_its_own_it_unpacks_elsewhere(portable: Path, tmp_path: Path) -> None:
    """As on a home that is mounted read-only."""
    places = [Path(f"{folder}/dlhealth-65534") for folder in ("/dev/shm", "/var/tmp", "/tmp")]
    assert not any(place.exists() for place in places)
    try:
        done = nobody("sh", portable, "version", home=Path("/proc/self"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("dlhealth ")
        (used,) = (place for place in places if place.exists())
        assert (used.stat().st_uid, used.stat().st_mode & 0o777) == (65534, 0o700)
    finally:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)


def test_root_runs_nothing_from_a_directory_of_another_user(portable: Path, tmp_path: Path) -> None:
    """`sudo` may keep another user's HOME, and anybody may make a directory in /tmp."""
    text = portable.read_bytes().split(b"exec ")[0].decode()
    places = tmp_path / "theirs", tmp_path / "mine"
    for place in places:
        place.mkdir(mode=0o755)
    os.chown(places[0], 65534, 65534)
    (tmp_path / "link").symlink_to(places[1])
    chosen = f"{places[0]} {tmp_path / 'link'} {places[1]}"
    script = tmp_path / "launcher"
    script.write_bytes(
        re.sub(r'    places="/var/cache[^"]*"', f'    places="{chosen}"', text).encode()
        + portable.read_bytes()[len(text.encode()) :]
    )
    done = subprocess.run(["sh", script, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [len(list(place.iterdir())) for place in places] == [0, 1]


def quickest(*argv: object) -> float:
    times = []
    for _ in range(7):
        began = time.monotonic()
        subprocess.run([*map(str, argv)], check=True, stdout=subprocess.DEVNULL)
        times.append(time.monotonic() - began)
    return min(times)


def test_it_starts_hardly_slower_than_an_environment(portable: Path) -> None:
    environment = Path(__file__).parents[2] / ".venv/bin/python"
    if not environment.exists():
        pytest.skip("no environment in .venv to compare with")
    if (kept := Path("/var/cache/dlhealth-portable")).exists():
        pytest.skip(f"{kept} exists: this machine uses a portable build")
    try:
        subprocess.run(["sh", portable, "version"], check=True, stdout=subprocess.DEVNULL)
        own = quickest("sh", portable, "--version")
    finally:
        shutil.rmtree(kept, ignore_errors=True)
    assert own <= 1.5 * quickest(environment, "-I", "-m", "dlhealth", "--version")


@pytest.fixture(params=["fresh-bookworm", "fresh-trixie", "bullseye"])
def lab(request: pytest.FixtureRequest, portable: Path) -> Iterator[LabMachine]:
    with machine(request.param) as made:
        shutil.copy(portable, f"{made.root}{COMMAND}")
        yield made


def test_it_runs_on_each_release_and_without_any_python(lab: LabMachine) -> None:
    for path in (*lab.root.glob("usr/bin/python3*"), *lab.root.glob("usr/lib/python3*")):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    done = lab.run("sh", COMMAND, "doctor", "--json", check=False)
    assert done.returncode in (0, 1, 3, 6), done.stderr
    report = json.loads(done.stdout)
    assert report["host"]["os"].startswith("debian ")
    assert report["checks"]["failed"] == []


def test_its_service_needs_no_python_of_the_system(portable: Path) -> None:
    with machine("bullseye") as made:
        shutil.copy(portable, f"{made.root}/usr/local/bin/dlhealth")
        made.boot()
        made.run("dlhealth", "service", "install")
        assert made.run("systemctl", "is-active", "dlhealth.service").stdout.strip() == "active"
        made.run("chmod", "755", "/tmp")
        made.run("dlhealth", "fix", "--yes", "login-loop-tmp-permissions", check=False)
        assert made.run("stat", "-c", "%a", "/tmp").stdout.strip() == "1777"
        rescue = "/usr/local/lib/dlhealth/rescue/txn/__main__.py"
        made.run("/usr/local/lib/dlhealth/bin/python", "-I", "-S", rescue, "undo")
        assert made.run("stat", "-c", "%a", "/tmp").stdout.strip() == "755"
        shown = made.run("systemctl", "show", "-p", "ExecStart", "dlhealth-recover.service").stdout
        assert "path=/usr/local/lib/dlhealth/bin/python" in shown
        made.run("dlhealth", "service", "remove")


def test_the_archive_inside_has_only_relative_names(portable: Path) -> None:
    content = portable.read_bytes()
    first = int(re.search(rb"first=(\d+)", content)[1])  # type: ignore[index]
    payload = content.split(b"\n", first - 1)[-1]
    with tarfile.open(fileobj=BytesIO(payload)) as packed:
        assert all(not m.name.startswith("/") and ".." not in m.name.split("/") for m in packed)
