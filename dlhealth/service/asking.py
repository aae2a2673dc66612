"""The watcher's requests to the process that repairs: one after the other, for one finding each."""

from collections.abc import Callable, Iterable

from dlhealth.model import OpenProblem, Outcome
from dlhealth.service.request import Request, ask

_Key = tuple[str, str]


class Asking:
    """What was asked for, and what is asked next.

    `opened` is called with a request that waits for its answer: once that has arrived, call `answered`. `refused` is
    called if a request was refused for now: after another check, call `forgive`. `ended` is called after all other
    answers, with whether the machine has changed.
    """

    def __init__(
        self,
        socket: str,
        opened: Callable[[Request], None],
        refused: Callable[[], None],
        ended: Callable[[bool], None],
    ) -> None:
        self._socket = socket
        self._opened, self._refuse, self._ended = opened, refused, ended
        self._asked: Request | None = None
        self._handled: set[_Key] = set()
        self._refused: set[_Key] = set()
        self._wanted: tuple[OpenProblem, ...] = ()
        self._confirm = False

    def forget(self, problems: Iterable[OpenProblem]) -> None:
        """Ask again for these: they have appeared, or are resolved."""
        self._handled -= {_key(p) for p in problems}

    def forgive(self) -> None:
        """Ask again for what was refused for now."""
        self._handled -= self._refused
        self._refused.clear()

    def go_on(self, problems: Iterable[OpenProblem], *, confirm: bool) -> None:
        """Ask for repairs of these problems; with `confirm`, first whether a repair that waited for a reboot has helped."""
        self._wanted = tuple(p for p in problems if p.repair and not p.caused_by and not p.next_boot)
        self._confirm = confirm
        self._next()

    def _next(self) -> None:
        if self._asked:
            return
        if self._confirm:
            self._confirm = False
            self._send("confirm")
            return
        key = next((key for key in map(_key, self._wanted) if key not in self._handled), None)
        if key:
            self._handled.add(key)
            self._send("preview", *key)

    def _send(self, verb: str, finding: str = "", subject: str = "", digest: str = "") -> None:
        self._asked = ask(verb, finding, subject, digest, self._socket)
        if self._asked:
            self._opened(self._asked)
        else:
            self._not_now(finding, subject)

    def answered(self, request: Request) -> None:
        """The whole answer has arrived."""
        self._asked = None
        answer = request.answer()
        if answer.get("ok") is not True or answer.get("later"):
            self._not_now(request.finding, request.subject)
        elif request.verb == "preview" and answer.get("allowed"):
            self._send("apply", request.finding, request.subject, str(answer.get("digest", "")))
        else:
            self._ended(answer.get("outcome", Outcome.NOTHING) != Outcome.NOTHING)
        self._next()

    def _not_now(self, finding: str, subject: str) -> None:
        """Ask again after another check. A plain no stands until something changes."""
        self._refused.add((finding, subject))
        self._refuse()


def _key(problem: OpenProblem) -> _Key:
    return problem.id, problem.subject
