"""The forms in which people post outputs: with the marks of pages and terminals, of many programs, as one thread."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule, plans
from dlhealth.host import Host, Unreadable
from dlhealth.host.locate import host_at
from dlhealth.host.posted.text import decode, plain
from dlhealth.host.posted.transcript import commands
from dlhealth.model import Diagnosis, Health, Severity
from dlhealth.probes import Options, Unavailable
from dlhealth.probes.driver.gpu import Gpus
from dlhealth.probes.login.environment import Environments
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.probes.machine.platform import Platform, PlatformSetting
from dlhealth.probes.packaging.packages import Packages
from dlhealth.probes.python.pythonenv import PythonEnvironments

Judge = Callable[..., Diagnosis]
SMI = """\
| NVIDIA-SMI 570.133.07             Driver Version: 570.133.07     CUDA Version: 12.8     |
|-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
|=========================================+========================+======================|
|   0  NVIDIA GeForce RTX 5090        Off |   00000000:01:00.0  On |                  N/A |
"""
FAILED = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.\n"
REJECTED = "[    3.412345] Loading of module with unavailable key is rejected\n"
COLLECTED = """\
PyTorch version: 2.3.0+cpu
CUDA used to build PyTorch: Could not collect
OS: Ubuntu 22.04.4 LTS (x86_64)
Python version: 3.10.12 (main, Nov 20 2023, 15:14:05) [GCC 11.4.0] (64-bit runtime)
Python platform: Linux-6.5.0-35-generic-x86_64-with-glibc2.35
GPU models and configuration: GPU 0: NVIDIA GeForce RTX 3090
Nvidia driver version: 535.171.04

