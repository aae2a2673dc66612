"""dlhealth's own directories below a root, which may be another machine's disk.

Nothing in them is trusted: no link is followed, only regular files are opened, and sizes are limited. Standard library
only (rescue core).
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dlhealth.host.path import Root, naming
from dlhealth.records import NamedTuple

_ENTRIES = 10_000
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class PrivateFolder(NamedTuple):
    """A directory by its path inside a root. All methods raise OSError for links, devices, FIFOs and sockets."""

    root: str
    path: str

    def __str__(self) -> str:
        return self.root.rstrip("/") + self.path

    def __fspath__(self) -> str:
        return str(self)

    def __truediv__(self, name: str) -> "PrivateFolder":
        return PrivateFolder(self.root, f"{self.path}/{name}")

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of the directory."""
        root = Root(self.root)
        fd = root.open("/", os.O_PATH | os.O_DIRECTORY)
        walked = ""
        try:
            for part in [p for p in self.path.split("/") if p]:
                walked += f"/{part}"
                below = _open_folder(part, fd, f"{self.root.rstrip('/')}{walked}")
                os.close(fd)
                fd = below
                root.check(fd, walked)
            yield fd
        finally:
            os.close(fd)

    def names(self) -> list[str]:
        """Sorted names of the entries."""
        with self._listable() as fd:
            names = os.listdir(fd)
        if len(names) > _ENTRIES:
            raise OSError(errno.EFBIG, f"more than {_ENTRIES} entries", str(self))
        return sorted(names)

    def read(self, name: str, limit: int) -> bytes:
        """The content of a file of at most `limit` bytes."""
        fd = self.open_file(name, os.O_RDONLY)
        with open(fd, "rb") as file:
            if os.fstat(fd).st_size > limit:
                raise OSError(errno.EFBIG, f"larger than {limit >> 20} MiB", f"{self}/{name}")
            return file.read(limit)

    def open_file(self, name: str, flags: int) -> int:
        """A descriptor of an existing regular file. For writing, it must not have a second name."""
        path = f"{self}/{name}"
        with self.opened() as at, naming(path):
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            if status.st_nlink > 1 and flags & (os.O_WRONLY | os.O_RDWR):
                raise OSError(errno.EMLINK, "has a second name (hard link)")
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        if not os.path.samestat(os.fstat(fd), status):
            os.close(fd)
            raise OSError(errno.ESTALE, "changed while it was opened", path)
        return fd

    def create(self, name: str, content: bytes = b"") -> None:
        """Make a new file, synced when this returns. Raises FileExistsError."""
        with self.opened() as at, naming(f"{self}/{name}"):
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=at)
            with open(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)

    def make(self, mode: int = 0o700) -> None:
        """Make the directory if it is missing; directories above it get the usual mode."""
        try:
            with self.opened():
                return
        except FileNotFoundError:
            pass
        above, _, name = self.path.rpartition("/")
        parent = PrivateFolder(self.root, above)
        if above:
            parent.make(0o755)
        with parent.opened() as at, naming(str(self)):
            os.mkdir(name, mode, dir_fd=at)

    def rename(self, name: str, into: "PrivateFolder", new: str) -> None:
        """Rename something in this directory, synced when this returns."""
        with self.opened() as at, into.opened() as there, naming(f"{self}/{name}"):
            os.rename(name, new, src_dir_fd=at, dst_dir_fd=there)
        into.sync()
        if into != self:
            self.sync()

    def sync(self) -> None:
        """Sync the names in the directory."""
        with self._listable() as fd, naming(str(self)):
            os.fsync(fd)

    @contextmanager
    def _listable(self) -> Iterator[int]:
        with self.opened() as at:
            fd = os.open(".", os.O_RDONLY | _FOLDER, dir_fd=at)
        try:
            yield fd
        finally:
            os.close(fd)

    def clear(self) -> None:
        """Remove the directory and its content, if it exists."""
        above, _, name = self.path.rpartition("/")
        with suppress(FileNotFoundError), PrivateFolder(self.root, above).opened() as at:
            remove_tree(at, name)


def remove_tree(folder: int, name: str) -> None:
    """Remove the entry `name` of an open directory, with everything below it; no link is followed. A missing entry is
    not an error."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        os.unlink(name, dir_fd=folder)
        return
    for _, folders, files, at in os.fwalk(name, topdown=False, dir_fd=folder):
        for file in files:
            os.unlink(file, dir_fd=at)
        for below in folders:
            if stat.S_ISLNK(os.stat(below, dir_fd=at, follow_symlinks=False).st_mode):
                os.unlink(below, dir_fd=at)
            else:
                os.rmdir(below, dir_fd=at)
    os.rmdir(name, dir_fd=folder)


def _open_folder(name: str, at: int, path: str) -> int:
    try:
        return os.open(name, os.O_PATH | _FOLDER, dir_fd=at)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise OSError(error.errno, error.strerror, path) from error
        raise NotADirectoryError(errno.ENOTDIR, "a link, or not a directory", path) from error
