"""The ladders of single rules: what the steps of a repair are, in their order."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dlhealth.actions import (
    AptFixBroken,
    AptInstall,
    AptPurgeReinstall,
    AptRemove,
    ByHand,
    CopyFile,
    DpkgConfigure,
    LoadModules,
    MakeLink,
    MoveAside,
    PipInstall,
    Reboot,
    RefreshLoaderCache,
    RefreshModuleIndex,
    UpdateInitramfs,
    WriteFile,
)
from dlhealth.engine.choose import Limits, choose
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import plans
from dlhealth.host.root import RootHost
from dlhealth.model import Finding, Plan, Risk
from dlhealth.probes import Options
from dlhealth.testing import Machine
from dlhealth.testing.machine import cudnn_headers
from tests.rules import BY_ID

Ladder = Callable[..., tuple[Plan, ...]]


@pytest.fixture
def ladder(tmp_path: Path) -> Ladder:
    """All remedies of what a rule finds first: on one of its scenarios, or on another machine."""

    def made(identity: str, scenario: str = "", machine: Machine | None = None) -> tuple[Plan, ...]:
        rule = BY_ID[identity]
        if machine is None:
            machine = next(s.machine for s in rule.scenarios() if s.name == scenario)
        machine.build(tmp_path)
        facts = Facts(RootHost(str(tmp_path)), Options())
        finding = next(f for f in facts.call(rule.detect) if isinstance(f, Finding))
        return plans(rule, finding, facts)

    return made


def kinds(plan: Plan) -> list[type]:
    return [type(a) for a in plan.actions]


def test_packages_that_do_not_configure_are_installed_again_before_all_is_purged(ladder: Ladder) -> None:
    rungs = ladder("half-configured-driver-packages", "the DKMS package failed, and the driver waits for it")
    assert [kinds(p) for p in rungs] == [[DpkgConfigure], [AptInstall], [AptPurgeReinstall]]
    assert rungs[1].actions == (AptInstall(("nvidia-dkms-550", "nvidia-driver-550"), reinstall=True),)


def test_gl_libraries_that_stay_broken_end_in_purge_and_reinstall(ladder: Ladder) -> None:
    rungs = ladder("login-loop-glx-broken-driver-mismatch", "GLX missing in a loop of Unity or Xfce")
    assert [kinds(p) for p in rungs] == [[AptInstall, Reboot], [ByHand], [AptPurgeReinstall, Reboot]]


def test_all_parts_of_a_second_module_go_and_modprobe_is_told(ladder: Ladder) -> None:
    (plan,) = ladder("initramfs-old-nvidia-module", "a second module from a .run installer")
    kernel = "6.8.0-50-generic"
    place = f"/lib/modules/{kernel}/kernel/drivers/video"
    assert plan.actions == (
        MoveAside(f"{place}/nvidia.ko"),
        MoveAside(f"{place}/nvidia-drm.ko"),
        RefreshModuleIndex(kernel),
        UpdateInitramfs(kernel),
        Reboot(),
    )


@pytest.mark.parametrize(
    ("scenario", "removed"),
    [
        ("nvtop replaced libnvidia-compute", ("libnvidia-compute-535",)),
        ("only some libraries of Debian's driver were upgraded", ()),
    ],
)
def test_a_foreign_library_is_exchanged_in_one_run_of_apt(
    scenario: str, removed: tuple[str, ...], ladder: Ladder
) -> None:
    """Alone it can't go: what needs it would go with it."""
    (plan,) = ladder("third-party-package-pulls-other-libnvidia", scenario)
    assert kinds(plan) == [AptInstall, Reboot]
    install = plan.actions[0]
    assert isinstance(install, AptInstall)
    assert install.remove == removed
    assert not set(install.packages) & set(removed)
    # The module's package with the rest, as its version is what the libraries must have.
    assert {"nvidia-dkms-550", "nvidia-kernel-dkms"} & set(install.packages)


def test_built_modules_on_hold_are_told_once_for_each_kind_of_kernel(tmp_path: Path) -> None:
    rule = BY_ID["held-packages-block-driver"]
    machine = next(s.machine for s in rule.scenarios() if s.name.startswith("Ubuntu's prebuilt modules are held"))
    machine.build(tmp_path)
    found = list(Facts(RootHost(str(tmp_path)), Options()).call(rule.detect))
    assert [f.detail["held"] for f in found if isinstance(f, Finding)] == [("linux-modules-nvidia-550-generic",)]


