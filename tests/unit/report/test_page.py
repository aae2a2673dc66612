"""The page about a machine: one sound file that loads nothing and runs nothing, whatever the machine's files contain."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dlhealth.actions import ByHand, EditFile
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts, Options
from dlhealth.engine.load import load_rules
from dlhealth.engine.record import Timeline, inventory_of, timeline_of
from dlhealth.host.root import RootHost
from dlhealth.model import (
    Diagnosed,
    Diagnosis,
    Event,
    EventKind,
    Evidence,
    Finding,
    Layer,
    Plan,
    Risk,
    Severity,
    Skipped,
)
from dlhealth.report.page import Pages, html, markdown, pages_of
from dlhealth.testing import Machine

VOID = {"meta", "br", "link", "img", "input", "hr"}
HOSTILE = "<script>alert(1)</script>\"'`|&amp;\033[2J\x9b1m\u202e\udcff</details><!-- ]]>"
SECRET = "DB_PASSWORD=hunter2secret https://me:s3cr3tword@example.org ghp_0123456789abcdefABCDEF"


class Parsed(HTMLParser):
    """A page as a browser sees it: its elements, its texts, and the data inside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.data = ""
        self.feed(text)
        self.close()
        assert self.open == [], "an element does not end"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a beginning"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.data += data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def parsed(text: str) -> Parsed:
    """The page, which must be safe to open."""
    page = Parsed(text)
    for tag, attributes in page.elements:
        assert not {"src", "href", "action", "srcset", "data", "style"} & set(attributes), (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
        assert tag not in ("link", "img", "iframe", "object", "embed", "form", "base")
    assert [a.get("type") for tag, a in page.elements if tag == "script"] == ["application/json"]
    (policy,) = (a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert "url(" not in text
    assert "@import" not in text
    assert not {c for c in text if not c.isprintable()} - {"\n"}
    return page


def made(*findings: Diagnosed, events: tuple[Event, ...] = (), **machine: Any) -> Pages:
    about = {"hostname": "workstation", "os": "debian 12", **machine}
    diagnosis = Diagnosis(findings, 9, (Skipped("a", "needs root"),), (), about)
    timeline = Timeline(tuple(("2026-11-20 06:14", e) for e in events), ("boots: no journal",), 0, "UTC")
    return pages_of(diagnosis, "dlhealth fix", timeline, {"driver": {"loaded": "535.1"}})


def finding(title: str, shows: str = "y") -> Diagnosed:
    plan = Plan("Correct it", Risk.LOW, (EditFile("/etc/x", ((1, f"old {shows}", f"new {shows}"),)), ByHand(shows)))
    found = Finding("made-up", "host", Severity.ERROR, Layer.LOGIN, title, (Evidence("/etc/x", shows),))
    return Diagnosed(found, (), plan)


def of_machine(machine: Machine, root: Path) -> Pages:
    machine.build(root)
    facts = Facts(RootHost(str(root)), Options())
    diagnosis = diagnose(load_rules("/nonexistent").rules, facts, whole=True)
    return pages_of(diagnosis, "sudo dlhealth fix", timeline_of(facts), inventory_of(facts))


def broken() -> Machine:
    """A machine with three causes, and a history."""
    machine = Machine.debian12_gpu().loaded_driver("535.216.01").login_loop().cuda_toolkit().cudnn()
    machine.append("/etc/environment", "PATH=/usr/local/cuda/bin:$PATH\n")
    machine.remove("/usr/local/cuda-12.2/targets/x86_64-linux/include/cudnn_version.h")
    machine.says(
        "kernel", "NVRM: API mismatch: the client has the version 535.261.03, but this kernel module has 535.216.01"
    )
    return machine.file(
        "/var/log/apt/history.log",
        "\nStart-Date: 2026-11-18  06:14:02\nCommandline: /usr/bin/unattended-upgrade\n"
        "Upgrade: nvidia-driver:amd64 (535.216.01-1, 535.261.03-1), vim:amd64 (1, 2)\nEnd-Date: 2026-11-18  06:15:00\n",
    )


def test_a_page_about_a_broken_machine(tmp_path: Path) -> None:
    pages = of_machine(broken(), tmp_path)
    text = html(pages)
    page = parsed(text)
    assert len(text.encode()) < 300_000
    assert len(pages.story.roots) >= 3
    for root in pages.story.roots:
        assert root.finding.title in page.text
        assert all(" ".join(e.shows.split()) in page.text for e in root.finding.evidence)
    assert "sudo dlhealth fix" in page.text
    assert "- PATH=/usr/local/cuda/bin:$PATH" in page.text
    assert "06:14 packages /usr/bin/unattended-upgrade upgrade nvidia-driver (535.216.01-1 → 535.261.03-1)" in page.text
    assert "vim" not in page.text
    assert "NVRM: API mismatch" in page.text
    assert "alice's 4 graphical sessions ended within 2 s" in page.text
    assert page.text.index("is broken") < page.text.index("What to do") < page.text.index("What happened")
    document = json.loads(page.data)
    assert [f["id"] for f in document["findings"]][: len(pages.story.roots)]
    assert document["verdict"] == "broken"


def test_what_changed_since_it_worked(tmp_path: Path) -> None:
    good = {"driver": {"loaded": "535.216.01", "libraries": "535.216.01"}, "GPUs": {}, "Jetson": {"a": "b"}}
    record = json.dumps({"schema": 1, "dlhealth": "0.1.0", "time": "2026-11-17T08:00:00Z", "inventory": good})
    pages = of_machine(broken().file("/var/lib/dlhealth/baseline.json", record), tmp_path)
    change = "driver: libraries: 535.216.01 -> 535.261.03"
    text = parsed(html(pages)).text
    assert text.index("since the known-good record of 2026-11-17:") < text.index(change) < text.index("What happened")
    assert f"- {change.replace('>', chr(92) + '>')}\n" in markdown(pages)
    assert "Jetson" not in text, "a section that this machine does not have is not compared"


def test_a_page_about_the_next_boot_says_what_was_not_verified(tmp_path: Path) -> None:
    Machine.debian12_gpu().build(tmp_path)
    facts = Facts(RootHost(str(tmp_path)), Options(next_boot=True))
    diagnosis = diagnose(load_rules("/nonexistent").rules, facts, whole=True)
    page = parsed(html(pages_of(diagnosis, "", timeline_of(facts), inventory_of(facts))))
    assert "Before a reboot, see below what could not be verified." in page.text
    assert "Verified for the next boot" in page.text


def test_nothing_on_a_machine_becomes_a_part_of_the_page() -> None:
    event = Event(0.0, EventKind.ERROR, HOSTILE, (HOSTILE,), HOSTILE)
    pages = made(finding(HOSTILE, HOSTILE), events=(event,), kernel=HOSTILE)
    page = parsed(html(pages))
    assert "<script>alert(1)</script>" in page.text
    assert "\\x1b[2J\\x9b1m\\u202e\\xff" in page.text
    assert json.loads(page.data)["findings"][0]["title"].startswith("<script>alert(1)</script>")
    text = markdown(pages)
    assert not {c for c in text if not c.isprintable()} - {"\n"}
    outside = "".join(re.split(r"^```+\w*\n.*?^```+$", text, flags=re.MULTILINE | re.DOTALL))
    assert "<script>" not in outside.replace("\\<script\\>", "")


def test_secrets_are_masked_like_in_an_archive() -> None:
    event = Event(0.0, EventKind.PACKAGES, f"apt install -o {SECRET}", (SECRET,), "/var/log/x")
    pages = made(finding(SECRET, SECRET), events=(event,))
    for text in (html(pages), markdown(pages)):
        assert "hunter2secret" not in text
        assert "s3cr3tword" not in text
        assert "ghp_0123456789" not in text
        assert "example.org" in text


def test_a_path_is_no_label_of_a_secret() -> None:
    page = parsed(html(made(finding("not checked: /etc/passwd: needs root; password: hunter2secret"))))
    assert "/etc/passwd: needs root; password: xxxxxxxxxxxxx" in page.text


def test_ten_thousand_errors_are_counted_not_listed(tmp_path: Path) -> None:
    machine = Machine.debian12_gpu()
    for n in range(10_000):
        machine.says("kernel", f"NVRM: Xid (PCI:0000:01:00): 31, pid={n}, name=python", 100.0 + n / 10)
    pages = of_machine(machine, tmp_path)
    xids = [e for _, e in pages.timeline.events if "Xid" in e.text]
    assert len(xids) == 1
    assert re.search(r"\(\d{4,} times in this boot\)", xids[0].text)
    assert len(html(pages)) < 300_000


def test_a_source_that_is_missing_is_named(tmp_path: Path) -> None:
    pages = of_machine(Machine.debian12(), tmp_path)
    assert any(m.startswith("boots: ") for m in pages.timeline.missing)
    assert any(m.startswith("packages: /var/log/apt/history.log does not exist") for m in pages.timeline.missing)
    assert "Not read: boots: " in parsed(html(pages)).text
    assert "Not read: boots: " in markdown(pages)


@pytest.mark.parametrize("machine", [Machine.debian12_gpu(), Machine.debian12(), Machine.ubuntu1604_runfile()])
def test_a_page_about_any_machine(machine: Machine, tmp_path: Path) -> None:
    pages = of_machine(machine, tmp_path)
    assert pages.story.verdict.text in parsed(html(pages)).text
