"""One text, several causes: combinations of faults in which the report must name the root and fold the rest under it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule
from dlhealth.host.root import RootHost
from dlhealth.model import Diagnosis, Evidence, Finding, Layer, Severity, Stage
from dlhealth.probes import Options
from dlhealth.testing import Machine

DEBIAN, UBUNTU = "6.1.0-50-amd64", "6.8.0-50-generic"
Examine = Callable[..., Diagnosis]


def roots(diagnosis: Diagnosis) -> set[str]:
    """Ids of the root causes, without notes."""
    assert not diagnosis.failed
    return {d.finding.id for d in diagnosis.findings if not d.caused_by and d.finding.severity != "note"}


def folded(diagnosis: Diagnosis) -> dict[str, tuple[str, ...]]:
    """Of each consequence what explains it."""
    return {d.finding.id: d.caused_by for d in diagnosis.findings if d.caused_by}


def down(driver: str = "") -> Machine:
    """Debian's driver built, GPU not bound to it, nothing loaded."""
    return Machine.debian12().gpu(driver=driver).debian_driver(loaded=False)


DRIVER_DOWN = {
    "not built": (
        Machine.debian12().gpu(driver="").debian_driver(kernels=(), loaded=False),
        "dkms-module-missing-for-running-kernel",
    ),
    "not built for want of headers": (
        Machine()
        .os_release("debian", "12")
        .kernel(DEBIAN, headers=False)
        .user()
        .gpu(driver="")
        .debian_driver(kernels=(), loaded=False),
        "kernel-headers-missing",
    ),
    "built, rejected by Secure Boot": (down().secure_boot(), "secure-boot-unsigned-module"),
    "built, signed with a key that is not enrolled": (down().secure_boot(signed_by=2), "secure-boot-mok-not-enrolled"),
    "built, nouveau has the GPU": (down("nouveau").initramfs(DEBIAN, {}), "initramfs-stale-nouveau-blacklist"),
    "built, nova_core has the GPU": (
        Machine.debian12().gpu("2684", driver="nova_core").debian_driver(loaded=False),
        "nova-core-claims-gpu",
    ),
    "built, vfio-pci has the GPU": (down("vfio-pci"), "vfio-pci-claims-gpu"),
    "built, blacklisted": (
        down().file("/etc/modprobe.d/bumblebee.conf", "blacklist nvidia\n"),
        "bumblebee-leftover-blacklists-nvidia",
    ),
    "built, of a branch that ignores the GPU": (
        Machine.debian12().gpu("1180", driver="").debian_driver(loaded=False),
        "legacy-gpu-needs-470-390-340",
    ),
    "built, of the wrong flavour": (
        Machine.ubuntu2404().gpu(driver="").ubuntu_driver(loaded=False, open_flavour=True),
        "open-module-on-unsupported-gpu",
    ),
    "built, older than the GPU": (
        Machine.debian12().gpu("2b85", driver="").debian_driver(loaded=False),
        "driver-too-old-for-new-gpu",
    ),
    "built, but cut off when the disk was full": (
        Machine.ubuntu2404()
        .gpu(driver="")
        .ubuntu_driver(loaded=False)
        .file(f"/usr/lib/modules/{UBUNTU}/updates/dkms/nvidia.ko", b""),
        "dkms-module-missing-for-running-kernel",
    ),
    "built with the headers of another build of the kernel": (
        down().says("kernel", "nvidia: disagrees about version of symbol module_layout"),
        "nvidia-module-not-loaded",
    ),
    "the GPU is not there": (
        Machine.debian12()
        .debian_driver(loaded=False)
        .file("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n")
        .says("kernel", "pci 0000:01:00.0: [10de:1b06] type 00 class 0x030000", -5000.0),
        "gpu-not-on-bus",
    ),
    "the GPU fell off the bus": (
        Machine.debian12_gpu()
        .says("kernel", "NVRM: Xid (PCI:0000:01:00): 79, pid=1, name=python, GPU has fallen off the bus.")
        .file("/sys/bus/pci/devices/0000:01:00.0/config", b"\xff" * 64),
        "xid-79-fallen-off-bus",
    ),
    "built, only not loaded": (down(), "nvidia-module-not-loaded"),
    "loaded, of another version than its libraries": (
        Machine.debian12().gpu().debian_driver(loaded=False).loaded_driver("525.147.05"),
        "driver-library-version-mismatch-after-upgrade",
    ),
    "loaded, but the GPU did not start": (
        Machine.debian12_gpu().says("kernel", "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x62:0xffff:1622)"),
        "rminitadapter-failed",
    ),
}


@pytest.mark.parametrize(("machine", "expected"), DRIVER_DOWN.values(), ids=DRIVER_DOWN.keys())
def test_the_states_of_a_driver_that_is_down(machine: Machine, expected: str, examine: Examine) -> None:
    """All of them make nvidia-smi say that it can't communicate with the driver, or that it found no device."""
    assert roots(examine(machine)) == {expected}


