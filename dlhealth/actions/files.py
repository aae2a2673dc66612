"""Changes of files, links, owners and modes. Each says what the state of its path becomes."""

from typing import TYPE_CHECKING

from dlhealth.lean import NamedTuple

if TYPE_CHECKING:  # the doctor only shows actions; what carries them out is not loaded for that
    from dlhealth.actions.base import Observed, Target
    from dlhealth.host.change import State


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

    def becomes(self, target: "Target", state: "State") -> "State":
        if state.kind == "link":
            raise _changed(f"{self.path} is a link to {state.content.decode(errors='replace')}: edit what it leads to")
        lines = state.content.split(b"\n")
        for number, old, new in sorted(self.changes, reverse=True):
            was, wanted = (t if t is None else t.encode(errors="surrogateescape") for t in (old, new))
            if not 0 < number <= len(lines) or lines[number - 1].rstrip(b"\r") != (was or b"").rstrip(b"\r"):
                raise _changed(f"line {number} of {self.path} is not what it was")
            if wanted is None:
                del lines[number - 1]
            else:
                lines[number - 1] = wanted
        return state._replace(content=b"\n".join(lines))


class WriteFile(NamedTuple):
    """Create a file, or replace the one that is there, whose owner and mode then stay."""

    path: str
    text: str
    mode: int = 0o644

    def summary(self) -> str:
        return f"write {self.path}: {self.text.strip().replace(chr(10), ' / ')}"

    def becomes(self, target: "Target", state: "State") -> "State":
        from dlhealth.host.change import State

        if state.kind == "file":
            return state._replace(content=self.text.encode())
        if state.kind != "absent":
            raise _changed(f"{self.path} is a {state.kind}, not a file")
        return State("file", self.text.encode(), self.mode)


class CopyFile(NamedTuple):
    """Put a copy of one of the machine's files at a path where no file is, for everybody to read."""

    source: str
    path: str

    def summary(self) -> str:
        return f"cp {self.source} {self.path}"

    def becomes(self, target: "Target", state: "State") -> "State":
        from dlhealth.host.change import State

        source = target.state(self.source)
        if source.kind != "file":
            raise _changed(f"{self.source} is no file any more")
        if state.kind not in ("absent", "link"):
            raise _changed(f"{self.path} is there already")
        return State("file", source.content, 0o644)


class MoveAside(NamedTuple):
    """Take a file, a link or a whole folder out of the way, whatever its size; it is kept where undo finds it."""

    path: str

    def summary(self) -> str:
        return f"move {self.path} aside (kept in /var/lib/dlhealth)"

    def prepare(self, target: "Target") -> None:
        return None

    def observe(self, target: "Target") -> "Observed":
        return target.identity(self.path)

    def after(self, target: "Target", before: "Observed") -> "Observed":
        return {}

    def apply(self, target: "Target", before: "Observed") -> None:
        if self.observe(target) != before:
            raise _changed(f"{self.path} was changed meanwhile")
        if before:
            target.set_aside(self.path)

    def revert(self, target: "Target", before: "Observed") -> None:
        target.bring_back(self.path)
        if before and not self.observe(target):
            raise _changed(f"what was moved aside is gone from /var/lib/dlhealth: {self.path} can't be restored")


class MakeLink(NamedTuple):
    """Make `path` a symbolic link to `target`; what is there is kept where undo finds it."""

    path: str
    target: str

    def summary(self) -> str:
        return f"ln -sfn {self.target} {self.path}"

    def becomes(self, target: "Target", state: "State") -> "State":
        from dlhealth.host.change import State

        if state.kind == "dir":
            raise _changed(f"{self.path} is a folder")
        return State("link", self.target.encode(), 0, state.uid, state.gid)


class ChangeOwner(NamedTuple):
    """Give one file or folder (not what is in it) to a user and a group."""

    path: str
    user: str
    group: str

    def summary(self) -> str:
        return f"chown -h {self.user}:{self.group} {self.path}"

    def becomes(self, target: "Target", state: "State") -> "State":
        uid, gid = target.ids(self.user, self.group)
        return _present(self.path, state)._replace(uid=uid, gid=gid)


class ChangeMode(NamedTuple):
    """Set the permission bits of one file or folder."""

    path: str
    mode: int

    def summary(self) -> str:
        return f"chmod {self.mode:04o} {self.path}"

    def becomes(self, target: "Target", state: "State") -> "State":
        if state.kind == "link":
            raise _changed(f"{self.path} is a link")
        return _present(self.path, state).with_mode(self.mode)


def _present(path: str, state: "State") -> "State":
    if state.kind == "absent":
        raise _changed(f"{path} is gone")
    return state


def _changed(what: str) -> Exception:
    """The machine is not as it was when the plan was made."""
    from dlhealth.host.change import NotChangeable

    return NotChangeable(what)
