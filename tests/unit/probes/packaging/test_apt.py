"""apt's sources, pins, logs and locks."""

import base64
import fcntl
import gzip
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.probes import Options
from dlhealth.probes.packaging import apt
from dlhealth.probes.packaging.apt import AptFailures, AptHistory, AptSources, PackageLocks, PackageOrigins
from dlhealth.probes.packaging.aptkeys import NvidiaKeys, read_keyring
from dlhealth.testing import Machine


@pytest.fixture
def facts(tmp_path: Path) -> Callable[[Machine], Facts]:
    return lambda machine: Facts(RootHost(str(machine.build(tmp_path))), Options())


def test_sources_of_both_forms_and_pins(facts: Callable[[Machine], Facts]) -> None:
    machine = (
        Machine()
        .file(
            "/etc/apt/sources.list",
            "# deb http://x y z\n\ndeb [arch=amd64] http://deb.debian.org/debian bookworm main\n",
        )
        .file(
            "/etc/apt/sources.list.d/ubuntu.sources",
            "Types: deb deb-src\nURIs: http://archive.ubuntu.com/ubuntu/\nSuites: noble\n noble-updates\nComponents: main\n\n"
            "Enabled: no\nTypes: deb\nURIs: http://ppa.launchpad.net/graphics-drivers/ppa/ubuntu\nSuites: noble\n",
        )
        .file(
            "/etc/apt/sources.list.d/cuda.list",
            "deb https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2404/x86_64/ /\n",
        )
        .file(
            "/etc/apt/preferences.d/cuda-repository-pin-600",
            "Package: *\nPin: release l=NVIDIA CUDA\nPin-Priority: 600\n",
        )
        .fifo("/etc/apt/sources.list.d/pipe.list")
    )
    sources = facts(machine).get(AptSources)
    assert [(s.source, s.origin) for s in sources.sources] == [
        ("/etc/apt/sources.list:3", "Debian's archive"),
        ("/etc/apt/sources.list.d/cuda.list:1", "NVIDIA's repository"),
        ("/etc/apt/sources.list.d/ubuntu.sources:1", "Ubuntu's archive"),
    ]
    assert sources.sources[2].suites == ("noble", "noble-updates")
    assert [(p.source, p.pin, p.priority) for p in sources.pins] == [
        ("/etc/apt/preferences.d/cuda-repository-pin-600:1", "release l=NVIDIA CUDA", 600)
    ]
    assert len(sources.problems) == 1


@pytest.mark.parametrize(
    ("version", "origin"),
    [
        ("580.142-0ubuntu0.24.04.1", "Ubuntu's archive"),
        ("375.66-0ubuntu0.16.04.1", "Ubuntu's archive"),
        ("535.171.04-0ubuntu2", "Ubuntu's archive"),
        ("535.183.01-0ubuntu1", "Ubuntu's archive or NVIDIA's repository"),
        ("375.82-0ubuntu0~gpu16.04.1", "graphics-drivers PPA"),
        ("390.42-0ubuntu1+gpu18.04.1", "graphics-drivers PPA"),
        ("418.43-0ubuntu0~18.04.1", "graphics-drivers PPA"),
        ("610.43.02-1ubuntu1", "NVIDIA's repository"),
        ("560.35.03-1", "Debian's archive or NVIDIA's repository"),
        ("550.163.01-4~bpo13+1", "Debian's archive"),
        ("535.216.01-1~deb12u1", "Debian's archive"),
        ("550.120-0lambda0.22.04.1", "Lambda Stack"),
        ("", ""),
    ],
)
def test_what_a_suffix_tells(version: str, origin: str) -> None:
    assert apt.origin_of_version(version) == origin


def test_lists_are_read_only_on_suspicion(facts: Callable[[Machine], Facts]) -> None:
    lists = "/var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_non-free_binary-amd64_Packages"
    found = facts(Machine.debian12_gpu().file(lists, "Package: libcuda1\nVersion: 535.261.03-1\n"))
    found.get(PackageOrigins)
    assert not any(lists in question for question in found.get(apt.Host).seen)


