"""Probes: each turns the host into one fact, a NamedTuple with a classmethod `probe`.

The annotations of `probe` are its inputs: the Host, the Options, other facts (or `Fact

None` for optional ones). It raises Unavailable, or lets Unreadable through, if it cannot read what it needs.
"""

from dlhealth.records import NamedTuple


class Unavailable(Exception):
    """The fact is not available here; the message says why, in words for the reader of the report."""


class Options(NamedTuple):
    """What the caller asked for, as far as probes care."""

    users: tuple[str, ...] = ()
    pythons: tuple[str, ...] = ()
    next_boot: bool = False
