"""`autopilot logs`: what the setup and the processes of a deploy wrote, failed ones too."""

from __future__ import annotations

import json

import click

from reconciler.cli.client import Client, Record
from reconciler.cli.render import short
from reconciler.cli.session import Session, pass_session, with_session
from reconciler.model.errors import ReconcilerError

PAGE = 200
# The daemon shows the last MiB, so while following the text loses its beginning.
OVERLAP = 4096


@click.command("logs")
@click.option("--app", metavar="APP", help="Which app, when there are several.")
@click.option("--slot", metavar="SLOT", help="The last deploy in this slot, e.g. deploy-b.")
@click.option("--deploy", metavar="ID", help="This deploy; default: what is live.")
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written, until Ctrl-C.")
@with_session
@pass_session
def command(
    session: Session, app: str | None, slot: str | None, deploy: str | None, *, follow: bool
) -> None:
    """Show process and step output of a deploy."""
    client = session.client()
    chosen = deploy or _choose(client, app, slot)
    path = f"/deploys/{chosen}/log"
    text = client.text(path)
    if session.json:
        click.echo(json.dumps({"deploy_id": chosen, "log": text}, indent=2))
        return
    click.echo(text, nl=False)
    try:
        while follow:
            session.pause(0.5)
            fresh = client.text(path)
            click.echo(added(text, fresh), nl=False)
            text = fresh
    except KeyboardInterrupt:
        return


def added(before: str, after: str) -> str:
    """Returns what `after` has beyond `before`, whose beginning may be gone from it."""
    if after.startswith(before):
        return after[len(before) :]
    known = before[-OVERLAP:]
    at = after.rfind(known)
    return after[at + len(known) :] if at >= 0 else after


def _choose(client: Client, app: str | None, slot: str | None) -> str:
    """Returns the newest deploy of the slot, else the live one, else the newest; tells which."""
    items = client.get("/deploys", {"app": _app(client, app), "limit": PAGE})["items"]
    if slot is not None:
        name = slot if slot.startswith("deploy-") else f"deploy-{slot}"
        items = [one for one in items if one["slot"] == name]
    if not items:
        raise ReconcilerError(
            f"no recent deploy used {slot}; `autopilot history` lists them" if slot
            else "there is no deploy yet, so there is no log; begin with `autopilot deploy`"
        )  # fmt: skip
    newest = items[0]
    live = newest if slot else next((one for one in items if one["success"]), newest)
    if live is not newest:
        click.echo(f"what is live ({_named(live)}); newer: {_named(newest)}", err=True)
    return str(live["deploy_id"])


def _app(client: Client, app: str | None) -> str | None:
    """Several apps have several logs: one must be named."""
    names = [one["name"] for one in client.get("/apps")["items"]]
    if app is None and len(names) > 1:
        raise click.UsageError(f"name an app with --app: {', '.join(names)}")
    return app


def _named(record: Record) -> str:
    return f"{record['deploy_id']}, {short(record['commit'])} {record['phase']}"
