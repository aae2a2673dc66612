"""Reports: readable on the poorest terminal, honest about what was not read, and harmless whatever was found."""

import json
from collections.abc import Iterator

import pytest

from dlhealth.actions import ByHand, ChangeOwner, EditFile, MoveAside, Reboot, UpdateInitramfs
from dlhealth.engine.choose import Chosen, Left, Repair
from dlhealth.engine.rule import Rule
from dlhealth.model import (
    Area,
    Diagnosed,
    Diagnosis,
    Evidence,
    Failed,
    Finding,
    Health,
    Layer,
    Plan,
    Risk,
    Severity,
    Skipped,
    Stage,
    State,
)
from dlhealth.report.json import to_json
from dlhealth.report.repairs import render_repair
from dlhealth.report.story import describe, story_of
from dlhealth.report.style import Style, columns, pieces, shortened, style_for
from dlhealth.report.terminal import Detail, Page, render_rule, render_rules, sections_of
from dlhealth.report.terminal import render as draw

FIX = "sudo dlhealth fix"


def render(made: Diagnosis, style: Style, detail: Detail = Detail.NORMAL) -> str:
    return draw(story_of(made, FIX), style, detail)


RICH = Style(True, True, 100)
PLAIN = Style(False, False, 80)

MACHINE = {
    "root": "/",
    "hostname": "workstation",
    "os": "debian 12",
    "kernel": "6.1.0-50-amd64",
    "gpus": [{"pci": "0000:01:00.0", "id": "10de:1b06", "name": "GeForce GTX 1080 Ti", "compute_capability": "6.1"}] * 2,
    "driver": {"loaded": "535.1", "on_disk": "550.2", "libraries": None},
    "cuda": ["11.8", "12.2"],
}  # fmt: skip


def finding(name: str, subject: str = "host", severity: Severity = Severity.ERROR, title: str = "") -> Finding:
    return Finding(name, subject, severity, Layer.LOGIN, title or f"{name} is wrong", (Evidence("/etc/x", "y"),))


def diagnosis(
    *findings: Diagnosed, run: int = 9, skipped: tuple[Skipped, ...] = (), failed: tuple[Failed, ...] = ()
) -> Diagnosis:
    return Diagnosis(findings, run, skipped, failed, MACHINE)


PLAN = Plan("Restart it", Risk.MEDIUM, (ByHand("save your work"), Reboot()), reboot=True, network=True)
CHAIN = diagnosis(
    Diagnosed(finding("a-root"), (), PLAN),
    Diagnosed(finding("other-root", severity=Severity.WARNING), (), PLAN),
    Diagnosed(finding("child-one"), ("a-root",), None),
    Diagnosed(finding("child-two", "user:alice"), ("a-root", "other-root"), None),
    Diagnosed(finding("grand-child", "user:alice"), ("child-two", "a-root"), None),
    Diagnosed(finding("lost-child"), ("nowhere",), None),
)


def test_a_whole_report() -> None:
    assert render(CHAIN, PLAIN) == (
        """\
workstation: debian 12, kernel 6.1.0-50-amd64, 2 x GeForce GTX 1080 Ti, driver
  535.1 loaded / 550.2 on disk, CUDA 11.8, 12.2

[x] a-root is wrong
    a-root
    Proof
      /etc/x: y
    Repair: Restart it (risk medium, needs a reboot, needs the network)
      1. save your work
      2. systemctl reboot
    This explains
      |- child-one is wrong (child-one)
      `- child-two is wrong (child-two)
         `- grand-child is wrong (grand-child)

[!] other-root is wrong
    other-root
    Proof
      /etc/x: y
    Repair: Restart it (risk medium, needs a reboot, needs the network)
      1. save your work
      2. systemctl reboot

[x] lost-child is wrong
    lost-child
    Proof
      /etc/x: y

[x] workstation is broken: 2 root causes with 4 consequences
    Explain: dlhealth explain ID
    Repair:  sudo dlhealth fix
"""
    )


def test_lines_of_the_tree_go_on_beside_wrapped_text() -> None:
    long = diagnosis(
        Diagnosed(finding("root"), (), None),
        Diagnosed(finding("one", title="word " * 30), ("root",), None),
        Diagnosed(finding("two"), ("one", "root"), None),
        Diagnosed(finding("three"), ("root",), None),
    )
    tree = render(long, RICH._replace(colour=False)).splitlines()
    start = tree.index("  This explains")
    assert [line[:11] for line in tree[start + 1 : start + 5]] == [
        "    ├─ word",
        "    │  word",
        "    │  └─ t",
        "    └─ thre",
    ]


