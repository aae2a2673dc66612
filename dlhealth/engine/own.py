"""Files in which dlhealth keeps what it needs later: root's for the machine, each other user's for that user."""

import os

from dlhealth.host.newfile import keep_own, replace
from dlhealth.host.private import PrivateFolder

FOLDER = "/var/lib/dlhealth"


def own_file(name: str, *, live: bool = True) -> str:
    """The path of a file. Only root may read what root saw; each other user has a file on the running machine below the
    directory for the state of programs."""
    if not live or os.geteuid() == 0:
        return f"{FOLDER}/{name}"
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = state if os.path.isabs(state) else os.path.expanduser("~/.local/state")
    return os.path.join(folder, "dlhealth", name)


def keep_file(name: str, content: bytes, root: str = "/") -> None:
    """Replace a file, for the machine in a directory. Raises OSError."""
    path = own_file(name)
    if path != f"{FOLDER}/{name}":
        keep_own(path, content)
        return
    folder = PrivateFolder(root, FOLDER)
    folder.make(0o755)
    replace(f"{folder}/{name}", content, 0o600)