Versions of relevant libraries:
[pip3] numpy==1.26.4
[pip3] torch==2.3.0+cpu
"""
PIP = "Package                  Version\n------------------------ ---------\nnvidia-cuda-runtime-cu12 12.4.127\ntorch                    2.6.0\n"
CONDA = """\
# packages in environment at /home/joe/miniconda3/envs/ml:
#
# Name                    Version                   Build  Channel
python                    3.11.8               h955ad1f_0
pytorch                   2.2.2              py3.11_cpu_0    pytorch
"""
ENV = "SHELL=/bin/bash\nHOME=/home/joe\nLANG=C.UTF-8\nUSER=joe\nCUDA_VISIBLE_DEVICES=-1\nPATH=/usr/local/bin:/usr/bin:/bin\nTERM=xterm\n"


def folder(path: Path, *texts: str) -> str:
    for number, text in enumerate(texts):
        (path / f"piece{number}").write_text(text)
    return str(path)


@pytest.fixture
def judged(rules: tuple[Rule, ...], tmp_path: Path) -> Judge:
    def judge(*texts: str) -> Diagnosis:
        found = diagnose(rules, Facts(host_at(folder(tmp_path, *texts)), Options()))
        assert not found.failed, found.failed
        return found

    return judge


@pytest.fixture
def host(tmp_path: Path) -> Callable[..., Host]:
    return lambda *texts: host_at(folder(tmp_path, *texts))


def facts(host: Host) -> Facts:
    return Facts(host, Options())


def roots(diagnosis: Diagnosis) -> set[str]:
    return {f.id for f in diagnosis.root_causes}


class TestMarks:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
    def test_encodings(self, encoding: str) -> None:
        assert decode(("NVRM: loading\n" * 40).encode(encoding)).startswith("NVRM: loading")

    @pytest.mark.parametrize(
        "text",
        [
            "NVRM: x\r\nNVRM: y\r\n",
            "\x1b[32mNVRM: x\x1b[0m\nNVRM: y\n",
            "> NVRM: x\n> NVRM: y\n> NVRM: z\n",
            "<pre><code>NVRM: x\nNVRM: y\n</code></pre>",
            "Here:\n\n    NVRM: x\n    NVRM: y\n\nThanks\n",
            "NVRM:\u00a0x\nNVRM: y\n",
        ],
    )
    def test_are_taken_out(self, text: str) -> None:
        lines = plain(text).split("\n")
        assert "NVRM: x" in lines
        assert "NVRM: y" in lines

    def test_entities_of_html(self) -> None:
        assert plain("name=&lt;unknown&gt; &amp;&amp; &#39;x&#39;") == "name=<unknown> && 'x'"

    def test_text_that_only_looks_like_marks_stays(self) -> None:
        text = "[    5.123456] NVRM: name=<unknown>, pid=<x>\nlibc6:\n\tlibcuda.so.1 => /usr/lib/libcuda.so.1\n"
        assert plain(text) == text


class TestTranscript:
    @pytest.mark.parametrize(
        "prompt",
        [
            "bob@box:~$ ",
            "(base) bob@box:~/src$ ",
            "[bob@box ~]$ ",
            "root@box:/# ",
            "$ ",
            "# ",
            "bob@box ~ % ",
            "❯ ",
            "➜  ~ ",
        ],
    )
    def test_prompts(self, prompt: str) -> None:
        text = f"{prompt}cat /etc/hostname\nbox\n{prompt}nvidia-smi\nNo devices were found\n"
        assert next((c.words, c.output) for c in commands(text)) == (("cat", "/etc/hostname"), "box")

    def test_a_comment_is_no_prompt(self) -> None:
        assert not list(commands("# this file is made by the installer\n# cats and dogs\nblacklist nouveau\n"))

    def test_a_file_that_somebody_printed(self, host: Callable[..., Host]) -> None:
        shown = host("bob@box:~$ sudo cat /etc/modprobe.d/x.conf\nblacklist nvidia\nbob@box:~$ cat ~/.profile\nX=1\n")
        assert shown.text("/etc/modprobe.d/x.conf") == "blacklist nvidia\n"
        assert shown.text("/home/bob/.profile") == "X=1\n"

    def test_a_directory_that_somebody_listed(self, host: Callable[..., Host]) -> None:
        shown = host(
            "bob@box:~$ ls -la /usr/local\ntotal 8\ndrwxr-xr-x 12 root root 4096 Jan  2  2024 .\n"
            "lrwxrwxrwx  1 root root   21 Jan  2  2024 cuda -> /usr/local/cuda-11.8\n"
            "drwxr-xr-x 15 root root 4096 Jan  2  2024 cuda-12.1\nbob@box:~$ \n"
        )
        assert shown.listdir("/usr/local") == ("cuda", "cuda-12.1")
        assert not shown.exists("/usr/local/cuda")

    def test_a_grep_shows_every_package_of_that_word(self, host: Callable[..., Host]) -> None:
        line = "ii  libnvidia-compute-550:amd64  550.120-0ubuntu0.24.04.1  amd64  NVIDIA libcompute package\n"
        packages: Packages = facts(host(f"bob@box:~$ dpkg -l | grep -i nvidia\n{line}bob@box:~$ \n")).get(Packages)
        assert packages.get("nvidia-dkms-550") is None
        with pytest.raises(Unavailable):
            packages.get("linux-headers-generic")

    def test_no_such_file(self, host: Callable[..., Host]) -> None:
        shown = host("ls: cannot access '/usr/lib/x86_64-linux-gnu/libcuda.so.1': No such file or directory\n")
        assert not shown.exists("/usr/lib/x86_64-linux-gnu/libcuda.so.1")
        with pytest.raises(Unreadable):
            shown.exists("/usr/lib/x86_64-linux-gnu/libcuda.so")


class TestKernel:
    @pytest.mark.parametrize(
        "text",
        [
            "bob@box:~$ uname -r\n6.8.0-45-generic\n",
            "6.8.0-45-generic\n",
            "Kernel: 6.8.0-45-generic x86_64 bits: 64\n",
            "           Kernel: Linux 6.8.0-45-generic\n",
            "modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.8.0-45-generic\n",
            "modprobe: FATAL: Module nvidia not found in directory /usr/lib/modules/6.8.0-45-generic\n",
            COLLECTED.replace("6.5.0-35", "6.8.0-45"),
        ],
    )
    def test_its_release(self, text: str, host: Callable[..., Host]) -> None:
        assert facts(host(text)).get(Kernel).running == "6.8.0-45-generic"

    def test_a_rejected_key_in_a_log_alone(self, judged: Judge) -> None:
        assert roots(judged(REJECTED)) == {"secure-boot-mok-not-enrolled"}

    def test_the_same_while_the_driver_works(self, judged: Judge) -> None:
        started = "[    4.1] x\n[    4.100000] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
        assert not roots(judged(REJECTED + started))

    def test_what_modprobe_says_of_a_key(self, judged: Judge) -> None:
        assert roots(judged("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service\n")) == {
            "secure-boot-mok-not-enrolled"
        }

    def test_an_unsigned_module(self, judged: Judge) -> None:
        said = "[    3.4] x\n[    3.412345] Lockdown: modprobe: unsigned module loading is restricted; see man kernel_lockdown.7\n"
        assert roots(judged(said)) == {"secure-boot-unsigned-module"}

    def test_a_legacy_gpu_in_a_log_alone(self, judged: Judge) -> None:
        said = (
            "[    5.412345] NVRM: The NVIDIA GeForce GT 730 GPU installed in this system is\n"
            "               NVRM:  supported through the NVIDIA 470.xx Legacy drivers. Please\n"
            "               NVRM:  visit http://www.nvidia.com/object/unix.html for more\n"
            "               NVRM:  information.  The 535.129.03 NVIDIA driver will ignore\n"
            "               NVRM:  this GPU.  Continuing probe...\n"
        )
        assert roots(judged(said)) == {"legacy-gpu-needs-470-390-340"}

    def test_a_list_of_devices_without_numbers(self, judged: Judge) -> None:
        text = (
            "00:02.0 VGA compatible controller: Intel Corporation HD Graphics 630\n"
            "1a:00.0 3D controller: NVIDIA Corporation GP107M [GeForce GTX 1050 Mobile] (rev a1)\n"
            "\n$ cat /etc/X11/xorg.conf.d/10-gpu.conf\n"
            'Section "Device"\n  Identifier "gpu"\n  Driver "nvidia"\n  BusID "PCI:1a:0:0"\nEndSection\n$ exit\n'
        )
        (found,) = judged(text).findings
        assert found.finding.id == "xorg-conf-wrong-busid"
        assert "PCI:26:0:0" in found.finding.title

    @pytest.mark.parametrize(
        ("holder", "able", "fault"),
        [
            ("nova_core", "nouveau, nova_core, nvidia_drm, nvidia", "nova-core-claims-gpu"),
            ("nouveau", "nouveau, nvidia_drm, nvidia", "nouveau-bound-instead-of-nvidia"),
            ("nouveau", "nvidiafb, nouveau", "dkms-module-missing-for-running-kernel"),
        ],
    )
    def test_modules_that_the_kernel_has_for_a_gpu(self, judged: Judge, holder: str, able: str, fault: str) -> None:
        text = (
            "Linux box 6.17.0-8-generic #8-Ubuntu SMP x86_64\n"
            "01:00.0 VGA compatible controller [0300]: NVIDIA Corporation GB205 [GeForce RTX 5070] [10de:2f04] (rev a1)\n"
            f"\tKernel driver in use: {holder}\n\tKernel modules: {able}\n\n{FAILED}"
        )
        roots = [d.finding.id for d in judged(text).findings if not d.caused_by]
        assert roots == [fault]

    @pytest.mark.parametrize(
        ("first", "more"),
        [
            ("[Tue Mar  3 09:10:11 2026] ", " " * 27),
            ("[Di  3 Mär 2026 09:10:11] ", " " * 26),
            ("Mär 03 09:10:11 box kernel: ", " " * 28),
            ("mars 3 09:10:11 box kernel: ", " " * 28),
            ("3. mars 09:10:11 box kernel: ", " " * 29),
            ("3月 03 09:10:11 box kernel: ", " " * 28),
        ],
    )
    def test_dates_in_other_languages(self, judged: Judge, first: str, more: str) -> None:
        text = (
            f"{first}NVRM: The NVIDIA NVIDIA GeForce GTX 1060 GPU installed in this system>\n"
            f"{more}NVRM:  supported through the NVIDIA 580.xx Legacy drivers. Please>\n"
            f"{more}NVRM:  information.  The 590.48.01 NVIDIA driver will ignore\n"
        )
        (found,) = judged(text).findings
        assert found.finding.id == "maxwell-pascal-volta-dropped-after-580"
        assert "GeForce GTX 1060" in found.finding.title
        assert "NVIDIA NVIDIA" not in found.finding.title

    @pytest.mark.parametrize(
        "line",
        ["Linux 6.8.1-1015-realtime #16-Ubuntu SMP PREEMPT_RT x86_64", "6.8.1-1015-realtime #16-Ubuntu SMP x86_64"],
    )
    def test_a_kernel_without_the_name_of_the_host(self, tmp_path: Path, line: str) -> None:
        host = host_at(folder(tmp_path, f"### Kernel Release\n\n{line}\n"))
        assert Facts(host, Options()).get(Kernel).running == "6.8.1-1015-realtime"

    def test_messages_without_stamps(self, judged: Judge) -> None:
        said = "NVRM: The NVIDIA GeForce GT 730 GPU installed in this system is\nNVRM:  supported through the NVIDIA 470.xx Legacy drivers. The 535.129.03 NVIDIA driver will ignore\n"
        assert roots(judged(said)) == {"legacy-gpu-needs-470-390-340"}

    @pytest.mark.parametrize(
        "text",
        [
            "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.183\n",
            "[ 5.678901] x\n[12345.678901] NVRM: API mismatch: the client has the version 535.183.01, but\n"
            "               NVRM: this kernel module has the version 535.171.04.  Please\n",
            "[12345.678901] NVRM: API mismatch: the client 'nvidia-smi' (pid 812)\n"
            "               NVRM: has the version 535.183.01, but this kernel module has\n"
            "               NVRM: the version 535.171.04.  Please make sure that this\n",
        ],
    )
    def test_a_mismatch_that_is_only_said(self, text: str, judged: Judge) -> None:
        found = judged(text)
        assert roots(found) == {"driver-library-version-mismatch-after-upgrade"}
        assert "535.183" in found.findings[0].finding.title

    def test_a_failure_that_nothing_explains_is_not_healthy(self, judged: Judge) -> None:
        found = judged(FAILED)
        assert not found.findings
        assert found.health is Health.UNKNOWN

    def test_a_build_that_failed_in_the_output_of_apt(self, judged: Judge) -> None:
        found = judged(
            "6.8.0-45-generic\n",
            FAILED,
            "Setting up nvidia-dkms-535 (535.183.01-0ubuntu0.22.04.1) ...\nBuilding module:\n"
            "Error! Bad return status for module build on kernel: 6.8.0-45-generic (x86_64)\n"
            "Consult /var/lib/dkms/nvidia/535.183.01/build/make.log for more information.\n"
            "dpkg: error processing package nvidia-dkms-535 (--configure):\n"
            " installed nvidia-dkms-535 package post-installation script subprocess returned error exit status 10\n"
            "bob@box:~$ tail /var/lib/dkms/nvidia/535.183.01/build/make.log\n"
            "/var/lib/dkms/nvidia/535.183.01/build/nvidia/nv.c:12:3: internal compiler error: Segmentation fault\n",
        )
        assert roots(found) == {"half-configured-driver-packages"}
        assert "internal compiler error" in found.findings[0].finding.title

    def test_the_module_of_another_package(self, judged: Judge) -> None:
        found = judged(
            "Error! Bad return status for module build on kernel: 6.8.0-45-generic (x86_64)\n"
            "Consult /var/lib/dkms/rtl88x2bu/5.8.7/build/make.log for more information.\n"
            "dpkg: error processing package rtl88x2bu-dkms (--configure):\n"
        )
        assert roots(found) == {"other-dkms-module-fails"}

    def test_a_script_that_finds_no_module_of_python(self, judged: Judge) -> None:
        """It is the cause of the package's state, which the same text shows."""
        found = judged(
            "Setting up nvidia-dkms-535 (535.183.01-0ubuntu0.22.04.1) ...\nTraceback (most recent call last):\n"
            '  File "/usr/bin/quirks-handler", line 20, in <module>\n    import Quirks.x\n'
            "ModuleNotFoundError: No module named 'Quirks'\n"
            "dpkg: error processing package nvidia-dkms-535 (--configure):\n"
        )
        assert roots(found) == {"system-python-changed-breaks-postinst"}

    def test_headers_that_dkms_does_not_find(self, judged: Judge) -> None:
        found = judged(
            "bob@box:~$ uname -r\n6.8.0-45-generic\n" + FAILED,
            "nvidia/535.183.01: added\n",
            "Error! Your kernel headers for kernel 6.8.0-45-generic cannot be found at\n/lib/modules/6.8.0-45-generic/build.\n",
        )
        assert roots(found) == {"kernel-headers-missing"}


