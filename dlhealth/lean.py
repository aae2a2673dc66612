"""What keeps the start of a program short that runs at every boot and defines two hundred records and patterns.

Standard library only (rescue core).
"""

import re
import sys
from importlib import import_module
from operator import itemgetter
from types import ModuleType
from typing import TYPE_CHECKING, Any, AnyStr, cast

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:

    def _annotations(namespace: dict[str, Any]) -> Any:
        if "__annotations__" in namespace or sys.version_info < (3, 14):
            return namespace.get("__annotations__", ())
        import annotationlib  # since 3.14 a class body only says how to get them

        annotate = annotationlib.get_annotate_from_class_namespace(namespace)
        return annotationlib.call_annotate_function(annotate, annotationlib.Format.FORWARDREF) if annotate else ()

    class _Meta(type):
        """Makes typing.NamedTuple's classes without compiling source for each: that took a tenth of the doctor."""

        def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
            if not bases:
                return super().__new__(mcs, name, bases, namespace)
            fields = tuple(_annotations(namespace))
            defaults = {field: namespace.pop(field) for field in fields if field in namespace}
            for number, field in enumerate(fields):
                namespace[field] = property(itemgetter(number))
            namespace |= {"__slots__": (), "_fields": fields, "_field_defaults": defaults, "__match_args__": fields}
            return type(name, (_Record,), namespace)

    class _Record(tuple):
        """The methods of every record."""

        __slots__ = ()
        _fields: tuple[str, ...]
        _field_defaults: dict[str, Any]

        def __new__(cls, *values: Any, **named: Any) -> Any:
            fields = cls._fields
            if len(values) != len(fields) or named:
                missing = fields[len(values) :]
                chosen = {**cls._field_defaults, **named}
                if len(values) > len(fields) or named.keys() - set(missing) or any(f not in chosen for f in missing):
                    raise TypeError(f"{cls.__name__} takes {', '.join(fields)}")
                values = (*values, *(chosen[f] for f in missing))
            return tuple.__new__(cls, values)

        def __repr__(self) -> str:
            return f"{type(self).__name__}({', '.join(f'{f}={v!r}' for f, v in zip(self._fields, self, strict=True))})"

        def _asdict(self) -> dict[str, Any]:
            return dict(zip(self._fields, self, strict=True))

        def _replace(self, **named: Any) -> Any:
            return type(self)(**{**self._asdict(), **named})

        @classmethod
        def _make(cls, values: Any) -> Any:
            return cls(*values)

        def __getnewargs__(self) -> tuple[Any, ...]:
            return tuple(self)

    class NamedTuple(metaclass=_Meta):
        """As typing.NamedTuple, which type checkers take it for."""


def fits(name: str, pattern: str) -> bool:
    """As fnmatch.fnmatchcase, without compiling the patterns that nearly all are: those with stars only."""
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
    """Compiles itself when it is first used."""

    def __init__(self, pattern: str | bytes, flags: int) -> None:
        self._source = pattern, flags

    def __getattr__(self, name: str) -> Any:
        compiled: Any = re.compile(*self._source)
        for method in ("match", "search", "fullmatch", "findall", "finditer", "sub", "split"):
            setattr(self, method, getattr(compiled, method))
        return getattr(compiled, name)


def regex(text: AnyStr, flags: int = 0) -> "re.Pattern[AnyStr]":
    """As re.compile, for patterns of which a run needs only some."""
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
    """As `from module import name`, for a class that most runs do not use."""
    return _Later(module, name)


def postpone(name: str, **known: Any) -> None:
    """Have a module of the standard library be imported not by `import`, but when something of it is first used that is
    not `known` without it."""
    if name in sys.modules:
        return

    def load(attribute: str) -> Any:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        return getattr(import_module(name), attribute)

    stand_in = ModuleType(name)
    stand_in.__getattr__ = load  # type: ignore[method-assign]
    vars(stand_in).update(known)
    sys.modules[name] = stand_in
