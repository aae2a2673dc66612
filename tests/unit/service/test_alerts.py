"""Which alerts a look gives, and how they reach the journal: over a real socket, decoded by the protocol's own rules."""

import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dlhealth.host.alert import LIMIT, Kind, alert, encode, send
from dlhealth.host.newfile import replace
from dlhealth.model import OpenProblem
from dlhealth.service.alerts import Change, Known, Repeats, load, of_change, public, sign, understood
from dlhealth.service.events import Event, Topic

SYSTEMD = Path(__file__).parents[3] / "systemd"


def found(id: str = "a", subject: str = "host", severity: str = "error", **more: Any) -> OpenProblem:
    return OpenProblem.of({**as_json(id), "subject": subject, "severity": severity, **more})


def as_json(id: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "subject": "host",
        "severity": "error",
        "layer": "login",
        "title": f"{id} is wrong",
        "next_boot": False,
        "fingerprint": "0123",
        "caused_by": [],
        "files": [],
        "repair": "low",
        **more,
    }


def decoded(entry: bytes) -> dict[str, str]:
    """https://systemd.io/JOURNAL_NATIVE_PROTOCOL/, written independently of the encoder."""
    fields = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]*", name)
        fields[name.decode()] = value.decode()
        entry = rest
    return fields


# What is known.


def ids(findings: tuple[OpenProblem, ...]) -> list[str]:
    return [f.id for f in findings]


def test_a_finding_is_told_when_it_appears_and_not_again() -> None:
    known = Known()
    assert ids(known.update([found()], ["a"]).appeared) == ["a"]
    assert known.update([found(title="in other words", fingerprint="other")], ["a"]) == Change((), ())
    assert known.findings[0].title == "in other words"


def test_what_could_not_be_judged_is_not_gone() -> None:
    known = Known([found("a"), found("b")])
    assert ids(known.update([], ["b"]).gone) == ["b"]
    assert ids(known.findings) == ["a"]
    assert ids(known.update([], ["a", "b"]).gone) == ["a"]
    assert known.findings == ()


def test_a_finding_that_gets_worse_has_appeared_and_one_that_gets_better_has_not() -> None:
    known = Known([found(severity="warning")])
    assert ids(known.update([found(severity="error")], ["a"]).appeared) == ["a"]
    assert known.update([found(severity="warning")], ["a"]) == Change((), ())
    assert ids(known.update([found(severity="error")], ["a"]).appeared) == ["a"]


def test_the_same_on_another_subject_is_another_finding() -> None:
    known = Known([found(subject="user:alice")])
    change = known.update([found(subject="user:bob")], ["a"])
    assert [f.subject for f in change.appeared] == ["user:bob"]
    assert [f.subject for f in change.gone] == ["user:alice"]


def test_what_the_next_boot_will_find_is_a_finding_of_its_own() -> None:
    known = Known()
    assert ids(known.update([found(next_boot=True)], ["a"]).appeared) == ["a"]
    assert ids(known.update([found(next_boot=True), found()], ["a"]).appeared) == ["a"]
    assert len(known.findings) == 2


def test_a_look_that_left_out_the_next_boot_says_nothing_of_it() -> None:
    known = Known([found(next_boot=True), found("b")])
    assert ids(known.update([], ["a", "b"], next_boot=False).gone) == ["b"]
    assert ids(known.update([], ["a", "b"]).gone) == ["a"]


finding = st.builds(
    lambda id, severity, boot: found(id, severity=severity, next_boot=boot),
    st.sampled_from("abc"),
    st.sampled_from(["error", "warning"]),
    st.booleans(),
)
looks = st.lists(st.tuples(st.lists(finding, max_size=5), st.sets(st.sampled_from("abc"))), max_size=8)


@given(looks)
def test_appeared_and_gone_add_up_to_what_is_known(looks: list[tuple[list[OpenProblem], set[str]]]) -> None:
    known = Known()
    told: set[tuple[str, bool]] = set()
    for seen, judged in looks:
        change = known.update(seen, judged)
        for f in change.gone:
            assert f.id in judged
            told.remove((f.id, f.next_boot))
        told |= {(f.id, f.next_boot) for f in change.appeared}
        assert told == {(f.id, f.next_boot) for f in known.findings}
        again = known.update(seen, judged)
        assert again == Change((), ()), "the same look tells something again"


# What is told.


