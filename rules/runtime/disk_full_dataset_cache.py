"""A file system with programs, homes or data is almost full.

What you see
    OSError: [Errno 28] No space left on device (while a checkpoint or a data set is saved)

    pip, conda, apt or a build of the driver's module fails halfway.
Why
    Data sets, caches of models (~/.cache/huggingface, ~/.cache/torch), pip's and conda's caches, Docker's images,
    checkpoints, core dumps and logs filled the disk. Deleted files that a program still has open also take space.

    A large disk may be 95 % full: the free space counts, not the percentage. If nothing at all is left, no
    session can start (login-loop-disk-full).
Repair
    Free space, caches first: they are downloaded again when they are needed.
What the repair risks
    Deleted data is lost. dlhealth deletes nothing.
By hand
    df -h; df -i
    du -xh --max-depth=2 /home | sort -h | tail
    docker system df
    # As the user:
    pip cache purge; conda clean --all
    # As root:
    apt-get clean; journalctl --vacuum-size=200M
"""

from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    HomeFiles,
    Machine,
    Plan,
    Platform,
    Risk,
    Rule,
    Scenario,
    Severity,
    Space,
    Stage,
    Storage,
    Unknown,
)

_PATHS = ("/", "/home", "/var")
_LITTLE = 1 << 30
"""Bytes. One wheel of PyTorch needs more."""
_PART = 20
"""The reciprocal of the part of a file system that is little; less than that of a small one may be usual."""
_SMALLEST = 4 << 30
"""Bytes. What is smaller was made for few files."""


class DiskFullDatasetCache(Rule):
    id = "disk-full-dataset-cache"
    title = "A file system with programs, homes or data is almost full"
    stage = Stage.DISK
    severity = Severity.WARNING
    risk = Risk.MEDIUM

    def detect(self, storage: Storage, homes: HomeFiles | None) -> Iterator[Finding | Unknown]:
        devices = set()
        spaces = {path: (s.device, s.space) for path, s in storage.systems.items() if path in _PATHS}
        for home in homes.homes if homes else ():
            file = home.file("")
            if file and home.space:
                spaces.setdefault(home.account.home, (file.status.device, home.space))
        if not spaces:
            yield from (Unknown(problem) for problem in storage.problems)
        for path, (device, space) in spaces.items():
            if device in devices or not _is_little(space):
                continue
            devices.add(device)
            total, free = space.total / (1 << 30), space.free / (1 << 20)
            yield self.finding(
                f"file:{path}",
                f"Only {free:.0f} MiB of {total:.0f} GiB are free on the file system of {path}",
                Evidence(path, f"{free:.0f} MiB free for users, of {total:.0f} GiB"),
                path=path,
            )

    def remedies(self, finding: Finding, platform: Platform | None) -> Iterator[Plan]:
        text = (
            f"Free space on {finding.detail['path']}. As the user: pip cache purge; conda clean --all."
            f"{f' As root: {platform.free_space}.' if platform else ''}"
            " docker system df shows what Docker keeps. Then move old data sets and checkpoints"
        )
        yield Plan("Free space", Risk.MEDIUM, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def df(*rows: str, head: str = "Filesystem      Size  Used Avail Use% Mounted on") -> Machine:
            return Machine().file("/df.txt", "\n".join([f"$ df\n{head}", *rows, ""]))

        yield Scenario(
            "the root file system",
            df("/dev/nvme0n1p2  468G  444G  300M 100% /", "tmpfs            16G  1.1M   16G   1% /run"),
            finds="file:/",
            ladder=(("medium", "by-hand / --all --vacuum-size=200M"),),
        )
        yield Scenario(
            "homes, in blocks of 1 KiB",
            df(
                "/dev/sda2       51474912  20000000  28830088  42% /",
                "/dev/sdb1     1921724676 1824000000   524288 100% /home",
                head="Filesystem     1K-blocks       Used Available Use% Mounted on",
            ),
            finds="file:/home",
        )
        yield Scenario("95 % of a large disk", df("/dev/sda1        20T   19T  900G  96% /"))
        yield Scenario(
            "a small file system",
            df("/dev/sda1       2.0G  1.8G  200M  90% /", "/dev/sdb1       1.0G  0.9G  100M  90% /home"),
        )
        yield Scenario("enough space", df("/dev/sda1       468G  200G  245G  45% /"))
        yield Scenario(
            "no output of df",
            Machine().file("/uname.txt", "Linux box 6.1.0-50-amd64 #1 SMP Debian 6.1.1 x86_64 GNU/Linux\n"),
            unknown=True,
        )


def _is_little(space: Space) -> bool:
    """Whether hardly anything can be written. Nothing left at all is found by login-loop-disk-full."""
    return space.total >= _SMALLEST and 4096 <= space.free < min(_LITTLE, space.total // _PART)
