"""Python environments found and read without running anything."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.host.root import RootHost
from dlhealth.judgements.wheels import fitting_wheel, torch_wheel, wheels
from dlhealth.probes import Options
from dlhealth.probes.login.users import Users
from dlhealth.probes.python.frameworks import tensorflow_needs
from dlhealth.probes.python.pythonenv import (
    PythonEnvironments,
    Torch,
    parse_build_info,
    parse_torch_targets,
    parse_torch_version,
)
from dlhealth.testing import Machine

SITE = "lib/python3.11/site-packages"

# As in the wheels of these versions.
TORCH_2_14 = """\
from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '2.14.1+cu130'
debug = False
cuda: Optional[str] = '13.0'
git_version = '5c4886908584029761b579af026dcfb627c84070'
hip: Optional[str] = None
rocm: Optional[str] = None
xpu: Optional[str] = None
"""
TORCH_1_4 = "__version__ = '1.4.0'\ndebug = False\ncuda = '10.1'\ngit_version = '7404463'\n"
TARGETS_2_14 = """\
PYTORCH_RELEASES_CODE_CC: dict[str, dict[str, set[int]]] = {
    "12.6": {
        "x86_64": {50, 60, 70, 75, 80, 86, 90},
        "aarch64": {80, 90},
    },
    "13.0": {
        "x86_64": {75, 80, 86, 90, 100, 120},
        "aarch64": {80, 90, 100, 110, 120},
    },
}
"""
TF_2_15 = """\
import collections

