"""A limit of logins is too low for deep learning: open files, or locked memory for RDMA.

What you see
    OSError: [Errno 24] Too many open files

    RuntimeError: received 0 items of ancdata (from a DataLoader with workers)

    NCCL over InfiniBand: Call to ibv_reg_mr failed with error Cannot allocate memory
Why
    PyTorch's DataLoader opens a file descriptor for each tensor that a worker sends. The usual limit of 1024 is often
    enough; here /etc/security/limits.conf sets less.

    RDMA needs locked memory (memlock). The usual limit of some megabytes is far too low for it.
Repair
    Raise the limit in /etc/security. It takes effect at the next login.
What the repair risks
    Low: a program may then open more files or lock more memory.
By hand
    ulimit -n; ulimit -l
    grep -rn nofile /etc/security/limits.conf /etc/security/limits.d
    printf '* - memlock unlimited\\n' > /etc/security/limits.d/90-rdma.conf
"""

from collections.abc import Iterator

from dlhealth.api import (
    EditFile,
    Evidence,
    Finding,
    Gpus,
    Limit,
    Machine,
    Plan,
    Platform,
    PlatformSetting,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
    UserLimits,
    WriteFile,
)

_USUAL = 1024
"""Open files that the kernel allows unless somebody sets another number."""
_ENOUGH = 65536
_RDMA = "/etc/security/limits.d/90-rdma.conf"


class UlimitsTooLow(Rule):
    id = "ulimits-too-low"
    title = "A limit of logins is too low for deep learning"
    stage = Stage.ENVIRONMENT
    severity = Severity.WARNING

    def detect(self, platform: Platform, limits: UserLimits, gpus: Gpus | None) -> Iterator[Finding | Unknown]:
        yield from (Unknown(problem) for problem in limits.problems)
        for limit in limits.limits:
            if limit.item == "nofile" and limit.value is not None and limit.value < _USUAL:
                yield self.finding(
                    f"file:{limit.place.path}",
                    f"{limit.place} allows {'every user' if limit.domain == '*' else limit.domain} only {limit.value} open files; "
                    f"the usual limit is {_USUAL}",
                    Evidence(limit.place, limit.text.strip()),
                    limit=limit,
                )
        locked = any(limit.item == "memlock" for limit in limits.limits)
        if limits.rdma and gpus and gpus.gpus and not locked and platform.setting is PlatformSetting.MACHINE:
            yield self.finding(
                "host",
                f"This machine has {limits.rdma[0]} for RDMA, but no limit of locked memory is set: NCCL may fail on it",
                Evidence("/sys/class/infiniband", " ".join(limits.rdma[:8])),
                Evidence("/etc/security/limits.d", "no line for memlock"),
                severity=Severity.NOTE,
                limit=None,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        limit: Limit | None = finding.detail["limit"]
        if limit is None:
            text = "* soft memlock unlimited\n* hard memlock unlimited\n"
            yield Plan("Allow locked memory without a limit", Risk.LOW, (WriteFile(_RDMA, text),))
            return
        new = f"{limit.domain} {limit.kind} nofile {_ENOUGH}"
        edit = EditFile(limit.place.path, ((limit.place.line or 0, limit.text, new),))
        yield Plan(f"Allow {_ENOUGH} open files", Risk.LOW, (edit,))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        conf = "/etc/security/limits.conf"

        def machine(text: str, path: str = conf) -> Machine:
            return Machine.ubuntu2404_gpu().file(path, text)

        yield Scenario(
            "few open files for all",
            machine("# limits\n*    soft    nofile    256\n"),
            finds=f"file:{conf}",
            steps=("edit-file",),
            ladder=(("low", f"edit-file {conf} 2: * soft nofile {_ENOUGH}"),),
        )
        yield Scenario(
            "few open files for one user",
            machine("alice - nofile 512\n", "/etc/security/limits.d/alice.conf"),
            finds="file:/etc/security/limits.d/alice.conf",
            steps=("edit-file",),
        )
        yield Scenario(
            "RDMA without locked memory",
            machine("# nothing\n", "/etc/security/limits.d/README.conf").folder("/sys/class/infiniband/mlx5_0"),
            finds="host",
            steps=("write-file",),
        )
        yield Scenario("stock", machine("# /etc/security/limits.conf\n#*               soft    core            0\n"))
        yield Scenario("more than usual", machine("* soft nofile 65536\n* hard nofile 1048576\n"))
        yield Scenario("a later line raises it", machine("* soft nofile 256\n* soft nofile 4096\n"))
        yield Scenario(
            "RDMA with locked memory", machine("* - memlock unlimited\n").folder("/sys/class/infiniband/mlx5_0")
        )
        yield Scenario("not readable", Machine.ubuntu2404_gpu().fifo(conf), unknown=True)
