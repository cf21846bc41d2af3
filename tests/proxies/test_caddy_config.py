"""Caddy's configuration as a pure function: what differs, what must not, and what stays small."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler import command
from reconciler.model.canonical import canonical
from reconciler.model.desired import Route
from reconciler.model.names import AppName
from reconciler.model.observed import AppRouting, RoutingTable
from reconciler.proxies.caddy_config import (
    CaddySite,
    Listen,
    configuration,
    is_public_host,
    listens,
    unproved,
)
from tests.proxies.scene import routing, table

CADDY = Path(sys.executable).parent / "caddy"
DATA = Path("/srv/data")
SITE = CaddySite(
    routes=DATA / "routes",
    storage=DATA / "proxy/storage",
    log=DATA / "proxy/caddy.log",
    admin_socket=DATA / "proxy/admin.sock",
    confirm_socket=DATA / "proxy/confirm.sock",
    secret="secret",
    http_host="127.0.0.1",
    http_port=8080,
    https_port=443,
)
PUBLIC = replace(SITE, http_host="", http_port=80)


def configured(wanted: RoutingTable, site: CaddySite = SITE) -> Any:
    return json.loads(canonical(configuration(wanted, site, unproved(wanted))))


def servers(wanted: RoutingTable, site: CaddySite = SITE) -> Any:
    return configured(wanted, site)["apps"]["http"]["servers"]


def every(value: Any, handler: str) -> Iterator[dict[str, Any]]:
    """Yields every handler of that kind, however deep it lies."""
    if isinstance(value, dict):
        if value.get("handler") == handler:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from every(part, handler)


def test_tables_that_differ_in_order_only_make_equal_configurations() -> None:
    apps = [
        routing("one", Route("b.test"), Route("a.test"), port=7001),
        routing("two", Route(None, "/x"), live=False, keep_alive=False),
        routing("three", Route("a.test", "/x"), internal_port=7002),
    ]
    made = {
        canonical(configuration(table(*order), SITE, frozenset({AppName("two")})))
        for order in itertools.permutations(apps)
    }
    assert len(made) == 1


def test_nothing_in_it_names_a_slot_or_an_address_of_an_app() -> None:
    text = canonical(configured(table(routing("hello", port=7001, internal_port=7002))))
    assert "deploy-" not in text
    dialled = {proxy["upstreams"][0]["dial"] for proxy in every(json.loads(text), "reverse_proxy")}
    assert dialled == {"{upstream}"}


def test_a_pointer_is_named_in_exact_maps_and_nowhere_else() -> None:
    made = configured(table(routing("hello", port=7001, internal_port=7002)))
    maps = list(every(made, "map"))
    assert all(set(entry) == {"input", "outputs"} for one in maps for entry in one["mappings"])
    outputs = [entry["outputs"][0] for one in maps for entry in one["mappings"]]
    assert set(outputs) == {
        "{file./srv/data/routes/hello/web}",
        "{file./srv/data/routes/hello/internal}",
    }
    assert canonical(made).count("{file.") == len(outputs)


def test_no_proxy_replays_and_all_public_ones_wait_for_live() -> None:
    made = servers(table(routing("a", port=7001), routing("b", keep_alive=False)))
    proxies = [
        proxy for name in ("shared", "app-a") for proxy in every(made[name], "reverse_proxy")
    ]
    assert len(proxies) == 3
    for proxy in proxies:
        assert proxy["load_balancing"]["retry_match"] == [{"method": ["AUTOPILOT-NEVER"]}]
        assert proxy["load_balancing"]["try_duration"] == "2s"
        assert proxy["stream_close_delay"] == "24h"
    (confirm,) = every(made["confirm"], "reverse_proxy")
    assert "load_balancing" not in confirm


def test_there_is_one_reverse_proxy_for_each_kind_of_transport() -> None:
    apps = [routing(f"a{number}", keep_alive=number % 2 == 0) for number in range(50)]
    assert len(list(every(servers(table(*apps))["shared"], "reverse_proxy"))) == 2


def test_only_apps_that_were_never_live_are_looked_up_in_each_request() -> None:
    live, fresh = routing("live"), routing("fresh", live=False)
    assert '"file"' not in canonical(servers(table(live))["shared"])
    assert '"file"' in canonical(servers(table(live, fresh))["shared"])
    assert unproved(table(live, fresh)) == {"fresh"}


def test_the_size_grows_with_the_apps_and_no_faster() -> None:
    def size(count: int) -> int:
        apps = [routing(f"a{number:03}", port=10000 + number) for number in range(count)]
        return len(canonical(configured(table(*apps))))

    assert size(400) < 2.2 * size(200)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1:7001"),
        ("", ":7001"),
        ("*", ":7001"),
        ("::1", "[::1]:7001"),
        ("[::]", "[::]:7001"),
    ],
)
def test_addresses_are_written_as_caddy_reads_them(host: str, address: str) -> None:
    made = servers(table(routing("hello", port=7001, bind=host)))
    assert made["app-hello"]["listen"] == [address]


@pytest.mark.parametrize(
    ("host", "local", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "::", True),
        ("127.0.0.1", "::1", False),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("0.0.0.0", "10.0.0.1", True),
        ("0.0.0.0", "::1", False),
        ("", "10.0.0.1", True),
        ("", "::1", True),
        ("::1", "0.0.0.0", False),
        ("localhost", "10.0.0.1", True),
    ],
)
def test_who_would_take_our_connections(host: str, local: str, *, expected: bool) -> None:
    assert Listen(host, 80, "port").overlaps(local) is expected


def test_ports_are_listed_once_an_app_is_live_with_what_moves_them() -> None:
    apps = [
        routing("live", port=7001, internal_port=7002),
        routing("new", port=7003, live=False),
    ]
    assert [(one.port, one.setting, one.app) for one in listens(table(*apps), SITE)] == [
        (8080, "--http-port", None),
        (7001, "`port` of live", "live"),
        (7002, "`internal_port` of live", "live"),
    ]


# HTTPS


@pytest.mark.parametrize("host", ["example.com", "www.example.co.uk", "xn--bcher-kva.example.net"])
def test_public_hosts(host: str) -> None:
    assert is_public_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "web", "127.0.0.1", "10.1.2.3", "::1", "[::1]", "nas.local", "app.test",
        "app.localhost", "db.internal", "x.example", "y.invalid", "z.home.arpa", "a.lan",
        "*.example.com", "b.onion", "", "example.com:80", "a_b.example.com", "-a.example.com",
    ],
)  # fmt: skip
def test_hosts_that_nobody_is_asked_to_certify(host: str) -> None:
    assert not is_public_host(host)


def certified(*hosts: str) -> RoutingTable:
    return table(routing("hello", *(Route(host) for host in hosts)))


def test_certificates_are_for_public_hosts_on_port_80_only() -> None:
    hosts = ("www.Example.com", "nas.local", "10.0.0.1")
    made = servers(certified(*hosts), PUBLIC)
    assert made["secured"]["listen"] == [":443"]
    assert made["secured"]["automatic_https"]["skip"] == ["10.0.0.1", "nas.local"]
    assert [one.port for one in listens(certified(*hosts), PUBLIC)] == [80, 443]
    for site in (SITE, replace(PUBLIC, https_port=None), replace(PUBLIC, http_port=None)):
        assert "secured" not in servers(certified(*hosts), site)
    assert "secured" not in servers(certified("nas.local"), PUBLIC)


def test_without_a_public_host_no_server_may_ask_for_a_certificate() -> None:
    for site in (SITE, PUBLIC):
        made = servers(certified("nas.local", "localhost"), site)
        assert all(one["automatic_https"] == {"disable": True} for one in made.values())


def test_a_public_host_is_sent_to_https_and_a_private_one_is_not() -> None:
    first = servers(certified("www.example.com", "nas.local"), PUBLIC)["shared"]["routes"][0]
    assert first["match"] == [{"host": ["www.example.com"]}]
    assert first["handle"][0]["headers"]["Location"] == [
        "https://{http.request.host}{http.request.uri}"
    ]


ODD: Sequence[AppRouting] = (
    routing("plain"),
    routing("any", Route()),
    routing("many", *(Route(f"h{number}.example.com", f"/p{number}") for number in range(80))),
    routing("odd", Route("{env.HOME}.test", "/a{b}/(c)/[d]/é %")),
    routing("ports", port=7001, internal_port=7002, keep_alive=False, live=True),
    routing("new", live=False),
)


@pytest.mark.anyio
@pytest.mark.parametrize("site", [SITE, PUBLIC], ids=["development", "service"])
async def test_caddy_accepts_it(tmp_path: Path, site: CaddySite) -> None:
    here = replace(
        site,
        routes=tmp_path,
        storage=tmp_path,
        log=tmp_path / "log",
        admin_socket=tmp_path / "a",
        confirm_socket=tmp_path / "c",
    )
    file = tmp_path / "caddy.json"
    file.write_text(canonical(configuration(table(*ODD), here, unproved(table(*ODD)))))
    done = await command.run(
        [str(CADDY), "validate", "--config", str(file)],
        env={"HOME": str(tmp_path)},
        timeout=timedelta(seconds=20),
        check=False,
    )
    assert done.status == 0, done.stderr.decode()
