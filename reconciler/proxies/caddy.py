"""Caddy as the proxy: started once, adopted ever after, loaded only when its configuration differs.

A switch never touches it: it follows the pointers by itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from reconciler.host.files import write_atomic
from reconciler.model.canonical import Json, canonical, digest
from reconciler.model.errors import PortHeldError, ProxyError
from reconciler.model.names import AppName, SlotName
from reconciler.model.observed import ObservedProxy, Pointer, RoutingTable
from reconciler.proxies import caddy_process
from reconciler.proxies.caddy_admin import CaddyAdmin, ConfirmDoor
from reconciler.proxies.caddy_binary import find_caddy
from reconciler.proxies.caddy_config import (
    Listen,
    configuration,
    listens,
    unproved,
)
from reconciler.proxies.caddy_listeners import Listeners
from reconciler.proxies.caddy_process import CaddyProcess, Watch
from reconciler.proxies.caddy_served import Served, read_served, write_served
from reconciler.proxies.caddy_site import make_site
from reconciler.proxies.pointer import Pointers
from reconciler.proxies.settings import ProxySettings

_READY_WITHIN_S = 15.0
_READY_POLL_S = 0.004
_CONFIRM_POLL_S = 0.003
_STOP_PATIENCE_S = 2.0


class CaddyProxy:
    """One Caddy for one data directory. Verbs that change it take turns; the newest table wins."""

    def __init__(self, settings: ProxySettings) -> None:
        """Makes `<data>/proxy/` and starts nothing. Raises ConfigError for an unusable path."""
        self._site = make_site(settings)
        self._environ = settings.environ
        self._boot_id = settings.clock.now().boot_id
        self._directory = self._site.log.parent
        self._record = self._directory / "record.json"
        self._table_file = self._directory / "table.json"
        self._config_file = self._directory / "caddy.json"
        self._pointers = Pointers(settings.data_dir.absolute())
        self._admin = CaddyAdmin(self._site.admin_socket)
        self._door = ConfirmDoor(self._site.confirm_socket, self._site.secret)
        self._listeners = Listeners(f"{settings.data_dir.absolute()} pid {os.getpid()}")
        self._turn = asyncio.Lock()
        self._wanted: RoutingTable | None = None
        self._watch: Watch | None = None
        self._served: Served | None = None
        self._believed = False
        self._wake: Callable[[], None] | None = None

    async def pointer(self, app: AppName) -> Pointer:
        return self._pointers.read(app)

    async def switch(self, app: AppName, slot: SlotName) -> None:
        await asyncio.to_thread(self._pointers.switch, app, slot)

    async def unroute(self, app: AppName) -> None:
        await asyncio.to_thread(self._pointers.remove, app)

    async def confirm(self, app: AppName, address: str, path: str, timeout: timedelta) -> str:
        """Asks until Caddy dials `address`; any status of the app counts."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout.total_seconds()
        seen = "nothing"
        while (left := deadline - loop.time()) > 0:
            dialled = await self._door.ask(app, path, timedelta(seconds=left))
            if dialled.address == address:
                return ""
            if not (dialled.detail == "no answer in time" and seen != "nothing"):
                seen = dialled.address or dialled.detail
            await asyncio.sleep(_CONFIRM_POLL_S)
        return seen

    async def observe(self) -> ObservedProxy:
        """Looks at the process and at who listens; `table` leaves out ports that were refused."""
        if self._running() is None:
            return ObservedProxy(up=False)
        if self._served is None:
            return ObservedProxy(up=True)
        table = self._served.table
        problem = ""
        if self._listeners.known:
            problem = self._listeners.stranger(listens(table, self._site))
        return ObservedProxy(up=True, table=table, problem=problem)

    async def ensure(self, table: RoutingTable) -> None:
        """Serves the table. An app's port that cannot be had is left out, everything else is
        served, and PortHeldError tells of it at the end: apps do not wait for each other."""
        self._wanted = table
        async with self._turn:
            # Whoever waited meanwhile serves the newest table, and the others find it served.
            await self._serve(self._wanted)

    def on_change(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    async def stop(self) -> None:
        async with self._turn:
            process = self._running()
            self._let_go()
            if process is not None:
                await caddy_process.end(process, _STOP_PATIENCE_S)
            for path in (self._record, self._table_file, *self._sockets()):
                path.unlink(missing_ok=True)
            self._listeners.keep(())

    async def close(self) -> None:
        self._let_go()
        self._listeners.keep(())
        await self._admin.close()
        await self._door.close()

    def _running(self) -> CaddyProcess | None:
        """Returns our Caddy if it runs, adopting it when this daemon did not know it yet."""
        if self._watch is not None:
            # When it has ended the watch will say so, once all its threads have let go of ports.
            return self._watch.process if self._watch.process.alive() else None
        process = caddy_process.find(self._record, self._site.admin_socket, self._boot_id)
        if process is not None:
            self._watch = Watch(process, self._ended)
            self._served = read_served(self._table_file, process)
        return process

    def _let_go(self) -> None:
        if self._watch is not None:
            self._watch.close()
        self._watch = None
        self._served = None
        self._believed = False
        self._listeners.forget()

    def _ended(self) -> None:
        self._let_go()
        if self._wake is not None:
            self._wake()

    async def _serve(self, wanted: RoutingTable) -> None:
        if self._watch is not None and not self._watch.process.alive():
            await caddy_process.gone(self._watch.process, caddy_process.KILLED_WITHIN_S)
            self._let_go()
        process = self._running()
        if process is not None and self._believed and self._serves(wanted):
            self._listeners.verify(listens(wanted, self._site), process)
            return
        if process is None:
            for stray in caddy_process.strays(self._directory):
                # A daemon died while it started one, which would share our ports without a word.
                await caddy_process.end(stray, 0)
        table, refused = self._claim(wanted, process)
        if process is None:
            process = await self._start(table)
        else:
            await self._check_belief()
            await self._load(table, process)
        self._listeners.learn(listens(table, self._site), process)
        self._listeners.verify(listens(table, self._site), process)
        if refused:
            raise PortHeldError("; ".join(refused))

    def _serves(self, table: RoutingTable) -> bool:
        return self._served is not None and self._served.table == table

    async def _check_belief(self) -> None:
        """Drops what was read from a file when the adopted Caddy has another configuration."""
        if self._believed or self._served is None:
            return
        if digest(await self._admin.loaded()) != self._served.digest:
            self._served = None

    def _claim(
        self, wanted: RoutingTable, process: CaddyProcess | None
    ) -> tuple[RoutingTable, list[str]]:
        """Returns the table without the ports of apps that cannot be had, and why they cannot.

        Raises PortHeldError when a shared port cannot be had: then nothing is changed.
        """
        refused: list[str] = []
        table = wanted
        taken: dict[int, Listen] = {}
        for listen in listens(wanted, self._site):
            try:
                _refuse_twice(listen, taken.setdefault(listen.port, listen))
                self._listeners.claim(listen, process)
            except PortHeldError as error:
                if listen.app is None:
                    raise
                refused.append(str(error))
                table = _without(table, listen)
        return table, refused

    async def _start(self, table: RoutingTable) -> CaddyProcess:
        program = await find_caddy(self._environ, self._directory / "vetted.json")
        for socket in self._sockets():
            socket.unlink(missing_ok=True)
        guarded = unproved(table)
        config = configuration(table, self._site, guarded)
        self._write_config(config)
        process = caddy_process.start(program, self._config_file, self._directory, self._boot_id)
        caddy_process.write_record(self._record, process)
        await self._ready(process)
        # Watched from now on: who waits for a start that fails is told so by the exception alone.
        self._let_go()
        self._watch = Watch(process, self._ended)
        self._remember(Served(table, guarded, digest(config), process))
        return process

    async def _ready(self, process: CaddyProcess) -> None:
        """Waits until Caddy serves its configuration. Raises ProxyError with why it does not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY_WITHIN_S):
                while process.alive():
                    with suppress(ProxyError):
                        if await self._admin.loaded() is not None:
                            return
                    await asyncio.sleep(_READY_POLL_S)
        ended = not process.alive()
        self._let_go()
        await caddy_process.end(process, 0)
        why = caddy_process.last_words(self._directory, self._site.log)
        raise ProxyError(f"caddy {'cannot start' if ended else 'does not get ready'}: {why}")

    async def _load(self, table: RoutingTable, process: CaddyProcess) -> None:
        """Loads the configuration unless it is in force: each load drops idle connections."""
        guarded = unproved(table)
        if self._served is not None and guarded <= self._served.guarded:
            guarded = self._served.guarded
            config = configuration(table, self._site, guarded)
            if digest(config) == self._served.digest:
                self._remember(replace(self._served, table=table))
                return
            guarded = unproved(table)
        config = configuration(table, self._site, guarded)
        await self._admin.load(config)
        self._write_config(config)
        self._remember(Served(table, guarded, digest(config), process))

    def _write_config(self, config: Json) -> None:
        write_atomic(self._config_file, canonical(config).encode(), mode=0o600)

    def _remember(self, served: Served) -> None:
        write_served(self._table_file, served)
        self._served = served
        self._believed = True
        self._listeners.keep(listens(served.table, self._site))

    def _sockets(self) -> tuple[Path, Path]:
        return self._site.admin_socket, self._site.confirm_socket


def _refuse_twice(listen: Listen, other: Listen) -> None:
    if listen is not other:
        raise PortHeldError(
            f"port {listen.port} is asked for twice, by {other.setting} and by {listen.setting}; "
            "change one of them"
        )


def _without(table: RoutingTable, listen: Listen) -> RoutingTable:
    """Returns the table as if the app had not asked for that port."""
    apps = tuple(
        one
        if one.app != listen.app
        else replace(
            one,
            port=None if one.port == listen.port else one.port,
            internal_port=None if one.internal_port == listen.port else one.internal_port,
        )
        for one in table.apps
    )
    return RoutingTable(apps)
