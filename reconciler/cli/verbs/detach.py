"""`autopilot detach`: start a program that outlives the slot it is started from."""

from __future__ import annotations

import click

from reconciler.cli.session import with_session


@click.command("detach", context_settings={"ignore_unknown_options": True})
@click.argument("words", metavar="-- CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@with_session
def command(words: tuple[str, ...]) -> None:
    """Start CMD so that it outlives a swap.

    It leaves the slot this is called from, so stopping the slot does not touch it. It starts in
    HOME, without a terminal; its output is kept only if it was redirected to a file.
    """
    from reconciler.host.detach import detach  # noqa: PLC0415 (only here)

    click.echo(f"started {words[0]} as process {detach(words)}")
