"""When the watcher checks: how long it waits after an event, rests after a check, and tries a failed one again."""

from collections.abc import Iterable, Mapping

from dlhealth.records import NamedTuple
from dlhealth.service.events import Topic
from dlhealth.service.sources import SHORT

_LAST_COUNTS = {Topic.LOGGED_IN, Topic.LOGIN_SCREEN}
"""For these topics, the time runs from the last event: the last login is the one that may stay, and a switch of display
managers must be complete."""


class Pace(NamedTuple):
    """Times in seconds."""

    settle: Mapping[Topic, float] = {
        Topic.PACKAGES: 2.0,
        Topic.KERNELS: 2.0,
        Topic.FILES: 0.5,
        Topic.LOGGED_IN: SHORT + 1.0,
        Topic.LOGIN_SCREEN: 60.0,
    }
    """From an event to its check. A package changes a hundred files; a login counts once the user stays; switching
    display managers takes several commands, and only the next boot depends on it."""
    share: float = 4.0
    """After a check, the same topic rests this many times as long as the check took: at most a fifth of one processor."""
    longest_pause: float = 30.0
    busy_pause: float = 5.0
    """Between two checks while packages change: an upgrade touches its files all the time."""
    blind: float = 3600.0
    """The longest wait before a failed check is tried again."""
    wanted: float = 86400.0
    """The longest wait before a refused repair is asked for again."""
    daily: float = 86400.0
    """From a complete check to the next one without an event: not every change is one, such as that of a file of a user."""


class Patience:
    """How long to wait before the next try: twice as long each time."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._last = 0.0

    def next(self) -> float:
        self._last = min(self._longest, self._last * 2 or self._first)
        return self._last

    def reset(self) -> None:
        self._last = 0.0


class Schedule:
    """The moments at which topics are due. All times are on one clock that nobody sets, and are given by the caller."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._due: dict[Topic, float] = {}
        self._pauses: dict[Topic, tuple[float, float]] = {}
        """The end of each topic's pause, and its length."""

    @property
    def moments(self) -> tuple[float, ...]:
        """When the topics are due."""
        return tuple(self._due.values())

    def happened(self, topic: Topic, now: float) -> None:
        """An event calls for a check."""
        earliest, _ = self._pauses.get(topic, (0.0, 0.0))
        moment = max(now + self._pace.settle.get(topic, 0.0), earliest)
        first_or_last = max if topic in _LAST_COUNTS else min
        self._due[topic] = first_or_last(moment, self._due.get(topic, moment))

    def take(self, now: float) -> tuple[Topic, ...]:
        """The topics that are due; they are no longer, until something happens."""
        topics = tuple(t for t, moment in self._due.items() if moment <= now)
        for topic in topics:
            del self._due[topic]
        return topics

    def try_again(self, topics: Iterable[Topic], moment: float) -> None:
        """Check these topics at that moment, or earlier."""
        for topic in topics:
            self._due[topic] = min(moment, self._due.get(topic, moment))

    def checked_all(self, now: float) -> None:
        """A complete check has ended: the next one without an event is due a day later."""
        self._due[Topic.DAILY] = now + self._pace.daily

    def busy(self, topics: Iterable[Topic], now: float) -> None:
        """The check could not begin, because packages change. Closing dpkg's lock is the event that ends this wait; other
        programs may hold theirs longer."""
        for topic in topics:
            self._due[topic] = now + self._pace.longest_pause
            self._pauses[topic] = (now + self._pace.busy_pause, self._pace.busy_pause)

    def rest(self, topics: Iterable[Topic], began: float, now: float, *, changed: bool) -> None:
        """Let topics rest after a check that ran since `began`; longer each time if it `changed` nothing."""
        took = (now - began) * self._pace.share
        for topic in topics:
            earliest, before = self._pauses.get(topic, (0.0, 0.0))
            # An event long after the last check does not wait because of it.
            quiet = now - earliest > self._pace.longest_pause
            pause = min(self._pace.longest_pause, took if changed or quiet else max(took, before * 2))
            self._pauses[topic] = (now + pause, pause)
            if topic in self._due:
                self._due[topic] = max(self._due[topic], now + pause)
