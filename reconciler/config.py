"""Settings of a daemon, frozen once they are read: flag, else default."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.model.errors import ConfigError

DEFAULT_PORTS = range(20000, 30000)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a daemon is told at its start. Paths are absolute.

    `development` is `autopilot start`: the person at the terminal has the admin credential, the
    branch checked out at the start is followed, and a rewritten head is a new wish.
    """

    repo: Path
    data_dir: Path
    development: bool = False
    branch: str | None = None
    host: str = "127.0.0.1"
    port: int = 7778
    socket: Path | None = None
    http_host: str = "127.0.0.1"
    http_port: int = 8080
    proxy: str = "caddy"
    contracts: tuple[Path, ...] = ()
    on_exit: str = "keep"
    port_range: range = DEFAULT_PORTS
    log_format: str = "text"
    adopt: bool = False
    app_user: str | None = None

    @property
    def api_socket(self) -> Path:
        return self.socket or self.data_dir / "api.sock"

    @property
    def api_url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def public_url(self) -> str:
        """Where a person on this host finds the apps with routes."""
        unspecified = ipaddress.ip_address(self.http_host).is_unspecified
        host = "127.0.0.1" if unspecified else self.http_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.http_port}"

    def check(self) -> None:
        """Raises ConfigError naming the flag when a setting cannot be used."""
        for flag, address in (("--host", self.host), ("--http-host", self.http_host)):
            try:
                ipaddress.ip_address(address)
            except ValueError:
                raise ConfigError(f"{flag} {address}: not an IP address") from None
        if not ipaddress.ip_address(self.host).is_loopback:
            raise ConfigError(
                f"--host {self.host}: the API can be bound to loopback only for now, because "
                "tokens and TLS are not built yet; use --host 127.0.0.1 and an SSH tunnel"
            )
        if any(mark in str(self.data_dir) for mark in "{}\n"):
            raise ConfigError(f"--data-dir {self.data_dir}: braces and newlines cannot be used")
        for flag, port in (("--port", self.port), ("--http-port", self.http_port)):
            if not 0 < port < 1 << 16:
                raise ConfigError(f"{flag} {port}: not a port number (1 to 65535)")


def parse_port_range(text: str) -> range:
    """Reads `A-B`, both included. Raises ConfigError."""
    first, dash, last = text.partition("-")
    if not (dash and first.isdigit() and last.isdigit()):
        raise ConfigError(f"--port-range {text}: write it as FIRST-LAST, e.g. 20000-29999")
    ports = range(int(first), int(last) + 1)
    if not ports or ports[0] < 1024 or ports[-1] >= 1 << 16:
        raise ConfigError(f"--port-range {text}: needs 1024 <= FIRST <= LAST <= 65535")
    return ports


def repo_name(repo: Path) -> str:
    """Returns what a repository is called in the data directory."""
    kept = "".join(mark if mark.isalnum() or mark in "-_" else "-" for mark in repo.name)
    return kept.strip("-") or "repo"


def default_data_dir(repo: Path, *, development: bool) -> Path:
    return repo / ".data" if development else Path("/var/lib/autopilot")


def find_data_dir(environment: Mapping[str, str], repo: Path) -> Path:
    """Returns the data directory a command line on this host most likely means."""
    if named := environment.get("AUTOPILOT_DATA_DIR"):
        return Path(named)
    local = default_data_dir(repo, development=True)
    service = default_data_dir(repo, development=False)
    return service if service.is_dir() and not local.is_dir() else local
