"""The closed set of things that dlhealth may do to a machine, as data.

The name of a class is the `kind` of the JSON report (`AptInstall` is "apt-install"); `summary()` is one line: where a
command does the same by hand, that command.
"""

from dlhealth.actions.files import ChangeMode, ChangeOwner, EditFile, MakeLink, MoveAside, WriteFile
from dlhealth.actions.packages import AptInstall, AptRemove, AptUnhold, DpkgConfigure, PipInstall
from dlhealth.actions.system import (
    ByHand,
    DkmsBuild,
    DkmsRemove,
    LoadModules,
    Reboot,
    RefreshLoaderCache,
    ReloadModules,
    RestartUnit,
    SetAlternative,
    UpdateInitramfs,
)

__all__ = [
    "AptInstall",
    "AptRemove",
    "AptUnhold",
    "ByHand",
    "ChangeMode",
    "ChangeOwner",
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
    "ReloadModules",
    "RestartUnit",
    "SetAlternative",
    "UpdateInitramfs",
    "WriteFile",
]