def test_a_blank_in_a_path_does_not_split_it(ladder: Ladder) -> None:
    (plan,) = ladder("runfile-uninstall-leftovers", "a library in a directory with a space in its name")
    folder = "/usr/local/my libs"
    libraries = (MoveAside(f"{folder}/libcuda.so.1"), MoveAside(f"{folder}/libcuda.so.470.82.01"))
    assert plan.actions == (*libraries, RefreshLoaderCache())


def test_parts_of_another_flavour_of_the_same_branch_go(ladder: Ladder) -> None:
    """libnvidia-compute-550-server conflicts with what libnvidia-compute-550 provides."""
    scenario = "module and libraries have different flavours of the same branch"
    (plan,) = ladder("third-party-package-pulls-other-libnvidia", scenario)
    install = plan.actions[0]
    assert isinstance(install, AptInstall)
    parts = ("libnvidia-compute", "libnvidia-gl", "nvidia-driver", "nvidia-utils")
    assert sorted(install.remove) == [f"{part}-550-server" for part in parts]
    assert {"nvidia-driver-550", "nvidia-utils-550", "nvidia-dkms-550"} <= set(install.packages)
    assert not any("-server" in name for name in install.packages)


def test_a_stray_package_goes_and_the_installers_driver_stays(ladder: Ladder) -> None:
    scenario = "a tool added a packaged library beside the driver of a .run file"
    first, *rest = ladder("mixed-runfile-and-apt", scenario)
    assert first.actions == (AptRemove(("libnvidia-compute-470", "nvtop")), RefreshLoaderCache())
    assert (first.risk, first.reboot) == (Risk.MEDIUM, False)
    assert all(p.risk is Risk.HIGH for p in rest)


def test_an_installers_driver_that_is_not_in_use_is_not_kept(ladder: Ladder) -> None:
    machine = next(s.machine for s in BY_ID["mixed-runfile-and-apt"].scenarios() if s.name.startswith("a tool added"))
    machine.file("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.103.01  Thu\n")
    first, *_ = ladder("mixed-runfile-and-apt", machine=machine)
    assert first.risk is Risk.HIGH


def test_without_the_installers_list_the_files_behind_the_links_move_too(ladder: Ladder) -> None:
    """Else ldconfig makes the links to them again."""
    machine = next(s.machine for s in BY_ID["mixed-runfile-and-apt"].scenarios() if s.name.startswith("a .run file"))
    first, *_ = ladder("mixed-runfile-and-apt", machine=machine.remove("/var/lib/nvidia/log"))
    moved = {a.path.rpartition("/")[2] for a in first.actions if isinstance(a, MoveAside)}
    assert {"libcuda.so.1", "libcuda.so.570.86.10", "libnvidia-ml.so.570.86.10"} <= moved
    assert not any("550.120" in name for name in moved)


def test_where_dependencies_are_missing_apt_mends_them_first(ladder: Ladder) -> None:
    first, second, _ = ladder("partial-driver-install", "a library was removed by force")
    assert first.actions == (AptFixBroken(),)
    assert second.actions == (AptInstall(("libnvidia-glcore2",)),)


def test_of_a_module_that_ubuntu_built_the_source_is_the_other_way(ladder: Ladder) -> None:
    built, source, *_ = ladder(
        "dkms-module-missing-for-running-kernel", "prebuilt modules only for the previous kernel"
    )
    kernel = "6.8.0-51-generic"
    assert built.actions == (AptInstall((f"linux-modules-nvidia-550-{kernel}",)),)
    assert source.actions == (AptInstall(("nvidia-dkms-550", f"linux-headers-{kernel}")), UpdateInitramfs(kernel))


CUDA_REPOSITORY = "deb https://developer.download.nvidia.com/compute/cuda/repos/{}/x86_64/ /\n"


def test_what_nvidias_repository_brought_of_another_branch_goes_for_the_whole_driver(ladder: Ladder) -> None:
    lib = "/usr/lib/x86_64-linux-gnu"
    machine = (
        Machine.ubuntu2404_gpu()
        .file("/etc/apt/sources.list.d/cuda.list", CUDA_REPOSITORY.format("ubuntu2404"))
        .without_package("libnvidia-compute-550")
        .package("libnvidia-compute-580", "580.142-0ubuntu1", [f"{lib}/libcuda.so.1"], multi_arch="same")
    )
    (plan,) = ladder("mixed-repositories", machine=machine)
    pin, install, _ = plan.actions
    assert isinstance(pin, WriteFile)
    assert "libnvidia-*-[0-9][0-9][0-9]*" in pin.text  # and not libnvidia-container1
    assert install == AptInstall(
        ("nvidia-driver-550", "nvidia-utils-550", "libnvidia-compute-550"), remove=("libnvidia-compute-580",)
    )


