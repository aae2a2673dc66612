"""The journal: real ones through journalctl, and the text logs of rsyslog where there is none."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlhealth.host.root import RootHost
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.journal import (
    IDENTIFIERS,
    TAIL,
    Journal,
    Line,
    number_boots,
    parse_entry,
    parse_log_line,
)
from dlhealth.probes.machine.localtime import LocalTime
from dlhealth.testing import Machine, logs
from tests.conftest import WriteJournal

NOV_23 = 1795417200.0  # 2026-11-23 07:00:00 UTC
XID = "NVRM: Xid (PCI:0000:01:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."


def journal(root: Path) -> Journal:
    return Journal.probe(RootHost(str(root)))


def line(text: str) -> Line:
    parsed = parse_log_line(text, "/var/log/syslog", NOV_23, LocalTime())
    assert parsed
    return parsed


def test_a_real_journal_of_two_boots(tmp_path: Path, write_journal: WriteJournal) -> None:
    write_journal(
        tmp_path,
        [
            [logs.Entry(0, "kernel", "Linux version 6.1.0"), logs.Entry(50, "kernel", XID)],
            [
                logs.Entry(0, "kernel", "Linux version 6.1.0"),
                logs.Entry(9, "lightdm", "caf\udce9", 12, 0),
                logs.Entry(10, "CRON", "pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)"),
            ],
        ],
    )
    found = journal(tmp_path)
    assert found.problem == ""
    assert len(found.boots) == 2
    assert found.boots[-1] == logs.BOOT
    assert [x.text for x in found.kernel("Xid")] == [XID]
    assert list(found.kernel("Xid", last_boot=True)) == []
    (greeter,) = found.matching("", ("lightdm",))
    assert greeter == Line(logs.BEGIN + 9, logs.BOOT, "lightdm", 0, "caf\udce9", "journalctl", 12)
    assert not list(found.matching("", ("CRON",))), "only what is of use is read"


def test_a_journal_that_is_damaged_does_not_hide_the_text_logs(tmp_path: Path) -> None:
    Machine().says("kernel", XID).file("/var/log/journal/x.journal", b"LPKSHHRH" + bytes(500)).build(tmp_path)
    assert [x.text for x in journal(tmp_path).kernel("Xid")] == [XID]


def test_a_volatile_journal_begins_with_this_boot_and_the_text_logs_have_what_was_before(
    tmp_path: Path, write_journal: WriteJournal
) -> None:
    Machine().says("kernel", XID, -86400.0).build(tmp_path)
    write_journal(tmp_path, [[logs.Entry(0, "kernel", "Linux version 6.1.0")]])
    (tmp_path / "run/log").mkdir(parents=True)
    shutil.move(tmp_path / "var/log/journal", tmp_path / "run/log/journal")
    found = journal(tmp_path)
    assert [x.source for x in found.lines] == ["/var/log/kern.log", "journalctl"]


def test_without_any_log_it_is_not_available(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="neither a journal nor a log"):
        journal(tmp_path)


def test_an_empty_log_is_a_log(tmp_path: Path) -> None:
    Machine().file("/var/log/syslog").build(tmp_path)
    assert journal(tmp_path) == Journal((), (), "")


def test_one_bad_log_does_not_hide_the_others(tmp_path: Path) -> None:
    Machine().says("kernel", XID).fifo("/var/log/auth.log").build(tmp_path)
    found = journal(tmp_path)
    assert [x.text for x in found.lines] == [XID]
    assert "a named pipe, not a file" in found.problem


@pytest.mark.parametrize(
    ("text", "identifier", "pid", "message"),
    [
        (
            "May  9 12:17:26 Kubuntu sddm-helper: pam_unix(sddm:session): session opened for user joker by (uid=0)",
            "sddm-helper", None, "pam_unix(sddm:session): session opened for user joker by (uid=0)",
        ),
        (
            "Jan 25 00:53:17 kot gdm-password][1278]: pam_unix(gdm-password:session): session opened for user mvl(uid=1000) by (uid=0)",
            "gdm-password]", 1278, "pam_unix(gdm-password:session): session opened for user mvl(uid=1000) by (uid=0)",
        ),
        (
            "Oct 26 16:34:20 fedora /usr/libexec/gdm-x-session[884]: (II) Module glx: vendor=\"X.Org Foundation\"",
            "/usr/libexec/gdm-x-session", 884, '(II) Module glx: vendor="X.Org Foundation"',
        ),
        (
            "2024-02-10T14:27:21.876338+01:00 workstation systemd-logind[2025]: New session 3 of user john.",
            "systemd-logind", 2025, "New session 3 of user john.",
        ),
        ("Nov 23 06:00:01 host kernel: [   12.345678] " + XID, "kernel", None, XID),
    ],
)  # fmt: skip
def test_lines_of_rsyslog(text: str, identifier: str, pid: int | None, message: str) -> None:
    found = line(text)
    assert (found.identifier, found.pid, found.text) == (identifier, pid, message)


def test_times_of_both_forms_are_the_same() -> None:
    zoned = line("2026-11-23T07:30:00.500000+01:00 h lightdm[1]: x").time
    assert zoned == NOV_23 - 1800 + 0.5
    assert line("2026-11-23T06:30:00Z h lightdm[1]: x").time == NOV_23 - 1800
    assert line("2026-11-23T01:30:00-05:00 h lightdm[1]: x").time == NOV_23 - 1800
    assert line("Nov 23 06:30:00 h lightdm[1]: x").time == NOV_23 - 1800


def test_a_date_without_year_is_before_the_file_was_written() -> None:
    assert NOV_23 - line("Dec 24 07:00:00 h lightdm[1]: x").time == 334 * 86400


def test_every_identifier_that_the_journal_is_asked_for_is_found_in_text_too(tmp_path: Path) -> None:
    machine = Machine()
    for number, name in enumerate(IDENTIFIERS):
        machine.says(name, f"text {number}", float(number))
    machine.says("CRON", "something else").build(tmp_path)
    assert {x.identifier for x in journal(tmp_path).lines} == set(IDENTIFIERS)


def test_a_boot_begins_with_the_kernels_first_line() -> None:
    texts = ["NVRM: old", "Linux version 6.1.0-49", "NVRM: loading", "Linux version 6.1.0-50", "NVRM: loading"]
    lines = [Line(float(n), "", "kernel", None, text, "x") for n, text in enumerate(texts)]
    assert [x.boot for x in number_boots(lines)] == ["0", "1", "1", "2", "2"]


def test_the_same_line_in_two_files_is_one(tmp_path: Path) -> None:
    text = f"Nov 23 06:00:01 host kernel: [   12.345678] {XID}\n"
    Machine().file("/var/log/syslog", text).file("/var/log/kern.log", text).build(tmp_path)
    assert len(journal(tmp_path).lines) == 1


def test_dmesg_is_of_the_last_boot(tmp_path: Path) -> None:
    dmesg = f"[    0.000000] kernel: Linux version 6.1.0\n[   12.000000] {XID}\nnonsense\n"
    Machine().says("kernel", "Linux version 6.1.0", 0.0).file("/var/log/dmesg", dmesg).build(tmp_path)
    found = journal(tmp_path)
    assert [(x.text, x.boot, x.source) for x in found.lines] == [
        ("Linux version 6.1.0", "1", "/var/log/kern.log"),
        (XID, "1", "/var/log/dmesg"),
    ]


def test_of_a_huge_log_the_end_is_read(tmp_path: Path) -> None:
    old = "Nov 22 06:00:01 host kernel: [    1.000000] old\n"
    Machine().file("/var/log/kern.log", old * 100_000).append("/var/log/kern.log", old.replace("old", "new")).build(
        tmp_path
    )
    texts = [x.text for x in journal(tmp_path).lines]
    assert texts[-1] == "new"
    assert (tmp_path / "var/log/kern.log").stat().st_size > TAIL * 10


def test_what_was_rotated_away_lately_is_read_too(tmp_path: Path) -> None:
    Machine().file("/var/log/kern.log.1", f"Nov 22 06:00:01 host kernel: {XID}\n").file("/var/log/kern.log").build(
        tmp_path
    )
    assert [x.text for x in journal(tmp_path).kernel("Xid")] == [XID]


@pytest.mark.parametrize(
    "entry", ["", "null", "[]", "{}", '{"MESSAGE": 5}', '{"MESSAGE": "x", "__REALTIME_TIMESTAMP": "-1"}', "[" * 10_000]
)
def test_what_is_no_entry(entry: str) -> None:
    assert parse_entry(entry) is None


def test_a_message_as_bytes() -> None:
    entry = parse_entry(
        '{"MESSAGE": [99, 97, 102, 233], "__REALTIME_TIMESTAMP": "1000000", "_UID": "x", "_BOOT_ID": null}'
    )
    assert entry == Line(1.0, "", "", None, "caf\udce9", "journalctl", None)


@given(st.text())
def test_any_text_is_a_line_or_none(text: str) -> None:
    parsed = parse_log_line(text, "x", NOV_23, LocalTime())
    assert parsed is None or parsed.time <= NOV_23 + 300 * 365 * 86400 * 40
    entry = parse_entry(text)
    assert entry is None or entry.text is not None


@given(st.from_regex(r"[A-Z][a-z]{2} +[0-9]{1,2} [0-9]{2}:[0-9]{2}:[0-9]{2} h k: x", fullmatch=True))
def test_any_date_is_a_time_or_none(text: str) -> None:
    parsed = parse_log_line(text, "x", NOV_23, LocalTime())
    assert parsed is None or parsed.time <= NOV_23 + 3 * 86400
