"""`autopilot detach`: start a program that outlives the slot it is started from."""

from __future__ import annotations

import click

from reconciler.cli.session import with_session


@click.command("detach", context_settings={"ignore_unknown_options": True})
@click.argument("words", metavar="-- CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@with_session
def command(words: tuple[str, ...]) -> None:
    """Start CMD so that it outlives a swap.

    It leaves the slot this is called from; stopping the slot does not touch it. It gets no terminal and starts in HOME; its output goes nowhere unless CMD redirects it.
    """
    from reconciler.host.detach import detach  # noqa: PLC0415 (only here)

    click.echo(detach(list(words)))
