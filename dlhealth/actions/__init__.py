"""The closed set of things that dlhealth may do to a machine, as data.

The name of a class is the `kind` of the JSON report (`AptInstall` is "apt-install"); `summary()` is one line: where a
command does the same by hand, that command.
"""

from typing import TYPE_CHECKING, Any

from dlhealth.actions.files import ChangeMode, ChangeOwner, CopyFile, EditFile, MakeLink, MoveAside, WriteFile
from dlhealth.actions.packages import AptInstall, AptPurgeReinstall, AptRemove, AptUnhold, DpkgConfigure, PipInstall
from dlhealth.actions.system import (
    ByHand,
    DkmsBuild,
    DkmsRemove,
    LoadModules,
    Reboot,
    RefreshLoaderCache,
    RefreshModuleIndex,
    ReloadModules,
    SetAlternative,
    UpdateInitramfs,
)
from dlhealth.model import Action, kind_of

if TYPE_CHECKING:
    from dlhealth.actions.base import Step

__all__ = [
    "AptInstall",
    "AptPurgeReinstall",
    "AptRemove",
    "AptUnhold",
    "ByHand",
    "ChangeMode",
    "ChangeOwner",
    "CopyFile",
    "DkmsBuild",
    "DkmsRemove",
    "DpkgConfigure",
    "EditFile",
    "LoadModules",
    "MakeLink",
    "MoveAside",
    "PipInstall",
    "Reboot",
    "RefreshLoaderCache",
    "RefreshModuleIndex",
    "ReloadModules",
    "SetAlternative",
    "UpdateInitramfs",
    "WriteFile",
]


def action_to_json(action: Action) -> dict[str, Any]:
    """As a plan is kept and compared."""
    return {"kind": kind_of(action), **action._asdict()}  # type: ignore[attr-defined]


def action_from_json(record: dict[str, Any]) -> Action:
    """The same action again. Raises KeyError for a kind that this version does not know."""
    fields = dict(record)
    name = "".join(word.title() for word in fields.pop("kind").split("-"))
    made: type[Action] = {name: globals()[name] for name in __all__}[name]
    return made(**{k: _tuples(v) for k, v in fields.items()})


def changed_path(action: Action) -> str:
    """The one path that dlhealth itself changes; "" where programs of the machine, or a person, do it."""
    if not hasattr(action, "becomes") and not isinstance(action, MoveAside):
        return ""
    path: str = action.path  # type: ignore[attr-defined]
    return path


def needs_programs(action: Action) -> bool:
    """Whether the machine's own programs have to run for it."""
    return not changed_path(action)


def step_of(action: Action) -> "Step":
    """What carries an action out. Raises KeyError for one that only a person can do."""
    if hasattr(action, "becomes"):
        from dlhealth.actions.base import FileStep

        return FileStep(action)  # type: ignore[arg-type]
    if not hasattr(action, "apply"):
        raise KeyError(kind_of(action))
    return action  # type: ignore[return-value]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
