"""Changes of files, links, owners and modes. Each one says what the new state of its path is."""

from dlhealth.actions.kinds import (
    ChangeMode,
    ChangeOwner,
    CopyFile,
    EditFile,
    MakeDirectory,
    MakeLink,
    MoveAside,
    WriteFile,
)
from dlhealth.host.change import NotChangeable, State
from dlhealth.steps.base import FileStep, Observed, PathStep, Target


class EditFileStep(FileStep[EditFile]):
    def becomes(self, target: Target, state: State) -> State:
        if state.kind == "link":
            raise _changed(f"{self.action.path} is a link to {state.content.decode(errors='replace')}: edit its target")
        lines = state.content.split(b"\n")
        for number, old, new in sorted(self.action.changes, reverse=True):
            was, wanted = (t if t is None else t.encode(errors="surrogateescape") for t in (old, new))
            if not 0 < number <= len(lines) or lines[number - 1].rstrip(b"\r") != (was or b"").rstrip(b"\r"):
                raise _changed(f"line {number} of {self.action.path} has changed")
            if wanted is None:
                del lines[number - 1]
            else:
                lines[number - 1] = wanted
        return state._replace(content=b"\n".join(lines))


class WriteFileStep(FileStep[WriteFile]):
    def becomes(self, target: Target, state: State) -> State:
        if state.kind == "file":
            return state._replace(content=self.action.text.encode())
        if state.kind != "absent":
            raise _changed(f"{self.action.path} is a {state.kind.replace('dir', 'directory')}, not a file")
        return State("file", self.action.text.encode(), self.action.mode)


class CopyFileStep(FileStep[CopyFile]):
    def becomes(self, target: Target, state: State) -> State:
        source = target.state(self.action.source)
        if source.kind != "file":
            raise _changed(f"{self.action.source} is no longer a file")
        if state.kind not in ("absent", "link"):
            raise _changed(f"{self.action.path} already exists")
        return State("file", source.content, 0o644)


class MoveAsideStep(PathStep[MoveAside]):
    def prepare(self, target: Target) -> None:
        return None

    def observe(self, target: Target) -> Observed:
        return target.identity(self.action.path)

    def after(self, target: Target, before: Observed) -> Observed:
        return {}

    def apply(self, target: Target, before: Observed) -> None:
        if self.observe(target) != before:
            raise _changed(f"{self.action.path} was changed meanwhile")
        if before:
            target.set_aside(self.action.path)

    def revert(self, target: Target, before: Observed) -> None:
        target.bring_back(self.action.path)
        if before and not self.observe(target):
            raise _changed(f"the copy in /var/lib/dlhealth is gone: {self.action.path} cannot be restored")


class MakeDirectoryStep(FileStep[MakeDirectory]):
    def becomes(self, target: Target, state: State) -> State:
        if state.kind not in ("absent", "dir"):
            raise _changed(f"{self.action.path} is a {state.kind}, not a directory")
        return state if state.kind == "dir" else State("dir", b"", 0o755)


class MakeLinkStep(FileStep[MakeLink]):
    def becomes(self, target: Target, state: State) -> State:
        if state.kind == "dir":
            raise _changed(f"{self.action.path} is a directory")
        return State("link", self.action.target.encode(), 0, state.uid, state.gid)


class ChangeOwnerStep(FileStep[ChangeOwner]):
    def becomes(self, target: Target, state: State) -> State:
        uid, gid = target.ids(self.action.user, self.action.group)
        return _present(self.action.path, state)._replace(uid=uid, gid=gid)


class ChangeModeStep(FileStep[ChangeMode]):
    def becomes(self, target: Target, state: State) -> State:
        if state.kind == "link":
            raise _changed(f"{self.action.path} is a link")
        return _present(self.action.path, state).with_mode(self.action.mode)


def _present(path: str, state: State) -> State:
    if state.kind == "absent":
        raise _changed(f"{path} is gone")
    return state


def _changed(what: str) -> Exception:
    """The machine differs from what the plan was made for."""
    return NotChangeable(what)
