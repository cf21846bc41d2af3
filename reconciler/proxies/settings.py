"""What a proxy is told about this host, the same for every kind of proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.ports import Clock


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """`http_host` and `http_port` are where the shared routes are served; no port, no shared proxy.

    An empty `http_host` is all interfaces. `https_port` is used only when `http_port` is 80 and a
    route names a public host; None never. Of `environ` only AUTOPILOT_CADDY and PATH are read.
    """

    data_dir: Path
    clock: Clock
    environ: Mapping[str, str]
    http_host: str = "127.0.0.1"
    http_port: int | None = 8080
    https_port: int | None = 443
