"""What a diagnosis costs, beside cuda-doctor on the same machine, and how it grows. Run as root:

python -m tests.bench.doctor
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from dlhealth.testing import Machine
from tests.bench.measure import Cost, measure
from tests.lab.lab import CACHE, machine

REFERENCE = "cuda-doctor==0.2.0"
ROUNDS = 15
SKELETON = Path("/etc/skel")


def main() -> int:
    """Print the two tables; the exit status says whether the bounds hold."""
    held = beside_reference()
    return 0 if growth() and held else 1


def beside_reference() -> bool:
    """In the real Debian root with the NVIDIA packages, in one run."""
    with machine("nvidia") as lab:
        command = lab.install_dlhealth()
        house = CACHE / "reference"
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--dest", house, REFERENCE], check=True)
        shutil.copytree(house, lab.root / "opt/reference-wheels")
        lab.run("python3", "-m", "venv", "/opt/reference")
        lab.run(
            "/opt/reference/bin/pip", "install", "-q", "--no-index", "--find-links", "/opt/reference-wheels", REFERENCE
        )
        lab.run("sh", "-c", "command -v strace || (apt-get update -q && apt-get install -qy strace)")
        shutil.copy(Path(__file__).parent / "measure.py", lab.root / "opt/measure.py")
        lab.boot()  # so that there is a journal to read
        commands = {
            "python3 -c pass": ["/opt/dlhealth/bin/python", "-c", "pass"],
            "dlhealth doctor": [command, "doctor"],
            "dlhealth doctor --json": [command, "doctor", "--json"],
            "cuda-doctor diagnose": ["/opt/reference/bin/cuda-doctor", "diagnose"],
        }
        printed = lab.run("python3", "/opt/measure.py", json.dumps([ROUNDS, commands])).stdout
    costs = {name: Cost(*values) for name, values in json.loads(printed).items()}
    print(
        f"{'on Debian 12, driver 535 installed':36} {'CPU s':>7} {'wall s':>7} {'MiB':>6} {'programs':>9} {'CPU ratio':>10}"
    )
    reference = costs["cuda-doctor diagnose"]
    for name, cost in costs.items():
        print(
            f"{name:36} {cost.cpu:7.3f} {cost.wall:7.3f} {cost.memory:6.1f} {cost.programs:9} {cost.cpu / reference.cpu:10.2f}"
        )
    ours = [cost for name, cost in costs.items() if name.startswith("dlhealth")]
    return all(c.cpu <= 0.45 * reference.cpu and c.memory <= 25 and c.programs <= 5 for c in ours)


def growth() -> bool:
    """How CPU time grows with what a machine has more of; nothing may grow faster than linearly."""
    print(f"\n{'ten times (rules: four times) as many':36} {'CPU s':>7} {'grew to':>8}")
    bounded = True
    with tempfile.TemporaryDirectory() as folder:
        base = _cpu(_built(folder, "base", Machine.debian12_gpu()))
        print(f"{'nothing (one user, no environment)':36} {base:7.3f} {1.0:7.1f}x")
        for name, few, many in (
            ("packages (1000 to 10000)", _packages(1000), _packages(10_000)),
            ("users (10 to 100)", _users(10), _users(100)),
            ("Python environments (10 to 100)", _environments(10), _environments(100)),
        ):
            one, ten = _cpu(_built(folder, f"{name}-1", few)), _cpu(_built(folder, f"{name}-10", many))
            bounded &= ten / one <= 10
            print(f"{name:36} {ten:7.3f} {ten / one:7.1f}x")
        root = _built(folder, "rules", Machine.debian12_gpu())
        one, four = _rules(root, 1), _rules(root, 4)
        bounded &= four / one <= 4
        print(f"{'rules (1 to 4 of each)':36} {four:7.3f} {four / one:7.1f}x")
    return bounded


def _built(folder: str, name: str, described: Machine) -> str:
    root = Path(folder) / name.replace(" ", "-")
    root.mkdir()
    described.build(root)
    return str(root)


def _cpu(root: str) -> float:
    command = [sys.executable, "-m", "dlhealth", "doctor", "--root", root]
    return measure({"doctor": command}, 5)["doctor"].cpu


def _rules(root: str, times: int) -> float:
    """The same rules several times over, under other names."""
    code = (
        "from dlhealth.engine.diagnose import diagnose; from dlhealth.engine.facts import Facts; from dlhealth.engine.load import load_rules;"
        "from dlhealth.host.root import RootHost; from dlhealth.probes import Options; import sys;"
        "rules = load_rules('/nonexistent').rules * int(sys.argv[2]); diagnose(rules, Facts(RootHost(sys.argv[1]), Options()))"
    )
    return measure({"doctor": [sys.executable, "-c", code, root, str(times)]}, 5)["doctor"].cpu


def _packages(count: int) -> Machine:
    described = Machine.debian12_gpu()
    for number in range(count):
        described.package(
            f"lib-filler{number}",
            "1.0-1",
            depends="libc6 (>= 2.36), libgcc-s1",
            description="Something else\n more text",
        )
    return described


def _users(count: int) -> Machine:
    """With the files that Debian gives to each, and one of a desktop."""
    described = Machine.debian12_gpu()
    for number in range(count):
        described.user(f"user{number}", 2000 + number)
        for name in (".bashrc", ".profile"):
            described.file(f"/home/user{number}/{name}", (SKELETON / name).read_text(), uid=2000 + number)
        described.file(f"/home/user{number}/.xsessionrc", "export EDITOR=vi\n", uid=2000 + number)
    return described


def _environments(count: int) -> Machine:
    described = Machine.debian12_gpu()
    for number in range(count):
        home = f"/home/alice/projects/p{number}/.venv"
        site = f"{home}/lib/python3.11/site-packages"
        described.file(f"{home}/pyvenv.cfg", "home = /usr/bin\nversion = 3.11.2\n", uid=1000)
        described.file(f"{site}/torch/version.py", "__version__ = '2.3.0+cu121'\ncuda = '12.1'\n", uid=1000)
        for package in ("torch-2.3.0+cu121", "numpy-1.26.4", "nvidia_cudnn_cu12-8.9.2.26"):
            described.file(f"{site}/{package}.dist-info/METADATA", "Metadata-Version: 2.1\n", uid=1000)
    return described


if __name__ == "__main__":
    sys.exit(main())
