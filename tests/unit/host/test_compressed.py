"""zstd with and without the Python module that reads it: the system's own library does as well."""

import ctypes
import io
import os
import sys

import pytest

from dlhealth.host.compressed import DamagedData, decompressed

if sys.version_info >= (3, 14):
    from compression.zstd import compress as zstd
else:
    from backports.zstd import compress as zstd

CONTENT = os.urandom(300_000) + bytes(5 << 20) + b"end"


def unpacked(packed: bytes, size: int) -> bytes:
    stream = decompressed(io.BytesIO(packed), packed[:6])
    parts = []
    while part := stream.read(size):
        parts.append(part)
    return b"".join(parts)


@pytest.fixture(params=["Python's module", "the system's library"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "the system's library":
        monkeypatch.setitem(sys.modules, "backports", None)
        monkeypatch.setitem(sys.modules, "compression", None)


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_it_reads_what_was_packed(reader: None, size: int) -> None:
    assert unpacked(zstd(CONTENT), size) == CONTENT


def test_frames_in_a_row(reader: None) -> None:
    assert unpacked(zstd(b"one") + zstd(b"two"), 1 << 20) == b"onetwo"


def test_an_empty_frame(reader: None) -> None:
    assert unpacked(zstd(b""), 100) == b""


@pytest.mark.parametrize("kept", [7, 1000, 250_000])
def test_one_that_is_cut_off_is_damaged(reader: None, kept: int) -> None:
    with pytest.raises(DamagedData):
        unpacked(zstd(CONTENT)[:kept], 1 << 16)


def test_nonsense_is_damaged(reader: None) -> None:
    with pytest.raises(DamagedData):
        unpacked(b"\x28\xb5\x2f\xfd" + b"\xff" * 100, 1 << 16)


def test_a_few_bytes_do_not_unpack_to_gigabytes_at_once(reader: None) -> None:
    packed = zstd(bytes(64 << 20))
    assert len(packed) < 10_000
    assert len(decompressed(io.BytesIO(packed), packed[:6]).read(1 << 16)) <= 1 << 16


@pytest.mark.parametrize("name", ["libzstd.so.1", "liblz4.so.1"])
def test_without_either_the_reason_names_the_library(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def missing(library: str) -> None:
        raise OSError(f"{library}: cannot open shared object file")

    monkeypatch.setitem(sys.modules, "backports", None)
    monkeypatch.setitem(sys.modules, "compression", None)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    for magic in (b"\x28\xb5\x2f\xfd",) if "zstd" in name else (b"\x02\x21\x4c\x18", b"\x04\x22\x4d\x18"):
        with pytest.raises(DamagedData, match=f"cannot be read here \\({name} is missing\\)"):
            decompressed(io.BytesIO(magic + bytes(20)), magic + bytes(2))
