"""Proxies: what leads public traffic to live slots. One file for each; all follow the pointers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from reconciler.ports import Proxy
from reconciler.proxies.caddy import CaddyProxy
from reconciler.proxies.none import NoProxy
from reconciler.proxies.settings import ProxySettings

PROXIES: Mapping[str, Callable[[ProxySettings], Proxy]] = MappingProxyType(
    {"caddy": CaddyProxy, "none": NoProxy}
)

__all__ = ["PROXIES", "CaddyProxy", "NoProxy", "ProxySettings"]
