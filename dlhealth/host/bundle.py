"""A bundle: all answers of a machine to a diagnosis, in one archive, and a host that answers from it.

The archive is a gzipped tar file. `index.json` lists each question with its answer; contents of files and outputs of
programs are separate members that a person can read. Nothing is ever extracted: a bundle may come from anybody, so its
sizes are limited and the type of every answer is checked.
"""

import gzip
import io
import json
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from types import UnionType
from typing import Any, get_args, get_origin

from dlhealth.host.base import Host, NoAnswer, NotAMachine, Output, Question, Space, Stat, T, Unreadable
from dlhealth.host.elf import Elf
from dlhealth.host.newfile import created
from dlhealth.records import NamedTuple

SCHEMA = 1
_INDEX = "index.json"
_SIZE_LIMIT = 512 << 20
_MEMBER_LIMIT = 64 << 20
_COUNT_LIMIT = 50_000

Mask = Callable[[Question, bytes], bytes]
"""Removes the secrets from an answer."""

_ANSWERS: dict[str, Any] = {
    "lstat": Stat | None,
    "stat": Stat | None,
    "realpath": str | None,
    "readlink": str | None,
    "listdir": tuple[str, ...] | None,
    "folders": tuple[str, ...] | None,
    "read": bytes | None,
    "head": bytes | None,
    "tail": bytes | None,
    "elf": Elf | None,
    "initramfs": dict[str, str] | None,
    "offers": dict[str, str] | None,
    "sha256": str | None,
    "space": Space | None,
    "run": Output,
    "now": float | None,
}


class BundleHost(Host):
    """The machine when the bundle was written, as far as it was read then."""

    def __init__(self, name: str, live: bool, seen: dict[Question, Any]) -> None:
        super().__init__()
        self.name = name
        self.live = live
        self.seen = seen
        self._runs = {_portable(q): a for q, a in seen.items() if q[0] == "run"}

    def _ask(self, question: Question, answer: Callable[[], T]) -> T:
        if question in self.seen:
            return super()._ask(question, answer)
        if question[0] == "run":
            absent = Output(None, "", problem=f"{question[1]} was not run when the archive was made")
            return self._runs.get(_portable(question), absent)  # type: ignore[no-any-return]
        raise Unreadable(question[1], "not in the archive")


def _portable(question: Question) -> Question:
    """A question for a program, without the paths that differ between two installations: of dlhealth and its Python."""
    words = [posixpath.basename(word) if word.startswith("/") else word for word in question]
    return tuple("python" if word.startswith("python") else word for word in words)


class Written(NamedTuple):
    """The size of a bundle: `members` is the number of contents, `size` the bytes of the archive."""

    members: int
    size: int


def write_bundle(host: Host, path: str, mask: Mask, about: dict[str, str]) -> Written:
    """Write all answers of the host. Raises OSError, including FileExistsError: nothing is overwritten. `about` tells a
    person where the bundle comes from."""
    with created(path) as file:
        contents: dict[str, bytes] = {}
        answers = [_encoded(q, a, mask, contents) for q, a in sorted(host.seen.items())]
        index = {"dlhealth-bundle": SCHEMA, **about, "live": host.live, "answers": answers}
        with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, _INDEX, json.dumps(index, indent=0).encode())
            for name, content in contents.items():
                _add(archive, name, content)
        return Written(len(contents), file.tell())


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = 0o600
    archive.addfile(member, io.BytesIO(content))


def _encoded(question: Question, answer: Any, mask: Mask, contents: dict[str, bytes]) -> list[Any]:
    """[question, answer] in the form of the JSON; bytes and program output go to `contents`, which names them."""
    if isinstance(answer, Unreadable):
        kind = "silent" if isinstance(answer, NoAnswer) else "unreadable"
        return [question, {kind: [answer.path, answer.reason]}]
    if isinstance(answer, bytes):
        return [question, {"member": _keep(question, mask(question, answer), contents)}]
    if isinstance(answer, Output):
        streams = (("out", answer.stdout), ("err", answer.stderr))
        members = [_keep((*question[:2], name), mask(question, _bytes(text)), contents) for name, text in streams]
        return [question, {"status": answer.status, "problem": answer.problem, "members": members}]
    if isinstance(answer, dict):
        # An initramfs: the texts of its configuration files.
        texts = {k: _text(mask(("read", f"/{k}"), _bytes(v))) for k, v in answer.items()}
        return [question, {"is": texts}]
    return [question, {"is": answer}]


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _text(content: bytes) -> str:
    return content.decode(errors="surrogateescape")


def _keep(question: Question, content: bytes, contents: dict[str, bytes]) -> str:
    kind, path, *more = question
    folder = {"read": "files", "run": "programs"}.get(kind, kind)
    parts = [p for p in path.split("/") if p not in ("", ".", "..")]
    name = "/".join([folder, *more, *parts])
    # Two paths may get the same name ("/etc/../x"), and a file may need the name of another's directory.
    number = 1
    while name in contents:
        number += 1
        name = "/".join([f"{folder}-{number}", *more, *parts])
    contents[name] = content
    return name


