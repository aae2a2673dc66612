"""Findings that no scenario has: like those of a scenario, but with other details, or on a machine that is changed."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from dlhealth.api import Unowned
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule
from dlhealth.host.root import RootHost
from dlhealth.model import Finding
from dlhealth.probes import Options
from dlhealth.records import NamedTuple
from dlhealth.testing import Machine, Scenario
from tests.ladders import check_ladder


class Variant(NamedTuple):
    """`details` replace those of the finding that the rule has on the scenario's machine, after `change`."""

    rule: str
    scenario: str
    ladder: tuple[tuple[str, ...], ...]
    details: Mapping[str, object] = {}
    change: Callable[[Machine], Machine] = lambda machine: machine


class Case(NamedTuple):
    """A finding on a machine that is built, and the scenario that states its ladder."""

    scenario: Scenario
    finding: Finding
    facts: Facts

    def check(self, rule: Rule) -> None:
        """Raise AssertionError where the rule's plans are not the stated ones."""
        check_ladder(rule, self.scenario, self.finding, self.facts)


def case_of(variant: Variant, rule: Rule, root: Path) -> Case:
    """Build the machine of a variant and find its fault."""
    scenario = next(s for s in rule.scenarios() if s.name == variant.scenario)
    variant.change(scenario.machine).build(root)
    facts = Facts(RootHost(str(root)), Options(next_boot=scenario.next_boot))
    found = (f for f in facts.call(rule.detect) if isinstance(f, Finding) and f.subject == scenario.finds)
    finding = next(found)
    assert variant.details.keys() <= finding.detail.keys() | _OPTIONAL
    finding = finding._replace(detail={**finding.detail, **variant.details})
    return Case(scenario._replace(ladder=variant.ladder, steps=()), finding, facts)


def variants_of(rule: Rule) -> Iterator[Variant]:
    return (variant for variant in VARIANTS if variant.rule == rule.id)


_OPTIONAL = {"requirement", "manager", "python", "chosen", "start"}
"""Details that a finding has only where they say something."""


VENV_SITE = "/home/alice/venv/lib/python3.11/site-packages"
REMOVED = "deinstall ok config-files"
CUDA_INCLUDE = "/usr/local/cuda-12.2/targets/x86_64-linux/include"