class TestPackages:
    @pytest.mark.parametrize(
        ("text", "state"),
        [
            ("nvidia-driver-550/jammy-updates,now 550.120-0ubuntu0.22.04.1 amd64 [installed,automatic]\n", "installed"),
            ("nvidia-driver-550/now 550.120-0ubuntu0.22.04.1 amd64 [installed,local]\n", "installed"),
            ("nvidia-driver-550/now 550.120-0ubuntu0.22.04.1 amd64 [residual-config]\n", "config-files"),
            (
                "nvidia-driver-550:\n  Installed: 550.120-0ubuntu0.22.04.1\n  Candidate: 550.120-0ubuntu0.22.04.1\n",
                "installed",
            ),
            ("nvidia-driver-550:\n  Installed: (none)\n  Candidate: 550.120-0ubuntu0.22.04.1\n", "not-installed"),
            ("un  nvidia-driver-550  <none>  <none>  (no description available)\n", "not-installed"),
            ("nvidia-driver-550\t\t\thold\n", "installed"),
            ("dpkg: error processing package nvidia-driver-550 (--configure):\n", "half-configured"),
        ],
    )
    def test_forms(self, text: str, state: str, host: Callable[..., Host]) -> None:
        package = facts(host(text)).get(Packages).get("nvidia-driver-550")
        assert package.state == state


