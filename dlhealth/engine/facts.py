"""Builds each fact once, when it is first needed, from the annotations of the function that needs it."""

import time
from collections.abc import Callable
from types import UnionType
from typing import Any, get_args

from dlhealth.host import Host, Unreadable
from dlhealth.host.base import Watch
from dlhealth.probes import Options as Options
from dlhealth.probes import Unavailable as Unavailable


class Facts:
    """The facts of one host. It uses no threads. A fact that could not be built stays unavailable."""

    def __init__(self, host: Host, options: Options, watch: Watch | None = None) -> None:
        self._known: dict[type, Any] = {Host: host, Options: options}
        self._watch = watch or Watch()
        self.seconds: dict[str, float] = {}

    def get(self, kind: type) -> Any:
        """A fact, or Unavailable with the reason."""
        if kind not in self._known:
            self._known[kind] = Unavailable(f"{kind.__name__} needs itself")
            started = time.monotonic()
            try:
                if reason := self._watch.begins(kind.__name__):
                    raise Unavailable(reason)
                self._known[kind] = self.call(kind.probe)  # type: ignore[attr-defined]
            except Unavailable as problem:
                self._known[kind] = problem
            except Unreadable as problem:
                self._known[kind] = Unavailable(str(problem))
            except Exception as error:  # a defect; the first rule that needs the fact reports it as a failure
                self._known[kind] = Unavailable(f"{kind.__name__} could not be determined ({type(error).__name__})")
                raise
            finally:
                self._watch.ends()
            self.seconds[kind.__name__] = time.monotonic() - started
        known = self._known[kind]
        if isinstance(known, Unavailable):
            raise known
        return known

    def call(self, function: Callable[..., Any], *leading: Any) -> Any:
        """Call with the facts that the annotations of its other parameters name."""
        arguments = list(leading)
        wanted = {k: v for k, v in function.__annotations__.items() if k != "return"}
        for kind in list(wanted.values())[len(leading) :]:
            if isinstance(kind, UnionType):
                try:
                    arguments.append(self.get(get_args(kind)[0]))
                except Unavailable:
                    arguments.append(None)
            else:
                arguments.append(self.get(kind))
        return function(*arguments)