def test_every_finding_is_shown_once() -> None:
    circle = diagnosis(
        Diagnosed(finding("root"), (), None),
        Diagnosed(finding("egg"), ("hen",), None),
        Diagnosed(finding("hen"), ("egg",), None),
        Diagnosed(finding("for-bob", "user:bob"), ("for-alice",), None),
        Diagnosed(finding("for-alice", "user:alice"), ("root",), None),
    )
    text = render(circle, PLAIN)
    assert [text.count(f"{name} is wrong") for name in ("root", "egg", "hen", "for-bob", "for-alice")] == [1] * 5


@pytest.mark.parametrize(
    ("given", "first"),
    [
        (diagnosis(), "[ok] workstation: no problem found by 9 checks"),
        (diagnosis(run=0), "[!] workstation: nothing could be checked"),
        (diagnosis(Diagnosed(finding("n", severity=Severity.NOTE), (), PLAN)), "[ok] workstation: no problem found by 9 checks"),
        (diagnosis(Diagnosed(finding("n", severity=Severity.WARNING), (), PLAN)), "[!] workstation is degraded: 1 root cause"),
        (diagnosis(Diagnosed(finding("n"), (), PLAN)), "[x] workstation is broken: 1 root cause"),
    ],
)  # fmt: skip
def test_verdict(given: Diagnosis, first: str) -> None:
    """It comes last, before the next command; the short report begins with it."""
    assert first in render(given, PLAIN).splitlines()[-3:]
    assert render(given, PLAIN, Detail.QUIET).splitlines()[0] == first


def test_what_could_not_be_looked_at_is_grouped_by_reason() -> None:
    skipped = [Skipped(f"rule-{n}", f"/var/{n}: needs root") for n in range(6)]
    skipped += [Skipped("one", "there is no GPU; /var/0: needs root"), Skipped("two", "there is no GPU")]
    lines = render(diagnosis(skipped=tuple(skipped)), PLAIN, Detail.VERBOSE).splitlines()
    start = lines.index("Checks that could not run completely (8)")
    assert lines[start + 1 : -2] == [
        "  needs root (/var/0, /var/1, /var/2 and 3 more): 7 checks",
        "  there is no GPU: one, two",
    ]


def test_where_environments_were_searched_is_said_to_people_who_have_some() -> None:
    search = {"found": ["/usr", "/home/alice/venv"], "bounds": "Python environments in homes were searched"}
    given = Diagnosis((), 9, (), (), {**MACHINE, "python_environments": search})
    assert "Python environments in homes were searched." in render(given, PLAIN, Detail.VERBOSE).splitlines()
    assert "searched" not in render(given, PLAIN)
    search["found"] = ["/usr"]
    assert "searched" not in render(given, PLAIN, Detail.VERBOSE)


WELL = (
    Area("driver", State.WELL, "535.1 is loaded; the libraries are the same version", "", (Layer.KERNEL_MODULE,)),
    Area("CUDA", State.ABSENT, "no toolkit is installed", "", (Layer.CUDA,)),
    *(Area("login", State.WELL, "start-up files are sound", f"user:{n}", (Layer.LOGIN,)) for n in ("alice", "bob")),
    Area("login", State.UNKNOWN, f"/home/eve/.profile:1: {'a long reason ' * 9}", "user:eve", (Layer.LOGIN,)),
    *(Area("Python", State.WELL, f"/opt/{n}: PyTorch", f"python:/opt/{n}", (Layer.PYTHON,)) for n in range(14)),
)


def test_each_area_is_one_line_and_users_with_the_same_result_share_one() -> None:
    lines = render(diagnosis()._replace(areas=WELL), PLAIN).splitlines()
    assert lines[3:11] == [
        "[ok] driver  535.1 is loaded; the libraries are the same version",
        "[-]  CUDA    no toolkit is installed",
        "[ok] login   alice, bob: start-up files are sound",
        "[?]  login   eve: /home/eve/.profile:1: a long reason a long reason a long ...",
        "[ok] Python  /opt/0: PyTorch",
        "[ok] Python  /opt/1: PyTorch",
        "[ok] Python  /opt/2: PyTorch",
        "[ok] Python  and 11 more",
    ]
    whole = render(diagnosis()._replace(areas=WELL), PLAIN, Detail.VERBOSE)
    assert "/opt/13: PyTorch" in whole
    assert " ".join(whole.split()).count("a long reason") == 9