def test_a_list_proves_an_origin(facts: Callable[[Machine], Facts]) -> None:
    machine = Machine.debian12_gpu().package("libcuda1", "560.35.03-1", multi_arch="same")
    machine.file(
        "/var/lib/apt/lists/developer.download.nvidia.com_compute_cuda_repos_debian12_x86%5f64_Packages",
        "Package: libcuda1-x\nVersion: 560.35.03-1\n\nPackage: libcuda1\nArchitecture: amd64\nVersion: 560.35.03-1",
    )
    origins, where = facts(machine).get(PackageOrigins).origins["libcuda1"]
    assert origins == ("NVIDIA's repository",)
    assert where.startswith("/var/lib/apt/lists/developer")


HISTORY = """
Start-Date: 2025-01-20  14:02:11
Commandline: apt install nvtop
Requested-By: alice (1000)
Install: nvtop:amd64 (3.0.2-1), libnvidia-compute-535:amd64 (535.183.01-0ubuntu0.24.04.1, automatic)
Remove: libnvidia-compute-550:amd64 (550.120-0ubuntu0.24.04.1)
End-Date: 2025-01-20  14:02:30

Start-Date: 2025-01-21  06:00:00
Commandline: /usr/bin/unattended-upgrade
Upgrade: libnvidia-common-550:all (550.107.02-0ubuntu0.24.04.1, 550.120-0ubuntu0.24.04.1), bash:amd64 (5.1, 5.2)
Error: Sub-process /usr/bin/dpkg returned an error code (1)
End-Date: 2025-01-21  06:00:09
"""


def test_history(facts: Callable[[Machine], Facts]) -> None:
    old = "Start-Date: 2024-12-01  10:00:00\nInstall: libcuda1:amd64 (535.183.01-1)\nEnd-Date: 2024-12-01  10:01:00\n"
    machine = (
        Machine()
        .file("/var/log/apt/history.log", HISTORY)
        .file("/var/log/apt/history.log.1.gz", gzip.compress(old.encode()))
        .file("/var/log/apt/history.log.2.gz", b"\x1f\x8bbroken")
    )
    history = facts(machine).get(AptHistory)
    assert [t.start for t in history.transactions] == [
        "2025-01-21 06:00:00",
        "2025-01-20 14:02:11",
        "2024-12-01 10:00:00",
    ]
    assert history.transactions[0].error.startswith("Sub-process")
    assert history.transactions[0].changes == (
        apt.Change("upgrade", "libnvidia-common-550", "all", "550.107.02-0ubuntu0.24.04.1", "550.120-0ubuntu0.24.04.1"),
    )
    nvtop = history.last("libnvidia-compute-535", "535.183.01-0ubuntu0.24.04.1")
    assert nvtop is not None
    assert (nvtop.command, nvtop.source) == ("apt install nvtop", "/var/log/apt/history.log:2")
    assert history.last("libnvidia-compute-550", "550.120-0ubuntu0.24.04.1") is None  # removed only
    libcuda = history.last("libcuda1", "535.183.01-1")
    assert libcuda is not None
    assert libcuda.source == "/var/log/apt/history.log.1.gz:1"
    assert history.last("libcuda1", "550.120-1") is None  # put there by dpkg alone


def test_only_the_last_run_of_the_terminal_log_counts(facts: Callable[[Machine], Facts]) -> None:
    text = (
        "Log started: 2025-01-01  00:00:00\nzstd: error 25 : Write error : No space left on device\nLog ended: x\n\n"
        "Log started: 2025-01-02  00:00:00\nSetting up nvidia-dkms-550\nError! Bad return status for module build on kernel\n"
        "dpkg: error processing package nvidia-dkms-550 (--configure):\n installed ... subprocess returned error exit status 10\n"
    )
    failures = facts(Machine().file("/var/log/apt/term.log", text)).get(AptFailures)
    assert failures.of("no-space") is None
    assert failures.of("dkms").source == "/var/log/apt/term.log:7"
    assert failures.of("dpkg").text == "dpkg: error processing package nvidia-dkms-550 (--configure):"


def test_the_first_run_of_the_terminal_log(facts: Callable[[Machine], Facts]) -> None:
    failures = facts(Machine().file("/var/log/apt/term.log", "Log started: x\nNo space left on device\n")).get(
        AptFailures
    )
    assert failures.of("no-space").source == "/var/log/apt/term.log:2"


