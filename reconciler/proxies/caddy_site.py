"""Where a Caddy has its files and sockets, made ready; and the secret of its confirm listener."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from reconciler.host.files import ensure_directory, write_atomic
from reconciler.host.locks import runtime_directory
from reconciler.model.errors import ConfigError
from reconciler.proxies.caddy_config import CaddySite
from reconciler.proxies.settings import ProxySettings

# Paths are parts of placeholders and of patterns in the configuration, where these mean something.
_UNSAFE = re.compile(r"[{}\[\]*?\\\x00-\x1f]")
# What a socket path may be: the kernel takes 107 bytes, and Caddy reads `|` and more as its own.
_SOCKET_PATH = re.compile(r"[\w./-]{1,96}", re.ASCII)


def make_site(settings: ProxySettings) -> CaddySite:
    """Makes `<data>/proxy/` and `<data>/routes/`. Raises ConfigError for an unusable path."""
    data_dir = settings.data_dir.absolute()
    if _UNSAFE.search(str(data_dir)):
        raise ConfigError(
            f"Caddy cannot follow the path of the data directory {str(data_dir)!r}: it has one "
            "of { } [ ] * ? \\ or a control character; choose another --data-dir"
        )
    directory, routes = data_dir / "proxy", data_dir / "routes"
    ensure_directory(directory, 0o700)
    ensure_directory(routes, 0o755)
    return CaddySite(
        routes=routes,
        storage=directory / "storage",
        log=directory / "caddy.log",
        admin_socket=_socket_path(directory / "admin.sock"),
        confirm_socket=_socket_path(directory / "confirm.sock"),
        secret=_secret(directory / "secret"),
        http_host=settings.http_host,
        http_port=settings.http_port,
        https_port=settings.https_port,
    )


def _socket_path(wanted: Path) -> Path:
    """Returns the path itself, or a short one beside the locks that stands for it."""
    if _SOCKET_PATH.fullmatch(str(wanted)):
        return wanted
    short = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:24]
    return runtime_directory() / f"{short}.sock"


def _secret(path: Path) -> str:
    with suppress(FileNotFoundError):
        if secret := path.read_text(encoding="ascii").strip():
            return secret
    secret = secrets.token_urlsafe(32)
    write_atomic(path, secret.encode(), mode=0o600)
    return secret
