"""Runs rules over facts and orders their findings by cause."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import cast

from dlhealth.engine.causes import causes
from dlhealth.engine.choose import Limits, Offer, offer_for
from dlhealth.engine.facts import Facts, Options
from dlhealth.engine.machine import describe_machine
from dlhealth.engine.rule import ADVICE, Rule
from dlhealth.host import Host, Post, PostedSymptom
from dlhealth.model import Area, Diagnosed, Diagnosis, Failed, Finding, Since, Skipped, State, Unknown
from dlhealth.probes import Unavailable
from dlhealth.probes.machine.platform import DPKG_STATUS, Platform


def diagnose(
    rules: Sequence[Rule],
    facts: Facts,
    *,
    failed: Sequence[Failed] = (),
    extra: Sequence[Finding] = (),
    whole: bool = False,
) -> Diagnosis:
    """Run every rule once. A rule that cannot run is skipped, and one that crashes is listed as failed; the others
    still run. `whole`: these are all rules, so say also what was seen of each area."""
    findings, skipped, failures = list(extra), [], list(failed)
    run = 0
    for rule in rules:
        results: list[Finding | Unknown] = []
        try:
            with redirect_stdout(sys.stderr):  # the output of a rule must not become part of a report
                results.extend(facts.call(rule.detect))
            if not all(isinstance(result, (Finding, Unknown)) for result in results):
                raise TypeError("detect must yield findings, or unknowns")
        except Unavailable as problem:
            # What it found before stays true.
            findings += [r for r in results if isinstance(r, Finding)]
            skipped.append(Skipped(rule.id, str(problem)))
            continue
        except (Exception, SystemExit) as error:  # a rule's defect must not hide the findings of others
            failures.append(Failed(rule.id, f"{type(error).__name__}: {error}"))
            continue
        run += 1
        findings += [r for r in results if isinstance(r, Finding)]
        unknown = tuple(dict.fromkeys(r for r in results if isinstance(r, Unknown)))
        if unknown:
            skipped.append(Skipped(rule.id, "; ".join(dict.fromkeys(u.reason for u in unknown)), unknown))
    by_id = {rule.id: rule for rule in rules}
    host: Host = facts.get(Host)
    if host.posts:
        from dlhealth.engine.reported import reported  # only posted texts need it

        findings += reported(host, by_id, {f.id for f in findings})
    ordered = order(findings, by_id, lambda rule, finding: _offer(rule, finding, facts, failures))
    found = tuple(_cited(d, host) for d in ordered)
    areas = tuple(_areas(facts)) if whole else ()
    diagnosis = Diagnosis(
        found, run, tuple(skipped), tuple(failures), describe_machine(facts), _unjudged(facts), areas, _next_boot(facts)
    )
    return diagnosis._replace(since=_since(facts)) if whole and diagnosis.root_causes else diagnosis


def _since(facts: Facts) -> Since | None:
    from dlhealth.engine.baseline import since_good  # only a broken machine needs it

    return since_good(facts)


def _areas(facts: Facts) -> Iterator[Area]:
    if _next_boot(facts):
        from dlhealth.judgements.nextboot import AREAS
    else:
        from dlhealth.judgements.wellness import AREAS
    for name, (layers, judge) in AREAS.items():
        try:
            found = list(facts.call(judge))
        except Unavailable as problem:
            found = [Area(name, State.UNKNOWN, f"not checked: {problem}")]
        except Exception as error:  # a defect must not hide the other areas
            found = [Area(name, State.UNKNOWN, f"not checked: {type(error).__name__}")]
        yield from (area._replace(layers=layers) for area in found)


def _next_boot(facts: Facts) -> bool:
    return cast(Options, facts.get(Options)).next_boot


def _unjudged(facts: Facts) -> str | None:
    """Why no finding does not mean a healthy machine; None if it does."""
    host = cast(Host, facts.get(Host))
    if host.symptoms:
        return _unexplained(host.symptoms[0], host.posts)
    if doubt := next(filter(None, map(_unclear, host.posts)), None):
        return doubt
    try:
        unsupported = cast(Platform, facts.get(Platform)).unsupported
    except Unavailable as problem:
        return f"which system this is could not be checked ({problem})"
    if unsupported is None and host.is_partial(DPKG_STATUS):
        return "only a part of the package list was posted"
    return unsupported


def _unexplained(said: PostedSymptom, posts: Sequence[Post]) -> str:
    """That the cause of an error is not known, and where its possible causes are explained."""
    whole = next((post.errors for post in posts if post.source == said.source), "")
    return f"what was posted does not show why {said.symptom.value}{_likely(said.text) or _likely(whole)}"


def _unclear(post: Post) -> str:
    """The same for an error that has several known causes; "" if the text has none."""
    likely = _likely(post.errors)
    return f"what was posted does not show the cause of the error in {post.source}{likely}" if likely else ""


def _likely(text: str) -> str:
    from dlhealth.data.error_texts import problems_of

    possible = problems_of(text)
    others = f", then {', '.join(possible[1:4])}" if possible[1:] else ""
    return f"; most probable: {possible[0]}{others} (see dlhealth explain)" if possible else ""


def _cited(found: Diagnosed, host: Host) -> Diagnosed:
    """With evidence that names the files that people have."""
    evidence = tuple(e._replace(source=host.cited(e.source)) for e in found.finding.evidence)
    return found._replace(finding=found.finding._replace(evidence=evidence))


def _offer(rule: Rule, finding: Finding, facts: Facts, failures: list[Failed]) -> Offer:
    """What `fix` would do about a root cause; no plan if a fact that the rule needs is unavailable."""
    if ADVICE in finding.detail:
        return Offer(finding.detail[ADVICE])
    try:
        return offer_for(rule, finding, facts, Limits(live=facts.get(Host).live))
    except Unavailable as problem:
        return Offer(None, str(problem))
    except (Exception, SystemExit) as error:
        failures.append(Failed(rule.id, f"remedies: {type(error).__name__}: {error}"))
        return Offer(None)


def order(
    findings: Sequence[Finding], rules: Mapping[str, Rule], offer: Callable[[Rule, Finding], Offer]
) -> list[Diagnosed]:
    """Root causes first; each group by severity, then in the order of repair."""
    explained = causes(findings, rules)

    def rank(number: int) -> tuple[bool, int, int, str, str]:
        finding = findings[number]
        rule = rules.get(finding.id)
        stage = rule.stage if rule else 0
        return bool(explained[number]), -finding.severity.rank, stage, finding.id, finding.subject

    result = []
    for number in sorted(range(len(findings)), key=rank):
        finding, rule = findings[number], rules.get(findings[number].id)
        made = Offer(None) if explained[number] or rule is None else offer(rule, finding)
        result.append(Diagnosed(finding, explained[number], made.plan, made.reason))
    return result
