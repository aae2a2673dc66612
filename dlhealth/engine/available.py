"""Whether apt can install what a plan names, according to its package lists. It is checked before a plan is offered,
without network."""

import re
from collections.abc import Iterator, Mapping, Sequence

from dlhealth.actions import AptInstall
from dlhealth.engine.facts import Facts
from dlhealth.host import Host, Unreadable
from dlhealth.lazy import fits, regex
from dlhealth.model import Plan
from dlhealth.probes import Unavailable
from dlhealth.probes.packaging.packages import Packages, debian_order
from dlhealth.records import NamedTuple

LISTS = "/var/lib/apt/lists"
_INDEX = regex(r".*_Packages(?:\.(?:lz4|gz|xz|bz2|zst))?")
_CLAUSE = regex(
    r"\s*(?P<name>[a-z0-9][a-z0-9+.-]*)(?::\w+)?\s*(?:\((?P<relation><<|<=|=|>=|>>)\s*(?P<version>[^)\s]+)\s*\))?"
)
_DEPTH = 6
"""How many levels of dependencies are followed. Those of the driver's metapackages are five deep."""


_Constraint = tuple[str, str]
"""Relation and version: (">=", "1.0"); two empty texts for any version."""


class Candidate(NamedTuple):
    """One version of a package in apt's lists, with its dependencies as they are written there."""

    version: str
    depends: str


class AptLists:
    """apt's lists on one machine. An offer is searched when it is first needed."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[str, tuple[Candidate, ...]] = {}
        self.complete = True
        """Whether every list could be read."""
        self.paths = [f"{LISTS}/{name}" for name in host.listdir(LISTS) if _INDEX.fullmatch(name)]
        self.there = host.exists(LISTS)

    def offers(self, names: Sequence[str]) -> dict[str, tuple[Candidate, ...]]:
        """Every version of these packages."""
        asked = tuple(sorted(set(names) - self._known.keys()))
        if asked:
            self._known.update(dict.fromkeys(asked, ()))
            for path in self.paths:
                try:
                    found = self._host.offers(path, asked) or {}
                except Unreadable:
                    self.complete = False
                    continue
                for name, text in found.items():
                    self._known[name] += tuple(map(_offer, text.split("\n\n")))
        return {name: self._known[name] for name in names}


def not_available(plan: Plan, facts: Facts) -> str:
    """Why apt cannot install what a plan names; "" if it can, or if that is unknown."""
    installs = [a for a in plan.actions if isinstance(a, AptInstall)]
    if not installs:
        return ""
    try:
        lists, packages = AptLists(facts.get(Host)), facts.get(Packages)
    except (Unreadable, Unavailable):
        return ""
    if not lists.there:
        return ""
    if not lists.paths:
        return "apt has no package lists: run apt-get update, then dlhealth fix again"
    leaving = {name for install in installs for name in install.remove}
    search = _Search(lists, packages, leaving)
    problems = [p for install in installs for p in search.problems(install)]
    return problems[0] if problems and lists.complete else ""


class _Search:
    def __init__(self, lists: AptLists, packages: Packages, leaving: set[str]) -> None:
        self._lists = lists
        self._packages = packages
        self._leaving = leaving
        self._seen: set[str] = set()

    def problems(self, install: AptInstall) -> Iterator[str]:
        """What prevents apt from installing it."""
        # A package of another architecture is in another list.
        asked = [name.partition("=") for name in install.packages if ":" not in name.partition("=")[0]]
        offers = self._lists.offers([name for name, _, _ in asked])
        self._look_ahead(offers)
        lacking = []
        for name, _, version in asked:
            here = self._packages.get(name)
            if here and here.state == "installed" and not install.reinstall and version in ("", here.version):
                continue
            fitting = [o for o in offers[name] if not version or fits(o.version, version)]
            if not fitting:
                lacking.append(f"{name}={version}" if version else name)
                continue
            yield from self._unmet(name, max(fitting, key=lambda o: debian_order(o.version)), _DEPTH)
        if lacking:
            yield f"no configured package source has {' '.join(lacking)}"

    def _look_ahead(self, offers: Mapping[str, tuple[Candidate, ...]]) -> None:
        """Find all packages that these need, and the packages that those need: each search reads all lists."""
        for _ in range(_DEPTH):
            needs = [_needs(o.depends) for each in offers.values() for o in each]
            names = {name for each in needs for name, constraints in each.items() if not self._here(name, constraints)}
            offers = self._lists.offers(sorted(names))

    def _here(self, name: str, constraints: Sequence[_Constraint]) -> bool:
        package = self._packages.get(name)
        stays = package is not None and package.unpacked and name not in self._leaving
        return stays and package is not None and _meets(package.version, constraints)

    def _unmet(self, name: str, offer: Candidate, depth: int) -> Iterator[str]:
        if name in self._seen or depth == 0:
            return
        self._seen.add(name)
        for needed, constraints in _needs(offer.depends).items():
            if self._here(needed, constraints):
                continue
            fitting = [o for o in self._lists.offers([needed])[needed] if _meets(o.version, constraints)]
            if fitting:
                yield from self._unmet(needed, max(fitting, key=lambda o: debian_order(o.version)), depth - 1)
            elif not self._provided(needed):
                said = ", ".join(f"{needed} ({r} {v})" if r else needed for r, v in constraints)
                yield f"{name} {offer.version} cannot be installed: no configured package source has {said}"

    def _provided(self, name: str) -> bool:
        return any(
            p.unpacked and re.search(rf"(?:^|[ ,]){re.escape(name)}(?:$|[ ,(])", p.provides)
            for p in self._packages.all()
        )


def _needs(depends: str) -> dict[str, list[_Constraint]]:
    """The required packages of the driver, or kernels, that have no alternative, with all conditions on their versions.
    dlhealth does not know which other packages are installed."""
    needs: dict[str, list[_Constraint]] = {}
    for clause in filter(None, depends.split(",")):
        found = _CLAUSE.fullmatch(clause.rstrip()) if "|" not in clause else None
        if (
            found
            and re.match(r"(?:lib)?nvidia-|libcuda|linux-(?:modules|objects|headers|image)-", found["name"])
            and "--v" not in found["name"]
        ):
            needs.setdefault(found["name"], []).append((found["relation"] or "", found["version"] or ""))
    return needs


def _meets(version: str, constraints: Sequence[_Constraint]) -> bool:
    own = debian_order(version)
    for relation, wanted in constraints:
        other = debian_order(wanted) if relation else own
        fine = {
            "<<": own < other, "<=": own <= other, "=": own == other, ">=": own >= other, ">>": own > other,
        }.get(relation, True)  # fmt: skip
        if not fine:
            return False
    return True


def _offer(text: str) -> Candidate:
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    depends = ", ".join(filter(None, (fields.get("Pre-Depends"), fields.get("Depends"))))
    return Candidate(fields.get("Version", ""), depends)
