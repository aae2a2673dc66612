"""What people post is input: bug reports of NVIDIA's, sosreports, and outputs that somebody pasted."""

import gzip
import io
import lzma
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule
from dlhealth.host import Host, NotAMachine, Unreadable
from dlhealth.host.locate import host_at
from dlhealth.host.posted import archive
from dlhealth.model import Diagnosis
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.driver.dkms import Dkms
from dlhealth.probes.driver.gpu import Gpus
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.probes.packaging.apt import AptFailures
from dlhealth.probes.packaging.packages import Packages

LINE = "_" * 44
UNAME = "Linux tower 6.5.0-28-generic #29~22.04.1-Ubuntu SMP PREEMPT_DYNAMIC Thu Apr  4 14:39:20 UTC 2 x86_64 GNU/Linux"
FALLEN = "[  812.004101] NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
LSPCI = """\
00:02.0 VGA compatible controller [0300]: Intel Corporation UHD Graphics 630 [8086:3e92]
\tSubsystem: ASUSTeK Computer Inc. UHD Graphics 630 [1043:8694]
\tKernel driver in use: i915
\tKernel modules: i915
01:00.0 VGA compatible controller [0300]: NVIDIA Corporation GP102 [GeForce GTX 1080 Ti] [10de:1b06] (rev a1)
\tSubsystem: eVga.com. Corp. GP102 [GeForce GTX 1080 Ti] [3842:6696]
\tKernel driver in use: {driver}
\tKernel modules: nvidiafb, nouveau, nvidia_drm, nvidia
"""
NVRM = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Wed Jul 24 23:53:00 UTC 2024\n"
PACKAGES = """\
ii  libnvidia-cfg1-550:amd64     550.120-0ubuntu0.22.04.1  amd64  NVIDIA binary OpenGL/GLX configuration library
ii  libnvidia-compute-550:amd64  550.120-0ubuntu0.22.04.1  amd64  NVIDIA libcompute package
iF  nvidia-dkms-550              550.120-0ubuntu0.22.04.1  amd64  NVIDIA DKMS package
hi  nvidia-driver-550            550.120-0ubuntu0.22.04.1  amd64  NVIDIA driver metapackage
rc  nvidia-utils-535             535.183.01-0ubuntu0.22.04.1  amd64  NVIDIA driver support binaries
"""


def a_file(path: str, text: str, size: int = 0) -> str:
    return f"*** {path}\n*** ls: -r--r--r-- 1 root root {size} 2024-05-02 10:11:12.000000000 +0200 {path}\n{text}"


def bug_report(*sections: str) -> str:
    head = (
        "Start of NVIDIA bug report log file.  Please include this file, along\nwith a detailed description of your problem\n\n"
        f"nvidia-bug-report.sh Version: 34275571\n\nDate: Thu May  2 10:11:12 CEST 2024\nuname: {UNAME}\n"
    )
    return "".join(
        f"{LINE}\n\n{section}\n" for section in (head, a_file("/etc/issue", "Ubuntu 22.04.4 LTS \\n \\l\n"), *sections)
    )


REPORT = bug_report(
    "*** /var/log/nvidia-installer.log does not exist\n",
    f"/usr/bin/lspci -nnDvvvxxxx\n\n{LSPCI.format(driver='nvidia')}",
    f"dmesg:\n\n[    0.000000] Linux version 6.5.0-28-generic (buildd@x) (gcc 12.3.0)\n{FALLEN}\n",
    a_file("/proc/modules", "nvidia 56778752 74 nvidia_uvm, Live 0x0000000000000000 (POE)\n"),
    a_file("/proc/driver/nvidia/./version", NVRM.format("535.171.04")),
)


@pytest.fixture
def judged(rules: tuple[Rule, ...]) -> object:
    def judge(path: Path) -> Diagnosis:
        return diagnose(rules, Facts(host_at(str(path)), Options()))

    return judge


