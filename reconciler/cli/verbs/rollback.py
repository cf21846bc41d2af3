"""`autopilot rollback`: go back to what was live before, and stay there."""

from __future__ import annotations

import click

from reconciler.cli.follow import follow
from reconciler.cli.session import Session, pass_session, with_session


@click.command("rollback")
@click.option("--app", metavar="APP", help="Which app, when there are several.")
@click.option("--to", metavar="DEPLOY|COMMIT", help="Any recorded one; default: the previous.")
@click.option("--reason", metavar="R", help="Why, for the deploy log.")
@click.option("--no-wait", is_flag=True, help="Only ask; do not follow.")
@with_session
@pass_session
def command(
    session: Session, app: str | None, to: str | None, reason: str | None, *, no_wait: bool
) -> int:
    """Go back to the previous revision, or to any recorded one.

    What is left is quarantined: it comes back only by `autopilot deploy --force --reason`.
    """
    body = {"app": app, "to": to, "reason": reason, "wait": False}
    return follow(session, "/rollback", body, wait=not no_wait)
