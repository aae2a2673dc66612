"""The rescue program: recovers or undoes with Python alone, when dlhealth's own environment is broken.

/usr/bin/python3 -I -S .../dlhealth/txn/__main__.py recover|undo|history [ROOT]
"""

import os
import sys
from typing import TextIO

_USAGE = "usage: python3 -I -S __main__.py recover|undo|history [ROOT]"


def main(arguments: list[str]) -> int:
    """The exit status: 0 done, 1 something could not be undone, 2 wrong usage or no consent."""
    from dlhealth.host.alert import send
    from dlhealth.host.path import told
    from dlhealth.model import Outcome
    from dlhealth.steps.base import Target
    from dlhealth.txn.alert import of_ended
    from dlhealth.txn.execute import Ended, recover, steps_of, undo
    from dlhealth.txn.store import Busy, Store

    if not 1 <= len(arguments) <= 2 or arguments[0] not in ("recover", "undo", "history"):
        print(_USAGE, file=sys.stderr)
        return 2
    verb, root = arguments[0], arguments[1] if len(arguments) > 1 else "/"
    if not os.path.isdir(root):
        _say(f"dlhealth: {root}: no such directory", sys.stderr)
        return 1
    if os.path.samefile(root, "/"):
        root = "/"
    store = Store(root)
    if problem := store.out_of_reach():
        _say(f"dlhealth: {problem}", sys.stderr)
        return 1
    ended: Ended | None
    try:
        if verb == "history":
            for record in store.ended():
                _say(f"{record.name}  {record.outcome}")
            return 0
        with store.locked():
            # Temporary files carry the mark of the transaction, so that those of an interrupted one are found.
            current = store.current()
            done = [r for r in store.ended() if r.stands]
            chosen = current or (done[-1] if done and verb == "undo" else None)
            if chosen and root != "/" and not _agreed(f"{store.folder}: repair {chosen.name}", steps_of(chosen)):
                return 2
            if current:
                ended = (
                    recover(store, Target(root, current.id))
                    if verb == "recover"
                    else undo(store, Target(root, current.id), current)
                )
            elif chosen:
                ended = undo(store, Target(root, chosen.id), chosen)
            else:
                ended = None
    except (Busy, OSError) as error:
        _say(f"dlhealth: {told(error)}", sys.stderr)
        return 1
    if ended is None:
        _say("dlhealth: there is nothing to do")
        return 0
    if verb == "recover" and store.root == "/":
        send(of_ended(ended))
    _say(f"dlhealth: repair {ended.record.name}: {ended.outcome}")
    for line in ended.said:
        _say(f"  {line}")
    return 1 if ended.outcome is Outcome.CONFLICT else 0


def _agreed(head: str, steps: tuple[str, ...]) -> bool:
    """Another machine's disk may contain forged records: a person has to see them before they are undone."""
    for line in (f"{head}:", *(f"  {step}" for step in steps)):
        _say(line, sys.stderr)
    print("Undo it? [y/N]: ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if answer.strip().lower() in ("y", "yes"):
        return True
    _say(f"{'' if answer else '(no answer) '}dlhealth: nothing was changed", sys.stderr)
    return False


def _say(text: str, file: TextIO | None = None) -> None:
    """The text as one line without control characters, which a name on another machine's disk may contain."""
    print("".join(c if c.isprintable() else repr(c)[1:-1] for c in text), file=file)


if __name__ == "__main__":
    # At the end of the path, so that no file beside dlhealth replaces a module of the standard library. The service
    # starts this file through a link.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))
    sys.exit(main(sys.argv[1:]))
