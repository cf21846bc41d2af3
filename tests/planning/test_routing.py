"""What the proxy is told, and that it is told only once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.model.actions import ConfigureProxy, StartProxy
from reconciler.model.desired import Route
from reconciler.model.names import AppName
from reconciler.model.observed import ObservedProxy, RoutingTable
from reconciler.planning.routing import is_routed, plan_routing, route_app, table_of
from tests.planning.worlds import NOW, SHOP, WORKER_ONLY, actions, contract

PUBLIC = contract(
    port=8080, internal_port=9090, bind="0.0.0.0", routes=[{"host": "Shop.Example", "path": "/a/"}]
)
ROUTED = route_app(SHOP, PUBLIC, live=True)
TABLE = table_of([ROUTED])


def test_an_app_is_routed_as_its_contract_says() -> None:
    assert ROUTED.routes == (Route("shop.example", "/a"),)
    assert (ROUTED.port, ROUTED.internal_port, ROUTED.bind) == (8080, 9090, "0.0.0.0")
    assert ROUTED.keep_alive
    assert ROUTED.live


def test_an_app_without_web_has_no_route() -> None:
    routing = route_app(SHOP, WORKER_ONLY, live=True)
    assert (routing.routes, routing.port, routing.internal_port) == ((), None, None)


def test_the_order_of_the_apps_does_not_change_the_table() -> None:
    other = replace(ROUTED, app=AppName("blog"))
    assert table_of([ROUTED, other]) == table_of([other, ROUTED])


def test_a_proxy_that_serves_the_table_is_left_alone() -> None:
    assert plan_routing(TABLE, ObservedProxy(up=True, table=TABLE), NOW).steps == ()


def test_a_changed_table_is_configured() -> None:
    plan = plan_routing(TABLE, ObservedProxy(up=True, table=RoutingTable(())), NOW)
    assert actions(plan) == [ConfigureProxy(TABLE)]


def test_a_proxy_that_is_down_is_started_and_configured() -> None:
    plan = plan_routing(TABLE, ObservedProxy(up=False, table=TABLE), NOW)
    assert actions(plan) == [StartProxy(), ConfigureProxy(TABLE)]


@pytest.mark.parametrize(
    ("seen", "routed"),
    [
        (ObservedProxy(up=True, table=TABLE), True),
        (ObservedProxy(up=True, table=table_of([replace(ROUTED, live=False)])), True),
        (ObservedProxy(up=True, table=table_of([replace(ROUTED, port=1)])), False),
        (ObservedProxy(up=True, table=RoutingTable(())), False),
        (ObservedProxy(up=True, table=None), False),
        (ObservedProxy(up=False, table=TABLE), False),
        (ObservedProxy(up=True, pointer_only=True), True),
        (ObservedProxy(up=False, pointer_only=True), False),
    ],
)
def test_an_app_is_routed_when_the_proxy_serves_its_contract(
    seen: ObservedProxy, *, routed: bool
) -> None:
    assert is_routed(SHOP, PUBLIC, seen) is routed