build_info = collections.OrderedDict([('cpu_compiler', '/usr/lib/llvm-17/bin/clang'), ('cuda_compute_capabilities', \
['sm_50', 'compute_80']), ('cuda_version', '12.2'), ('cudnn_version', '8'), ('is_cuda_build', True), \
('is_rocm_build', False), ('is_tensorrt_build', True)])
"""
TF_2_3 = "build_info = {'cuda_version': '10.1', 'cudnn_version': '7', 'is_rocm_build': False, 'is_cuda_build': True}\n"
TF_1_14 = "is_cuda_build = False\nis_rocm_build = False\n"


def look(machine: Machine, folder: Path, *pythons: str) -> PythonEnvironments:
    host = RootHost(str(machine.build(folder)))
    options = Options(pythons=pythons)
    return PythonEnvironments.probe(host, options, Users.probe(host, options))


def paths(found: PythonEnvironments) -> list[str]:
    return [e.path for e in found.environments]


class TestTorchVersion:
    @pytest.mark.parametrize(
        ("text", "version", "cuda", "backend", "line"),
        [
            (TORCH_2_14, "2.14.1+cu130", "13.0", "cuda", "6"),
            (TORCH_2_14.replace("'13.0'", "None").replace("cu130", "cpu"), "2.14.1+cpu", "", "cpu", "6"),
            (TORCH_1_4, "1.4.0", "10.1", "cuda", "3"),
            ("__version__ = '2.3.0+rocm6.0'\ncuda: Optional[str] = None\nhip: Optional[str] = '6.0'\n", "2.3.0+rocm6.0", "", "rocm", "3"),
            ("__version__ = '2.9.1+xpu'\ncuda = None\nhip = None\nxpu: Optional[str] = '20250201'\n", "2.9.1+xpu", "", "xpu", "4"),
            ('__version__ = "2.4.0a0+git1234"\ncuda = "12.4"  # from the build\n', "2.4.0a0+git1234", "12.4", "cuda", "2"),
            ("__version__ = '2.3.0+cu118'\n", "2.3.0+cu118", "11.8", "cuda", "1"),
            ("__version__ = '0.4.0'\n", "0.4.0", None, "", "1"),
        ],
    )  # fmt: skip
    def test_generations(self, text: str, version: str, cuda: str | None, backend: str, line: str) -> None:
        told = parse_torch_version(text)
        assert told is not None
        assert (told.version, told.cuda, told.backend, told.source) == (version, cuda, backend, line)

    @pytest.mark.parametrize("text", ["", "import os\n", "__version__ = get()\n", "# __version__ = '1.0'\n"])
    def test_what_does_not_say(self, text: str) -> None:
        assert parse_torch_version(text) is None

    @given(st.text() | st.from_regex(r"(__version__|cuda|hip)(: str)? = '[^\n]*'\n(.|\n)*"))
    def test_anything(self, text: str) -> None:
        told = parse_torch_version(text)
        assert told is None or (told.version and told.backend in ("cuda", "cpu", "rocm", "xpu", ""))

    def test_targets(self) -> None:
        assert parse_torch_targets(TARGETS_2_14, "12.6") == "5.0 6.0 7.0 7.5 8.0 8.6 9.0"
        assert parse_torch_targets(TARGETS_2_14, "13.0") == "7.5 8.0 8.6 9.0 10.0 12.0"
        assert parse_torch_targets(TARGETS_2_14, "13.4") == ""
        flat = 'PYTORCH_RELEASES_CODE_CC: dict[str, set[int]] = {\n    "12.6": {90, 50},\n}\n'
        assert parse_torch_targets(flat, "12.6") == "5.0 9.0"

    @given(st.text())
    def test_targets_of_anything(self, text: str) -> None:
        for value in (text, f"{{{text}\n}}", f'{{"12.6": {text}\n}}'):
            code = f"PYTORCH_RELEASES_CODE_CC: x = {value}\n"
            assert isinstance(parse_torch_targets(code, "12.6"), str)


class TestTensorFlow:
    @pytest.mark.parametrize(
        ("text", "gpu", "cuda", "cudnn", "line"),
        [(TF_2_15, True, "12.2", "8", 3), (TF_2_3, True, "10.1", "7", 1), (TF_1_14, False, "", "", 1)],
    )
    def test_build_info(self, text: str, gpu: bool, cuda: str, cudnn: str, line: int) -> None:
        told = parse_build_info(text)
        assert told is not None
        assert told[:4] == (gpu, cuda, cudnn, line)

    @given(st.text())
    def test_anything(self, text: str) -> None:
        assert parse_build_info(text) is None
        told = parse_build_info(f"is_cuda_build = True{text}")
        assert told is None or told[0]

    @pytest.mark.parametrize(
        ("package", "gpu"),
        [
            ("tensorflow-2.15.1", True),
            ("tensorflow-2.0.0", None),
            ("tensorflow-1.15.5", False),
            ("tensorflow_gpu-1.15.5", True),
            ("tensorflow_cpu-2.15.1", False),
            ("intel_tensorflow-2.13.0", False),
        ],
    )
    def test_by_the_name_of_the_package(self, tmp_path: Path, package: str, gpu: bool | None) -> None:
        (environment,) = look(Machine.debian12().python_environment(packages=[package]), tmp_path).environments
        assert environment.tensorflow is not None
        assert environment.tensorflow.gpu is gpu

    def test_needs(self) -> None:
        needs = tensorflow_needs("2.4.4")
        assert needs is not None
        assert {"libcusolver.so.10", "libcudart.so.11.0", "libcudnn.so.8"} <= set(needs.sonames)
        assert not needs.finds_wheels
        later = tensorflow_needs("2.18.1", "12.5.1", "9")
        assert later is not None and later.finds_wheels and "libcudnn.so.9" in later.sonames
        assert tensorflow_needs("2.99.0") is None
        assert tensorflow_needs("nightly") is None


class TestWheels:
    """Against lists that were measured in wheels, and what PyTorch prints."""

    @pytest.mark.parametrize(
        ("version", "cuda", "capability", "runs"),
        [
            ("2.3.1", "12.1", "8.9", True),
            ("2.3.1", "12.1", "5.2", True),
            ("2.3.1", "12.1", "12.0", False),
            ("2.3.1", "12.1", "3.7", False),
            ("2.0.1", "11.8", "3.7", True),
            ("2.0.1", "11.8", "3.5", False),
            ("2.6.0", "12.6", "12.0", False),
            ("2.8.0", "12.8", "6.1", False),
            ("2.8.0", "12.8", "12.0", True),
            ("2.10.0", "12.8", "7.0", True),
            ("2.11.0", "13.0", "7.0", False),
            ("2.14.1", "13.0", "12.1", True),
            ("2.14.1", "12.6", "6.1", True),
            ("1.7.1", "10.2", "8.6", False),
            ("1.4.0", "10.1", "8.6", True),  # has PTX
        ],
    )
    def test_runs_on(self, version: str, cuda: str, capability: str, runs: bool) -> None:
        wheel = torch_wheel(version, cuda)
        assert wheel is not None
        assert wheel.runs_on(capability) is runs

    def test_only_pytorchs_own(self) -> None:
        assert torch_wheel("2.3.1+cu121", "12.1")
        assert torch_wheel("2.14.0", "13.0")  # its sibling 2.14.1 is in the table
        for version in ("2.4.0a0+git1234", "2.3.1+cu118", "2.3", "nonsense", "9.9.9"):
            assert torch_wheel(version, "12.1") is None

    def test_every_row_has_its_source(self) -> None:
        assert all(w.source and w.targets for w in wheels())

    @pytest.mark.parametrize(
        ("installed", "driver", "capability", "expected"),
        [
            ("2.3.0+cpu", "535.261.03", "6.1", ("2.3.0", "cu121")),
            ("2.5.1+cu121", "570.133.07", "12.0", ("2.7.1", "cu128")),
            ("2.8.0", "535.261.03", "6.1", ("2.8.0", "cu126")),
            ("2.9.1+cu130", "535.261.03", "8.6", ("2.9.1", "cu128")),
            ("2.9.1+cu130", "580.95.05", "8.6", ("2.9.1", "cu130")),
            ("2.14.1+cu132", "580.95.05", "8.6", ("2.14.1", "cu130")),  # what the driver supports in full is better
            ("2.3.0", "470.256.02", "6.1", ("2.3.0", "cu118")),
            ("2.12.0", "470.256.02", "6.1", ("2.7.1", "cu118")),
        ],
    )
    def test_fitting(self, installed: str, driver: str, capability: str, expected: tuple[str, str]) -> None:
        wheel = fitting_wheel(installed, [driver], [capability])
        assert wheel is not None
        assert (wheel.version, wheel.tag) == expected

    def test_where_none_is_for_all_gpus_the_newest_counts(self) -> None:
        wheel = fitting_wheel("2.8.0+cu126", ["570.133.07"], ["6.1", "12.0"])
        assert wheel is not None
        assert (wheel.version, wheel.tag) == ("2.8.0", "cu128")

    def test_nothing_fits(self) -> None:
        assert fitting_wheel("2.3.0", ["340.108"], ["2.1"]) is None


class TestSearch:
    def test_places(self, tmp_path: Path) -> None:
        machine = (
            Machine.debian12()
            .python_environment("/home/alice/venv", ["a-1"])
            .python_environment("/home/alice/code/x/.venv", ["a-1"])
            .python_environment("/home/alice/code/org/y/.venv", ["a-1"])
            .python_environment("/home/alice/.virtualenvs/w", ["a-1"])
            .python_environment("/home/alice/.local/share/virtualenvs/p", ["a-1"])
            .python_environment("/home/alice/.cache/pypoetry/virtualenvs/q", ["a-1"])
            .python_environment("/home/alice/.local/share/pipx/venvs/whisper", ["a-1"])
            .python_environment("/home/alice/.local/share/uv/tools/vllm", ["a-1"])
            .file("/home/alice/code/z/.pixi/envs/default/conda-meta/history")
            .file(f"/home/alice/code/z/.pixi/envs/default/{SITE}/a-1.dist-info/METADATA")
            .python_environment("/opt/app", ["a-1"])
            .python_environment("/opt/vendor/venv", ["a-1"])
            .file("/home/alice/miniconda3/conda-meta/history")
            .file(f"/home/alice/miniconda3/{SITE}/a-1.dist-info/METADATA")
            .file("/home/alice/miniconda3/envs/e/conda-meta/history")
            .file(f"/home/alice/miniconda3/envs/e/{SITE}/a-1.dist-info/METADATA")
            .file("/data/conda/e2/conda-meta/history")
            .file(f"/data/conda/e2/{SITE}/a-1.dist-info/METADATA")
            .file("/home/alice/.conda/environments.txt", "/data/conda/e2\n/gone\nnonsense\n")
            .file("/home/alice/.pyenv/versions/3.10.4/lib/python3.10/site-packages/a-1.dist-info/METADATA")
            .file("/home/alice/.local/lib/python3.11/site-packages/a-1.dist-info/METADATA")
            .file("/usr/lib/python3/dist-packages/a-1.egg-info")
            .file("/usr/local/lib/python3.11/dist-packages/a-1.dist-info/METADATA")
        )
        found = look(machine, tmp_path)
        assert sorted(paths(found)) == sorted(
            [
                "/home/alice/venv", "/home/alice/code/x/.venv", "/home/alice/code/org/y/.venv",
                "/home/alice/.virtualenvs/w", "/home/alice/.local/share/virtualenvs/p",
                "/home/alice/.cache/pypoetry/virtualenvs/q", "/home/alice/.local/share/pipx/venvs/whisper",
                "/home/alice/.local/share/uv/tools/vllm", "/home/alice/code/z/.pixi/envs/default", "/opt/app", "/opt/vendor/venv", "/home/alice/miniconda3",
                "/home/alice/miniconda3/envs/e", "/data/conda/e2", "/home/alice/.pyenv/versions/3.10.4",
                "/home/alice/.local", "/usr", "/usr/local",
            ]
        )  # fmt: skip
        assert not found.problems
        kinds = {e.path: (e.kind, e.version, e.account.name if e.account else None) for e in found.environments}
        assert kinds["/home/alice/venv"] == ("venv", "3.11", "alice")
        assert kinds["/data/conda/e2"] == ("conda", "3.11", "alice")
        assert kinds["/opt/app"] == ("venv", "3.11", None)
        assert kinds["/usr"] == ("system", "", None)
        assert kinds["/home/alice/.pyenv/versions/3.10.4"] == ("pyenv", "3.10", "alice")

    @pytest.mark.parametrize(
        "path",
        [
            "/root/anaconda3/envs/llava",
            "/workspace/ComfyUI/venv",
            "/data/team/models/whisper/.venv",
            "/srv/jupyter/env",
            "/opt/company/apps/vision/releases/7/venv",
            "/venv",
            "/home/alice/.invokeai/.venv",
            "/home/alice/.transformerlab/envs/transformerlab",
        ],
    )
    def test_places_outside_homes_and_hidden_folders(self, tmp_path: Path, path: str) -> None:
        found = look(Machine.debian12().python_environment(path, ["a-1"], uid=0), tmp_path)
        assert paths(found) == [path]
        assert not found.problems

    def test_whose_an_environment_outside_homes_is(self, tmp_path: Path) -> None:
        machine = Machine.debian12()
        for path, uid in (("/data/a", 1000), ("/data/b", 0), ("/data/c", 4711)):
            machine.folder(path, uid=uid).python_environment(path, ["a-1"], uid=uid)
        owners = {e.path: e.account.name if e.account else None for e in look(machine, tmp_path).environments}
        assert owners == {"/data/a": "alice", "/data/b": None, "/data/c": "#4711"}

    def test_says_where_it_did_not_search(self, tmp_path: Path) -> None:
        machine = Machine.debian12().python_environment("/var/lib/jupyter/venv", ["a-1"])
        machine.folder("/data").file("/proc/self/mounts", "server:/x /data nfs4 rw 0 0\nserver:/y /mnt/y nfs rw 0 0\n")
        machine.python_environment("/data/venv", ["a-1"]).python_environment("/mnt/y/venv", ["a-1"]).folder("/srv")
        found = look(machine, tmp_path)
        assert paths(found) == []
        assert "/srv" in found.bounds
        assert "the network file system at /data; the network file system at /mnt/y" in found.bounds
        assert "but not other places;" in found.bounds
        assert paths(look(machine, tmp_path / "2", "/var/lib/jupyter/venv")) == ["/var/lib/jupyter/venv"]

    def test_the_search_outside_homes_is_bounded(self, tmp_path: Path) -> None:
        machine = Machine.debian12()
        for number in range(700):
            machine.folder(f"/data/{number:03}")
        found = look(machine.python_environment("/data/699/venv", ["a-1"]), tmp_path)
        assert paths(found) == []
        assert "the directories from /data/5" in found.bounds

    @pytest.mark.parametrize(
        ("metadata", "cudnn"),
        [
            # PyPI's 2.1, its 2.4, and a wheel that has cuDNN inside.
            (
                'Requires-Dist: nvidia-cudnn-cu12 (==8.9.2.26) ; platform_system == "Linux"',
                "nvidia-cudnn-cu12==8.9.2.26",
            ),
            ('Requires-Dist: nvidia-cudnn-cu12==9.1.0.70; platform_system == "Linux"', "nvidia-cudnn-cu12==9.1.0.70"),
            ("Requires-Dist: filelock", ""),
        ],
    )
    def test_the_cudnn_that_pytorch_requires(self, tmp_path: Path, metadata: str, cudnn: str) -> None:
        machine = (
            Machine.debian12()
            .python_environment("/home/alice/v", torch="2.4.0", cuda="12.1")
            .file(
                f"/home/alice/v/{SITE}/torch-2.4.0.dist-info/METADATA", f"Name: torch\n{metadata}\nRequires-Dist: x\n"
            )
        )
        (environment,) = look(machine, tmp_path).environments
        assert environment.torch
        assert environment.torch.cudnn == cudnn

    def test_of_uv(self, tmp_path: Path) -> None:
        """As `uv venv` of uv 0.5 leaves it, and with `--seed`, which adds pip."""
        config = "home = /usr/bin\nimplementation = CPython\nuv = 0.5.4\nversion_info = 3.11.2\nprompt = x\n"
        machine = (
            Machine.debian12()
            .python_environment("/home/alice/x/.venv", ["numpy-1.26.4"])
            .file("/home/alice/x/.venv/pyvenv.cfg", config)
            .python_environment("/home/alice/y/.venv", ["numpy-1.26.4", "pip-25.0"])
            .file("/home/alice/y/.venv/pyvenv.cfg", config)
        )
        found = {e.path: (e.kind, e.manager) for e in look(machine, tmp_path).environments}
        assert found == {"/home/alice/x/.venv": ("uv", "uv"), "/home/alice/y/.venv": ("venv", "pip")}

    @pytest.mark.parametrize("python", ["/home/alice/venv", "/home/alice/venv/", "/home/alice/venv/bin/python"])
    def test_asked_for(self, tmp_path: Path, python: str) -> None:
        machine = Machine.debian12().python_environment().python_environment("/home/alice/other", ["a-1"])
        machine.python_environment("/home/alice/venv", ["b-2"])
        found = look(machine, tmp_path, python)
        assert paths(found) == ["/home/alice/venv"]
        assert found.environments[0].python == "/home/alice/venv/bin/python"

    def test_asked_for_the_systems(self, tmp_path: Path) -> None:
        machine = Machine.debian12().file("/usr/lib/python3/dist-packages/a-1.egg-info").file("/usr/bin/python3")
        assert paths(look(machine, tmp_path, "/usr/bin/python3")) == ["/usr"]

    @pytest.mark.parametrize("python", ["/nowhere/bin/python", "/etc/passwd", "/", "", "relative", "/a\0b"])
    def test_asked_for_in_vain(self, tmp_path: Path, python: str) -> None:
        found = look(Machine.debian12(), tmp_path, python)
        assert not found.environments
        assert repr(python)[1:-1] in repr(found.problems[-1])

    def test_links_out_of_a_home_lead_nowhere(self, tmp_path: Path) -> None:
        machine = (
            Machine.debian12()
            .folder("/etc/secret", 0o700)
            .python_environment("/etc/secret", ["a-1"], uid=0)
            .link("/home/alice/linked", "/etc/secret")
            .file("/home/alice/.conda/environments.txt", "/etc/secret\n")
        )
        assert paths(look(machine, tmp_path)) == []

    def test_an_unreadable_file_is_told(self, tmp_path: Path) -> None:
        found = look(
            Machine.debian12().python_environment(torch="2.3.0").fifo(f"/home/alice/venv/{SITE}/torch/version.py"),
            tmp_path,
        )
        assert any("version.py" in problem for problem in found.problems)

    def test_two_names_of_one_environment(self, tmp_path: Path) -> None:
        machine = Machine.debian12().python_environment("/opt/real", ["a-1"]).link("/opt/alias", "/opt/real")
        assert paths(look(machine, tmp_path)) == ["/opt/real"]

    def test_not_searched(self, tmp_path: Path) -> None:
        machine = (
            Machine.debian12()
            .python_environment("/home/alice/web/node_modules/x", ["a-1"])
            .python_environment("/home/alice/.cache/x", ["a-1"])
            .python_environment("/home/alice/nfs/x", ["a-1"])
            .file("/proc/self/mounts", "server:/x /home/alice/nfs nfs4 rw 0 0\nbroken\n")
        )
        assert paths(look(machine, tmp_path)) == []

    def test_packages_and_libraries(self, tmp_path: Path) -> None:
        lib = f"/home/alice/venv/{SITE}/nvidia/cudnn/lib"
        machine = (
            Machine.debian12()
            .python_environment(
                packages=["nvidia_cudnn_cu12-9.10.2.21", "ruamel.yaml-0.18"], torch="2.8.0", cuda="12.8"
            )
            .file(f"/home/alice/venv/{SITE}/~umpy-1.0.dist-info/METADATA")
            .library(f"{lib}/libcudnn.so.9", "libcudnn.so.9")
            .library(f"{lib}/libcudnn_ops.so.9", "libcudnn_ops.so.9")
        )
        (environment,) = look(machine, tmp_path).environments
        assert environment.packages == {"nvidia-cudnn-cu12": "9.10.2.21", "ruamel-yaml": "0.18", "torch": "2.8.0"}
        assert environment.libraries == {name: f"{lib}/{name}" for name in ("libcudnn.so.9", "libcudnn_ops.so.9")}

    def test_cuda_by_the_runtime_that_a_wheel_requires(self, tmp_path: Path) -> None:
        packages = ["torch-2.3.1", "nvidia_cuda_runtime_cu12-12.1.105"]
        torch = look(Machine.debian12().python_environment(packages=packages), tmp_path).environments[0].torch
        assert torch is not None
        assert (torch.cuda, torch.backend) == ("12.1", "cuda")

    @pytest.mark.parametrize("home", ["/", "/var", "/nonexistent", "/home/a[b]*"])
    def test_strange_homes(self, tmp_path: Path, home: str) -> None:
        machine = Machine.debian12().append("/etc/passwd", f"bob:x:1001:1001::{home}:/bin/bash\n")
        machine.python_environment(f"{home}/venv", ["a-1"])
        expected = ["/home/a[b]*/venv"] if "[" in home else [] if home == "/var" else [f"{home.rstrip('/')}/venv"]
        assert paths(look(machine, tmp_path)) == expected

    @pytest.mark.parametrize(
        ("build", "expected"),
        [
            ("pytorch-2.1.0-py3.11_cuda12.1_cudnn8.9.2_0", ("cuda", "12.1")),
            ("pytorch-2.1.0-py3.11_cpu_0", ("cpu", "")),
            ("pytorch-2.1.2-cuda118py311h1234567_300", ("cuda", "11.8")),
            ("pytorch-2.1.2-cpu_mkl_py311h1234567_100", ("cpu", "")),
            ("pytorch-2.5.1-cuda126_py311h1234567_304", ("cuda", "12.6")),
            ("pytorch-2.1.2-unheard_of_0", ("", None)),
        ],
    )
    def test_conda_builds(self, tmp_path: Path, build: str, expected: tuple[str, str | None]) -> None:
        machine = Machine.debian12().file(f"/opt/conda/conda-meta/{build}.json", "{}")
        machine.file(f"/opt/conda/{SITE}/torch-2.1.0-py3.11.egg-info/PKG-INFO")
        torch: Torch | None = look(machine, tmp_path).environments[0].torch
        assert torch is not None
        assert (torch.backend, torch.cuda) == expected

    def test_a_huge_home_is_searched_in_part(self, tmp_path: Path) -> None:
        root = Machine.debian12().build(tmp_path)
        for number in range(3000):
            os.makedirs(root / f"home/alice/data/{number // 60}/{number}")
        host = RootHost(str(root))
        started = time.process_time()
        found = PythonEnvironments.probe(host, Options(), Users.probe(host, Options()))
        assert time.process_time() - started < 0.5
        assert "not all were searched" in found.problems[0]

    def test_a_heap_of_data_is_left_alone(self, tmp_path: Path) -> None:
        root = Machine.debian12().build(tmp_path)
        folder = root / "home/alice/images"
        folder.mkdir()
        for number in range(5100):
            os.mkdir(folder / str(number))
        host = RootHost(str(root))
        assert not PythonEnvironments.probe(host, Options(), Users.probe(host, Options())).problems

    def test_this_machine(self) -> None:
        host = RootHost("/")
        found = PythonEnvironments.probe(host, Options(), Users.probe(host, Options()))
        assert all(e.site.startswith("/") for e in found.environments)
