"""`autopilot events`: what happened, and with -f what happens."""

from __future__ import annotations

import json
import time

import click

from reconciler.cli.client import Client, Record, UnreachableError
from reconciler.cli.render import clean, local_time
from reconciler.cli.session import Session, pass_session, with_session

PATIENCE_S = 20


@click.command("events")
@click.option("-f", "--follow", is_flag=True, help="Go on as they happen, until Ctrl-C.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many."
)
@click.option("--after", type=int, metavar="SEQ", help="Those after this one; default: the newest.")
@with_session
@pass_session
def command(session: Session, limit: int, after: int | None, *, follow: bool) -> None:
    """Show the event stream."""
    client = session.client()
    page = client.get("/events", {"after": after, "limit": limit})
    if session.json and not follow:
        click.echo(json.dumps(page, indent=2))
        return
    for event in page["items"]:
        _show(session, event)
    if follow:
        _follow(session, client, page["next"])


def _follow(session: Session, client: Client, after: int) -> None:
    """Prints events as they come; a daemon that restarts is waited for, and none is missed."""
    lost_at: float | None = None
    try:
        while True:
            try:
                for event in client.events(after):
                    after, lost_at = event["seq"], None
                    _show(session, event)
            except UnreachableError:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > PATIENCE_S:
                    raise
            session.pause(0.5)
    except KeyboardInterrupt:
        return


def _show(session: Session, event: Record) -> None:
    if session.json:
        click.echo(json.dumps(event))
        return
    payload = event["payload"].items()
    told = " ".join(f"{key}={_value(value)}" for key, value in payload if value not in ("", None))
    click.echo(f"{local_time(event['occurred_at'])}  {event['kind']}  {clean(told)}")


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
