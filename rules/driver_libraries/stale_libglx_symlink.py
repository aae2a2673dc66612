"""The X server's libglx.so is a link to a removed driver.

What you see
    (EE) Failed to load /usr/lib/xorg/modules/extensions/libglx.so: cannot open shared object file

    The desktop does not start, or it starts without acceleration.
Why
    Older .run installers replaced the X server's own file with a link libglx.so -> libglx.so.VERSION. When the driver
    was removed or replaced, the link stayed.

    Newer drivers have a separate libglxserver_nvidia.so beside libglx.so. That is normal.
Repair
    Reinstall the package that owns the file: xserver-xorg-core.
What the repair risks
    Nothing: the link was broken, or pointed to a driver that is not in use.
By hand
    apt-get install --reinstall xserver-xorg-core
    ldconfig
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    AptInstall,
    ByHand,
    DriverLibraries,
    Evidence,
    Finding,
    KernelModules,
    Machine,
    MoveAside,
    Packages,
    Plan,
    RefreshLoaderCache,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    Unowned,
    XorgGlx,
    owner_of,
)


class StaleLibglxSymlink(Rule):
    id = "stale-libglx-symlink"
    title = "The X server's libglx.so is a link to a removed driver"
    stage = Stage.LOADER
    severity = Severity.ERROR
    explains = ("login-loop-glx-broken-driver-mismatch",)

    def detect(
        self, glx: XorgGlx, libraries: DriverLibraries, modules: KernelModules | None
    ) -> Iterator[Finding | Unknown]:
        versions = libraries.versions()
        if modules:
            versions |= {f.version for f in modules.files if f.version}
            versions |= {modules.loaded_version} if modules.loaded_version else set()
        for link in glx.links:
            named = re.search(r"\.so\.(\d{2,4}\.\d+(?:\.\d+)?)$", link.real or link.target)
            wrong = bool(named) and bool(versions) and named is not None and named[1] not in versions
            if link.real and not wrong:
                continue
            ends = (
                f"which belongs to driver {named[1]}; installed: {', '.join(sorted(versions))}"
                if link.real and named
                else "which does not exist"
            )
            yield self.finding(
                f"file:{link.path}",
                f"{link.path} is a link to {link.target}, {ends}",
                Evidence(link.path, f"-> {link.target}"),
                *(Evidence(x.path, f"-> {x.real_path}") for x in libraries.libraries[:1] if versions),
                path=link.path,
            )

    def remedies(self, finding: Finding, packages: Packages | None) -> Iterator[Plan]:
        path = finding.detail["path"]
        owner = owner_of(packages, path)
        # The file belongs to the X server, even if dpkg does not list the link that replaced it.
        package = "xserver-xorg-core" if owner is Unowned.NOBODY and path.endswith("/libglx.so") else owner
        if package is Unowned.UNKNOWN:
            text = f"reinstall the package that owns {path}, or move the link out of the way"
            yield Plan(f"Replace the link {path}", Risk.LOW, (ByHand(text),))
        elif isinstance(package, str):
            yield Plan(
                f"Reinstall {package}", Risk.LOW,
                (MoveAside(path), AptInstall((package,), reinstall=True), RefreshLoaderCache()), network=True,
            )  # fmt: skip
        else:
            yield Plan(f"Move {path} out of the way", Risk.LOW, (MoveAside(path), RefreshLoaderCache()))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        folder = "/usr/lib/xorg/modules/extensions"
        yield Scenario(
            "the driver was removed, the link stayed",
            Machine.debian12().link(f"{folder}/libglx.so", "libglx.so.381.22"),
            finds=f"file:{folder}/libglx.so",
            steps=("move-aside", "apt-install", "refresh-loader-cache"),
            ladder=(
                (
                    "low network",
                    "move-aside /usr/lib/xorg/modules/extensions/libglx.so",
                    "apt-install xserver-xorg-core reinstall",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario(
            "a link to an older driver than the installed one",
            Machine.ubuntu2404_gpu()
            .library(f"{folder}/libglx.so.390.87")
            .link(f"{folder}/libglx.so", "libglx.so.390.87"),
            finds=f"file:{folder}/libglx.so",
            alone=False,  # the old file is a leftover too
        )
        yield Scenario("Debian's own layout", Machine.debian12_gpu())
        yield Scenario("the .run installer's link, in use", Machine.ubuntu1604_runfile())
        yield Scenario("no X server", Machine.debian12(), unknown=True)
