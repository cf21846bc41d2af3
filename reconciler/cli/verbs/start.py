"""`autopilot start`: orchestrator and proxy in the foreground, for the repository here."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from reconciler.cli.session import (
    Session,
    make_private,
    pass_session,
    repository_above,
    with_session,
)
from reconciler.config import Settings, default_data_dir
from reconciler.model.errors import ConfigError

PORT = click.IntRange(1, 65535)
APP_USER = "autopilot-apps"


@click.command("start")
@click.option("--repo", default=".", metavar="PATH", help="The repository; default: the one here.")
@click.option("--branch", metavar="B", help="The human branch; default: main, else HEAD's.")
@click.option("--http-port", type=PORT, default=8080, show_default=True, help="Port of the apps.")
@click.option("--port", type=PORT, default=7778, show_default=True, help="Port of the API.")
@with_session
@pass_session
def command(session: Session, repo: str, branch: str | None, http_port: int, port: int) -> int:
    """Run everything for the repository here, until Ctrl-C."""
    root = repository(Path(repo))
    directory = (
        session.directory() if session.data_dir else default_data_dir(root, development=True)
    )
    make_private(directory)
    with refusals_are_usage():
        settings = Settings(
            repo=root,
            data_dir=directory,
            development=True,
            branch=branch,
            port=port,
            http_port=http_port,
            on_exit="stop",
        )
        settings.check()
    from reconciler.daemon import run  # noqa: PLC0415 (the daemon is not a verb's to import)

    return run(settings)


def repository(path: Path) -> Path:
    """Returns the repository at or above the path. Raises ConfigError, saying how to begin."""
    root = repository_above(path.resolve())
    if root is None:
        raise ConfigError(
            f"there is no Git repository at {path.resolve()} or above it. Begin with:\n"
            "  git init && git add --all && git commit -m first\n"
            "  autopilot init"
        )
    return root


def service_user() -> str | None:
    """The user that apps of a service run as, when this host has it and root may change to it."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(APP_USER).pw_name
    except KeyError:
        return None


@contextmanager
def refusals_are_usage() -> Iterator[None]:
    """A setting that cannot be used is wrong usage, as an unknown flag is."""
    try:
        yield
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
