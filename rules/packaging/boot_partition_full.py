"""/boot is full: a new initramfs does not fit, so updates of kernel and driver fail halfway.

What you see
    zstd: error 25 : Write error : No space left on device (cannot write compressed block)

    update-initramfs: failed for /boot/initrd.img-... with 1.
Why
    /boot is a small partition, and old kernels stay on it. The driver's modules and firmware make each initramfs
    about 130 MB larger.

    A new initramfs is written before the old one is removed, so /boot needs space for both.
Repair
    Remove old kernels. The running kernel and the two newest that can start stay. If apt itself is stuck, dlhealth
    first moves one old initramfs out of the way, so that dpkg can finish.
What the repair risks
    There are fewer old kernels to boot in an emergency. Never delete files in /boot with a wildcard.
By hand
    df -h /boot
    dpkg -l 'linux-image-*'
    apt-get purge linux-image-OLD
    dpkg --configure -a
    apt-get -f install
"""

from collections.abc import Iterator

from dlhealth.api import (
    Action,
    AptFailures,
    AptRemove,
    BootFolder,
    ByHand,
    DpkgConfigure,
    Evidence,
    Finding,
    Kernel,
    Machine,
    MoveAside,
    PackageLocks,
    Packages,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Storage,
    Unknown,
    UpdateInitramfs,
    version_key,
)

SMALL = 32 << 20
"""Bytes that should be free on a /boot that has no initramfs to compare with."""


