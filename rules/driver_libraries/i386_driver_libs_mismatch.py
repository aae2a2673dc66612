"""The driver's 32-bit libraries have a different version than its 64-bit libraries, or Steam has none.

What you see
    You are missing the following 32-bit libraries, and Steam may not run: libGL.so.1

    Steam, Wine and other 32-bit programs do not start or draw without the GPU, while nvidia-smi works.
Why
    A 32-bit program needs 32-bit libraries of exactly the version of the kernel module. On Ubuntu and Debian they are
    packages of their own (libnvidia-gl-NNN:i386). An update that did not include them, or an old .run file, leaves
    another version.

    A machine without 32-bit programs needs none of them, and dlhealth does not ask for them there.
Repair
    Install the 32-bit packages in the version of the 64-bit ones.
What the repair risks
    Little. dlhealth stops if apt wants to remove a package of the driver.
By hand
    dpkg -l | grep -E 'nvidia.*:i386'
    apt-get install libnvidia-gl-NNN:i386
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    DriverLibraries,
    Evidence,
    Finding,
    Machine,
    Package,
    PackageLocks,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    classify,
)

FOREIGN = "i386"
STEAM = ("steam", "steam-libs-i386")
"""Steam's packages of that architecture, on Debian and Ubuntu and from Valve."""


class I386DriverLibsMismatch(Rule):
    id = "i386-driver-libs-mismatch"
    title = "The driver's 32-bit libraries do not match its 64-bit libraries"
    stage = Stage.PACKAGE_SET
    severity = Severity.WARNING
    explained_by = (
        "driver-library-version-mismatch-after-upgrade",
        "mixed-runfile-and-apt",
        "runfile-uninstall-leftovers",
        "third-party-package-pulls-other-libnvidia",
    )

    def detect(
        self, libraries: DriverLibraries, packages: Packages | None, locks: PackageLocks | None
    ) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in libraries.problems)
        native = libraries.version
        if native is None:
            return
        narrow = [x for x in libraries.libraries if x.bits == 32 and x.version and x.asked_for and not x.problem]
        other = [x for x in narrow if x.version != native]
        wants = next((p for p in packages.all() if p.name in STEAM and _narrow(p)), None) if packages else None
        if not other and (narrow or not wants):
            return
        if locks and locks.busy:
            yield Unknown(locks.busy)
            return
        library = libraries.find("libcuda.so.1") or libraries.find("libnvidia-ml.so.1")
        evidence = [Evidence(library.path, f"version {library.version}")] if library else []
        evidence += [Evidence(x.path, f"32-bit, version {x.version}") for x in other[:4]]
        if not other and wants:
            evidence.append(Evidence("/var/lib/dpkg/status", f"{wants.name} {wants.version}, no 32-bit driver library"))
        yield self.finding(
            "host",
            f"The 32-bit libraries of the driver have version {other[0].version}, but the 64-bit ones have {native}"
            if other
            else f"{wants.name if wants else 'Steam'} needs 32-bit libraries of driver {native}, and none is installed",
            *evidence,
        )

    def remedies(self, finding: Finding, packages: Packages | None) -> Iterator[Plan]:
        members = [m for p in packages.all() if p.unpacked and (m := classify(p))] if packages else []
        native = {m.package.name: m.package for m in members if not _narrow(m.package)}
        narrow = [m.package for m in members if _narrow(m.package) and m.package.name in native]
        wanted = [f"{p.name}:{FOREIGN}={native[p.name].version}" for p in narrow if p.version != native[p.name].version]
        if not narrow:
            graphics = next((n for n in native if n == "nvidia-driver-libs" or n.startswith("libnvidia-gl-")), "")
            wanted = [f"{graphics}:{FOREIGN}={native[graphics].version}"] if graphics else []
        if wanted:
            names = " ".join(name.partition("=")[0] for name in wanted)
            yield Plan(
                f"Install {names} in the driver's version", Risk.MEDIUM, (AptInstall(tuple(wanted)),), network=True
            )
        text = (
            "install the 32-bit libraries the same way as the driver (the .run file asks for them); if no 32-bit program is"
            " used, remove the old ones: apt-get remove libnvidia-gl-NNN:i386"
        )
        yield Plan("Install the 32-bit libraries of this driver version", Risk.MEDIUM, (ByHand(text),), network=True)

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/usr/lib/i386-linux-gnu"

        def narrow(machine: Machine, version: str, *, package: bool = True) -> Machine:
            real = f"{lib}/libGLX_nvidia.so.{version}"
            if package:
                machine.package(
                    "libnvidia-gl-550", f"{version}-0ubuntu0.24.04.1", [real], arch="i386", multi_arch="same",
                    source="nvidia-graphics-drivers-550",
                )  # fmt: skip
            return machine.library(real, "libGLX_nvidia.so.0", bits=32).link(
                f"{lib}/libGLX_nvidia.so.0", f"libGLX_nvidia.so.{version}"
            )

        exact = "libnvidia-gl-550:i386=550.120-0ubuntu0.24.04.1"
        yield Scenario(
            "an update left the 32-bit package behind",
            narrow(Machine.ubuntu2404_gpu(), "550.90.07"),
            finds="host",
            ladder=(("medium network", f"apt-install {exact}"), ("medium network", "by-hand libnvidia-gl-NNN:i386")),
        )
        yield Scenario(
            "libraries of an old .run file, in no package",
            narrow(Machine.ubuntu2404_gpu(), "470.63.01", package=False),
            finds="host",
            alone=False,
        )
        yield Scenario(
            "Steam without any 32-bit library of the driver",
            Machine.ubuntu2404_gpu().package("steam", "1:1.0.0.79~ds-2", arch="i386"),
            finds="host",
            ladder=(("medium network", f"apt-install {exact}"), ("medium network", "by-hand libnvidia-gl-NNN:i386")),
        )
        yield Scenario("the same version", narrow(Machine.ubuntu2404_gpu(), "550.120"))
        yield Scenario("a machine that only computes", Machine.ubuntu2404_gpu())
        yield Scenario(
            "leftover configuration files of a 32-bit package",
            Machine.ubuntu2404_gpu().package(
                "libnvidia-gl-550", "550.90.07-0ubuntu0.24.04.1", arch="i386", status="deinstall ok config-files"
            ),
        )
        yield Scenario("64-bit parts of Steam alone", Machine.ubuntu2404_gpu().package("steam-launcher", "1:1.0.0.82"))
        yield Scenario(
            "apt is running",
            narrow(Machine.ubuntu2404_gpu(), "550.90.07").locked("/var/lib/dpkg/lock", 1595, "dpkg"),
            unknown=True,
        )


def _narrow(package: Package) -> bool:
    return package.architecture == FOREIGN and package.unpacked