def roots(diagnosis: Diagnosis) -> set[str]:
    assert not diagnosis.failed, diagnosis.failed
    return {f.id for f in diagnosis.root_causes}


def posted(folder: Path, **files: str) -> Path:
    """A directory of pasted outputs, under names that say nothing."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


class TestBugReport:
    def test_the_root_cause(self, tmp_path: Path, judged) -> None:  # type: ignore[no-untyped-def]
        log = tmp_path / "nvidia-bug-report.log"
        log.write_text(REPORT)
        found = judged(log)
        assert roots(found) == {"xid-79-fallen-off-bus"}
        assert found.machine["os"] == "ubuntu 22.04"
        assert found.machine["driver"]["loaded"] == "535.171.04"

    @pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
    def test_packed_and_by_any_name(self, tmp_path: Path, judged, pack) -> None:  # type: ignore[no-untyped-def]
        log = tmp_path / "log(3)"
        log.write_bytes(pack(REPORT.encode()))
        assert roots(judged(log)) == {"xid-79-fallen-off-bus"}

    def test_a_log_that_is_cut_off_tells_what_came_before(self, tmp_path: Path) -> None:
        log = tmp_path / "x.gz"
        noise = os.urandom(40_000).hex()
        log.write_bytes(gzip.compress((REPORT + noise).encode())[:-20_000])
        assert Facts(host_at(str(log)), Options()).get(Kernel).running == "6.5.0-28-generic"

    def test_a_log_in_it_is_only_a_log(self, tmp_path: Path, judged) -> None:  # type: ignore[no-untyped-def]
        said = "Oct 24 14:12:50 box nvidia[7]: Failed to initialize NVML: Driver/library version mismatch\n"
        line = "_" * 44
        log = tmp_path / "log"
        log.write_text(f"{bug_report()}\n{line}\n\njournalctl -b -0 _COMM=Xorg\n\n{said}\n{line}\n")
        assert not judged(log).findings
        log.write_text(f"{bug_report()}\n{line}\n\n/usr/bin/nvidia-smi\n\n{said.partition(': ')[2]}\n{line}\n")
        assert roots(judged(log)) == {"driver-library-version-mismatch-after-upgrade"}

    def test_what_is_not_shown_is_unknown(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text(bug_report())
        facts = Facts(host_at(str(log)), Options())
        host: Host = facts.get(Host)
        for path in ("/usr/lib", "/lib/modules", "/etc/passwd", "/var/lib/dpkg/status"):
            with pytest.raises(Unreadable):
                host.exists(path)
        for fact in (Packages, Dkms, Gpus):
            with pytest.raises(Unavailable):
                facts.get(fact)
        with pytest.raises(Unavailable):
            facts.get(KernelModules).on_disk("6.5.0-28-generic")

    def test_nothing_is_wrong_with_a_machine_of_which_nothing_is_shown(self, tmp_path: Path, judged) -> None:  # type: ignore[no-untyped-def]
        log = tmp_path / "log"
        log.write_text(bug_report())
        found = judged(log)
        assert not found.findings
        assert found.unjudged

    def test_what_the_log_says_is_not_there_is_absent(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text(REPORT)
        assert not host_at(str(log)).exists("/var/log/nvidia-installer.log")

    def test_paths_stay_inside(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        passwd = a_file("/proc/../../../etc/passwd", "root:x:0:0::/:/bin/sh\n")
        link = "*** /etc/x\n*** ls: lrwxrwxrwx 1 root root 9 May  2 10:11 /etc/x -> ../../../../etc/hostname\nmine\n"
        log.write_text(bug_report(passwd, link))
        host = host_at(str(log))
        assert host.text("/etc/x") == "mine\n"
        assert host.realpath("/etc/x") == "/etc/hostname"


class TestPasted:
    def test_a_library_that_is_newer_than_the_loaded_module(self, tmp_path: Path, judged) -> None:  # type: ignore[no-untyped-def]
        folder = posted(tmp_path / "p", a=UNAME + "\n", b=NVRM.format("550.107.02"), c=PACKAGES.replace("iF", "ii"))
        assert roots(judged(folder)) == {"driver-library-version-mismatch-after-upgrade"}

    def test_one_file_with_prompts_and_all_outputs(self, tmp_path: Path, judged) -> None:  # type: ignore[no-untyped-def]
        session = (
            "bob@tower:~$ uname -r\n6.5.0-28-generic\nbob@tower:~$ nvidia-smi\nNVIDIA-SMI has failed because it couldn't "
            "communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.\n"
            "bob@tower:~$ dkms status\nnvidia/535.171.04, 6.5.0-27-generic, x86_64: installed\n"
            f"bob@tower:~$ lspci -nnk\n{LSPCI.format(driver='nouveau')}"
        )
        found = judged(posted(tmp_path / "p", question=session))
        assert roots(found) == {"dkms-module-missing-for-running-kernel"}
        effects = {d.finding.id: d.caused_by for d in found.findings}
        assert "dkms-module-missing-for-running-kernel" in effects.get(
            "nouveau-bound-instead-of-nvidia", ("dkms-module-missing-for-running-kernel",)
        )

    def test_evidence_names_the_output_and_the_file(self, tmp_path: Path, judged) -> None:  # type: ignore[no-untyped-def]
        folder = posted(
            tmp_path / "p", a=UNAME + "\n", smi=NVRM.format("550.107.02"), list=PACKAGES.replace("iF", "ii")
        )
        sources = {e.source for d in judged(folder).findings for e in d.finding.evidence}
        assert "/var/lib/dpkg/status (from dpkg -l, list)" in sources

    def test_dkms_in_its_old_and_its_new_form(self, tmp_path: Path) -> None:
        for text in (
            "nvidia, 470.57.02, 5.4.0-80-generic, x86_64: installed\n",
            "nvidia/470.57.02, 5.4.0-80-generic, x86_64: installed\n",
        ):
            host = host_at(str(posted(tmp_path / "p", a=text)))
            module = Facts(host, Options()).get(Dkms).modules[0]
            assert (module.name, module.version, module.builds[0].kernel) == ("nvidia", "470.57.02", "5.4.0-80-generic")

    def test_a_part_of_a_package_list_proves_no_absence(self, tmp_path: Path) -> None:
        packages: Packages = Facts(host_at(str(posted(tmp_path / "p", a=PACKAGES))), Options()).get(Packages)
        driver, builder = packages.get("nvidia-driver-550"), packages.get("nvidia-dkms-550")
        assert driver is not None
        assert builder is not None
        assert (driver.want, driver.state, builder.state) == ("hold", "installed", "half-configured")
        with pytest.raises(Unavailable):
            packages.get("linux-headers-6.5.0-28-generic")
        with pytest.raises(Unavailable):
            packages.installed("linux-headers-*")

    def test_a_whole_package_list_does(self, tmp_path: Path) -> None:
        others = "".join(f"ii  package{n}  1.{n}-1  amd64  a package\n" for n in range(250))
        text = PACKAGES + others + "ii  dpkg  1.21.1ubuntu2.3  amd64  Debian package management system\n"
        packages: Packages = Facts(host_at(str(posted(tmp_path / "p", a=text))), Options()).get(Packages)
        assert packages.get("linux-headers-6.5.0-28-generic") is None

    def test_lines_of_a_message_that_have_no_stamp(self, tmp_path: Path) -> None:
        log = "[    9.1] x\n[    9.100200] NVRM: API mismatch: the client has the version 550.120, but\n               NVRM: this kernel module has the version 550.107.02.\n"
        host = host_at(str(posted(tmp_path / "p", a=log)))
        assert "[    9.100200] NVRM: this kernel module" in (host.text("/var/log/dmesg") or "")

    def test_a_listing_of_libraries(self, tmp_path: Path) -> None:
        text = (
            "/usr/lib/x86_64-linux-gnu:\n"
            "lrwxrwxrwx 1 root root       21 May  2  2024 libcuda.so.1 -> libcuda.so.535.171.04\n"
            "-rw-r--r-- 1 root root 29867944 May  2  2024 libcuda.so.535.171.04\n"
        )
        host = host_at(str(posted(tmp_path / "p", a=text)))
        assert (
            host.realpath("/usr/lib/x86_64-linux-gnu/libcuda.so.1") == "/usr/lib/x86_64-linux-gnu/libcuda.so.535.171.04"
        )
        assert not host.exists("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
        with pytest.raises(Unreadable):
            host.exists("/usr/lib32/libcuda.so.1")

    def test_the_state_of_secure_boot_hides_no_other_fact(self, tmp_path: Path) -> None:
        folder = posted(tmp_path / "p", a=UNAME + "\n", b="SecureBoot enabled\n", c=NVRM.format("550.107.02"))
        modules: KernelModules = Facts(host_at(str(folder)), Options()).get(KernelModules)
        assert modules.loaded_version == "550.107.02"

    def test_other_text_is_no_machine(self, tmp_path: Path) -> None:
        file = tmp_path / "notes.txt"
        file.write_text("My GPU does not work. What can I do?\n")
        with pytest.raises(NotAMachine, match=r"dlhealth recognizes nothing in it"):
            host_at(str(file))
        with pytest.raises(NotAMachine, match="does not look like the root of a machine"):
            host_at(str(posted(tmp_path / "p", a=file.read_text())))

    def test_links_and_pipes_in_the_directory_are_passed_over(self, tmp_path: Path) -> None:
        folder = posted(tmp_path / "p", a=UNAME + "\n")
        os.mkfifo(folder / "pipe")
        (folder / "secret").symlink_to("/etc/shadow")
        assert Facts(host_at(str(folder)), Options()).get(Kernel).running == "6.5.0-28-generic"


def sosreport(path: Path, mode: str = "w:xz", **members: str) -> Path:
    with tarfile.open(path, mode) as tar:
        for name, text in members.items():
            info = tarfile.TarInfo(f"sosreport-tower-2024/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("sosreport-tower-2024/etc/os-release")
        link.type, link.linkname = tarfile.SYMTYPE, "../usr/lib/os-release"
        tar.addfile(link)
    return path


SOS = {
    "sos_commands/kernel/uname_-a": UNAME + "\n",
    "sos_commands/kernel/dmesg": f"[    0.000000] Linux version 6.5.0-28-generic (b)\n{FALLEN}\n",
    "sos_commands/pci/lspci_-nnvv": LSPCI.format(driver="nvidia"),
    "etc/modprobe.d/blacklist.conf": "blacklist pcspkr\n",
    "usr/lib/os-release": 'ID=ubuntu\nVERSION_ID="22.04"\n',
}


class TestSosreport:
    @pytest.mark.parametrize("mode", ["w:xz", "w:gz", "w:bz2", "w"])
    def test_the_root_cause(self, tmp_path: Path, judged, mode: str) -> None:  # type: ignore[no-untyped-def]
        found = judged(sosreport(tmp_path / "sosreport.tar", mode, **SOS))
        assert roots(found) == {"xid-79-fallen-off-bus"}
        assert found.machine["os"] == "ubuntu 22.04"

    def test_unpacked(self, tmp_path: Path, judged) -> None:  # type: ignore[no-untyped-def]
        subprocess.run(["tar", "-xf", sosreport(tmp_path / "s.tar", "w", **SOS), "-C", tmp_path], check=True)
        assert roots(judged(tmp_path / "sosreport-tower-2024")) == {"xid-79-fallen-off-bus"}

    def test_the_end_of_a_large_log(self, tmp_path: Path, judged) -> None:  # type: ignore[no-untyped-def]
        said = "May 02 10:11:12 tower kernel: NVRM: Xid (PCI:0000:01:00): 48, pid=7, name=a, Ch 00000008\n"
        old = "May 02 09:00:00 tower check[9]: Failed to initialize NVML: Driver/library version mismatch\n"
        members = {"sos_strings/logs/journalctl_--no-pager.tailed": f"{old}{said}", "etc/hostname": "tower\n"}
        found = judged(sosreport(tmp_path / "sosreport.tar", "w", **members))
        assert roots(found) == {"xid-ecc-48-63-64-92-94-95"}

    def test_what_sos_did_not_copy_is_unknown(self, tmp_path: Path) -> None:
        host = host_at(str(sosreport(tmp_path / "s", **SOS)))
        assert host.listdir("/etc/modprobe.d") == ("blacklist.conf",)
        with pytest.raises(Unreadable):
            host.exists("/etc/environment")


class TestHostile:
    def test_a_bomb_ends(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "SIZE_LIMIT", 1 << 20)
        bomb = tmp_path / "log.gz"
        bomb.write_bytes(gzip.compress(b"x" * (4 << 20)))
        with pytest.raises(NotAMachine, match="unpacks to more than 1 MiB"):
            host_at(str(bomb))

    def test_an_archive_of_too_many_members(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archive, "COUNT_LIMIT", 3)
        with pytest.raises(NotAMachine, match="more than 3 members"):
            host_at(str(sosreport(tmp_path / "s", **SOS)))

    def test_an_archive_that_is_cut_off_tells_what_came_before(self, tmp_path: Path) -> None:
        file = sosreport(tmp_path / "s", "w", **SOS)
        file.write_bytes(file.read_bytes()[:4096])
        assert Facts(host_at(str(file)), Options()).get(Kernel).running == "6.5.0-28-generic"

    def test_a_link_that_leads_to_itself(self, tmp_path: Path) -> None:
        text = "/usr/lib:\nlrwxrwxrwx 1 root root 9 May  2  2024 libcuda.so.1 -> libcuda.so.1\n"
        assert not host_at(str(posted(tmp_path / "p", a=text))).exists("/usr/lib/libcuda.so.1")


def test_what_apt_complained_about(tmp_path: Path) -> None:
    """The errors of apt-get update stand in no file of the machine: only who posts them shows them."""
    (tmp_path / "update.txt").write_text(
        "$ sudo apt-get update\nHit:1 http://archive.ubuntu.com/ubuntu jammy InRelease\nReading package lists... Done\n"
        "W: GPG error: https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/x86_64  InRelease: The following "
        "signatures couldn't be verified because the public key is not available: NO_PUBKEY A4B469963BF863CC\n"
    )
    failures = Facts(host_at(str(tmp_path)), Options()).get(AptFailures)
    assert [f.kind for f in failures.failures] == ["no-key"]


DF = """\
Filesystem     Type      Size  Used Avail Use% Mounted on
/dev/nvme0n1p2 ext4      468G  444G  300M 100% /
tmpfs          tmpfs      16G  1.1M   16G   1% /run
/dev/sdb1      xfs       1.9T  1.2T  700G  64% /data
"""


def test_space_on_file_systems(tmp_path: Path) -> None:
    (tmp_path / "df.txt").write_text(f"$ df -hT\n{DF}$ \n")
    host = host_at(str(tmp_path))
    root, data = host.space("/var/lib"), host.space("/data/sets")
    assert root is not None
    assert (root.total, root.free) == (468 << 30, 300 << 20)
    assert data is not None
    assert data.free == 700 << 30


def test_a_report_of_nvidia_smi_is_kept(tmp_path: Path) -> None:
    (tmp_path / "smi.txt").write_text("==============NVSMI LOG==============\n\nGPU 00000000:01:00.0\n")
    host = host_at(str(tmp_path))
    assert (host.posted("nvidia-smi -q") or "").endswith("GPU 00000000:01:00.0\n")
    assert host.posted("nvidia-smi") is None
    with pytest.raises(Unreadable):
        host.space("/")
