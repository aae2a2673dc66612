"""The programs that Slurm, Node Health Check and node-problem-detector call, with stand-ins for dlhealth and scontrol."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CONTRIB = Path(__file__).parents[2] / "contrib"
SLURM = CONTRIB / "slurm/dlhealth-healthcheck"
NPD = CONTRIB / "node-problem-detector/dlhealth-npd"
NHC = CONTRIB / "nhc/dlhealth.nhc"
SYSTEM = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def finding(id: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "subject": "host",
        "severity": "error",
        "boot": "",
        "caused_by": [],
        "title": f"{id} is wrong",
        **more,
    }


class Node:
    """A machine whose dlhealth and scontrol say what they are told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        self.reason = ""
        self.program("scontrol", f'echo "$@" >> {folder}/asked\n[ "$2" = show ] && cat {folder}/node')

    def program(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def knows(self, *findings: dict[str, Any], unknown: str | None = None) -> None:
        known = {"schema": 1, "checked": 1, "findings": findings, "transaction": None, "unknown": unknown}
        errors = [f for f in findings if not f["caused_by"] and f["severity"] == "error"]
        status = 6 if unknown else 3 if errors else 1 if findings else 0
        (self.folder / "known.json").write_text(json.dumps(known))
        lines = [
            f"{f['severity']}: {'at the next boot: ' if f['boot'] else ''}{f['title']}  [{f['id']}]" for f in findings
        ]
        (self.folder / "known").write_text("\n".join(["Last check: 2026-01-01 00:00:00", *lines]) + "\n")
        chosen = f'[ "$2" = --json ] && cat {self.folder}/known.json || cat {self.folder}/known'
        self.program("dlhealth", f"{chosen}\nexit {status}")

    def runs(self, script: Path, shell: str = "sh", **environment: str) -> subprocess.CompletedProcess[str]:
        """A copy whose PATH leads to the stand-ins first; without any variable of this process."""
        text = script.read_text()
        assert SYSTEM in text
        copy = self.folder / "script"
        copy.write_text(text.replace(SYSTEM, f"PATH={self.folder}/bin:/usr/bin:/bin"))
        (self.folder / "asked").write_text("")
        reason = f" Reason={self.reason} [root@2026-01-01T00:00:00]" if self.reason else ""
        (self.folder / "node").write_text(f"NodeName=n1 Arch=x86_64 State=IDLE{reason}\n")
        program = shutil.which(shell)
        assert program
        return subprocess.run(
            [program, *["sh"] * (shell == "busybox"), copy],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    @property
    def updates(self) -> list[str]:
        return [line for line in (self.folder / "asked").read_text().splitlines() if line.startswith("update")]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


BROKEN = (finding("effect", caused_by=["cause"]), finding("cause"))
DRAIN = ["update NodeName=n1 State=DRAIN Reason=dlhealth: cause"]
RESUME = ["update NodeName=n1 State=RESUME"]


@pytest.mark.parametrize(
    ("findings", "unknown", "reason", "updates"),
    [
        (BROKEN, None, "", DRAIN),
        (BROKEN, None, "dlhealth: other", DRAIN),
        (BROKEN, None, "dlhealth: cause", []),
        (BROKEN, None, "disk replacement", []),
        (BROKEN, "the service does not run (failed)", "", []),
        ((), None, "", []),
        ((), None, "dlhealth: cause", RESUME),
        ((), None, "disk replacement", []),
        ((), "the service does not run (failed)", "dlhealth: cause", []),
        ([finding("x", severity="warning")], None, "dlhealth: cause", RESUME),
        ([finding("x", boot="next")], None, "", []),
    ],
)
def test_slurm_drains_for_a_root_cause_and_resumes_only_what_it_drained(
    node: Node, findings: tuple[dict[str, Any], ...], unknown: str | None, reason: str, updates: list[str]
) -> None:
    node.knows(*findings, unknown=unknown)
    node.reason = reason
    done = node.runs(SLURM, SLURMD_NODENAME="n1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert node.updates == updates


SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("context", "findings", "status", "updates"),
    [
        ("prolog_slurmd", BROKEN, 1, DRAIN),
        ("prolog_slurmd", (), 0, []),
        ("prolog_slurmd", [finding("x", severity="warning")], 0, []),
        ("prolog_slurmd", [finding("x", boot="next")], 0, []),
        ("epilog_slurmd", BROKEN, 0, DRAIN),
        ("epilog_slurmd", (), 0, []),
    ],
)
def test_slurm_starts_no_job_on_a_broken_node(
    node: Node, shell: str, context: str, findings: tuple[dict[str, Any], ...], status: int, updates: list[str]
) -> None:
    """slurmd gives these programs no PATH."""
    node.knows(*findings)
    done = node.runs(SLURM, shell, SLURMD_NODENAME="n1", SLURM_SCRIPT_CONTEXT=context)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")
    assert node.updates == updates


def test_slurm_starts_jobs_where_the_controller_is_down_and_the_node_is_well(node: Node) -> None:
    node.knows()
    node.program("scontrol", "exit 1")
    assert node.runs(SLURM, SLURMD_NODENAME="n1", SLURM_SCRIPT_CONTEXT="prolog_slurmd").returncode == 0


@pytest.mark.parametrize("said", ["exit 127", "echo '{'", "echo '[]'", "echo '{}'", "kill -9 $$", ""])
def test_slurm_changes_nothing_where_dlhealth_says_nothing_sound(node: Node, said: str) -> None:
    node.program("dlhealth", said)
    node.reason = "dlhealth: cause"
    assert node.runs(SLURM, SLURMD_NODENAME="n1").returncode == 0
    assert node.updates == []


def test_slurm_ends_well_where_the_controller_is_down(node: Node) -> None:
    node.knows(*BROKEN)
    node.program("scontrol", "echo slurm_load_node error: Unable to contact slurm controller >&2; exit 1")
    assert node.runs(SLURM, SLURMD_NODENAME="n1").returncode == 0


@pytest.mark.parametrize(
    ("findings", "unknown", "status", "said"),
    [
        ((), None, 0, "no error found by dlhealth"),
        ([finding("x", severity="warning")], None, 0, "no error found by dlhealth"),
        (BROKEN[1:], None, 1, "dlhealth: cause"),
        ([finding("x" * 200)], None, 1, "dlhealth: x"),
        ([finding("x", boot="next")], None, 0, "no error now; one at the next boot: dlhealth status"),
        ((), "the service is not installed", 2, "dlhealth does not know: dlhealth status"),
    ],
)
def test_node_problem_detector_gets_one_short_line(
    node: Node, findings: tuple[dict[str, Any], ...], unknown: str | None, status: int, said: str
) -> None:
    node.knows(*findings, unknown=unknown)
    done = node.runs(NPD)
    assert done.returncode == status
    assert done.stdout.startswith(said)
    assert len(done.stdout.rstrip("\n")) <= 80


def test_the_settings_of_node_problem_detector_name_the_plugin() -> None:
    settings = json.loads((CONTRIB / "node-problem-detector/dlhealth-monitor.json").read_text())
    assert settings["pluginConfig"]["max_output_length"] == 80
    (rule,) = settings["rules"]
    assert Path(rule["path"]).name == NPD.name
    assert rule["condition"] in [c["type"] for c in settings["conditions"]]
    assert re.fullmatch(r"\d+s", rule["timeout"])


@pytest.mark.parametrize(
    ("findings", "unknown", "died"),
    [
        ((), None, ""),
        (BROKEN[1:], None, "1 check_dlhealth:  cause is wrong  [cause]"),
        ([finding("x", boot="next")], None, ""),
        ((), "the service is not installed", ""),
    ],
)
def test_node_health_check_marks_only_what_is_known_to_be_broken(
    node: Node, findings: tuple[dict[str, Any], ...], unknown: str | None, died: str
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    node.knows(*findings, unknown=unknown)
    script = f'die() {{ echo "$@"; }}\n. {NHC}\ncheck_dlhealth'
    done = subprocess.run(
        [bash, "-c", script],
        env={"PATH": f"{node.folder}/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == died
    assert done.returncode == bool(died)
    assert os.access(SLURM, os.X_OK)
