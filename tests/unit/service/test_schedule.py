"""When a check is due."""

from dlhealth.service.events import Topic
from dlhealth.service.schedule import Pace, Patience, Schedule
from dlhealth.service.sources import SHORT


def due_after(*events: tuple[Topic, float], topic: Topic) -> float:
    """When the last of these events has its check."""
    schedule = Schedule(Pace())
    for happened, now in events:
        schedule.happened(happened, now)
    return next(moment for tenths in range(1000) if topic in schedule.take(moment := tenths / 10))


def test_a_switch_of_display_managers_is_checked_when_it_is_complete() -> None:
    first, again = (Topic.LOGIN_SCREEN, 0.0), (Topic.LOGIN_SCREEN, 9.0)
    assert due_after(first, topic=Topic.LOGIN_SCREEN) > 10
    assert due_after(first, again, topic=Topic.LOGIN_SCREEN) == due_after(first, topic=Topic.LOGIN_SCREEN) + 9


def test_of_several_logins_the_last_one_is_checked_when_it_may_have_lasted() -> None:
    once = ((Topic.LOGIN, 0.0), (Topic.LOGGED_IN, 0.0))
    twice = (*once, (Topic.LOGIN, 3.0), (Topic.LOGGED_IN, 3.0))
    assert due_after(*once, topic=Topic.LOGIN) == due_after(*twice, topic=Topic.LOGIN) == 0
    assert SHORT < due_after(*once, topic=Topic.LOGGED_IN) < due_after(*twice, topic=Topic.LOGGED_IN)


def test_a_topic_rests_after_its_check_and_others_do_not() -> None:
    schedule = Schedule(Pace(settle={}))
    schedule.happened(Topic.DRIVER, 100.0)
    assert schedule.take(100.0) == (Topic.DRIVER,)
    schedule.rest([Topic.DRIVER], 100.0, 102.0, changed=True)
    schedule.happened(Topic.DRIVER, 103.0)
    schedule.happened(Topic.LOGIN, 103.0)
    assert schedule.take(103.0) == (Topic.LOGIN,)
    assert schedule.take(109.9) == ()
    assert schedule.take(110.0) == (Topic.DRIVER,), "two seconds, four times"


def test_checks_that_change_nothing_become_rare() -> None:
    schedule, pauses, now = Schedule(Pace(settle={})), [], 0.0
    for _ in range(8):
        schedule.happened(Topic.DRIVER, now)
        (due,) = schedule.moments
        pauses.append(due - now)
        schedule.take(due)
        schedule.rest([Topic.DRIVER], due, due + 0.5, changed=False)
        now = due + 0.5
    assert pauses == [0, 2, 4, 8, 16, 30, 30, 30]


def test_patience_doubles_up_to_its_end_and_begins_again() -> None:
    patience = Patience(30.0, 100.0)
    assert [patience.next() for _ in range(4)] == [30.0, 60.0, 100.0, 100.0]
    patience.reset()
    assert patience.next() == 30.0
