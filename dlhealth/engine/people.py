"""The people of a machine, and which of them have logged in."""

from dlhealth.engine.facts import Facts, Unavailable
from dlhealth.probes.login.sessions import Sessions
from dlhealth.probes.login.users import Users
from dlhealth.probes.machine.journal import Journal


def people(facts: Facts) -> set[str]:
    """The names of the human users. Raises Unavailable."""
    return {account.name for account in facts.get(Users).people}


def logged_in(facts: Facts) -> set[str]:
    """The users with a stable session since the machine was started; nobody if that is unknown."""
    try:
        sessions, journal = facts.get(Sessions), facts.get(Journal)
    except Unavailable:
        return set()
    if not journal.boots:
        return set()
    here = sessions.of_boot(journal.boots[-1])
    return {user for user in here.users() if here.got_in(user)}
