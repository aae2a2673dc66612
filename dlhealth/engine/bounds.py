"""Limits of every plan, whichever rule offers it."""

from collections.abc import Iterable, Sequence

from dlhealth.actions import (
    AptInstall,
    AptPurgeReinstall,
    ByHand,
    DkmsBuild,
    EditFile,
    LoadModules,
    MakeLink,
    MoveAside,
    PipInstall,
    Reboot,
    RefreshModuleIndex,
    ReloadModules,
    UpdateInitramfs,
    changed_path,
)
from dlhealth.lazy import regex
from dlhealth.model import Action, Plan
from dlhealth.probes.driver.libraries import DriverLibraries
from dlhealth.probes.login.users import Users
from dlhealth.probes.machine.platform import Family, Platform

_OF_THE_DRIVER = ("libcuda.so.1", "libnvidia-ml.so.1")
"""Without these, no program can use a GPU."""
_OF_A_KERNEL = (RefreshModuleIndex, UpdateInitramfs, Reboot)
"""Steps that finish other steps, for a kernel that this system installed. Elsewhere there is nothing to finish."""
_OF_A_DRIVER = regex(r"(lib)?nvidia(?!-(container|cuda-|cudnn))|cuda-drivers|cuda(-\d|$)")
"""Packages that are part of a driver, or bring one."""
_OF_DEBIAN = regex(r"\b(apt|apt-get|apt-mark|apt-cache|dpkg|dpkg-\w+|ubuntu-drivers|update-(initramfs|grub|glx))\b")
"""Programs that only Debian, Ubuntu and their kin have."""
_JETSON_WHEELS = "the builds that NVIDIA offers for this version of JetPack (https://pypi.jetson-ai-lab.io)"


class Bounds:
    """The limits that a machine sets for every plan. If a fact could not be checked, the narrowest limits hold."""

    def __init__(self, platform: Platform | None, users: Users | None, libraries: DriverLibraries | None) -> None:
        self._unmanaged = _unmanaged(platform)
        self._foreign = platform is not None and platform.family not in (None, Family.DEBIAN)
        self._platform = platform
        self._homes = tuple(f"{a.home.rstrip('/')}/." for a in users.people) if users else ()
        self._libraries = libraries

    @classmethod
    def probe(cls, platform: Platform | None, users: Users | None, libraries: DriverLibraries | None) -> "Bounds":
        return cls(platform, users, libraries)

    def within(self, plan: Plan, *, wheels: bool = False) -> Plan:
        """The plan, or a plan for a person if dlhealth must not run it: it would change files that an unknown package
        manager may own, change a driver that another system provides, or remove the last libraries of a driver.
        `wheels` means that it downloads Python packages for the GPUs of PCs."""
        if self._platform and not self._platform.own_kernel:
            plan = _without_kernel(plan)
        if wheels and self._platform and self._platform.tegra and _downloads_wheels(plan):
            return _by_hand(plan, f"{plan.summary}, from {_JETSON_WHEELS}: other wheels do not support a Jetson's GPU")
        if place := self._driver_elsewhere(plan.actions):
            return _by_hand(plan, f"{plan.summary}, {place}")
        if self._unmanaged and not all(map(self._is_personal, plan.actions)):
            return _by_hand(plan, f"{plan.summary}, {self._unmanaged}")
        if self._foreign and any(map(_names_debians_tools, plan.actions)):
            advice = (a for a in plan.actions if not _names_debians_tools(a))
            return _by_hand(plan._replace(actions=tuple(advice)), f"{plan.summary}, {self._unmanaged}")
        if lost := self.lost(plan.actions):
            return _by_hand(
                plan, f"First install another driver, because nothing else provides {lost}. Then: {plan.summary}"
            )
        return plan

    def _driver_elsewhere(self, actions: Sequence[Action]) -> str | None:
        """The system to repair, if these actions would change a driver that this one does not have; else None."""
        elsewhere = self._platform.driver_place if self._platform else None
        modules = any(isinstance(a, DkmsBuild | LoadModules | ReloadModules) for a in actions)
        return elsewhere if modules or any(map(_installs_a_driver, actions)) else None

    def lost(self, actions: Sequence[Action]) -> str | None:
        """The library of a driver that would or could become unusable: if the libraries could not be checked, none may
        be removed. None if all stay usable, or if the same actions install a driver."""
        if any(map(_installs_a_driver, actions)):
            return None
        moved = {a.path for a in actions if isinstance(a, MoveAside)}
        linked = {a.path for a in actions if isinstance(a, MakeLink)}
        return next((name for name in _OF_THE_DRIVER if self._loses(name, moved, linked)), None)

    def _loses(self, name: str, moved: set[str], linked: set[str]) -> bool:
        if self._libraries is None:
            return any(path.rpartition("/")[2].startswith(name.removesuffix(".1")) for path in moved - linked)
        usable = [x for x in self._libraries.libraries if x.name == name and (x.unread or not x.problem)]
        gone = [bool(moved & {x.path, x.real_path}) and x.path not in linked for x in usable]
        return bool(gone) and all(gone)

    def _is_personal(self, action: Action) -> bool:
        """Whether a person does it, or it only changes a start-up file of a person."""
        return isinstance(action, ByHand | PipInstall) or changed_path(action).startswith(self._homes)


def _without_kernel(plan: Plan) -> Plan:
    """The plan without the steps for a kernel of this system; a plan with nothing else stays unchanged."""
    actions = tuple(a for a in plan.actions if not isinstance(a, _OF_A_KERNEL))
    return plan._replace(actions=actions, reboot=False) if actions else plan


def _names_debians_tools(action: Action) -> bool:
    return isinstance(action, ByHand) and bool(_OF_DEBIAN.search(action.text))


def _downloads_wheels(plan: Plan) -> bool:
    return plan.network and not any(isinstance(a, AptInstall) for a in plan.actions)


def _installs_a_driver(action: Action) -> bool:
    names = action.packages if isinstance(action, AptInstall | AptPurgeReinstall) else ()
    return any(_OF_A_DRIVER.match(name) for name in names)


def _unmanaged(platform: Platform | None) -> str | None:
    """The tools with which a person must repair the system, and why; None if dlhealth may."""
    if platform is None:
        return "with the tools of this system: which system this is could not be checked"
    return None if platform.managed else f"with the tools of {platform.name or 'this system'}: {platform.unsupported}"


def _by_hand(plan: Plan, text: str) -> Plan:
    """The plan for a person, who can make the same changes in files."""
    told: Iterable[Action] = (
        ByHand(f"in {a.summary()}") if isinstance(a, EditFile) else a
        for a in plan.actions
        if isinstance(a, ByHand | Reboot | EditFile)
    )
    return plan._replace(actions=(ByHand(text), *told))
