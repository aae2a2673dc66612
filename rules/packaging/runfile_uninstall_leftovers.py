"""Files of a removed driver are still on the disk.

What you see
    ldconfig: File /usr/lib/x86_64-linux-gnu/libcuda.so.1 is empty, not checked.

    Error! Could not locate dkms.conf file. (at every kernel update)

    The desktop has a low resolution, because nouveau is still blacklisted.
Why
    An uninstall was interrupted, or files were deleted by hand. What remains: libraries that belong to no package, a
    tree in /var/lib/dkms without its source, or the .run installer's blacklist of nouveau.

    Configuration files of removed packages do no harm. dlhealth does not report them.
Repair
    Move the leftover files out of the way. You can undo this.
What the repair risks
    Little: none of the moved files belongs to an installed driver.
By hand
    ls -l FILE
    dpkg -S FILE
    mv FILE FILE.bak
    ldconfig
    update-initramfs -u -k all
"""

from collections.abc import Iterator

from dlhealth.api import (
    Action,
    DriverLibraries,
    DriverPackages,
    DriverUse,
    Evidence,
    Finding,
    Gpus,
    Kernel,
    KernelModules,
    Machine,
    MoveAside,
    Plan,
    Reboot,
    RefreshLoaderCache,
    Risk,
    Rule,
    Runfile,
    Scenario,
    Severity,
    Stage,
    Unknown,
    Unowned,
    UpdateInitramfs,
    count,
    link_and_file,
)