def test_on_debian_the_pin_names_the_packages_that_both_repositories_have(ladder: Ladder) -> None:
    machine = (
        Machine.debian12_gpu()
        .file("/etc/apt/sources.list", "deb http://deb.debian.org/debian bookworm main contrib non-free\n")
        .file("/etc/apt/sources.list.d/cuda.list", CUDA_REPOSITORY.format("debian12"))
        .file(
            "/var/lib/apt/lists/developer.download.nvidia.com_compute_cuda_repos_debian12_x86%5f64_Packages",
            "Package: libcuda1\nVersion: 560.35.03-1\n\n",
        )
        .file(
            "/var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_non-free_binary-amd64_Packages",
            "Package: nvidia-driver\nVersion: 535.261.03-1\n\n",
        )
        .package("libcuda1", "560.35.03-1", multi_arch="same")
    )
    (plan,) = ladder("mixed-repositories", machine=machine)
    pin, install, _ = plan.actions
    assert isinstance(pin, WriteFile)
    assert {"libcuda1", "nvidia-kernel-dkms", "libnvidia-ml1"} <= set(pin.text.split())
    assert install == AptInstall(("libcuda1=535.261.03-1",))


def test_a_module_that_the_metapackage_misses_is_named_for_apt(ladder: Ladder) -> None:
    machine = (
        Machine.debian12()
        .gpu(driver="nouveau")
        .debian_driver(kernels=(), loaded=False)
        .without_package("nvidia-kernel-dkms")
        .remove("/var/lib/dkms/nvidia-current/535.261.03/source")
        .package(
            "nvidia-driver",
            "535.261.03-1",
            depends="nvidia-kernel-dkms (= 535.261.03-1) | nvidia-kernel-535.261.03 | nvidia-open-kernel-535.261.03",
        )
    )
    mend, install, _ = ladder("partial-driver-install", machine=machine)
    assert mend.actions == (AptFixBroken(),)
    assert install.actions == (AptInstall(("nvidia-kernel-dkms",)),)


@pytest.mark.parametrize("loaded", [True, False])
def test_a_driver_that_comes_to_one_version_needs_a_restart_where_the_old_one_runs(
    loaded: bool, ladder: Ladder
) -> None:
    version = "550.107.02-0ubuntu0.24.04.1"
    machine = Machine.ubuntu2404().gpu().ubuntu_driver("550.120", loaded=loaded)
    machine.package("nvidia-dkms-550", version, status="hold ok installed")
    (plan,) = ladder("held-packages-block-driver", machine=machine)
    assert plan.reboot == (Reboot() in plan.actions) == loaded


def test_a_module_that_was_built_is_loaded(ladder: Ladder) -> None:
    (plan,) = ladder("dkms-compiler-mismatch", "the driver's own compiler check fails")
    assert [a.summary() for a in plan.actions] == [
        "apt-get install gcc-12",
        "dkms install nvidia-current/535.261.03 -k 6.1.0-50-amd64",
        "update-initramfs -u -k 6.1.0-50-amd64",
        "modprobe -a nvidia",
    ]
    assert LoadModules(("nvidia",)) in plan.actions


def test_a_person_is_not_sent_to_a_file_of_the_kernels(ladder: Ladder) -> None:
    (plan,) = ladder("vfio-pci-claims-gpu", "ids on the kernel command line")
    assert plan.actions[0] == ByHand("remove the GPU's PCI id or address from /etc/default/grub:2")


def test_a_toolkit_that_the_driver_runs_is_named(ladder: Ladder) -> None:
    (plan,) = ladder("cuda-runtime-newer-than-driver", "CUDA 12.4 on driver 470")
    assert "supports (up to CUDA 11.4)" in plan.actions[0].summary()


def test_who_stays_with_a_kernel_holds_all_that_brings_newer_ones(ladder: Ladder) -> None:
    new = "7.2.13+deb14-amd64"
    machine = Machine.debian12().kernel(new, running=False).gpu().debian_driver()
    machine.package("linux-image-amd64", "7.2.13-1", depends=f"linux-image-{new} (= 7.2.13-1)")
    machine.package("linux-headers-amd64", "7.2.13-1", depends=f"linux-headers-{new} (= 7.2.13-1)")
    machine.package("linux-generic", "7.2", depends="linux-image-amd64 (= 7.2.13-1), linux-headers-amd64")
    (plan,) = ladder("kernel-too-new-for-driver-branch", machine=machine)
    (hold,) = [a.text for a in plan.actions if isinstance(a, ByHand) and "apt-mark" in a.text]
    assert hold.endswith("apt-mark hold linux-generic linux-headers-amd64 linux-image-amd64")


