"""Why the driver does not have a GPU: it is reserved for a virtual machine, or gone from the bus."""

from collections.abc import Iterator

from dlhealth.data.kernel_log import full_address, sayings
from dlhealth.host import Host, Unreadable
from dlhealth.host.place import Place
from dlhealth.judgements.driverfit import DriverFit
from dlhealth.lazy import regex
from dlhealth.model import Evidence, Unknown
from dlhealth.probes import Unavailable
from dlhealth.probes.driver.driverlog import messages
from dlhealth.probes.driver.gpu import Gpu, Gpus
from dlhealth.probes.driver.modules import KernelModules
from dlhealth.probes.driver.nvml import GPU_IS_LOST, Nvml
from dlhealth.probes.machine.journal import Journal, Line
from dlhealth.probes.machine.kernel import Kernel
from dlhealth.probes.packaging.packages import DriverPackages
from dlhealth.records import NamedTuple

_LISTS = ("/etc/initramfs-tools/modules", "/etc/modules", "/etc/modules-load.d/*.conf", "/etc/default/grub",
          "/etc/default/grub.d/*.cfg", "/etc/kernel/cmdline", "/etc/modprobe.d/*.conf", "/usr/lib/modprobe.d/*.conf",
          "/etc/initramfs-tools/scripts/init-top/*", "/etc/initramfs-tools/scripts/init-premount/*",
          "/etc/udev/rules.d/*.rules", "/etc/rc.local")  # fmt: skip
"""Where guides for passing a GPU to a virtual machine put its ids or address."""
_MACHINES = ("/etc/libvirt/qemu/*.xml", "/etc/pve/qemu-server/*.conf", "/etc/pve/nodes/*/qemu-server/*.conf")


class Claim(NamedTuple):
    """A line that reserves a GPU for virtual machines."""

    source: Place
    text: str


class Usurpers(NamedTuple):
    """The GPUs that the installed NVIDIA driver could drive, whoever holds them now; none if no such driver is
    installed. `lacking` are the relevant kernels without its module; `module` is evidence for the checked kernel;
    `doubts` are unknowns."""

    gpus: tuple[Gpu, ...]
    lacking: str
    module: Evidence
    doubts: tuple[Unknown, ...]

    def held_by(self, *drivers: str) -> tuple[Gpu, ...]:
        """The GPUs that one of these kernel drivers holds; names in lower case."""
        return tuple(g for g in self.gpus if g.driver.lower() in drivers)

    @classmethod
    def probe(
        cls,
        gpus: Gpus,
        kernel: Kernel,
        modules: KernelModules,
        packages: DriverPackages | None,
        fit: DriverFit | None,
    ) -> "Usurpers":
        doubts = [Unknown(problem) for problem in gpus.problems]
        wanted = bool((packages and packages.version) or modules.for_any_kernel())
        if gpus.container:
            doubts.append(Unknown("skipped in a container: only the host knows which driver holds a GPU"))
        unserved = fit.unserved() if fit else frozenset()
        able = (g for g in gpus.gpus if g.address not in unserved)
        lacking = [r for r in dict.fromkeys((kernel.target, kernel.next_boot)) if r and not modules.usable(r)]
        disk = modules.on_disk(kernel.target)
        return cls(
            tuple(able) if wanted and not gpus.container else (),
            " ".join(lacking) if kernel.target else "any kernel",
            Evidence(disk.path, disk.version)
            if disk
            else Evidence(f"/lib/modules/{kernel.target}", "no NVIDIA module for this kernel"),
            tuple(doubts),
        )


class TakenGpus(NamedTuple):
    """NVIDIA's module said that another driver has its GPUs: `line` is the first line of that message, None where it did
    not, where it drives them since, or where the bus shows who has them."""

    line: Line | None

    @classmethod
    def probe(cls, gpus: Gpus | None, modules: KernelModules | None, journal: Journal) -> "TakenGpus":
        if gpus is not None or (modules and modules.loaded_version):
            return cls(None)
        return cls(next(journal.kernel(_TAKEN, last_boot=True), None))


_TAKEN = r"NVRM: The NVIDIA probe routine was not called for \d+ device"


class Passthrough(NamedTuple):
    """By address of a GPU that a stub for virtual machines holds: the lines that cause it. `machines` are files that
    define virtual machines; they contain passwords, so only their names are read."""

    claims: dict[str, tuple[Claim, ...]]
    machines: tuple[str, ...]
    problems: tuple[str, ...]

    @classmethod
    def probe(cls, host: Host, gpus: Gpus, kernel: Kernel) -> "Passthrough":
        held = [g for g in gpus.gpus if g.passed_through]
        problems: list[str] = []
        claims = {g.address: tuple(_claims(host, g, kernel.cmdline, problems)) for g in held}
        machines = tuple(path for pattern in _MACHINES for path in host.glob(pattern)) if held else ()
        return cls(claims, machines, tuple(dict.fromkeys(problems)))


