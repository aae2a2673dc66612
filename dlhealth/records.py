"""Records: NamedTuples that cost little to define, for a program that starts at every boot and defines hundreds.

Standard library only (rescue core).
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from collections import (
        _tuplegetter,
    )  # as typing.NamedTuple's: in C, it is made and read twice as fast as a property

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
                namespace[field] = _tuplegetter(number, None)
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
