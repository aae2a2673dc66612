"""`dlhealth baseline`."""

import os

import click

from dlhealth.cli import Failure, Group, Status, printable, write
from dlhealth.cli.common import Selection, asked, json_option, root_option, writing
from dlhealth.cli.progress import Progress
from dlhealth.host.root import live_host
from dlhealth.model import Severity


class Broken(Failure):
    """The machine has an error: it is not known to be good."""

    exit_code = Status.ERRORS


@click.group("baseline", cls=Group)
def command() -> None:
    """Record what this machine is while it works, and show what differs since.

    When something is broken later, doctor and report say what changed since the record. The service saves a record after
    each boot check that finds no problem.
    """


@command.command("save")
@root_option
@click.option("-o", "--output", metavar="FILE", help="A file of your own.")
@click.option("--force", is_flag=True, help="Save it although something is broken.")
def save(root: str, output: str | None, force: bool) -> None:
    """Check this machine, and save what it is if nothing is broken.

    Root's record is /var/lib/dlhealth/baseline.json. A user who is not root has an own one, of what that user may read:
    ~/.local/state/dlhealth/baseline.json.
    """
    from dlhealth.engine import baseline
    from dlhealth.engine.record import inventory_of

    if output is None and root != "/":
        raise click.UsageError("the record of another machine needs a file: -o FILE")
    with Progress() as progress:
        diagnosis, inventory = asked(Selection(root)).examining(
            lambda examiner, options: (examiner.diagnose(options).told, inventory_of(examiner.facts(options))), progress
        )
    errors = [f for f in diagnosis.root_causes if f.severity is Severity.ERROR]
    if errors and not force:
        raise Broken(f"not saved, because this machine is broken: {errors[0].title} (--force saves it anyway)")
    path = baseline.place() if output is None else output
    with writing(path):
        if output is None:
            baseline.keep(inventory, root)
        else:
            baseline.write(inventory, output)
    entries = sum(map(len, inventory.values()))
    write(f"{printable(path)}: {entries} versions and values\n")


@command.command("compare")
@click.argument("file", required=False)
@root_option
@json_option
def compare(file: str | None, root: str, as_json: bool) -> int:
    """Show what differs from the known-good record.

    With FILE, compare with the record in that file instead.

    Exit status: 0 nothing differs, 1 something differs, 2 there is no record that can be read.
    """
    from dlhealth.engine.baseline import NoBaseline, read
    from dlhealth.engine.record import inventory_of

    request = asked(Selection(root))
    try:
        before = read(request.host) if file is None else read(live_host(), os.path.abspath(file))
        with Progress() as progress:
            now = request.examining(lambda examiner, options: inventory_of(examiner.facts(options)), progress)
    except NoBaseline as problem:
        raise click.UsageError(f"{problem}. To save one: dlhealth baseline save") from problem
    since = before.since(now)
    if as_json:
        from dlhealth.report.json import since_to_json

        write(since_to_json(since))
    else:
        from dlhealth.report.style import current_style
        from dlhealth.report.terminal import render_since

        write(render_since(since, current_style()))
    return Status.WARNINGS if since.differences else Status.HEALTHY
