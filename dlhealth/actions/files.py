"""Changes of files, links, owners and modes."""

from typing import NamedTuple


class EditFile(NamedTuple):
    """Replace whole lines of one file. `changes` are (number from 1, the line as it is, the line as it shall be, or
    None to take it out)."""

    path: str
    changes: tuple[tuple[int, str, str | None], ...]

    def summary(self) -> str:
        parts = [
            f"take out line {number} ({old.strip()})" if new is None else f"line {number} becomes: {new.strip()}"
            for number, old, new in self.changes
        ]
        return f"{self.path}: {'; '.join(parts)}"


class WriteFile(NamedTuple):
    """Create a file, or replace the one that is there."""

    path: str
    text: str
    mode: int = 0o644

    def summary(self) -> str:
        return f"write {self.path}: {self.text.strip().replace(chr(10), ' / ')}"


class MoveAside(NamedTuple):
    """Take a file, link or folder out of the way; it is kept where undo finds it."""

    path: str

    def summary(self) -> str:
        return f"mv {self.path} {self.path}.bak"


class MakeLink(NamedTuple):
    """Make `path` a symbolic link to `target`; what is there is kept where undo finds it."""

    path: str
    target: str

    def summary(self) -> str:
        return f"ln -sfn {self.target} {self.path}"


class ChangeOwner(NamedTuple):
    """Give one file or folder (not what is in it) to a user and a group."""

    path: str
    user: str
    group: str

    def summary(self) -> str:
        return f"chown -h {self.user}:{self.group} {self.path}"


class ChangeMode(NamedTuple):
    """Set the permission bits of one file or folder."""

    path: str
    mode: int

    def summary(self) -> str:
        return f"chmod {self.mode:04o} {self.path}"
