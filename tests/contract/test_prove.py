"""`dlhealth prove` against a stand-in for libcuda.so.1 that computes on the CPU, and lies when it is told to."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dlhealth.cli import Status
from dlhealth.cli.prove import explaining
from dlhealth.engine.proofs import Comparison, Run
from dlhealth.model import Diagnosed, Diagnosis, Evidence, Finding, Layer, Severity, Skipped
from dlhealth.prove.errors import ERRORS, HANG, NO_LIBRARY, WRONG_ANSWER, suspects
from dlhealth.prove.records import Proof, Result
from dlhealth.prove.runner import Asker
from dlhealth.prove.stages import IN_PYTHON, ORDER
from dlhealth.report.prove import Explanation, render_proof
from dlhealth.report.style import Style
from dlhealth.testing import Machine
from tests import fuse
from tests.schema import violations

pytestmark = pytest.mark.real_programs
TESTS = Path(__file__).parent.parent
SOURCES = {"libcuda.so.1": TESTS / "stand_in_cuda.c", "libnvidia-ml.so.1": TESTS / "lab/nvml/stand_in.c"}
Prove = Callable[..., tuple[int, dict[str, Any]]]
NOBODY = 65534


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the stand-ins for the driver's libraries."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("cuda")
    for name, source in SOURCES.items():
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", folder / name, source], check=True)
    return folder


def with_programs(folder: Path, **programs: str) -> tuple[str, ...]:
    """The words before a command that run it with other system programs: dlhealth takes no others. Needs root."""
    if os.geteuid():
        pytest.skip("needs root for a mount")
    for name, text in programs.items():
        file = folder / "programs" / name.replace("_", "-")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    mounted = 'mount --bind "$0" /usr/sbin && exec "$@"'
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", mounted, str(folder / "programs"))


def proved(environment: dict[str, str], *words: str, before: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [*before, sys.executable, "-m", "dlhealth", "prove", "--json", "--no-history", *words],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert not violations(document)
    return done.returncode, document


@pytest.fixture
def prove(library: Path) -> Prove:
    def run(lie: str, *words: str) -> tuple[int, dict[str, Any]]:
        return proved({"LD_LIBRARY_PATH": str(library), "STAND_IN_CUDA": lie}, "--yes", *words)

    return run


WILLING = Asker(lambda use: True, lambda: None, lambda stage: None, lambda part: None, lambda: ())


def outcomes(document: dict[str, Any]) -> dict[str, str]:
    return {stage["stage"]: stage["outcome"] for stage in document["stages"]}


def test_a_driver_that_computes_is_proved(prove: Prove) -> None:
    status, document = prove("", "--until", "compute")
    assert status == Status.HEALTHY
    assert outcomes(document) == {"driver": "proved", "compute": "proved"}
    assert "stand-in on the CPU, compute capability 8.6" in document["stages"][0]["text"]


@pytest.mark.parametrize(
    ("lie", "stage", "said"),
    [
        ("wrong=4711", "compute", "computed 1 of 65536 numbers wrong, the first at index 4711"),
        ("later=1:719", "compute", "cuLaunchKernel returned 719 (CUDA_ERROR_LAUNCH_FAILED)"),
        ("error=cuInit:803", "driver", "cuInit returned 803 (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"),
        ("error=cuInit:999", "driver", "cuInit returned 999 (CUDA_ERROR_UNKNOWN)"),
        ("error=cuDevicePrimaryCtxRetain:46", "compute", "cuDevicePrimaryCtxRetain returned 46 (CUDA_ERROR_DEVICE_UN"),
    ],
)
def test_a_lie_is_caught(prove: Prove, lie: str, stage: str, said: str) -> None:
    status, document = prove(lie, "--until", "compute")
    assert status == Status.ERRORS
    found = next(s for s in document["stages"] if s["stage"] == stage)
    assert found["outcome"] == "failed"
    assert said in found["text"]


SENSORS = """driver 535.1
device 0000:01:00.0 8.6 NVIDIA Stand-in
value nvmlDeviceGetTemperature 66
value nvmlDeviceGetClockInfo 1410
value nvmlDeviceGetCurrPcieLinkGeneration 1
value nvmlDeviceGetCurrPcieLinkWidth 2
"""


def with_sensors(library: Path, folder: Path, script: str, lie: str, *words: str) -> tuple[int, dict[str, Any]]:
    file = folder / "script"
    file.write_text(SENSORS + script)
    environment = {"LD_LIBRARY_PATH": str(library), "STAND_IN_CUDA": lie, "DLHEALTH_NVML_SCRIPT": str(file)}
    return proved(environment, "--yes", *words)


def test_memory_and_load_are_proved_with_what_the_sensors_give(library: Path, tmp_path: Path) -> None:
    """Power and ECC are not supported by this GPU: they are left out, not zero."""
    script = "value nvmlDeviceGetCurrentClocksThrottleReasons 32\n"
    status, document = with_sensors(library, tmp_path, script, "", "--time", "1", "--until", "load")
    assert status == Status.HEALTHY
    assert set(outcomes(document).values()) == {"proved"}
    _, _, memory, load = document["stages"]
    assert memory["text"] == "64 MiB kept 4 patterns, and copies in both directions arrived unchanged"
    assert set(memory["figures"]) == {
        f"GPU 0: {name}"
        for name in ("tested, GiB", "copy to the host, GB/s", "copy to the GPU, GB/s", "copy within the GPU, GB/s")
    }
    assert load["text"] == "1 GPU, 1 s of load: every result is right; GPU 0 was slowed down by the temperature"
    assert load["figures"]["GPU 0: highest temperature, °C"] == 66
    assert not [name for name in load["figures"] if "power" in name or "ECC" in name]
    assert load["figures"]["GPU 0: longest kernel, s"] < 1


def test_the_driver_says_whether_nvml_answers(library: Path, tmp_path: Path, prove: Prove) -> None:
    _, document = with_sensors(library, tmp_path, "", "", "--stage", "driver")
    assert document["stages"][0]["text"].endswith("compute capability 8.6")
    assert prove("", "--stage", "driver")[1]["stages"][0]["text"].endswith("(NVML does not answer for it)")


def test_the_time_of_the_load_is_the_one_that_was_asked_for(prove: Prove) -> None:
    stages = [prove("", "--stage", "load", "--time", time)[1]["stages"][0] for time in ("1", "4")]
    assert [stage["text"] for stage in stages] == [f"1 GPU, {n} s of load: every result is right" for n in (1, 4)]
    assert stages[0]["seconds"] >= 1
    assert stages[1]["seconds"] >= 4


@pytest.mark.parametrize(
    ("lie", "stage", "said"),
    [
        (
            "flip=4711",
            "memory",
            "GPU 0: 1 word of memory changed, the first at byte 18844 of the tested",
        ),
        ("lost=17", "memory", "GPU 0: a copy to the host and back changed 1 word, the first at byte 68"),
        ("slow=50", "memory", "GB/s; its PCIe link (generation 1, 2 lanes) allows 0.5 GB/s"),
        ("wrong=4711", "load", "GPU 0: 1 of 4194304 numbers are wrong after 0 s of load, the first at index 4711"),
        ("later=4:719", "load", "cuLaunchKernel returned 719 (CUDA_ERROR_LAUNCH_FAILED)"),
        ("later=3:214", "memory", "cuLaunchKernel returned 214 (CUDA_ERROR_ECC_UNCORRECTABLE)"),
    ],
)
def test_lies_about_memory_and_under_load_are_caught(
    library: Path, tmp_path: Path, lie: str, stage: str, said: str
) -> None:
    status, document = with_sensors(library, tmp_path, "", lie, "--time", "1", "--stage", stage)
    assert (status, outcomes(document)) == (Status.ERRORS, {stage: "failed"})
    assert said in document["stages"][0]["text"]


@pytest.mark.parametrize(("kind", "status"), [("corrected", Status.HEALTHY), ("uncorrected", Status.ERRORS)])
def test_memory_errors_during_a_stage_are_counted(library: Path, tmp_path: Path, kind: str, status: Status) -> None:
    """The counters stand at 7 before it: these errors are older."""
    call = f"nvmlDeviceGetTotalEccErrors:{kind}"
    script = f"value {call} 7\ngrow {call} 2\n"
    ended, document = with_sensors(library, tmp_path, script, "", "--stage", "memory")
    assert ended == status
    (memory,) = document["stages"]
    if kind == "corrected":
        assert memory["figures"]["GPU 0: memory errors that ECC corrected"] == 2
    else:
        assert memory["text"] == "GPU 0: ECC counted 2 memory errors that it could not correct"


def test_a_link_without_a_known_speed_does_not_make_a_copy_slow(prove: Prove) -> None:
    status, _ = prove("slow=50", "--stage", "memory")
    assert status == Status.HEALTHY


@pytest.mark.parametrize(
    ("lie", "status", "said"),
    [
        ("free=257", Status.HEALTHY, "1 MiB kept 4 patterns"),
        ("free=256", Status.UNKNOWN, "GPU 0 has too little free memory: 256 MiB, and 256 stay free"),
        ("error=cuMemAlloc_v2:2", Status.UNKNOWN, "GPU 0 has too little free memory: 320 MiB"),
    ],
)
def test_a_small_card_keeps_memory_for_its_desktop(prove: Prove, lie: str, status: Status, said: str) -> None:
    ended, document = prove(lie, "--stage", "memory")
    assert (ended, document["stages"][0]["text"].startswith(said)) == (status, True), document["stages"][0]["text"]


def test_an_error_in_the_kernel_log_during_a_stage_is_no_proof(library: Path, tmp_path: Path) -> None:
    environment = {"LD_LIBRARY_PATH": str(library)}
    journalctl = "#!/bin/sh\ncase \"$*\" in *--dmesg*) echo 'NVRM: Xid (PCI:0000:01:00): 48, pid=1, DBE';; esac\n"
    status, document = proved(environment, "--stage", "driver", before=with_programs(tmp_path, journalctl=journalctl))
    assert status == Status.ERRORS
    assert document["stages"][0]["text"].endswith(
        "logged during this stage: NVRM: Xid (PCI:0000:01:00): 48, pid=1, DBE"
    )


def test_after_a_failure_nothing_more_is_started(prove: Prove) -> None:
    _, document = prove("error=cuInit:804", "--until", "compute")
    assert document["stages"][1]["text"] == "not started: the stage driver failed"


@pytest.mark.parametrize("environment", [{}, {"STAND_IN_CUDA": "error=cuInit:100"}])
def test_a_machine_without_a_gpu_is_neither_proved_nor_blamed(environment: dict[str, str], library: Path) -> None:
    if Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi"):
        pytest.skip("needs a machine without an NVIDIA driver")
    where = {"LD_LIBRARY_PATH": str(library)} if environment else {}
    status, document = proved({**environment, **where})
    assert status == Status.UNKNOWN
    assert set(outcomes(document).values()) == {"could not run"}
    assert document["stages"][0]["text"].startswith("no NVIDIA GPU was found; ")


def test_a_card_is_not_used_without_consent(library: Path) -> None:
    """Without nvidia-smi, nobody knows who computes on it."""
    if shutil.which("nvidia-smi"):
        pytest.skip("needs a machine without nvidia-smi")
    status, document = proved({"LD_LIBRARY_PATH": str(library)}, "--until", "compute")
    assert status == Status.UNKNOWN
    assert "unknown whether another program computes" in document["stages"][1]["text"]


def test_a_gpu_that_does_not_exist(prove: Prove) -> None:
    status, document = prove("", "--gpu", "3", "--stage", "driver")
    assert status == Status.UNKNOWN
    assert document["stages"][0]["text"] == "there is no GPU 3: the driver sees 1, counted from 0"


@pytest.mark.parametrize("words", [("--stage", "lunch"), ("--gpu", "-1"), ("--time", "0"), ("--stage", "driver", "--until", "driver")])  # fmt: skip
def test_wrong_usage(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dlhealth", "prove", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (Status.USAGE, "")


def test_a_hanging_driver_has_a_deadline(prove: Prove, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlhealth.prove import runner

    monkeypatch.setitem(runner.SECONDS, "driver", 0.5)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("STAND_IN_CUDA", "hang=cuInit")
    (result,) = runner.prove(runner.Wanted(("driver",), None, 1), WILLING)
    assert (result.outcome, result.text) == (Proof.FAILED, "no answer within 1.5 seconds")
    assert not result.hung


@pytest.mark.skipif(bool(fuse.unusable()), reason=fuse.unusable())
def test_a_process_that_cannot_be_ended_is_left_behind_and_reported() -> None:
    """The file of the library does not answer: whoever opens it waits in the kernel, and survives SIGKILL."""
    program = """