def test_the_entries_of_a_change() -> None:
    change = Change(
        (
            found("a", subject="user:alice"),
            found("b", caused_by=["a", "c"]),
            found("c", severity="warning", next_boot=True),
        ),
        (found("d"),),
    )
    one, two, three, four = [decoded(a.entry) for a in of_change(change)]
    assert one == {
        "MESSAGE": "a is wrong",
        "MESSAGE_ID": Kind.APPEARED.value,
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "dlhealth",
        "DLHEALTH_ID": "a",
        "DLHEALTH_SUBJECT": "user:alice",
        "DLHEALTH_SEVERITY": "error",
        "DLHEALTH_LAYER": "login",
    }
    assert (two["PRIORITY"], two["DLHEALTH_CAUSED_BY"], two["MESSAGE"]) == ("6", "a c", "b is wrong (because of a)")
    assert two["DLHEALTH_SEVERITY"] == "error", "a consequence is told softly, and is no less severe"
    assert (three["PRIORITY"], three["MESSAGE_ID"]) == ("4", Kind.NEXT_BOOT.value)
    assert three["MESSAGE"] == "At the next boot: c is wrong"
    assert (four["PRIORITY"], four["MESSAGE_ID"]) == ("6", Kind.GONE.value)
    assert (four["DLHEALTH_SEVERITY"], four["DLHEALTH_LAYER"]) == ("error", "login"), "what it was when it appeared"


def test_one_fault_of_many_people_is_one_alert_that_counts_them() -> None:
    many = [found("a", subject=f"user:u{n}", title=f"a line of u{n}") for n in range(600)]
    few = [found("b", subject=f"user:u{n}") for n in range(3)]
    alerts = of_change(Change((*many, *few, found("c")), ()))
    assert [len(a.findings) for a in alerts] == [600, 1, 1, 1, 1]
    assert (
        decoded(alerts[0].entry)["MESSAGE"] == "a line of u0 (the same problem for 599 others: u1, u2, u3, u4, u5, ...)"
    )
    assert alerts[0].entry.count(b"DLHEALTH_SUBJECT=user:") == 256
    assert len(alerts[0].entry) < LIMIT
    (gone,) = of_change(Change((), tuple(many)))
    assert decoded(gone.entry)["MESSAGE"].startswith("Resolved: a line of u0 (the same problem for 599 others")


def test_what_the_journal_did_not_take_is_told_later_also_by_another_process() -> None:
    known = Known([found("old")])
    known.update([found(f"f{n}") for n in range(1000)], ["old", *(f"f{n}" for n in range(1000))])
    alerts = of_change(known.untold())
    assert len(alerts) == 1001
    for taken in alerts[:400]:
        known.was_told(taken)
    assert of_change(known.untold()) == alerts[400:]
    later = Known.of(understood(json.dumps(known.saved()).encode()))
    assert [a.entry for a in of_change(later.untold())] == [a.entry for a in alerts[400:]]
    for taken in alerts[400:]:
        later.was_told(taken)
    assert later.untold() == Change((), ())


def test_what_came_and_went_before_it_was_told_is_not_told() -> None:
    known = Known()
    known.update([found()], ["a"])
    known.update([], ["a"])
    assert known.untold() == Change((), ())
    known = Known([found()])
    known.update([], ["a"])
    known.update([found()], ["a"])
    assert known.untold() == Change((), ())


@pytest.mark.parametrize("more", ['"untold": [1]', '"gone": [{}]', '"checked": null', '"began": "x"', '"problem": 1'])
def test_a_state_of_another_version_is_none(more: str, tmp_path: Path) -> None:
    (tmp_path / "state").write_text(f'{{"findings": [], {more}}}')
    assert load(str(tmp_path / "state")) == {}


def xid(number: int = 79, gpu: int = 1) -> Event:
    return Event(Topic.GPU, f"xid-{number}", f"gpu:0000:{gpu:02x}:00.0", f"NVRM: Xid {number}")


@pytest.mark.parametrize("start", [0.0, 0.1, 20.123456789, 599.9, 1e6 + 1 / 3])
def test_a_repeated_event_is_told_once_in_ten_minutes_with_how_many_more(start: float) -> None:
    repeats = Repeats()
    first = repeats.entry(xid(), start)
    assert first
    assert (decoded(first)["MESSAGE"], decoded(first)["PRIORITY"]) == ("NVRM: Xid 79", "3")
    assert [repeats.entry(xid(), start + n) for n in range(1, 600)] == [None] * 599
    assert repeats.entry(xid(31), start + 1), "another event was held back"
    assert repeats.entry(xid(gpu=2), start + 1), "the event of another GPU was held back"
    again = repeats.entry(xid(), start + 601)
    assert again
    assert decoded(again)["MESSAGE"] == "NVRM: Xid 79 (599 more since the last alert)"
    last = repeats.entry(xid(), start + 1300)
    assert last
    assert decoded(last)["MESSAGE"] == "NVRM: Xid 79"


