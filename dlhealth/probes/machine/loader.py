"""Where the dynamic loader looks: /etc/ld.so.conf with its includes, the cache /etc/ld.so.cache, the built-in
directories."""

import posixpath
import re
import struct
from collections.abc import Collection, Iterator, Mapping

from dlhealth.host import Host, Unreadable
from dlhealth.host.account import may_read
from dlhealth.host.place import Place
from dlhealth.lazy import regex
from dlhealth.probes.login.environment import Environments
from dlhealth.records import NamedTuple

CONF = "/etc/ld.so.conf"
CACHE = "/etc/ld.so.cache"

_INCLUDES_LIMIT = 200
_DIRECTORIES_LIMIT = 1000
_LINES_LIMIT = 20_000
_ENTRIES_LIMIT = 50_000  # a large desktop has some 3000
_OLD_MAGIC = b"ld.so-1.7.0"
_NEW_MAGIC = b"glibc-ld.so.cache1.1"
_OLD_HEADER, _OLD_ENTRY = 16, struct.Struct("<iII")
_NEW_HEADER, _NEW_ENTRY = 48, struct.Struct("<iIIIQ")
# glibc's sysdeps/generic/ldconfig.h: the second byte of the flags names the ABI; these are the ones of 64 bits.
_ABIS_64 = frozenset((0x01, 0x02, 0x03, 0x04, 0x05, 0x07, 0x0A, 0x0E, 0x0F, 0x10, 0x11, 0x12))
_LIBRARY = regex(r"\.so(?:\.|$)")


class LoaderDirectory(NamedTuple):
    """A directory that ldconfig looks into. `path` as it is written (without a slash at its end), `real` without links
    ("" if there is no such directory), `source` names its line ("" if only the loader itself knows it), `built_in` that
    the loader looks there without a cache, too; `names` the libraries in it; `line` the line of `source` as it is."""

    path: str
    real: str
    source: Place
    line: str
    built_in: bool
    names: frozenset[str]


class CacheEntry(NamedTuple):
    """One library of the cache: the SONAME, the file, and for how many bits it is."""

    soname: str
    path: str
    bits: int


class LoaderConfig(NamedTuple):
    """`directories` are those of ld.so.conf in ldconfig's order, then the built-in ones. `cache` is None if there
    is none, or none that can be read (then `cache_problem` says why). `problems` are included files that could not be
    read."""

    directories: tuple[LoaderDirectory, ...]
    cache: tuple[CacheEntry, ...] | None
    cache_problem: str
    problems: tuple[str, ...]

    def find(self, soname: str, first: Mapping[str, Collection[str]] | None = None) -> str | None:
        """The file that a 64 bit program gets for a SONAME; None when the loader finds none.

        `first` are directories with their names that are searched before, as those of LD_LIBRARY_PATH are. Without a
        cache, the directories of ld.so.conf count as if ldconfig had just been run.
        """
        for folder, names in (first or {}).items():
            if soname in names:
                return posixpath.join(folder, soname)
        for entry in self.cached(soname):
            known = self._names(posixpath.dirname(entry.path))
            if known is None or posixpath.basename(entry.path) in known:
                return entry.path
        for directory in self.directories:
            if soname in directory.names and (self.cache is None or directory.built_in):
                return posixpath.join(directory.path, soname)
        return None

    def cached(self, soname: str) -> tuple[CacheEntry, ...]:
        """The 64 bit entries of the cache for a SONAME; the loader takes the first."""
        return tuple(e for e in self.cache or () if e.soname == soname and e.bits == 64)

    def configured(self, real: str) -> LoaderDirectory | None:
        """The entry, of ld.so.conf or built in, that stands for a real directory."""
        return next((d for d in self.directories if real and d.real == real), None)

    def _names(self, path: str) -> frozenset[str] | None:
        return next((d.names for d in self.directories if d.path == path or d.real == path), None)

    @classmethod
    def probe(cls, host: Host) -> "LoaderConfig":
        problems: list[str] = []
        built_in = list(_built_in(host))
        sources: dict[str, tuple[Place, str]] = {}
        for number, (path, source, line) in enumerate(_read_conf(host, CONF, problems, {})):
            if number >= _LINES_LIMIT or len(sources) >= _DIRECTORIES_LIMIT:
                problems.append(f"{source}: too many directories, the rest of {CONF} was not checked")
                break
            sources.setdefault(path, (source, line))
        for path in built_in:
            sources.setdefault(path, (Place(""), ""))
        directories = []
        for path, (source, line) in sources.items():
            real, names, unread = _searched(host, path)
            problems += filter(None, (unread,))
            directories.append(LoaderDirectory(path, real, source, line, path in built_in, names))
        cache, problem = _read_cache(host)
        return cls(tuple(directories), cache, problem, tuple(problems))


