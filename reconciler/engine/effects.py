"""Effects: the ports of one daemon, and the long work that passes have begun through them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

import structlog

from reconciler.manifests.contract import contract_from_text
from reconciler.model.desired import AppContract
from reconciler.model.names import AppName, HostId, SlotName
from reconciler.ports import Clock, Probe, Proxy, Secrets, Slots, Source, Store

log = structlog.get_logger()

PAUSE_AFTER_FAILURE = 1.0

recorded_contract: Callable[[str], AppContract] = lru_cache(maxsize=512)(contract_from_text)


@dataclass(frozen=True, slots=True)
class Effects:
    """Everything a pass may touch."""

    host: HostId
    clock: Clock
    source: Source
    slots: Slots
    proxy: Proxy
    probes: Mapping[str, Probe]
    store: Store
    secrets: Secrets
    work: Work
    decisions: Decisions
    actor: str = "daemon:autopilot"


class Decisions:
    """Tells those who await the outcome of a deploy that one was decided: a hint, as all are."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Returns when a deploy went live or ended, or the time has passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._next.wait()


@dataclass(slots=True)
class Work:
    """Long work by (app, slot, kind): started by an action, observed by later passes.

    It is a cache of what goes on: lost with the process, and begun again by the next pass.
    """

    wake: Callable[[AppName], None]
    _tasks: dict[tuple[AppName, SlotName, str], asyncio.Task[None]] = field(default_factory=dict)
    _failed: dict[tuple[AppName, SlotName, str], float] = field(default_factory=dict)

    def busy(self, app: AppName, slot: SlotName) -> frozenset[str]:
        return frozenset(kind for (a, s, kind) in self._tasks if (a, s) == (app, slot))

    def begin(
        self, app: AppName, slot: SlotName, kind: str, work: Coroutine[None, None, None]
    ) -> None:
        """Starts the work unless the same goes on already; wakes the app when it is done."""
        key = (app, slot, kind)
        loop = asyncio.get_running_loop()
        if key in self._tasks or loop.time() < self._failed.get(key, 0):
            work.close()
            return
        task = asyncio.create_task(work, name=f"{kind} of {app}/{slot}")
        self._tasks[key] = task

        def done(finished: asyncio.Task[None]) -> None:
            if self._tasks.get(key) is finished:
                del self._tasks[key]
            self._failed.pop(key, None)
            if not finished.cancelled() and (error := finished.exception()) is not None:
                # A full disk, say: the work is begun again, but not in a tight circle.
                log.error("work failed", app=app, slot=slot, work=kind, problem=str(error))
                self._failed[key] = loop.time() + PAUSE_AFTER_FAILURE
                loop.call_later(PAUSE_AFTER_FAILURE, self.wake, app)
            else:
                self.wake(app)

        task.add_done_callback(done)

    def stop(self, app: AppName, slot: SlotName) -> None:
        """Cancels what goes on in the slot; it is about to be stopped."""
        for (a, s, _), task in list(self._tasks.items()):
            if (a, s) == (app, slot):
                task.cancel()

    async def settle(self) -> None:
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
