"""What lies in an initramfs, however it is packed."""

import bz2
import ctypes
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from dlhealth.host import initramfs
from dlhealth.host.compressed import DamagedData
from dlhealth.host.initramfs import read_initramfs
from dlhealth.testing import elf

NAME = "usr/lib/modules/6.1.0-50-amd64/updates/dkms/nvidia-current.ko"
CONFIG = "etc/modprobe.d/nvidia-blacklists-nouveau.conf"


def cpio(files: dict[str, bytes]) -> bytes:
    content = b""
    for name, data in {**files, "TRAILER!!!": b""}.items():
        raw = name.encode() + b"\0"
        numbers = (0, 0o100644, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % n for n in numbers) + raw
        content += head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    return content + bytes(-len(content) % 512)


def zstd(content: bytes) -> bytes:
    from backports import zstd

    return zstd.compress(content)


def lz4(content: bytes) -> bytes:
    """As `lz4 -l` writes it, which is what mkinitramfs calls; here with blocks that are smaller than its own."""
    library = ctypes.CDLL("liblz4.so.1")
    packed = b"\x02\x21\x4c\x18"
    for start in range(0, len(content), 40_000):
        block = content[start : start + 40_000]
        buffer = ctypes.create_string_buffer(2 * len(block) + 100)
        size = library.LZ4_compress_default(block, buffer, len(block), len(buffer))
        packed += size.to_bytes(4, "little") + buffer.raw[:size]
    return packed


PACKERS = [lambda content: content, gzip.compress, lzma.compress, bz2.compress, zstd, lz4]
INSIDE = {
    CONFIG: b"blacklist nouveau\n",
    NAME: elf.kernel_module({"version": "535.261.03", "name": "nvidia"}) + bytes(100_000),
    "bin/busybox": bytes(range(256)) * 500,
}


@pytest.mark.parametrize("pack", PACKERS)
def test_every_way_to_pack_one(pack: Callable[[bytes], bytes]) -> None:
    early = cpio({"kernel/x86/microcode/AuthenticAMD.bin": b"\1" * 100}) + bytes(512)
    found = read_initramfs(io.BytesIO(early + pack(cpio(INSIDE))))
    assert found == {CONFIG: "blacklist nouveau\n", NAME: "535.261.03"}


@pytest.mark.parametrize("pack", PACKERS[1:])
def test_a_packed_one_that_is_cut_off(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(cpio(INSIDE))
    with pytest.raises(DamagedData):
        read_initramfs(io.BytesIO(packed[: len(packed) * 2 // 3]))


@pytest.mark.parametrize(
    "rest", [b"\xff\xff\xff\x7f" + bytes(100), b"\x05\0\0\0\xff\xff\xff\xff\xff", b"\0\0\0\0", b"\x10\0", b""]
)
def test_nonsense_in_lz4(rest: bytes) -> None:
    with pytest.raises(DamagedData):
        read_initramfs(io.BytesIO(b"\x02\x21\x4c\x18" + rest))


def test_two_streams_of_lz4_in_a_row() -> None:
    content = cpio(INSIDE)
    found = read_initramfs(io.BytesIO(lz4(content[:70_000]) + lz4(content[70_000:])))
    assert found[NAME] == "535.261.03"


BOMBS = {
    "gzip": lambda zeros: gzip.compress(zeros, 1),
    "xz": lambda zeros: lzma.compress(zeros, preset=0),
    "bzip2": bz2.compress,
    "zstd": zstd,
    "lz4": lz4,
}


@pytest.mark.parametrize("pack", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("limit", ["_SIZE_LIMIT", "_CPU_SECONDS"])
def test_what_unpacks_to_too_much(pack: Callable[[bytes], bytes], limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(cpio({"x": bytes(8 << 20)}))
    assert read_initramfs(io.BytesIO(packed)) == {}
    monkeypatch.setattr(initramfs, limit, 0)
    with pytest.raises(ValueError, match="more than 0"):
        read_initramfs(io.BytesIO(packed))


def test_a_module_inside_that_unpacks_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    module = f"{NAME}.xz"
    packed = cpio({module: lzma.compress(b"\x7fELF" + bytes(8 << 20)), "other": b"x"})
    assert read_initramfs(io.BytesIO(packed)) == {module: ""}
    monkeypatch.setattr(initramfs, "_SIZE_LIMIT", 1 << 20)
    with pytest.raises(ValueError, match="more than 1 MiB"):
        read_initramfs(io.BytesIO(packed))


def test_a_sparse_file_of_terabytes_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "initrd"
    path.write_bytes(cpio({CONFIG: b"blacklist nouveau"}))
    start = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(8 << 40)
    with path.open("rb") as file:
        assert read_initramfs(file) == {CONFIG: "blacklist nouveau"}
    with path.open("r+b") as file:
        file.seek((4 << 40) + start)
        file.write(cpio({"etc/modprobe.d/b.conf": b"x"}))
    with path.open("rb") as file:
        assert set(read_initramfs(file)) == {CONFIG, "etc/modprobe.d/b.conf"}


def test_zeros_without_end_are_no_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initramfs, "_ZEROS_LIMIT", 1 << 20)
    with pytest.raises(ValueError, match="only zeros"):
        read_initramfs(io.BytesIO(cpio({CONFIG: b"x"}) + bytes(4 << 20)))
