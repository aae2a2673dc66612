"""What lines of the kernel's log and device events mean, in the bytes in which the kernel gives them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.data.kernel_log import full_address, sayings, sxid, xid
from dlhealth.engine.causes import select
from dlhealth.engine.load import known_names
from dlhealth.engine.rule import Rule
from dlhealth.model import Layer, Severity
from dlhealth.service.events import LOOK_AT, Event, Topic, of_kernel, of_uevent

MISMATCH = (
    r"NVRM: API mismatch: the client has the version 550.54.15, but\x0aNVRM: this kernel module has the version"
    r" 535.183.01.  Please\x0aNVRM: make sure that this kernel module and all NVIDIA driver\x0aNVRM: components have"
    r" the same version."
)
UNSUPPORTED = (
    r"NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:1183)\x0aNVRM: installed in this system is not supported by"
    r" the\x0aNVRM: NVIDIA 550.54.14 driver release."
)
OPEN = (
    r"NVRM: The NVIDIA GPU 0000:af:00.0 (PCI ID: 10de:1db5)\x0aNVRM: installed in this system is not supported by"
    r" open\x0aNVRM: nvidia.ko because it does not include the required GPU"
)
OLD = "NVRM: in this system is not supported by the 280.13 NVIDIA Linux"
MAGIC = "nvidia: version magic '6.1.0-49-amd64 SMP mod_unload' should be '6.1.0-50-amd64 SMP mod_unload'"
NOT_LOADED = "nvidia-module-not-loaded"


def record(text: str, more: str = "") -> bytes:
    """As /dev/kmsg gives it."""
    return f"4,1234,98765432,-;{text}\n{more}".encode()


@pytest.mark.parametrize(
    ("text", "topic", "id", "subject"),
    [
        (MISMATCH, Topic.DRIVER, "driver-library-version-mismatch-after-upgrade", "host"),
        (
            "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
            Topic.GPU,
            "xid-79-fallen-off-bus",
            "gpu:0000:01:00.0",
        ),
        (
            "NVRM: GPU 0000:01:00.0: GPU has fallen off the bus.",
            Topic.GPU,
            "xid-79-fallen-off-bus",
            "gpu:0000:01:00.0",
        ),
        (
            "NVRM: GPU at PCI:0000:01:00 has fallen off the bus.",
            Topic.GPU,
            "xid-79-fallen-off-bus",
            "gpu:0000:01:00.0",
        ),
        (
            r"NVRM: The NVIDIA GPU 0000:b3:00.0\x0aNVRM: (PCI ID: 10de:26b5) installed in this system has"
            r"\x0aNVRM: fallen off the bus and is not responding to commands.",
            Topic.GPU,
            "xid-79-fallen-off-bus",
            "gpu:0000:b3:00.0",
        ),
        ("NVRM: Xid (0000:02:00): 48, pid=1", Topic.GPU, "xid-ecc-48-63-64-92-94-95", "gpu:0000:02:00.0"),
        (
            "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
            Topic.GPU,
            "nvswitch-sxid-errors",
            "gpu:0000:c1:00.0",
        ),
        ("NVRM: Xid (PCI:10000:01:00): 119, pid=1", Topic.GPU, "xid-119-120-gsp-timeout", "gpu:10000:01:00.0"),
        ("NVRM: Xid (PCI:10000:01:00): 999, pid=1", Topic.GPU, "xid-other", "gpu:10000:01:00.0"),
        (
            "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0xffff:1622)",
            Topic.GPU,
            "rminitadapter-failed",
            "gpu:0000:01:00.0",
        ),
        (UNSUPPORTED, Topic.DRIVER, "driver-too-old-for-new-gpu", "host"),
        (OPEN, Topic.DRIVER, "open-module-on-unsupported-gpu", "host"),
        (
            "nvidia-modeset: Version mismatch: nvidia.ko(410.73) nvidia-modeset.ko(390.87)",
            Topic.DRIVER,
            "kernel-modules-of-two-versions",
            "host",
        ),
        (OLD, Topic.DRIVER, NOT_LOADED, "host"),
        ("NVRM: None of the NVIDIA devices were initialized.", Topic.DRIVER, NOT_LOADED, "host"),
        ("NVRM: No NVIDIA GPU found.", Topic.DRIVER, NOT_LOADED, "host"),
        (MAGIC, Topic.DRIVER, NOT_LOADED, "host"),
        ("nvidia: disagrees about version of symbol module_layout", Topic.DRIVER, NOT_LOADED, "host"),
        ("nvidia-drm: Unknown symbol drm_gem_object_free (err -2)", Topic.DRIVER, NOT_LOADED, "host"),
        (
            "nvidia: loading of unsigned module is rejected",
            Topic.DRIVER,
            "secure-boot-unsigned-module",
            "host",
        ),
        # They don't say which module: a reason to look, not to tell.
        ("Loading of unsigned module is rejected", Topic.DRIVER, "", "host"),
        ("Loading of module with unavailable key is rejected", Topic.DRIVER, "", "host"),
        (
            "Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7",
            Topic.DRIVER,
            "",
            "host",
        ),
        (
            "nvidia: module verification failed: signature and/or required key missing - tainting kernel",
            Topic.DRIVER,
            "",
            "host",
        ),
        ("nvidia: loading out-of-tree module taints kernel.", Topic.DRIVER, "", "host"),
        ("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.54.14", Topic.DRIVER, "", "host"),
        ("nouveau 0000:01:00.0: NVIDIA GP106 (136000a1)", Topic.DRIVER, "", "host"),
        ("nouveau 0000:01:00.0: fifo: SCHED_ERROR 0a [CTXSW_TIMEOUT]", Topic.DRIVER, "", "host"),
        ("nvidia-modeset: ERROR: GPU:0: Idling display engine timed out", Topic.DRIVER, "", "host"),
        (
            "[drm:nv_drm_load [nvidia_drm]] *ERROR* [nvidia-drm] [GPU ID 0x00000100] Failed to allocate NvKmsKapiDevice",
            Topic.DRIVER,
            "",
            "host",
        ),
    ],
)
def test_lines_that_matter(text: str, topic: Topic, id: str, subject: str) -> None:
    event = of_kernel(record(text, " SUBSYSTEM=pci\n DEVICE=+pci:0000:01:00.0\n"))
    assert event is not None
    assert event[:3] == (topic, id, subject)
    assert "\\x0a" not in event.text
    assert "SUBSYSTEM" not in event.text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "usb 1-2: new high-speed USB device number 5 using xhci_hcd",
        "Out of memory: Killed process 4711 (python3)",
        "nvidia-nvlink: Nvlink Core is being initialized, major device number 237",
        "nvidia-uvm: Loaded the UVM driver, major device number 511.",
        "nvidia 0000:01:00.0: vgaarb: VGA decodes changed: olddecodes=io+mem,decodes=none:owns=none",
        "NVRM: nvAssertOkFailedNoLog: Assertion failed: Call not supported [NV_ERR_NOT_SUPPORTED] (0x56) returned from x",
        "NVRM: objClInitPcieChipset: *** Chipset has not been tested, this is unsupported",
        "loop: module loaded",
        "zfs: module license 'CDDL' taints kernel.",
        "nouveau: detected PR support, will not use DSM",
        # What a program of anybody is called stands in the kernel's lines about it, never at their start.
        "x[12]: segfault at 0 ip 0 sp 0 error 4 in NVRM: Xid (PCI:0000:01:00): 79, fallen off the bus[5000+1000]",
        "traps: NVRM: API mism[12] general protection fault ip:0 sp:0 error:0 in NVRM: API mismatch[1+1]",
        "NVRM: Xid (PCI:[12]: segfault at 0 ip 0 sp 0 error 4 in x): 79[5000+1000]",
        "NVRM: Xid (PCI:::): 79, no address",
    ],
)
def test_lines_that_mean_nothing(text: str) -> None:
    assert of_kernel(record(text)) is None


def test_a_long_line_is_cut() -> None:
    event = of_kernel(record("NVRM: API mismatch: " + "x" * 8000))
    assert event is not None
    assert len(event.text) <= 500


@given(st.binary(max_size=300))
def test_nothing_in_a_record_is_an_exception(content: bytes) -> None:
    for line in (
        content,
        b"4,1,2,-;NVRM: Xid (PCI:" + content,
        b"4,1,2,-;NVRM: GPU " + content + b" fallen off the bus",
    ):
        event = of_kernel(line)
        assert event is None or event.topic in LOOK_AT
    of_uevent(content)
    of_uevent(b"add@/x\0SUBSYSTEM=pci\0" + content)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("01:00", "0000:01:00.0"),
        ("01:00.1", "0000:01:00.1"),
        ("0000:AF:00", "0000:af:00.0"),
        ("00000000:af:00.0", "0000:af:00.0"),
        ("10000:e1:00", "10000:e1:00.0"),  # behind a Volume Management Device
        ("1:01:00", "0001:01:00.0"),
    ],
)
def test_a_pci_address_in_full(text: str, full: str) -> None:
    assert full_address(text) == full


def uevent(**fields: str) -> bytes:
    header = f"{fields['ACTION']}@{fields['DEVPATH']}"
    return "\0".join([header, *(f"{k}={v}" for k, v in fields.items()), ""]).encode()


@pytest.mark.parametrize("action", ["add", "remove", "bind", "unbind"])
def test_an_nvidia_device_comes_or_goes(action: str) -> None:
    message = uevent(
        ACTION=action, DEVPATH="/devices/pci0000:00/0000:01:00.0", SUBSYSTEM="pci", PCI_ID="10DE:1B06", SEQNUM="1"
    )
    assert of_uevent(message) == Event(Topic.GPU)


@pytest.mark.parametrize("module", ["nvidia", "nvidia_uvm", "nouveau"])
@pytest.mark.parametrize("action", ["add", "remove"])
def test_a_driver_is_loaded_or_unloaded(module: str, action: str) -> None:
    message = uevent(ACTION=action, DEVPATH=f"/module/{module}", SUBSYSTEM="module", SEQNUM="1")
    assert of_uevent(message) == Event(Topic.DRIVER)


@pytest.mark.parametrize(
    "fields",
    [
        {"ACTION": "add", "DEVPATH": "/devices/x", "SUBSYSTEM": "pci", "PCI_ID": "8086:10DE"},
        {"ACTION": "change", "DEVPATH": "/devices/x", "SUBSYSTEM": "pci", "PCI_ID": "10DE:1B06"},
        {"ACTION": "add", "DEVPATH": "/devices/x", "SUBSYSTEM": "usb", "PCI_ID": "10DE:1B06"},
        {"ACTION": "add", "DEVPATH": "/module/nvidia_wmi_ec_backlight", "SUBSYSTEM": "module"},
    ],
)
def test_other_devices_mean_nothing(fields: dict[str, str]) -> None:
    assert of_uevent(uevent(**fields)) is None


def test_every_topic_says_what_is_looked_at_by_names_that_exist(rules: tuple[Rule, ...]) -> None:
    assert set(LOOK_AT) == set(Topic)
    names = set(known_names(rules)) | {layer.value for layer in Layer}
    assert {n for looked in LOOK_AT.values() for n in looked} <= names
    # A layer without a rule would be refused by `select`.
    assert {n for looked in LOOK_AT.values() for n in looked} <= set(known_names(rules))


def test_a_change_of_the_login_screen_has_its_rule_looked_at(rules: tuple[Rule, ...]) -> None:
    looked = select(rules, LOOK_AT[Topic.LOGIN_SCREEN])
    assert "display-manager-not-started" in {r.id for r in looked}


def test_every_alert_of_the_kernel_log_names_a_rule_of_its_layer_that_is_looked_at(rules: tuple[Rule, ...]) -> None:
    layers = {r.id: r.layer.value for r in rules}
    for saying in sayings().values():
        looked = LOOK_AT[Topic(saying.topic)]
        assert layers.get(saying.fault, "") == saying.layer, saying.name
        assert not saying.fault or not looked or {saying.fault, saying.layer} & set(looked), saying.name


def test_every_number_that_the_driver_reports_is_a_rule_of_its_layer(rules: tuple[Rule, ...]) -> None:
    layers = {r.id: r.layer.value for r in rules}
    for number in range(1, 200):
        assert layers[xid(number).fault] == xid(number).layer


@pytest.mark.parametrize("number", [8, 13, 31, 32, 43, 44, 45, 60, 63, 68, 69, 92, 94, 137, 153, 161])
def test_what_asks_for_nothing_of_the_machine_gives_no_alert(number: int) -> None:
    event = of_kernel(record(f"NVRM: Xid (PCI:0000:01:00): {number}, pid=4711, name=python3, Ch 00000008"))
    assert event == Event(Topic.GPU)


@pytest.mark.parametrize("number", [46, 48, 62, 64, 74, 79, 95, 109, 119, 136, 140, 145, 155])
def test_what_asks_for_a_reset_or_more_is_an_error(number: int) -> None:
    event = of_kernel(record(f"NVRM: Xid (PCI:0000:01:00): {number}, pid=4711, name=python3, Ch 00000008"))
    assert event
    assert event.severity == "error"


def test_an_alert_says_what_the_number_means_and_what_to_do() -> None:
    event = of_kernel(record("NVRM: Xid (PCI:0000:01:00): 48, pid=1, DBE (double bit error)"))
    assert event
    assert event.text.startswith(
        "The driver reported Xid 48 (Double Bit ECC Error) for the GPU at 0000:01:00.0: end the "
    )
    assert "this is a hardware fault" in event.text
    assert "(NVRM: Xid (PCI:0000:01:00): 48, pid=1, DBE" in event.text
    switch = of_kernel(record("nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 23001, Fatal, Link 1 x"))
    assert switch
    assert "reboot the machine, which resets the whole fabric" in switch.text


def test_a_gpu_that_has_recovered_gives_no_alert() -> None:
    text = "NVRM: Xid (PCI:0000:01:00): 154, GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
    assert of_kernel(record(text)) == Event(Topic.GPU)


def test_the_table_says_of_each_number_whose_fault_it_is() -> None:
    known = [xid(number) for number in range(1, 200)]
    assert all(k.severity is Severity.NOTE for k in known if k.action in ("IGNORE", "RESTART_APP"))
    assert all("hardware" in k.advice for k in known if k.whose == "hardware" and k.severity is not Severity.NOTE)
    assert {k.whose for k in known} == {"application", "driver", "hardware", "link", ""}
    assert [xid(109).severity_of(1), xid(142).severity_of(1), xid(142).severity_of(2), xid(31).severity_of(9)] == [
        Severity.ERROR,
        Severity.WARNING,
        Severity.ERROR,
        Severity.NOTE,
    ]


def test_a_switch_s_number_is_as_severe_as_its_line_says() -> None:
    assert sxid(20034, fatal=True).severity is Severity.ERROR
    assert sxid(20034, fatal=False).severity is Severity.NOTE
    assert sxid(19084, fatal=False).severity is Severity.WARNING
    assert sxid(99999, fatal=True).severity is Severity.ERROR