class TestGpus:
    @pytest.mark.parametrize(
        "text",
        [
            "== /sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0 ==\nmodalias : pci:v000010DEd00001B06sv00003842sd00006696bc03sc00i00\nvendor   : NVIDIA Corporation\n",
            "Graphics:\n  Device-1: NVIDIA GP102 [GeForce GTX 1080 Ti] vendor: eVga.com. driver: nvidia v: 535.183.01\n    bus-ID: 01:00.0 chip-ID: 10de:1b06 class-ID: 0300\n",
            "GPU 00000000:01:00.0\n    Product Name                          : NVIDIA GeForce GTX 1080 Ti\n    Device Id                         : 0x1B0610DE\n",
        ],
    )
    def test_by_their_numbers(self, text: str, host: Callable[..., Host]) -> None:
        loaded = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n"
        gpu = facts(host(text, loaded)).get(Gpus).gpus[0]
        assert (gpu.address, gpu.device) == ("0000:01:00.0", "1b06")

    @pytest.mark.parametrize("text", [SMI, "GPU 0: NVIDIA GeForce RTX 5090 (UUID: GPU-1)\n"])
    def test_by_their_names(self, text: str, host: Callable[..., Host]) -> None:
        gpu = facts(host(text)).get(Gpus).gpus[0]
        assert (gpu.architecture, gpu.capability, gpu.driver) == ("Blackwell", "12.0", "nvidia")


class TestPython:
    def test_what_pytorch_collected(self, judged: Judge) -> None:
        assert roots(judged(COLLECTED)) == {"torch-cpu-only-build"}

    def test_what_pytorch_collected_on_a_jetson(self, judged: Judge) -> None:
        text = COLLECTED.replace("6.5.0-35-generic-x86_64", "5.15.136-tegra-aarch64").replace("535.171.04", "N/A")
        found = judged(text.replace("NVIDIA GeForce RTX 3090", "Orin (nvgpu)"))
        assert roots(found) == {"torch-cpu-only-build"}

    def test_what_an_old_pytorch_collected(self, judged: Judge) -> None:
        text = COLLECTED.replace("PyTorch version: ", "PyTorch version ").replace("\nOS: ", "\nOs: ")
        assert roots(judged(text)) == {"torch-cpu-only-build"}

    @pytest.mark.parametrize(
        "text",
        [
            ">>> import torch\n>>> torch.__version__\n'2.3.0+cu121'\n>>> torch.version.cuda\n'12.1'\n>>> torch.cuda.is_available()\nFalse\n",
            "$ python -c 'import torch; print(torch.__version__, torch.version.cuda)'\n2.3.0+cu121 12.1\n",
            "import torch\nprint(torch.__version__)\nprint(torch.cuda.is_available())\nprint(torch.version.cuda)\n\n2.3.0+cu121\nFalse\n12.1\n",
            "In [2]: torch.__version__\nOut[2]: '2.3.0+cu121'\n",
            "torch.__version__: 2.3.0+cu121\n",
            "Name: torch\nVersion: 2.3.0+cu121\nSummary: Tensors\n",
        ],
    )
    def test_what_python_answered(self, text: str, host: Callable[..., Host]) -> None:
        environments: PythonEnvironments = facts(host(text)).get(PythonEnvironments)
        assert (environments.environments[0].torch.version, environments.environments[0].torch.cuda) == (
            "2.3.0+cu121",
            "12.1",
        )

    def test_the_first_answer_counts(self, judged: Judge) -> None:
        later = ">>> torch.version.cuda\n>>> torch.__version__\n'2.3.0+cu121'\n'12.1'\n"
        assert roots(judged(f">>> torch.version.cuda\nNone\n>>> torch.__version__\n'2.3.0'\n{later}", SMI)) == {
            "torch-cpu-only-build"
        }

    @pytest.mark.parametrize(
        "text", ["torch.__version__ must be 2.x\n", ">>> torch.__version__\nTraceback (most recent\n2.3.0\n"]
    )
    def test_a_question_without_an_answer(self, text: str, host: Callable[..., Host]) -> None:
        with pytest.raises(Unreadable, match="not in the posted files"):
            host(text, FAILED).text("/path/to/environment/pyvenv.cfg")

    def test_a_list_of_pip_and_a_gpu(self, judged: Judge) -> None:
        assert roots(judged(PIP, SMI)) == {"torch-no-kernel-image-new-gpu"}

    def test_a_list_of_conda(self, judged: Judge) -> None:
        found = judged(CONDA, SMI)
        assert roots(found) == {"torch-cpu-only-build"}
        assert found.findings[0].finding.subject == "python:/home/joe/miniconda3/envs/ml"

    def test_pinned_requirements(self, host: Callable[..., Host]) -> None:
        environments: PythonEnvironments = facts(host("numpy==1.26.4\ntorch==2.3.0+cu121\n")).get(PythonEnvironments)
        assert environments.environments[0].torch.cuda == "12.1"


