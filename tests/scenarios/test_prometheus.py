"""The way of a problem through node_exporter into Prometheus, to its alert, with the real programs."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from dlhealth.host.newfile import replace
from dlhealth.model import Layer, OpenProblem, Severity
from dlhealth.service.metrics import exposition
from dlhealth.service.state import ServiceState

RULES = Path(__file__).parents[2] / "contrib/prometheus/dlhealth.rules.yml"
PROGRAMS = ("prometheus", "prometheus-node-exporter")

pytestmark = [
    pytest.mark.real_programs,
    pytest.mark.skipif(
        not all(map(shutil.which, PROGRAMS)), reason=f"needs {' and '.join(PROGRAMS)}: apt-get install them"
    ),
]


def state(*findings: OpenProblem) -> bytes:
    return exposition(ServiceState(int(time.time()), findings, 100, 0, "", False, "", "", {}))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(*words: object) -> Iterator[None]:
    with subprocess.Popen([*map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


class Server:
    """Prometheus, and node_exporter with a directory for texts, both of which look every second."""

    def __init__(self, base: Path, stack: ExitStack) -> None:
        self.metrics = base / "textfile/dlhealth.prom"
        self.metrics.parent.mkdir()
        exporter, own = free_port(), free_port()
        rules = base / "rules.yml"
        rules.write_text(RULES.read_text().replace("for: 5m", "for: 0s"))
        settings = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}]}],
        }
        (base / "prometheus.yml").write_text(json.dumps(settings))  # which is YAML too
        collector = ("--collector.disable-defaults", "--collector.textfile")
        folder, listen = f"--collector.textfile.directory={self.metrics.parent}", "--web.listen-address=127.0.0.1"
        stack.enter_context(running(PROGRAMS[1], *collector, folder, f"{listen}:{exporter}"))
        files = (f"--config.file={base}/prometheus.yml", f"--storage.tsdb.path={base}/data")
        stack.enter_context(running(PROGRAMS[0], *files, f"{listen}:{own}"))
        self.address = f"http://127.0.0.1:{own}/api/v1/query?query="

    def ask(self, query: str) -> list[dict[str, Any]]:
        try:
            with urlopen(self.address + quote(query), timeout=10) as answer:
                result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return result
        except URLError:
            return []  # it has not started yet

    def wait_for(self, query: str) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while not (found := self.ask(query)):
            assert time.monotonic() < deadline, f"no answer to {query}"
            time.sleep(0.2)
        return found[0]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with ExitStack() as stack:
        yield Server(tmp_path, stack)


def test_a_problem_fires_its_alert_and_a_repair_resolves_it(server: Server) -> None:
    replace(str(server.metrics), state())
    healthy = server.wait_for('dlhealth_verdict{verdict="healthy"} == 1')
    assert healthy["metric"]["job"] == "node"
    assert server.ask('ALERTS{alertname=~"Dlhealth.*"}') == []

    broken = OpenProblem(
        "dkms-module-missing-for-running-kernel", "kernel:6.1.0-50-amd64", Severity.ERROR, Layer.KERNEL_MODULE, "t",
        False, "f", (), ("/lib/modules",), None,
    )  # fmt: skip
    replace(str(server.metrics), state(broken))
    fired = server.wait_for('ALERTS{alertname="DlhealthBroken", alertstate="firing"}')["metric"]
    assert (fired["id"], fired["subject"], fired["severity"]) == (broken.id, broken.subject, "critical")

    replace(str(server.metrics), state())
    server.wait_for('absent(ALERTS{alertname="DlhealthBroken"})')
