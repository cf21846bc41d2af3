"""The configuration of our Caddy as a pure function of the routing table.

Nothing in it changes at a switch: upstreams are named by files behind the pointers, which Caddy
reads again at each try. Touches no file and no socket.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.model.canonical import Json
from reconciler.model.desired import Route
from reconciler.model.names import AppName
from reconciler.model.observed import AppRouting, RoutingTable

SECRET_HEADER = "X-Autopilot-Secret"  # noqa: S105 (the name of a header)
APP_HEADER = "X-Autopilot-App"
DIALLED_HEADER = "X-Autopilot-Dialled"
TRIED_HEADER = "X-Autopilot-Tried"

HTTP_PORT = 80
INTERNAL_HOST = "127.0.0.1"

# Names that no public certificate authority issues for (RFC 6761, 6762, 8375, and common use).
_PRIVATE_SUFFIXES = (
    ".alt", ".arpa", ".example", ".home", ".internal", ".invalid", ".lan", ".local", ".localdomain",
    ".localhost", ".onion", ".test",
)  # fmt: skip
_HOST_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]")

# Routes are tried one after the other, so many of them are first told apart by chunks of hosts.
_CHUNK = 32

_DIALLED = "{http.reverse_proxy.upstream.hostport}"


@dataclass(frozen=True, slots=True)
class CaddySite:
    """Where this Caddy listens and where its files are. `secret` opens the confirm listener."""

    routes: Path
    storage: Path
    log: Path
    admin_socket: Path
    confirm_socket: Path
    secret: str
    http_host: str
    http_port: int | None
    https_port: int | None


@dataclass(frozen=True, slots=True)
class Listen:
    """A TCP address that Caddy listens on, and what a person changes to move it."""

    host: str
    port: int
    setting: str
    app: AppName | None = None

    @property
    def address(self) -> str:
        """The address as Caddy reads it: IPv6 in brackets, nothing for all interfaces."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def overlaps(self, local: str) -> bool:
        """Whether a listener at that IP address and the same port would take our connections."""
        try:
            mine = ipaddress.ip_address(self.host or "::")
        except ValueError:
            return True
        other = ipaddress.ip_address(local)
        other = getattr(other, "ipv4_mapped", None) or other
        if mine.version == other.version:
            return mine == other or mine.is_unspecified or other.is_unspecified
        # A socket on `::` takes IPv4 as well, unless told otherwise, which cannot be seen.
        return mine.is_unspecified if mine.version == 6 else other.is_unspecified


def listens(table: RoutingTable, site: CaddySite) -> tuple[Listen, ...]:
    """Returns every TCP address that the table needs, the shared ones first."""
    return (*_shared_listens(table, site), *_app_listens(table))


def _shared_listens(table: RoutingTable, site: CaddySite) -> Iterator[Listen]:
    host = _bare(site.http_host)
    if site.http_port is not None:
        yield Listen(host, site.http_port, "--http-port")
    if site.https_port is not None and secured_hosts(table, site):
        yield Listen(host, site.https_port, "--https-port")


def _app_listens(table: RoutingTable) -> Iterator[Listen]:
    for one in table.apps:
        if one.live and one.port is not None:
            yield Listen(_bare(one.bind), one.port, f"`port` of {one.app}", one.app)
        if one.live and one.internal_port is not None:
            yield Listen(INTERNAL_HOST, one.internal_port, f"`internal_port` of {one.app}", one.app)


def _bare(host: str) -> str:
    bare = host.strip("[]")
    return "" if bare == "*" else bare


def unproved(table: RoutingTable) -> frozenset[AppName]:
    """Returns the apps that have never been live, whose pointer is looked at in each request."""
    return frozenset(one.app for one in table.apps if not one.live)


