"""`dlhealth help`."""

import click


@click.command("help")
@click.argument("words", metavar="[COMMAND]", nargs=-1)
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Show the help of a command, or of dlhealth."""
    shown = context.parent or context
    for word in words:
        group = shown.command
        found = group.resolve_command(shown, [word])[1] if isinstance(group, click.Group) else None
        if found is None:
            raise click.UsageError(f"{group.name} has no command {word!r}.", context)
        shown = click.Context(found, shown, word)
    click.echo(shown.get_help())