def test_an_event_that_is_worse_than_one_of_the_same_kind_before_is_told() -> None:
    repeats = Repeats()
    for severity, priority in (("warning", "4"), ("error", "3")):
        event = Event(Topic.GPU, "xid-other", "gpu:0000:01:00.0", "NVRM: Xid ...", severity, "hardware")
        entry = repeats.entry(event, 1.0)
        assert entry
        fields = decoded(entry)
        assert fields["DLHEALTH_ID"] == "xid-other"
        assert (fields["DLHEALTH_SEVERITY"], fields["PRIORITY"]) == (severity, priority)
        assert fields["DLHEALTH_LAYER"] == "hardware"


def test_a_flood_of_different_events_is_bounded_and_ends() -> None:
    repeats = Repeats()
    told = [e for n in range(5000) if (e := repeats.entry(xid(n), 1000.0 + n / 100))]
    assert len(told) == 64
    assert len(repeats._told) <= 64
    assert repeats.entry(xid(9999), 2000.0)
    assert len(repeats._told) <= 64


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 500)), max_size=300))
def test_never_more_than_so_many_within_ten_minutes(steps: list[tuple[int, float]]) -> None:
    repeats, now, times = Repeats(), 0.0, []
    for number, wait in steps:
        now += wait
        if repeats.entry(xid(number), now):
            times.append(now)
        assert len(repeats._told) <= 64
        assert sum(now - t < 600 for t in times) <= 64


# The sign above the login prompt.


def test_no_problem_no_sign() -> None:
    assert sign([]) == ""
    assert sign([found(severity="warning"), found(caused_by=["b"])]) == ""


def test_the_sign_names_the_causes_and_what_to_do() -> None:
    text = sign([found(i) for i in "abcde"])
    assert text.startswith("\ndlhealth: this machine has a problem.\n")
    assert [line for line in text.splitlines() if line.startswith("  ")] == [
        "  a is wrong",
        "  b is wrong",
        "  c is wrong",
        "  and 2 more",
    ]
    assert "run: dlhealth fix" in text
    assert "more" not in sign([found(i) for i in "abc"])


@given(st.text(min_size=1, max_size=400))
@example("a\\d \\S{VERSION} \x1b[31m \x9b1m\r\n\u2028")
def test_nothing_in_a_title_is_a_command_to_the_terminal_or_to_agetty(title: str) -> None:
    text = sign([found(title=title)])
    assert "\\" not in text
    assert all(c == "\n" or c.isprintable() for c in text)
    assert len(text.splitlines()) == 6
    assert max(len(line) for line in text.splitlines()) <= 152
    text.encode()  # also a file name of bytes that are no UTF-8


# State.


def test_state_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    replace(path, json.dumps({"findings": [as_json()], "checked": 1}).encode())
    old = os.open(path, os.O_RDONLY)
    replace(path, json.dumps({"findings": [], "checked": 2}).encode())
    assert json.loads(os.read(old, 9999))["checked"] == 1, "who was reading saw it change"
    os.close(old)
    assert load(path) == {"findings": (), "checked": 2}
    assert os.listdir(tmp_path) == ["state.json"]
    assert stat.S_IMODE(os.stat(path).st_mode) & 0o022 == 0


def test_a_file_that_cannot_be_written_whole_leaves_the_state(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    replace(str(path), b'{"findings": []}')
    code = (
        "import resource, signal, sys; from dlhealth.host.newfile import replace; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
        "replace(sys.argv[1], b'x' * 200)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr
    assert load(str(path)) == {"findings": ()}
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_link_is_replaced_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "state.json").symlink_to("victim")
    replace(str(tmp_path / "state.json"), b"{}")
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "state.json").is_symlink()


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"3",
    b'"findings"',
    b"{}",
    b'{"findings": null}',
    b'{"findings": 3}',
    b'{"findings": [3]}',
    b'{"findings": ["id"]}',
    b'{"findings": [{"id": "a"}]}',
    b'{"findings": {"a": {}}}',
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"schema": 2, "findings": []}',
    json.dumps({"findings": [as_json(title=3)]}).encode(),
    json.dumps({"findings": [as_json(severity="dreadful")]}).encode(),
    json.dumps({"findings": [{k: v for k, v in as_json().items() if k != "next_boot"}]}).encode(),
]


@pytest.mark.parametrize("content", GARBAGE)
def test_what_another_version_or_nobody_wrote_is_no_state(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    assert load(str(path)) == {}
    with pytest.raises(ValueError):
        understood(content)


def test_no_state(tmp_path: Path) -> None:
    assert load(str(tmp_path / "none")) == {}
    assert load(str(tmp_path)) == {}


def test_what_a_look_says_must_have_its_fields_with_their_kinds() -> None:
    assert understood(b'{"findings": [], "busy": ""}', busy=str) == {"findings": (), "busy": ""}
    for text in (b'{"findings": []}', b'{"findings": [], "busy": 1}', b'{"busy": ""}'):
        with pytest.raises(ValueError, match="its result is not valid"):
            understood(text, busy=str)


# The journal.


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z_]{0,10}", fullmatch=True), st.text(max_size=200), max_size=6))
def test_every_text_reaches_the_journal_as_it_is(fields: dict[str, str]) -> None:
    expected = {k: v.encode(errors="replace").decode() for k, v in fields.items()}
    assert decoded(encode(fields)) == expected


