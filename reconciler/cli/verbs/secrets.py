"""`autopilot secrets`: the secret files of this host. A value never passes through argv."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.session import (
    Session,
    make_private,
    pass_session,
    repository_above,
    with_session,
)
from reconciler.model.names import APP_NAME, AppName

if TYPE_CHECKING:
    from reconciler.secrets.files import FileSecrets

APP = click.option("--app", metavar="APP", help="Which app, when there are several.")


@click.group("secrets")
@with_session
def command() -> None:
    """Set, list and unset the secrets of an app on this host."""


@command.command("set")
@click.argument("name")
@APP
@with_session
@pass_session
def set_secret(session: Session, name: str, app: str | None) -> None:
    """Set NAME to a value read from stdin, or asked for on a terminal."""
    chosen = _app(session, app)
    # In development the directory may not exist yet, and what lies in it must not be committed.
    if (directory := session.directory()).name == ".data":
        make_private(directory)
    _files(session).set_secret(chosen, name, _value(name))
    _done(session, chosen, name, "set")


@command.command("list")
@APP
@with_session
@pass_session
def list_secrets(session: Session, app: str | None) -> None:
    """List the names; values are never shown."""
    names = _files(session).list_secrets(_app(session, app))
    if session.json:
        click.echo(json.dumps({"items": list(names), "next": None}))
        return
    click.echo("\n".join(names) or "no secrets yet; set one with `autopilot secrets set NAME`")


@command.command("unset")
@click.argument("name")
@APP
@with_session
@pass_session
def unset_secret(session: Session, name: str, app: str | None) -> int:
    """Remove NAME."""
    chosen = _app(session, app)
    if not _files(session).unset_secret(chosen, name):
        click.echo(f"autopilot: {chosen} has no secret {name}; nothing was changed", err=True)
        return 1
    _done(session, chosen, name, "unset")
    return 0


def _files(session: Session) -> FileSecrets:
    from reconciler.secrets.files import FileSecrets  # noqa: PLC0415 (watchfiles takes a while)

    return FileSecrets(session.directory() / "secrets")


def _value(name: str) -> str:
    if sys.stdin.isatty():
        entered: str = click.prompt(f"Value of {name}", hide_input=True)
        return entered
    # What `echo` adds is not part of the value; a newline inside of it is.
    return sys.stdin.read().removesuffix("\n")


def _done(session: Session, app: AppName, name: str, verb: str) -> None:
    if session.json:
        click.echo(json.dumps({"app": app, "name": name, "done": verb}))
        return
    click.echo(
        f"{name} is {verb} for {app}. If the app's secrets_inject names it, the daemon rolls the "
        "app to take it up."
    )


def _app(session: Session, app: str | None) -> AppName:
    """Returns the app named, else the only one that this host or this repository knows."""
    if app is not None:
        if APP_NAME.fullmatch(app) is None:
            raise click.UsageError(f"--app {app}: not the name of an app")
        return AppName(app)
    known = sorted(_known(session))
    if len(known) != 1:
        named = f": {', '.join(known)}" if known else ""
        raise click.UsageError(f"name the app with --app{named}")
    return AppName(known[0])


def _known(session: Session) -> set[str]:
    directory = session.directory()
    here = Path.cwd()
    manifests = (repository_above(here) or here) / ".autopilot/apps"
    found = {path.name for path in (directory / "apps").glob("*") if path.is_dir()}
    found |= {path.name.partition(".")[0] for path in manifests.glob("*.*")}
    found |= {path.stem for path in (directory / "secrets").glob("*.env")}
    return {name for name in found if APP_NAME.fullmatch(name)}
