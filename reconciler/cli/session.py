"""The session: what the global options say, and the client that follows from them."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from reconciler.cli.client import Address, Client
from reconciler.config import find_data_dir

Command = TypeVar("Command", bound="Callable[..., Any]")
DEFAULT_URL = "http://127.0.0.1:7778"


@dataclass(slots=True)
class Session:
    """Filled by the global options, before the verb and after it alike."""

    url: str | None = None
    token: str | None = None
    json: bool = False
    no_color: bool = False
    data_dir: str | None = None

    @property
    def color(self) -> bool:
        return not self.no_color and "NO_COLOR" not in os.environ and sys.stdout.isatty()

    def pause(self, seconds: float) -> None:
        """Waits before something is asked again; Ctrl-C ends it."""
        threading.Event().wait(seconds)

    def directory(self) -> Path:
        """The data directory of the daemon that is most likely meant."""
        if self.data_dir is not None:
            return Path(self.data_dir).absolute()
        here = Path.cwd()
        return find_data_dir(os.environ, repository_above(here) or here)

    def client(self) -> Client:
        """Returns the client for `--url`, else for the daemon of the data directory, else for the
        default port when no daemon ever used that directory."""
        token = self.token or os.environ.get("AUTOPILOT_TOKEN")
        address = self._address()
        return Client(address, token or self._own_token(address))

    def _address(self) -> Address:
        if url := self.url or os.environ.get("ORCHESTRATOR_URL"):
            return Address.parse(url)
        directory = self.directory()
        path = directory / "api.sock"
        if path.is_socket() and os.access(path, os.W_OK):
            return Address(socket=path)
        try:
            holder = json.loads((directory / "lock").read_text(encoding="utf-8"))
            running = Path(f"/proc/{int(holder['pid'])}").exists()
        except (OSError, ValueError, KeyError, TypeError):
            return Address.parse(DEFAULT_URL)
        # Whoever has the default port while this daemon is down serves another repository.
        return Address.parse(holder["api"]) if running else Address(socket=path)

    def start_command(self) -> str:
        """How to start the daemon that did not answer."""
        service = self.directory() == Path("/var/lib/autopilot")
        return "autopilot server start" if service else "autopilot start"

    def _own_token(self, address: Address) -> str | None:
        """The admin token of the data directory, for nobody but its own daemon.

        While that daemon is down any process may hold its port and wait for the token, so the
        listener must belong to the owner of the file.
        """
        if address.socket is not None or not address.loopback:
            return None
        path = self.directory() / "admin.token"
        try:
            token = path.read_text(encoding="ascii").strip()
            owner = path.stat().st_uid
        except (OSError, ValueError):
            return None
        from reconciler.host.sockets import listeners  # noqa: PLC0415 (only for TCP)

        holders = {one.uid for one in listeners(address.port)}
        return token if holders == {owner} else None


def make_private(directory: Path) -> None:
    """Makes a data directory that Git does not see, whatever the repository ignores."""
    from reconciler.host.files import ensure_directory  # noqa: PLC0415 (few verbs write)

    ensure_directory(directory, 0o711)
    ignore = directory / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="ascii")


def repository_above(path: Path) -> Path | None:
    """Returns the nearest directory at or above `path` that is a Git work tree or a bare one."""
    for directory in (path, *path.parents):
        bare = (directory / "HEAD").is_file() and (directory / "objects").is_dir()
        if (directory / ".git").exists() or bare:
            return directory
    return None


def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    session = context.ensure_object(Session)
    if value is not None and parameter.name is not None:
        setattr(session, parameter.name, value)


_KEPT: dict[str, Any] = {"callback": remember, "expose_value": False}


def with_session(command: Command) -> Command:
    """Adds the global options, which every verb takes as well as `autopilot` itself."""
    options = (
        click.option("--url", metavar="URL", help="API to ask (or ORCHESTRATOR_URL).", **_KEPT),
        click.option("--token", metavar="TOKEN", help="Credential (or AUTOPILOT_TOKEN).", **_KEPT),
        click.option("--json", is_flag=True, default=None, help="Print JSON.", **_KEPT),
        click.option(
            "--no-color", is_flag=True, default=None, help="Print without colours.", **_KEPT
        ),
        click.option(
            "--data-dir", metavar="DIR", help="Data directory (or AUTOPILOT_DATA_DIR).", **_KEPT
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


pass_session = click.make_pass_decorator(Session, ensure=True)