def configuration(
    table: RoutingTable, site: CaddySite, guarded: frozenset[AppName]
) -> dict[str, Json]:
    """Returns Caddy's configuration; equal for tables that differ in order only.

    Apps in `guarded` answer 503 while they have no pointer. It may name more than have none: the
    look costs a fifth of a request's time, but turning it off would cost a reload.
    """
    apps = sorted(table.apps, key=lambda one: one.app)
    servers: dict[str, Json] = {"confirm": _confirm_server(apps, site)}
    shared = [one for one in apps if one.routes]
    if site.http_port is not None:
        servers["shared"] = _shared_server(shared, table, site, guarded)
    http: dict[str, Json] = {"servers": servers}
    if site.https_port is not None and (hosts := secured_hosts(table, site)):
        servers["secured"] = _secured_server(shared, hosts, site.https_port, site, guarded)
        http["https_port"] = site.https_port
    for one in apps:
        if one.live and one.port is not None:
            listen = Listen(_bare(one.bind), one.port, "port")
            routes = [_choice(one, guarded), *_forward([one], site, guarded)]
            servers[f"app-{one.app}"] = _server(listen.address, routes)
        if one.live and one.internal_port is not None:
            servers[f"internal-{one.app}"] = _internal_server(one, one.internal_port, site, guarded)
    return {
        "admin": {"listen": _unix(site.admin_socket), "config": {"persist": False}},
        "logging": _logging(site),
        "storage": {"module": "file_system", "root": str(site.storage)},
        "apps": {"http": http},
    }


def secured_hosts(table: RoutingTable, site: CaddySite) -> tuple[str, ...]:
    """Returns the public hosts to get certificates for; none unless HTTP is on its own port 80,
    where the outside can prove that the name leads here."""
    if site.http_port != HTTP_PORT or site.https_port is None:
        return ()
    named = {route.host.lower() for one in table.apps for route in one.routes if route.host}
    return tuple(sorted(filter(is_public_host, named)))


def is_public_host(host: str) -> bool:
    """Whether a certificate authority could issue for that name: not for IP addresses, single
    labels, wildcards and names that never leave a network."""
    return _HOST_NAME.fullmatch(host) is not None and not host.endswith(_PRIVATE_SUFFIXES)


def _unix(socket: Path) -> str:
    return f"unix/{socket}|0600"


def _logging(site: CaddySite) -> Json:
    return {
        "logs": {
            "default": {
                "writer": {
                    "output": "file",
                    "filename": str(site.log),
                    "mode": "0600",
                    "roll_size_mb": 10,
                    "roll_keep": 1,
                    "roll_gzip": False,
                },
                # What people send to an app is the app's own matter.
                "encoder": {
                    "format": "filter",
                    "wrap": {"format": "json"},
                    "fields": {
                        "request>headers": {"filter": "delete"},
                        "request>uri": {"filter": "delete"},
                    },
                },
                # An address that is missing for 2 s is one line for each try of each request.
                "sampling": {"interval": 1_000_000_000, "first": 20, "thereafter": 1000},
            }
        }
    }


def _server(address: str, routes: Sequence[Json]) -> dict[str, Json]:
    return {
        "listen": [address],
        "protocols": ["h1"],
        "automatic_https": {"disable": True},
        "routes": routes,
    }


def _shared_server(
    apps: Sequence[AppRouting], table: RoutingTable, site: CaddySite, guarded: frozenset[AppName]
) -> Json:
    address = next(iter(_shared_listens(table, site))).address
    hosts = secured_hosts(table, site)
    redirect: list[Json] = [_redirect_to_https(hosts, site)] if hosts else []
    return _server(address, [*redirect, *_routes(apps, site, guarded)])


def _secured_server(
    apps: Sequence[AppRouting],
    hosts: Sequence[str],
    port: int,
    site: CaddySite,
    guarded: frozenset[AppName],
) -> Json:
    named = {route.host.lower() for one in apps for route in one.routes if route.host}
    # The redirect of ours stands before the routes; one that Caddy appends would never be reached.
    automatic: Json = {"disable_redirects": True, "skip": sorted(named - set(hosts))}
    listen = Listen(_bare(site.http_host), port, "--https-port")
    server = _server(listen.address, _routes(apps, site, guarded))
    return server | {"protocols": ["h1", "h2"], "automatic_https": automatic}


