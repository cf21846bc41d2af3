"""`autopilot history`: the deploy log, newest first."""

from __future__ import annotations

import json

import click

from reconciler.cli.client import Record
from reconciler.cli.render import Cell, Paint, local_time, short, span
from reconciler.cli.session import Session, pass_session, with_session

HEAD = ("STARTED", "APP", "COMMIT", "OUTCOME", "TOOK", "WHO", "MESSAGE", "DEPLOY")


@click.command("history")
@click.option("--app", metavar="APP", help="Only this app.")
@click.option(
    "--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many."
)
@click.option("--before", type=int, metavar="NEXT", help="Go on where the last page ended.")
@with_session
@pass_session
def command(session: Session, app: str | None, limit: int, before: int | None) -> None:
    """Show the deploy log, newest first."""
    page = session.client().get("/deploys", {"app": app, "limit": limit, "before": before})
    if session.json:
        click.echo(json.dumps(page, indent=2))
        return
    if not page["items"]:
        click.echo("no deploy yet")
        return
    click.echo("\n".join(Paint(session.color).table(HEAD, map(_row, page["items"]))))
    if page["next"] is not None:
        click.echo(f"older ones: autopilot history --before {page['next']}")


def _row(record: Record) -> list[Cell]:
    ended = record["finished_at"] is not None
    style = "ok" if record["success"] else "bad" if ended else "warn"
    reason = f" ({record['reason']})" if record["reason"] else ""
    return [
        local_time(record["started_at"]),
        record["app"],
        short(record["commit"]),
        (f"{record['phase']}{reason}", style),
        span(record["duration_ms"]),
        f"{record['actor']} {record['trigger']}",
        record["message"] or "",
        record["deploy_id"],
    ]
