"""The driver version that a CUDA program finds."""

from dlhealth.data.compat import runs_cuda
from dlhealth.host import Host, Unreadable
from dlhealth.probes import Unavailable
from dlhealth.probes.driver.gpu import Gpus
from dlhealth.probes.driver.libraries import DriverLibraries
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.probes.machine.platform import is_tegra
from dlhealth.probes.packaging.packages import DriverPackages
from dlhealth.records import NamedTuple


class CudaDriver(NamedTuple):
    """`versions` are pairs of a driver version and its source: first the loaded module, then libcuda, then the files on
    the disk for the next boot. They differ while an update waits for a reboot. Empty: there is no driver."""

    versions: tuple[tuple[str, str], ...]

    def runs(self, cuda: str) -> bool | None:
        """Whether programs built with this CUDA start, now or after the pending reboot; None if unknown."""
        answers = {runs_cuda(version, cuda) for version, _ in self.versions}
        if True in answers:
            return True
        return None if None in answers or not answers else False

    @property
    def numbers(self) -> tuple[str, ...]:
        """The versions alone."""
        return tuple(version for version, _ in self.versions)

    @classmethod
    def probe(
        cls,
        kernel: Kernel | None,
        modules: KernelModules | None,
        libraries: DriverLibraries | None,
        packages: DriverPackages | None,
    ) -> "CudaDriver":
        if modules is None and libraries is None and packages is None:
            raise Unavailable("kernel modules, libraries and packages of the driver cannot be read")
        found: dict[str, str] = {}
        if modules and modules.loaded_version:
            found[modules.loaded_version] = "/proc/driver/nvidia/version"
        if libraries and libraries.version:
            paths = [x.real_path or x.path for x in libraries.libraries if x.version == libraries.version]
            found.setdefault(
                libraries.version, next((p for p in paths if "libcuda" in p), paths[0] if paths else "libcuda")
            )
        if modules and kernel and (file := modules.seen(kernel.target)) and file.version:
            found.setdefault(file.version, file.path)
        if not found and packages and packages.version:
            found[packages.version] = "/var/lib/dpkg/status"
        return cls(tuple(found.items()))


class UsableGpu(NamedTuple):
    """Whether programs here have an NVIDIA GPU with a driver. `source` and `shows` are the evidence; `source` is "" if
    they have none. `capabilities` are the known compute capabilities of the GPUs."""

    source: str
    shows: str
    capabilities: tuple[str, ...]

    @classmethod
    def probe(
        cls,
        host: Host,
        gpus: Gpus | None,
        driver: CudaDriver,
        kernel: Kernel | None,
        modules: KernelModules | None,
    ) -> "UsableGpu":
        if elsewhere := _off_the_bus(host):
            return elsewhere
        if gpus is None:
            # The disk of a machine that does not run: people install the module only for a GPU.
            file = modules.seen(kernel.target) if modules and kernel else None
            if file is None:
                raise Unavailable("cannot tell whether there is a GPU: no PCI bus is visible")
            return cls(file.path, f"the driver's module{file.version and ' '}{file.version}", ())
        usable = [gpu for gpu in gpus.gpus if gpu.driver != "vfio-pci"]
        if not usable or not driver.versions:
            return cls("", "", ())
        capabilities = tuple(gpu.capability for gpu in usable if gpu.capability)
        return cls(f"GPU {usable[0].address}", usable[0].name or "NVIDIA", capabilities)


_WSL_NODE, _WSL_LIBRARY = "/dev/dxg", "/usr/lib/wsl/lib/libcuda.so.1"
_TEGRA_NODES = ("/dev/nvhost-gpu", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu")


def _off_the_bus(host: Host) -> UsableGpu | None:
    """A GPU that is on no PCI bus: that of Windows in WSL2, or the one in a Jetson's chip; also in a container
    there."""
    try:
        if host.exists(_WSL_NODE) and host.exists(_WSL_LIBRARY):
            return UsableGpu(_WSL_NODE, f"a GPU of Windows, with {_WSL_LIBRARY}", ())
        node = next((path for path in _TEGRA_NODES if host.exists(path)), None)
    except Unreadable:
        node = None
    return UsableGpu(node or "NVIDIA Tegra", "the GPU of a Jetson", ()) if node or is_tegra(host) else None