def _redirect_to_https(hosts: Sequence[str], site: CaddySite) -> Json:
    # Caddy answers the challenges of a certificate authority before any route is tried.
    port = "" if site.https_port == 443 else f":{site.https_port}"
    location = f"https://{{http.request.host}}{port}{{http.request.uri}}"
    return {
        "match": [{"host": list(hosts)}],
        "handle": [_answer(308, {"Location": [location]})],
    }


def _internal_server(
    one: AppRouting, port: int, site: CaddySite, guarded: frozenset[AppName]
) -> Json:
    listen = Listen(INTERNAL_HOST, port, "internal_port")
    # A page in somebody's browser can be made to ask 127.0.0.1 under a name of its own.
    foreign: Json = {"not": [{"host": ["localhost", "127.0.0.1", "::1"]}]}
    return _server(
        listen.address,
        [
            {"match": [foreign], "handle": [_answer(403)]},
            _choice(one, guarded),
            *_forward([one], site, guarded, address_file="internal"),
        ],
    )


def _confirm_server(apps: Sequence[AppRouting], site: CaddySite) -> Json:
    known: Json = {"header": {SECRET_HEADER: [site.secret]}}
    # No pooled connection: a drain must not see ours. One try: the daemon itself asks again.
    proxy = _reverse_proxy(keep_alive=False) | {
        "headers": {
            "request": {"delete": [SECRET_HEADER, APP_HEADER]},
            "response": {"set": {DIALLED_HEADER: [_DIALLED]}},
        }
    }
    del proxy["load_balancing"]
    tried = _answer(502, {TRIED_HEADER: [_DIALLED]}) | {"body": "{http.error.message}"}
    named: Json = {"handler": "vars", "app": f"{{http.request.header.{APP_HEADER}}}"}
    return _server(
        _unix(site.confirm_socket),
        [
            {"match": [{"not": [known]}], "handle": [_answer(403)]},
            {"handle": [named, _address_map(apps, site, "web"), proxy]},
        ],
    ) | {"errors": {"routes": [{"handle": [tried]}]}}


def _routes(
    apps: Sequence[AppRouting], site: CaddySite, guarded: frozenset[AppName]
) -> Sequence[Json]:
    nothing: Json = {"group": "app", "handle": [_answer(404)]}
    return [*_choices(apps, guarded), nothing, *_forward(apps, site, guarded)]


def _choices(apps: Sequence[AppRouting], guarded: frozenset[AppName]) -> list[Json]:
    """Returns what sets the variable `app`: the longest path wins, then a host over any host.

    A group lets only its first match through, also across chunks.
    """
    pairs = sorted(
        ((route, one) for one in apps for route in one.routes),
        key=lambda pair: (-len(_prefix(pair[0])), pair[0].host is None, pair[0], pair[1].app),
    )
    if len(pairs) <= _CHUNK:
        return [_choice(one, guarded, route) for route, one in pairs]
    chunks = (pairs[start : start + _CHUNK] for start in range(0, len(pairs), _CHUNK))
    return [_chunk_of_choices(chunk, guarded) for chunk in chunks]


def _chunk_of_choices(
    pairs: Sequence[tuple[Route, AppRouting]], guarded: frozenset[AppName]
) -> Json:
    inner: Json = {
        "handler": "subroute",
        "routes": [_choice(one, guarded, route) for route, one in pairs],
    }
    hosts = [route.host for route, _ in pairs if route.host is not None]
    if len(hosts) < len(pairs):
        return {"handle": [inner]}
    return {"match": [{"host": sorted(map(_literal_host, set(hosts)))}], "handle": [inner]}


