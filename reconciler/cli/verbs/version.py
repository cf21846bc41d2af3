"""`autopilot version`: which version this is."""

from __future__ import annotations

import json

import click

from reconciler import __version__
from reconciler.cli.session import Session, pass_session, with_session


@click.command("version")
@with_session
@pass_session
def command(session: Session) -> None:
    """Print the version."""
    text = json.dumps({"version": __version__}) if session.json else f"autopilot {__version__}"
    click.echo(text)