class BootPartitionFull(Rule):
    id = "boot-partition-full"
    title = "/boot is full"
    stage = Stage.DISK
    severity = Severity.ERROR
    risk = Risk.MEDIUM
    explains = ("dpkg-interrupted", "initramfs-stale-nouveau-blacklist")

    def detect(
        self,
        storage: Storage,
        boot: BootFolder,
        packages: Packages | None,
        failures: AptFailures | None,
        locks: PackageLocks | None,
    ) -> Iterator[Finding | Unknown]:
        if "/boot" not in storage.systems:
            yield Unknown("/boot does not exist; probably it is not mounted")
            return
        space = storage.systems["/boot"].space
        no_space = failures.of("no-space") if failures else None
        pending = _pending(boot, packages)
        if storage.separate("/boot"):
            full = space.free < (boot.largest or SMALL)
            evidence = [Evidence("/boot", f"{_mb(space.free)} of {_mb(space.total)} free")]
            if boot.largest:
                evidence.append(Evidence("/boot/initrd.img-*", f"the largest has {_mb(boot.largest)}"))
        else:
            # Traces of a full /boot on a mounted disk whose /boot is not mounted. On the running machine, or if fstab has no
            # /boot, it was / that had no space.
            full = no_space is not None and bool(pending) and not storage.live and (bool(boot.mount) or not boot.fstab)
            evidence = []
        if not full:
            return
        if locks and locks.busy:
            yield Unknown(locks.busy)
            return
        if no_space:
            evidence.append(Evidence(no_space.source, no_space.text))
        evidence += [Evidence(source, shows) for source, shows in pending[:5]]
        if storage.separate("/boot"):
            needs = f", but an initramfs needs {_mb(boot.largest)}" if boot.largest else ""
            title = f"/boot has {_mb(space.free)} free{needs}: " + (
                f"{pending[0][1]}" if pending else "the next kernel or driver update will fail"
            )
        else:
            title = f"The disk was full when the initramfs was written: {pending[0][1]}"
        yield self.finding(
            "host",
            title,
            *evidence,
            severity=Severity.ERROR if pending else Severity.WARNING,
            stuck=bool(pending),
        )

    def remedies(
        self, finding: Finding, kernel: Kernel | None, packages: Packages | None, boot: BootFolder
    ) -> Iterator[Plan]:
        old = _old_kernels(kernel, boot)
        if old and packages:
            names = tuple(p.name for r in old for p in packages.installed(f"linux-*-{r}"))
            steps: list[Action] = []
            if finding.detail["stuck"]:
                first = next((r for r in old if boot.initrds.get(r)), None)
                if first:
                    steps.append(MoveAside(f"/boot/initrd.img-{first}"))
                steps.append(DpkgConfigure())
            if names:
                steps.append(AptRemove(names, purge=True))
            if steps:
                yield Plan(
                    f"Remove {'kernel' if len(old) == 1 else 'kernels'} {', '.join(old)} (the running kernel and the two newest that can start stay)",
                    Risk.MEDIUM,
                    (*steps, UpdateInitramfs("all")),
                    network=bool(names),
                )
        yield Plan(
            "Make the initramfs smaller, or /boot larger",
            Risk.MEDIUM,
            (
                ByHand(
                    "set COMPRESS=xz or MODULES=dep in /etc/initramfs-tools/initramfs.conf and run update-initramfs -u -k all;"
                    " or enlarge /boot"
                ),
            ),
        )

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        log = (
            "\nLog started: 2025-03-01  06:12:01\nSetting up linux-image-6.8.0-52-generic ...\n"
            "update-initramfs: Generating /boot/initrd.img-6.8.0-52-generic\n"
            "zstd: error 25 : Write error : No space left on device (cannot write compressed block) \n"
            "E: mkinitramfs failure zstd -q -1 -T0 25\n"
            "update-initramfs: failed for /boot/initrd.img-6.8.0-52-generic with 1.\n"
            "dpkg: error processing package initramfs-tools (--configure):\nLog ended: 2025-03-01  06:13:10\n"
        )
        newer = "6.8.0-52-generic"

        def stuck() -> Machine:
            return (
                Machine.ubuntu2404()
                .kernel(newer, running=False)
                .file("/boot/initrd.img-6.8.0-50-generic", b"070701" + bytes(4000))
                .file(f"/boot/initrd.img-{newer}", b"")
                .package("initramfs-tools", "0.142ubuntu25.4", status="install ok half-configured")
                .file("/var/log/apt/term.log", log)
            )

        yield Scenario(
            "an empty initramfs beside a complete one",
            stuck(),
            finds="host",
            alone=False,
            ladder=(("medium", "by-hand COMPRESS=xz MODULES=dep /etc/initramfs-tools/initramfs.conf -u -k /boot"),),
        )
        yield Scenario(
            "the new kernel has no initramfs, and the driver waits for it",
            stuck()
            .remove(f"/boot/initrd.img-{newer}")
            .package("nvidia-dkms-550", "550.120-0ubuntu0.24.04.1", status="install ok half-configured")
            .file("/etc/fstab", "UUID=1 / ext4 defaults 0 1\nUUID=2 /boot ext4 defaults 0 2\n"),
            finds="host",
            alone=False,
        )
        yield Scenario(
            "an old error in the log, but everything is configured",
            Machine.ubuntu2404_gpu().file("/var/log/apt/term.log", log),
        )
        yield Scenario(
            "/boot is not a separate partition",
            stuck().file("/etc/fstab", "UUID=1 / ext4 defaults 0 1\n"),
        )
        yield Scenario("no /boot directory", Machine().file("/etc/hostname", "disk"), unknown=True)


def _pending(boot: BootFolder, packages: Packages | None) -> list[tuple[str, str]]:
    """Unfinished work that needs space in /boot, as (source, description)."""
    pending = []
    for package in packages.all() if packages else ():
        if package.unpacked and package.state != "installed":
            pending.append(("/var/lib/dpkg/status", f"{package.name} is {package.state}"))
    for release in boot.broken:
        size = boot.initrds[release]
        what = "is missing" if size is None else "is empty"
        pending.append((f"/boot/initrd.img-{release}", f"the initramfs of {release} {what}"))
    return pending


def _old_kernels(kernel: Kernel | None, boot: BootFolder) -> list[str]:
    """Kernels that can be removed, oldest first: not the running one, not the next to boot, not the newest, not the
    two newest that can start."""
    if kernel is None:
        return []
    ordered = sorted(
        (k.release for k in kernel.installed if k.has_image), key=lambda r: version_key(r.replace("-", "."))
    )
    usable = [r for r in ordered if boot.initrds.get(r)]
    keep = {kernel.running, kernel.next_boot, *ordered[-1:], *usable[-2:]}
    return [r for r in ordered if r not in keep]


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 10_000_000 else f"{size / 1e6:.1f} MB"
