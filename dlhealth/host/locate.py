"""Finds the machine that `--root` names."""

import os
import stat

from dlhealth.host.base import Host, NotAMachine
from dlhealth.host.remote import silence_at
from dlhealth.host.root import RootHost, live_host

BUNDLE_INDEX = "index.json"
_LANDMARKS = ("etc", "usr", "var", "proc", "sys", "boot", "home")


def host_at(where: str) -> Host:
    """The running machine for "/", otherwise the one in a directory or a file. Raises NotAMachine."""
    if silence := silence_at(where):
        raise NotAMachine(silence)
    try:
        status = os.stat(where)
        if os.path.samestat(status, os.stat("/")):
            return live_host()
        if stat.S_ISREG(status.st_mode):
            return _from_file(where)
        if not stat.S_ISDIR(status.st_mode):
            raise NotAMachine(f"{where} is neither a directory nor a file")
        names = os.listdir(where)
        if "sos_commands" in names or not any(name in names for name in _LANDMARKS):
            from dlhealth.host.posted import read_directory

            if posted := read_directory(where):
                return posted
        if not any(name in names for name in _LANDMARKS):
            # A failed mount leaves such a directory; a diagnosis of it would find no problem.
            # For btrfs, the subvolume is meant.
            paths = (os.path.join(where, name) for name in sorted(names))
            within = next((path for path in paths if os.path.isdir(f"{path}/etc")), "")
            raise NotAMachine(
                f"{where} does not look like the root of a machine: it has no {', '.join(_LANDMARKS[:3])}"
                + (f"; {within} has" if within else "")
            )
        return RootHost(where)
    except OSError as error:
        raise NotAMachine(f"{where or 'an empty name'}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # a NUL byte
        raise NotAMachine("not a possible file name") from error


def _from_file(path: str) -> Host:
    from dlhealth.host.posted import archive, read_posted

    start = archive.head(path)
    if archive.is_tar(start) and archive.first_name(start) == BUNDLE_INDEX:
        from dlhealth.host.bundle import read_bundle

        return read_bundle(path)
    return read_posted(path)


def folder_at(where: str) -> str:
    """The directory of a machine that can be changed: "/" for the running one. Raises NotAMachine."""
    host = host_at(where)
    if not isinstance(host, RootHost):
        raise NotAMachine(f"{where} can be diagnosed, not repaired: it is not the disk of a machine")
    return host.name
