"""How the actions are done to a machine, and undone: one step for each kind of action that needs no person."""

from typing import Any

from dlhealth.actions import (
    AptFixBroken,
    AptInstall,
    AptPurgeReinstall,
    AptRemove,
    AptUnhold,
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
    RefreshLoaderCache,
    RefreshModuleIndex,
    ReloadModules,
    SetAlternative,
    UpdateInitramfs,
    WriteFile,
)
from dlhealth.model import Action, kind_of
from dlhealth.steps.base import Step
from dlhealth.steps.files import (
    ChangeModeStep,
    ChangeOwnerStep,
    CopyFileStep,
    EditFileStep,
    MakeDirectoryStep,
    MakeLinkStep,
    MoveAsideStep,
    WriteFileStep,
)
from dlhealth.steps.packages import (
    AptFixBrokenStep,
    AptInstallStep,
    AptPurgeReinstallStep,
    AptRemoveStep,
    AptUnholdStep,
    DpkgConfigureStep,
)
from dlhealth.steps.system import (
    DkmsBuildStep,
    DkmsRemoveStep,
    LoadModulesStep,
    RefreshLoaderCacheStep,
    RefreshModuleIndexStep,
    ReloadModulesStep,
    SetAlternativeStep,
    UpdateInitramfsStep,
)

STEPS: dict[type[Action], type[Step[Any]]] = {
    AptFixBroken: AptFixBrokenStep,
    AptInstall: AptInstallStep,
    AptPurgeReinstall: AptPurgeReinstallStep,
    AptRemove: AptRemoveStep,
    AptUnhold: AptUnholdStep,
    ChangeMode: ChangeModeStep,
    ChangeOwner: ChangeOwnerStep,
    CopyFile: CopyFileStep,
    DkmsBuild: DkmsBuildStep,
    DkmsRemove: DkmsRemoveStep,
    DpkgConfigure: DpkgConfigureStep,
    EditFile: EditFileStep,
    LoadModules: LoadModulesStep,
    MakeDirectory: MakeDirectoryStep,
    MakeLink: MakeLinkStep,
    MoveAside: MoveAsideStep,
    RefreshLoaderCache: RefreshLoaderCacheStep,
    RefreshModuleIndex: RefreshModuleIndexStep,
    ReloadModules: ReloadModulesStep,
    SetAlternative: SetAlternativeStep,
    UpdateInitramfs: UpdateInitramfsStep,
    WriteFile: WriteFileStep,
}


def step_of(action: Action) -> Step[Any]:
    """The step for an action. Raises KeyError for an action that only a person can do."""
    made = STEPS.get(type(action))
    if made is None:
        raise KeyError(kind_of(action))
    return made(action)
