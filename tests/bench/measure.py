"""Runs commands in turn and prints what each cost: CPU seconds, peak memory, programs started. Standard library only,
because it runs inside the machines of the lab."""

import json
import os
import statistics
import subprocess
import sys
from typing import NamedTuple

ENVIRONMENT = {"HOME": "/root", "LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
"""Of what is measured. Who measures may have Python write no bytecode, which makes each start three times as long."""


class Cost(NamedTuple):
    """Of one command: medians over all rounds. Memory in MiB; `programs` without the command itself."""

    cpu: float
    wall: float
    memory: float
    programs: int


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, Cost]:
    """Each command once per round, so that what else the machine does falls on all alike."""
    samples: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for argv in commands.values():
        _once(argv)  # writes the bytecode
    for _ in range(rounds):
        for name, argv in commands.items():
            samples[name].append(_once(argv))
    return {
        name: Cost(
            statistics.median(s[0] for s in rows),
            statistics.median(s[1] for s in rows),
            statistics.median(s[2] for s in rows),
            _programs(commands[name]),
        )
        for name, rows in samples.items()
    }


def _once(argv: list[str]) -> tuple[float, float, float]:
    started = os.times().elapsed
    with open(os.devnull, "r+") as null:
        child = subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, env=ENVIRONMENT)
        _, _, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    return usage.ru_utime + usage.ru_stime, os.times().elapsed - started, usage.ru_maxrss / 1024


def _programs(argv: list[str]) -> int:
    """How many programs it starts, by strace; -1 where there is no strace."""
    try:
        traced = subprocess.run(  # noqa: PLW1510
            ["strace", "-f", "-qq", "-e", "trace=execve", "-o", "/dev/stdout", *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except FileNotFoundError:
        return -1
    return sum("execve(" in line and " = 0" in line for line in traced.stdout.splitlines()) - 1


if __name__ == "__main__":
    rounds, commands = json.loads(sys.argv[1])
    print(json.dumps(measure(commands, rounds)))
