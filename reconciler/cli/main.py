"""The entry: finds the verb, and turns whatever ends it into an exit code and a sentence.

Imports nothing that only one verb needs: `autopilot status` is measured in milliseconds.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from reconciler import __version__
from reconciler.cli.client import ProblemError, UnreachableError
from reconciler.cli.session import Session, with_session
from reconciler.model.errors import ReconcilerError

DONE, FAILED, USAGE, UNREACHABLE = 0, 1, 64, 69

VERBS = (
    "start", "server", "init", "validate", "plan", "deploy", "rollback", "status", "history",
    "logs", "events", "cancel", "detach", "secrets", "doctor", "version",
)  # fmt: skip
SYNONYMS = {"log": "logs", "event": "events", "secret": "secrets", "deploys": "history"}


class Verbs(click.Group):
    """The verbs, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's)
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        name = SYNONYMS.get(cmd_name, cmd_name)
        if name not in VERBS:
            return None
        module = importlib.import_module(f"reconciler.cli.verbs.{name}")
        command: click.Command = module.command
        return command


@click.group(
    cls=Verbs,
    name="autopilot",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@with_session
@click.version_option(__version__, prog_name="autopilot", message="%(prog)s %(version)s")
def autopilot() -> None:
    """Deploys what your Git repository says to this host, and keeps it that way.

    Exit codes: 0 done, 1 failed or refused, 2 changes pending (plan), 64 wrong usage,
    69 daemon unreachable.
    """


def main() -> NoReturn:
    """Runs the command line of this process and exits."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code."""
    session = Session()
    try:
        code = autopilot.main(
            list(arguments), prog_name="autopilot", standalone_mode=False, obj=session
        )
        sys.stdout.flush()
    except (click.ClickException, click.Abort, ReconcilerError, BrokenPipeError) as error:
        return _told(session, error)
    return code if isinstance(code, int) else DONE


def _told(session: Session, error: Exception) -> int:
    """Tells why a verb did not do its work; returns the exit code."""
    match error:
        case click.ClickException():
            error.show()
        case UnreachableError():
            start = session.start_command()
            _complain(f"{error}\nIs the daemon running? Start it with: {start}")
        case ReconcilerError():
            if isinstance(error, ProblemError) and session.json:
                click.echo(json.dumps(error.body, indent=2))
            _complain(str(error))
        case BrokenPipeError():
            # The reader went away: nothing is left to tell, and flushing at exit must not fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        case _:
            _complain("stopped")
    if isinstance(error, UnreachableError):
        return UNREACHABLE
    return USAGE if isinstance(error, click.UsageError) else FAILED


def _complain(message: str) -> None:
    click.echo(f"autopilot: {message}", err=True)