class TestSession:
    def test_a_start_up_file_that_somebody_printed(self, judged: Judge) -> None:
        (found,) = [
            d.finding
            for d in judged("$ cat ~/.bashrc\nexport PATH=/usr/local/cuda/bin\n$ ls\nls: command not found\n").findings
        ]
        assert (found.id, found.subject) == ("ld-library-path-malformed", "user:user")

    @pytest.mark.parametrize(
        ("answer", "setting"), [("lxc", PlatformSetting.CONTAINER), ("kvm", PlatformSetting.MACHINE)]
    )
    def test_what_systemd_says_of_a_container(
        self, answer: str, setting: PlatformSetting, host: Callable[..., Host]
    ) -> None:
        platform: Platform = facts(host(f"root@ct101:~# systemd-detect-virt\n{answer}\n{FAILED}")).get(Platform)
        assert platform.setting is setting

    def test_env(self, judged: Judge) -> None:
        assert roots(judged(ENV, SMI)) == {"cuda-visible-devices-wrong"}

    def test_its_path_is_known(self, host: Callable[..., Host]) -> None:
        environments: Environments = facts(host(ENV)).get(Environments)
        assert environments.value("joe", "PATH") == "/usr/local/bin:/usr/bin:/bin"
        assert environments.value("joe", "LD_LIBRARY_PATH") == ""

    def test_one_variable(self, host: Callable[..., Host]) -> None:
        environments: Environments = facts(host("joe@box:~$ echo $LD_LIBRARY_PATH\n/opt/x:\njoe@box:~$ \n")).get(
            Environments
        )
        assert environments.value("joe", "LD_LIBRARY_PATH") == "/opt/x:"
        assert environments.value("joe", "CUDA_HOME") is None

    def test_a_script_is_not_taken_for_env(self, host: Callable[..., Host]) -> None:
        script = "uname -r\n6.8.0-45-generic\nexport PATH=/opt/x:$PATH\nexport HOME=/x\nexport SHELL=/bin/sh\nexport USER=x\n"
        assert host(script).environment is None

    def test_a_start_up_file(self, tmp_path: Path, rules: tuple[Rule, ...]) -> None:
        (tmp_path / ".bashrc").write_text("export PATH=/usr/local/cuda/bin\n")
        (tmp_path / "smi").write_text(SMI)
        found = diagnose(rules, Facts(host_at(str(tmp_path)), Options()))
        assert {f.id for f in found.root_causes} <= {"login-loop-broken-path-environment", "ld-library-path-malformed"}
        assert found.root_causes


def test_a_whole_thread(judged: Judge) -> None:
    found = judged(
        "### Driver gone\n\nAfter the update nothing works. &gt;:(\n\n```console\nalice@box:~$ nvidia-smi\n" + FAILED +
        "\nalice@box:~$ uname -r\n6.8.0-45-generic\nalice@box:~$ sudo modprobe nvidia\n"
        "modprobe: FATAL: Module nvidia not found in directory /lib/modules/6.8.0-45-generic\n"
        "alice@box:~$ dkms status\nalice@box:~$ dpkg -l | grep -i nvidia\n"
        "ii  libnvidia-compute-550:amd64  550.120-0ubuntu0.24.04.1  amd64  NVIDIA libcompute package\n"
        "ii  linux-modules-nvidia-550-6.8.0-44-generic  6.8.0-44.44+1  amd64  Linux kernel nvidia modules\n"
        "ii  nvidia-driver-550  550.120-0ubuntu0.24.04.1  amd64  NVIDIA driver metapackage\n```\n\n@bob: same here\n"
    )  # fmt: skip
    assert roots(found) == {"dkms-module-missing-for-running-kernel"}
    assert "6.8.0-45-generic" in found.findings[0].finding.title


SAID = {
    "closed-module-on-blackwell": "Jul 01 22:55:07 box kernel: NVRM: The NVIDIA GPU 0000:01:00.0 (PCI ID: 10de:2b85)\n"
    "                                  NVRM: installed in this system requires use of the NVIDIA open kernel modules.\n",
    "open-module-on-unsupported-gpu": "[ 1157.036170] PKCS#7 signature not signed with a trusted key\n"
    "[ 1157.046099] NVRM: The NVIDIA GPU 0000:af:00.0 (PCI ID: 10de:1db5)\n"
    "               NVRM: installed in this system is not supported by open\n"
    "               NVRM: nvidia.ko because it does not include the required GPU\n",
    "rminitadapter-failed": "[  903.610907] NVRM: GPU 0000:98:00.0: RmInitAdapter failed! (0x62:0x65:1792)\n"
    "[  903.611884] NVRM: GPU 0000:98:00.0: rm_init_adapter failed, device minor number 0\n",
    "nouveau-bound-instead-of-nvidia": "[  549.976351] NVRM: The NVIDIA probe routine was not called for 3 device(s).\n"
    "[  549.977053] NVRM: This can occur when a driver such as: \n",
    "held-packages-block-driver": "hi  nvidia-dkms-535  535.129.03-0ubuntu0.22.04.1  amd64  NVIDIA DKMS package\n"
    "ii  libnvidia-compute-535:amd64  535.183.01-0ubuntu0.22.04.1  amd64  NVIDIA libcompute package\n",
    "other-dkms-module-fails": "Error! Bad return status for module build on kernel: 6.8.0-45-generic (x86_64)\n"
    "Consult /var/lib/dkms/virtualbox/7.0.16/build/make.log for more information.\n"
    "dpkg: Fehler beim Bearbeiten des Paketes linux-headers-6.8.0-45-generic (--configure):\n",
    "dkms-module-missing-for-running-kernel": f"$ sudo dkms install -m nvidia -v 470.86\n{FAILED}"
    "Error! Bad return status for module build on kernel: 5.13.18-custom (x86_64)\n",
}
"""By the fault that it proves, what somebody posted alone."""


@pytest.mark.parametrize("fault", SAID)
def test_one_output_alone(fault: str, judged: Judge) -> None:
    assert roots(judged(SAID[fault])) == {fault}


def test_no_module_where_nvidia_smi_found_no_driver(judged: Judge) -> None:
    found = judged(
        f"$ nvidia-smi\n{FAILED}$ uname -r\n3.13.0-116-generic\n$ sudo modprobe nvidia\nmodprobe: FATAL: Module nvidia not found.\n$ \n"
    )
    assert roots(found) == {"dkms-module-missing-for-running-kernel"}


def test_a_part_of_the_packages_is_not_healthy(judged: Judge) -> None:
    found = judged("ii  nvidia-settings  535.171.04-0ubuntu0.22.04.1  amd64  Tool\n")
    assert found.health is Health.UNKNOWN


