"""What lies in an initramfs image."""

from typing import IO


def read_initramfs(file: IO[bytes]) -> dict[str, str]:
    """Names below lib/modules, etc/modprobe.d, lib/modprobe.d and conf, and the text of the modprobe.d files.
    Raises ValueError when the image can't be read."""
    raise NotImplementedError
