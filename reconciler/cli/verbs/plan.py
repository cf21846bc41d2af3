"""`autopilot plan`: what would change, and why."""

from __future__ import annotations

import json

import click

from reconciler.cli.client import Record
from reconciler.cli.render import Paint, clean
from reconciler.cli.session import Session, pass_session, with_session
from reconciler.cli.verbs.status import told_conditions

PENDING = 2


@click.command("plan")
@click.option("--app", metavar="APP", help="Only this app.")
@with_session
@pass_session
def command(session: Session, app: str | None) -> int:
    """Compare desired with observed, with reasons.

    Exits 0 when converged, 2 when changes are pending.
    """
    plan = session.client().get("/plan", {"app": app})
    if session.json:
        click.echo(json.dumps(plan, indent=2))
    else:
        paint = Paint(session.color)
        lines = [line for name, one in plan["apps"].items() for line in _lines(name, one, paint)]
        click.echo("\n".join(lines) or "no app yet; run `autopilot init` and commit .autopilot/")
    return 0 if plan["converged"] else PENDING


def _lines(name: str, plan: Record, paint: Paint) -> list[str]:
    state = paint("converged", "ok") if plan["converged"] else paint("changes pending", "warn")
    lines = [f"{paint(name, 'bold')}: {state}"]
    lines += [f"  - {clean(one)}" for one in plan["pending"]]
    lines += [f"  next: {one['action']}: {clean(one['why'])}" for one in plan["steps"]]
    lines += [f"  {_condition(one)}" for one in told_conditions(plan["conditions"])]
    return lines


def _condition(one: Record) -> str:
    name = one["type"] if one["status"] else f"not {one['type']}"
    return clean(f"{name} {one['reason']}: {one.get('message', '')}".rstrip(": "))
