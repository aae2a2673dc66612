"""What of another machine's disk can be changed from here: its mounts, and whether its programs run."""

import os
from collections.abc import Iterable

from dlhealth.actions import changed_path, needs_programs
from dlhealth.host.cell import COVERED
from dlhealth.model import Action
from dlhealth.steps.base import CommandFailed, Target


def out_of_reach(target: Target, actions: Iterable[Action]) -> dict[Action, str]:
    """Why some actions cannot be done or undone on a machine that is not the running one: a file system is not mounted,
    so another directory would be changed; or its programs do not run here."""
    if target.live:
        return {}
    found: dict[Action, str] = {}
    needing = []
    for action in actions:
        needs = needs_programs(action)
        if mount := target.mounts.needed if needs else target.mounts.over(changed_path(action)):
            found[action] = mount.told(target.folder)
        elif place := _in_the_way(target, action):
            found[action] = f"{place} belongs to the running machine, and must not be changed; first: umount {place}"
        elif needs:
            needing.append(action)
    if needing and (problem := _not_running(target)):
        found.update(dict.fromkeys(needing, problem))
    return found


def _in_the_way(target: Target, action: Action) -> str:
    """Where the running machine is mounted below the root so that an action would change it: at its path, or anywhere
    where programs see it."""
    top = os.path.realpath(target.folder)
    below = {place: place.removeprefix(top) for place in target.root.borrowed.values()}
    if needs_programs(action):
        return next((place for place, path in below.items() if path.split("/")[1] not in COVERED), "")
    changed = f"{changed_path(action)}/"
    return next((place for place, path in below.items() if changed.startswith(f"{path}/")), "")


def _not_running(target: Target) -> str:
    """Why the programs of another root do not run here; "" if they do."""
    try:
        target.command("sh", "-c", "true", timeout=30)
    except CommandFailed as error:
        return (
            f"the programs of {target.folder} do not run here (another architecture, mounted with noexec, or a damaged "
            f"system), but the repair needs them ({error})"
        )
    return ""