VARIANTS = (
    Variant(
        "closed-module-on-blackwell",
        "an RTX 5090 with the closed 580",
        (("medium reboot", "reboot"),),
        details={"cured": True},
    ),
    Variant(
        "closed-module-on-blackwell",
        "an RTX 5090 with the closed 580",
        (("low", "by-hand 1080"),),
        details={"older": "GTX 1080"},
    ),
    Variant(
        "closed-module-on-blackwell",
        "an RTX 5090 with the closed 580",
        (("high reboot network", "by-hand --kernel-module-type=open"),),
        details={"lowest": 999},
    ),
    Variant(
        "open-module-on-unsupported-gpu",
        "-open packages on a Pascal",
        (("medium reboot", "reboot"),),
        details={"cured": True},
    ),
    Variant(
        "open-module-on-unsupported-gpu",
        "-open packages on a Pascal",
        (("low", "by-hand 5090"),),
        details={"newer": "RTX 5090"},
    ),
    Variant(
        "open-module-on-unsupported-gpu",
        "-open packages on a Pascal",
        (("high reboot network", "by-hand 580 --kernel-module-type=proprietary"),),
        details={"lowest": 999, "last": 580},
    ),
    Variant(
        "open-module-on-unsupported-gpu",
        "-open packages on a Pascal",
        (
            (
                "high reboot network",
                "apt-install nvidia-kernel-dkms may_remove=libnvidia-compute-560..nvidia-open-kernel-dkms(17)",
                "set-alternative nvidia /usr/lib/nvidia/current",
                "reboot",
            ),
        ),
        change=lambda m: m.package("nvidia-open-kernel-dkms", "560.35.03-1"),
    ),
    Variant(
        "maxwell-pascal-volta-dropped-after-580",
        "a GTX 1080 Ti after an upgrade to 590",
        (("medium reboot", "reboot"),),
        details={"cured": True},
    ),
    Variant(
        "maxwell-pascal-volta-dropped-after-580",
        "a GTX 1080 Ti after an upgrade to 590",
        (("low", "by-hand 5090"),),
        details={"newer": "RTX 5090"},
    ),
    Variant(
        "maxwell-pascal-volta-dropped-after-580",
        "a GTX 1080 Ti after an upgrade to 590",
        (
            (
                "high reboot network",
                "by-hand 999 nvidia-driver-pinning-580 --allow-downgrades 580 --kernel-module-type=proprietary",
            ),
        ),
        details={"branch": 999},
    ),
    Variant(
        "legacy-gpu-needs-470-390-340",
        "a Kepler with driver 535, which does not load",
        (("medium reboot", "reboot"),),
        details={"cured": True},
    ),
    Variant(
        "legacy-gpu-needs-470-390-340",
        "a Kepler with driver 535, which does not load",
        (("high", "by-hand 999 12"), ("high reboot", "by-hand /etc/modprobe.d -u")),
        details={"branch": 999},
    ),
    Variant(
        "legacy-gpu-needs-470-390-340",
        "a Kepler with driver 535, which does not load",
        (("high", "by-hand nvidia-tesla-470-driver 6.8"), ("high reboot", "by-hand /etc/modprobe.d -u")),
        change=lambda m: m.kernel("7.2.13+deb14-amd64"),
    ),
    Variant(
        "legacy-gpu-needs-470-390-340",
        "a Kepler that uses nouveau",
        (
            ("high", "by-hand 495 nvidia-driver-495 510.47.03 nvidia-driver-495=495.…"),
            ("high reboot", "by-hand /etc/modprobe.d -u"),
        ),
        details={"branch": 495},
        change=lambda m: m.package("nvidia-driver-495", "510.47.03-0ubuntu0.20.04.1"),
    ),
    Variant(
        "driver-too-old-for-new-gpu",
        "an RTX 5090 with 565",
        (("medium reboot", "reboot"),),
        details={"cured": True},
    ),
    Variant(
        "driver-too-old-for-new-gpu",
        "an RTX 5090 with 535",
        (("high reboot network", "by-hand 570 580"),),
        details={"highest": 580},
    ),
    Variant(
        "dkms-module-missing-for-running-kernel",
        "a kernel update without a module build",
        (
            (
                "low",
                "dkms-build nvidia-current 535.261.03 6.1.0-50-amd64",
                "update-initramfs 6.1.0-50-amd64",
                "load-modules nvidia",
                "by-hand memtest86+",
            ),
        ),
        details={"crashed": True},
    ),
    Variant(
        "dkms-module-missing-for-running-kernel",
        "a kernel update without a module build",
        (("medium", "by-hand /x/nvidia.ko --force nvidia-current/535.261.03 -k 6.1.0-50-amd64"),),
        details={"unfit": "/x/nvidia.ko", "package": ""},
    ),
    Variant(
        "dkms-module-missing-for-running-kernel",
        "a kernel update without a module build",
        (
            (
                "low",
                "dkms-build nvidia-current 535.261.03 6.1.0-50-amd64",
                "update-initramfs 6.1.0-50-amd64",
                "load-modules nvidia",
            ),
            (
                "medium",
                "set-alternative nvidia /usr/lib/nvidia/tesla-470",
                "update-initramfs 6.1.0-50-amd64",
                "load-modules nvidia",
            ),
        ),
        details={"chosen": "nvidia-current", "stem": "nvidia-tesla-470"},
    ),
    Variant(
        "dkms-module-missing-for-running-kernel",
        "a kernel update without a module build",
        (
            ("low network", "apt-install linux-modules-nvidia-550-6.1.0-50-amd64 reinstall", "load-modules nvidia"),
            (
                "medium network",
                "apt-install nvidia-dkms-550 linux-headers-6.1.0-50-amd64",
                "update-initramfs 6.1.0-50-amd64",
                "load-modules nvidia",
            ),
        ),
        details={"prebuilt": "550", "unfit": "/x/nvidia.ko", "works": ()},
    ),
    Variant(
        "dkms-module-missing-for-running-kernel",
        "a kernel update without a module build",
        (("medium network", "by-hand --reinstall nvidia-kernel-dkms"),),
        change=lambda m: m.remove("/var/lib/dkms"),
    ),
    Variant(
        "dkms-module-missing-for-running-kernel",
        "a kernel update without a module build",
        (("medium", "by-hand 6.1.0-50-amd64"),),
        details={"package": ""},
        change=lambda m: m.remove("/var/lib/dkms/nvidia-current"),
    ),
    Variant(
        "cudnn-mixed-sublibraries",
        "a part of the wheel was deleted",
        (
            (
                "low network",
                "pip-install /home/alice/venv/bin/python --force-reinstall --no-deps nvidia-cudnn-cu12==9.1.0.70 uv",
            ),
        ),
        details={"manager": "uv"},
    ),
    Variant(
        "cudnn-mixed-sublibraries",
        "a part of the wheel was deleted",
        (("low network", "by-hand --force-reinstall --no-deps nvidia-cudnn-cu12==9.1.0.70"),),
        details={"manager": "conda"},
    ),
    Variant(
        "cudnn-mixed-sublibraries",
        "a part missing in the toolkit comes from the package",
        (
            (
                "medium network",
                "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so.8",
                "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so.8.6.0",
                "apt-install libcudnn8 reinstall",
                "refresh-loader-cache",
            ),
        ),
        details={"folders": ("/usr/local/cuda-12.2/targets/x86_64-linux/lib",)},
    ),
    Variant(
        "library-damaged",
        "a cuDNN library is truncated",
        (
            (
                "low network",
                "pip-install /home/alice/venv/bin/python --force-reinstall --no-deps nvidia-cudnn-cu12==9.1.0.70",
            ),
        ),
        details={
            "requirement": "nvidia-cudnn-cu12==9.1.0.70",
            "manager": "pip",
            "python": "/home/alice/venv/bin/python",
        },
    ),
    Variant(
        "library-damaged",
        "a cuDNN library is truncated",
        (
            (
                "low network",
                "pip-install /home/alice/venv/bin/python --force-reinstall --no-deps nvidia-cudnn-cu12==9.1.0.70 uv",
            ),
        ),
        details={
            "requirement": "nvidia-cudnn-cu12==9.1.0.70",
            "manager": "uv",
            "python": "/home/alice/venv/bin/python",
        },
    ),
    Variant(
        "library-damaged",
        "a cuDNN library is truncated",
        (("low network", "by-hand --force-reinstall --no-deps nvidia-cudnn-cu12==9.1.0.70"),),
        details={
            "requirement": "nvidia-cudnn-cu12==9.1.0.70",
            "manager": "conda",
            "python": "/home/alice/venv/bin/python",
        },
    ),
    Variant(
        "glx-alternatives-wrong",
        "the link of libGL is broken",
        (("low", "by-hand --auto"),),
        details={"chosen": True},
    ),
    Variant(
        "glx-alternatives-wrong",
        "the link of libGL is broken",
        (
            (
                "medium network",
                "apt-install libgl1-nvidia-glvnd-glx reinstall",
                "set-alternative glx ",
                "refresh-loader-cache",
            ),
        ),
        details={"reinstall": ("libgl1-nvidia-glvnd-glx",)},
    ),
    Variant(
        "driver-library-version-mismatch-after-upgrade",
        "upgraded, but not rebooted",
        (("medium reboot network", "apt-install nvidia-driver-550 nvidia-utils-550 reinstall", "reboot"),),
        details={"disk": "535.261.03"},
    ),
    Variant(
        "driver-library-version-mismatch-after-upgrade",
        "no packages: a module from a .run file and newer libraries",
        (("high reboot", "by-hand 381.22"),),
        details={"disk": "535.261.03"},
    ),
    Variant(
        "stale-libglx-symlink",
        "a link to an older driver than the installed one",
        (("low", "move-aside /usr/lib/xorg/modules/extensions/libother.so", "refresh-loader-cache"),),
        details={"path": "/usr/lib/xorg/modules/extensions/libother.so"},
    ),
    Variant(
        "stale-libglx-symlink",
        "a link to an older driver than the installed one",
        (("low", "by-hand /usr/lib/xorg/modules/extensions/libglx.so"),),
        change=lambda m: m.remove("/var/lib/dpkg/info"),
    ),
    Variant(
        "libcuda-missing-from-loader",
        "the link is broken",
        (("low", "refresh-loader-cache"),),
        details={"cache": True},
    ),
    Variant(
        "libcuda-missing-from-loader",
        "the link is broken",
        (("medium", "by-hand NVIDIA-Linux-x86_64-VERSION.run"),),
        change=lambda m: (
            m.file("/usr/bin/nvidia-installer")
            .file("/var/lib/nvidia/log", "1: NVIDIA UNIX\n")
            .file("/usr/bin/nvidia-uninstall")
        ),
    ),
    Variant(
        "libcuda-stub-loaded",
        "stubs in ld.so.conf.d, before the driver's directory",
        (("low", "refresh-loader-cache"),),
        details={"path": "/other/stubs/libcuda.so"},
    ),
    Variant(
        "libcuda-stub-loaded",
        "stubs in LD_LIBRARY_PATH",
        (("low", "by-hand /other/stubs /home/alice/.bashrc"),),
        details={"path": "/other/stubs/libcuda.so"},
    ),
    Variant(
        "cudnn-major-8-vs-9",
        "CTranslate2 4.4 and cuDNN 9",
        (
            ("low network", "pip-install /home/alice/whisper/bin/python onnxruntime-gpu[cuda,cudnn]>=1.21"),
            ("low network", "apt-install libcudnn8=8.9.7.29-1+cuda12.2", "refresh-loader-cache"),
        ),
        details={"program": "onnxruntime-gpu"},
    ),
    Variant(
        "cudnn-major-8-vs-9",
        "CTranslate2 4.4 and cuDNN 9",
        (
            ("low network", "pip-install /home/alice/whisper/bin/python ctranslate2>=4.5 uv"),
            ("low network", "apt-install libcudnn8=8.9.7.29-1+cuda12.2", "refresh-loader-cache"),
        ),
        details={"manager": "uv"},
    ),
    Variant(
        "cudnn-major-8-vs-9",
        "OpenCV was built with cuDNN 8, then 9 was installed",
        (("low", "by-hand 7 12.2 libopencv_dnn.so.4.8.0"),),
        details={"major": 7},
    ),
    Variant(
        "initramfs-old-nvidia-module",
        "modprobe finds a second module before Ubuntu's",
        (("medium reboot", "dkms-remove nvidia 535.183.01", "update-initramfs 6.8.0-50-generic", "reboot"),),
        change=lambda m: m.dkms("nvidia", "535.183.01", ()),
    ),
    Variant(
        "uvm-device-node-missing",
        "nvidia-modprobe is missing",
        (("low", "by-hand nvidia_uvm 24.04 /var/lib/dpkg/status", "by-hand 4755"),),
        change=lambda m: m.remove("/var/lib/dpkg/status"),
    ),
    Variant(
        "login-loop-home-dotfile-permissions",
        "~/.ICEauthority read-only",
        (("low", "by-hand /home/alice/.ICEauthority /home/alice/.ICEauthority.bak"),),
        details={"kind": "dir"},
    ),
    Variant(
        "ld-library-path-old-cudnn-shadows-torch",
        "set for everybody",
        (("low", "by-hand /elsewhere LD_LIBRARY_PATH /etc/profile.d/cudnn.sh:1"),),
        details={"folder": "/elsewhere"},
    ),
    Variant(
        "ld-library-path-shadows-wheel-libraries",
        "nvJitLink 12.1 before 12.4",
        (("low", "by-hand /elsewhere LD_LIBRARY_PATH /home/alice/.bashrc:15"),),
        details={"folder": "/elsewhere"},
    ),
    Variant(
        "xauthority-variable-wrong",
        "set in ~/.profile",
        (("low", "by-hand /home/alice/.profile:13"),),
        details={"line": ""},
    ),
    Variant(
        "cuda-visible-devices-wrong",
        "empty",
        (("low", "by-hand CUDA_VISIBLE_DEVICES /home/alice/.bashrc:15"),),
        details={"line": "export A=1 CUDA_VISIBLE_DEVICES="},
    ),
    Variant(
        "cuda-visible-devices-wrong",
        "empty",
        (("low", "edit-file /home/alice/.bashrc 15: -"),),
        details={"line": "setenv CUDA_VISIBLE_DEVICES 7"},
    ),
    Variant(
        "login-loop-tmp-permissions",
        "not writable, no sticky bit",
        (("medium", "by-hand /tmp -ld 1777"),),
        details={"link": True},
    ),
    Variant(
        "cuda-symlink-wrong-version",
        "CUDA_HOME names a removed toolkit",
        (("low", "by-hand CUDA_HOME /usr/local/cuda-12.2 /home/alice/.bashrc:15 /computed"),),
        details={"value": "/computed"},
    ),
    Variant(
        "kernel-headers-missing",
        "a kernel without headers",
        (
            ("low reboot", "by-hand 6.1.0-49-amd64"),
            ("medium", "by-hand 6.1.0-50-amd64 /lib/modules/6.1.0-50-amd64/build"),
        ),
        details={"start": "6.1.0-49-amd64", "package": ""},
    ),
    Variant(
        "cudnn-fake-symlink-wrong-library",
        "libcuda under the name libcudnn",
        (("low", "make-link /usr/lib/x86_64-linux-gnu/libcudnn.so.8 libcudnn.so.8.10.1", "refresh-loader-cache"),),
        change=lambda m: m.library("/usr/lib/x86_64-linux-gnu/libcudnn.so.8.9.7", "libcudnn.so.8").library(
            "/usr/lib/x86_64-linux-gnu/libcudnn.so.8.10.1", "libcudnn.so.8"
        ),
    ),
    Variant(
        "cudnn-runtime-missing",
        "the file behind a link was deleted",
        (
            (
                "low",
                "make-link /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so libcudnn.so.7.10.1",
                "make-link /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so.7 libcudnn.so.7.10.1",
                "refresh-loader-cache",
            ),
            (
                "low",
                "by-hand lib/libcudnn* 7 /usr/local/cuda-12.2/targets/x86_64-linux/lib -P",
                "by-hand NVIDIA's repository cuda-keyring Debian also nvidia-cudnn",
            ),
        ),
        change=lambda m: m.library(
            "/usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so.7.9.1", "libcudnn.so.7"
        ).library("/usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so.7.10.1", "libcudnn.so.7"),
    ),
    Variant(
        "cudnn-runtime-missing",
        "an archive was unpacked in a home directory and never copied",
        (
            ("low network", "apt-install libcudnn9-cuda-12", "refresh-loader-cache"),
            (
                "low",
                "by-hand -P /home/alice/Downloads/cudnn-9.1.0-archive/lib/libcudnn* /usr/local/cuda-12.2/lib64/ /home/alice/Downloads/cudnn-9.1.0-archive/include/cudnn*.h /usr/local/cuda-12.2/include/",
            ),
            (
                "low",
                "by-hand lib/libcudnn* 9 lib64 -P",
                "by-hand NVIDIA's repository cuda-keyring Debian also nvidia-cudnn",
            ),
        ),
        details={"program": "other"},
    ),
    Variant(
        "cudnn-headers-missing-or-split",
        "the alternative is a broken link",
        (
            (
                "low",
                "by-hand developer.nvidia.com/cudnn -P /usr/local/cuda-12.2/targets/x86_64-linux/include/ /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn*.h",
            ),
        ),
        details={"folder": "/usr/local/cuda-12.2/targets/x86_64-linux/include"},
    ),
    Variant(
        "cudnn-header-so-version-mismatch",
        "an old archive's headers beside the package's library",
        (
            ("low network", "apt-install libcudnn8-dev=8.9.7.29-1+cuda12.2"),
            ("low", "by-hand include/cudnn*.h 8.9.7 /usr/local/cuda-12.2/targets/x86_64-linux/include"),
        ),
        change=lambda m: m.without_package("libcudnn8-dev"),
    ),
    Variant(
        "dkms-compiler-mismatch",
        "gcc was switched for nvcc, and nothing was built since then",
        (
            (
                "low network",
                "apt-install gcc-13",
                "dkms-build nvidia 550.120 6.8.0-50-generic",
                "update-initramfs 6.8.0-50-generic",
                "load-modules nvidia",
            ),
            ("low", "by-hand CC=/usr/bin/gcc-13 nvidia/550.120 -k 6.8.0-50-generic"),
        ),
        change=lambda m: m.package("gcc", "4:9.3.0-1ubuntu2"),
    ),
    Variant(
        "program-cuda-major-missing",
        "built for CUDA 12, toolkit of CUDA 11",
        (("low network", "by-hand /home/alice/venv nvidia-cudnn-cu11 12 onnxruntime-gpu[cuda,cudnn]==1.23.2"),),
        change=lambda m: m.folder(
            "/home/alice/venv/lib/python3.11/site-packages/nvidia_cudnn_cu11-8.9.7.29.dist-info", uid=1000
        ),
    ),
    Variant(
        "program-cuda-major-missing",
        "CuPy for CUDA 11",
        (("low network", "pip-install /home/alice/venv/bin/python cupy-cuda11x[ctk]"),),
        change=lambda m: m.remove("/usr/local/cuda-12.2").remove("/usr/local/cuda"),
    ),
    Variant(
        "kernel-too-new-for-driver-branch",
        "a package known to fail, not built yet for the next kernel",
        (
            (
                "medium",
                "by-hand 6.1.0-50-amd64",
                "by-hand linux-headers-amd64 linux-image-amd64",
                "by-hand 535.309.01 7.2.13+deb14-amd64",
            ),
        ),
        change=lambda m: m.package(
            "linux-image-amd64", "7.2.13-1", depends="linux-image-7.2.13+deb14-amd64 (= 7.2.13-1)"
        ).package("linux-headers-amd64", "7.2.13-1", depends="linux-headers-7.2.13+deb14-amd64 (= 7.2.13-1)"),
    ),
    Variant(
        "nvcc-not-in-path",
        "without /usr/local/cuda",
        (
            (
                "low",
                'write-file /etc/profile.d/dlhealth-cuda.sh export PATH="/usr/local/cuda-11.8/bin${PATH:+:${PATH}}"',
            ),
        ),
        change=lambda m: m.file("/etc/profile.d/cuda.sh", "true\n"),
    ),
    Variant(
        "login-loop-broken-path-environment",
        "a shell's line in /etc/environment",
        (
            (
                "low",
                'edit-file /etc/environment 2: PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games:/usr/local/games"',
                'write-file /etc/profile.d/dlhealth-cuda.sh export PATH="/usr/local/cuda/bin${PATH:+:${PATH}}"',
            ),
        ),
        change=lambda m: m.file("/etc/profile.d/cuda.sh", "true\n"),
    ),
    Variant(
        "boot-partition-full",
        "an empty initramfs beside a complete one",
        (
            (
                "medium network",
                "move-aside /boot/initrd.img-6.8.0-40-generic",
                "dpkg-configure",
                "apt-remove linux-image-6.8.0-40-generic..linux-headers-6.8.0-52-generic(7) purge",
                "update-initramfs all",
            ),
            ("medium", "by-hand COMPRESS=xz MODULES=dep /etc/initramfs-tools/initramfs.conf -u -k /boot"),
        ),
        change=lambda m: (
            m.kernel("6.8.0-40-generic", running=False)
            .kernel("6.8.0-41-generic", running=False)
            .kernel("6.8.0-100-generic", running=False)
            .file("/boot/initrd.img-6.8.0-40-generic", b"070701")
            .file("/boot/initrd.img-6.8.0-41-generic", b"070701")
            .file("/boot/initrd.img-6.8.0-100-generic", b"070701")
            .package("linux-image-6.8.0-40-generic", "6.8")
            .package("linux-modules-6.8.0-40-generic", "6.8")
        ),
    ),
    Variant(
        "boot-partition-full",
        "an empty initramfs beside a complete one",
        (
            (
                "medium network",
                "apt-remove linux-image-6.8.0-40-generic..linux-headers-6.8.0-52-generic(7) purge",
                "update-initramfs all",
            ),
            ("medium", "by-hand COMPRESS=xz MODULES=dep /etc/initramfs-tools/initramfs.conf -u -k /boot"),
        ),
        details={"stuck": False},
        change=lambda m: (
            m.kernel("6.8.0-40-generic", running=False)
            .kernel("6.8.0-41-generic", running=False)
            .kernel("6.8.0-100-generic", running=False)
            .file("/boot/initrd.img-6.8.0-40-generic", b"070701")
            .file("/boot/initrd.img-6.8.0-41-generic", b"070701")
            .file("/boot/initrd.img-6.8.0-100-generic", b"070701")
            .package("linux-image-6.8.0-40-generic", "6.8")
            .package("linux-modules-6.8.0-40-generic", "6.8")
        ),
    ),
    Variant(
        "boot-partition-full",
        "an empty initramfs beside a complete one",
        (
            (
                "medium network",
                "move-aside /boot/initrd.img-6.8.0-40-generic",
                "dpkg-configure",
                "apt-remove linux-image-6.8.0-40-generic..linux-headers-6.8.0-52-generic(6) purge",
                "update-initramfs all",
            ),
            ("medium", "by-hand COMPRESS=xz MODULES=dep /etc/initramfs-tools/initramfs.conf -u -k /boot"),
        ),
        change=lambda m: (
            m.kernel("6.8.0-40-generic", running=False)
            .kernel("6.8.0-41-generic", running=False)
            .kernel("6.8.0-100-generic", running=False)
            .file("/boot/initrd.img-6.8.0-40-generic", b"070701")
            .file("/boot/initrd.img-6.8.0-41-generic", b"070701")
            .file("/boot/initrd.img-6.8.0-100-generic", b"070701")
        ),
    ),
    Variant(
        "cudnn-runtime-missing",
        "an archive was unpacked in a home directory and never copied",
        (
            ("low network", "apt-install libcudnn9-cuda-12", "refresh-loader-cache"),
            (
                "low",
                "by-hand lib/libcudnn* 9 lib64 -P",
                "by-hand NVIDIA's repository cuda-keyring Debian also nvidia-cudnn",
            ),
        ),
        details={"program": "onnxruntime-gpu", "unpacked": ""},
    ),
    Variant(
        "library-damaged",
        "a library of a package is empty",
        (("low network", "by-hand /usr/lib/x86_64-linux-gnu/libcudnn_ops_infer.so.8.9.7 -S --reinstall"),),
        details={"owner": Unowned.UNKNOWN},
    ),
    Variant(
        "program-cuda-major-missing",
        "an unknown package, found by its list of files",
        (("low network", "pip-install /home/alice/venv/bin/python jax[cuda12]"),),
        details={"program": "jax-cuda12-plugin"},
        change=lambda m: (
            m.python_environment(packages=["jax_cuda12_plugin-0.5.3"])
            .file(
                "/home/alice/venv/lib/python3.11/site-packages/jax_cuda12_plugin-0.5.3.dist-info/RECORD",
                "jax_plugins/core.so,sha256=x,1\n",
                uid=1000,
            )
            .library("/home/alice/venv/lib/python3.11/site-packages/jax_plugins/core.so", "", ["libcusparse.so.12"])
        ),
    ),
    Variant(
        "program-cuda-major-missing",
        "an unknown package, found by its list of files",
        (("low network", "pip-install /home/alice/venv/bin/python jax[cuda12]==0.5.3"),),
        details={"program": "jax-cuda12-plugin"},
        change=lambda m: (
            m.python_environment(packages=["jax_cuda12_plugin-0.5.3"])
            .file(
                "/home/alice/venv/lib/python3.11/site-packages/jax_cuda12_plugin-0.5.3.dist-info/RECORD",
                "jax_plugins/core.so,sha256=x,1\n",
                uid=1000,
            )
            .library("/home/alice/venv/lib/python3.11/site-packages/jax_plugins/core.so", "", ["libcusparse.so.12"])
            .folder("/home/alice/venv/lib/python3.11/site-packages/jax-0.5.3.dist-info", uid=1000)
        ),
    ),
    Variant(
        "program-cuda-major-missing",
        "an unknown package, found by its list of files",
        (("low network", "pip-install /home/alice/venv/bin/python nvidia-cublas-cu12"),),
        details={"program": "solver-cuda12x"},
        change=lambda m: m.library(
            "/home/alice/venv/lib/python3.11/site-packages/solver/core.so",
            "",
            ["libunknownthing.so.12", "libcublas.so.12"],
        ),
    ),
    Variant(
        "dpkg-interrupted",
        "interrupted while files were being copied",
        (
            (
                "low network",
                "dpkg-configure",
                "apt-install firefox-esr reinstall",
                "dpkg-configure",
                "update-initramfs all",
            ),
        ),
        change=lambda m: m.folder("/var/lib/dpkg/updates").file("/var/lib/dpkg/updates/0000", "Package: x\n"),
    ),
    Variant(
        "jax-gpu-backend-unavailable",
        "only jax and jaxlib",
        (("low network", "pip-install /home/alice/venv/bin/python jax[cuda12]"),),
        change=lambda m: (
            m.python_environment(packages=["jax-0.4.20", "jaxlib-0.4.20"])
            .remove("/home/alice/venv/lib/python3.11/site-packages/jax-0.6.1.dist-info")
            .remove("/home/alice/venv/lib/python3.11/site-packages/jaxlib-0.6.1.dist-info")
        ),
    ),
    Variant(
        "mixed-repositories",
        "apt's lists prove it on Debian",
        (
            (
                "high reboot network",
                "write-file /etc/apt/preferences.d/nvidia-driver-from-distribution Package: cuda-drivers* nvidia-open* nvidia-driver* nvidia-dkms-* nvidia-kernel-* nvidia-utils-* nvidia-compute-utils-* nvidia-firmware-* libnvidia-*-[0-9][0-9][0-9]* xserver-xorg-video-nvidia* libcuda1 libegl-nvidia0 libgl1-nvidia-glvnd-glx libglx-nvidia0 libnvidia-cfg1 libnvidia-eglcore libnvidia-glcore libnvidia-glvkspirv libnvidia-ml1 libnvidia-ptxjitcompiler1 nvidia-alternative nvidia-driver nvidia-driver-bin nvidia-driver-libs nvidia-egl-common nvidia-egl-icd nvidia-kernel-dkms nvidia-kernel-support nvidia-smi nvidia-vdpau-driver xserver-xorg-video-nvidia / Pin: release o=NVIDIA / Pin-Priority: -1",
                "apt-install libcuda1=535.261.03-1 nvidia-driver=535.261.03-1",
                "reboot",
            ),
        ),
        change=lambda m: m.package("nvidia-driver", "560.35.03-1"),
    ),
    Variant(
        "conda-libstdcxx-too-old",
        "an extension that was built with the system's g++ 12",
        (("low network", "by-hand conda -p /home/alice/miniconda3/envs/train 'libstdcxx-ng>=13'"),),
        details={"needs": "GLIBCXX_3.4.31"},
    ),
    Variant(
        "conda-libstdcxx-too-old",
        "an extension that was built with the system's g++ 12",
        (("low network", "by-hand conda -p /home/alice/miniconda3/envs/train 'libstdcxx-ng>=14'"),),
        details={"needs": "GLIBCXX_3.4.33"},
    ),
    Variant(
        "conda-libstdcxx-too-old",
        "an extension that was built with the system's g++ 12",
        (("low network", "by-hand conda -p /home/alice/miniconda3/envs/train 'libstdcxx-ng>=15'"),),
        details={"needs": "GLIBCXX_3.4.34"},
    ),
    Variant(
        "conda-libstdcxx-too-old",
        "an extension that was built with the system's g++ 12",
        (("low network", "by-hand -c conda-forge libstdcxx-ng"),),
        details={"needs": "GLIBCXX_3.4.35"},
    ),
    Variant(
        "cudnn-headers-missing-or-split",
        "an old guide: cp cudnn.h",
        (("low", "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn.h"),),
        change=lambda m: m.cudnn_packages().link(f"{CUDA_INCLUDE}/cudnn.h", "gone.h"),
    ),
    Variant(
        "cudnn-headers-missing-or-split",
        "a wheel of the same version has the headers",
        (
            (
                "low",
                "copy-file /opt/train/lib/python3.11/site-packages/nvidia/cudnn/include/cudnn.h /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn.h ... copy-file /opt/train/lib/python3.11/site-packages/nvidia/cudnn/include/cudnn_version.h /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn_version.h (9)",
            ),
            (
                "low",
                "by-hand /opt/train/lib/python3.11/site-packages/nvidia/cudnn/include -P /usr/local/cuda-12.2/targets/x86_64-linux/include/ /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn*.h",
            ),
            (
                "medium network",
                "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so ... move-aside /usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn.h (22)",
                "apt-install libcudnn8=8.9.7.29-1+cuda12.2 libcudnn8-dev=8.9.7.29-1+cuda12.2",
            ),
        ),
        change=lambda m: m.link(f"{CUDA_INCLUDE}/cudnn.h", "gone.h"),
    ),
    Variant(
        "cudnn-headers-missing-or-split",
        "only the libraries were copied",
        (
            (
                "low",
                "by-hand cudnn-linux-x86_64-8.9.7.*_cuda11-archive.tar.xz developer.download.nvidia.com/compute/cudnn/redist/cudnn/linux-x86_64 python3 -m --no-deps nvidia-cudnn-cu11==8.9.7.*",
            ),
            (
                "medium network",
                "move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn.so ... move-aside /usr/local/cuda-12.2/targets/x86_64-linux/lib/libcudnn_ops_train.so.8.9.7 (21)",
                "apt-install libcudnn8=8.9.7.29-1+cuda11.8 libcudnn8-dev=8.9.7.29-1+cuda11.8",
            ),
        ),
        change=lambda m: m.cuda_toolkit("11.8"),
    ),
    Variant(
        "jax-gpu-backend-unavailable",
        "only jax and jaxlib",
        (("high reboot network", "by-hand 525.60.13 --upgrade 'jax[cuda12]'"),),
        change=lambda m: (
            Machine.ubuntu2404()
            .gpu()
            .ubuntu_driver("470.256.02")
            .python_environment(packages=["jax-0.6.1", "jaxlib-0.6.1"])
        ),
    ),
    Variant(
        "jax-gpu-backend-unavailable",
        "only jax and jaxlib",
        (("low network", "pip-install /home/alice/venv/bin/python jax[cuda12]==0.4.26"),),
        change=lambda m: (
            m.python_environment(packages=["jax-0.4.26", "jaxlib-0.4.26"])
            .remove(f"{VENV_SITE}/jax-0.6.1.dist-info")
            .remove(f"{VENV_SITE}/jaxlib-0.6.1.dist-info")
        ),
    ),
    Variant(
        "jax-gpu-backend-unavailable",
        "an older plugin",
        (("low network", "pip-install /home/alice/venv/bin/python jax[cuda13]==0.6.1"),),
        change=lambda m: (
            Machine.ubuntu2404()
            .gpu()
            .ubuntu_driver("580.95.05")
            .python_environment(packages=["jax-0.6.1", "jaxlib-0.6.1", "jax_cuda13_plugin-0.5.3"])
        ),
    ),
    Variant(
        "jax-gpu-backend-unavailable",
        "an older plugin",
        (("low network", "pip-install /home/alice/venv/bin/python jax[cuda12]==0.6.1"),),
        change=lambda m: Machine.ubuntu2404_gpu().python_environment(
            packages=["jax-0.6.1", "jaxlib-0.6.1", "jax_cuda13_plugin-0.5.3"]
        ),
    ),
    Variant(
        "program-cuda-major-missing",
        "an unknown package, found by its list of files",
        (("low network", "by-hand solver-cuda12x CUDA"),),
        change=lambda m: m.library(f"{VENV_SITE}/solver/core.so", "", ["libnppc.so.12"]),
    ),
    Variant(
        "program-cuda-major-missing",
        "built for CUDA 12, toolkit of CUDA 11",
        (("low network", "pip-install /home/alice/venv/bin/python onnxruntime-gpu[cuda,cudnn]==1.23.2"),),
        change=lambda m: m.folder(f"{VENV_SITE}/nvidia_cudnn_cu12-9.1.0.70.dist-info", uid=1000),
    ),
    Variant(
        "program-cuda-major-missing",
        "built for CUDA 12, toolkit of CUDA 11",
        (
            (
                "low network",
                "by-hand /home/alice/venv nvidia-cudnn-cu11 'onnxruntime-gpu[cuda,cudnn]==1.23.2'",
            ),
        ),
        change=lambda m: m.folder(f"{VENV_SITE}/nvidia_cudnn_cu11-8.9.7.29.dist-info", uid=1000),
    ),
    Variant(
        "program-cuda-major-missing",
        "built for CUDA 12, toolkit of CUDA 11",
        (("low network", "pip-install /home/alice/venv/bin/python onnxruntime-gpu[cuda,cudnn]==1.21.0"),),
        change=lambda m: m.remove(f"{VENV_SITE}/onnxruntime_gpu-1.23.2.dist-info").python_environment(
            packages=["onnxruntime_gpu-1.21.0"]
        ),
    ),
    Variant(
        "program-cuda-major-missing",
        "CuPy for CUDA 11",
        (("low network", "by-hand /home/alice/venv/bin/python -m cupy-cuda12x cupy-cuda11x"),),
        change=lambda m: (
            Machine.ubuntu2404_gpu()
            .cuda_toolkit("11.8")
            .python_environment(packages=["cupy_cuda12x-12.0.0"])
            .library(
                f"{VENV_SITE}/cupy_backends/cuda/libs/cublas.cpython-311-x86_64-linux-gnu.so", "", ["libcublas.so.12"]
            )
        ),
    ),
    Variant(
        "program-cuda-major-missing",
        "an extension of PyTorch for another CUDA version",
        (("low network", "pip-install /home/alice/venv/bin/python bitsandbytes --upgrade"),),
        change=lambda m: (
            Machine.ubuntu2404_gpu()
            .python_environment(packages=["bitsandbytes-0.43.0"], torch="2.5.1+cu124", cuda="12.4")
            .library(f"{VENV_SITE}/bitsandbytes/libbitsandbytes_cuda124.so", "", ["libcusparse.so.12"])
        ),
    ),
    Variant(
        "program-cuda-major-missing",
        "an extension of PyTorch for another CUDA version",
        (("low network", "pip-install /home/alice/venv/bin/python nvidia-cublas-cu12 nvidia-cudnn-cu12==9.*"),),
        change=lambda m: (
            Machine.ubuntu2404_gpu()
            .python_environment(packages=["ctranslate2-4.5.0"])
            .library(f"{VENV_SITE}/ctranslate2.libs/libctranslate2-1.so", "", ["libcublas.so.12"])
        ),
    ),
    Variant(
        "rminitadapter-failed",
        "the firmware file is missing",
        (("medium reboot", "by-hand 560.35.03 /lib/firmware/nvidia/560.35.03/gsp_*.bin", "reboot"),),
        details={"version": "560.35.03"},
    ),
    Variant(
        "rminitadapter-failed",
        "the firmware file is missing",
        (
            (
                "medium reboot network",
                "apt-install nvidia-firmware-550-550.120",
                "update-initramfs 6.8.0-50-generic",
                "reboot",
            ),
        ),
        change=lambda m: m.without_package("nvidia-firmware-550-550.120"),
    ),
    *(
        Variant(
            "rminitadapter-failed",
            "the firmware file is missing",
            (
                (
                    "medium reboot network",
                    "apt-install nvidia-firmware-550-server-550.120",
                    "update-initramfs 6.8.0-50-generic",
                    "reboot",
                ),
            ),
            change=lambda m, name=name: (
                m.without_package("nvidia-firmware-550-550.120")
                .mark("*-550-open", REMOVED)
                .mark("*-550", REMOVED)
                .package(name, "550.120-0ubuntu0.24.04.1")
            ),
        )
        for name in ("nvidia-driver-550-server", "nvidia-dkms-550-server")
    ),
    Variant(
        "rminitadapter-failed",
        "the firmware package of Debian is missing",
        (
            (
                "medium reboot network",
                "apt-install firmware-nvidia-tesla-535-gsp",
                "update-initramfs 6.1.0-50-amd64",
                "reboot",
            ),
        ),
        change=lambda m: m.mark("nvidia-*", REMOVED).package("nvidia-tesla-535-driver", "535.261.03-1"),
    ),
)
