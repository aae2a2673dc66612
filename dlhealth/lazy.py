"""Patterns, classes and modules that are made or imported when they are first used: most runs need few of them.

Standard library only (rescue core).
"""

import re
import sys
from importlib import import_module
from types import ModuleType
from typing import Any, AnyStr, cast


def fits(name: str, pattern: str) -> bool:
    """Like fnmatch.fnmatchcase, without compiling the most frequent patterns: those that contain only stars."""
    if "?" in pattern or "[" in pattern:
        from fnmatch import fnmatchcase

        return fnmatchcase(name, pattern)
    first, *inner = pattern.split("*")
    if not inner:
        return name == pattern
    last, start = inner.pop(), len(first)
    if not name.startswith(first):
        return False
    for part in inner:
        found = name.find(part, start)
        if found < 0:
            return False
        start = found + len(part)
    return len(name) - len(last) >= start and name.endswith(last)


class _Pattern:
    """A pattern that is compiled when it is first used."""

    def __init__(self, pattern: str | bytes, flags: int) -> None:
        self._source = pattern, flags

    def __getattr__(self, name: str) -> Any:
        compiled: Any = re.compile(*self._source)
        for method in ("match", "search", "fullmatch", "findall", "finditer", "sub", "split"):
            setattr(self, method, getattr(compiled, method))
        return getattr(compiled, name)


def regex(text: AnyStr, flags: int = 0) -> "re.Pattern[AnyStr]":
    """Like re.compile, for a pattern that many runs do not need."""
    return cast("re.Pattern[AnyStr]", _Pattern(text, flags))


class _Later:
    """A class that is imported when it is first used."""

    def __init__(self, module: str, name: str) -> None:
        self._place = module, name

    def _class(self) -> Any:
        module, name = self._place
        return getattr(import_module(module), name)

    def __call__(self, *values: Any, **named: Any) -> Any:
        return self._class()(*values, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._class(), name)

    def __or__(self, other: Any) -> Any:
        return self._class() | other  # in an annotation


def later(module: str, name: str) -> Any:
    """Like `from module import name`, for a class that most runs do not use."""
    return _Later(module, name)


def postpone(name: str, **known: Any) -> None:
    """Delay the import of a module of the standard library, not of a package, until something of it is used that is not
    in `known`."""
    if name in sys.modules:
        return

    def load(attribute: str) -> Any:
        if attribute == "__path__":  # `from … import` asks each module whether it is a package
            raise AttributeError(attribute)
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(import_module(name), attribute)

    stand_in = ModuleType(name)
    stand_in.__getattr__ = load  # type: ignore[method-assign]
    vars(stand_in).update(known)
    sys.modules[name] = stand_in