def _claims(host: Host, gpu: Gpu, cmdline: str, problems: list[str]) -> Iterator[Claim]:
    wanted = (f"10de:{gpu.device}", gpu.address)
    words = [w for w in cmdline.split() if any(x in w.lower() for x in wanted)]
    if words:
        yield Claim(Place("/proc/cmdline"), " ".join(words))
    for pattern in _LISTS:
        for path in host.glob(pattern):
            for number, line in enumerate(_text(host, path, problems).splitlines(), 1):
                if not line.lstrip().startswith("#") and any(x in line.lower() for x in wanted):
                    yield Claim(Place(path, number), line.strip()[:200])


def _text(host: Host, path: str, problems: list[str]) -> str:
    try:
        return host.text(path) or ""
    except Unreadable as problem:
        problems.append(str(problem))
        return ""


_SEEN = regex(
    r"(?:pci (?=\S+ \[10de:[0-9a-f]{4}\] type 00 class 0x03)|nvidia (?=\S+ (?:vgaarb:|enabling device)))"
    r"(?P<address>[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]): "
)


class AbsentGpu(NamedTuple):
    """Whether no NVIDIA GPU is on the bus (`missing`). Then `address` is the one in the kernel log of this boot or an
    earlier one, and `seen` that line."""

    missing: bool
    address: str
    seen: Evidence | None

    @classmethod
    def probe(cls, host: Host, gpus: Gpus, journal: Journal | None) -> "AbsentGpu":
        if gpus.container:
            raise Unavailable("skipped in a container: only the host knows which GPUs are on the bus")
        if gpus.gpus:
            return cls(False, "", None)
        line = next(journal.kernel(_SEEN.pattern), None) if journal else None
        found = _SEEN.search(line.text) if line else None
        return cls(
            True,
            found["address"] if found else "",
            Evidence(line.source, line.text.strip()[:200]) if line else None,
        )


class FallenGpu(NamedTuple):
    """A GPU that fell off the bus according to the kernel log (`xid`: with the number 79). `gone` is its present state:
    True if it does not answer, False if it does, None if unknown; `how` is the evidence."""

    address: str
    text: str
    source: str
    xid: bool
    gone: bool | None
    how: str


class FallenGpus(NamedTuple):
    """Those of the newest boot in the log."""

    gpus: tuple[FallenGpu, ...]

    @classmethod
    def probe(cls, host: Host, journal: Journal, modules: KernelModules | None, nvml: Nvml | None) -> "FallenGpus":
        found: dict[str, FallenGpu] = {}
        for said in messages(journal.kernel("NVRM", last_boot=True)):
            match = sayings()["fallen"].pattern.search(said.text)
            address = full_address(match["xid"] or match["gpu"]) if match else ""
            if match and address not in found:
                text = said.until(match.end())[:300]
                state = _answers(host, address, modules, nvml)
                found[address] = FallenGpu(address, text, said.line.source, bool(match["xid"]), *state)
        return cls(tuple(found.values()))


def _answers(host: Host, address: str, modules: KernelModules | None, nvml: Nvml | None) -> tuple[bool | None, str]:
    if not host.ran and (modules is None or modules.loaded is None):
        return None, "this machine is not running"
    if nvml:
        listed = next((g for g in nvml.gpus if g.pci == address), None)
        if nvml.outcome == "hung":
            return True, f"NVML hangs in {nvml.call}"
        if GPU_IS_LOST in (nvml.code, listed.code if listed else None):
            return True, "NVML: GPU is lost"
        if nvml.outcome == "ok" and listed and listed.code is None:
            return False, "NVML answers for it"
    folder = f"/sys/bus/pci/devices/{address}"
    try:
        if host.exists("/sys/bus/pci/devices") and not host.exists(folder):
            return True, "it is no longer on the bus"
        head = host.head(f"{folder}/config", 4)
    except Unreadable:
        head = None
    if not head:
        # Nothing contradicts the log, and a GPU that fell off does not return without a reboot.
        return True, "nothing shows that it came back"
    if head == b"\xff\xff\xff\xff":
        return True, "its PCI configuration reads ff everywhere"
    return None, "its PCI configuration can be read again"
