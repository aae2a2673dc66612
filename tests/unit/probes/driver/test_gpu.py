"""GPUs from the bus, the driver in place, and which GPUs it does not support."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.engine.facts import Facts
from dlhealth.host.root import RootHost
from dlhealth.judgements.driverfit import DriverFit, Drivers, Refusal, read_refusals
from dlhealth.judgements.gpuclaims import AbsentGpu, FallenGpus, Passthrough
from dlhealth.model import Severity
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.driver.gpu import Gpus, from_proc
from dlhealth.probes.machine.journal import Line
from dlhealth.testing import Machine

ADDRESS = "0000:01:00.0"
FOLDER = f"/sys/bus/pci/devices/{ADDRESS}"


@pytest.fixture
def facts(tmp_path: Path) -> Callable[..., Facts]:
    def build(machine: Machine, options: Options | None = None) -> Facts:
        return Facts(RootHost(str(machine.build(tmp_path))), options or Options())

    return build


def kernel_lines(*texts: str) -> list[Line]:
    return [Line(float(n), "b", "kernel", None, text, "journalctl") for n, text in enumerate(texts)]


# The bus.
def test_gpu_of_sysfs(facts: Callable[..., Facts]) -> None:
    (gpu,) = facts(Machine().gpu("1db6", klass="0x030200")).get(Gpus).gpus
    assert gpu[:7] == (ADDRESS, "1db6", "Tesla V100-PCIE-32GB", "Volta", "7.0", "nvidia", False)
    assert (gpu.first_branch, gpu.last_branch, gpu.needs_open, gpu.supports_open) == (341, 580, False, False)


def test_gpu_of_a_uevent_alone(facts: Callable[..., Facts]) -> None:
    text = "DRIVER=nouveau\nPCI_CLASS=30000\nPCI_ID=10DE:1B06\nPCI_SUBSYS_ID=1043:85E4\nPCI_SLOT_NAME=0000:01:00.0\n"
    (gpu,) = facts(Machine().file(f"{FOLDER}/uevent", text)).get(Gpus).gpus
    assert (gpu.device, gpu.driver, gpu.is_display) == ("1b06", "nouveau", True)


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("pci 0000:01:00.0: [10de:1b06] type 00 class 0x030000", ADDRESS),
        ("nvidia 0000:01:00.0: vgaarb: changed VGA decodes: olddecodes=io+mem,decodes=none:owns=none", ADDRESS),
        ("nvidia 0000:01:00.0: enabling device (0000 -> 0003)", ADDRESS),
        ("pci 0000:01:00.1: [10de:10ef] type 00 class 0x040300", ""),  # a card's sound, or one of another kind
        ("pci 0000:00:02.0: [8086:3e92] type 00 class 0x030000", ""),
        ("pci 0000:00:02.0: vgaarb: setting as boot VGA device", ""),
        ("pci 0000:00:02.0: enabling device (0000 -> 0003)", ""),
    ],
)
def test_a_gpu_that_is_gone_is_one_that_the_log_had(line: str, address: str, facts: Callable[..., Facts]) -> None:
    machine = Machine().file("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n").says("kernel", line)
    absent = facts(machine).get(AbsentGpu)
    assert (absent.missing, absent.address, bool(absent.seen)) == (True, address, bool(address))


def test_driver_where_the_link_was_copied_as_a_folder(facts: Callable[..., Facts]) -> None:
    machine = Machine().gpu(driver="").folder(f"{FOLDER}/driver").folder(f"/sys/bus/pci/drivers/vfio-pci/{ADDRESS}")
    (gpu,) = facts(machine).get(Gpus).gpus
    assert gpu.driver == "vfio-pci"
    assert gpu.passed_through


def test_only_display_controllers_of_nvidia(facts: Callable[..., Facts]) -> None:
    machine = (
        Machine()
        .gpu("10ef", "0000:01:00.1", klass="0x040300")  # its audio function
        .file("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n")
        .file("/sys/bus/pci/devices/0000:00:02.0/device", "0x3e92\n")
        .file("/sys/bus/pci/devices/0000:00:02.0/class", "0x030000\n")
    )
    assert facts(machine).get(Gpus) == Gpus(())


def test_a_device_that_can_not_be_read_is_a_problem(facts: Callable[..., Facts]) -> None:
    found = facts(Machine().gpu().fifo(f"{FOLDER}/class")).get(Gpus)
    assert not found.gpus
    assert "class" in found.problems[0]


def test_no_bus(facts: Callable[..., Facts]) -> None:
    with pytest.raises(Unavailable, match="no PCI bus"):
        facts(Machine().file("/etc/hostname", "x")).get(Gpus)


NUMBERS = "\t".join(["0"] * 14)


def test_gpu_of_proc(facts: Callable[..., Facts]) -> None:
    text = (
        f"0010\t80863e92\t7d\t{NUMBERS}\ti915\n0100\t10de1b06\t83\t{NUMBERS}\tnvidia\n0101\t10de10ef\t11\t{NUMBERS}\n"
        f"0200\t10defffe\t11\t{NUMBERS}\n"
    )
    (gpu,) = facts(Machine().file("/proc/bus/pci/devices", text)).get(Gpus).gpus
    assert (gpu.address, gpu.name, gpu.driver) == (ADDRESS, "NVIDIA GeForce GTX 1080 Ti", "nvidia")


@given(st.text(max_size=200) | st.from_regex(r"[0-9a-f]{4}\t10de[0-9a-f]{4}(\t[0-9a-f]+){0,20}(\tnvidia)?"))
def test_lines_of_proc_never_crash(line: str) -> None:
    gpu = from_proc(line)
    assert gpu is None or gpu.address.count(":") == 2


def test_container(facts: Callable[..., Facts]) -> None:
    built = facts(Machine.ubuntu2404_gpu().file("/.dockerenv"))
    assert built.get(Gpus).container
    with pytest.raises(Unavailable, match="host"):
        built.get(Drivers)


# The driver.
def test_driver_loaded_and_on_the_disk(facts: Callable[..., Facts]) -> None:
    machine = Machine.ubuntu2404().gpu().ubuntu_driver("590.48.01", loaded=False).loaded_driver("580.95.05")
    drivers = facts(machine).get(Drivers)
    assert [(d.version, d.branch, d.open, d.loaded) for d in drivers.judged] == [
        ("580.95.05", 580, False, True),
        ("590.48.01", 590, False, False),
    ]
    assert drivers.system == "ubuntu 24.04"
    assert "nvidia-dkms-590" in drivers.packages


def test_next_boot_judges_the_disk_alone(facts: Callable[..., Facts]) -> None:
    machine = Machine.ubuntu2404().gpu().ubuntu_driver("590.48.01", loaded=False).loaded_driver("580.95.05")
    assert [d.version for d in facts(machine, Options(next_boot=True)).get(Drivers).judged] == ["590.48.01"]


def test_packages_alone(facts: Callable[..., Facts]) -> None:
    machine = Machine().os_release("debian", "12").package("nvidia-open-kernel-dkms", "535.261.03-1")
    machine.package("nvidia-driver", "535.261.03-1").kernel("6.1.0-50-amd64", running=False)
    (driver,) = facts(machine).get(Drivers).judged
    assert (driver.version, driver.open, driver.source) == ("535.261.03", True, "/var/lib/dpkg/status")


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "debian 12"),
        ("ID=linuxmint\nVERSION_ID=22\nUBUNTU_CODENAME=noble\nVERSION_CODENAME=wilma\n", "ubuntu 24.04"),
        ("ID=debian\nVERSION_CODENAME=trixie\n", "debian 13"),
        ("ID=fedora\nVERSION_ID=40\n", "fedora 40"),
    ],
)
def test_system(facts: Callable[..., Facts], text: str, system: str) -> None:
    assert facts(Machine.debian12_gpu().file("/etc/os-release", text)).get(Drivers).system == system


def test_offers(facts: Callable[..., Facts]) -> None:
    drivers = facts(Machine.ubuntu2404().ubuntu_driver("590.48.01")).get(Drivers)
    assert drivers.offer(580, 580, open_flavour=False, near=580) == (580, "nvidia-driver-580", "")
    assert drivers.offer(470, 470, open_flavour=False, near=470) == (470, "nvidia-driver-470-server", "6.8")
    # The branch that is nearest to what is there, or else the newest.
    assert drivers.offer(535, 580, open_flavour=True, near=550) == (550, "nvidia-driver-550-open", "")
    assert drivers.offer(535, 580, open_flavour=True, near=560) == (580, "nvidia-driver-580-open", "")
    assert drivers.offer(340, 340, open_flavour=False, near=340) is None


def test_no_offer_beside_a_run_file(facts: Callable[..., Facts]) -> None:
    drivers = facts(Machine.ubuntu1604_runfile()).get(Drivers)
    assert drivers.offer(340, 600, open_flavour=False, near=384) is None


def test_no_offer_of_the_name_that_is_installed(facts: Callable[..., Facts]) -> None:
    # Debian's nvidia-driver of another branch came from elsewhere: the same name brings the same again.
    drivers = facts(Machine.debian12_gpu()).get(Drivers)
    assert drivers.offer(535, 535, open_flavour=False, near=535) is None


# What the driver says in the log.
NO_GSP = (
    "NVRM: The NVIDIA GPU 0000:af:00.0 (PCI ID: 10de:1db5)\nNVRM: installed in this system is not supported by open\n"
    "NVRM: nvidia.ko because it does not include the required GPU\nNVRM: System Processor (GSP)."
)
OPEN = "NVRM: The NVIDIA GPU 0000:02:00.0 (PCI ID: 10de:2c58)\nNVRM: installed in this system requires use of the NVIDIA open kernel modules."
TOO_OLD = (
    "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:25a0)\nNVRM: installed in this system is not supported by the\n"
    "NVRM: NVIDIA 520.56.06 driver release.\nNVRM: Please see 'Appendix A - Supported NVIDIA GPU Products'"
)
TOO_OLD_370 = (
    "NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:139b)\nNVRM: installed in this system is not supported by the 370.28\n"
    "NVRM: NVIDIA Linux driver release.  Please see 'Appendix\nNVRM: A - Supported NVIDIA GPU Products' in this release's"
)
LEGACY = (
    "NVRM: The NVIDIA GeForce 920M GPU installed in this system is\nNVRM:  supported through the NVIDIA 470.xx Legacy drivers. Please\n"
    "NVRM:  visit http://www.nvidia.com/object/unix.html for more\nNVRM:  information.  The 565.57.01 NVIDIA driver will ignore\n"
    "NVRM:  this GPU.  Continuing probe..."
)


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NO_GSP, ("no-gsp", "0000:af:00.0", "1db5", "", None, "")),
        (OPEN, ("needs-open", "0000:02:00.0", "2c58", "", None, "")),
        (TOO_OLD, ("too-old", "0000:01:00.0", "25a0", "", None, "520.56.06")),
        (TOO_OLD_370, ("too-old", "0000:01:00.0", "139b", "", None, "370.28")),
        (LEGACY, ("legacy", "", "", "GeForce 920M", 470, "565.57.01")),
    ],
)
def test_refusals(text: str, expected: tuple[object, ...], split: bool) -> None:
    """Whether the log has each line by itself, or the whole message as one."""
    lines = kernel_lines(*(text.split("\n") if split else [text]))
    (refusal,) = read_refusals(lines)
    assert refusal[:6] == expected
    assert refusal.source == "journalctl"


def test_a_refusal_that_is_repeated_counts_once() -> None:
    assert (
        len(
            list(
                read_refusals(
                    kernel_lines(*[OPEN, "NVRM: GPU 0000:02:00.0: RmInitAdapter failed! (0x22:0x56:884)"] * 50)
                )
            )
        )
        == 1
    )


def test_refusals_in_one_line_of_rsyslog() -> None:
    (refusal,) = read_refusals(kernel_lines(TOO_OLD.replace("\n", "#012")))
    assert refusal.version == "520.56.06"


@given(
    st.lists(
        st.text(max_size=120) | st.sampled_from([*NO_GSP.split("\n"), *LEGACY.split("\n"), *TOO_OLD.split("\n")]),
        max_size=30,
    )
)
def test_refusals_never_crash(texts: list[str]) -> None:
    for refusal in read_refusals(kernel_lines(*texts)):
        assert isinstance(refusal, Refusal)
        assert len(refusal.text) < 600


# What fits.
def test_loaded_driver_that_works_is_believed_over_the_next(facts: Callable[..., Facts]) -> None:
    machine = Machine.ubuntu2404().gpu().ubuntu_driver("590.48.01", loaded=False).loaded_driver("580.95.05")
    (misfit,) = facts(machine).get(DriverFit).misfits
    assert (misfit.kind, misfit.later, misfit.severity) == ("dropped", True, Severity.WARNING)
    assert not facts(machine).get(DriverFit).unserved()


def test_a_driver_that_the_next_start_cures(facts: Callable[..., Facts]) -> None:
    machine = Machine.ubuntu2404().gpu(driver="").ubuntu_driver("580.95.05", loaded=False).loaded_driver("590.48.01")
    (misfit,) = facts(machine).get(DriverFit).misfits
    assert (misfit.kind, misfit.cured, misfit.later) == ("dropped", True, False)


def test_the_log_of_an_older_driver_is_not_about_this_one(facts: Callable[..., Facts]) -> None:
    machine = (
        Machine.debian12()
        .gpu("fffe", driver="")
        .debian_driver()
        .says("kernel", TOO_OLD.split("\n")[0].replace("25a0", "fffe"))
    )
    machine.says("kernel", "NVRM: installed in this system is not supported by the", 5000.001)
    machine.says("kernel", "NVRM: NVIDIA 470.42.01 driver release.", 5000.002)
    fit = facts(machine).get(DriverFit)
    assert not fit.misfits
    assert [d.flavour for d in fit.doubts] == [False]


def test_fit_is_one_finding_per_gpu(facts: Callable[..., Facts]) -> None:
    # A Pascal with the open 590: too new, and of the wrong flavour.
    machine = Machine.ubuntu2404().gpu(driver="").ubuntu_driver("590.48.01", open_flavour=True)
    assert [m.kind for m in facts(machine).get(DriverFit).misfits] == ["dropped"]


# Who else has the GPU.
def test_claims_name_their_lines(facts: Callable[..., Facts]) -> None:
    machine = (
        Machine.debian12()
        .gpu(driver="vfio-pci")
        .file("/etc/modprobe.d/vfio.conf", "# options vfio-pci ids=10de:1b06\noptions vfio-pci ids=10DE:1B06\n")
        .file("/etc/initramfs-tools/scripts/init-top/vfio", f'DEVS="{ADDRESS}"\n')
        .file("/proc/cmdline", "ro vfio-pci.ids=10de:1b06 quiet\n")
        .file("/etc/libvirt/qemu/win10.xml", "<domain/>")
    )
    found = facts(machine).get(Passthrough)
    assert [c.source for c in found.claims[ADDRESS]] == [
        "/proc/cmdline",
        "/etc/modprobe.d/vfio.conf:2",
        "/etc/initramfs-tools/scripts/init-top/vfio:1",
    ]
    assert found.machines == ("/etc/libvirt/qemu/win10.xml",)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (
            "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            "0000:01:00.0",
        ),
        ("NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.", "0000:01:00.0"),
        ("NVRM: GPU 0000:82:00.0: GPU has fallen off the bus.", "0000:82:00.0"),
        ("NVRM: GPU at 0000:01:00.0 has fallen off the bus.", "0000:01:00.0"),
        (
            "NVRM: The NVIDIA GPU 0000:b3:00.0 (PCI ID: 10de:26b5) installed in this system has fallen off the bus",
            "0000:b3:00.0",
        ),
        ("NVRM: Xid (0000:02:00): 79, GPU has fallen off the bus.", "0000:02:00.0"),
        ("NVRM: Xid (PCI:0000:01:00): 31, pid=1, MMU Fault", ""),
        ("NVRM: Xid (PCI:0000:01:00): 179, something", ""),
        ("", ""),
    ],
)
def test_which_gpu_fell_off_the_bus(text: str, address: str, facts: Callable[..., Facts]) -> None:
    following = "NVRM: The NVIDIA probe routine failed for 1 device(s)."
    machine = Machine().os_release("debian", "12").says("kernel", text or "usb").says("kernel", following, 5001.0)
    (gpu,) = facts(machine).get(FallenGpus).gpus or (None,)
    assert (gpu.address, gpu.text, gpu.xid) == (address, text, "Xid" in text) if gpu else not address


def test_fallen_on_a_disk_can_not_be_judged(facts: Callable[..., Facts]) -> None:
    machine = (
        Machine()
        .os_release("debian", "12")
        .says("kernel", "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.")
    )
    (gpu,) = facts(machine).get(FallenGpus).gpus
    assert gpu.gone is None