def library_names(host: Host, directory: str) -> frozenset[str]:
    """Names of the shared libraries in a directory; none where it is no directory or may not be read."""
    try:
        return frozenset(n for n in host.listdir(directory) if _LIBRARY.search(n)) if directory else frozenset()
    except Unreadable:
        return frozenset()


def _searched(host: Host, path: str) -> tuple[str, frozenset[str], str | None]:
    """Where a directory of a search path really is ("" where it does not exist), the names of its libraries, and why one
    of the two could not be checked."""
    try:
        real = host.realpath(path) or ""
    except Unreadable as problem:
        return path, frozenset(), str(problem)
    try:
        return real, frozenset(n for n in host.listdir(real) if _LIBRARY.search(n)) if real else frozenset(), None
    except Unreadable as problem:
        return real, frozenset(), str(problem)


def _built_in(host: Host) -> Iterator[str]:
    multiarch = [n for n in host.listdir("/usr/lib") if n.endswith("-linux-gnu") and not n.startswith("i386")]
    for folder in (*multiarch, "."):
        for parent in ("/lib", "/usr/lib"):
            yield posixpath.normpath(posixpath.join(parent, folder))


def _read_conf(host: Host, path: str, problems: list[str], seen: dict[str, None]) -> Iterator[tuple[str, Place, str]]:
    """(directory, place of the line, the line itself) of a configuration file and all that it includes. The first file
    must be readable."""
    if path in seen:
        return
    if len(seen) >= _INCLUDES_LIMIT:
        problems.append(f"{path}: not read, as {CONF} includes more than {_INCLUDES_LIMIT} files")
        return
    seen[path] = None
    try:
        text = host.text(path)
    except Unreadable as problem:
        if path == CONF:
            raise
        problems.append(str(problem))
        return
    lines = (text or "").split("\n")
    for number, folder, includes in parse_conf(text or ""):
        if folder:
            yield folder, Place(path, number), lines[number - 1]
        for pattern in includes:
            for included in host.glob(posixpath.join(posixpath.dirname(path), pattern)):
                yield from _read_conf(host, included, problems, seen)


def parse_conf(text: str) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """(line from 1, directory or "", patterns of an include) of an ld.so.conf, as ldconfig reads it."""
    for number, line in enumerate(text.split("\n"), 1):
        line = line.partition("#")[0].strip()
        words = line.split()
        if words[:1] == ["include"]:
            yield number, "", tuple(words[1:])
        elif line.startswith("/"):  # not "hwcap …", and ldconfig refuses relative directories
            path = line.partition("=")[0].rstrip()  # "/lib=libc6" of old files
            yield number, path.rstrip("/") or "/", ()


class BadCache(ValueError):
    """The bytes are not a cache of the dynamic loader."""


def _read_cache(host: Host) -> tuple[tuple[CacheEntry, ...] | None, str]:
    try:
        content = host.read(CACHE)
    except Unreadable as problem:
        return None, str(problem)
    if content is None:
        return None, ""
    try:
        return tuple(parse_cache(content)), ""
    except BadCache as problem:
        return None, f"{CACHE}: {problem}"


def parse_cache(content: bytes) -> list[CacheEntry]:
    """The entries of an ld.so.cache of glibc: its format since 2.32 (new only), the one before (old, then new), and
    the old one alone. Raises BadCache."""
    try:
        if content.startswith(_NEW_MAGIC):
            return list(_new_entries(content, 0))
        if not content.startswith(_OLD_MAGIC):
            raise BadCache("not a cache of glibc's loader")
        count = struct.unpack_from("<I", content, 12)[0]
        end = _OLD_HEADER + count * _OLD_ENTRY.size
        start = end + -end % 8
        if content.startswith(_NEW_MAGIC, start):
            return list(_new_entries(content, start))
        return [
            CacheEntry(_string(content, end + key), _string(content, end + value), _bits(flags))
            for flags, key, value in _OLD_ENTRY.iter_unpack(_table(content, _OLD_HEADER, count, _OLD_ENTRY.size))
        ]
    except struct.error as error:
        raise BadCache("incomplete") from error


def _new_entries(content: bytes, start: int) -> Iterator[CacheEntry]:
    count, endian = struct.unpack_from("<I4xB", content, start + 20)
    if endian == 3:  # cache_file_new_flags_endian_big
        raise BadCache("written for another byte order")
    table = _table(content, start + _NEW_HEADER, count, _NEW_ENTRY.size)
    for flags, key, value, _, _ in _NEW_ENTRY.iter_unpack(table):
        yield CacheEntry(_string(content, start + key), _string(content, start + value), _bits(flags))


