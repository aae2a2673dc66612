"""Problems that a posted error text proves, where the files and outputs beside it do not show them."""

from collections.abc import Collection, Iterator, Mapping

from dlhealth.actions import ByHand
from dlhealth.data.error_texts import problems_of
from dlhealth.data.telling_errors import Proven, proven
from dlhealth.engine.rule import ADVICE, Rule
from dlhealth.host import Host, Post
from dlhealth.model import Evidence, Finding, Plan, Risk, Severity


def reported(host: Host, rules: Mapping[str, Rule], found: Collection[str]) -> Iterator[Finding]:
    """`found` are the ids of the problems that rules found: they are more exact than an error text, and one that can
    print the same text is its cause, unless it is what the text's problem leads to."""
    seen = set(found)
    for post in host.posts:
        for problem in (_refined(problem, host) for problem in proven(post.text)):
            rule = rules.get(problem.fault)
            if problem.needs and host.posted(problem.needs) is None:
                continue
            if rule and seen.isdisjoint({problem.fault, *problems_of(problem.said)} - {*rule.explains}):
                seen.add(problem.fault)
                yield _finding(rule, problem, post)


def _refined(problem: Proven, host: Host) -> Proven:
    """With what other outputs show: the toolkit of the machine helps only a Docker that uses it."""
    docker = host.posted("docker info")
    if problem.fault != "docker-nvidia-runtime-not-configured" or docker is None:
        return problem
    title = f"Docker is {docker}, which does not use this machine's NVIDIA container toolkit"
    repair = (
        "use Docker Engine (docker.io or docker-ce): save the images you need first, and run docker context use default"
    )
    if docker.endswith("Windows"):
        title = "Docker Desktop on Windows gives containers no GPU without WSL2 and NVIDIA's driver for Windows"
        repair = (
            "update NVIDIA's driver in Windows, run wsl --update, and enable the WSL 2 based engine of Docker Desktop"
        )
    return problem._replace(fault="docker-snap-or-desktop", title=title, repair=repair)


def _finding(rule: Rule, problem: Proven, post: Post) -> Finding:
    """At least a warning: a program does not do what its owner wants."""
    plan = Plan(problem.repair, Risk.LOW, (ByHand(problem.repair),))
    shows = Evidence(post.source, problem.said)
    finding = rule.finding("host", problem.title, shows, severity=max(rule.severity, Severity.WARNING))
    return finding._replace(detail={ADVICE: plan})
