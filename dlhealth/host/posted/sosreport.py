"""A sosreport: an archive with copies of a machine's files, and the outputs of many commands below sos_commands/."""

import os
import posixpath
from collections.abc import Iterable, Iterator

from dlhealth.host.posted.archive import MEMBER_LIMIT, Member
from dlhealth.host.posted.kernel import log
from dlhealth.host.posted.known import Output, Pieces
from dlhealth.host.posted.outputs import read_outputs

MARK = "sos_commands"
_ENDS = "sos_strings"
"""Where sos keeps the ends of outputs that are too large; in the place of the output is a link."""
_COPIED = ("/etc/modprobe.d", "/etc/modules-load.d", "/etc/ld.so.conf.d", "/etc/X11/xorg.conf.d", "/etc/default/grub.d")
"""Directories that sos copies completely, if it copies anything from them."""


def read_sosreport(members: Iterable[Member], pieces: Pieces) -> bool:
    """Take the content of a report. False if it is not one."""
    known = False
    for member in members:
        path = posixpath.normpath(f"/{member.name}")
        if path.startswith((f"/{MARK}/", f"/{_ENDS}/")):
            known = True
            if member.target is None:
                _output(member.content.decode(errors="replace"), path[1:], pieces)
        elif member.target is not None and not path.startswith("/proc/"):
            pieces.link(path, member.target)
        elif member.target is None:
            pieces.file(path, member.content)
            directory = posixpath.dirname(path)
            if directory in _COPIED:
                pieces.listed(directory)
    return known


def _output(text: str, name: str, pieces: Pieces) -> None:
    """The output of a command, whose name is that of the file. A log has lines of everything: no other reader looks at
    it."""
    if posixpath.basename(name).startswith(("journalctl", "dmesg")):
        log(Output(text, name), pieces)
    else:
        read_outputs(text, name, pieces)


def members_of(directory: str) -> Iterator[Member]:
    """The files of an unpacked sosreport."""
    for parent, _, names in os.walk(directory):
        for name in names:
            path = f"{parent}/{name}"
            below = os.path.relpath(path, directory)
            if os.path.islink(path):
                yield Member(below, b"", os.readlink(path))
            elif os.path.isfile(path) and os.path.getsize(path) <= MEMBER_LIMIT:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                with open(fd, "rb") as file:
                    yield Member(below, file.read(MEMBER_LIMIT), None)