def _table(content: bytes, start: int, count: int, size: int) -> bytes:
    if count > _ENTRIES_LIMIT or start + count * size > len(content):
        raise BadCache("incomplete, or not a cache")
    return content[start : start + count * size]


def _string(content: bytes, start: int) -> str:
    end = content.find(b"\0", start, start + 4096)
    if end < 0:
        raise BadCache("an entry without a name")
    return content[start:end].decode(errors="surrogateescape")


def _bits(flags: int) -> int:
    return 64 if flags >> 8 & 0xFF in _ABIS_64 else 32


class UserDirectory(NamedTuple):
    """One absolute element of a person's LD_LIBRARY_PATH or PATH (`variable`), in order. `real` is "" if there is no
    such directory, `names` are the libraries in it, `source` the line that put it there, `line` that line where it
    is nothing but a plain assignment of this variable (else "")."""

    user: str
    variable: str
    path: str
    real: str
    source: Place
    names: frozenset[str]
    line: str


def _is_there(host: Host, home: str) -> bool:
    """Whether a home directory can be seen. What start-up files in another one set is not known."""
    try:
        return host.exists(home)
    except Unreadable:
        return False


class UserPaths(NamedTuple):
    """The search paths that logins give to `users`. `unclear` are (user, variable) whose value is unknown without
    running something; its known parts are included."""

    users: tuple[str, ...]
    directories: tuple[UserDirectory, ...]
    unclear: tuple[tuple[str, str], ...]

    def of(self, user: str, variable: str) -> tuple[UserDirectory, ...]:
        """The directories of one person's variable, in order."""
        return tuple(d for d in self.directories if d.user == user and d.variable == variable)

    def libraries(self) -> tuple[UserDirectory, ...]:
        """The directories of everybody's LD_LIBRARY_PATH."""
        return tuple(d for d in self.directories if d.variable == "LD_LIBRARY_PATH")

    def users_with(self, real: str) -> set[str]:
        """Whose LD_LIBRARY_PATH has this directory."""
        return {d.user for d in self.libraries() if d.real == real and real}

    @classmethod
    def probe(cls, host: Host, environments: Environments) -> "UserPaths":
        users = tuple(dict.fromkeys(login.account.name for login in environments.logins))
        found: dict[tuple[str, str, str], UserDirectory] = {}
        unclear: dict[tuple[str, str], None] = {}
        # A terminal is where people build and run; what only other kinds of login have comes behind.
        for login in sorted(environments.logins, key=lambda e: e.kind != "interactive"):
            user = login.account.name
            for variable in ("PATH", "LD_LIBRARY_PATH"):
                unknown = login.kind == "interactive" and login.values.get(variable, "") is None
                if unknown or not _is_there(host, login.account.home):
                    unclear[user, variable] = None
                for element, source in login.lists.get(variable, ()):
                    path = element.rstrip("/") or "/"
                    if element.startswith("/") and (user, variable, path) not in found:
                        real, names, unread = _searched(host, path)
                        if unread:
                            unclear[user, variable] = None
                        elif not (variable == "LD_LIBRARY_PATH" and real and may_read(host, login.account, real)):
                            names = frozenset()
                        line = plain_assignment(host, source, variable)
                        found[user, variable, path] = UserDirectory(user, variable, path, real, source, names, line)
        return cls(users, tuple(found.values()), tuple(unclear))


_ASSIGNMENT = regex(r"""\s*(?:export\s+)?(\w+)=(["']?)([^"'\s;#&|`()<>]*)\2\s*""", re.ASCII)
_ONLY_ITSELF = regex(r"\$\{?(\w+)(?:\}|:\+:\$\{?\1\}?\})?|", re.ASCII)


def plain_assignment(host: Host, source: Place, variable: str) -> str:
    """The line at a place, where it assigns this variable and does nothing else; "" for any other. Such a
    line can be changed by a program, and has no secrets in it."""
    if not source.path.startswith("/") or source.line is None:
        return ""
    try:
        lines = (host.text(source.path) or "").split("\n")
    except Unreadable:
        return ""
    line = lines[source.line - 1] if 0 < source.line <= len(lines) else ""
    match = _ASSIGNMENT.fullmatch(line)
    return line if match and match[1] == variable else ""


def without_element(line: str, element: str) -> str | None:
    """A plain assignment without one element of its list; None if nothing is left of it, and the line as it was
    where the element is not written out in it."""
    match = _ASSIGNMENT.fullmatch(line)
    if match is None:
        return line
    kept = re.sub(rf"(?:^|:){re.escape(element)}/?(?=:|$|\$\{{)", "", match[3])
    if kept == match[3]:
        return line
    kept = kept.lstrip(":")
    return None if _ONLY_ITSELF.fullmatch(kept) else line[: match.start(3)] + kept + line[match.end(3) :]
