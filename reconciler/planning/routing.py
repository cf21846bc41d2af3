"""Routing: what the proxy must serve, from the contracts in force and the pointers."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler.model.actions import ConfigureProxy, Plan, StartProxy
from reconciler.model.desired import AppContract
from reconciler.model.instants import Instant
from reconciler.model.names import AppName
from reconciler.model.observed import AppRouting, ObservedProxy, RoutingTable
from reconciler.planning.draft import Draft


def route_app(name: AppName, contract: AppContract, *, live: bool) -> AppRouting:
    return AppRouting(
        app=name,
        routes=contract.routes if contract.has_web else (),
        port=contract.port if contract.has_web else None,
        bind=contract.bind,
        internal_port=contract.internal_port if contract.has_web else None,
        keep_alive=contract.upstream_keep_alive,
        live=live,
    )


def table_of(apps: Iterable[AppRouting]) -> RoutingTable:
    """Returns the table in one order, so that equal wishes compare equal."""
    return RoutingTable(tuple(sorted(apps, key=lambda one: one.app)))


def plan_routing(wanted: RoutingTable, seen: ObservedProxy, now: Instant) -> Plan:
    """Returns how to make the proxy serve the table; nothing when it does already."""
    draft = Draft(now)
    if not seen.up:
        draft.do(StartProxy(), "the proxy is not running")
    if not seen.up or seen.table != wanted:
        draft.do(ConfigureProxy(wanted), "the set of apps, ports or hosts changed")
    return draft.plan(())


def is_routed(name: AppName, contract: AppContract, seen: ObservedProxy) -> bool:
    """Whether the proxy is up and leads to the app as its contract says, live port aside."""
    if seen.pointer_only:
        return seen.up
    found = seen.table.routing(name) if seen.up and seen.table is not None else None
    if found is None:
        return False
    return found == route_app(name, contract, live=found.live)
