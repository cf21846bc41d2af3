"""What a Caddy was told to serve, kept beside it, so that a new daemon knows without asking."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reconciler.host.files import write_atomic
from reconciler.model.canonical import canonical
from reconciler.model.desired import Route
from reconciler.model.names import AppName
from reconciler.model.observed import AppRouting, RoutingTable
from reconciler.proxies.caddy_process import CaddyProcess


@dataclass(frozen=True, slots=True)
class Served:
    """A table with the digest of the configuration made of it, true of that one process only."""

    table: RoutingTable
    guarded: frozenset[AppName]
    digest: str
    process: CaddyProcess


def write_served(path: Path, served: Served) -> None:
    fields = asdict(served) | {"guarded": sorted(served.guarded)}
    write_atomic(path, canonical(fields).encode(), mode=0o600)


def read_served(path: Path, process: CaddyProcess) -> Served | None:
    """Returns what was written, None when it tells of another process or cannot be read."""
    try:
        fields = json.loads(path.read_bytes())
        served = Served(
            RoutingTable(tuple(_routing(one) for one in fields["table"]["apps"])),
            frozenset(fields["guarded"]),
            str(fields["digest"]),
            CaddyProcess(**fields["process"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return served if served.process == process else None


def _routing(fields: dict[str, Any]) -> AppRouting:
    routes = tuple(Route(**route) for route in fields["routes"])
    return AppRouting(**(fields | {"routes": routes}))
