"""A partition of the machine that --root names is not mounted below it.

What you see
    /boot, /var, /usr or /home of the mounted disk is an empty folder, or has only old files. What is repaired with
    chroot is not there when the machine starts: its partition lies over it.
Why
    The disk was mounted from a rescue system, where only its root is mounted; etc/fstab of the disk names the others.
    Subvolumes of btrfs are mounted one by one too.
Repair
    dlhealth mounts nothing: mount it where the machine has it, then run dlhealth again. Until then nothing is changed
    that would be in it.
What the repair risks
    Nothing. Of a disk that may be failing, or of a machine that hibernates, mount it read-only first, and only look.
By hand
    mount /dev/... /mnt/boot (which one: grep -v '^#' /mnt/etc/fstab; blkid)
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
    title = "A partition of the machine is not mounted below --root"
    stage = Stage.DISK
    severity = Severity.NOTE  # nothing is wrong with the machine

    def detect(self, unmounted: UnmountedParts) -> Iterator[Finding]:
        for part in unmounted.parts:
            yield self.finding(
                f"file:{part.path}",
                f"{part.path} of this machine is not mounted here: what it holds was not looked at, and can't be repaired",
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
            "only the root of a rescued disk is mounted",
            Machine().file("/etc/fstab", f"{fstab}UUID=2 /boot ext4 defaults 0 2\n").folder("/boot"),
            finds="file:/boot",
        )
        yield Scenario(
            "the homes are a subvolume of their own",
            Machine().file("/etc/fstab", f"{fstab}UUID=1 /home btrfs subvol=@home 0 0\n").folder("/home"),
            finds="file:/home",
        )
        yield Scenario(
            "a copy of the whole machine in one folder",
            Machine.debian12()
            .file("/etc/fstab", f"{fstab}UUID=2 /boot ext4 defaults 0 2\n")
            .file("/boot/vmlinuz-6.1.0-50-amd64", "k"),
        )
        yield Scenario(
            "what is mounted by hand, or is no disk",
            Machine.debian12()
            .file("/etc/fstab", f"{fstab}/dev/sr0 /opt/cd iso9660 noauto 0 0\ntmpfs /var/tmp tmpfs defaults 0 0\n")
            .folder("/opt/cd")
            .folder("/var/tmp"),
        )
        yield Scenario("no fstab that can be read", Machine.debian12().folder("/etc/fstab"), unknown=True)
