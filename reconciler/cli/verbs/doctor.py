"""`autopilot doctor`: checks this host, one line each, with the fix."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from reconciler.cli.checks import Check, Grade, run_checks
from reconciler.cli.render import Paint, clean
from reconciler.cli.session import Session, pass_session, with_session

STYLES = {Grade.OK: "ok", Grade.WARN: "warn", Grade.FAIL: "bad"}


@click.command("doctor")
@with_session
@pass_session
def command(session: Session) -> int:
    """Check this host, one line each, with the fix."""
    paint = Paint(session.color)
    checks = []
    for check in run_checks(session):
        checks.append(check)
        if not session.json:
            click.echo(_line(check, paint))
    if session.json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=2))
    return int(any(check.grade is Grade.FAIL for check in checks))


def _line(check: Check, paint: Paint) -> str:
    grade = paint(check.grade.value.ljust(4), STYLES[check.grade])
    fix = f" -> {check.fix}" if check.fix else ""
    return f"{grade}  {check.name}: {clean(check.found)}{fix}"
