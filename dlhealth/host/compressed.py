"""Kernel modules that are stored compressed (.ko.xz, .ko.zst, .ko.gz)."""

from typing import IO

from dlhealth.host.elf import Elf


def read_module(file: IO[bytes], path: str) -> Elf:
    """What a compressed module says of itself. Raises NotElf."""
    raise NotImplementedError