def test_a_stale_initramfs_is_left_alone_while_the_module_cannot_load(examine: Examine) -> None:
    """Rebuilt, it would keep nouveau from the GPU, and nothing would draw the screen."""
    rejected = down("nouveau").secure_boot(signed_by=2).initramfs(DEBIAN, {})
    diagnosis = examine(rejected)
    assert roots(diagnosis) == {"secure-boot-mok-not-enrolled"}
    assert "initramfs-stale-nouveau-blacklist" in folded(diagnosis)


def test_no_restart_into_a_driver_that_ignores_the_gpu(examine: Examine) -> None:
    moved = Machine.ubuntu2404().gpu("128b").ubuntu_driver("535.183.01", loaded=False).loaded_driver("470.256.02")
    diagnosis = examine(moved)
    assert roots(diagnosis) == {
        "driver-library-version-mismatch-after-upgrade",
        "legacy-gpu-needs-470-390-340",
    }
    mismatch = next(d for d in diagnosis.findings if d.finding.id == "driver-library-version-mismatch-after-upgrade")
    assert mismatch.remedy is not None
    assert not mismatch.remedy.reboot


def test_what_the_next_kernel_lacks_explains_nothing_of_the_one_that_runs(examine: Examine) -> None:
    machine = (
        down("nouveau")
        .kernel("6.1.0-51-amd64", running=False, headers=False)
        .remove("/etc/modprobe.d/nvidia-blacklists-nouveau.conf")
    )
    diagnosis = examine(machine)
    assert roots(diagnosis) == {"nouveau-bound-instead-of-nvidia", "kernel-headers-missing"}


def test_each_state_has_a_remedy_of_its_own(examine: Examine) -> None:
    plans = []
    for machine, expected in DRIVER_DOWN.values():
        root = next(d for d in examine(machine).findings if d.finding.id == expected)
        assert root.remedy is not None
        plans.append((root.remedy.summary, *(a.summary() for a in root.remedy.actions)))
    assert len(set(plans)) == len(plans)


def test_version_mismatch_that_a_restart_cures(examine: Examine) -> None:
    pending = Machine.ubuntu2404().gpu().ubuntu_driver("550.120", loaded=False).loaded_driver("535.183.01")
    diagnosis = examine(pending)
    assert roots(diagnosis) == {"driver-library-version-mismatch-after-upgrade"}
    remedy = diagnosis.findings[0].remedy
    assert remedy is not None
    assert not any("purge" in a.summary() or "apt" in a.summary() for a in remedy.actions)


def test_version_mismatch_that_comes_back(examine: Examine) -> None:
    old = Machine.ubuntu2404().gpu().ubuntu_driver("550.120", loaded=False).loaded_driver("535.183.01")
    diagnosis = examine(old.initramfs(UBUNTU, {}, nvidia="535.183.01"))
    assert roots(diagnosis) == {"initramfs-old-nvidia-module"}
    assert "initramfs-old-nvidia-module" in folded(diagnosis)["driver-library-version-mismatch-after-upgrade"]


def test_headers_explain_the_whole_chain(examine: Examine) -> None:
    """The worked example of the design: after an update the login comes back to the greeter."""
    old, new = "6.8.0-49-generic", UBUNTU
    machine = (
        Machine()
        .os_release("ubuntu", "24.04")
        .kernel(old)
        .kernel(new, headers=False)
        .user()
        .gpu(driver="nouveau")
        .ubuntu_driver("570.86", kernels=(old,), loaded=False)
        .login_loop("alice")
        .file("/home/alice/.xsession-errors", 'Xlib:  extension "GLX" missing on display ":0".\n', uid=1000)
        .file(
            "/var/log/Xorg.0.log",
            "[ 5.0] (EE) NVIDIA: Failed to load the NVIDIA kernel module.\n[ 5.1] (EE) no screens found(EE)\n",
        )
    )
    diagnosis = examine(machine)
    assert roots(diagnosis) == {"kernel-headers-missing"}
    for consequence in ("dkms-module-missing-for-running-kernel", "nouveau-bound-instead-of-nvidia"):
        assert "kernel-headers-missing" in folded(diagnosis)[consequence]
    loops = {i for i in folded(diagnosis) if i.startswith("login-loop")}
    assert loops
    assert all("kernel-headers-missing" in folded(diagnosis)[i] for i in loops)


def test_the_users_own_fault_is_not_the_drivers(examine: Examine) -> None:
    machine = (
        Machine.debian12_gpu().user("bob", 1001).file("/home/alice/.Xauthority", b"\0", 0o600, 0).login_loop("alice")
    )
    diagnosis = examine(machine)
    assert roots(diagnosis) == {"login-loop-xauthority-wrong-owner"}
    for found in diagnosis.findings:
        assert "user:alice" in (found.finding.subject, *found.finding.about)


