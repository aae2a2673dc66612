"""The only access to the machine. Nothing outside this package opens files of the machine or starts programs."""

from dlhealth.host.base import (
    NOT_MOUNTED,
    Host,
    NoAnswer,
    NotAMachine,
    OutOfTime,
    Output,
    Post,
    PostedEnvironment,
    PostedSymptom,
    Space,
    Stat,
    Symptom,
    Unreadable,
)

__all__ = [
    "NOT_MOUNTED",
    "Host",
    "NoAnswer",
    "NotAMachine",
    "OutOfTime",
    "Output",
    "Post",
    "PostedEnvironment",
    "PostedSymptom",
    "Space",
    "Stat",
    "Symptom",
    "Unreadable",
]