def _choice(
    one: AppRouting, guarded: frozenset[AppName], route: Route | None = None
) -> dict[str, Json]:
    variables: dict[str, Json] = {"handler": "vars", "app": one.app}
    if not one.keep_alive:
        variables["connections"] = "fresh"
    if one.app in guarded:
        variables["guarded"] = "yes"
    choice: dict[str, Json] = {"group": "app", "handle": [variables]}
    matcher = _matcher(route) if route else {}
    return choice | ({"match": [matcher]} if matcher else {})


def _matcher(route: Route) -> dict[str, Json]:
    matcher: dict[str, Json] = {}
    if route.host is not None:
        matcher["host"] = [_literal_host(route.host)]
    if prefix := _prefix(route):
        # Caddy's plain path matcher ignores case and has wildcards; a path has neither.
        matcher["path_regexp"] = {"pattern": f"^{re.escape(prefix)}(?:/|$)"}
    return matcher


def _prefix(route: Route) -> str:
    return route.path.rstrip("/")


def _literal_host(host: str) -> str:
    return host.lower().replace("{", "\\{")


def _forward(
    apps: Sequence[AppRouting],
    site: CaddySite,
    guarded: frozenset[AppName],
    address_file: str = "web",
) -> Iterator[Json]:
    """Yields what leads a request whose variable `app` is set to that app's live slot."""
    if any(one.app in guarded for one in apps):
        yield {
            "match": [{"vars": {"guarded": ["yes"]}}],
            "handle": [{"handler": "subroute", "routes": [_never_live(site)]}],
        }
    yield {"handle": [_address_map(apps, site, address_file)]}
    if any(not one.keep_alive for one in apps):
        yield {
            "match": [{"vars": {"connections": ["fresh"]}}],
            "handle": [_reverse_proxy(keep_alive=False)],
        }
    yield {"handle": [_reverse_proxy(keep_alive=True)]}


def _never_live(site: CaddySite) -> Json:
    """Answers at once while there is no pointer; the first switch ends that without a reload."""
    pointer: Json = {"file": {"root": str(site.routes), "try_files": ["/{http.vars.app}/"]}}
    return {"match": [{"not": [pointer]}], "handle": [_answer(503, {"Retry-After": ["1"]})]}


def _address_map(apps: Sequence[AppRouting], site: CaddySite, address_file: str) -> Json:
    """Names each app's address file. Exact inputs: only their outputs are expanded, at each try."""
    return {
        "handler": "map",
        "source": "{http.vars.app}",
        "destinations": ["{upstream}"],
        "mappings": [
            {"input": one.app, "outputs": [f"{{file.{site.routes}/{one.app}/{address_file}}}"]}
            for one in apps
        ],
    }


def _reverse_proxy(*, keep_alive: bool) -> dict[str, Json]:
    # Apps that close idle connections after 2 s (gunicorn) would lose POSTs to a longer time-out.
    pool: Json = {"idle_timeout": "1s", "max_idle_conns_per_host": 256}
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": "{upstream}"}],
        "transport": {
            "protocol": "http",
            "dial_timeout": "1s",
            "compression": False,
            "keep_alive": pool if keep_alive else {"enabled": False},
        },
        "load_balancing": {
            "try_duration": "2s",
            "try_interval": "25ms",
            # Failed dials are always tried again. Of what has reached an app nothing is: without
            # this a GET on which the app dies is sent to it for as long as the tries last.
            "retry_match": [{"method": ["AUTOPILOT-NEVER"]}],
        },
        # A load of a configuration closes every WebSocket of every app unless told to wait.
        "stream_close_delay": "24h",
    }


def _answer(status: int, headers: dict[str, Json] | None = None) -> dict[str, Json]:
    answer: dict[str, Json] = {"handler": "static_response", "status_code": status}
    return answer | ({"headers": headers} if headers else {})
