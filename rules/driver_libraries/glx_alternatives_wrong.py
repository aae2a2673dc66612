"""Debian's glx alternative leads to a GL stack that is not there, or not the one that is wanted.

What you see
    error: libGL.so.1: cannot open shared object file
    update-alternatives: error: no alternatives for glx
Why
    On Debian the package glx-diversions moves Mesa's libraries to /usr/lib/mesa-diverted, and the alternative glx
    chooses who provides them. When NVIDIA's libraries were never installed (a server, only CUDA), or were removed half
    way, or somebody chose the other side by hand, programs find no libGL or the wrong one. Ubuntu from 18.04 on has no
    such alternative; that it is absent there is normal.
Repair
    Let the alternatives system choose by priority again; install the missing libraries.
What the repair risks
    A wrong choice ends the running desktop: save your work, and restart the display manager afterwards.
By hand
    update-glx --auto glx; apt-get install --reinstall libgl1 libglx-mesa0; ldconfig
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
    title = "Debian's glx alternative leads to the wrong GL stack"
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
                yield Unknown(f"{driver.role('gl')[0].package.name} is installed, but no library of the driver is here")
                return
            missing = next((x.problem for x in libraries.libraries if x.name == "libGLX_nvidia.so.0"), "not there")
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
                f"{dead[0].path} leads nowhere: no program can load its GL library",
                *(Evidence(x.path, f"-> {x.target} (not there)" if x.target else "not there") for x in dead),
                *([Evidence("/etc/alternatives/glx", f"-> {choice}")] if choice else []),
                reinstall=("libgl1", "libegl1", "libglx-mesa0") if not glx.mesa else (),
            )
        elif glx.glx is None:
            if packages and packages.installed("glx-alternative-nvidia"):
                yield self.finding(
                    "host",
                    "The glx alternative is gone while glx-alternative-nvidia is installed: nothing chooses a GL library",
                    Evidence("/etc/alternatives/glx", "not there"),
                    Evidence("/var/lib/dpkg/status", "glx-alternative-nvidia is installed"),
                    reinstall=("glx-alternative-mesa", "glx-alternative-nvidia"),
                )
        elif not glx.glx.real:
            yield self.finding(
                "host",
                f"The glx alternative leads to {choice}, which is not there",
                Evidence("/etc/alternatives/glx", f"-> {choice} (not there)"),
                reinstall=(),
            )
        elif "mesa" in choice and "/usr/lib/nvidia" in glx.choices and driver and driver.role("x"):
            yield from self._mesa_chosen(glx, packages)

    def _mesa_chosen(self, glx: GlxAlternative, packages: Packages | None) -> Iterator[Finding | Unknown]:
        """Right on a laptop with two GPUs; wrong where X is told to use NVIDIA's driver, or there is no other GPU."""
        if packages and (packages.installed("bumblebee*") or packages.installed("primus*")):
            return
        if not glx.wanted and glx.hybrid is None:
            yield Unknown("whether there is another GPU than NVIDIA's could not be found out")
        elif glx.wanted or (glx.manual and glx.hybrid is False):
            yield self.finding(
                "host",
                "The glx alternative chooses Mesa, but NVIDIA's X driver is the one that is wanted: it can't be loaded"
                if glx.wanted
                else "Mesa was chosen by hand as the glx alternative, so no program draws with NVIDIA's GL",
                Evidence("/etc/alternatives/glx", f"-> {glx.glx.target if glx.glx else ''}"),
                Evidence("/var/lib/dpkg/alternatives/glx", "manual" if glx.manual else "auto"),
                *([Evidence(glx.wanted, 'Driver "nvidia"')] if glx.wanted else []),
                severity=self.severity if glx.wanted else Severity.NOTE,
                chosen=not glx.wanted,
                reinstall=(),
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if finding.detail.get("chosen"):
            text = "run sudo update-glx --auto glx, then restart"
            yield Plan("Use NVIDIA's GL again, if you want to", Risk.LOW, (ByHand(text),))
            return
        if packages := finding.detail["reinstall"]:
            yield Plan(
                f"Install {', '.join(packages)} again and let the alternative choose itself", Risk.MEDIUM,
                (AptInstall(packages, reinstall=True), SetAlternative("glx", ""), RefreshLoaderCache()), network=True,
            )  # fmt: skip
            return
        if finding.detail.get("absent"):
            yield Plan(
                "Choose Mesa, whose libraries are there", Risk.MEDIUM,
                (SetAlternative("glx", "/usr/lib/mesa-diverted"), RefreshLoaderCache()),
            )  # fmt: skip
            yield Plan(
                "Install NVIDIA's GL libraries again", Risk.MEDIUM,
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
            "the link of libGL leads nowhere",
            Machine.debian12_gpu().link(
                "/etc/alternatives/glx--libGL.so.1-x86_64-linux-gnu", f"{lib}/nvidia/libGL.so.1"
            ),
            finds="host",
            steps=("set-alternative", "refresh-loader-cache"),
        )
        yield Scenario(
            "NVIDIA's side chosen, its libraries purged half way",
            Machine.debian12()
            .package("glx-alternative-nvidia", "1.2.2")
            .package("glx-diversions", "1.2.2")
            .library("/usr/lib/mesa-diverted/x86_64-linux-gnu/libGL.so.1")
            .folder("/usr/lib/nvidia")
            .link("/etc/alternatives/glx", "/usr/lib/nvidia")
            .file(record, "manual\n/usr/lib/glx\n\n/usr/lib/mesa-diverted\n5\n/usr/lib/nvidia\n100\n\n"),
            finds="host",
        )
        yield Scenario(
            "Mesa chosen by hand, X told to use NVIDIA's driver",
            Machine.debian12_gpu()
            .link("/etc/alternatives/glx", "/usr/lib/mesa-diverted")
            .file("/etc/X11/xorg.conf", 'Section "Device"\n    Identifier "GPU"\n    Driver "nvidia"\nEndSection\n'),
            finds="host",
            alone=False,  # without its blacklist nouveau may also win
        )
        yield Scenario("as installed", Machine.debian12_gpu())
        yield Scenario(
            "a laptop with two GPUs that draws with the other one",
            Machine.debian12_gpu()
            .file("/sys/bus/pci/devices/0000:00:02.0/class", "0x030000\n")
            .file("/sys/bus/pci/devices/0000:00:02.0/vendor", "0x8086\n")
            .file("/sys/bus/pci/devices/0000:00:02.0/device", "0x3e92\n")
            .link("/etc/alternatives/glx", "/usr/lib/mesa-diverted"),
        )
        yield Scenario("Ubuntu, which has no such alternative", Machine.ubuntu2404_gpu(), unknown=True)