def test_an_area_with_a_problem_gets_no_tick() -> None:
    broken = diagnosis(
        Diagnosed(finding("loop", "user:bob"), (), PLAN),
        Diagnosed(finding("hint", "user:alice", Severity.NOTE), (), None),
    )
    lines = render(broken._replace(areas=WELL), PLAIN).splitlines()
    assert "[ok] login   alice: start-up files are sound" in lines
    assert "[x]  login   bob: see loop" in lines
    everybody = diagnosis(Diagnosed(finding("loop", severity=Severity.WARNING), (), PLAN))
    assert "[!]  login   alice, bob, eve: see loop" in render(everybody._replace(areas=WELL), PLAIN).splitlines()
    states = [a["state"] for a in json.loads(to_json(broken._replace(areas=WELL)))["areas"]]
    assert states[:5] == ["well", "absent", "well", "problem", "unknown"]


def test_a_gpu_without_a_driver_is_not_called_healthy() -> None:
    area = Area("driver", State.ABSENT, "no NVIDIA driver is installed")
    without = diagnosis()._replace(areas=(area,), machine={**diagnosis().machine, "gpus": [{"name": "A100"}]})
    assert without.health is Health.UNKNOWN
    assert "no NVIDIA driver is installed" in render(without, PLAIN).splitlines()[-1]
    # The login node of a cluster has no GPU, and needs none.
    assert without._replace(machine={**diagnosis().machine, "gpus": []}).health is Health.HEALTHY


def test_many_observations_of_one_problem_are_counted() -> None:
    many = finding("many")._replace(evidence=tuple(Evidence(f"/f{n}", "wrong") for n in range(9)))
    found = diagnosis(Diagnosed(many, (), None))
    assert "    /f4: wrong\n      and 4 more (dlhealth doctor -v)\n" in render(found, PLAIN)
    assert "/f8: wrong" in render(found, PLAIN, Detail.VERBOSE)


def test_the_next_command_is_the_last_line() -> None:
    one = diagnosis(Diagnosed(finding("x"), (), PLAN))
    assert render(one, PLAIN).splitlines()[-2:] == [
        "    Explain: dlhealth explain x",
        "    Repair:  sudo dlhealth fix",
    ]
    by_hand = diagnosis(Diagnosed(finding("x"), (), PLAN, "only a person can"))
    assert render(by_hand, PLAIN).splitlines()[-1] == "    Explain: dlhealth explain x"


def test_a_broken_rule_is_named() -> None:
    text = render(diagnosis(failed=(Failed("bad-rule", "KeyError: 'x'"),)), PLAIN)
    assert "Failed checks: defects of these rules, not of this machine\n  bad-rule: KeyError: 'x'\n" in text


HOSTILE = "a\033[2J\nb\r\tc\x9b1m\u202ed\udcff\0 \U000e0001"


@pytest.mark.parametrize("style", [RICH._replace(colour=False), PLAIN])
def test_what_a_file_holds_can_not_control_the_terminal(style: Style) -> None:
    evil = Finding(HOSTILE, HOSTILE, Severity.ERROR, Layer.LOGIN, HOSTILE, (Evidence(HOSTILE, HOSTILE),))
    plan = Plan(HOSTILE, Risk.LOW, (ByHand(HOSTILE),))
    made = diagnosis(
        Diagnosed(evil, (), plan), skipped=(Skipped(HOSTILE, HOSTILE),), failed=(Failed(HOSTILE, HOSTILE),)
    )
    made = made._replace(machine={"hostname": HOSTILE, "os": HOSTILE, "cuda": [HOSTILE]})
    text = render(made, style)
    assert all(line.isprintable() for line in text.split("\n"))
    assert "a\\x1b[2J\\nb\\r\\tc\\x9b1m\\u202ed\\xff\\x00" in text
    assert style.unicode or text.isascii()
    document = json.loads(to_json(made))
    assert document["findings"][0]["title"] == HOSTILE.replace("\udcff", "?")
    assert to_json(made).isascii()


def test_nothing_is_wider_than_a_console() -> None:
    for style in (PLAIN, PLAIN._replace(width=40), RICH._replace(colour=False)):
        assert max(len(line) for line in render(CHAIN, style).splitlines()) <= max(style.width, 68)


def test_a_path_stays_in_one_piece() -> None:
    path = "/usr/lib/" + "x" * 120 + "-y/z"
    text = render(diagnosis(Diagnosed(finding("n", title=f"{path} is wrong"), (), None)), PLAIN)
    assert path in text


def test_a_value_of_thousands_of_characters_is_cut() -> None:
    text = f"/{'x' * 5000}/end"
    page = Page(Style(colour=False, unicode=True, width=80))
    page.text("", f"driver {text} is loaded")
    lines = page.content().splitlines()
    assert max(map(len, lines)) == 400
    assert any("..." in line and line.endswith("x/end") for line in lines)


