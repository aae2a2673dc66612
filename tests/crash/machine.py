"""A small machine, and a repair that changes every kind of file on it."""

import os
from collections.abc import Sequence
from pathlib import Path

from dlhealth.actions import ChangeMode, ChangeOwner, EditFile, MakeDirectory, MakeLink, MoveAside, WriteFile
from dlhealth.host.private import PrivateFolder
from dlhealth.model import Action
from dlhealth.txn.journal import Journal

ACTIONS: Sequence[Action] = (
    EditFile("/home/alice/.bashrc", ((2, "export PATH=/usr/local/cuda/bin", "export PATH=/usr/local/cuda/bin:$PATH"),)),
    WriteFile("/etc/profile.d/cuda.sh", "export PATH\n"),
    MakeDirectory("/etc/OpenCL"),
    WriteFile("/etc/OpenCL/nvidia.icd", "libnvidia-opencl.so.1\n"),
    MoveAside("/etc/X11/xorg.conf"),
    ChangeOwner("/home/alice/.Xauthority", "alice", "alice"),
    ChangeMode("/tmp", 0o1777),
    MakeLink("/usr/local/cuda", "/usr/local/cuda-12.2"),
)


def make(root: Path) -> None:
    for folder in ("etc/X11", "etc/profile.d", "home/alice", "tmp", "usr/local"):
        (root / folder).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/bash\n")
    (root / "etc/group").write_text("alice:x:1000:\n")
    (root / "home/alice/.bashrc").write_text("# mine\nexport PATH=/usr/local/cuda/bin\nalias l=ls\n")
    (root / "home/alice/.Xauthority").write_bytes(b"\0cookie")
    (root / "etc/X11/xorg.conf").write_text("Section\n")
    (root / "usr/local/cuda").symlink_to("/usr/local/cuda-8.0")
    os.setxattr(root / "home/alice/.bashrc", "user.note", b"keep me")
    for path in (root / "home/alice", root / "home/alice/.bashrc"):
        os.chown(path, 1000, 1000)
    (root / "home/alice/.bashrc").chmod(0o640)
    (root / "tmp").chmod(0o755)


def journal_in(folder: Path) -> Journal:
    (folder / "journal").touch()
    return Journal(PrivateFolder("/", str(folder)))