@pytest.mark.parametrize(("own", "links"), [("4:13.2.0-7ubuntu1", True), ("4:11.2.0-1ubuntu1", False)])
def test_gcc_becomes_the_releases_own_again_and_nothing_else(own: str, links: bool, ladder: Ladder) -> None:
    """Ubuntu's HWE kernels are built with a newer gcc than the release has, which all else is built with."""
    machine = Machine.ubuntu2404().gpu(driver="").ubuntu_driver(kernels=(), loaded=False).package("gcc", own)
    machine.library("/usr/bin/x86_64-linux-gnu-gcc-11").link("/usr/bin/gcc", "x86_64-linux-gnu-gcc-11")
    first, *others = ladder("dkms-compiler-mismatch", machine=machine)
    assert first.actions[0] == AptInstall(("gcc-13",))
    assert (MakeLink in kinds(first), first.risk) == ((True, Risk.MEDIUM) if links else (False, Risk.LOW))
    assert [a.summary() for p in others for a in p.actions] == (
        [] if links else ["CC=/usr/bin/gcc-13 dkms install nvidia/550.120 -k 6.8.0-50-generic"]
    )


def test_cudnn_comes_for_the_very_cuda_that_is_there(ladder: Ladder) -> None:
    """Up to cuDNN 7 there was a build for each release of CUDA."""
    machine = Machine.ubuntu2404_gpu().cuda_toolkit("10.0", "10.0.130").cudnn("7.6.5")
    machine.remove("/usr/local/cuda-10.0/targets/x86_64-linux/lib/libcudnn.so.7.6.5")
    first, *_ = ladder("cudnn-runtime-missing", machine=machine)
    assert first.actions[0] == AptInstall(("libcudnn7=7.6.5.32-1+cuda10.0",))


def test_where_no_cudnn_is_known_for_the_cuda_a_person_is_told(ladder: Ladder) -> None:
    machine = Machine.ubuntu2404_gpu().cuda_toolkit("13.0").cudnn("9.12.0")
    machine.library("/usr/local/lib/libopencv_dnn.so.4.8.0", "libopencv_dnn.so.408", ["libcudnn.so.8"])
    *_, last = ladder("cudnn-major-8-vs-9", machine=machine)
    assert kinds(last) == [ByHand]
    assert "for CUDA 13.0" in last.actions[0].summary()


def test_a_line_to_correct_by_hand_is_told_with_its_form(ladder: Ladder) -> None:
    machine = Machine.debian12_gpu().file("/etc/environment", "LD_LIBRARY_PATH=$CUDA_HOME/lib64:$LD_LIBRARY_PATH\n")
    (plan,) = ladder("ld-library-path-malformed", machine=machine)
    (step,) = plan.actions
    assert step.summary().startswith("Edit line 1 of /etc/environment: a variable stands where it is not expanded")
    assert step.summary().endswith("LD_LIBRARY_PATH=DIRECTORY:DIRECTORY must name every directory in full")


@pytest.mark.parametrize(
    ("shell", "file", "line", "advice"),
    [
        (
            "/bin/csh",
            ".cshrc",
            "setenv LD_LIBRARY_PATH '/opt/lib:$LD_LIBRARY_PATH'",
            "setenv LD_LIBRARY_PATH DIRECTORY",
        ),
        ("/usr/bin/fish", ".config/fish/config.fish", "set -gx PATH /c/bin; umask 022", "set -gx PATH DIRECTORY $PATH"),
        ("/bin/bash", ".bashrc", "export PATH=/c/bin; umask 022", "export PATH=DIRECTORY${PATH:+:${PATH}}"),
    ],
)
def test_what_is_told_of_a_line_is_in_the_words_of_its_shell(
    shell: str, file: str, line: str, advice: str, ladder: Ladder
) -> None:
    """csh would stop at a variable that is not set."""
    machine = Machine.debian12().user("sam", 1001, shell).file(f"/home/sam/{file}", f"{line}\n", uid=1001)
    (plan,) = ladder("ld-library-path-malformed", machine=machine)
    (step,) = plan.actions
    assert isinstance(step, ByHand)
    assert step.text.endswith(f", as in {advice}") or step.text.endswith(f"; write it as in {advice}")


WHEEL = "lib/python3.11/site-packages/nvidia/cudnn"
CUDNN_WHEEL = ("nvidia_cudnn_cu12-8.9.7.29",)
INCLUDE = "/usr/local/cuda-12.2/targets/x86_64-linux/include"


