"""A machine in a directory, to compare with itself."""

import os
from pathlib import Path


def snapshot(root: Path) -> dict[str, object]:
    """All that a person would call the state of the machine: the transactions' own store is not part of it."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith("var/lib/dlhealth") or name in ("var", "var/lib"):
            continue
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        attributes = () if path.is_symlink() else tuple((a, os.getxattr(path, a)) for a in os.listxattr(path))
        found[name] = (status.st_mode, status.st_uid, status.st_gid, content, attributes)
    return found
