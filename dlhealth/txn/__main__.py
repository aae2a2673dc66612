"""The rescue: recovers or undoes with nothing but a Python, when dlhealth's own environment is broken.

/usr/bin/python3 -I -S .../dlhealth/txn/__main__.py recover|undo|history [ROOT]
"""

import os
import sys

_USAGE = "usage: python3 -I -S __main__.py recover|undo|history [ROOT]"


def main(arguments: list[str]) -> int:
    """The exit status: 0 done, 1 something was left as others changed it, 2 wrong usage."""
    from dlhealth.actions.base import Target
    from dlhealth.host.journal import send
    from dlhealth.host.path import told
    from dlhealth.txn.alert import of_ended
    from dlhealth.txn.execute import Ended, recover, undo
    from dlhealth.txn.store import Busy, Store

    if not 1 <= len(arguments) <= 2 or arguments[0] not in ("recover", "undo", "history"):
        print(_USAGE, file=sys.stderr)
        return 2
    verb, root = arguments[0], arguments[1] if len(arguments) > 1 else "/"
    if not os.path.isdir(root):
        print(f"dlhealth: {root}: no such folder", file=sys.stderr)
        return 1
    store = Store(root)
    if problem := store.out_of_reach():
        print(f"dlhealth: {problem}", file=sys.stderr)
        return 1
    ended: Ended | None
    try:
        if verb == "history":
            for record in store.ended():
                print(f"{record.name}  {record.outcome}")
            return 0
        with store.locked():
            # The mark of temporary files is the transaction's, so that those of a cut-off one are found.
            current = store.current()
            done = [r for r in store.ended() if r.outcome == "applied"]
            if current:
                ended = (
                    recover(store, Target(root, current.id))
                    if verb == "recover"
                    else undo(store, Target(root, current.id), current)
                )
            elif verb == "undo" and done:
                ended = undo(store, Target(root, done[-1].id), done[-1])
            else:
                ended = None
    except (Busy, OSError) as error:
        print(f"dlhealth: {told(error)}", file=sys.stderr)
        return 1
    if ended is None:
        print("dlhealth: there is nothing to do")
        return 0
    if verb == "recover" and store.root == "/":
        send(of_ended(ended))
    print(f"dlhealth: transaction {ended.record.name}: {ended.outcome}")
    for line in ended.said:
        print(f"  {line}")
    return 1 if ended.outcome == "conflict" else 0


if __name__ == "__main__":
    # At the end of the path: nothing that lies beside dlhealth can take the place of a standard module. The service comes
    # here by way of a link.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))
    sys.exit(main(sys.argv[1:]))
