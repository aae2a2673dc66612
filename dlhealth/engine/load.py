"""Finds the rules: the built-in rules, those of installed packages, and the administrator's."""

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from importlib import import_module
from importlib.machinery import SourceFileLoader
from types import ModuleType

from dlhealth.engine.causes import select
from dlhealth.engine.rule import BUILT_IN, Rule, folder_of
from dlhealth.model import Failed, Layer
from dlhealth.records import NamedTuple

RULES_FOLDER = "/etc/dlhealth/rules.d"
LOCAL_RULES = "dlhealth_local_rules"
"""The directory for an administrator's own rules."""
_GROUP = "dlhealth.rules"
_SIZE_LIMIT = 256 << 10
_REQUIRED = ("id", "title", "layer", "stage", "severity", "detect")


class Loaded(NamedTuple):
    """The loaded rules, and those that could not be loaded, with the reason. `whole` is False if somebody asked for only
    some of them."""

    rules: tuple[Rule, ...]
    failed: tuple[Failed, ...]
    whole: bool = True


class _Refused(Exception):
    """A rule file that somebody other than root could have written."""


def load_rules(folder: str = RULES_FOLDER) -> Loaded:
    """All rules, sorted by id. A file that cannot be loaded does not prevent the others from loading."""
    with redirect_stdout(sys.stderr):  # the output of a rule must not become part of a report
        return _all_rules(folder)


def _all_rules(folder: str) -> Loaded:
    rules: dict[str, Rule] = {}
    failed: list[Failed] = []
    for source, modules in (
        ("built-in", _builtin(failed)),
        ("package", _packaged(failed)),
        ("local", _local(folder, failed)),
    ):
        for module in modules:
            for rule in rules_of(module):
                missing = [name for name in _REQUIRED if not hasattr(rule, name)]
                if missing:
                    failed.append(Failed(type(rule).__name__, f"not loaded: it has no {', '.join(missing)}"))
                elif rule.id in rules:
                    failed.append(Failed(rule.id, f"a {source} rule has an id that another rule uses: not loaded"))
                else:
                    rules[rule.id] = rule
    return Loaded(tuple(rules[i] for i in sorted(rules)), tuple(failed))


def rules_of(module: ModuleType) -> Iterator[Rule]:
    """An instance of each rule class that a module defines itself."""
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Rule) and value.__module__ == module.__name__:
            yield value()


def _builtin(failed: list[Failed]) -> Iterator[ModuleType]:
    top = import_module(BUILT_IN).__path__[0]
    for layer in map(folder_of, Layer):
        try:
            names = sorted(n.removesuffix(".py") for n in os.listdir(f"{top}/{layer}") if n.endswith(".py"))
        except OSError as error:  # an interrupted upgrade
            failed.append(Failed(layer, f"not loaded: {error.strerror}: {top}/{layer}"))
            continue
        for name in names:
            if name == "__init__":
                continue
            try:
                yield _imported(f"{BUILT_IN}.{layer}.{name}", f"{top}/{layer}/{name}.py")
            except Exception as error:
                failed.append(Failed(name.replace("_", "-"), f"not loaded: {error}"))


def _imported(name: str, path: str) -> ModuleType:
    """Load a module from a known path; searching sys.path for it would cost as much as running it."""
    if name in sys.modules:
        return sys.modules[name]
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = path
    try:
        SourceFileLoader(name, path).exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _packaged(failed: list[Failed]) -> Iterator[ModuleType]:
    if not any(_announces(folder) for folder in sys.path):
        return
    from importlib.metadata import entry_points  # costs more than all built-in rules together

    for point in entry_points(group=_GROUP):
        try:
            yield point.load()
        except (Exception, SystemExit) as error:  # a rule that exits must not end the doctor
            failed.append(Failed(point.name, f"the package's rule did not load: {error}"))


def _announces(folder: str) -> bool:
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return False
    for name in names:
        if name.endswith(".dist-info"):
            try:
                with open(f"{folder}/{name}/entry_points.txt") as file:
                    if f"[{_GROUP}]" in file.read():
                        return True
            except OSError:
                continue
    return False


def _local(folder: str, failed: list[Failed]) -> Iterator[ModuleType]:
    try:
        fd = _trusted_folder(folder)
    except FileNotFoundError:
        return
    except (OSError, _Refused) as error:
        failed.append(Failed(folder, f"not loaded: {error}"))
        return
    try:
        for name in sorted(n for n in os.listdir(fd) if n.endswith(".py")):
            try:
                yield _module(name.removesuffix(".py"), f"{folder}/{name}", _trusted_source(fd, name))
            except (Exception, SystemExit) as error:
                failed.append(Failed(f"{folder}/{name}", f"not loaded: {error}"))
    finally:
        os.close(fd)


def _trusted_folder(path: str) -> int:
    """A descriptor of a directory that only root can change, like all directories above it; no link is followed."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check_owner(fd, "/")
        for part in path.strip("/").split("/"):
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = below
            _check_owner(fd, part)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _trusted_source(folder: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        _check_owner(fd, name)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _SIZE_LIMIT:
            raise _Refused(f"{name} is not a regular file of at most {_SIZE_LIMIT >> 10} KiB")
        return os.read(fd, _SIZE_LIMIT)
    finally:
        os.close(fd)


def _check_owner(fd: int, name: str) -> None:
    status = os.fstat(fd)
    if status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _Refused(f"{name} must belong to root, and nobody else may write to it")


def _module(name: str, path: str, source: bytes) -> ModuleType:
    module = ModuleType(f"{LOCAL_RULES}.{name}")
    module.__file__ = path
    # Rule.documentation finds its module by name; this entry makes nothing importable.
    sys.modules[module.__name__] = module
    exec(compile(source, path, "exec", dont_inherit=True), vars(module))  # noqa: S102  (root's own file, checked)
    return module


def chosen(loaded: Loaded, only: Iterable[str]) -> Loaded:
    """The rules that these ids and layers name, with the rules for their possible causes; all rules if there are no
    names. A rule of another name that did not load is left out. Raises KeyError like `select`."""
    names = tuple(only)
    failed = tuple(f for f in loaded.failed if not names or f.id in names)
    return Loaded(tuple(select(loaded.rules, names)), failed, whole=not names)


def known_names(rules: Iterable[Rule]) -> list[str]:
    """The names that `--only` takes."""
    rules = list(rules)
    return sorted({r.id for r in rules} | {r.layer.value for r in rules})