def test_one_users_fault_does_not_explain_anothers_loop(examine: Examine) -> None:
    machine = (
        Machine.debian12_gpu().user("bob", 1001).file("/home/alice/.Xauthority", b"\0", 0o600, 0).login_loop("bob")
    )
    assert "login-loop-unexplained" in roots(examine(machine))


def test_cuda_newer_than_the_driver(examine: Examine) -> None:
    assert "cuda-runtime-newer-than-driver" in roots(examine(Machine.debian12_gpu().cuda_toolkit("13.0", "13.0.48")))


def test_what_one_person_loads_does_not_explain_a_restart_that_is_pending(examine: Examine) -> None:
    folder = "/usr/local/cuda-12.2/compat"
    machine = (
        Machine.ubuntu2404()
        .gpu()
        .ubuntu_driver("550.120", loaded=False)
        .loaded_driver("535.183.01")
        .cuda_toolkit("12.2")
        .library(f"{folder}/libcuda.so.530.30.02", "libcuda.so.1")
        .link(f"{folder}/libcuda.so.1", "libcuda.so.530.30.02")
        .append("/home/alice/.bashrc", f"export LD_LIBRARY_PATH={folder}\n")
    )
    assert roots(examine(machine)) == {
        "cuda-compat-lib-error-803",
        "driver-library-version-mismatch-after-upgrade",
    }


def test_of_a_chain_of_links_only_the_wrong_one_is_named(examine: Examine) -> None:
    lib = "/usr/lib/x86_64-linux-gnu"
    machine = (
        Machine.ubuntu2404_gpu()
        .library(f"{lib}/libother.so.3", "libother.so.3")
        .link(f"{lib}/libcudnn.so.8", "libother.so.3")
        .link(f"{lib}/libcudnn.so", "libcudnn.so.8")
    )
    found = [d.finding for d in examine(machine).findings if d.finding.id == "cudnn-fake-symlink-wrong-library"]
    assert [f.subject for f in found] == [f"file:{lib}/libcudnn.so.8"]


def test_a_stub_is_not_an_old_driver(examine: Examine) -> None:
    machine = (
        Machine.debian12_gpu()
        .cuda_toolkit("12.2")
        .file(
            "/etc/ld.so.conf.d/000_cuda.conf", "/usr/local/cuda/lib64/stubs\n/usr/local/cuda/targets/x86_64-linux/lib\n"
        )
    )
    found = roots(examine(machine))
    assert "libcuda-stub-loaded" in found
    assert "cuda-runtime-newer-than-driver" not in found


@pytest.mark.parametrize(
    "machine",
    [
        Machine.debian12(),
        Machine.debian12_gpu(),
        Machine.ubuntu2404(),
        Machine.ubuntu2404_gpu(),
        Machine.ubuntu1604_runfile(),
    ],
    ids=["debian", "debian gpu", "ubuntu", "ubuntu gpu", "ubuntu 16.04 of the mission"],
)
def test_healthy_machines_are_silent(machine: Machine, examine: Examine) -> None:
    assert not [d.finding for d in examine(machine).findings if d.finding.severity != "note"]


@pytest.mark.parametrize(
    ("machine", "cause"),
    [
        (Machine.ubuntu2404_gpu().gpu("1180", driver=""), "legacy-gpu-needs-470-390-340"),
        (Machine.ubuntu2404_gpu().gpu("2b85", driver=""), "driver-too-old-for-new-gpu"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_loop_without_a_word_of_glx_is_the_missing_drivers(machine: Machine, cause: str, examine: Examine) -> None:
    diagnosis = examine(machine.login_loop("alice"))
    assert cause in folded(diagnosis)["login-loop-unexplained"]
    assert roots(diagnosis) == {cause}


class NothingComputes(Rule):
    """A symptom that dlhealth does not know yet."""

    id = "nothing-computes"
    title = "No program can use the GPU"
    layer = Layer.RUNTIME
    stage = Stage.APPLICATIONS
    severity = Severity.ERROR
    explained_by = (
        "driver-library-version-mismatch-after-upgrade",
        "gpu-driver-hung",
        "gpu-not-on-bus",
        "nvidia-module-not-loaded",
        "rminitadapter-failed",
    )

    def detect(self) -> Iterator[Finding]:
        yield self.finding("host", "No program can use the GPU", Evidence("a program", "no CUDA-capable device"))


@pytest.mark.parametrize(("machine", "expected"), DRIVER_DOWN.values(), ids=DRIVER_DOWN.keys())
def test_a_new_symptom_of_a_driver_that_is_down_names_its_causes_itself(
    machine: Machine, expected: str, rules: tuple[Rule, ...], tmp_path: Path
) -> None:
    """It names the nearest ones; what lies behind them is in the graph. No other rule's file has to know it."""
    machine.build(tmp_path)
    diagnosis = diagnose((*rules, NothingComputes()), Facts(RootHost(str(tmp_path)), Options()))
    assert roots(diagnosis) == {expected}
    assert expected in folded(diagnosis)[NothingComputes.id]