def copied_libraries(version: str = "8.9.7") -> Machine:
    """Of an archive, without its headers."""
    machine = Machine.ubuntu2404_gpu().cuda_toolkit("12.2").cudnn(version)
    for name in cudnn_headers(version):
        machine.remove(f"{INCLUDE}/{name}")
    return machine


def test_headers_come_from_another_folder_of_roots_with_the_same_version(ladder: Ladder) -> None:
    machine = copied_libraries()
    machine.cudnn("8.9.7", lib="/opt/cudnn/lib", include="/opt/cudnn/include")
    machine.python_environment("/opt/train", CUDNN_WHEEL, uid=0).cudnn(
        "8.9.2", lib=f"/opt/train/{WHEEL}/lib", include=f"/opt/train/{WHEEL}/include"
    )
    first, *rest = ladder("cudnn-headers-missing-or-split", machine=machine)
    assert (first.risk, first.network) == (Risk.LOW, False)
    assert set(first.actions) == {CopyFile(f"/opt/cudnn/include/{n}", f"{INCLUDE}/{n}") for n in cudnn_headers("8.9.7")}
    assert isinstance(rest[0].actions[0], ByHand)


def test_only_the_headers_that_are_missing_are_copied(ladder: Ladder) -> None:
    machine = copied_libraries().file(f"{INCLUDE}/cudnn.h", cudnn_headers("8.9.7")["cudnn.h"])
    machine.python_environment("/opt/train", CUDNN_WHEEL, uid=0).cudnn(
        "8.9.7", lib=f"/opt/train/{WHEEL}/lib", include=f"/opt/train/{WHEEL}/include"
    )
    first, *_ = ladder("cudnn-headers-missing-or-split", machine=machine)
    assert {a.path for a in first.actions if isinstance(a, CopyFile)} == {
        f"{INCLUDE}/{n}" for n in cudnn_headers("8.9.7") if n != "cudnn.h"
    }


def test_what_a_user_could_have_written_is_not_put_where_everybody_compiles(ladder: Ladder) -> None:
    machine = copied_libraries().python_environment("/home/alice/venv", CUDNN_WHEEL)
    folder = f"/home/alice/venv/{WHEEL}/include"
    for name, text in cudnn_headers("8.9.7").items():
        machine.file(f"{folder}/{name}", text, uid=1000)
    first, *_ = ladder("cudnn-headers-missing-or-split", machine=machine)
    (step,) = first.actions
    assert isinstance(step, ByHand)
    assert step.text.startswith(
        f"Take the headers from {folder}, if you trust its owner. In their directory, run: cp -P cudnn*.h {INCLUDE}/"
    )


@pytest.mark.parametrize(
    ("version", "archive"),
    [
        (
            "8.9.7",
            "Take the headers from cudnn-linux-x86_64-8.9.7.*_cuda12-archive.tar.xz (at developer.download.nvidia.com/",
        ),
        (
            "9.1.0",
            "Take the headers from cudnn-linux-x86_64-9.1.0.*_cuda12-archive.tar.xz (at developer.download.nvidia.com/",
        ),
        ("7.6.5", "Take the headers from NVIDIA's archive of cuDNN 7.6.5 (developer.nvidia.com/cudnn)"),
    ],
)
def test_without_another_copy_the_file_to_fetch_is_named(version: str, archive: str, ladder: Ladder) -> None:
    first, *_ = ladder("cudnn-headers-missing-or-split", machine=copied_libraries(version))
    assert first.actions[0].summary().startswith(archive)


def test_what_pip_is_to_install_can_be_pasted_into_a_shell_by_the_owner(tmp_path: Path) -> None:
    rule = BY_ID["cudnn-major-8-vs-9"]
    next(s.machine for s in rule.scenarios() if s.name == "CTranslate2 4.4 and cuDNN 9").build(tmp_path)
    facts = Facts(RootHost(str(tmp_path)), Options())
    repair = choose(diagnose([rule], facts), BY_ID, facts, Limits(offline=True))
    (left,) = repair.left
    assert [action.summary() for action in left.by_hand] == [
        "/home/alice/whisper/bin/python -m pip install 'ctranslate2>=4.5'"
    ]
    assert left.reason == "only its owner may change a Python environment: run this as that user, without sudo"
    assert (
        PipInstall("/venv/bin/python", ("tensorflow[and-cuda]==2.15.1",))
        .summary()
        .endswith("'tensorflow[and-cuda]==2.15.1'")
    )
