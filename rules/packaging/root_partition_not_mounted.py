"""A partition of the machine under --root is not mounted there.

What you see
    /boot, /var, /usr or /home of the mounted disk is an empty directory, or has only old files.

    Repairs made in the chroot vanish at boot, because the real partition is mounted over them.
Why
    A rescue system often mounts only the root partition of the disk. etc/fstab on that disk lists the others.
    Subvolumes of btrfs must be mounted one by one too.
Repair
    Mount the partition at the same place as on the machine, then run dlhealth again. dlhealth does not mount
    anything, and changes nothing that belongs on that partition.
What the repair risks
    Nothing. If the disk may be failing, or if the machine hibernates, mount it read-only first and only diagnose.
By hand
    # To find the partition:
    grep -v '^#' /mnt/etc/fstab
    blkid
    mount /dev/PARTITION /mnt/boot
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    UnmountedParts,
)


class RootPartitionNotMounted(Rule):
    id = "root-partition-not-mounted"
    title = "A partition of the machine is not mounted under --root"
    stage = Stage.DISK
    severity = Severity.NOTE  # nothing is wrong with the machine

    def detect(self, unmounted: UnmountedParts) -> Iterator[Finding]:
        for part in unmounted.parts:
            yield self.finding(
                f"file:{part.path}",
                f"{part.path} of this machine is not mounted here, so it can be neither checked nor repaired",
                Evidence(part.source, part.line),
                command=part.command,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        path = finding.subject.removeprefix("file:")
        yield Plan(f"Mount {path}, then run dlhealth again", Risk.LOW, (ByHand(finding.detail["command"]),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        fstab = "UUID=1 / ext4 defaults 0 1\n"
        yield Scenario(
            "only the root partition of a disk is mounted",
            Machine().file("/etc/fstab", f"{fstab}UUID=2 /boot ext4 defaults 0 2\n").folder("/boot"),
            finds="file:/boot",
            ladder=(("low", "by-hand UUID=2 /boot"),),
        )
        yield Scenario(
            "/home is a separate subvolume",
            Machine().file("/etc/fstab", f"{fstab}UUID=1 /home btrfs subvol=@home 0 0\n").folder("/home"),
            finds="file:/home",
            ladder=(("low", "by-hand -o subvol=@home UUID=1 /home"),),
        )
        yield Scenario(
            "a copy of the whole machine in one directory",
            Machine.debian12()
            .file("/etc/fstab", f"{fstab}UUID=2 /boot ext4 defaults 0 2\n")
            .file("/boot/vmlinuz-6.1.0-50-amd64", "k"),
        )
        yield Scenario(
            "file systems that are mounted by hand, or are not on a disk",
            Machine.debian12()
            .file("/etc/fstab", f"{fstab}/dev/sr0 /opt/cd iso9660 noauto 0 0\ntmpfs /var/tmp tmpfs defaults 0 0\n")
            .folder("/opt/cd")
            .folder("/var/tmp"),
        )
        yield Scenario("an fstab that cannot be read", Machine.debian12().folder("/etc/fstab"), unknown=True)
