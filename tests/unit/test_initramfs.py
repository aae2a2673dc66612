"""What lies in an initramfs, however it is packed."""

import bz2
import ctypes
import gzip
import io
import lzma
from collections.abc import Callable

import pytest

from dlhealth.host.compressed import Damaged
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
    with pytest.raises(Damaged):
        read_initramfs(io.BytesIO(packed[: len(packed) * 2 // 3]))


@pytest.mark.parametrize(
    "rest", [b"\xff\xff\xff\x7f" + bytes(100), b"\x05\0\0\0\xff\xff\xff\xff\xff", b"\0\0\0\0", b"\x10\0", b""]
)
def test_nonsense_in_lz4(rest: bytes) -> None:
    with pytest.raises(Damaged):
        read_initramfs(io.BytesIO(b"\x02\x21\x4c\x18" + rest))


def test_two_streams_of_lz4_in_a_row() -> None:
    content = cpio(INSIDE)
    found = read_initramfs(io.BytesIO(lz4(content[:70_000]) + lz4(content[70_000:])))
    assert found[NAME] == "535.261.03"
