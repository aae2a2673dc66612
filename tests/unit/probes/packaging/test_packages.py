"""dpkg's records, and the driver's packages among them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.data import load
from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.packaging.packages import STATUS, DriverPackages, Package, Packages, Unowned, classify
from dlhealth.testing import Machine

LIB = "/usr/lib/x86_64-linux-gnu"


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Machine], Facts]:
    def build(machine: Machine) -> Facts:
        return Facts(RootHost(str(machine.build(tmp_path))), Options())

    return build


def package(name: str, version: str, **fields: str) -> Package:
    values = {
        "architecture": "amd64",
        "want": "install",
        "flag": "ok",
        "state": "installed",
        "source": name,
        "depends": "",
    }
    return Package(name, version=version, **{**values, **fields})


def test_only_what_matters_is_kept_and_all_is_counted(read: Callable[[Machine], Facts]) -> None:
    machine = (
        Machine()
        .package("bash", "5.2")
        .package("libcuda1", "535.261.03-1")
        .package("vim", "2", status="install ok unpacked")
    )
    packages = read(machine).get(Packages)
    assert packages.total == 3
    assert {p.name for p in packages.all()} == {"libcuda1", "vim"}
    assert packages.get("bash") is None


@pytest.mark.parametrize(
    ("version", "upstream"),
    [("1:535.261.03-1~deb12u1", "535.261.03"), ("535.261.03", "535.261.03"), ("4:11", "11"), ("4:12.2.0-3", "12.2.0")],
)
def test_upstream_with_and_without_epoch_and_revision(version: str, upstream: str) -> None:
    assert Package("gcc", "amd64", version, "install", "ok", "installed", "", "").upstream == upstream


def test_fields_of_a_real_stanza(read: Callable[[Machine], Facts]) -> None:
    text = (
        "Package: nvidia-kernel-dkms\nStatus: hold reinstreq half-installed\nPriority: optional\nSection: non-free/kernel\n"
        "Maintainer: Debian NVIDIA Maintainers <x@example.org>\nArchitecture: amd64\n"
        "Source: nvidia-graphics-drivers (535.261.03-1)\nVersion: 1:535.261.03-1~deb12u1\n"
        "Pre-Depends: nvidia-installer-cleanup\nDepends: dkms (>= 2), nvidia-kernel-support | nvidia-kernel-support--v1\n"
        "Conffiles:\n /etc/x 123\nDescription: text\n Package: not a field\n .\n Version: 3\n"
    )
    found = read(Machine().file(STATUS, text)).get(Packages).get("nvidia-kernel-dkms")
    assert found == Package(
        "nvidia-kernel-dkms", "amd64", "1:535.261.03-1~deb12u1", "hold", "reinstreq", "half-installed",
        "nvidia-graphics-drivers",
        "nvidia-installer-cleanup, dkms (>= 2), nvidia-kernel-support | nvidia-kernel-support--v1",
    )  # fmt: skip
    assert found.upstream == "535.261.03"
    assert found.dependencies == (
        "nvidia-installer-cleanup",
        "dkms",
        "nvidia-kernel-support",
        "nvidia-kernel-support--v1",
    )


def test_an_interrupted_dpkg_has_the_last_word_in_its_journal(read: Callable[[Machine], Facts]) -> None:
    step = "Package: libcuda1\nStatus: install ok half-configured\nArchitecture: amd64\nVersion: 535.261.03-1\n"
    machine = Machine().package("libcuda1", "535.216.01-1").file("/var/lib/dpkg/updates/0003", step)
    packages = read(machine.file("/var/lib/dpkg/updates/tmp.i", "")).get(Packages)
    assert packages.updates == ("0003",)
    assert packages.get("libcuda1").state == "half-configured"
    assert packages.get("libcuda1").version == "535.261.03-1"


def test_the_machines_own_architecture_comes_first(read: Callable[[Machine], Facts]) -> None:
    text = "".join(
        f"Package: libcuda1\nStatus: install ok installed\nArchitecture: {arch}\nVersion: {version}\nMulti-Arch: same\n\n"
        for arch, version in (("i386", "535.1-1"), ("amd64", "535.1-1"))
    )
    packages = read(Machine().file(STATUS, text).file("/var/lib/dpkg/arch", "amd64\ni386\n")).get(Packages)
    assert packages.get("libcuda1").architecture == "amd64"
    assert len(packages.installed("libcuda*")) == 2


def test_owner_with_and_without_usrmerge_and_through_diversions(read: Callable[[Machine], Facts]) -> None:
    machine = (
        Machine()
        .package(
            "libcuda1",
            "535.261.03-1",
            ["/lib/x86_64-linux-gnu/libcuda.so.1", "/usr/lib/y/libcuda.so.9"],
            multi_arch="same",
        )
        .file("/var/lib/dpkg/diversions", "/usr/lib/y/libcuda.so.9\n/usr/lib/y/libcuda.so.9.distrib\nother\n")
    )
    packages = read(machine).get(Packages)
    assert packages.owner(f"{LIB}/libcuda.so.1") == "libcuda1"
    assert packages.owner("/lib/x86_64-linux-gnu/libcuda.so.1") == "libcuda1"
    assert packages.owner("/usr/lib/y/libcuda.so.9") is Unowned.NOBODY
    assert packages.owner("/usr/lib/y/libcuda.so.9.distrib") == "libcuda1"
    assert packages.owner("/usr/lib/none") is Unowned.NOBODY


def test_lists_that_can_not_be_read_are_named(read: Callable[[Machine], Facts]) -> None:
    packages = read(Machine().package("libcuda1", "535.261.03-1").fifo("/var/lib/dpkg/info/libcuda1.list")).get(
        Packages
    )
    assert packages.unlisted == ("libcuda1",)


def test_removed_packages_have_no_files(read: Callable[[Machine], Facts]) -> None:
    packages = read(Machine().package("libcuda1", "1", status="deinstall ok config-files")).get(Packages)
    assert packages.installed("libcuda1") == ()
    assert packages.unlisted == ()


@pytest.mark.parametrize("content", [b"\0" * 5000, b"not a status\n"])
def test_a_damaged_status_is_unavailable(read: Callable[[Machine], Facts], content: bytes) -> None:
    with pytest.raises(Unavailable, match="damaged"):
        read(Machine().file(STATUS, content)).get(Packages)


def test_no_dpkg_here(read: Callable[[Machine], Facts]) -> None:
    with pytest.raises(
        Unavailable, match="/var/lib/dpkg/status does not exist: this machine does not use Debian packages"
    ):
        read(Machine().file("/etc/hostname", "x").file("/usr/lib/x", "").file("/var/lib/x", "")).get(Packages)


@given(
    st.binary(max_size=3000)
    | st.text(alphabet="Packge: Status\n \x00é\udcff", max_size=300).map(lambda t: t.encode(errors="replace"))
)
def test_hostile_status_never_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    root = tmp_path_factory.mktemp("root")
    Machine().file(STATUS, content).file("/var/lib/dpkg/updates/0000", content).build(root)
    try:
        packages = Facts(RootHost(str(root)), Options()).get(Packages)
    except Unavailable:
        return
    for found in packages.all():
        assert isinstance(found.upstream, str)
        assert isinstance(found.dependencies, tuple)
        classify(found)


@pytest.mark.parametrize(
    ("name", "version", "role", "family"),
    [
        ("nvidia-driver-535-server-open", "535.183.01-0ubuntu0.24.04.1", "driver", "ubuntu-server"),
        ("nvidia-dkms-580-open", "580.142-0ubuntu0.24.04.1", "module", "ubuntu"),
        ("libnvidia-compute-580", "580.142-0ubuntu0.24.04.1", "compute", "ubuntu"),
        ("linux-modules-nvidia-550-generic", "6.8.0-50.51", "prebuilt", "ubuntu"),
        ("nvidia-firmware-580-580.142", "580.142-0ubuntu0.24.04.1", "firmware", "ubuntu"),
        ("nvidia-375", "375.66-0ubuntu0.16.04.1", "driver", "ubuntu-old"),
        ("libcuda1-375", "375.66-0ubuntu0.16.04.1", "compute", "ubuntu-old"),
        ("nvidia-tesla-470-driver", "470.256.02-1~deb12u1", "driver", "debian-tesla-470"),
        ("libnvidia-tesla-470-cuda1", "470.256.02-1~deb12u1", "compute", "debian-tesla-470"),
        ("nvidia-legacy-390xx-kernel-dkms", "390.157-1", "module", "debian-legacy-390xx"),
        ("nvidia-open-kernel-dkms", "535.261.03-1", "module", "debian-open"),
        ("libnvidia-ml1", "535.261.03-1", "compute", "debian"),
        ("libegl-nvidia-tesla-535-0", "535.261.03-1", "gl", "debian-tesla-535"),
        ("libglx-nvidia-legacy-390xx0", "390.157-1", "gl", "debian-legacy-390xx"),
        ("xserver-xorg-video-nvidia-tesla-470", "470.256.02-1", "x", "debian-tesla-470"),
        ("nvidia-304-updates", "304.135-0ubuntu0.16.04.1", "driver", "ubuntu-old"),
        ("nvidia-driver-open", "610.43.02-1ubuntu1", "driver", "nvidia-repo"),
        ("nvidia-open", "610.43.02-1", "meta", "nvidia-repo"),
        ("nvidia-dkms-open", "610.43.02-1ubuntu1", "module", "nvidia-repo"),
        ("libnvidia-pkcs11-openssl3", "535.261.03-1", "support", "debian"),
        ("cuda-drivers-550", "550.120-1", "meta", "nvidia-repo"),
        ("libnvidia-compute", "610.43.02-1ubuntu1", "compute", "nvidia-repo"),
    ],
)
def test_parts_of_the_driver(name: str, version: str, role: str, family: str) -> None:
    member = classify(package(name, version))
    assert member is not None
    assert (member.role, member.family) == (role, family)
    assert member.open == ("open" in name and "openssl" not in name)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("nvidia-settings", "525.125.06-1"),
        ("nvidia-modprobe", "535.161.07-1~deb12u1"),
        ("nvidia-persistenced", "535.171.04-1~deb12u1"),
        ("nvidia-kernel-common", "20220217+3~deb12u1"),
        ("libnvidia-egl-wayland1", "1:1.1.10-1"),
        ("libnvidia-container1", "1.16.2-1"),
        ("nvidia-container-toolkit", "1.16.2-1"),
        ("nvidia-cuda-toolkit", "11.8.89~11.8.0-5~deb12u1"),
        ("cuda-compat-12-8", "570.211.01-0ubuntu1"),
        ("libcudart11.0", "11.8.89-1"),
        ("libcudnn9-cuda-12", "9.1.0.70-1"),
        ("nvidia-fabricmanager-550", "550.120-1"),
        ("nvidia-driver-470", "535.183.01-0ubuntu0.24.04.1"),  # transitional
        ("libcupti11.8", "11.8.87-1"),
        ("bash", "535.1-1"),
        ("nvidia-driver-pinning-580", "580.142-1"),
        ("nvidia-settings-tesla-535", "535.247.01-1"),
        ("libnvidia-compute-550-dev", "550.120-0ubuntu1"),
    ],
)
def test_what_is_no_part_of_the_driver(name: str, version: str) -> None:
    assert classify(package(name, version)) is None


@pytest.mark.parametrize(
    ("name", "depends", "empty"),
    [
        ("nvidia-driver-570", "nvidia-driver-580", True),
        ("libnvidia-compute-570", "libnvidia-compute-580 (>= 580.65)", True),
        ("nvidia-dkms-570-open", "nvidia-dkms-580-open", True),
        ("nvidia-driver-570-server", "nvidia-driver-580-server", True),
        ("nvidia-driver-570", "nvidia-driver-580 | nvidia-driver-590", False),
        ("nvidia-dkms-570", "nvidia-kernel-source-570", False),
        ("nvidia-driver-570", "libnvidia-gl-570, nvidia-driver-580", False),
    ],
)
def test_empty_packages_that_lead_to_another_branch(name: str, depends: str, empty: bool) -> None:
    found = classify(package(name, "570.211.01-0ubuntu1.24.04.1", depends=depends))
    assert (found is None) == empty


def test_every_table_has_a_source_and_every_suffix_an_example() -> None:
    table = load("package_patterns")
    assert all(table[name]["source"] for name in ("branched", "repository", "debian"))
    assert all(row["basis"] for row in table["suffixes"])
    roles = {"driver", "meta", "module", "prebuilt", "compute", "gl", "x", "utils", "firmware", "support"}
    assert {r for name in ("branched", "repository", "debian") for r in table[name]["names"].values()} == roles


def test_version_of_most_and_how_to_complete_it(read: Callable[[Machine], Facts]) -> None:
    machine = Machine.ubuntu2404_gpu().package(
        "libnvidia-compute-535", "535.183.01-0ubuntu0.24.04.1", multi_arch="same"
    )
    driver = read(machine).get(DriverPackages)
    assert (driver.version, driver.branch) == ("550.120", 550)
    assert list(driver.versions()) == ["550.120", "535.183.01"]
    assert driver.complete == ("nvidia-driver-550", "nvidia-utils-550")
    assert driver.compute_packages == ("libnvidia-compute-550",)


@pytest.mark.parametrize(
    ("names", "version", "complete", "compute"),
    [
        (["nvidia-kernel-dkms"], "535.1-1", ("nvidia-driver", "nvidia-smi", "libcuda1", "libnvidia-ml1"), ("libcuda1", "libnvidia-ml1")),
        (
            ["nvidia-tesla-470-kernel-dkms"], "470.256.02-1",
            ("nvidia-tesla-470-driver", "nvidia-tesla-470-smi", "libnvidia-tesla-470-cuda1", "libnvidia-tesla-470-ml1"),
            ("libnvidia-tesla-470-cuda1", "libnvidia-tesla-470-ml1"),
        ),
        (["nvidia-dkms-535-server-open"], "535.1-0ubuntu1", ("nvidia-driver-535-server-open", "nvidia-utils-535-server"), ("libnvidia-compute-535-server",)),
        (["nvidia-375"], "375.66-0ubuntu1", ("nvidia-375", "libcuda1-375"), ("libcuda1-375",)),
        (["nvidia-dkms-open"], "610.43.02-1ubuntu1", ("nvidia-open",), ("libnvidia-compute",)),
        ([], "", (), ()),
    ],
)  # fmt: skip
def test_complete_in_each_naming(
    read: Callable[[Machine], Facts],
    names: list[str],
    version: str,
    complete: tuple[str, ...],
    compute: tuple[str, ...],
) -> None:
    machine = Machine().package("bash", "5")
    for name in names:
        machine.package(name, version)
    driver = read(machine).get(DriverPackages)
    assert driver.complete == complete
    assert driver.compute_packages == compute