LOCKS = """\
1: POSIX  ADVISORY  WRITE 1595 08:02:1310985 0 EOF
1: -> POSIX  ADVISORY  WRITE 1700 08:02:1310985 0 EOF
2: FLOCK  ADVISORY  READ  402 00:1a:64 0 EOF
3: OFDLCK ADVISORY  WRITE -1 fd:00:77 0 EOF
4: LEASE  ACTIVE    READ  9 08:02:5 0 EOF
"""


def test_locks_that_are_held() -> None:
    assert apt.parse_locks(LOCKS) == [(1595, (8, 2), 1310985), (402, (0, 26), 64), (-1, (253, 0), 77)]


def test_a_real_lock_as_the_kernel_shows_it(tmp_path: Path) -> None:
    root = Machine().file("/var/lib/dpkg/lock-frontend").file("/proc/1/comm", "init\n").build(tmp_path)
    with open(root / "var/lib/dpkg/lock-frontend", "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        (root / "proc/locks").write_text(Path("/proc/locks").read_text())
        (holder,) = Facts(RootHost(str(root)), Options()).get(PackageLocks).holders
        assert holder == apt.LockHolder("/var/lib/dpkg/lock-frontend", os.getpid(), "")
    (root / "proc/locks").write_text(Path("/proc/locks").read_text())
    assert Facts(RootHost(str(root)), Options()).get(PackageLocks).holders == ()


@given(st.text(max_size=600))
def test_hostile_text_never_raises(text: str) -> None:
    list(apt.parse_list("x", text))
    list(apt.parse_deb822("x", text))
    list(apt.parse_pins("x", text))
    list(apt.parse_history("x", text))
    apt.last_failures("x", text)
    apt.parse_locks(text)
    apt.has_version(text.encode(errors="replace"), "a+b", "1")


@given(
    st.lists(
        st.sampled_from(
            ["Start-Date: 1  2", "Install: libcuda1:amd64 (1, 2)", "Install: (", " x", "", "Upgrade: cuda:a ()"]
        ),
        max_size=12,
    )
)
def test_hostile_history_never_raises(lines: list[str]) -> None:
    for transaction in apt.parse_history("x", "\n".join(lines)):
        assert transaction.changes


def test_a_keyring_has_the_ids_of_its_keys(tmp_path: Path) -> None:
    """By the first signature after each key, in the three forms of a packet's length, and armored."""
    Machine().apt_key("/etc/apt/keyrings/k.gpg", "F60F4B3D7FA2AF80", "A4B469963BF863CC").build(tmp_path)
    binary = (tmp_path / "etc/apt/keyrings/k.gpg").read_bytes()
    assert list(read_keyring(binary)) == ["F60F4B3D7FA2AF80", "A4B469963BF863CC"]
    armored = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\nComment: x\n\n" + base64.b64encode(binary) + b"\n=abcd\n-----END"
    assert list(read_keyring(armored)) == list(read_keyring(binary))
    body = bytes(300)
    assert list(read_keyring(b"\x99\1\x2c" + body + binary[3:23])) == ["F60F4B3D7FA2AF80"]
    assert list(read_keyring(b"\xc6\xc0\x6c" + body + binary[3:23])) == ["F60F4B3D7FA2AF80"]
    for damaged in (b"KBXf", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabcde\n-----END", b"\x9b\0"):
        with pytest.raises(ValueError):
            list(read_keyring(damaged))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_keyring_or_a_value_error(content: bytes) -> None:
    with suppress(ValueError):
        list(read_keyring(content))


def test_an_entry_without_a_key_takes_that_of_a_later_one(facts: Callable[[Machine], Facts]) -> None:
    url = "https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/"
    machine = (
        Machine()
        .file("/etc/apt/sources.list", f"deb {url} /\n")
        .file("/etc/apt/sources.list.d/cuda.list", f"deb [signed-by=/etc/apt/keyrings/k.gpg] {url} /\n")
        .apt_key("/etc/apt/keyrings/k.gpg", "A4B469963BF863CC")
    )
    assert [n.present for n in facts(machine).get(NvidiaKeys).needed] == [True, True]
