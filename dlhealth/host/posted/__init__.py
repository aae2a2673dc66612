"""A machine that is known only from posted files: a bug report of NVIDIA's tool, a sosreport, or pasted outputs.

The input may come from anybody: nothing is extracted or executed, its sizes are limited, and what it does not show is
unknown.
"""

import os
import stat
from collections.abc import Iterator

from dlhealth.host.base import NotAMachine
from dlhealth.host.posted import archive, bugreport, sosreport
from dlhealth.host.posted.known import Pieces, PostedHost
from dlhealth.host.posted.outputs import read_pasted

_FILES_LIMIT = 2000
"""The most files in a directory of pasted outputs."""


def read_posted(path: str) -> PostedHost:
    """The machine that a file describes. Raises NotAMachine, OSError."""
    start = archive.head(path)
    pieces, name = Pieces(), os.path.basename(path)
    if archive.is_tar(start):
        known = sosreport.read_sosreport(archive.members(path), pieces)
    else:
        known = _read_text(archive.text_of(path), name, pieces)
    if not known:
        raise NotAMachine(
            f"{path}: dlhealth recognizes nothing in it. It reads an archive of dlhealth capture, an "
            "nvidia-bug-report.log, a sosreport, and the outputs of dmesg, dpkg -l, lspci -nnk, dkms status, nvidia-smi "
            "and other commands"
        )
    pieces.finish()
    return PostedHost(name, pieces, os.stat(path).st_mtime)


def read_directory(path: str) -> PostedHost | None:
    """The machine that the outputs in a directory describe; None if none of its files contains any."""
    pieces = Pieces()
    if os.path.isdir(f"{path}/{sosreport.MARK}"):
        known = sosreport.read_sosreport(sosreport.members_of(path), pieces)
    else:
        known = False
        for name, text in _texts(path):
            known = _read_text(text, name, pieces) or known
    name = os.path.basename(os.path.abspath(path))
    pieces.finish()
    return PostedHost(name, pieces, os.stat(path).st_mtime) if known else None


def _read_text(text: str, name: str, pieces: Pieces) -> bool:
    if bugreport.MARK in text[:4000]:
        bugreport.read_bug_report(text.replace("\r\n", "\n"), name, pieces)
        return True
    return read_pasted(text, name, pieces)


def _texts(path: str) -> Iterator[tuple[str, str]]:
    with os.scandir(path) as entries:
        names = sorted(e.name for e in entries if e.is_file(follow_symlinks=False))
    left = archive.SIZE_LIMIT
    for name in names[:_FILES_LIMIT]:
        if stat.S_ISREG(os.lstat(f"{path}/{name}").st_mode):
            text = archive.text_of(f"{path}/{name}")
            left -= len(text)
            if left < 0:
                raise archive.TooLarge(f"{path}: its files are larger than {archive.SIZE_LIMIT >> 20} MiB in all")
            yield name, text