def read_bundle(path: str) -> BundleHost:
    """Open a bundle. Raises NotAMachine if it is not one, or is broken or hostile; OSError if it cannot be read."""
    try:
        contents = _members(path)
        name, read = next(contents, ("", bytes))
        if name != _INDEX:
            raise ValueError(f"it does not begin with {_INDEX}")
        index = json.loads(read())
        if index["dlhealth-bundle"] != SCHEMA:
            raise ValueError(f"it has version {index['dlhealth-bundle']!r}, this dlhealth reads version {SCHEMA}")
        live = _checked(index["live"], bool)
        wanted = set(_named(index["answers"]))
        members = {name: read() for name, read in contents if name in wanted}
        seen = dict(_decoded(q, a, members) for q, a in index["answers"])
    except gzip.BadGzipFile as error:
        raise NotAMachine(
            f"{path} is not an archive of dlhealth capture: it is not a gzip archive, or it is damaged"
        ) from error
    except (EOFError, zlib.error) as error:
        raise NotAMachine(f"{path} is not an archive of dlhealth capture: it is damaged or incomplete") from error
    except KeyError as error:
        raise NotAMachine(f"{path} is not an archive of dlhealth capture: it has no {error.args[0]!r}") from error
    except (
        tarfile.TarError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise NotAMachine(f"{path} is not an archive of dlhealth capture: {error}") from error
    return BundleHost(path, live, seen)


def _named(answers: Any) -> Iterator[str]:
    """The members that the answers need; others are not kept in memory."""
    for _, answer in answers:
        if isinstance(answer, dict):
            yield from (answer["member"],) if "member" in answer else answer.get("members", ())


class _Bounded(io.RawIOBase):
    """A stream that ends with an error at a limit: a few kilobytes may unpack to terabytes."""

    def __init__(self, source: gzip.GzipFile) -> None:
        self._source = source
        self._left = _SIZE_LIMIT

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._source.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {_SIZE_LIMIT >> 20} MiB")
        return content


def _members(path: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The name of each member, and a function to read it before the next one is requested."""
    names: set[str] = set()
    with (
        gzip.open(path, "rb") as packed,
        tarfile.open(fileobj=_Bounded(packed), mode="r|") as archive,
    ):
        for member in archive:
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
                raise ValueError(f"{member.name!r} is not a plain file")
            if member.size > _MEMBER_LIMIT or member.name in names or len(names) >= _COUNT_LIMIT:
                raise ValueError(f"{member.name!r} is too large, present twice, or one member too many")
            names.add(member.name)
            yield member.name, partial(_content, archive, member)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    content = file.read() if file else b""
    if len(content) != member.size:
        raise ValueError("it is incomplete")
    return content


def _decoded(question: Any, answer: Any, members: dict[str, bytes]) -> tuple[Question, Any]:
    asked: Question = _checked(question, tuple[str, ...])
    kind = _ANSWERS.get(asked[0]) if len(asked) > 1 else None
    if kind is None or not isinstance(answer, dict):
        raise ValueError(f"{asked!r} is not known to this version of dlhealth")
    for name, error in (("unreadable", Unreadable), ("silent", NoAnswer)):
        if name in answer:
            path, reason = _checked(answer[name], tuple[str, ...])
            return asked, error(path, reason)
    if kind is Output:
        out, err = (_text(members[name]) for name in _checked(answer["members"], tuple[str, ...]))
        problem: str = _checked(answer["problem"], str)
        return asked, Output(_checked(answer["status"], int | None), out, err, problem)
    if "member" in answer:
        return asked, _checked(members[_checked(answer["member"], str)], kind)
    return asked, _checked(answer["is"], kind)


def _checked(value: Any, kind: Any) -> Any:
    """A value from JSON in the required type: lists become tuples and records. Raises ValueError."""
    if isinstance(kind, UnionType):
        return None if value is None else _checked(value, get_args(kind)[0])
    if get_origin(kind) is dict:
        if isinstance(value, dict):
            return {k: _checked(v, str) for k, v in value.items()}
    elif get_origin(kind) is tuple:
        inner = get_args(kind)
        if isinstance(value, list):
            kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
            return tuple(_checked(v, k) for v, k in zip(value, kinds, strict=True))
    elif hasattr(kind, "_fields"):
        if isinstance(value, list):
            hints = kind.__annotations__
            return kind(*(_checked(v, hints[f]) for v, f in zip(value, kind._fields, strict=True)))
    elif kind is float and type(value) is int:
        return float(value)
    elif type(value) is kind:
        return value
    raise ValueError(f"{str(value)[:60]!r} is not a {getattr(kind, '__name__', kind)}")
