"""What an ELF file requires of other libraries."""

import io
import os

import pytest

from dlhealth.host.elf import NotElf, read_elf
from dlhealth.testing import elf


def test_required_versions_of_symbols() -> None:
    content = elf.shared_library("libx.so", ["libstdc++.so.6"], versions=["GLIBCXX_3.4.30", "CXXABI_1.3"])
    assert read_elf(io.BytesIO(content), len(content)).versions == ("GLIBCXX_3.4.30", "CXXABI_1.3")


def test_a_real_program_requires_versions_of_the_c_library() -> None:
    path = os.path.realpath("/usr/bin/env")
    with open(path, "rb") as file:
        versions = read_elf(file, os.path.getsize(path)).versions
    assert any(v.startswith("GLIBC_2.") for v in versions)


def test_a_chain_that_leads_out_of_its_section() -> None:
    content = elf.shared_library("libx.so", ["liby.so"], versions=["V_1"])
    first, none = (16).to_bytes(4, "little"), bytes(4)
    broken = content.replace(first + none, b"\xff\xff\0\0" + none)
    assert broken != content
    with pytest.raises(NotElf):
        read_elf(io.BytesIO(broken), len(broken))


def test_a_large_table_of_strings_is_read_where_it_is_needed() -> None:
    """As patchelf leaves it in PyTorch's and cuDNN's libraries."""
    needed = [f"lib{number}{'x' * 60_000}.so" for number in range(150)]
    content = elf.shared_library("libx.so", needed, versions=["V_1"])
    assert len(content) > 8 << 20
    read = read_elf(io.BytesIO(content), len(content))
    assert (read.soname, read.needed, read.versions) == ("libx.so", tuple(needed), ("V_1",))


def test_what_is_wrong_with_a_file_is_told_in_words() -> None:
    content = elf.shared_library("libx.so", ["liby.so"])
    cut = content[:100]
    with pytest.raises(NotElf, match="truncated or damaged"):
        read_elf(io.BytesIO(cut), len(cut))