class RunfileUninstallLeftovers(Rule):
    id = "runfile-uninstall-leftovers"
    title = "Files of a removed driver are still on the disk"
    stage = Stage.PACKAGE_SET
    severity = Severity.WARNING
    risk = Risk.MEDIUM
    explains = (
        "stale-libglx-symlink",
        "libcuda-missing-from-loader",
        "driver-library-version-mismatch-after-upgrade",
        "initramfs-stale-nouveau-blacklist",
    )

    def detect(
        self,
        runfile: Runfile,
        libraries: DriverLibraries,
        modules: KernelModules,
        driver: DriverPackages | None,
        gpus: Gpus | None,
        use: DriverUse | None,
        kernel: Kernel | None,
    ) -> Iterator[Finding | Unknown]:
        for problem in (*runfile.problems, *libraries.problems):
            yield Unknown(problem)
        packaged = driver.versions() if driver else {}
        there = {f.version for f in modules.files if f.version} | set(packaged)
        if modules.loaded_version:
            there.add(modules.loaded_version)
        if runfile.installed and runfile.version:
            there.add(runfile.version)
        yield from self._trees(runfile, there)
        if (use and use.elsewhere) or not (there or (kernel and kernel.installed)):
            return  # a container or an image without a kernel may use the driver of another machine
        yield from self._libraries(libraries, there, runfile)
        no_driver = not there and not (driver and driver.members)
        if no_driver and not (gpus and not gpus.gpus):
            for path in runfile.blacklists:
                yield self.finding(
                    f"file:{path}",
                    f"{path} blacklists nouveau, but no NVIDIA driver is installed, so the GPU has no driver at all",
                    Evidence(path, "blacklist nouveau"),
                    Evidence("/lib/modules", "no nvidia module for any kernel"),
                    paths=(path,),
                    kind="blacklist",
                )

    def _trees(self, runfile: Runfile, there: set[str]) -> Iterator[Finding]:
        for tree in runfile.trees:
            if not tree.sound and tree.version not in there:
                yield self.finding(
                    f"file:{tree.path}",
                    f"DKMS lists {tree.module} {tree.version}, but its source {tree.source} is missing, so every kernel update prints an error",
                    Evidence(f"{tree.path}/source", f"-> {tree.source} (has no dkms.conf)"),
                    paths=(tree.path,),
                    kind="dkms",
                )

    def _libraries(self, libraries: DriverLibraries, there: set[str], runfile: Runfile) -> Iterator[Finding | Unknown]:
        read = (x for x in libraries.libraries if not x.unread)
        suspect = [x for x in read if _stale(x.problem, x.version, there, bool(runfile.installed))]
        if unsure := [x.path for x in suspect if x.owner is Unowned.UNKNOWN]:
            yield Unknown(f"{unsure[0]} belongs to no driver found here, but its package is unknown")
        stale = [x for x in suspect if x.owner is Unowned.NOBODY]
        if not stale:
            return
        first = min(stale, key=lambda x: (not x.asked_for, x.path))
        what = first.problem if first.problem else f"from driver {first.version}, which is not installed"
        more = f" (and {count(len(stale) - 1, 'more file')})" if len(stale) > 1 else ""
        yield self.finding(
            f"file:{first.path}",
            f"{first.path} is {what}{more}",
            *(Evidence(x.path, x.problem or f"version {x.version}, belongs to no package") for x in stale[:10]),
            paths=tuple(dict.fromkeys(path for x in stale for path in link_and_file(x.path, x.real_path))),
            kind="library",
        )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        paths, kind = finding.detail["paths"], finding.detail["kind"]
        after: dict[str, tuple[Action, ...]] = {
            "dkms": (),
            "library": (RefreshLoaderCache(),),
            "blacklist": (UpdateInitramfs("all"), Reboot()),
        }
        what = ", ".join(paths) if len(paths) <= 3 else f"{paths[0]} and {len(paths) - 1} more files"
        yield Plan(
            f"Move {what} out of the way", Risk.LOW if kind == "dkms" else Risk.MEDIUM,
            (*(MoveAside(p) for p in paths), *after[kind]), reboot=kind == "blacklist",
        )  # fmt: skip

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        lib = "/usr/lib/x86_64-linux-gnu"
        blacklist = "/etc/modprobe.d/nvidia-installer-disable-nouveau.conf"
        yield Scenario(
            "a link of update-alternatives to a flavour without that library",
            Machine.debian12_gpu()
            .link(f"{lib}/libnvidia-cfg.so.1", "/etc/alternatives/nvidia--libnvidia-cfg.so.1")
            .link("/etc/alternatives/nvidia--libnvidia-cfg.so.1", f"{lib}/nvidia/tesla-470/libnvidia-cfg.so.1"),
            alone=False,
        )
        yield Scenario(
            "the source in /usr/src was deleted by hand",
            Machine.debian12_gpu().link("/var/lib/dkms/nvidia/470.57.02/source", "/usr/src/nvidia-470.57.02"),
            finds="file:/var/lib/dkms/nvidia/470.57.02",
            steps=("move-aside",),
            ladder=(("low", "move-aside /var/lib/dkms/nvidia/470.57.02"),),
        )
        yield Scenario(
            "libraries of a removed driver, one of them empty",
            Machine.ubuntu2404()
            .gpu(driver="nouveau")
            .library(f"{lib}/libcuda.so.525.60.11", "libcuda.so.1")
            .link(f"{lib}/libcuda.so.1", "libcuda.so.525.60.11")
            .file(f"{lib}/libnvidia-ml.so.1", b""),
            finds=f"file:{lib}/libcuda.so.1",
            ladder=(
                (
                    "medium",
                    "by-hand /usr/lib/x86_64-linux-gnu/libcuda.so.1 /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1 libcuda.so.1",
                ),
            ),
        )
        yield Scenario(
            "the .run installer's blacklist without its driver",
            Machine.debian12().gpu(driver="").file(blacklist, "blacklist nouveau\noptions nouveau modeset=0\n"),
            finds=f"file:{blacklist}",
            steps=("move-aside", "update-initramfs", "reboot"),
            alone=False,
            ladder=(
                (
                    "medium reboot",
                    "move-aside /etc/modprobe.d/nvidia-installer-disable-nouveau.conf",
                    "update-initramfs all",
                    "reboot",
                ),
            ),  # the missing driver is also a note
        )
        yield Scenario(
            "a broken link beside a working driver",
            Machine.debian12_gpu().link(f"{lib}/libnvidia-fbc.so.1", "libnvidia-fbc.so.470.57.02"),
            finds=f"file:{lib}/libnvidia-fbc.so.1",
            steps=("move-aside", "refresh-loader-cache"),
            ladder=(("medium", "move-aside /usr/lib/x86_64-linux-gnu/libnvidia-fbc.so.1", "refresh-loader-cache"),),
        )
        blank = "/usr/local/my libs"
        yield Scenario(
            "a library in a directory with a space in its name",
            Machine.debian12_gpu()
            .file("/etc/ld.so.conf.d/my.conf", f"{blank}\n")
            .library(f"{blank}/libcuda.so.470.82.01", "libcuda.so.1")
            .link(f"{blank}/libcuda.so.1", "libcuda.so.470.82.01"),
            finds=f"file:{blank}/libcuda.so.1",
            steps=("move-aside", "refresh-loader-cache"),
            ladder=(
                (
                    "medium",
                    "move-aside /usr/local/my libs/libcuda.so.1",
                    "move-aside /usr/local/my libs/libcuda.so.470.82.01",
                    "refresh-loader-cache",
                ),
            ),
        )
        yield Scenario("a complete installation from a .run file", Machine.ubuntu1604_runfile())
        yield Scenario("only packages", Machine.ubuntu2404_gpu())
        yield Scenario(
            "only configuration files of a removed package",
            Machine.debian12().package("nvidia-kernel-dkms", "535.261.03-1", status="deinstall ok config-files"),
        )
        yield Scenario(
            "the .run installer's log cannot be read",
            Machine.debian12().fifo("/var/log/nvidia-installer.log"),
            unknown=True,
        )


def _stale(problem: str, version: str, there: set[str], installed: bool) -> bool:
    """Whether a library that no package owns belongs to no installed driver."""
    if problem:
        return problem == "empty" or problem.startswith("a broken link")
    return bool(version) and version not in there and not (installed and not there)
