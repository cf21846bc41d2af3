"""`autopilot server start`: the daemon as a service runs it."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.cli.session import Session, pass_session, with_session
from reconciler.cli.verbs.start import PORT, refusals_are_usage, repository, service_user
from reconciler.config import (
    DEFAULT_PORTS,
    Settings,
    default_data_dir,
    parse_port_range,
    repo_name,
)


@click.group("server")
@with_session
def command() -> None:
    """Run the daemon of this host."""


@command.command("start")
@click.option("--repo", default=".", metavar="PATH", help="The repository to follow.")
@click.option("--branch", metavar="B", help="The human branch; default: main, else HEAD's.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where the API listens.")
@click.option("--port", type=PORT, default=7778, show_default=True, help="Port of the API.")
@click.option("--socket", metavar="PATH", help="Socket of the API; default: DATA_DIR/api.sock.")
@click.option("--http-host", default="0.0.0.0", show_default=True, help="Where apps listen.")  # noqa: S104 (a service is there for others)
@click.option("--http-port", type=PORT, default=8080, show_default=True, help="Port of the apps.")
@click.option(
    "--proxy", type=click.Choice(["caddy", "none"]), default="caddy", show_default=True,
    help="What leads traffic to the live slot.",
)  # fmt: skip
@click.option(
    "--contract", "contracts", multiple=True, metavar="FILE",
    help="An app whose contract lies outside the repository; may be given several times.",
)  # fmt: skip
@click.option(
    "--on-exit", type=click.Choice(["keep", "stop"]), default="keep", show_default=True,
    help="Whether apps and proxy outlive the daemon.",
)  # fmt: skip
@click.option("--port-range", metavar="A-B", help="Ports for the apps; default: 20000-29999.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="How the daemon logs.",
)  # fmt: skip
@click.option("--adopt", is_flag=True, help="Begin a new store from what is live.")
@with_session
@pass_session
def start(
    session: Session,
    repo: str,
    branch: str | None,
    host: str,
    port: int,
    socket: str | None,
    http_host: str,
    http_port: int,
    proxy: str,
    contracts: tuple[str, ...],
    on_exit: str,
    port_range: str | None,
    log_format: str,
    *,
    adopt: bool,
) -> int:
    """Run the daemon in the foreground, as a service does."""
    with refusals_are_usage():
        ports = parse_port_range(port_range) if port_range else DEFAULT_PORTS
    root = _repository(Path(repo), session)
    with refusals_are_usage():
        settings = Settings(
            repo=root,
            data_dir=_data_dir(session, root),
            branch=branch,
            host=host,
            port=port,
            socket=Path(socket).absolute() if socket else None,
            http_host=http_host,
            http_port=http_port,
            proxy=proxy,
            contracts=tuple(Path(contract).absolute() for contract in contracts),
            on_exit=on_exit,
            port_range=ports,
            log_format=log_format,
            adopt=adopt,
            app_user=service_user(),
        )
        settings.check()
    from reconciler.daemon import run  # noqa: PLC0415 (the daemon is not a verb's to import)

    return run(settings)


def _repository(path: Path, session: Session) -> Path:
    """Returns the repository; one that is out of reach now, but was followed before, will do: its
    apps are still to be kept up."""
    known = path.resolve()
    followed = (_data_dir(session, known) / "repos" / repo_name(known)).is_dir()
    return known if followed else repository(path)


def _data_dir(session: Session, root: Path) -> Path:
    if session.data_dir is not None:
        return session.directory()
    return default_data_dir(root, development=False)