@pytest.mark.parametrize(
    "text",
    ["uname -r 5.15.0-157-generic\n", "### Kernel Release\n\n5.15.0-157-generic\n", "**Kernel:** 5.15.0-157-generic\n"],
)
def test_the_forms_of_bug_trackers(text: str, host: Callable[..., Host]) -> None:
    assert facts(host(text)).get(Kernel).running == "5.15.0-157-generic"


@pytest.mark.parametrize(
    ("text", "likely"),
    [
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "torch-no-kernel-image"),
        ("RuntimeError: Error 803: system has unsupported display driver / cuda driver combination", "driver-library"),
        (
            "E cuda_dnn.cc:397] Loaded runtime CuDNN library: 8.0.2 but source was compiled with: 8.6.0.  CuDNN library "
            "needs to have matching major version",
            "ld-library-path-old-cudnn",
        ),
        (
            "W py_utils.cc:38] TF-TRT Warning: Could not find TensorRT\n"
            "I cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.",
            "tf-cannot-dlopen-gpu-libraries",
        ),
    ],
)
def test_an_ambiguous_error_alone_is_unknown_and_names_its_most_probable_cause(
    text: str, likely: str, judged: Judge
) -> None:
    diagnosis = judged(f"It fails since Monday:\n{text}\n")
    assert diagnosis.health is Health.UNKNOWN
    assert not diagnosis.findings
    assert f"most probable: {likely}" in str(diagnosis.doubt)


@pytest.mark.parametrize(
    "text",
    [
        "nvcc: NVIDIA (R) Cuda compiler driver\nBuilt on x\nCuda compilation tools, release 11.5, V11.5.119\n",
        "Server:\n Storage Driver: overlay2\n Runtimes: io.containerd.runc.v2 nvidia runc\n Default Runtime: runc\n",
    ],
)
def test_outputs_that_show_little_are_recognized(text: str, host: Callable[..., Host]) -> None:
    assert not host(text).symptoms


class TestErrorsThatProve:
    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            (
                "Mar 02 10:11:12 box webui[77]: NVIDIA GeForce RTX 5070 with CUDA capability sm_120 is not compatible with the "
                "current PyTorch installation.\nMar 02 10:11:12 box webui[77]: The current PyTorch install supports CUDA "
                "capabilities sm_50 sm_90.",
                "torch-no-kernel-image-new-gpu",
            ),
            (
                'app-1  | Error response from daemon: could not select device driver "" with capabilities: [[gpu]]',
                "docker-nvidia-runtime-not-configured",
            ),
            (
                "RuntimeWarning: JAX plugin jax_cuda12_plugin version 0.7.2 is installed, but it is not compatible with the "
                "installed jaxlib version 0.7.0, so it will not be used.",
                "jax-gpu-backend-unavailable",
            ),
        ],
    )
    def test_are_findings(self, text: str, fault: str, judged: Judge) -> None:
        diagnosis = judged(f"What now?\n{text}\nThanks\n")
        assert roots(diagnosis) == {fault}
        (found,) = diagnosis.findings
        assert found.remedy
        assert found.finding.evidence[0].source == "piece0"

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("what():  Error (burn.cpp:1): system not yet initialized\n", "fabricmanager-missing-or-mismatched"),
            ("/sbin/ldconfig: /usr/lib64/libcudnn.so.8 is not a symbolic link\n", "cudnn-links-are-copies"),
            ("lstat /dev/nvidia-uvm: no such file or directory\n", "uvm-device-node-missing"),
            (
                "Failed to initialize NVML: Unknown Error\n\n\n\n\nuser@box:~$ grep no-cg config.toml\nno-cgroups = true\n",
                "container-toolkit-no-cgroups",
            ),
        ],
    )
    def test_that_name_no_program_are_findings(self, text: str, fault: str, judged: Judge) -> None:
        assert roots(judged(f"Since the update:\n{text}")) == {fault}

    def test_the_whole_message_counts_for_the_most_probable_cause(self, judged: Judge) -> None:
        start = "Error response from daemon: OCI runtime create failed: nvidia-container-cli: " + "x" * 400
        diagnosis = judged(f"{start} initialization error: cuda error: unknown error\n")
        assert diagnosis.health is Health.UNKNOWN
        assert "most probable: uvm-" in str(diagnosis.doubt)

    def test_outputs_beside_them_are_more_exact(self, judged: Judge) -> None:
        diagnosis = judged(COLLECTED, "AssertionError: Torch not compiled with CUDA enabled\n")
        assert [d.finding.subject for d in diagnosis.findings if d.finding.id == "torch-cpu-only-build"] == [
            "python:/path/to/environment"
        ]

    @pytest.mark.parametrize(
        "output",
        [" OS/Arch:           windows/amd64\n", "PS C:\\Users\\joe> docker run --rm --gpus all x nvidia-smi\n"],
    )
    def test_a_docker_on_windows(self, output: str, judged: Judge) -> None:
        error = 'Error response from daemon: could not select device driver "" with capabilities: [[gpu]]\n'
        (found,) = judged(output, error).findings
        assert found.finding.id == "docker-snap-or-desktop"
        assert "Windows" in found.finding.title
        assert found.remedy
        assert "docker context" not in found.remedy.summary

    @pytest.mark.parametrize(
        "output",
        [
            "Client: Docker Engine - Community\n Context:    desktop-linux\nServer:\n Operating System: Docker Desktop\n",
            " Storage Driver: overlay2\n Docker Root Dir: /var/snap/docker/common/var-lib-docker\n",
            "Name    Version   Rev    Tracking       Publisher   Notes\ndocker  27.2.0    2963   latest/stable  canonical  -\n",
        ],
    )
    def test_a_docker_that_does_not_use_the_toolkit(self, output: str, judged: Judge) -> None:
        error = 'Error response from daemon: could not select device driver "" with capabilities: [[gpu]]\n'
        assert roots(judged(output, error)) == {"docker-snap-or-desktop"}

    @pytest.mark.parametrize(
        "text",
        [
            "[    9.1] nvidia: module verification failed: signature and/or required key missing - tainting kernel\n",
            "kern.log: nvidia-modeset: WARNING: GPU:0: Unable to read EDID for display device HDMI-0\n",
        ],
    )
    def test_lines_of_the_kernel_are_no_errors_of_programs(self, text: str, host: Callable[..., Host]) -> None:
        assert not host(SMI, text).symptoms


