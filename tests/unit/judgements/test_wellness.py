"""A tick means seen to work: what each area needs for it, on machines as directories."""

from pathlib import Path

import pytest

from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts, Options
from dlhealth.host.root import RootHost
from dlhealth.model import Area, Diagnosis, Health, State
from dlhealth.testing import Machine

KERNEL = "6.1.0-50-amd64"
WELL, ABSENT, UNKNOWN = State.WELL, State.ABSENT, State.UNKNOWN


def seen(machine: Machine, root: Path) -> Diagnosis:
    """What is seen without any rule: no finding can turn a tick into a cross."""
    machine.build(root)
    return diagnose((), Facts(RootHost(str(root)), Options()), whole=True)


def area(machine: Machine, root: Path, name: str) -> Area:
    (found,) = (a for a in seen(machine, root).areas if a.name == name)
    return found


def test_a_complete_machine(tmp_path: Path) -> None:
    machine = Machine.debian12_gpu().cuda_toolkit("12.2").cudnn("8.9.7").user("bob", 1001)
    machine.python_environment(torch="2.3.0+cu121", cuda="12.1")
    areas = seen(machine, tmp_path).areas
    assert [(a.name, a.subject) for a in areas if a.state is not WELL] == []
    assert {a.name: a.text for a in areas} == {
        "GPU": "NVIDIA GeForce GTX 1080 Ti: held by the nvidia driver",
        "driver": "535.261.03 is loaded; the libraries are the same version",
        "module": f"535.261.03 for kernel {KERNEL} (running and next)",
        "libraries": "libcuda and NVML 535.261.03: the version of the module",
        "packages": "22 of driver 535.261.03, all configured",
        "CUDA": "12.2 in /usr/local/cuda-12.2; the driver runs it",
        "cuDNN": "8.9.7 in /usr/local/cuda-12.2/targets/x86_64-linux/lib, with its headers",
        "login": "start-up files set a usable PATH and do not end the session",
        "Python": "/home/alice/venv: PyTorch 2.3.0+cu121 for CUDA 12.1, which the driver runs",
    }
    assert [a.subject for a in areas if a.name == "login"] == ["user:alice", "user:bob"]


def test_a_machine_without_a_driver_has_no_tick_for_it(tmp_path: Path) -> None:
    without = seen(Machine.debian12().gpu(driver=""), tmp_path)
    states = {a.name: a.state for a in without.areas}
    assert states == {
        "GPU": UNKNOWN,
        **dict.fromkeys(("driver", "module", "libraries", "packages", "CUDA", "cuDNN", "Python"), ABSENT),
        "login": WELL,
    }
    assert without._replace(run=1).health is Health.UNKNOWN


def test_a_container_without_the_hosts_libraries_is_not_called_healthy(tmp_path: Path) -> None:
    container = Machine.debian12().folder("/sys/bus/pci/devices").file("/.dockerenv")
    assert seen(container, tmp_path)._replace(run=1).doubt == "neither a GPU nor a driver was seen"


def test_an_empty_tree_has_no_tick_at_all(tmp_path: Path) -> None:
    for name in ("etc", "usr", "var"):
        (tmp_path / name).mkdir()
    empty = seen(Machine(), tmp_path)
    assert WELL not in {a.state for a in empty.areas}
    assert empty._replace(run=1).health is Health.UNKNOWN


@pytest.mark.parametrize(
    ("machine", "name", "state", "text"),
    [
        (Machine.debian12_gpu().loaded_driver("550.1"), "driver", UNKNOWN, "550.1 is loaded, the libraries are 535.261.03"),
        (Machine.debian12().gpu("1b06", driver="nouveau"), "GPU", UNKNOWN, "NVIDIA GeForce GTX 1080 Ti: held by nouveau"),
        (Machine.debian12().gpu(driver="").debian_driver(loaded=False), "driver", UNKNOWN, "535.261.03 is installed; it is not loaded"),
        (
            Machine.debian12_gpu().kernel("6.1.0-51-amd64", running=False),
            "module",
            UNKNOWN,
            f"6.1.0-51-amd64 (next): none; 535.261.03 for kernel {KERNEL} (running)",
        ),
        (Machine.debian12_gpu().mark("nvidia-driver", "install ok half-configured"), "packages", UNKNOWN, "22 of driver 535.261.03; not configured: nvidia-driver"),
        (Machine.debian12_gpu().cuda_toolkit("13.0"), "CUDA", UNKNOWN, "13.0 in /usr/local/cuda-13.0; the driver is too old for it"),
        (Machine.debian12().cuda_toolkit("12.2"), "CUDA", UNKNOWN, "12.2 in /usr/local/cuda-12.2; no driver to compare with"),
        (
            Machine.debian12().cuda_toolkit().cudnn().file("/usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn_version.h", "#define CUDNN_MAJOR 8\n#define CUDNN_MINOR 6\n#define CUDNN_PATCHLEVEL 0\n"),
            "cuDNN",
            UNKNOWN,
            "8.9.7 in /usr/local/cuda-12.2/targets/x86_64-linux/lib; the headers are 8.6.0",
        ),
        (Machine.debian12().append("/home/alice/.profile", "exit 1\n"), "login", UNKNOWN, "a start-up file ends the console session"),
        (Machine.debian12().append("/etc/environment", "PATH=/opt/bin\n"), "login", UNKNOWN, "PATH of the pam session lacks /usr/bin"),
        (Machine.debian12_gpu().python_environment(torch="2.3.0+cpu"), "Python", ABSENT, "/home/alice/venv: PyTorch 2.3.0+cpu, built without CUDA"),
        (Machine.debian12_gpu().python_environment(torch="2.9.0+cu130", cuda="13.0"), "Python", UNKNOWN, "/home/alice/venv: PyTorch 2.9.0+cu130 for CUDA 13.0; the driver is too old for it"),
        (Machine.debian12_gpu().file("/.dockerenv"), "driver", UNKNOWN, "not checked: skipped in a container: the kernel and the driver belong to the host"),
    ],
    ids=lambda value: "" if isinstance(value, (Machine, State)) else str(value)[:30],
)  # fmt: skip
def test_what_was_not_seen_to_work_gets_no_tick(
    machine: Machine, name: str, state: State, text: str, tmp_path: Path
) -> None:
    found = area(machine, tmp_path, name)
    assert (found.state, found.text) == (state, text)


def test_areas_are_only_judged_by_all_rules(tmp_path: Path) -> None:
    Machine.debian12().build(tmp_path)
    assert diagnose((), Facts(RootHost(str(tmp_path)), Options())).areas == ()
