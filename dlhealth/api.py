"""All that a rule may import."""

from typing import TYPE_CHECKING

from dlhealth.actions import (
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
from dlhealth.actions.python import pip_cudnn, pip_install, replace_torch
from dlhealth.data.compat import branch_of, lowest_driver, max_cuda, runs_cuda, version_key
from dlhealth.data.kernel_log import SXID_FAULT, Saying, sayings
from dlhealth.engine.libcudarule import LibcudaRule
from dlhealth.engine.rule import Rule
from dlhealth.engine.xidrule import XidRule
from dlhealth.host import Space
from dlhealth.host.account import Account
from dlhealth.host.place import Place
from dlhealth.judgements.cudadriver import CudaDriver, UsableGpu
from dlhealth.judgements.driverfit import Doubt, DriverFit, DriverInPlace, Drivers, Misfit, MisfitKind
from dlhealth.judgements.gpuclaims import AbsentGpu, Claim, FallenGpu, FallenGpus, Passthrough, Usurpers
from dlhealth.judgements.kernels import kernels_to_judge
from dlhealth.judgements.mismatch import PostedMismatch
from dlhealth.judgements.numpyabi import NumpyClash, NumpyClashes
from dlhealth.judgements.rejected import RejectedModule
from dlhealth.judgements.undriven import UndrivenGpus
from dlhealth.judgements.undriven import Why as UndrivenWhy
from dlhealth.judgements.unstarted import Obstacle, UnstartedGpus
from dlhealth.judgements.wheels import Wheel, WheelCoverage, fitting_wheel, known_wheel, torch_wheel
from dlhealth.lean import later
from dlhealth.model import Action, Evidence, Finding, Layer, Plan, Risk, Severity, Stage, Unknown
from dlhealth.probes.alternatives import GlxAlternative, Link, SystemPython, XorgGlx
from dlhealth.probes.apt import AptFailures, AptHistory, AptSources, PackageLocks, PackageOrigins
from dlhealth.probes.apt import Source as AptSource
from dlhealth.probes.aptkeys import CUDA_KEYRING, Keyrings, NeededKey, NvidiaKeys
from dlhealth.probes.buildlog import BuildFault, compiler_major
from dlhealth.probes.compilers import Compiler, Compilers, HostLimit
from dlhealth.probes.containers import CdiSpec, CdiSpecs, ContainerDevices, DockerContainers, ToolkitConfig
from dlhealth.probes.cuda import CudaLink, CudaToolkits, CudaVariable, CudaVariables, Libcuda, LibcudaChoice, Toolkit
from dlhealth.probes.cudnn import (
    CudaPermissions,
    Cudnn,
    CudnnFolder,
    CudnnHeaderCopies,
    CudnnHeaders,
    CudnnLibrary,
    CudnnNeed,
    CudnnNeeds,
    CudnnPackage,
    Restricted,
    SplitWheels,
    UnpackedCudnn,
    UnpackedCudnns,
)
from dlhealth.probes.cudnn import needed_major as cudnn_major_of
from dlhealth.probes.cudnn import package_names as cudnn_package_names
from dlhealth.probes.devices import DeviceNodes, Maker, Node
from dlhealth.probes.display import (
    DisplayDevice,
    DisplaySetup,
    Section,
    XServerErrors,
    busid,
    parse_busid,
    parse_copied_busid,
)
from dlhealth.probes.dkms import (
    Dkms,
    DkmsModule,
    DkmsOwners,
    ModuleBuild,
    lowest_driver_for_kernel,
    measured_failure,
)
from dlhealth.probes.dkms import package_of as dkms_package
from dlhealth.probes.docker import Docker
from dlhealth.probes.driver import DriverLibraries, DriverLibrary, DriverUse
from dlhealth.probes.driverlog import XidEvents
from dlhealth.probes.environment import BrokenPath, Environments, LoginEnvironment, Problem, Setting
from dlhealth.probes.folders import SharedFolder, SharedFolders
from dlhealth.probes.frameworks import TensorFlowLibraries, TensorFlowNeeds, tensorflow_needs
from dlhealth.probes.gpu import Gpu, Gpus
from dlhealth.probes.gpumodes import GpuModes
from dlhealth.probes.gpuswitch import GpuSwitch
from dlhealth.probes.greeter import DesktopSessions, DisplayManager, LoginScreen
from dlhealth.probes.homes import Home, HomeFile, HomeFiles, UserUnit, authority_fault, may_write
from dlhealth.probes.image import ImageEnvironment
from dlhealth.probes.initramfs import Initramfs
from dlhealth.probes.iommu import GpuIommu
from dlhealth.probes.journal import Journal, Line
from dlhealth.probes.kernel import InstalledKernel, Kernel
from dlhealth.probes.loader import LoaderConfig, LoaderDirectory, UserDirectory, UserPaths, without_element
from dlhealth.probes.modules import KernelModules, ModprobeConfig, ModprobeLine, ModuleFile, ModuleVersions
from dlhealth.probes.nvml import Nvml, NvmlGpu
from dlhealth.probes.nvswitch import FabricManager
from dlhealth.probes.opencl import OpenCl
from dlhealth.probes.packages import (
    DriverPackage,
    DriverPackages,
    Owner,
    Package,
    Packages,
    Series,
    Unowned,
    classify,
    owner_of,
)
from dlhealth.probes.platform import Platform
from dlhealth.probes.platform import Setting as PlatformSetting
from dlhealth.probes.programs import (
    Consumer,
    Program,
    Programs,
    TorchLibraries,
    cudnn_requirement,
    wheel_name,
    wheel_of,
)
from dlhealth.probes.pythonenv import PythonEnvironment, PythonEnvironments, TensorFlow, Torch
from dlhealth.probes.runfile import DkmsTree, InstalledFiles, Runfile
from dlhealth.probes.secureboot import LocalKey, SecureBoot, Signer, signer_of
from dlhealth.probes.sessions import Complaint, Loop, LoopLogs, Session, SessionLogs, Sessions
from dlhealth.probes.settings import Limit, Limits, Persistenced, Profiling
from dlhealth.probes.stdcxx import StdcxxNeeds
from dlhealth.probes.storage import BootFolder, FileSystem, Storage, UnmountedParts
from dlhealth.probes.tensorrt import TensorRtNeed, TensorRtNeeds
from dlhealth.probes.users import Users
from dlhealth.probes.wheelfiles import Overwritten, OverwrittenWheels, build_of

if TYPE_CHECKING:
    from dlhealth.testing import Machine, Scenario
else:  # only the scenarios of rules need them, and no diagnosis runs those
    Machine, Scenario = later("dlhealth.testing", "Machine"), later("dlhealth.testing", "Scenario")

API_VERSION = 1

__all__ = [
    "API_VERSION",
    "CUDA_KEYRING",
    "SXID_FAULT",
    "AbsentGpu",
    "Account",
    "Action",
    "AptFailures",
    "AptFixBroken",
    "AptHistory",
    "AptInstall",
    "AptPurgeReinstall",
    "AptRemove",
    "AptSource",
    "AptSources",
    "AptUnhold",
    "BootFolder",
    "BrokenPath",
    "BuildFault",
    "ByHand",
    "CdiSpec",
    "CdiSpecs",
    "ChangeMode",
    "ChangeOwner",
    "Claim",
    "Compiler",
    "Compilers",
    "Complaint",
    "Consumer",
    "ContainerDevices",
    "CopyFile",
    "CudaDriver",
    "CudaLink",
    "CudaPermissions",
    "CudaToolkits",
    "CudaVariable",
    "CudaVariables",
    "Cudnn",
    "CudnnFolder",
    "CudnnHeaderCopies",
    "CudnnHeaders",
    "CudnnLibrary",
    "CudnnNeed",
    "CudnnNeeds",
    "CudnnPackage",
    "DesktopSessions",
    "DeviceNodes",
    "DisplayDevice",
    "DisplayManager",
    "DisplaySetup",
    "Dkms",
    "DkmsBuild",
    "DkmsModule",
    "DkmsOwners",
    "DkmsRemove",
    "DkmsTree",
    "Docker",
    "DockerContainers",
    "Doubt",
    "DpkgConfigure",
    "DriverFit",
    "DriverInPlace",
    "DriverLibraries",
    "DriverLibrary",
    "DriverPackage",
    "DriverPackages",
    "DriverUse",
    "Drivers",
    "EditFile",
    "Environments",
    "Evidence",
    "FabricManager",
    "FallenGpu",
    "FallenGpus",
    "FileSystem",
    "Finding",
    "GlxAlternative",
    "Gpu",
    "GpuIommu",
    "GpuModes",
    "GpuSwitch",
    "Gpus",
    "Home",
    "HomeFile",
    "HomeFiles",
    "HostLimit",
    "ImageEnvironment",
    "Initramfs",
    "InstalledFiles",
    "InstalledKernel",
    "Journal",
    "Kernel",
    "KernelModules",
    "Keyrings",
    "Layer",
    "Libcuda",
    "LibcudaChoice",
    "LibcudaRule",
    "Limit",
    "Limits",
    "Line",
    "Link",
    "LoadModules",
    "LoaderConfig",
    "LoaderDirectory",
    "LocalKey",
    "LoginEnvironment",
    "LoginScreen",
    "Loop",
    "LoopLogs",
    "Machine",
    "MakeDirectory",
    "MakeLink",
    "Maker",
    "Misfit",
    "MisfitKind",
    "ModprobeConfig",
    "ModprobeLine",
    "ModuleBuild",
    "ModuleFile",
    "ModuleVersions",
    "MoveAside",
    "NeededKey",
    "Node",
    "NumpyClash",
    "NumpyClashes",
    "NvidiaKeys",
    "Nvml",
    "NvmlGpu",
    "Obstacle",
    "OpenCl",
    "Overwritten",
    "OverwrittenWheels",
    "Owner",
    "Package",
    "PackageLocks",
    "PackageOrigins",
    "Packages",
    "Passthrough",
    "Persistenced",
    "PipInstall",
    "Place",
    "Plan",
    "Platform",
    "PlatformSetting",
    "PostedMismatch",
    "Problem",
    "Profiling",
    "Program",
    "Programs",
    "PythonEnvironment",
    "PythonEnvironments",
    "Reboot",
    "RefreshLoaderCache",
    "RefreshModuleIndex",
    "RejectedModule",
    "ReloadModules",
    "Restricted",
    "Risk",
    "Rule",
    "Runfile",
    "Saying",
    "Scenario",
    "Section",
    "SecureBoot",
    "Series",
    "Session",
    "SessionLogs",
    "Sessions",
    "SetAlternative",
    "Setting",
    "Severity",
    "SharedFolder",
    "SharedFolders",
    "Signer",
    "Space",
    "SplitWheels",
    "Stage",
    "StdcxxNeeds",
    "Storage",
    "SystemPython",
    "TensorFlow",
    "TensorFlowLibraries",
    "TensorFlowNeeds",
    "TensorRtNeed",
    "TensorRtNeeds",
    "Toolkit",
    "ToolkitConfig",
    "Torch",
    "TorchLibraries",
    "UndrivenGpus",
    "UndrivenWhy",
    "Unknown",
    "UnmountedParts",
    "Unowned",
    "UnpackedCudnn",
    "UnpackedCudnns",
    "UnstartedGpus",
    "UpdateInitramfs",
    "UsableGpu",
    "UserDirectory",
    "UserPaths",
    "UserUnit",
    "Users",
    "Usurpers",
    "Wheel",
    "WheelCoverage",
    "WriteFile",
    "XServerErrors",
    "XidEvents",
    "XidRule",
    "XorgGlx",
    "authority_fault",
    "branch_of",
    "build_of",
    "busid",
    "classify",
    "compiler_major",
    "cudnn_major_of",
    "cudnn_package_names",
    "cudnn_requirement",
    "dkms_package",
    "fitting_wheel",
    "kernels_to_judge",
    "known_wheel",
    "lowest_driver",
    "lowest_driver_for_kernel",
    "max_cuda",
    "may_write",
    "measured_failure",
    "owner_of",
    "parse_busid",
    "parse_copied_busid",
    "pip_cudnn",
    "pip_install",
    "replace_torch",
    "runs_cuda",
    "sayings",
    "signer_of",
    "tensorflow_needs",
    "torch_wheel",
    "version_key",
    "wheel_name",
    "wheel_of",
    "without_element",
]