def test_colours_only_where_they_are_wanted() -> None:
    assert "\033[" in render(CHAIN, RICH)
    assert "\033[" not in render(CHAIN, RICH._replace(colour=False))


@pytest.mark.parametrize(
    ("terminal", "environment", "colour", "unicode"),
    [
        (True, {"TERM": "xterm-256color", "LANG": "de_DE.UTF-8"}, True, True),
        (True, {"TERM": "xterm", "LC_ALL": "C.utf8"}, True, True),
        (True, {"TERM": "xterm", "LANG": "ca_ES.UTF-8@valencia"}, True, True),
        (False, {"TERM": "xterm", "LANG": "C.UTF-8"}, False, True),
        (True, {"TERM": "xterm", "LANG": "C.UTF-8", "NO_COLOR": "1"}, False, True),
        (True, {"TERM": "xterm", "LANG": "C.UTF-8", "NO_COLOR": ""}, True, True),
        (True, {"TERM": "dumb", "LANG": "C.UTF-8"}, False, True),
        (True, {"LANG": "C.UTF-8"}, False, True),
        (True, {"TERM": "linux", "LANG": "de_DE.UTF-8"}, True, False),
        (True, {"TERM": "xterm", "LANG": "de_DE.ISO-8859-1"}, True, False),
        (True, {"TERM": "xterm", "LANG": "de_DE.UTF-8", "LC_ALL": "C"}, True, False),
        (True, {"TERM": "xterm"}, True, False),
        (True, {"TERM": "xterm", "LC_CTYPE": "C.UTF-8"}, True, False),
        (True, {"TERM": "xterm", "LANG": "C", "LC_CTYPE": "C.UTF-8"}, True, False),
        (True, {"TERM": "xterm", "LANG": "C", "LC_CTYPE": "en_US.UTF-8"}, True, True),
    ],
)
def test_style(terminal: bool, environment: dict[str, str], colour: bool, unicode: bool) -> None:
    style = style_for(terminal, environment, 200)
    assert (style.colour, style.unicode) == (colour, unicode)
    assert style.width == 100


def test_a_machine_that_tells_little() -> None:
    assert describe({}) == "unknown system"
    same = {"os": "debian 12", "driver": {"loaded": "1", "on_disk": "1", "libraries": "1"}, "gpus": [{"id": "10de:1"}]}
    assert describe(same) == "debian 12, 10de:1, driver 1"


class Documented(Rule):
    """A rule whose documentation is given."""

    id = "documented-rule"
    title = "Something"
    layer = Layer.CUDA
    stage = Stage.LOADER
    severity = Severity.WARNING
    explains = ("a", "b")

    def detect(self) -> Iterator[Finding]:
        yield from ()

    @property
    def documentation(self) -> str:
        return DOCUMENTATION


DOCUMENTATION = """\
It is wrong.

What you see
    A message of the loader

    Another message
Why
    This text goes on
    over the end of its lines, however long each of them is, because only a blank line ends a paragraph
    of the source.

    A second paragraph.
By hand
    a command that is so long that it fills the whole line of the source, and that must be kept as it is
    the next command
"""


def test_documentation_flows_but_commands_stay() -> None:
    summary, sections = sections_of(DOCUMENTATION)
    assert summary == "It is wrong."
    assert dict(sections) == {
        "What you see": ["A message of the loader", "Another message"],
        "Why": [
            "This text goes on over the end of its lines, however long each of them is, because only a blank line ends "
            "a paragraph of the source.",
            "A second paragraph.",
        ],
        "By hand": [
            "a command that is so long that it fills the whole line of the source, and that must be kept as it is",
            "the next command",
        ],
    }


def test_rules_and_one_rule() -> None:
    rule = Documented()
    listed = render_rules([rule], PLAIN)
    assert "cuda\n  warning  documented-rule\n           Something\n" in listed
    shown = render_rule(rule, [rule], PLAIN)
    assert "layer cuda, severity warning, risk of the repair: low" in shown
    assert "Explains\n    a\n    b\n" in shown
    command = "    a command that is so long that it fills the whole line of the source, and that must be kept as it is"
    assert [line for line in shown.splitlines() if len(line) > 80] == [command], "a command is never wrapped"


