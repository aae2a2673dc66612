"""What was verified for the next boot, item by item: whether a driver and a login screen will come up.

The states are those of judgements/wellness.py: an item that could not be seen to be well is unknown, never well.
"""

from collections.abc import Callable, Iterable, Iterator

from dlhealth.judgements import wellness
from dlhealth.model import DRIVER, LIBRARIES, Area, Layer, State
from dlhealth.probes import Unavailable
from dlhealth.probes.driver.libraries import DriverLibraries
from dlhealth.probes.driver.modules import KernelModules, ModprobeConfig
from dlhealth.probes.login.greeter import LoginScreen
from dlhealth.probes.machine.initramfs import Initramfs
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.probes.machine.platform import Platform
from dlhealth.probes.machine.secureboot import SecureBoot, signer_of
from dlhealth.probes.machine.storage import BootFolder, Storage

_SMALL = 32 << 20
"""Bytes that are enough on a /boot without an initramfs to compare with."""


def entry(kernel: Kernel) -> Iterator[Area]:
    """The kernel that the boot loader will start."""
    release = kernel.next_boot
    image = any(k.release == release and k.has_image for k in kernel.installed)
    if release is None:
        raise Unavailable(kernel.next_boot_source)
    state = State.WELL if image else State.UNKNOWN
    text = f"kernel {release} ({kernel.next_boot_source}){'' if image else ': it has no image in /boot'}"
    yield Area("boot entry", state, text)


def module(platform: Platform, kernel: Kernel, modules: KernelModules) -> Iterator[Area]:
    """The module that is built for that kernel."""
    for area in wellness.module(platform, kernel, modules):
        yield area._replace(name=DRIVER)


def libraries(kernel: Kernel, modules: KernelModules, libraries: DriverLibraries) -> Iterator[Area]:
    """The libraries, compared with the module of that kernel: the loaded one does not matter."""
    file = modules.seen(kernel.target)
    if not file:
        yield Area(LIBRARIES, State.ABSENT, "no module to compare with")
    elif not file.version or not libraries.version:
        raise Unavailable("the version of the module or of the libraries is not known")
    elif file.version != libraries.version:
        yield Area(LIBRARIES, State.UNKNOWN, f"{libraries.version}, but the module is {file.version}")
    else:
        yield Area(LIBRARIES, State.WELL, f"{libraries.version}: the version of the module")


def signature(kernel: Kernel, modules: KernelModules, boot: SecureBoot) -> Iterator[Area]:
    """The signature of the module, where Secure Boot wants one."""
    file = modules.seen(kernel.target)
    if not file:
        yield Area("signature", State.ABSENT, "no module to load")
    elif not boot.enforced:
        yield Area("signature", State.WELL, "not needed: Secure Boot is off")
    elif file.unsigned is None:
        raise Unavailable(f"cannot read the signature of {file.path}")
    elif file.unsigned:
        yield Area("signature", State.UNKNOWN, "Secure Boot is on, and the module is not signed")
    elif file.kernel == kernel.running and file.version and file.version == modules.loaded_version:
        yield Area("signature", State.WELL, f"kernel {file.kernel} has loaded this module")
    elif file.prebuilt:
        yield Area("signature", State.WELL, "signed by the distribution")
    elif boot.enrolled is None:
        raise Unavailable("cannot read the list of enrolled keys")
    elif not boot.trusts(signer_of(file.signature)):
        yield Area("signature", State.UNKNOWN, "signed with a key that is not in the list of enrolled keys")
    else:
        yield Area("signature", State.WELL, "signed with an enrolled key")


def initramfs(image: Initramfs) -> Iterator[Area]:
    """The image that is loaded before the disk: what it has of the driver must not be older than the disk."""
    if image.problem and image.content is None:
        raise Unavailable(image.problem)
    if not image.path:
        yield Area("initramfs", State.UNKNOWN, "the kernel has none")
    elif image.content is not None:
        versions = sorted(set(image.nvidia_versions().values()))
        inside = f"driver {', '.join(v or 'of unknown version' for v in versions)}" if versions else "no NVIDIA module"
        yield Area("initramfs", State.WELL, f"{image.path} has {inside} inside")
    elif image.newer_module or image.newer_config:
        newer = "the module" if image.newer_module else image.newer_config[0]
        yield Area("initramfs", State.UNKNOWN, f"{newer} is newer than {image.path}")
    else:
        yield Area("initramfs", State.WELL, f"{image.path} is newer than the module and modprobe.d")


def blacklist(config: ModprobeConfig) -> Iterator[Area]:
    """The lines of modprobe.d that would keep the module from loading."""
    if config.problems:
        raise Unavailable(config.problems[0])
    lines = (*config.blacklists("nvidia"), *config.disables("nvidia"))
    if lines:
        yield Area("blacklist", State.UNKNOWN, f"{lines[0].source} keeps nvidia from loading")
    else:
        yield Area("blacklist", State.WELL, "nothing in modprobe.d keeps nvidia from loading")


def room(storage: Storage, boot: BootFolder) -> Iterator[Area]:
    """The space in /boot for the next initramfs, and whole images."""
    system = storage.systems.get("/boot")
    if system is None:
        raise Unavailable("/boot is not mounted, or could not be read")
    free, needed = system.space.free, boot.largest or _SMALL
    text = f"{free >> 20} MiB free, the largest initramfs needs {needed >> 20} MiB"
    if boot.broken:
        yield Area("/boot", State.UNKNOWN, f"no usable initramfs for kernel {boot.broken[0]}")
    else:
        yield Area("/boot", State.WELL if free >= needed else State.UNKNOWN, text)


def screen(screen: LoginScreen) -> Iterator[Area]:
    """What starts the login screen."""
    manager = screen.manager(screen.alias) if screen.alias else None
    if screen.target != "graphical.target" or screen.text:
        why = screen.text and f"the kernel parameter {screen.text} asks for none"
        yield Area("login screen", State.ABSENT, why or f"the system starts {screen.target}")
    elif screen.otherwise:
        yield Area("login screen", State.WELL, f"started by {screen.otherwise}")
    elif manager and manager.there and not manager.mask:
        yield Area("login screen", State.WELL, f"{manager.name} starts at boot")
    elif not screen.managers:
        yield Area("login screen", State.ABSENT, "no display manager is installed")
    else:
        yield Area("login screen", State.UNKNOWN, "nothing was seen to start it")


AREAS: dict[str, tuple[tuple[Layer, ...], Callable[..., Iterable[Area]]]] = {
    "boot entry": ((), entry),
    DRIVER: ((Layer.KERNEL_MODULE, Layer.PACKAGING), module),
    LIBRARIES: ((Layer.DRIVER_LIBRARIES,), libraries),
    "signature": ((), signature),
    "initramfs": ((), initramfs),
    "blacklist": ((), blacklist),
    "/boot": ((), room),
    "login screen": ((Layer.LOGIN,), screen),
}
"""As `wellness.AREAS`, for the next boot."""
