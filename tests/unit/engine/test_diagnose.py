"""Facts are built once and from annotations; findings are ordered by who explains whom."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dlhealth.engine.causes import causes, compatible, neighbours, select
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule
from dlhealth.host import Host, Unreadable
from dlhealth.host.root import RootHost
from dlhealth.model import Evidence, Finding, Layer, Plan, Risk, Severity, Stage, Unknown
from dlhealth.probes import Options, Unavailable


class Name(NamedTuple):
    text: str

    @classmethod
    def probe(cls, host: Host) -> "Name":
        text = host.text("/name")
        if text is None:
            raise Unavailable("there is no name")
        host.seen["probed", "Name"] = host.seen.get(("probed", "Name"), 0) + 1
        return cls(text)


class Greeting(NamedTuple):
    text: str

    @classmethod
    def probe(cls, name: Name | None, options: Options) -> "Greeting":
        return cls(f"hello {name.text if name else 'you'}{'!' if options.next_boot else ''}")


class Circle(NamedTuple):
    @classmethod
    def probe(cls, itself: "Circle") -> "Circle":
        return itself


Circle.probe.__func__.__annotations__["itself"] = Circle


class Odd(NamedTuple):
    @classmethod
    def probe(cls, host: Host) -> "Odd":
        raise Unreadable("/odd", "a named pipe, not a file")


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    (tmp_path / "name").write_text("world")
    return Facts(RootHost(str(tmp_path)), Options(next_boot=True))


def test_facts_follow_annotations(facts: Facts) -> None:
    assert facts.get(Greeting).text == "hello world!"


def test_a_fact_is_built_once(facts: Facts) -> None:
    facts.get(Greeting)
    assert facts.get(Name) is facts.get(Name)
    assert facts.get(Host).seen["probed", "Name"] == 1


def test_what_can_be_done_without_is_none(tmp_path: Path) -> None:
    facts = Facts(RootHost(str(tmp_path)), Options())
    assert facts.get(Greeting).text == "hello you"
    with pytest.raises(Unavailable, match="there is no name"):
        facts.get(Name)


@pytest.mark.parametrize(("kind", "reason"), [(Circle, "needs itself"), (Odd, "/odd: a named pipe, not a file")])
def test_unavailable_facts_say_why(facts: Facts, kind: type, reason: str) -> None:
    for _ in range(2):
        with pytest.raises(Unavailable, match=reason):
            facts.get(kind)


def make(
    identity: str,
    *,
    explains: tuple[str, ...] = (),
    subject: str = "host",
    about: tuple[str, ...] = (),
    severity: Severity = Severity.ERROR,
    stage: Stage = Stage.MODULE,
    layer: Layer = Layer.KERNEL_MODULE,
) -> Rule:
    """A rule that finds itself."""

    class Made(Rule):
        def detect(self) -> Iterator[Finding]:
            yield self.finding(self.where, f"{self.id} is there", Evidence("test", "yes"), about=about)

        def remedies(self, finding: Finding) -> Iterator[Plan]:
            yield Plan("mild", Risk.LOW, ())
            yield Plan("drastic", Risk.HIGH, ())

    rule = Made()
    rule.id, rule.explains, rule.where = identity, explains, subject  # type: ignore[attr-defined]
    rule.severity, rule.stage, rule.layer = severity, stage, layer
    return rule


def absent(rule: Rule) -> Rule:
    """The same rule on a machine that does not have its fault."""
    rule.detect = lambda: iter(())
    return rule


def test_consequences_are_folded_under_all_that_explains_them(facts: Facts) -> None:
    rules = [
        make("headers", explains=("build",)),
        make("build", explains=("mismatch",)),
        make("mismatch", explains=("loop",)),
        make("loop", subject="user:alice"),
        make("other"),
    ]
    diagnosis = diagnose(rules, facts)
    causes = {d.finding.id: d.caused_by for d in diagnosis.findings}
    assert causes == {
        "headers": (),
        "build": ("headers",),
        "mismatch": ("build", "headers"),
        "loop": ("mismatch", "build", "headers"),
        "other": (),
    }
    plans = {d.finding.id: d.remedy.summary if d.remedy else None for d in diagnosis.findings}
    assert plans == {"headers": "mild", "other": "mild", "build": None, "mismatch": None, "loop": None}
    assert diagnosis.run == 5
    assert diagnosis.worst is Severity.ERROR


def test_what_lies_between_a_cause_and_its_effect_need_not_be_found(facts: Facts) -> None:
    rules = [
        make("near", explains=("loop",)),
        make("headers", explains=("build",)),
        absent(make("build", explains=("mismatch",))),
        absent(make("mismatch", explains=("loop",))),
        make("loop", subject="user:alice"),
    ]
    causes = {d.finding.id: d.caused_by for d in diagnose(rules, facts).findings}
    assert causes == {"headers": (), "near": (), "loop": ("near", "headers")}


def test_a_symptom_may_name_its_causes(facts: Facts) -> None:
    symptom = make("symptom")
    symptom.explained_by = ("middle",)
    rules = [make("root", explains=("middle",)), absent(make("middle")), symptom]
    assert [(d.finding.id, d.caused_by) for d in diagnose(rules, facts).findings] == [
        ("root", ()),
        ("symptom", ("root",)),
    ]
    assert [r.id for r in select(rules, ["symptom"])] == ["root", "middle", "symptom"]
    assert neighbours(rules[1], rules) == (["symptom"], ["root"])


@pytest.mark.parametrize(
    ("subject", "about", "layer", "explained"),
    [
        ("host", (), Layer.PACKAGING, True),
        ("kernel:6.1", (), Layer.PACKAGING, True),
        ("user:alice", (), Layer.PACKAGING, False),
        ("file:/home/alice/.profile", ("user:alice",), Layer.PACKAGING, False),
        ("python:/home/alice/venv", (), Layer.CUDNN, False),
        ("user:alice", (), Layer.LOGIN, True),
        ("user:alice", (), Layer.ENVIRONMENT, True),
    ],
)
def test_one_persons_fault_breaks_the_machine_only_where_that_is_found(
    facts: Facts, subject: str, about: tuple[str, ...], layer: Layer, explained: bool
) -> None:
    cause = make("cause", subject=subject, about=about, explains=("middle",))
    middle = make("middle", layer=layer, explains=("effect",))
    found = {d.finding.id: d.caused_by for d in diagnose([cause, middle, make("effect")], facts).findings}
    assert found == {"cause": (), "middle": ("cause",), "effect": ("middle", "cause")}
    found = {d.finding.id: d.caused_by for d in diagnose([cause, absent(middle), make("effect")], facts).findings}
    assert found == {"cause": (), "effect": ("cause",) if explained else ()}


def test_severities_and_risks_compare_by_weight_not_as_text() -> None:
    assert Severity.NOTE < Severity.WARNING < Severity.ERROR
    assert max(Severity.WARNING, Severity.NOTE) is Severity.WARNING
    assert Risk.LOW <= Risk.LOW < Risk.MEDIUM < Risk.HIGH
    assert Risk.HIGH >= Risk.MEDIUM > Risk.LOW
    assert {Risk.LOW: "value"}["low"] == "value", "as a document has it"
    assert f"{Risk.LOW}" == "low"
    assert sorted(["low", Risk.HIGH, Risk.MEDIUM], key=Risk) == list(Risk)


def test_a_note_explains_no_error(facts: Facts) -> None:
    rules = [
        make("remark", severity=Severity.NOTE, explains=("broken", "other-remark")),
        make("broken"),
        make("other-remark", severity=Severity.NOTE),
    ]
    causes = {d.finding.id: d.caused_by for d in diagnose(rules, facts).findings}
    assert causes == {"remark": (), "broken": (), "other-remark": ("remark",)}


def test_one_user_explains_nothing_of_another(facts: Facts) -> None:
    rules = [
        make("alice", subject="user:alice", explains=("loop",)),
        make("file", subject="file:/home/bob/.profile", about=("user:bob",), explains=("loop",)),
        make("loop", subject="user:bob"),
    ]
    causes = {d.finding.id: d.caused_by for d in diagnose(rules, facts).findings}
    assert causes["loop"] == ("file",)


def test_a_chain_through_the_host_does_not_join_two_kernels(facts: Facts) -> None:
    rules = [
        make("old", subject="kernel:5", explains=("middle",)),
        make("middle", explains=("new",)),
        make("new", subject="kernel:6"),
    ]
    causes = {d.finding.id: d.caused_by for d in diagnose(rules, facts).findings}
    assert causes["new"] == ("middle",)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("host", "user:a", True),
        ("user:a", "user:b", False),
        ("file:/a", "file:/b", True),
        ("kernel:5", "kernel:5", True),
        ("package:a", "package:b", True),
        ("gpu:0", "python:/x", True),
    ],
)
def test_compatible_subjects(one: str, other: str, expected: bool) -> None:
    def finding(subject: str) -> Finding:
        return Finding("x", subject, Severity.NOTE, Layer.LOGIN, "", ())

    assert compatible(finding(one), finding(other)) is expected


def test_order_is_roots_then_severity_then_stage_then_name(facts: Facts) -> None:
    rules = [
        make("a-later", stage=Stage.ENVIRONMENT, explains=("effect",)),
        make("b-early", stage=Stage.DISK),
        make("a-early", stage=Stage.DISK),
        make("warning", severity=Severity.WARNING, stage=Stage.DISK),
        make("effect", stage=Stage.DISK),
    ]
    assert [d.finding.id for d in diagnose(rules, facts).findings] == [
        "a-early",
        "b-early",
        "a-later",
        "warning",
        "effect",
    ]


def failing(identity: str, action: Callable[[], Iterator[Finding | Unknown]]) -> Rule:
    rule = make(identity)
    rule.detect = action
    return rule


def test_a_rule_that_cannot_look_or_crashes_does_not_stop_the_others(facts: Facts) -> None:
    def crash() -> Iterator[Finding]:
        raise ZeroDivisionError("by zero")

    def blind(odd: Odd) -> Iterator[Finding]:
        raise AssertionError("never called")

    def partly() -> Iterator[Finding | Unknown]:
        yield Finding("partly", "host", Severity.NOTE, Layer.LOGIN, "seen", (Evidence("a", "b"),))
        yield Unknown("half of it was dark")
        yield Unknown("half of it was dark", "user:bob")

    diagnosis = diagnose(
        [failing("crash", crash), failing("blind", blind), failing("partly", partly), make("ok")], facts
    )
    assert [d.finding.id for d in diagnosis.findings] == ["ok", "partly"]
    assert [(f.id, f.error) for f in diagnosis.failed] == [("crash", "ZeroDivisionError: by zero")]
    assert {s.id: s.reason for s in diagnosis.skipped} == {
        "blind": "/odd: a named pipe, not a file",
        "partly": "half of it was dark",
    }
    assert diagnosis.run == 2


def test_a_remedy_that_can_not_be_known_is_none(facts: Facts) -> None:
    rule, crashing = make("a"), make("b")

    def needs_more(finding: Finding, odd: Odd) -> Iterator[Plan]:
        yield Plan("never", Risk.LOW, ())

    def crashes(finding: Finding) -> Iterator[Plan]:
        raise KeyError("gone")

    rule.remedies, crashing.remedies = needs_more, crashes
    diagnosis = diagnose([rule, crashing], facts)
    assert [d.remedy for d in diagnosis.findings] == [None, None]
    assert [f.id for f in diagnosis.failed] == ["b"]


def test_only_brings_what_could_explain() -> None:
    rules = [
        make("root", explains=("middle",)),
        make("middle", explains=("leaf",)),
        make("leaf", layer=Layer.LOGIN),
        make("aside", explains=()),
    ]
    assert [r.id for r in select(rules, ["leaf"])] == ["root", "middle", "leaf"]
    assert [r.id for r in select(rules, ["login"])] == ["root", "middle", "leaf"]
    assert select(rules, []) == rules
    with pytest.raises(KeyError, match="nothing"):
        select(rules, ["leaf", "nothing"])


def test_fingerprint_ignores_the_order_of_evidence_and_the_title() -> None:
    one, two = Evidence("a", "1"), Evidence("b", "2")
    first = Finding("x", "host", Severity.NOTE, Layer.LOGIN, "at noon", (one, two))
    assert first.fingerprint == first._replace(evidence=(two, one), title="at night").fingerprint
    assert first.fingerprint != first._replace(subject="user:bob").fingerprint
    assert first.fingerprint != first._replace(evidence=(one,)).fingerprint


def test_a_rule_that_says_unknown_several_times_is_skipped_with_each_reason_once(facts: Facts) -> None:
    def looks() -> Iterator[Finding | Unknown]:
        yield from (Unknown("no kernel log"), Unknown("no journal"), Unknown("no kernel log"))

    diagnosis = diagnose([failing("half-blind", looks)], facts)
    assert [(s.id, s.reason) for s in diagnosis.skipped] == [("half-blind", "no kernel log; no journal")]
    assert diagnosis.run == 1


def test_what_a_rule_says_in_further_subjects_counts() -> None:
    alice = Finding("a", "host", Severity.ERROR, Layer.LOGIN, "", (), about=("user:alice",))
    bob = Finding("b", "host", Severity.ERROR, Layer.LOGIN, "", (), about=("user:bob",))
    both = Finding("c", "host", Severity.ERROR, Layer.LOGIN, "", (), about=("user:alice", "user:bob"))
    assert not compatible(alice, bob)
    assert compatible(alice, both)
    assert compatible(both, bob)
    for kind in ("gpu", "python", "kernel"):
        one, other = (alice._replace(about=(f"{kind}:{name}",)) for name in "xy")
        assert not compatible(one, other), kind
    one, other = (alice._replace(about=(f"file:{name}",)) for name in "xy")
    assert compatible(one, other)


def test_what_a_rule_prints_or_gives_up_is_no_part_of_the_report(
    facts: Facts, capsys: pytest.CaptureFixture[str]
) -> None:
    def exits() -> Iterator[Finding]:
        print("to standard output")
        raise SystemExit(9)

    strange = failing("strange", lambda: iter(["text"]))  # type: ignore[list-item]
    odd, leaving = make("odd"), make("leaving")
    odd.remedies = lambda finding: [print("plan")]  # type: ignore[method-assign, func-returns-value]
    leaving.remedies = lambda finding: exits()  # type: ignore[method-assign, assignment, return-value]
    diagnosis = diagnose([failing("exits", exits), strange, odd, leaving, make("ok")], facts)
    assert [(f.id, f.error) for f in diagnosis.failed] == [
        ("exits", "SystemExit: 9"),
        ("strange", "TypeError: detect must yield findings, or unknowns"),
        ("leaving", "remedies: SystemExit: 9"),
        ("odd", "remedies: TypeError: remedies must yield plans"),
    ]
    assert capsys.readouterr().out == ""


def test_a_remedy_that_crashes_is_a_defect_of_its_rule(facts: Facts) -> None:
    class Broken(Rule):
        id, layer, stage, severity = "broken", Layer.LOGIN, Stage.ENVIRONMENT, Severity.ERROR

        def detect(self) -> Iterator[Finding]:
            yield self.finding("host", "it is bad")

        def remedies(self, finding: Finding) -> Iterator[Plan]:
            raise ValueError("no such thing")
            yield

    diagnosis = diagnose([Broken()], facts)
    assert [(f.id, f.error) for f in diagnosis.failed] == [("broken", "remedies: ValueError: no such thing")]
    assert diagnosis.findings[0].remedy is None


def test_the_documentation_of_a_rule_is_that_of_its_file() -> None:
    class Documented(Rule):
        pass

    assert Documented().documentation == (__doc__ or "").strip()
    assert (Documented.risk, Documented.explains) == (Risk.LOW, ())


def test_one_fault_of_many_people_costs_no_more_for_each_of_them() -> None:
    class Cause(Rule):
        id, layer, explains = "cause", Layer.LOGIN, ("effect",)

    class Effect(Rule):
        id, layer, explains = "effect", Layer.LOGIN, ()

    rules = {"cause": Cause(), "effect": Effect()}

    def seconds(people: int) -> float:
        found = [
            Finding(fault, f"user:u{n}", Severity.ERROR, Layer.LOGIN, "", ())
            for n in range(people)
            for fault in ("cause", "effect")
        ]
        started = time.process_time()
        assert causes(found, rules) == [(), ("cause",)] * people
        return time.process_time() - started

    assert min(seconds(4000) for _ in range(3)) < 30 * min(seconds(400) for _ in range(3))


def test_what_is_only_coming_explains_nothing() -> None:
    class Cause(Rule):
        id, layer, explains = "cause", Layer.PACKAGING, ("effect",)

    class Effect(Rule):
        id, layer, explains = "effect", Layer.PACKAGING, ()

    rules = {"cause": Cause(), "effect": Effect()}
    found = [Finding(fault, "host", Severity.WARNING, Layer.PACKAGING, "", ()) for fault in ("cause", "effect")]
    assert causes(found, rules) == [(), ("cause",)]
    assert causes([found[0]._replace(coming=True), found[1]], rules) == [(), ()]
