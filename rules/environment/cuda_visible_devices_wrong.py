"""A login sets CUDA_VISIBLE_DEVICES so that it hides a GPU by mistake.

What you see
    torch.cuda.is_available() is False, or CUDA_ERROR_NO_DEVICE "no CUDA-capable device is detected", although
    nvidia-smi shows the GPU.
Why
    CUDA hides every GPU that this variable does not name. Somebody left it in a shell's start-up file after an
    experiment: empty, -1, the number of a removed GPU, or the UUID of a replaced one. Numbers count from 0, and
    everything after the first wrong number is hidden too.

    Slurm and other schedulers set the variable for each job, not in files that every login reads. This is not
    reported.
Repair
    Remove the line. Set the variable only on the command line of a program that needs one certain GPU.
What the repair risks
    Programs that relied on the line may now use every GPU. The change takes effect at the next login.
By hand
    unset CUDA_VISIBLE_DEVICES; nvidia-smi -L
    cd; grep -n CUDA_VISIBLE_DEVICES .bashrc .profile /etc/environment
    # edit that file and remove the line
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
    Place,
    Plan,
    Risk,
    Rule,
    Scenario,
    Setting,
    Severity,
    Stage,
    Unknown,
    count,
)

_NAME = "CUDA_VISIBLE_DEVICES"


class CudaVisibleDevicesWrong(Rule):
    id = "cuda-visible-devices-wrong"
    title = "A login sets CUDA_VISIBLE_DEVICES so that it hides a GPU by mistake"
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
                yield Unknown(f"cannot find out {_NAME}: {login.doubts[0]}", f"user:{login.account.name}")
            if setting is None or setting.source in seen:
                continue
            value = login.values.get(_NAME)
            if value is None:
                reason = f"{_NAME} is set by a program that dlhealth does not run ({setting.source})"
                yield Unknown(reason, f"user:{login.account.name}")
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
                    *((Evidence("/sys/bus/pci/devices", count(len(gpus.gpus), "NVIDIA GPU")),) if gpus else ()),
                    about=about,
                    source=setting.source,
                    line=setting.line,
                )

    def remedies(self, finding: Finding, environments: Environments) -> Iterator[Plan]:
        source: Place = finding.detail["source"]
        line = finding.detail["line"]
        if source.line and re.fullmatch(rf"\s*(export\s+|setenv\s+|set\s+-\w+\s+)?{_NAME}[= ]\s*\S*\s*", line):
            edit = EditFile(source.path, ((source.line, line, None),))
            yield Plan(f"Remove {_NAME} from {source.path}", Risk.LOW, (edit,))
        else:
            yield Plan(f"Remove {_NAME} from {source.path}", Risk.LOW, (ByHand(f"Remove {_NAME} from {source}"),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        def bashrc(value: str, machine: Machine | None = None) -> Machine:
            return (machine or Machine.debian12_gpu()).append("/home/alice/.bashrc", f"export {_NAME}={value}\n")

        yield Scenario(
            "empty",
            bashrc('""'),
            finds="user:alice",
            steps=("edit-file",),
            ladder=(("low", "edit-file /home/alice/.bashrc 15: -"),),
        )
        yield Scenario("-1", bashrc("-1"), finds="user:alice")
        yield Scenario("a GPU that does not exist", bashrc("1"), finds="user:alice")
        yield Scenario(
            "for everybody, in a file of PAM",
            Machine.debian12_gpu().file("/etc/environment", f"{_NAME}=NoDevFiles\n"),
            finds="file:/etc/environment",
            ladder=(("low", "edit-file /etc/environment 1: -"),),
        )
        yield Scenario(
            "fish", Machine.debian12_gpu().user("bob", 1001, "/usr/bin/fish").folder("/home/bob/.config", uid=1001).file(
                "/home/bob/.config/fish/config.fish", f"set -gx {_NAME} -1\n", uid=1001), finds="user:bob", ladder=(('low', 'edit-file /home/bob/.config/fish/config.fish 1: -'),),
        )  # fmt: skip
        yield Scenario("the only GPU", bashrc("0"))
        yield Scenario("two of two", bashrc("1,0", Machine.debian12_gpu().gpu(address="0000:02:00.0")))
        yield Scenario(
            "unset again, as in a scheduler's job", bashrc("-1").append("/home/alice/.bashrc", f"unset {_NAME}\n"),
        )  # fmt: skip
        yield Scenario("without a GPU", bashrc("-1", Machine.debian12()))
        yield Scenario(
            "a UUID, and the driver does not answer", bashrc("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"), unknown=True
        )
        yield Scenario("a program chooses the GPU", bashrc("$(pick-a-gpu)"), unknown=True)


def _set(login: LoginEnvironment) -> Setting | None:
    return login.last(_NAME) if _NAME in login.values else None


def _wrong(value: str, gpus: Gpus | None, nvml: Nvml | None) -> str | Unknown:
    """What is wrong with a value; "" if nothing is."""
    first = value.split(",")[0].strip()
    if first in ("", "-1") or not re.match(r"\d|GPU-|MIG-", first):
        return "this hides every GPU from CUDA"
    count = len(gpus.gpus) if gpus else None
    uuids = [g.uuid for g in nvml.gpus if g.uuid] if nvml and nvml.outcome == "ok" else []
    for entry in (e.strip() for e in value.split(",")):
        if entry.isdecimal():
            if count is None:
                return Unknown(f"{_NAME}={value}: cannot count the GPUs of this machine")
            if int(entry) >= count:
                known = "the only GPU is 0" if count == 1 else f"the GPUs are 0 to {count - 1}"
                return f"this hides GPU {entry} and all after it; {known}"
        elif entry.startswith("GPU-"):
            if not uuids or len(uuids) != count:
                return Unknown(f"{_NAME}={value}: cannot read the UUIDs of the GPUs")
            if not any(uuid.startswith(entry) for uuid in uuids):
                return f"there is no GPU {entry}; the GPUs are {', '.join(uuids)}"
        elif entry.startswith("MIG-"):
            return Unknown(f"{_NAME}={value}: cannot read the MIG instances of the GPUs")
    return ""
