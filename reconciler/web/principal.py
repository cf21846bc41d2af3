"""The principal: who asks, decided in this one place for every route before anything is read.

A credential that is sent must be right. Without one, only a caller on this host counts, and a web
page of somebody else never does.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import Scope

from reconciler.host.files import write_atomic
from reconciler.model.errors import RefusedError
from reconciler.model.principals import ADMIN, LOCAL, Principal

# Where the server puts the peer of a Unix socket: `{"uid": int, "pid": int}`; absent on TCP.
PEER = "autopilot.peer"
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
FORWARDING = frozenset({"forwarded", "x-real-ip", "via"})


@dataclass(frozen=True, slots=True)
class Access:
    """What callers are measured against: the admin token and the daemon's own uid."""

    token: str
    uid: int

    def __repr__(self) -> str:
        return f"Access(uid={self.uid})"


def admin_token(data_dir: Path) -> str:
    """Returns the content of `admin.token`, made when it is missing or was readable by others."""
    path = data_dir / "admin.token"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return _new_token(path)
    try:
        found = os.fstat(descriptor)
        token = os.read(descriptor, 4096).decode("ascii", "replace").strip()
    finally:
        os.close(descriptor)
    private = found.st_mode & 0o077 == 0 and found.st_uid == os.geteuid()
    return token if private and token else _new_token(path)


def _new_token(path: Path) -> str:
    token = secrets.token_urlsafe(32)
    write_atomic(path, f"{token}\n".encode(), mode=0o600)
    return token


def identify(scope: Scope, access: Access) -> Principal:
    """Returns who asks. Raises RefusedError unauthenticated or forbidden."""
    headers = Headers(scope=scope)
    local = _local_authorities(scope)
    _refuse_foreign_pages(scope, headers, local)
    if credentials := headers.getlist("authorization"):
        return _bearer(credentials, access)
    if names := sorted(name for name in headers if _forwards(name)):
        raise RefusedError(
            "unauthenticated",
            f"The request was forwarded (it carries {', '.join(names)}), so it is not local; "
            "send the admin token as `Authorization: Bearer ...`",
        )
    peer = scope.get("extensions", {}).get(PEER)
    if peer is not None:
        return ADMIN if peer["uid"] in (0, access.uid) else LOCAL
    hosts = headers.getlist("host")
    if len(hosts) != 1 or hosts[0].lower() not in local:
        raise RefusedError(
            "forbidden",
            f"Host {', '.join(hosts) or '(none)'} does not name this daemon; call it at "
            f"{' or '.join(sorted(local))}, or send the admin token",
        )
    return LOCAL


def _local_authorities(scope: Scope) -> frozenset[str]:
    """The Host values by which a caller on this host reaches the socket it is connected to."""
    server = scope.get("server") or ("", None)
    host, port = server[0], server[1]
    if port is None:
        return frozenset()
    names = [*LOCAL_NAMES, *_bound_loopback(host)]
    bare = names if port == 80 else []
    return frozenset([f"{name}:{port}" for name in names] + bare)


def _bound_loopback(host: str) -> list[str]:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return []
    if not address.is_loopback:
        return []
    return [f"[{address}]" if address.version == 6 else str(address)]


def _refuse_foreign_pages(scope: Scope, headers: Headers, local: frozenset[str]) -> None:
    """A browser says which page asks; only our own may, because every page can reach loopback."""
    own = {f"http://{authority}" for authority in local}
    for origin in headers.getlist("origin"):
        if origin.lower() not in own:
            raise RefusedError("forbidden", f"The web page {origin} may not call this daemon")
    site = headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none") and not _follows_link(scope, headers):
        raise RefusedError("forbidden", f"A {site} web page may not call this daemon")


def _follows_link(scope: Scope, headers: Headers) -> bool:
    """Whether a person opened the address from elsewhere: the other page cannot read the answer."""
    return (
        scope["method"] == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _forwards(name: str) -> bool:
    return name in FORWARDING or name.startswith("x-forwarded-")


def _bearer(credentials: list[str], access: Access) -> Principal:
    scheme, _, token = credentials[0].partition(" ")
    known = secrets.compare_digest(token.strip().encode(), access.token.encode())
    if len(credentials) != 1 or scheme.lower() != "bearer" or not access.token or not known:
        raise RefusedError(
            "unauthenticated",
            "The credential is not valid; send the content of admin.token in the data directory "
            "as `Authorization: Bearer ...`, or none at all",
        )
    return ADMIN
