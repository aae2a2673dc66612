"""What a bundle holds."""

import tarfile
from pathlib import Path


def contents(bundle: Path) -> dict[str, bytes]:
    """Every member of an archive."""
    with tarfile.open(bundle) as archive:
        files = ((m.name, archive.extractfile(m)) for m in archive)
        return {name: file.read() for name, file in files if file}
