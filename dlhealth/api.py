"""Everything that a rule may import."""

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
from dlhealth.data.compat import branch_of, lowest_driver, max_cuda, runs_cuda, version_key
from dlhealth.data.kernel_log import SXID_FAULT, Saying, sayings, sxid
from dlhealth.engine.libcudarule import LibcudaRule
from dlhealth.engine.rule import Rule
from dlhealth.engine.xidrule import XidRule
from dlhealth.host import Space
from dlhealth.host.account import Account
from dlhealth.host.place import Place
from dlhealth.judgements.barspace import BarSpace
from dlhealth.judgements.companions import Companion, Companions
from dlhealth.judgements.cudadriver import CudaDriver, UsableGpu
from dlhealth.judgements.driverfit import Doubt, DriverFit, DriverInPlace, Drivers, Misfit, MisfitKind
from dlhealth.judgements.driverupgrade import DriverUpgrade
from dlhealth.judgements.firstdriver import FirstDriver
from dlhealth.judgements.gpuclaims import AbsentGpu, Claim, FallenGpu, FallenGpus, Passthrough, TakenGpus, Usurpers
from dlhealth.judgements.kernels import kernels_to_judge, kernels_without_module
from dlhealth.judgements.mismatch import PostedFailure, PostedMismatch
from dlhealth.judgements.numpyabi import NumpyClash, NumpyClashes
from dlhealth.judgements.rejected import RejectedModule
from dlhealth.judgements.shadowed import Shadow, Shadows
from dlhealth.judgements.toolkitgpus import UncompiledGpu, UncompiledGpus
from dlhealth.judgements.undriven import UndrivenGpus
from dlhealth.judgements.undriven import Why as UndrivenWhy
from dlhealth.judgements.unstarted import Obstacle, UnstartedGpus
from dlhealth.judgements.wheels import Wheel, WheelCoverage, fitting_wheel, known_wheel, torch_wheel
from dlhealth.ladders.branch import choose_between, reboot_into, switch_by_hand, switch_to
from dlhealth.ladders.loader import link_and_file, out_of_configuration, out_of_variable
from dlhealth.ladders.python import pip_cudnn, pip_install, replace_torch
from dlhealth.lazy import later
from dlhealth.model import Action, Evidence, Finding, Layer, Plan, Risk, Severity, Stage, Unknown, count
from dlhealth.probes.containers.containerd import Containerd
from dlhealth.probes.containers.docker import Docker
from dlhealth.probes.containers.image import ImageEnvironment
from dlhealth.probes.containers.imagelayers import ImageLayers
from dlhealth.probes.containers.toolkit import CdiSpec, CdiSpecs, ContainerDevices, DockerContainers, ToolkitConfig
from dlhealth.probes.cuda.cudnn import (
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
from dlhealth.probes.cuda.cudnn import needed_major as cudnn_major_of
from dlhealth.probes.cuda.cudnn import package_names as cudnn_package_names
from dlhealth.probes.cuda.opencl import OpenCl
from dlhealth.probes.cuda.toolkits import (
    CudaLink,
    CudaToolkits,
    CudaVariable,
    CudaVariables,
    Libcuda,
    LibcudaChoice,
    Toolkit,
)
from dlhealth.probes.driver.buildlog import BuildFault, compiler_major
from dlhealth.probes.driver.cardhealth import Card, CardHealth
from dlhealth.probes.driver.cudastart import CudaStart
from dlhealth.probes.driver.devices import DeviceNodes, Maker, Node
from dlhealth.probes.driver.dkms import (
    Dkms,
    DkmsModule,
    DkmsOwners,
    ModuleBuild,
    lowest_driver_for_kernel,
    measured_failure,
    older_than_kernel,
)
from dlhealth.probes.driver.dkms import package_of as dkms_package
from dlhealth.probes.driver.driverlog import XidEvents
from dlhealth.probes.driver.flatpak import FlatpakDriver
from dlhealth.probes.driver.gpu import Gpu, Gpus
from dlhealth.probes.driver.gpumodes import GpuModes
from dlhealth.probes.driver.gpuswitch import GpuSwitch
from dlhealth.probes.driver.libraries import DriverLibraries, DriverLibrary, DriverUse
from dlhealth.probes.driver.modeset import Modeset
from dlhealth.probes.driver.modules import KernelModules, ModprobeConfig, ModprobeLine, ModuleFile, ModuleVersions
from dlhealth.probes.driver.nvml import Nvml, NvmlGpu
from dlhealth.probes.driver.nvswitch import FabricManager
from dlhealth.probes.driver.settings import Limit, Persistenced, Profiling, UserLimits
from dlhealth.probes.driver.suspend import SuspendSetup
from dlhealth.probes.driver.wsl import WslLibraries
from dlhealth.probes.login.display import (
    DisplayDevice,
    DisplaySetup,
    Section,
    XServerErrors,
    busid,
    parse_busid,
    parse_copied_busid,
)
from dlhealth.probes.login.environment import BrokenPath, Environments, LoginEnvironment, Problem, Setting
from dlhealth.probes.login.greeter import DesktopSessions, DisplayManager, LoginScreen
from dlhealth.probes.login.homes import Home, HomeFile, HomeFiles, UserUnit, authority_fault, may_write
from dlhealth.probes.login.lightdm import LightdmScreen
from dlhealth.probes.login.sessions import Complaint, Loop, LoopLogs, Session, SessionLogs, Sessions
from dlhealth.probes.login.users import Users
from dlhealth.probes.machine.clock import Clock
from dlhealth.probes.machine.compilers import Compiler, Compilers, HostLimit
from dlhealth.probes.machine.folders import SharedFolder, SharedFolders
from dlhealth.probes.machine.initramfs import Initramfs
from dlhealth.probes.machine.iommu import GpuIommu
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.probes.machine.kernel import NO_HEADERS, InstalledKernel, Kernel
from dlhealth.probes.machine.loader import LoaderConfig, LoaderDirectory, UserDirectory, UserPaths, without_element
from dlhealth.probes.machine.platform import Platform, PlatformSetting
from dlhealth.probes.machine.secureboot import LocalKey, SecureBoot, Signer, signer_of
from dlhealth.probes.machine.storage import BootFolder, FileSystem, Storage, UnmountedParts
from dlhealth.probes.packaging.alternatives import GlConfiguration, GlxAlternative, Link, SystemPython, XorgGlx
from dlhealth.probes.packaging.apt import (
    AptFailures,
    AptHistory,
    AptSources,
    PackageLocks,
    PackageOrigins,
    ReleaseUpgrade,
)
from dlhealth.probes.packaging.apt import Source as AptSource
from dlhealth.probes.packaging.aptkeys import CUDA_KEYRING, Keyrings, NeededKey, NvidiaKeys
from dlhealth.probes.packaging.packages import (
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
from dlhealth.probes.packaging.runfile import DkmsTree, InstalledFiles, Runfile
from dlhealth.probes.python.bitsandbytes import BitsandbytesBuild, BitsandbytesBuilds
from dlhealth.probes.python.frameworks import TensorFlowLibraries, TensorFlowNeeds, tensorflow_needs
from dlhealth.probes.python.programs import (
    Consumer,
    Program,
    Programs,
    TorchLibraries,
    cudnn_requirement,
    wheel_name,
    wheel_of,
)
from dlhealth.probes.python.pythonenv import PythonEnvironment, PythonEnvironments, TensorFlow, Torch
from dlhealth.probes.python.stdcxx import StdcxxNeeds
from dlhealth.probes.python.tensorrt import TensorRtNeed, TensorRtNeeds
from dlhealth.probes.python.wheelfiles import Overwritten, OverwrittenWheels, build_of

if TYPE_CHECKING:
    from dlhealth.testing import Machine, Scenario
else:  # only the scenarios of rules need them, and a diagnosis does not run those
    Machine, Scenario = later("dlhealth.testing", "Machine"), later("dlhealth.testing", "Scenario")

API_VERSION = 1
