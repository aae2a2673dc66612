"""A login sets CUDA_VISIBLE_DEVICES so that no GPU, or not the meant one, is seen.

What you see
    torch.cuda.is_available() is False, or CUDA_ERROR_NO_DEVICE "no CUDA-capable device is detected", while nvidia-smi
    shows the GPU.
Why
    CUDA hides every GPU that this variable does not name. An experiment left it in a shell's start-up file: empty, -1,
    the number of a GPU that was taken out, or the UUID of one that was replaced. Numbers count from 0, and what follows
    the first wrong one is hidden, too.
    Slurm and other schedulers set it for each job, not in files that every login reads: those are not reported.
Repair
    Take the line out; a program that needs one GPU gets the variable on its own command line.
What the repair risks
    Programs that relied on the line may now use every GPU. It counts from the next login.
By hand
    unset CUDA_VISIBLE_DEVICES; nvidia-smi -L
    grep -n CUDA_VISIBLE_DEVICES ~/.bashrc ~/.profile /etc/environment; take that line out
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    DriverLibraries,
    EditFile,
    Environments,
    Evidence,
    Finding,
    Gpus,
    LoginEnvironment,
    Machine,
    Nvml,
    Plan,
    Risk,
    Rule,
    Scenario,
    Setting,
    Severity,
    Stage,
    Unknown,
)

_NAME = "CUDA_VISIBLE_DEVICES"


class CudaVisibleDevicesWrong(Rule):
    id = "cuda-visible-devices-wrong"
    title = "A login sets CUDA_VISIBLE_DEVICES so that a GPU is hidden by mistake"
    stage = Stage.ENVIRONMENT
    severity = Severity.ERROR

    def detect(
        self, environments: Environments, gpus: Gpus | None, nvml: Nvml | None, drivers: DriverLibraries | None
    ) -> Iterator[Finding | Unknown]:
        if not gpus.gpus if gpus else not (drivers and drivers.libraries):
            return  # nothing to hide
        seen: set[str] = set()
        for login in environments.logins:
            setting = _set(login)
            if setting is None and login.lost:
                yield Unknown(f"{_NAME} can't be told: {login.doubts[0]}", f"user:{login.account.name}")
            if setting is None or setting.source in seen:
                continue
            value = login.values.get(_NAME)
            if value is None:
                yield Unknown(f"{setting.source}: {_NAME} can't be told", f"user:{login.account.name}")
                continue
            problem = _wrong(value, gpus, nvml)
            if isinstance(problem, Unknown):
                yield problem
            elif problem:
                seen.add(setting.source)
                subject, about = environments.subject(setting.source)
                yield self.finding(
                    subject,
                    f"{setting.source} sets {_NAME}={value or chr(39) * 2}: {problem}",
                    Evidence(setting.source, f"{_NAME}={value or chr(39) * 2}"),
                    *((Evidence("/sys/bus/pci/devices", f"{len(gpus.gpus)} NVIDIA GPUs"),) if gpus else ()),
                    about=about,
                    source=setting.source,
                    line=setting.line,
                )

    def remedies(self, finding: Finding, environments: Environments) -> Iterator[Plan]:
        source, line = finding.detail["source"], finding.detail["line"]
        path, _, number = source.rpartition(":")
        if number.isdecimal() and re.fullmatch(rf"\s*(export\s+|setenv\s+|set\s+-\w+\s+)?{_NAME}[= ]\s*\S*\s*", line):
            yield Plan(f"Take {_NAME} out of {path}", Risk.LOW, (EditFile(path, ((int(number), line, None),)),))
        else:
            yield Plan(f"Take {_NAME} out of {path}", Risk.LOW, (ByHand(f"Take {_NAME} out of {source}"),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def bashrc(value: str, machine: Machine | None = None) -> Machine:
            return (machine or Machine.debian12_gpu()).append("/home/alice/.bashrc", f"export {_NAME}={value}\n")

        yield Scenario("empty", bashrc('""'), finds="user:alice", steps=("edit-file",))
        yield Scenario("-1", bashrc("-1"), finds="user:alice")
        yield Scenario("a GPU that is not there", bashrc("1"), finds="user:alice")
        yield Scenario(
            "for everybody, in a file of PAM's",
            Machine.debian12_gpu().file("/etc/environment", f"{_NAME}=NoDevFiles\n"),
            finds="file:/etc/environment",
            ladder=(
                (
                    "low",
                    "edit-file /etc/environment 1: -",
                ),
            ),
        )
        yield Scenario(
            "fish", Machine.debian12_gpu().user("bob", 1001, "/usr/bin/fish").folder("/home/bob/.config", uid=1001).file(
                "/home/bob/.config/fish/config.fish", f"set -gx {_NAME} -1\n", uid=1001), finds="user:bob",
        )  # fmt: skip
        yield Scenario("the only GPU", bashrc("0"))
        yield Scenario("two of two", bashrc("1,0", Machine.debian12_gpu().gpu(address="0000:02:00.0")))
        yield Scenario(
            "a job of a scheduler", bashrc("-1").append("/home/alice/.bashrc", f"unset {_NAME}\n"),
        )  # fmt: skip
        yield Scenario("without a GPU", bashrc("-1", Machine.debian12()))
        yield Scenario("a UUID, and nobody to ask", bashrc("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"), unknown=True)
        yield Scenario("chosen by a program", bashrc("$(pick-a-gpu)"), unknown=True)


def _set(login: LoginEnvironment) -> Setting | None:
    return login.last(_NAME) if _NAME in login.values else None


def _wrong(value: str, gpus: Gpus | None, nvml: Nvml | None) -> str | Unknown:
    """What is wrong with a value, "" when nothing is."""
    first = value.split(",")[0].strip()
    if first in ("", "-1") or not re.match(r"\d|GPU-|MIG-", first):
        return "no GPU is visible to CUDA"
    count = len(gpus.gpus) if gpus else None
    uuids = [g.uuid for g in nvml.gpus if g.uuid] if nvml and nvml.outcome == "ok" else []
    for entry in (e.strip() for e in value.split(",")):
        if entry.isdecimal():
            if count is None:
                return Unknown(f"{_NAME}={value}: there are no GPUs to count here")
            if int(entry) >= count:
                return f"there are GPUs 0 to {count - 1} only; GPU {entry} and what follows it is not visible"
        elif entry.startswith("GPU-"):
            if not uuids or len(uuids) != count:
                return Unknown(f"{_NAME}={value}: the UUIDs of the GPUs are not known here")
            if not any(uuid.startswith(entry) for uuid in uuids):
                return f"there is no GPU {entry} (there are {', '.join(uuids)})"
        elif entry.startswith("MIG-"):
            return Unknown(f"{_NAME}={value}: the MIG instances are not known here")
    return ""