import os
from dlhealth.prove import runner
os.environ["LD_LIBRARY_PATH"] = "/home/x"
runner.SECONDS["driver"] = 0.5
willing = runner.Asker(lambda use: True, lambda: None, lambda stage: None, lambda part: None, lambda: ())
for result in runner.prove(runner.Wanted(("driver", "compute"), None, 1), willing):
    print(result.hung, result.text, result.suspects[:1])
"""
    done = fuse.beside(
        ["--at", "/home/x", "--file", "other", "--stuck", "libcuda.so.1"], [sys.executable, "-c", program]
    )
    assert done.stdout.splitlines() == [
        "True no answer within 1.5 seconds ('gpu-driver-hung',)",
        "False not started: a process of the stage driver hangs in the driver and cannot be ended ()",
    ], done.stderr
    assert done.seconds < 20


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
@pytest.mark.usefixtures("readable_checkout")
def test_under_sudo_the_gpu_is_used_as_the_person_who_called(library: Path) -> None:
    environment = {"LD_LIBRARY_PATH": str(library), "STAND_IN_CUDA": "who=1"}
    for folder in (library, *library.parents[:-1]):
        folder.chmod(folder.stat().st_mode | 0o055)
    _, document = proved({**environment, "SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY)}, "--stage", "driver")
    assert f"used by UID {NOBODY} and GID {NOBODY}" in document["stages"][0]["text"]
    _, document = proved({**environment, "SUDO_UID": f"{NOBODY}; id"}, "--stage", "driver")
    assert "used by UID 0 and GID 0" in document["stages"][0]["text"]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_a_person_who_may_not_read_dlhealth_is_told_so(library: Path, tmp_path: Path) -> None:
    """As after an installation below /root."""
    shutil.copytree(TESTS.parent / "dlhealth", tmp_path / "mine/dlhealth")
    (tmp_path / "mine").chmod(0o700)
    caller = {"LD_LIBRARY_PATH": str(library), "SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY)}
    _, document = proved(caller, "--stage", "driver", before=("env", "-C", str(tmp_path / "mine")))
    (stage,) = document["stages"]
    assert (stage["outcome"], stage["text"]) == (
        "could not run",
        f"UID {NOBODY} may not read {tmp_path}/mine, where dlhealth is installed: "
        "install dlhealth in a directory that every user may read",
    )


@pytest.mark.parametrize(("typed", "second"), [("y", "proved"), ("n", "could not run"), ("", "could not run")])
def test_a_person_is_asked_before_a_gpu_is_used_on_which_somebody_computes(
    typed: str, second: str, library: Path, tmp_path: Path
) -> None:
    before = with_programs(tmp_path, nvidia_smi="#!/bin/sh\necho 4711, /home/alice/train.py\n")
    terminal, theirs = os.openpty()
    done = subprocess.Popen(
        [*before, sys.executable, "-m", "dlhealth", "prove", "--json", "--no-history", "--until", "compute"],
        env={**os.environ, "LD_LIBRARY_PATH": str(library), "LC_ALL": "C.UTF-8"},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(terminal, f"{typed}\n".encode())
    said, asked = done.communicate(timeout=60)
    os.close(terminal)
    os.close(theirs)
    assert "other programs compute on the GPU: 4711, /home/alice/train.py. Use it anyway? [y/N]" in asked
    assert outcomes(json.loads(said)) == {"driver": "proved", "compute": second}


RUN, SAME = Run("2026-12-01T09:00:00Z", {}, ()), Comparison((), ())


def finding(name: str) -> Finding:
    return Finding(name, "host", Severity.ERROR, Layer.CUDA, "It is wrong", (Evidence("/x", "y"),))


def test_a_failed_stage_leads_to_the_finding_that_explains_it() -> None:
    known = "driver-library-version-mismatch-after-upgrade"
    found = tuple(Diagnosed(finding(name), (), None) for name in (known, "nvcc-not-in-path"))
    skipped = (Skipped("xid-other", "needs root"), Skipped("cudnn-runtime-missing", "needs root"))
    diagnosis = Diagnosis(found, 2, skipped, (), {})
    failed = Result("driver", Proof.FAILED, "", code=803, suspects=suspects(803))
    assert [f.id for f in explaining(failed, diagnosis).causes] == [known]
    assert explaining(failed._replace(suspects=suspects(719)), diagnosis) == Explanation((), ("xid-other",))


def test_a_problem_of_another_environment_explains_nothing() -> None:
    mine, other = (finding("cudnn-runtime-missing")._replace(subject=f"python:/{name}") for name in ("mine", "other"))
    beside = finding("numpy-2-abi")._replace(subject="python:/mine")
    diagnosis = Diagnosis(tuple(Diagnosed(f, (), None) for f in (mine, other, beside)), 2, (), (), {})
    failed = Result("framework", Proof.FAILED, "", suspects=("cudnn-runtime-missing",), about=("python:/mine",))
    assert explaining(failed, diagnosis) == Explanation((mine,), related=(beside,))


def test_the_advice_after_a_failure_says_what_the_doctor_could_not_check() -> None:
    failed = [Result("compute", Proof.FAILED, "It is wrong")]
    style = Style(colour=False, unicode=True, width=100)
    assert "dlhealth doctor finds no problem that explains it." in render_proof(
        failed, Explanation(), RUN, SAME, (), style
    )
    unchecked = render_proof(failed, Explanation(unchecked=("xid-other",)), RUN, SAME, (), style)
    assert "explains it, but xid-other could not run (details: dlhealth doctor -v)." in " ".join(unchecked.split())
    known = Explanation((finding("a-cause"),), ("xid-other",), "sudo dlhealth fix")
    explained = render_proof(failed, known, RUN, SAME, (), style)
    assert explained.endswith("It is wrong (a-cause)\nRepair: sudo dlhealth fix\n0 of 1 stages proved\n")


def test_each_named_cause_is_a_rule(rules: tuple[Any, ...]) -> None:
    named = {cause for meaning in ERRORS.values() for cause in meaning.causes} | {*NO_LIBRARY, *HANG, *WRONG_ANSWER}
    assert named <= {rule.id for rule in rules}


@pytest.mark.parametrize("stage", ORDER)
def test_each_stage_is_documented(stage: str) -> None:
    from importlib import import_module

    folder = "scripts" if stage in IN_PYTHON else "stages"
    text = import_module(f"dlhealth.prove.{folder}.{stage}").__doc__ or ""
    assert all(part in text for part in ("What it proves: ", "What it needs: ", "Limits: "))


@pytest.fixture
def keeping(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run it as somebody who is not root, and keeps results of their own."""
    become = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
    if subprocess.run([*become, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs a user namespace")
    state = tmp_path_factory.mktemp("state")

    def run(lie: str, *words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*before, *become, sys.executable, "-m", "dlhealth", "prove", "--yes", *words],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "XDG_STATE_HOME": str(state),
                 "LD_LIBRARY_PATH": str(library), "STAND_IN_CUDA": lie},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_the_next_run_says_what_became_worse(keeping: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    first = keeping("", "--stage", "memory")
    assert first.returncode == Status.HEALTHY, first.stderr
    assert "Worse" not in first.stdout
    slow = json.loads(keeping("slow=50", "--stage", "memory", "--json").stdout)
    assert not violations(slow)
    assert {(w["stage"], w["figure"]) for w in slow["worse"]} == {
        ("memory", f"GPU 0: copy {direction}, GB/s") for direction in ("to the host", "to the GPU", "within the GPU")
    }
    broken = keeping("flip=1", "--stage", "memory").stdout
    assert "memory: proved -> failed\nNothing that is recorded changed in between.\n" in broken


def test_an_environment_that_is_named_is_no_change_of_the_machine(
    keeping: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "lib/python3.11/site-packages/torch-2.3.0.dist-info").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (tmp_path / "bin/python").symlink_to(sys.executable)
    keeping("", "--stage", "memory", "--python", str(tmp_path))
    broken = keeping("flip=1", "--stage", "memory").stdout
    assert "memory: proved -> failed\nNothing that is recorded changed in between.\n" in broken


def test_a_result_that_cannot_be_kept_is_shown_all_the_same(
    keeping: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    full = f"mount -t tmpfs -o size=4k,mode=777 tmpfs {tmp_path} && head -c 9999 /dev/zero >{tmp_path}/x"
    script = f'{full}; export XDG_STATE_HOME={tmp_path}; exec "$@"'
    done = keeping(
        "", "--stage", "driver", before=("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "")
    )
    assert done.returncode == Status.HEALTHY
    assert "dlhealth: the result is not kept: " in done.stderr
    assert "1 of 1 stages proved" in done.stdout


def test_the_report_shows_the_last_result_of_each_stage_with_its_curves(tmp_path: Path) -> None:
    curves = {"test accuracy": [0.5, 0.9, 0.98], "loss": [2, 1, 0.5]}
    stage = {
        "stage": "train",
        "outcome": "proved",
        "text": "<b>98.1 %</b>",
        "seconds": 2,
        "figures": {},
        "curves": curves,
    }
    runs = {
        "schema": 1,
        "runs": [{"time": "2026-12-01T09:00:00Z", "inventory": {}, "stages": [stage], "battery": None}],
    }
    root = Machine.debian12().file("/var/lib/dlhealth/proofs.json", json.dumps(runs)).build(tmp_path / "root")
    page = tmp_path / "page.html"
    words = [sys.executable, "-m", "dlhealth", "report", "--root", str(root)]
    subprocess.run([*words, "-o", page], check=True, capture_output=True)
    text = page.read_text()
    assert '<polyline points="0.0,100.0 150.0,16.7 300.0,0.0"/>' in text
    assert "train: test accuracy: from 0.5 to 0.98" in text
    assert "&lt;b&gt;98.1 %&lt;/b&gt;" in text
    assert "| 2026-12-01T09:00:00Z | train | proved |" in subprocess.check_output([*words, "--md"], text=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a repair")
@pytest.mark.parametrize(
    ("lie", "status", "outcome"),
    [
        ("", Status.HEALTHY, "proved"),
        ("wrong=7", Status.ERRORS, "failed"),
        ("error=cuInit:100", Status.NOT_PROVED, "could not run"),
    ],
)
def test_a_repair_is_proved_by_a_computation(lie: str, status: Status, outcome: str, library: Path) -> None:
    """Nothing is to be repaired here: this is about the end. The machine keeps its own store."""
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("needs a machine without an NVIDIA driver")
    before = (
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        'mount -t tmpfs tmpfs /var/lib && exec "$@"',
        "",
    )
    done = subprocess.run(
        [*before, sys.executable, "-m", "dlhealth", "fix", "--only", "host-oom-killer", "--yes", "--prove", "--json"],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": str(library), "STAND_IN_CUDA": lie},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert not violations(document)
    assert (document["outcome"], document["proof"][1 if lie == "wrong=7" else 0]["outcome"]) == (
        "nothing-to-do",
        outcome,
    )
    repaired = Status.UNKNOWN if document["diagnosis"]["verdict"] != "healthy" else Status.HEALTHY
    assert done.returncode == (repaired if status is Status.HEALTHY else status)


@pytest.mark.parametrize("words", [("--dry-run",), ("--root", "/nonexistent")])
def test_only_a_repair_of_the_running_machine_can_be_proved(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dlhealth", "fix", "--prove", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "--prove tests the running machine" in " ".join(done.stderr.split())) == (
        Status.USAGE,
        True,
    )


def test_the_script_for_a_real_gpu_finds_what_does_not_agree(library: Path, tmp_path: Path) -> None:
    """Here nvidia-smi names another GPU than the driver, and there is no PyTorch to compare with."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\ncase "$*" in -L) echo GPU 0: x;; *) echo other, 535.1, 512, 8.6, 40, 1500;; esac\n')
    smi.chmod(0o755)
    script = TESTS / "gpu/run"
    environment = {**os.environ, "OUT": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with_driver = {**environment, "LD_LIBRARY_PATH": str(library)}
    done = subprocess.run([script, "/usr/bin/python3"], env=with_driver, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert "WRONG  the name of nvidia-smi: other" in lines
    assert "right  the compute capability of nvidia-smi: 8.6" in lines
    assert any(line.startswith("right  compute: proved in ") for line in lines)
    smi.write_text("#!/bin/sh\necho No devices were found\n")
    without = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert (without.returncode, without.stderr) == (2, "tests/gpu/run: nvidia-smi shows no GPU\n")


@pytest.mark.parametrize(
    ("answer", "notes"),
    [
        (
            "0, Enabled, Default, Disabled",
            ["GPU 0 is divided (MIG): programs use one of its instances, so only one is tested"],
        ),
        (
            "0, [N/A], Exclusive_Process, Disabled",
            ["GPU 0 lets only one program compute at a time (compute mode exclusive)"],
        ),
        ("0, [N/A], Default, Enabled", ["GPU 0 also drives a display, which may stutter during the test"]),
        ("0, [N/A], Default, [Not Supported]", []),
        ("Unable to determine the device handle", []),
    ],
)
def test_settings_of_a_gpu_that_matter_are_named(library: Path, tmp_path: Path, answer: str, notes: list[str]) -> None:
    smi = f"#!/bin/sh\ncase \"$*\" in *query-gpu*) echo '{answer}';; esac\n"
    environment = {"LD_LIBRARY_PATH": str(library)}
    status, document = proved(environment, "--until", "compute", before=with_programs(tmp_path, nvidia_smi=smi))
    assert (status, document["notes"]) == (Status.HEALTHY, notes)


def test_a_gpu_that_another_program_holds_alone_is_named(prove: Prove) -> None:
    """As in compute mode exclusive, or with MIG without instances: the failed stage leads to these problems."""
    _, document = prove("error=cuDevicePrimaryCtxRetain:46", "--until", "compute")
    assert document["stages"][1]["text"] == "cuDevicePrimaryCtxRetain returned 46 (CUDA_ERROR_DEVICE_UNAVAILABLE)"
    assert set(document["unchecked"]) <= {"compute-mode-exclusive", "mig-mode-without-instances"}


def test_a_terminal_shows_how_far_a_stage_is(library: Path) -> None:
    terminal, theirs = os.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "dlhealth", "prove", "--no-history", "--yes", "--stage", "load", "--time", "4"],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TERM": "xterm", "LD_LIBRARY_PATH": str(library)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the terminal is closed at the end
        while piece := os.read(terminal, 4096):
            shown += piece
    os.close(terminal)
    assert done.wait() == 0
    bars = re.findall(r"1 of 1: load +\[(#+)-*\] +\d+ s", shown.decode())
    assert len(bars) > 1
    assert sorted(bars, key=len) == bars
