"""No proxy of ours: the pointer is the interface, and whoever reads it serves the traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from reconciler.model.names import AppName, SlotName
from reconciler.model.observed import ObservedProxy, Pointer, RoutingTable
from reconciler.proxies.pointer import Pointers
from reconciler.proxies.settings import ProxySettings


class NoProxy:
    """Keeps the pointers and nothing else; there is nothing to start, configure or confirm."""

    def __init__(self, settings: ProxySettings) -> None:
        self._pointers = Pointers(settings.data_dir)
        self._table: RoutingTable | None = None

    async def pointer(self, app: AppName) -> Pointer:
        return self._pointers.read(app)

    async def switch(self, app: AppName, slot: SlotName) -> None:
        await asyncio.to_thread(self._pointers.switch, app, slot)

    async def unroute(self, app: AppName) -> None:
        await asyncio.to_thread(self._pointers.remove, app)

    async def confirm(self, app: AppName, address: str, path: str, timeout: timedelta) -> str:
        """Confirms at once: nobody can be asked."""
        del app, address, path, timeout
        return ""

    async def observe(self) -> ObservedProxy:
        return ObservedProxy(up=True, table=self._table, pointer_only=True)

    async def ensure(self, table: RoutingTable) -> None:
        self._table = table

    def on_change(self, wake: Callable[[], None]) -> None:
        """Never calls: there is nothing that could end."""
        del wake

    async def stop(self) -> None:
        self._table = None

    async def close(self) -> None:
        """Has nothing to let go of."""