def test_many_steps_of_the_same_kind_are_one_line() -> None:
    """The report counts the files, the plan of `fix` names them."""
    lib = "/usr/lib/x86_64-linux-gnu"
    moved = [MoveAside(f"{lib}/{name}.so.570.86") for name in ("libcuda", "libnvidia-ml", "libnvcuvid")]
    actions = (
        MoveAside("/usr/bin/nvidia-smi"),
        *moved,
        MoveAside("/nvidia"),
        UpdateInitramfs("all"),
        *(ChangeOwner(f"/home/a/{name}", "a", "a") for name in "bcde"),
        ChangeOwner("/home/a/f", "root", "a"),
    )
    plan = Plan("Keep one", Risk.HIGH, actions)
    found = finding("mixed", title="Two installers")
    text = render_repair(Repair((Chosen(found, plan),), (), actions), Style(False, True, 100))
    assert text.splitlines()[5:] == [
        "   1. to 5. move 5 files aside (kept in /var/lib/dlhealth)",
        "        /usr/bin: nvidia-smi",
        f"        {lib}: libcuda.so.570.86 libnvidia-ml.so.570.86 libnvcuvid.so.570.86",
        "        /: nvidia",
        "   6. update-initramfs -u -k all",
        "   7. to 10. chown -h a:a of 4 files of /home/a",
        "        b c d e",
        "  11. chown -h root:a /home/a/f",
    ]
    report = render(diagnosis(Diagnosed(found, (), plan)), PLAIN)
    assert "      1. to 5. move 5 files aside (kept in /var/lib/dlhealth)\n      6. update" in report
    assert "libnvcuvid" in render(diagnosis(Diagnosed(found, (), plan)), PLAIN, Detail.VERBOSE)


def test_a_plan_that_is_only_a_restart_says_so() -> None:
    found = finding("mismatch", title="The old module runs")
    plan = Plan("Restart", Risk.MEDIUM, (Reboot(),), reboot=True)
    text = render_repair(Repair((Chosen(found, plan),), (), ()), Style(False, True, 100))
    assert text.startswith("Plan: only a reboot (risk medium, needs a reboot)\n")
    assert text.endswith("then reboot at a time that suits you: systemctl reboot\n")


def test_repeated_steps_of_a_person_are_one_line() -> None:
    """In the plan of `fix` and in the report of `doctor`."""
    moved = tuple(MoveAside(f"/usr/lib/{name}") for name in ("one", "two", "three", "four"))
    left = Left(finding("mixed"), "it has steps that only a person can do", (*moved, ByHand("reboot")))
    text = render_repair(Repair((), (left,), ()), PLAIN)
    assert text.splitlines()[3:] == [
        "      by hand: move 4 files of /usr/lib aside (kept in /var/lib/dlhealth)",
        "                 one two three four",
        "      by hand: reboot",
    ]
    report = render(diagnosis(Diagnosed(finding("mixed"), (), Plan("Move them", Risk.LOW, moved))), PLAIN)
    assert "      1. to 4. move 4 files of /usr/lib aside" in report


def test_without_a_plan_the_first_line_says_so() -> None:
    left = Left(finding("mixed"), "it needs the network", ())
    text = render_repair(Repair((), (left,), ()), PLAIN)
    assert text.startswith("Not repaired automatically\n  mixed is wrong\n")


def test_a_long_line_of_a_file_continues_under_its_beginning() -> None:
    old = "export  PATH=" + ":".join(["/usr/local/cuda/bin"] * 6)
    edit = EditFile("/etc/profile", ((12, old, None),))
    plan = Plan("Remove it", Risk.LOW, (edit,))
    text = render_repair(Repair((Chosen(finding("x"), plan),), (), (edit,)), PLAIN)
    first, *rest = text.splitlines()[-2:]
    assert first.startswith("        - 12: export  PATH=/usr")
    assert [line[:14] for line in rest] == [" " * 14]
    assert max(map(len, (first, *rest))) <= 80
    assert first[14:] + "".join(line[14:] for line in rest) == old


def test_width_is_counted_in_columns() -> None:
    """Chinese, Japanese and Korean characters fill two columns, combining marks none."""
    assert [columns(text) for text in ("", "abc", "显卡驱动", "ドライバ", "드라이버", "e\u0301", "✗ a")] == [
        0,
        3,
        8,
        8,
        8,
        1,
        3,
    ]
    assert list(pieces("显卡驱动", 5)) == ["显卡", "驱动"]
    assert list(pieces("", 5)) == [""]
    assert shortened("显卡驱动程序安装目录", 11) == "显卡...目录"
    title = "/home/张伟/环境/显卡驱动程序 lies in 数据/模型/安装目录 and /home/张伟/数据/模型/安装 again 显卡驱动程序"
    text = render(diagnosis(Diagnosed(finding("x", title=title), (), None)), Style(False, True, 60))
    assert max(map(columns, text.splitlines())) <= 60
