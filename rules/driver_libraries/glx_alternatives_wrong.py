"""Debian's glx alternative points to missing or wrong GL libraries.

What you see
    error: libGL.so.1: cannot open shared object file

    update-alternatives: error: no alternatives for glx
Why
    On Debian, the package glx-diversions moves Mesa's libraries to /usr/lib/mesa-diverted. The alternative glx
    chooses between NVIDIA's and Mesa's libraries.

    Programs find no libGL, or the wrong one, if NVIDIA's libraries were not installed (a server, or only CUDA), if
    they were partly removed, or if somebody chose the other side by hand.

    Ubuntu 18.04 and newer do not have this alternative. That is normal.
Repair
    Let the alternatives system choose by priority again, and install the missing libraries.
What the repair risks
    A wrong choice ends the running desktop. Save your work, and restart the display manager afterwards.
By hand
    update-glx --auto glx
    apt-get install --reinstall libgl1 libglx-mesa0
    ldconfig
"""

from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    DriverLibraries,
    DriverPackages,
    Evidence,
    Finding,
    GlxAlternative,
    Machine,
    Packages,
    Plan,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    SetAlternative,
    Severity,
    Stage,
    Unknown,
)


class GlxAlternativesWrong(Rule):
    id = "glx-alternatives-wrong"
    title = "Debian's glx alternative points to the wrong GL libraries"
    stage = Stage.LOADER
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("login-loop-glx-broken-driver-mismatch", "nouveau-bound-instead-of-nvidia")

    def detect(
        self,
        glx: GlxAlternative,
        libraries: DriverLibraries,
        packages: Packages | None,
        driver: DriverPackages | None,
    ) -> Iterator[Finding | Unknown]:
        choice = glx.glx.target if glx.glx else ""
        if "nvidia" in choice and "bumblebee" not in choice and libraries.find("libGLX_nvidia.so.0") is None:
            if not libraries.libraries and driver and driver.role("gl"):
                yield Unknown(
                    f"{driver.role('gl')[0].package.name} is installed, but no library of the driver is visible here"
                )
                return
            if unread := libraries.unread("libGLX_nvidia.so.0"):
                yield Unknown(unread)
                return
            missing = next((x.problem for x in libraries.libraries if x.name == "libGLX_nvidia.so.0"), "not installed")
            yield self.finding(
                "host",
                f"The glx alternative chooses NVIDIA's GL ({choice}), but libGLX_nvidia.so.0 is {missing}",
                Evidence("/etc/alternatives/glx", f"-> {choice}"),
                Evidence("libGLX_nvidia.so.0", missing),
                reinstall=(),
                absent=True,
            )
            return
        dead = [
            x for x in glx.libraries if not x.real and (not x.target or x.target.startswith("/etc/alternatives/glx--"))
        ]
        if dead:
            yield self.finding(
                "host",
                f"{dead[0].path} is a broken link, so no program can load this GL library",
                *(Evidence(x.path, f"-> {x.target} (does not exist)" if x.target else "does not exist") for x in dead),
                *([Evidence("/etc/alternatives/glx", f"-> {choice}")] if choice else []),
                reinstall=("libgl1", "libegl1", "libglx-mesa0") if not glx.mesa else (),
            )
        elif glx.glx is None:
            if packages and packages.installed("glx-alternative-nvidia"):
                yield self.finding(
                    "host",
                    "The glx alternative is missing although glx-alternative-nvidia is installed, so no GL library is chosen",
                    Evidence("/etc/alternatives/glx", "does not exist"),
                    Evidence("/var/lib/dpkg/status", "glx-alternative-nvidia is installed"),
                    reinstall=("glx-alternative-mesa", "glx-alternative-nvidia"),
                )
        elif not glx.glx.real:
            yield self.finding(
                "host",
                f"The glx alternative points to {choice}, which does not exist",
                Evidence("/etc/alternatives/glx", f"-> {choice} (does not exist)"),
                reinstall=(),
            )
        elif "mesa" in choice and "/usr/lib/nvidia" in glx.choices and driver and driver.role("x"):
            yield from self._mesa_chosen(glx, packages)

    def _mesa_chosen(self, glx: GlxAlternative, packages: Packages | None) -> Iterator[Finding | Unknown]:
        """Mesa is right on a laptop with two GPUs, but wrong if X must use NVIDIA's driver or there is no other GPU."""
        if packages and (packages.installed("bumblebee*") or packages.installed("primus*")):
            return
        if not glx.wanted and glx.hybrid is None:
            yield Unknown("cannot find out whether the machine has another GPU besides NVIDIA's")
        elif glx.wanted or (glx.manual and glx.hybrid is False):
            yield self.finding(
                "host",
                "The glx alternative chooses Mesa, but X is configured for NVIDIA's driver, which cannot load"
                if glx.wanted
                else "Mesa was chosen by hand as the glx alternative, so programs do not use NVIDIA's GL",
                Evidence("/etc/alternatives/glx", f"-> {glx.glx.target if glx.glx else ''}"),
                Evidence("/var/lib/dpkg/alternatives/glx", "manual" if glx.manual else "auto"),
                *([Evidence(glx.wanted, 'Driver "nvidia"')] if glx.wanted else []),
                severity=self.severity if glx.wanted else Severity.NOTE,
                chosen=not glx.wanted,
                reinstall=(),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if finding.detail.get("chosen"):
            text = "run update-glx --auto glx as root, then reboot"
            yield Plan("If you want NVIDIA's GL, switch back to it", Risk.LOW, (ByHand(text),))
            return
        if packages := finding.detail["reinstall"]:
            yield Plan(
                f"Reinstall {', '.join(packages)} and let the alternative choose by priority", Risk.MEDIUM,
                (AptInstall(packages, reinstall=True), SetAlternative("glx", ""), RefreshLoaderCache()), network=True,
            )  # fmt: skip
            return
        if finding.detail.get("absent"):
            yield Plan(
                "Choose Mesa, whose libraries are installed", Risk.MEDIUM,
                (SetAlternative("glx", "/usr/lib/mesa-diverted"), RefreshLoaderCache()),
            )  # fmt: skip
            yield Plan(
                "Reinstall NVIDIA's GL libraries", Risk.MEDIUM,
                (AptInstall(("libgl1-nvidia-glvnd-glx", "libglx-nvidia0", "nvidia-egl-icd"), reinstall=True),
                 SetAlternative("glx", ""), RefreshLoaderCache()), network=True,
            )  # fmt: skip
            return
        yield Plan(
            "Let the glx alternative choose by priority", Risk.MEDIUM, (SetAlternative("glx", ""), RefreshLoaderCache())
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/usr/lib/x86_64-linux-gnu"
        record = "/var/lib/dpkg/alternatives/glx"
        yield Scenario(
            "the link of libGL is broken",
            Machine.debian12_gpu().link(
                "/etc/alternatives/glx--libGL.so.1-x86_64-linux-gnu", f"{lib}/nvidia/libGL.so.1"
            ),
            finds="host",
            steps=("set-alternative", "refresh-loader-cache"),
            ladder=(("medium", "set-alternative glx ", "refresh-loader-cache"),),
        )
        yield Scenario(
            "NVIDIA is chosen, but its libraries were partly purged",
            Machine.debian12()
            .package("glx-alternative-nvidia", "1.2.2")
            .package("glx-diversions", "1.2.2")
            .library("/usr/lib/mesa-diverted/x86_64-linux-gnu/libGL.so.1")
            .folder("/usr/lib/nvidia")
            .link("/etc/alternatives/glx", "/usr/lib/nvidia")
            .file(record, "manual\n/usr/lib/glx\n\n/usr/lib/mesa-diverted\n5\n/usr/lib/nvidia\n100\n\n"),
            finds="host",
            ladder=(
                ("medium", "set-alternative glx /usr/lib/mesa-diverted", "refresh-loader-cache"),
                (
                    "medium network",
                    "apt-install libgl1-nvidia-glvnd-glx libglx-nvidia0 nvidia-egl-icd reinstall",
                    "set-alternative glx ",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "Mesa chosen by hand, but X configured for NVIDIA's driver",
            Machine.debian12_gpu()
            .link("/etc/alternatives/glx", "/usr/lib/mesa-diverted")
            .file("/etc/X11/xorg.conf", 'Section "Device"\n    Identifier "GPU"\n    Driver "nvidia"\nEndSection\n'),
            finds="host",
            alone=False,  # without the blacklist, nouveau may also take the GPU
        )
        yield Scenario("the default of the packages", Machine.debian12_gpu())
        yield Scenario(
            "a laptop with two GPUs that uses the other one",
            Machine.debian12_gpu()
            .file("/sys/bus/pci/devices/0000:00:02.0/class", "0x030000\n")
            .file("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n")
            .file("/sys/bus/pci/devices/0000:00:02.0/device", "0x3e92\n")
            .link("/etc/alternatives/glx", "/usr/lib/mesa-diverted"),
        )
        yield Scenario("Ubuntu, which does not have this alternative", Machine.ubuntu2404_gpu(), unknown=True)
