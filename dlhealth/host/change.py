"""The only place that writes to the machine: one path at a time, each by one atomic step.

A path has a state (type, content, owner). A new state is a rename of a finished temporary file, with everything synced
before and after. Standard library only (rescue core).
"""

import base64
import errno
import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dlhealth.host.path import Root, naming
from dlhealth.records import NamedTuple

SIZE_LIMIT = 64 << 20
"""The most bytes of a file that is kept for an undo; larger files are never edited, only moved."""


class NotChangeable(Exception):
    """The path must not be changed: it differs from the plan, is a device, is too large, is behind a user's link, or
    has a second name."""


class State(NamedTuple):
    """The state of one path. `kind` is absent, file, link or dir; `content` the bytes of a file or the target of a
    link. `attributes` are all extended ones, including ACLs and SELinux labels."""

    kind: str
    content: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    attributes: tuple[tuple[str, bytes], ...] = ()

    def with_mode(self, mode: int) -> "State":
        """The state after chmod(2): an ACL contains the mode too."""
        changed = tuple((n, _acl_of_mode(v, mode) if n == _ACL else v) for n, v in self.attributes)
        return self._replace(mode=mode, attributes=changed)

    @property
    def digest(self) -> str:
        """Equal for equal states."""
        text = repr((self.kind, self.mode, self.uid, self.gid, self.attributes)).encode()
        return hashlib.sha256(text + b"\0" + self.content).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The form that a transaction stores."""
        return {
            "kind": self.kind,
            "content": base64.b64encode(self.content).decode(),
            "mode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
            "attributes": [[k, base64.b64encode(v).decode()] for k, v in self.attributes],
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "State":
        """Raises ValueError, KeyError or TypeError for a value that `to_json` never makes."""
        attributes = tuple((str(k), base64.b64decode(v)) for k, v in record["attributes"])
        content = base64.b64decode(record["content"])
        state = cls(record["kind"], content, record["mode"], record["uid"], record["gid"], attributes)
        if state.kind not in _KINDS:
            raise ValueError(f"{state.kind!r:.80} is not a kind of file")
        if any(type(record[name]) is not int or not 0 <= record[name] <= most for name, most in _NUMBERS.items()):
            raise ValueError("a mode or an owner is out of range")
        return state


_KINDS = ("absent", "file", "link", "dir")
_NUMBERS = {"mode": 0o7777, "uid": (1 << 32) - 2, "gid": (1 << 32) - 2}


ABSENT = State("absent")

NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""The errors of a path that leads nowhere."""

_ACL = "system.posix_acl_access"
_ACL_HEADER, _ACL_ENTRY = "<I", "<HHI"  # linux/posix_acl_xattr.h: the version; tag, permissions, id
_OWNER, _GROUP, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20


def _acl_of_mode(acl: bytes, mode: int) -> bytes:
    """With a mask, the group bits are the mask (acl(5))."""
    start = struct.calcsize(_ACL_HEADER)
    entries = list(struct.iter_unpack(_ACL_ENTRY, acl[start:]))
    group = _MASK if any(tag == _MASK for tag, _, _ in entries) else _GROUP
    bits = {_OWNER: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}
    return acl[:start] + b"".join(struct.pack(_ACL_ENTRY, t, bits.get(t, p), i) for t, p, i in entries)


def get_state(root: Root, path: str) -> State:
    """The present state of the path. A link as the last component is never followed."""
    with naming(path), parent(root, path) as (folder, name):
        if folder is None:
            return ABSENT
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return ABSENT
        try:
            status = os.fstat(fd)
            mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
            if stat.S_ISLNK(status.st_mode):
                return State("link", os.fsencode(os.readlink("", dir_fd=fd)), 0, *owner)
            if stat.S_ISDIR(status.st_mode):
                return State("dir", b"", mode, *owner, _attributes(folder, name, path, status))
            if not stat.S_ISREG(status.st_mode):
                raise NotChangeable(f"{path} is a device, a FIFO or a socket")
            if status.st_size > SIZE_LIMIT:
                raise NotChangeable(f"{path} is larger than {SIZE_LIMIT >> 20} MiB")
        finally:
            os.close(fd)
        with open(_opened(folder, name, path, status), "rb") as file:
            if os.fstat(file.fileno()).st_nlink > 1:
                # A user may have made a second name to get a system file changed, and a rename would separate the two.
                raise NotChangeable(f"{path} has a second name (hard link)")
            return State("file", file.read(SIZE_LIMIT + 1), mode, *owner, attributes(file.fileno()))


def put_state(root: Root, path: str, state: State, mark: str) -> None:
    """Put the path into that state. `mark` names the transaction: temporary names contain it, so that the remains after
    a power cut can be told from a user's files."""
    with naming(path), parent(root, path) as (folder, name):
        if folder is None:
            if state.kind == "absent":
                return
            raise NotChangeable(f"the directory of {path} is gone")
        temporary = _temporary(name, mark)
        with suppress(FileNotFoundError):
            _remove(folder, temporary, path)
        if state.kind == "absent":
            with suppress(FileNotFoundError):
                _remove(folder, name, path)
        elif state.kind == "dir" and _is_folder(folder, name):
            _dress_folder(folder, name, state)
        else:
            try:
                _make(folder, temporary, state)
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):  # the first problem is the one to report
                    _remove(folder, temporary, path)
                raise
        os.fsync(folder)


_GET_FLAGS, _IMMUTABLE, _ONLY_GROWS = 0x80086601, 0x10, 0x20  # linux/fs.h: FS_IOC_GETFLAGS, FS_*_FL