def test_a_line_break_in_a_title_forges_no_field() -> None:
    entry = alert(Kind.APPEARED, "wrong\nPRIORITY=0\nDLHEALTH_ID=other", id="a", severity="warning")
    fields = decoded(entry)
    assert fields["MESSAGE"] == "wrong\nPRIORITY=0\nDLHEALTH_ID=other"
    assert (fields["PRIORITY"], fields["DLHEALTH_ID"]) == ("4", "a")
    assert b"\nPRIORITY=0\n" in entry
    assert entry.startswith(b"MESSAGE\n" + len(fields["MESSAGE"]).to_bytes(8, "little"))


def test_empty_fields_are_left_out() -> None:
    assert set(decoded(alert(Kind.NOT_CHECKED, "x"))) == {
        "MESSAGE",
        "MESSAGE_ID",
        "PRIORITY",
        "SYSLOG_IDENTIFIER",
        "DLHEALTH_SEVERITY",
    }


def test_a_huge_text_is_cut_between_two_characters() -> None:
    fields = decoded(encode({"MESSAGE": "x" + "€" * LIMIT}))  # decoded() fails at half a character
    assert LIMIT // 4 - 3 < len(fields["MESSAGE"].encode()) <= LIMIT // 4


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "socket"))
        channel.settimeout(2)
        yield channel


def test_an_alert_arrives(journal: socket.socket) -> None:
    entry = alert(Kind.REPAIRED, "done\nwell", id="a", transaction="3-abc")
    assert send(entry, journal.getsockname())
    assert journal.recv(1 << 20) == entry


def test_the_largest_alert_fits_into_a_datagram(journal: socket.socket) -> None:
    big = "\n" + "x" * LIMIT
    entry = alert(Kind.APPEARED, big, id=big, subject=big, layer=big, transaction=big, caused_by=big)
    assert send(entry, journal.getsockname())
    assert decoded(journal.recv(1 << 20))["DLHEALTH_CAUSED_BY"]


def test_a_journal_that_is_not_there_or_does_not_read(tmp_path: Path, journal: socket.socket) -> None:
    assert not send(b"MESSAGE=x\n", str(tmp_path / "none"))
    path = journal.getsockname()
    taken, started = 0, time.monotonic()
    while send(b"MESSAGE=x\n", path):  # it does not wait for a reader either
        taken += 1
        assert taken < 100_000
    assert taken
    assert time.monotonic() - started < 0.5
    journal.close()
    assert not send(b"MESSAGE=x\n", path)


def test_every_kind_of_alert_is_explained_in_the_catalog() -> None:
    catalog = (SYSTEMD / "dlhealth.catalog").read_text()
    entries = re.findall(
        r"^-- ([0-9a-f]{32})\nSubject: (.+)\nDefined-By: dlhealth\n\n(\S.+)$",
        catalog,
        re.MULTILINE,
    )
    assert sorted(id for id, _, _ in entries) == sorted(k.value for k in Kind)
    assert len(entries) == len(re.findall("^-- ", catalog, re.MULTILINE))
    known = set(re.findall(r'"(DLHEALTH_\w+)"', (SYSTEMD.parent / "dlhealth/host/alert.py").read_text()))
    assert set(re.findall(r"@(\w+)@", catalog)) <= known
    assert set(re.findall(r"\b(DLHEALTH_\w+)", catalog)) <= known


def test_the_ids_are_valid_and_differ() -> None:
    assert len({k.value for k in Kind}) == len(Kind)
    for kind in Kind:
        # A MESSAGE_ID is a random 128-bit number as sd_id128 makes it: UUID version 4, variant 1.
        assert re.fullmatch(r"[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", kind.value), kind


def test_what_concerns_one_person_is_not_for_everybody() -> None:
    common = [found("a"), found("b", "file:/etc/environment", files=["/etc/environment"]), found("c", "kernel:6.1.0")]
    personal = [
        found("d", "user:alice"),
        found("e", "file:/home/alice/.bashrc"),
        found("f", "file:/usr/local/cuda/lib64/stubs/libcuda.so", files=["/etc/x", "/srv/people/alice/.profile"]),
        found("g", "python:/data/alice/venv"),
    ]
    assert public([*common, *personal]) == common
