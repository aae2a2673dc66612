"""The doctor on a machine whose driver seems to run: its real libraries, and a stand-in for the one that would ask the
GPU. What a container lacks of /proc and /dev is made for it."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import LabMachine

pytestmark = [pytest.mark.lab, pytest.mark.ci]

SOURCE = Path(__file__).parent / "nvml/stand_in.c"
LIBRARY = "usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.535.261.03"
SOUND = "driver 535.261.03\nnvml 12.535.261.03\ncuda 12020\ndevice 00000000:01:00.0 6.1 NVIDIA GeForce GTX 1080 Ti\n"
# The kernel's own /proc below another name: what is missing of it lies beside, and nothing of this machine is touched.
ENTER = """
set -e
mount -t tmpfs proc "$1/proc" && mkdir "$1/proc/real" && mount --rbind /proc "$1/proc/real"
for name in self sys stat version locks cpuinfo mounts; do ln -s "real/$name" "$1/proc/$name"; done
mkdir -p "$1/proc/driver/nvidia/gpus/0000:01:00.0"
echo 'nvidia 56815616 2 - Live 0x0000000000000000 (POE)' > "$1/proc/modules"
echo 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Wed Jul  2 14:35:34 UTC 2025' > "$1/proc/driver/nvidia/version"
mount -t tmpfs dev "$1/dev" && mknod -m 666 "$1/dev/null" c 1 3
for node in nvidiactl:255 nvidia0:0; do mknod -m 666 "$1/dev/${node%:*}" c 195 "${node#*:}"; done
exec chroot "$1" /opt/dlhealth/bin/dlhealth doctor --json
"""


@pytest.fixture(scope="module")
def running() -> Any:
    from tests.lab.lab import machine

    with machine("nvidia") as lab:
        lab.install_dlhealth()
        command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", '-DSCRIPT="/etc/nvml-script"']
        (lab.root / LIBRARY).unlink()
        subprocess.run([*command, "-o", lab.root / LIBRARY, SOURCE], check=True)
        yield lab


def doctor(running: LabMachine, script: str) -> tuple[float, dict[str, Any]]:
    """Seconds that it took, and its report."""
    (running.root / "etc/nvml-script").write_text(script)
    started = time.monotonic()
    command = ["unshare", "--mount", "--propagation=private", "sh", "-c", ENTER, "sh", str(running.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return time.monotonic() - started, report


def test_a_driver_that_answers(running: LabMachine) -> None:
    _, report = doctor(running, SOUND)
    assert "gpu-driver-hung" not in {f["id"] for f in report["findings"]}
    assert "gpu-driver-hung" not in {s["id"] for s in report["checks"]["skipped"]}


@pytest.fixture(scope="module")
def usual(running: LabMachine) -> float:
    """Seconds that the doctor takes for a driver that answers, which is more on a machine that has more to do."""
    return min(doctor(running, SOUND)[0] for _ in range(2))


@pytest.mark.parametrize("call", ["nvmlInitWithFlags", "nvmlSystemGetDriverVersion", "nvmlDeviceGetName"])
def test_a_hung_driver_is_said_soon(running: LabMachine, usual: float, call: str) -> None:
    seconds, report = doctor(running, f"{SOUND}hang {call}\n")
    (found,) = [f for f in report["findings"] if f["id"] == "gpu-driver-hung"]
    assert "no answer to nvml" in found["evidence"][0]["shows"]
    assert seconds < usual + 4, "a promise of the doctor: what hangs in the driver must not hang what looks for it"
    assert not report["checks"]["failed"]
