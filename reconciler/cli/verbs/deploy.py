"""`autopilot deploy`: ask for a revision, and follow it until it is live or has failed."""

from __future__ import annotations

import click

from reconciler.cli.follow import follow
from reconciler.cli.session import Session, pass_session, with_session


@click.command("deploy")
@click.argument("ref", required=False)
@click.option("--app", metavar="APP", help="Which app, when there are several.")
@click.option("--no-wait", is_flag=True, help="Only ask; do not follow.")
@click.option("-m", "--message", metavar="MSG", help="For the deploy log.")
@click.option("--queue", is_flag=True, help="Wait behind a running deploy.")
@click.option("--force", is_flag=True, help="Deploy what is quarantined; needs --reason.")
@click.option(
    "--skip-probe",
    "skip_probes",
    multiple=True,
    type=click.Choice(["health", "request"]),
    help="Leave out a probe; needs --reason.",
)
@click.option("--reason", metavar="R", help="Why, for the deploy log.")
@with_session
@pass_session
def command(
    session: Session,
    ref: str | None,
    app: str | None,
    message: str | None,
    skip_probes: tuple[str, ...],
    reason: str | None,
    *,
    no_wait: bool,
    queue: bool,
    force: bool,
) -> int:
    """Deploy a commit, branch or tag.

    Without REF: the head of the app's branch. Follows the deploy to its end, and exits 0 only if
    it was promoted.
    """
    if (force or skip_probes) and not reason:
        raise click.UsageError("--force and --skip-probe need --reason, for the deploy log")
    body = {
        "commit": ref,
        "app": app,
        "wait": False,
        "queue": queue,
        "message": message,
        "force": force,
        "skip_probes": list(skip_probes),
        "reason": reason,
    }
    return follow(session, "/deploy", body, wait=not no_wait)