def test_several_keys_are_missing(judged: Judge) -> None:
    text = "".join(
        f"Err:{n} https://x InRelease\n  The following signatures couldn't be verified because the public key is not available: NO_PUBKEY {key}\n"
        for n, key in ((5, "DDCAE044F796ECB0"), (6, "A4B469963BF863CC"))
    )
    assert [d.finding.id for d in judged(text).findings] == ["cuda-repo-key-rotation"]


def test_the_log_of_a_build_has_marks_of_its_own(judged: Judge) -> None:
    said = "E: Conflicting values set for option Signed-By regarding source https://x/ /: /a.gpg != "
    for mark in ("#11 0.503 ", "2026-03-01T18:33:01.2377449Z "):
        assert [d.finding.id for d in judged(f"{mark}{said}\n").findings] == ["apt-signed-by-conflict"]


def test_what_apt_says_of_dependencies(judged: Judge) -> None:
    text = "#7 1.5  nvidia-dkms-570 : Depends: nvidia-kernel-common-570 (>= 570.133) but 570.86.10-0ubuntu1 is to be installed\n"
    (found,) = judged(text).findings
    assert found.finding.id == "mixed-repositories"
    unclear = judged(
        " nvidia-driver-570 : Depends: libnvidia-gl-570 (= 570.1-0ubuntu1) but it is not going to be installed\n"
    )
    assert "most probable: mixed-repositories, then held-packages-block-driver" in str(unclear.doubt)


MINT = """\
System:    Kernel: 5.15.0-94-generic x86_64 bits: 64 Desktop: Cinnamon 5.8.4 Distro: Linux Mint 21.2 Victoria base: Ubuntu 22.04
Graphics:  Device-1: NVIDIA GP107M [GeForce GTX 1050 Mobile] vendor: Acer driver: N/A bus ID: 01:00.0 chip ID: 10de:1c8d
"""
OLDER = "$ dkms status\nnvidia, 470.223.02, 5.15.0-92-generic, x86_64: installed\n"
HEADERS = "$ dpkg -l | grep linux-headers\nii  linux-headers-5.15.0-92-generic  5.15.0-92.102 amd64 Linux kernel headers\n$ exit\n"


def test_an_older_inxi_and_a_list_of_headers(judged: Judge) -> None:
    diagnosis = judged(f"{MINT}{FAILED}{OLDER}{HEADERS}")
    (root,) = [d for d in diagnosis.findings if not d.caused_by]
    assert root.finding.id == "kernel-headers-missing"
    assert "does not exist" not in root.finding.title
    assert root.remedy
    assert "linux-headers-5.15.0-94-generic" in root.remedy.summary
    assert diagnosis.machine["os"] == "linuxmint 21.2"


def test_without_that_list_the_headers_are_not_known_to_be_missing(judged: Judge) -> None:
    roots = [d.finding.id for d in judged(f"{MINT}{FAILED}{OLDER}").findings if not d.caused_by]
    assert roots == ["dkms-module-missing-for-running-kernel"]


BAD = "Error! Bad return status for module build on kernel: 5.15.27-1-pve (x86_64)\n"
CONSULT = "Consult /var/lib/dkms/nvidia/460.106.00/build/make.log for more information.\n"


@pytest.mark.parametrize("mark", ["         ", "2026-03-01T16:40:50+02:00: ==> amazon-ebs.jammy: ", "==> qemu.base: "])
def test_a_failed_build_in_the_log_of_another_tool(judged: Judge, mark: str) -> None:
    roots = [d.finding.id for d in judged(f"text\n{mark}{BAD}{mark}{CONSULT}").findings if not d.caused_by]
    assert roots == ["kernel-too-new-for-driver-branch"]


def test_a_library_that_tensorflow_lacks_matters_where_a_driver_runs(judged: Judge) -> None:
    """Without a GPU, TensorFlow says the same."""
    lacking = "Could not load dynamic library 'libcudart.so.11.0'; dlerror: libcudart.so.11.0: cannot open shared object file\n"
    assert not judged(lacking).findings
    assert roots(judged(lacking, SMI)) == {"tf-cannot-dlopen-gpu-libraries"}


def test_headers_that_are_not_whole_are_installed_before_the_next_build(
    rules: tuple[Rule, ...], tmp_path: Path
) -> None:
    text = "DKMS make.log for nvidia-560.35.03 for kernel 6.12.1-arch1-1 (x86_64)\nThe Module.symvers file is missing, or\n"
    known = Facts(host_at(folder(tmp_path, text)), Options())
    (found,) = [d.finding for d in diagnose(rules, known).findings]
    rule = next(rule for rule in rules if rule.id == found.id)
    assert found.id == "dkms-module-missing-for-running-kernel"
    assert plans(rule, found, known)[0].summary.startswith("Reinstall the kernel's headers, then build")


def test_an_error_in_the_source_names_the_driver_where_the_kernel_is_unknown(judged: Judge) -> None:
    text = "/var/lib/dkms/nvidia/390.48/build/nvidia/nv.c:98:11: error: implicit declaration of function ‘sys_close’\n"
    (found,) = [d.finding for d in judged(text).findings]
    assert (found.id, found.subject) == ("kernel-too-new-for-driver-branch", "host")
    assert judged(f"{BAD}{CONSULT.replace('460.106.00', '390.48')}{text}").findings[0].finding.subject != "host"


def test_an_error_that_was_cut_out_of_a_make_log(judged: Judge) -> None:
    text = (
        "cc: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'\n"
        "make[3]: *** [scripts/Makefile.build:243: /var/lib/dkms/nvidia/560.35.05/build/nvidia/nv.o] Error 1\n"
        "make[1]: Leaving directory '/usr/src/linux-headers-6.8.0-40-generic'\n"
    )
    (root,) = [d.finding for d in judged(text).findings if not d.caused_by]
    assert (root.id, root.subject) == ("dkms-compiler-mismatch", "kernel:6.8.0-40-generic")
    assert "not installed" not in root.title


