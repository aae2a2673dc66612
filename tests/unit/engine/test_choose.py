"""Which plan is offered for a finding, which plans go together, and what a person is told instead."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dlhealth.actions import (
    AptInstall,
    ByHand,
    DkmsBuild,
    EditFile,
    LoadModules,
    MoveAside,
    PipInstall,
    Reboot,
    RefreshLoaderCache,
    RefreshModuleIndex,
    ReloadModules,
    UpdateInitramfs,
    WriteFile,
)
from dlhealth.engine.choose import Chosen, Left, Limits, Offer, Repair, choose, merge, offer_for
from dlhealth.engine.diagnose import diagnose
from dlhealth.engine.facts import Facts
from dlhealth.engine.rule import Rule
from dlhealth.host.base import Host
from dlhealth.host.root import RootHost
from dlhealth.model import Action, Diagnosis, Evidence, Finding, Layer, Plan, Risk, Severity, Stage
from dlhealth.probes import Options, Unavailable
from dlhealth.testing import Machine

OLD, SID, LATER = "6.1.0-50-amd64", "7.2.13+deb14-amd64", "6.1.0-51-amd64"
LIST = "/var/lib/apt/lists/deb.debian.org_debian_dists_bookworm_main_binary-amd64_Packages"


class Fixed(Rule):
    """A rule that always finds the same, with the same plans."""

    severity, layer, stage = Severity.ERROR, Layer.KERNEL_MODULE, Stage.MODULE

    def __init__(self, *ladder: Plan, subject: str = "host", identity: str = "fixed") -> None:
        self.id, self._ladder, self._subject = identity, ladder, subject

    def detect(self, host: Host) -> Iterator[Finding]:
        yield self.finding(self._subject, f"{self.id} is bad", Evidence("/etc/x", "bad"))

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        yield from self._ladder


def plan(
    *actions: Action, summary: str = "do it", risk: Risk = Risk.LOW, reboot: bool = False, network: bool = False
) -> Plan:
    return Plan(summary, risk, actions, reboot=reboot, network=network)


def facts_of(machine: Machine, folder: Path) -> Facts:
    return Facts(RootHost(str(machine.build(folder))), Options())


def offered(rule: Rule, facts: Facts, limits: Limits | None = None) -> Offer:
    (finding,) = (f for f in facts.call(rule.detect) if isinstance(f, Finding))
    return offer_for(rule, finding, facts, limits or Limits())


def chosen(facts: Facts, *rules: Rule, limits: Limits | None = None) -> Repair:
    by_id = {rule.id: rule for rule in rules}
    findings: Diagnosis = diagnose(list(rules), facts)
    return choose(findings, by_id, facts, limits or Limits())


def two_kernels() -> Machine:
    """The driver is built for the old kernel. Its package is known not to build for the new one."""
    return (
        Machine.debian12().kernel(SID, running=False, compiler="gcc-16 (Debian 16.1.0-2) 16.1.0").gpu().debian_driver()
    )


def build(kernel: str = SID, network: bool = False) -> Plan:
    return plan(
        DkmsBuild("nvidia-current", "535.261.03", kernel), LoadModules(("nvidia",)), summary="build", network=network
    )


class TestKnownBuildFailure:
    """A build that is known to fail is not offered."""

    def test_the_next_plan_is(self, tmp_path: Path) -> None:
        newer = plan(WriteFile("/etc/x", "x"), summary="newer")
        rule = Fixed(build(), newer, subject=f"kernel:{SID}")
        assert offered(rule, facts_of(two_kernels(), tmp_path)) == Offer(newer)

    @pytest.mark.parametrize("network", [True, False])
    def test_alone_it_is_left_with_the_reason_and_the_kernel_that_works(self, network: bool, tmp_path: Path) -> None:
        rule = Fixed(build(network=network), subject=f"kernel:{SID}")
        offer = offered(rule, facts_of(two_kernels(), tmp_path))
        assert offer.reason.startswith(f"nvidia-current 535.261.03 does not build for kernel {SID} (seen on ")
        assert offer.plan == plan(
            ByHand(f"start kernel {OLD} from the boot menu (Advanced options): it has its NVIDIA module"),
            ByHand(f"first solve this, then run dlhealth fix: {offer.reason}"),
            summary="build",
            reboot=True,
            network=network,
        )

    def test_without_a_kernel_that_works_no_restart_is_advised(self, tmp_path: Path) -> None:
        machine = Machine.debian12().kernel(SID, running=False).gpu(driver="").debian_driver(kernels=(), loaded=False)
        offer = offered(Fixed(build(), subject=f"kernel:{SID}"), facts_of(machine, tmp_path))
        assert offer.plan
        assert not offer.plan.reboot
        assert [type(a) for a in offer.plan.actions] == [ByHand]
        assert offer.plan.actions[0].summary().startswith("first solve this, then run dlhealth fix: nvidia-current 535")

    def test_for_another_kernel_it_is_offered(self, tmp_path: Path) -> None:
        assert offered(Fixed(build(OLD)), facts_of(two_kernels(), tmp_path)) == Offer(build(OLD))

    def test_another_revision_of_the_package_may_build(self, tmp_path: Path) -> None:
        machine = two_kernels().package("nvidia-kernel-dkms", "535.261.03-1mine1")
        assert offered(Fixed(build()), facts_of(machine, tmp_path)) == Offer(build())

    def test_a_plan_for_a_person_is_told_before_a_hopeless_one(self, tmp_path: Path) -> None:
        advice = plan(ByHand("install a newer driver first"), summary="advice")
        offer = offered(Fixed(build(), advice), facts_of(two_kernels(), tmp_path))
        assert offer.plan == advice
        assert offer.reason.startswith("nvidia-current 535.261.03 does not build")


class TestOlderKernelFirst:
    """An installed kernel that has its module is the quickest way out, where only a person can repair another kernel."""

    ADVICE = plan(ByHand("install a newer driver"), summary="advice")

    @staticmethod
    def start(release: str) -> ByHand:
        return ByHand(f"start kernel {release} from the boot menu (Advanced options): it has its NVIDIA module")

    def told(
        self, machine: Machine, folder: Path, advice: Plan = ADVICE, subject: str = f"kernel:{SID}"
    ) -> list[Action]:
        offer = offered(Fixed(advice, subject=subject), facts_of(machine, folder))
        assert offer.reason == "it has steps that only a person can do"
        assert offer.plan
        return list(offer.plan.actions)

    def test_it_is_named_first(self, tmp_path: Path) -> None:
        assert self.told(two_kernels(), tmp_path) == [self.start(OLD), *self.ADVICE.actions]

    def test_of_several_the_newest_is_named(self, tmp_path: Path) -> None:
        machine = Machine.debian12().kernel(LATER, running=False).kernel(SID, running=False).gpu()
        machine.debian_driver(kernels=(OLD, LATER))
        assert self.told(machine, tmp_path) == [self.start(LATER), *self.ADVICE.actions]

    @pytest.mark.parametrize(
        "machine",
        [
            two_kernels().remove(f"/boot/vmlinuz-{OLD}"),
            Machine.debian12().kernel(SID, running=False).gpu(driver="").debian_driver(kernels=(), loaded=False),
            two_kernels().nvidia_module(
                OLD, "535.261.03", name="nvidia-current.ko", place="updates/dkms", vermagic="9"
            ),
        ],
        ids=["without its image", "without its module", "with a module of another kernel"],
    )
    def test_a_kernel_that_would_not_help_is_not_named(self, machine: Machine, tmp_path: Path) -> None:
        assert self.told(machine, tmp_path) == list(self.ADVICE.actions)

    def test_not_the_kernel_that_is_broken(self, tmp_path: Path) -> None:
        assert self.told(two_kernels(), tmp_path, subject=f"kernel:{OLD}") == list(self.ADVICE.actions)

    @pytest.mark.parametrize("subject", ["host", f"file:{SID}"])
    def test_not_for_a_problem_of_something_else(self, subject: str, tmp_path: Path) -> None:
        assert self.told(two_kernels(), tmp_path, subject=subject) == list(self.ADVICE.actions)

    def test_advice_that_names_it_needs_no_second_time(self, tmp_path: Path) -> None:
        advice = plan(ByHand(f"boot kernel {OLD}"), summary="advice")
        assert self.told(two_kernels(), tmp_path, advice) == list(advice.actions)


NAMES = ("libcuda.so.1", "libnvidia-ml.so.1")


class TestOffer:
    def test_the_mildest_that_can_be_done_wins(self, tmp_path: Path) -> None:
        facts = facts_of(Machine.debian12_gpu(), tmp_path)
        by_hand = plan(ByHand("ask the owner of it"), summary="a")
        fetch = plan(AptInstall(("x",)), summary="b", network=True)
        write = plan(WriteFile("/etc/x", "x"), summary="c", risk=Risk.MEDIUM)
        drastic = plan(MoveAside("/etc/x"), summary="d", risk=Risk.HIGH)
        rule = Fixed(by_hand, fetch, write, drastic)
        assert offered(rule, facts) == Offer(fetch)
        assert offered(rule, facts, Limits(offline=True)) == Offer(write)
        assert offered(rule, facts, Limits(Risk.LOW, offline=True)) == Offer(
            by_hand, "it has steps that only a person can do"
        )
        assert offered(Fixed(drastic), facts) == Offer(drastic, "its risk is high; to allow it: --max-risk high")
        assert offered(Fixed(drastic), facts, Limits(Risk.HIGH)) == Offer(drastic)
        assert offered(Fixed(fetch), facts, Limits(offline=True)) == Offer(fetch, "it needs the network")
        assert offered(Fixed(), facts) == Offer(None, "dlhealth has no repair for this")

    def test_a_package_that_no_source_has_is_not_offered(self, tmp_path: Path) -> None:
        machine = Machine.debian12_gpu().file(LIST, "Package: bash\nArchitecture: amd64\nVersion: 5.2\n\n")
        fetch = plan(AptInstall(("x",)), network=True)
        offer = offered(Fixed(fetch), facts_of(machine, tmp_path))
        assert offer.reason == "no configured package source has x"
        assert offer.plan == plan(
            ByHand("first solve this, then run dlhealth fix: no configured package source has x"), network=True
        )

    def test_what_could_not_begin_is_refused_without_a_more_drastic_plan(self, tmp_path: Path) -> None:
        facts = facts_of(Machine.debian12_gpu(), tmp_path)
        first, second = plan(AptInstall(("x",)), summary="a", network=True), plan(WriteFile("/etc/x", "x"), summary="b")
        rule = Fixed(first, second)
        (finding,) = (f for f in facts.call(rule.detect) if isinstance(f, Finding))
        refused = Limits(refused={finding.fingerprint: "apt is busy"})
        assert offered(rule, facts, refused) == Offer(first, "apt is busy")
        assert offered(Fixed(), facts, refused) == Offer(None, "apt is busy")
        assert offered(rule, facts, Limits(refused={"another": "apt is busy"})) == Offer(first)

    def test_the_owners_command_is_the_repair(self, tmp_path: Path) -> None:
        """What would change the whole system instead is not tried."""
        pip = plan(PipInstall("/home/alice/venv/bin/python", ("x",)), summary="a", network=True)
        system = plan(AptInstall(("x",)), summary="b", network=True)
        facts = facts_of(Machine.debian12_gpu(), tmp_path)
        why = "only its owner may change a Python environment: run this as that user, without sudo"
        assert offered(Fixed(pip, system), facts) == Offer(pip, why)
        # A later command of the owner ends the search too, but the first plan is told.
        advice = plan(ByHand("ask the owner of it"), summary="c")
        assert offered(Fixed(advice, pip, system), facts) == Offer(advice, "it has steps that only a person can do")

    def test_a_plan_that_did_not_help_is_followed_by_the_next(self, tmp_path: Path) -> None:
        facts = facts_of(Machine.debian12_gpu(), tmp_path)
        first, second = plan(WriteFile("/etc/x", "x"), summary="a"), plan(WriteFile("/etc/y", "y"), summary="b")
        rule = Fixed(first, second)
        (finding,) = (f for f in facts.call(rule.detect) if isinstance(f, Finding))
        before = frozenset({(finding.fingerprint, "a")})
        assert offered(rule, facts, Limits(tried=before)) == Offer(second)
        assert offered(rule, facts, Limits(given_up=before)) == Offer(second)
        assert offered(rule, facts, Limits(tried=before, wanted=frozenset({"fixed"}))) == Offer(first)
        assert offered(rule, facts, Limits(given_up=before, wanted=frozenset({"fixed"}))) == Offer(second)
        both = before | {(finding.fingerprint, "b")}
        assert offered(rule, facts, Limits(tried=both)).reason == (
            "the same repair did not help before; to try it again: dlhealth fix fixed"
        )
        assert offered(rule, facts, Limits(given_up=both)).reason == "its repair did not help and was undone"


class TestAnotherDisk:
    """On a disk that does not run, nothing is loaded, and its next start counts as the reboot."""

    @pytest.mark.parametrize("step", [LoadModules(("nvidia",)), ReloadModules(("nvidia",)), Reboot()])
    def test_steps_of_a_running_machine_are_left_out(self, step: Action, tmp_path: Path) -> None:
        write = WriteFile("/etc/x", "x")
        facts = facts_of(Machine.debian12_gpu(), tmp_path)
        rule = Fixed(plan(write, step))
        assert offered(rule, facts) == Offer(plan(write, step))
        assert offered(rule, facts, Limits(live=False)) == Offer(plan(write, reboot=True))
        assert offered(Fixed(plan(write)), facts, Limits(live=False)) == Offer(plan(write))
        assert offered(Fixed(plan(write, reboot=True)), facts, Limits(live=False)) == Offer(plan(write, reboot=True))
        only = offered(Fixed(plan(step)), facts, Limits(live=False))
        assert only.reason == "this works only on the running machine: start it, then run dlhealth fix there"

    def test_it_needs_no_reboot_itself(self, tmp_path: Path) -> None:
        facts = facts_of(Machine.debian12_gpu(), tmp_path)
        rule = Fixed(plan(WriteFile("/etc/x", "x"), Reboot(), reboot=True, network=True, risk=Risk.MEDIUM))
        live, disk = chosen(facts, rule), chosen(facts, rule, limits=Limits(live=False))
        assert [(r.live, r.reboot, r.network, r.risk) for r in (live, disk)] == [
            (True, True, True, Risk.MEDIUM),
            (False, False, True, Risk.MEDIUM),
        ]
        assert live.actions == disk.actions == (WriteFile("/etc/x", "x"),)

    def test_a_person_is_not_told_to_reboot_the_rescuing_machine(self, tmp_path: Path) -> None:
        facts = facts_of(Machine.ubuntu2404_gpu(), tmp_path)
        steps = plan(MoveAside("/etc/x"), Reboot(), risk=Risk.HIGH, reboot=True)
        offer = offered(Fixed(steps), facts, Limits(live=False))
        assert offer.reason == "its risk is high; to allow it: --max-risk high"
        assert offer.plan is not None
        assert offer.plan.actions == (MoveAside("/etc/x"),)
        alone = offered(Fixed(plan(LoadModules(("nvidia",)))), facts, Limits(live=False))
        assert alone.plan is not None
        assert alone.plan.actions == (LoadModules(("nvidia",)),)


class TestTogether:
    @pytest.mark.parametrize("name", NAMES)
    def test_no_two_plans_may_take_the_last_library_of_the_driver(self, name: str, tmp_path: Path) -> None:
        """Each alone leaves the other copy."""
        machine = Machine.ubuntu2404_gpu().library(f"/usr/local/lib/{name}", name)
        machine.file("/etc/ld.so.conf.d/local.conf", "/usr/local/lib\n")
        places = (f"/usr/local/lib/{name}", f"/usr/lib/x86_64-linux-gnu/{name}")
        rules = [Fixed(plan(MoveAside(p), summary=p), identity=f"rule-{n}") for n, p in enumerate(places)]
        repair = chosen(facts_of(machine, tmp_path), *rules)
        assert [c.finding.id for c in repair.chosen] == ["rule-0"]
        (left,) = repair.left
        assert left == Left(
            left.finding,
            f"together with the other repairs it would leave no usable {name}",
            (MoveAside(places[1]),),
        )

    def test_a_library_that_stays_lets_both_go(self, tmp_path: Path) -> None:
        rules = [Fixed(plan(MoveAside(f"/etc/{n}"), summary=str(n)), identity=f"rule-{n}") for n in range(2)]
        assert len(chosen(facts_of(Machine.ubuntu2404_gpu(), tmp_path), *rules).chosen) == 2

    def test_two_plans_for_one_path_go_one_after_the_other(self, tmp_path: Path) -> None:
        one, other = (
            Fixed(plan(WriteFile("/etc/x", "1")), identity="a"),
            Fixed(plan(WriteFile("/etc/x", "2")), identity="b"),
        )
        facts = facts_of(Machine.debian12_gpu(), tmp_path)
        repair = chosen(facts, one, other)
        assert [c.finding.id for c in repair.chosen] == ["a"]
        assert [(x.finding.id, x.reason, x.by_hand) for x in repair.left] == [
            ("b", "another repair changes the same file: run dlhealth fix again", ())
        ]
        same = Fixed(plan(WriteFile("/etc/x", "1"), summary="again"), identity="b")
        assert [c.finding.id for c in chosen(facts, one, same).chosen] == ["a", "b"]

    def test_a_third_plan_must_agree_with_both(self, tmp_path: Path) -> None:
        first = Fixed(plan(EditFile("/etc/x", ((1, "a", "b"),))), identity="a")
        second = Fixed(plan(EditFile("/etc/x", ((2, "a", "b"),))), identity="b")
        third = Fixed(plan(EditFile("/etc/x", ((2, "a", "c"),))), identity="c")
        repair = chosen(facts_of(Machine.debian12_gpu().file("/etc/x", "a\na\n"), tmp_path), first, second, third)
        assert [c.finding.id for c in repair.chosen] == ["a", "b"]

    def test_steps_that_use_the_results_of_others_come_last(self) -> None:
        """The image of a kernel contains what the index names."""
        one = plan(UpdateInitramfs("a"), RefreshModuleIndex("a"), RefreshLoaderCache(), WriteFile("/x", "x"), Reboot())
        two = plan(WriteFile("/y", "y"), RefreshLoaderCache(), WriteFile("/x", "x"))
        assert merge([one, two]) == (
            WriteFile("/x", "x"),
            WriteFile("/y", "y"),
            RefreshLoaderCache(),
            RefreshModuleIndex("a"),
            UpdateInitramfs("a"),
        )

    def test_edits_of_one_file_become_one(self) -> None:
        one = plan(EditFile("/x", ((1, "a", "b"),)), EditFile("/z", ((1, "a", "b"),)))
        two = plan(EditFile("/x", ((3, "a", None), (1, "a", "b"))))
        assert merge([one, two]) == (
            EditFile("/x", ((1, "a", "b"), (3, "a", None))),
            EditFile("/z", ((1, "a", "b"),)),
        )


def _unavailable(finding: Finding) -> Iterator[Plan]:
    raise Unavailable("no record of packages")


def _ends(finding: Finding) -> Iterator[Plan]:
    raise SystemExit("3")


@pytest.mark.parametrize(
    ("remedies", "reason"),
    [
        (_unavailable, "no record of packages"),
        (_ends, "the rule blind has a defect: remedies: SystemExit: 3"),
    ],
)
def test_a_rule_that_gives_no_plan_keeps_no_other_from_its_repair(
    remedies: Callable[[Finding], Iterator[Plan]], reason: str, tmp_path: Path
) -> None:
    blind, good = Fixed(identity="blind"), Fixed(plan(WriteFile("/etc/x", "x")))
    blind.remedies = remedies  # type: ignore[method-assign]
    repair = chosen(facts_of(Machine.debian12_gpu(), tmp_path), blind, good)
    assert [(x.finding.id, x.reason, x.by_hand) for x in repair.left] == [("blind", reason, ())]
    assert repair.chosen == (Chosen(repair.chosen[0].finding, plan(WriteFile("/etc/x", "x"))),)


def test_the_steps_for_a_person_go_with_the_reason(tmp_path: Path) -> None:
    repair = chosen(facts_of(Machine.debian12_gpu(), tmp_path), Fixed(plan(ByHand("ask the owner of it"))))
    (left,) = repair.left
    assert left == Left(left.finding, "it has steps that only a person can do", (ByHand("ask the owner of it"),))
