"""Probes: each turns the host into one fact, a NamedTuple with a classmethod `probe`.

The annotations of `probe` are what it needs: the Host, the Options, other facts (or `Fact | None`, where it can do
without). It raises Unavailable, or lets Unreadable through, when it can't look.
"""

from dlhealth.records import NamedTuple


class Unavailable(Exception):
    """The fact can't be had here; the message says why, in words for the person who reads the report."""


class Options(NamedTuple):
    """What the caller asked for, as far as probes care."""

    users: tuple[str, ...] = ()
    pythons: tuple[str, ...] = ()
    next_boot: bool = False