@pytest.mark.parametrize("module", ["wl", "src/facer.ko", "vmmon"])
def test_the_rejected_module_of_another_maker(judged: Judge, module: str) -> None:
    said = f"modprobe: ERROR: could not insert '{module}': Key was rejected by service\n"
    assert not judged(f"{said}{REJECTED}").findings
    both = judged(f"{said}{REJECTED}modprobe: ERROR: could not insert 'nvidia': Key was rejected by service\n")
    assert [d.finding.id for d in both.findings] == ["secure-boot-mok-not-enrolled"]


@pytest.mark.parametrize(
    ("line", "shows"),
    [
        (
            "version magic '6.8.0-49-generic SMP mod_unload ' should be '6.8.0-50-generic SMP mod_unload '",
            "6.8.0-49-generic",
        ),
        ("disagrees about version of symbol module_layout", "another build"),
    ],
)
def test_a_module_of_another_kernel(judged: Judge, line: str, shows: str) -> None:
    (found,) = judged(f"[    9.123456] nvidia: {line}\n").findings
    assert found.finding.id == "nvidia-module-not-loaded"
    assert shows in found.finding.title
    assert not judged(f"[    9.123456] r8152: {line}\n").findings
    loaded = "[   20.123456] NVRM: loading NVIDIA UNIX x86_64 Kernel Module  550.120  Fri Sep 13 10:10:01 UTC 2024\n"
    assert not judged(f"[    9.123456] nvidia: {line}\n{loaded}").findings


def test_a_refused_suspend_in_a_log_alone(judged: Judge) -> None:
    said = (
        "NVRM: GPU 0000:01:00.0: PreserveVideoMemoryAllocations module parameter is set. System Power Management "
        "attempted without driver procfs suspend interface."
    )
    assert [d.finding.id for d in judged(f"[  520.123456] {said}\n").findings] == [
        "resume-black-screen-vram-not-preserved"
    ]


XID = "[{at:8}.123456] NVRM: Xid (PCI:0000:{bus}:00): {number}, pid=42, name=python3\n"


@pytest.mark.parametrize(
    ("second", "severity"),
    [
        (XID.format(at=106, bus="01", number=119), Severity.NOTE),
        # Much later, or of another GPU.
        (XID.format(at=900, bus="01", number=119), Severity.ERROR),
        (XID.format(at=106, bus="02", number=119), Severity.ERROR),
    ],
)
def test_an_error_that_followed_another_one(judged: Judge, second: str, severity: Severity) -> None:
    findings = [d.finding for d in judged(XID.format(at=100, bus="01", number=62) + second).findings]
    assert {f.id: f.severity for f in findings} == {
        "xid-61-62-internal-mcu": Severity.ERROR,
        "xid-119-120-gsp-timeout": severity,
    }
    needs = XID.format(at=106, bus="01", number=154).replace("pid=42, name=python3", "GPU recovery action changed")
    findings = [d.finding for d in judged(XID.format(at=100, bus="01", number=109) + needs).findings]
    assert Severity.NOTE not in {f.severity for f in findings}


@pytest.mark.parametrize(
    "error", [FAILED, "Failed to initialize NVML: Driver/library version mismatch\n", "No devices were found\n"]
)
def test_an_error_before_nvidia_smi_worked_is_over(judged: Judge, error: str) -> None:
    diagnosis = judged(f"$ nvidia-smi\n{error}Then I rebooted:\n$ nvidia-smi\n{SMI}")
    assert not diagnosis.findings
    assert diagnosis.unjudged == judged(f"$ nvidia-smi\n{SMI}").unjudged
    assert "nvidia-smi" in str(judged(f"$ nvidia-smi\n{SMI}Then I rebooted:\n$ nvidia-smi\n{FAILED}").unjudged)


def test_the_make_log_names_the_compiler_of_the_kernel(judged: Judge) -> None:
    log = (
        "DKMS make.log for nvidia-560.35.03 for kernel 6.8.0-40-generic (x86_64)\n"
        "  The kernel was built by: x86_64-linux-gnu-gcc-12 (Ubuntu 12.3.0-1ubuntu1~22.04) 12.3.0\n"
        "  You are using:           cc (Ubuntu 11.4.0-1ubuntu1~22.04) 11.4.0\n"
        "cc: error: unrecognized command-line option '-ftrivial-auto-var-init=zero'\n"
    )
    (root,) = [d for d in judged(log).findings if not d.caused_by]
    assert root.finding.id == "dkms-compiler-mismatch"
    assert root.remedy
    assert "gcc-12" in root.remedy.summary


def test_gpus_without_address_space_in_a_log_alone(judged: Judge) -> None:
    text = "".join(
        f"[   28.{n}09029] NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:\n"
        f"               NVRM: BAR1 is 0M @ 0x0 (PCI:0000:{bus}:00.0)\n"
        for n, bus in ((1, "14"), (2, "1c"))
    )
    findings = [d.finding for d in judged(text).findings]
    assert {f.subject for f in findings} == {"gpu:0000:14:00.0", "gpu:0000:1c:00.0"}
    assert {f.id for f in findings} == {"bar-space-above-4g-decoding"}
    assert not judged(
        "[   28.109029] pci 0000:14:00.0: BAR 1: no space for [mem size 0x10000000 64bit pref]\n"
    ).findings


@pytest.mark.parametrize(
    ("text", "likely"),
    [
        ('[    82.201] (EE) Failed to load module "nvidia" (module does not exist, 0)\n', "stale-xorg-conf-nvidia"),
        (
            "mai 13 12:18:03 box gdm[1500]: Gdm: GdmDisplay: Session never registered, failing\n",
            "login-loop-custom-user-unit",
        ),
    ],
)
def test_what_the_desktop_logs(judged: Judge, text: str, likely: str) -> None:
    diagnosis = judged(text)
    assert not diagnosis.findings
    assert f"most probable: {likely}" in str(diagnosis.doubt)
