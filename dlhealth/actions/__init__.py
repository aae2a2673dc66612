"""The closed set of changes that dlhealth may make to a machine, as data.

The name of a class is the `kind` of the JSON report (`AptInstall` is "apt-install"). `summary()` is one line: the
command, if a command does the same by hand.
"""

from collections.abc import Callable
from typing import Any

from dlhealth.actions.kinds import (
    AptFixBroken,
    AptInstall,
    AptPurgeReinstall,
    AptRemove,
    AptUnhold,
    ByHand,
    ChangeMode,
    ChangeOwner,
    CopyFile,
    DkmsBuild,
    DkmsRemove,
    DpkgConfigure,
    EditFile,
    LoadModules,
    MakeDirectory,
    MakeLink,
    MoveAside,
    PipInstall,
    Reboot,
    RefreshLoaderCache,
    RefreshModuleIndex,
    ReloadModules,
    SetAlternative,
    UpdateInitramfs,
    WriteFile,
)
from dlhealth.lazy import regex
from dlhealth.model import Action, kind_of

__all__ = [
    "AptFixBroken",
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
    "MakeDirectory",
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
    """The form in which a plan is stored and compared."""
    return {"kind": kind_of(action), **action._asdict()}  # type: ignore[attr-defined]


def action_from_json(record: dict[str, Any]) -> Action:
    """The action from that form. Raises KeyError for a kind that this version does not know, and ValueError for a field
    that no rule could have filled like this: the record may come from another machine and be forged."""
    fields = dict(record)
    name = "".join(word.title() for word in fields.pop("kind").split("-"))
    made: type[Action] = {name: globals()[name] for name in __all__}[name]
    for field, value in fields.items():
        if not _FIELDS[field](value) and not (made is SetAlternative and field == "path" and value == ""):
            raise ValueError(f"{field} of {name} cannot be {value!r:.80}")
    return made(**{k: _tuples(v) for k, v in fields.items()})


OF_ONE_PATH = (ChangeMode, ChangeOwner, CopyFile, EditFile, MakeDirectory, MakeLink, MoveAside, WriteFile)
"""Actions that dlhealth does itself, without a program of the machine; each changes only its `path`."""

OF_A_PERSON = (ByHand, PipInstall)
"""Actions that dlhealth never does itself."""


def changed_path(action: Action) -> str:
    """The one path that dlhealth itself changes; "" if programs of the machine, or a person, do it."""
    return action.path if isinstance(action, OF_ONE_PATH) else ""


def needs_programs(action: Action) -> bool:
    """Whether the action needs the machine's own programs."""
    return not changed_path(action)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_path(value: Any) -> bool:
    return _is_text(value) and value.startswith("/") and ".." not in value.split("/")


def _is_name(value: Any) -> bool:
    """A word that is neither an option of a program nor a path."""
    return bool(_NAME.fullmatch(value)) if isinstance(value, str) else False


def _is_mode(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 0o7777


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _are(is_one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: isinstance(values, list) and all(map(is_one, values))


def _is_change(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 3 or type(value[0]) is not int:
        return False
    return _is_text(value[1]) and (value[2] is None or _is_text(value[2]))


_NAME = regex(r"[A-Za-z0-9_][A-Za-z0-9_.+:~=@-]*")
_FIELDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("path", "source", "python"), _is_path),
    **dict.fromkeys(("module", "version", "kernel", "name", "user", "group"), _is_name),
    **dict.fromkeys(("packages", "may_remove", "remove", "modules"), _are(_is_name)),
    **dict.fromkeys(("target", "text"), _is_text),
    **dict.fromkeys(("reinstall", "purge", "uv"), _is_flag),
    "arguments": _are(_is_text),
    "changes": _are(_is_change),
    "instead_of": _are(_is_path),
    "mode": _is_mode,
}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
