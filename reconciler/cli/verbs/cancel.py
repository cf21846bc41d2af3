"""`autopilot cancel`: stop a deploy that is not live yet."""

from __future__ import annotations

import json

import click

from reconciler.cli.render import short
from reconciler.cli.session import Session, pass_session, with_session


@click.command("cancel")
@click.argument("deploy")
@with_session
@pass_session
def command(session: Session, deploy: str) -> None:
    """Cancel a deploy that is not live yet.

    What is live is not touched.
    """
    from urllib.parse import quote  # noqa: PLC0415 (only here)

    record = session.client().post(f"/deploys/{quote(deploy, safe='')}/cancel", {})
    if session.json:
        click.echo(json.dumps(record, indent=2))
        return
    click.echo(f"{record['app']}: the deploy of {short(record['commit'])} is {record['phase']}")