def need_changeable(root: Root, path: str) -> None:
    """Raises NotChangeable for a relative path, and if an owner made the file or its directory immutable."""
    if not path.startswith("/"):
        raise NotChangeable(f"{path} is not an absolute path")
    with parent(root, path) as (folder, name):
        if folder is None:
            return
        locked = path.rpartition("/")[0] if _is_locked(folder) else ""
        with suppress(OSError):  # it does not exist, or is a link
            if stat.S_IFMT(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
                locked = path if _is_locked(fd) else locked
                os.close(fd)
    if locked:
        raise NotChangeable(f"{locked} is immutable. If you want to change it, first run: chattr -ia {locked}")


def _is_locked(fd: int) -> bool:
    import fcntl

    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(fd, _GET_FLAGS, bytes(struct.calcsize("l"))))
    except OSError:  # the file system has no such flags
        return False
    return bool(flags & (_IMMUTABLE | _ONLY_GROWS))


def _remove(folder: int, name: str, path: str) -> None:
    """Remove a file, a link or an empty directory."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=folder)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise NotChangeable(f"{path} is no longer empty") from None


def sweep(root: Root, path: str, mark: str) -> None:
    """Remove the temporary files of an interrupted change of that path. If there are none, nothing is written: a
    read-only disk may be the reason why the change failed."""
    with naming(path), parent(root, path) as (folder, name):
        if folder is not None:
            with suppress(FileNotFoundError):
                os.stat(_temporary(name, mark), dir_fd=folder, follow_symlinks=False)
                _remove(folder, _temporary(name, mark), path)
                os.fsync(folder)


def _temporary(name: str, mark: str) -> str:
    return f".{name}.{mark}"


def move(root: Root, path: str, destination: str) -> None:
    """Rename anything; no link is followed, and nothing at the destination is replaced. Raises OSError, EXDEV if the
    two are on different file systems."""
    with naming(path), parent(root, path) as (source, name), parent(root, destination) as (folder, new):
        if source is None or folder is None:
            raise NotChangeable(f"the directory of {path if source is None else destination} is gone")
        with suppress(FileNotFoundError):
            os.stat(new, dir_fd=folder, follow_symlinks=False)
            raise NotChangeable(f"{destination} already exists")
        os.rename(name, new, src_dir_fd=source, dst_dir_fd=folder)
        os.fsync(folder)
        os.fsync(source)


def _is_folder(folder: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _make(folder: int, name: str, state: State) -> None:
    if state.kind == "dir":
        os.mkdir(name, 0o700, dir_fd=folder)
        _dress_folder(folder, name, state)
        return
    if state.kind == "link":
        os.symlink(state.content, name, dir_fd=folder)
        os.chown(name, state.uid, state.gid, dir_fd=folder, follow_symlinks=False)
        return
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        view = memoryview(state.content)
        while view:
            view = view[os.write(fd, view) :]
        _dress(fd, state)
        os.fsync(fd)
    finally:
        os.close(fd)


def _dress_folder(folder: int, name: str, state: State) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        _dress(fd, state)
        os.fsync(fd)
    finally:
        os.close(fd)


def _dress(fd: int, state: State) -> None:
    os.fchown(fd, state.uid, state.gid)
    os.fchmod(fd, state.mode)  # after fchown, which clears set-user-ID bits
    wanted = dict(state.attributes)
    for name, _ in attributes(fd):
        if name not in wanted:
            os.removexattr(fd, name)
    for name, value in wanted.items():
        os.setxattr(fd, name, value)


def attributes(fd: int) -> tuple[tuple[str, bytes], ...]:
    """All extended attributes of an open file, sorted."""
    try:
        return tuple((n, os.getxattr(fd, n)) for n in sorted(os.listxattr(fd)))
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise  # counting as none, a user's attributes would be lost
        return ()  # a file system without them


def _opened(folder: int, name: str, path: str, status: os.stat_result) -> int:
    """Open the file that was checked, not one that somebody put in its place since: one file's owner with another
    file's content would give a file away."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if not os.path.samestat(os.fstat(fd), status):
        os.close(fd)
        raise NotChangeable(f"{path} was changed meanwhile")
    return fd


def _attributes(folder: int, name: str, path: str, status: os.stat_result) -> tuple[tuple[str, bytes], ...]:
    fd = _opened(folder, name, path, status)
    try:
        return attributes(fd)
    finally:
        os.close(fd)


@contextmanager
def parent(root: Root, path: str) -> Iterator[tuple[int | None, str]]:
    """A descriptor of the directory, None if it does not exist: also if a file replaced one above it, or a link there
    leads nowhere."""
    parts = [p for p in path.split("/") if p]
    if not path.startswith("/") or not parts or ".." in parts or "\0" in path:
        raise NotChangeable(f"{path!r} is not a valid path")
    try:
        fd = _folder(root, parts[:-1])
    except OSError as error:
        if error.errno not in NOWHERE:
            raise
        yield None, parts[-1]
        return
    try:
        yield fd, parts[-1]
    finally:
        os.close(fd)


def _folder(root: Root, parts: list[str]) -> int:
    """A link on the way is followed only if root alone could have made it: no link below the first directory of a user
    is. The owner of a directory can replace even root's directories in it."""
    fd = root.open("/", os.O_PATH | os.O_DIRECTORY)
    walked, others = "", False
    try:
        for part in parts:
            owner = os.fstat(fd)
            others = others or owner.st_uid != 0 or bool(owner.st_mode & 0o002)
            walked += f"/{part}"
            below = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            if stat.S_ISLNK(os.fstat(below).st_mode):
                os.close(below)
                if others or owner.st_mode & 0o020:
                    raise NotChangeable(f"{walked} is a link that a user may have made")
                below = root.open(walked, os.O_PATH | os.O_DIRECTORY)
            os.close(fd)
            fd = below
            root.check(fd, walked)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    finally:
        os.close(fd)
