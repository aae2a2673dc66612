"""The kernel or systemd-oomd ended a program because memory was used up.

What you see
    RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed.

    A training run, a build of an extension or the desktop session ends with "Killed", or without any message.
Why
    The main memory (not the GPU's) was used up, so the kernel ended the program that used most. Usual causes are too
    many DataLoader workers, a data set that is loaded as a whole, parallel compilers (MAX_JOBS), or no swap space.

    systemd-oomd, which Ubuntu has, ends a whole terminal or session before the kernel would act.

    In a container or a systemd unit, the limit of its control group was reached, although the machine has more.

    "CUDA out of memory" is about the GPU's memory and not this.
Repair
    Use fewer workers or jobs, add swap space, or raise the limit of the container.
What the repair risks
    Swap space takes room on the disk and is slow when it is used much.
By hand
    journalctl -k | grep -i 'killed process'
    journalctl -u systemd-oomd | grep Killed
    free -h
    swapon --show
    # A container's limit, on the host:
    docker update --memory 64g --memory-swap 64g CONTAINER
"""

import re
from collections.abc import Iterator

from dlhealth.api import (
    ByHand,
    Evidence,
    Finding,
    Journal,
    Line,
    Machine,
    Plan,
    Risk,
    Rule,
    Scenario,
    Severity,
    Stage,
    Unknown,
)
from dlhealth.lazy import regex

_KILLED = (
    r"^(?P<group>Memory cgroup out of memory|Out of memory)(?: \(oom_kill_allocating_task\))?: "
    r"Kill(?:ed)? process (?P<pid>\d+),? \(?(?P<name>[^)]+?)\)?,? (?:total-vm|score|UID)"
)
_PRESSURE = r"^Killed (?P<unit>\S+) due to memory (?:pressure|used)"
"""As systemd-oomd writes it (oomd-manager.c)."""
_USED = r"anon-rss:(\d+)kB"
_OURS = regex(
    r"python|pt_main_thread|pt_data_worker|ipykernel|jupyter|torchrun|deepspeed|ray::|ollama|llama|vllm|tritonserver"
    r"|nvcc|cicc|ptxas|cc1plus|cudafe|ninja|Xorg|gnome-shell|kwin|plasmashell|gnome-session|gdm|lightdm|sddm",
    re.IGNORECASE,
)
"""Programs of deep learning, compilers of extensions, and what a session cannot do without."""
_UNITS = regex(
    r"/(?:vte-spawn|ptyxis|konsole|session-\d+\.scope|user@\d+\.service$|.*(?:terminal|kitty|alacritty|jupyter|python|code|"
    r"gnome-shell|org\.gnome\.Shell|plasma))[^/]*$",
    re.IGNORECASE,
)
"""Units with a terminal, an editor or the session itself."""


class HostOomKiller(Rule):
    id = "host-oom-killer"
    title = "The kernel or systemd-oomd ended a program because memory was used up"
    stage = Stage.APPLICATIONS
    severity = Severity.WARNING
    explains = ("login-loop-unexplained",)

    def detect(self, journal: Journal) -> Iterator[Finding | Unknown]:
        killed: dict[tuple[str, str], list[Line]] = {}
        for line in journal.kernel(_KILLED, last_boot=True):
            match = re.search(_KILLED, line.text)
            if match and _OURS.search(match["name"]):
                killed.setdefault((match["name"], match["group"]), []).append(line)
        pressed: dict[str, list[Line]] = {}
        for line in journal.matching(_PRESSURE, ("systemd-oomd",), last_boot=True):
            match = re.search(_PRESSURE, line.text)
            if match and _UNITS.search(match["unit"]):
                pressed.setdefault(match["unit"].rpartition("/")[2], []).append(line)
        if not killed and not pressed and journal.problem:
            yield Unknown(journal.problem)
        for unit, lines in pressed.items():
            yield self.finding(
                "host",
                f"systemd-oomd ended {unit} with all its programs, because memory was short",
                *(Evidence(line.source, line.text.strip()[:200]) for line in lines[-2:]),
                limited=False,
            )
        for (name, group), lines in killed.items():
            times = f" {len(lines)} times" if len(lines) > 1 else ""
            limited = group.startswith("Memory cgroup")
            what = "its container or unit reached its limit" if limited else "the main memory was used up"
            used = re.search(_USED, lines[-1].text)
            size = f"; it used {int(used[1]) / (1 << 20):.1f} GiB" if used else ""
            yield self.finding(
                "host",
                f"Since the last boot, the kernel ended {name}{times}, because {what}{size}",
                *(Evidence(line.source, line.text.strip()[:200]) for line in lines[-2:]),
                limited=limited,
            )

    def remedies(self, finding: Finding) -> Iterator[Plan]:
        if finding.detail["limited"]:
            text = "raise the limit (docker run --memory, or MemoryMax= of the systemd unit), or use fewer DataLoader workers"
            yield Plan("Raise the memory limit", Risk.LOW, (ByHand(text),))
            return
        text = "use fewer DataLoader workers (num_workers) or compiler jobs (MAX_JOBS=4), and add swap space if swapon --show lists little"
        yield Plan("Use less memory, or add swap space", Risk.LOW, (ByHand(text),))

    @staticmethod
    def scenarios() -> Iterator[Scenario]:
        use = "total-vm:98304000kB, anon-rss:62914560kB, file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:1024kB oom_score_adj:0"
        yield Scenario(
            "a training run",
            Machine.ubuntu2404_gpu().says("kernel", f"Out of memory: Killed process 4242 (python) {use}"),
            finds="host",
            ladder=(("low", "by-hand MAX_JOBS=4 --show"),),
        )
        yield Scenario(
            "a container",
            Machine.ubuntu2404_gpu().says(
                "kernel", f"Memory cgroup out of memory: Killed process 629 (pt_main_thread) {use}"
            ),
            finds="host",
            ladder=(("low", "by-hand --memory MemoryMax="),),
        )
        yield Scenario(
            "as older kernels say it",
            Machine.debian12_gpu()
            .says("kernel", "Out of memory: Kill process 4242 (python3) score 900 or sacrifice child")
            .says("kernel", f"Killed process 4242 (python3) {use}"),
            finds="host",
        )
        pressure = "due to memory pressure for /user.slice/user-1000.slice/user@1000.service being 60.13% > 50.00% for > 20s with reclaim activity"
        slice_ = "/user.slice/user-1000.slice/user@1000.service/app.slice"
        yield Scenario(
            "a terminal, by systemd-oomd",
            Machine.ubuntu2404_gpu().says("systemd-oomd", f"Killed {slice_}/vte-spawn-0b86.scope {pressure}"),
            finds="host",
        )
        yield Scenario(
            "a browser, by systemd-oomd",
            Machine.ubuntu2404_gpu().says("systemd-oomd", f"Killed {slice_}/snap.firefox.firefox-1.scope {pressure}"),
        )
        yield Scenario(
            "another program",
            Machine.ubuntu2404_gpu().says("kernel", f"Out of memory: Killed process 77 (mysqld) {use}"),
        )
        yield Scenario(
            "memory of the GPU",
            Machine.ubuntu2404_gpu().says("gnome-shell", "python: CUDA out of memory. Tried to allocate 2 GiB"),
        )
        yield Scenario("nothing in the log", Machine.ubuntu2404_gpu().says("kernel", "eth0: link up"))
        yield Scenario("no log", Machine.ubuntu2404_gpu(), unknown=True)
