"""Effects: the ports of one daemon, and the long work that passes have begun through them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from reconciler.manifests.contract import contract_from_text
from reconciler.model.desired import AppContract
from reconciler.model.names import AppName, HostId, SlotName
from reconciler.ports import Clock, Probe, Proxy, Secrets, Slots, Source, Store

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
    actor: str = "daemon:autopilot"


@dataclass(slots=True)
class Work:
    """Long work by (app, slot, kind): started by an action, observed by later passes.

    It is a cache of what goes on: lost with the process, and begun again by the next pass.
    """

    wake: Callable[[AppName], None]
    _tasks: dict[tuple[AppName, SlotName, str], asyncio.Task[None]] = field(default_factory=dict)

    def busy(self, app: AppName, slot: SlotName) -> frozenset[str]:
        return frozenset(kind for (a, s, kind) in self._tasks if (a, s) == (app, slot))

    def begin(
        self, app: AppName, slot: SlotName, kind: str, work: Coroutine[None, None, None]
    ) -> None:
        """Starts the work unless the same goes on already; wakes the app when it is done."""
        key = (app, slot, kind)
        if key in self._tasks:
            work.close()
            return
        task = asyncio.create_task(work, name=f"{kind} of {app}/{slot}")
        self._tasks[key] = task

        def done(finished: asyncio.Task[None]) -> None:
            if self._tasks.get(key) is finished:
                del self._tasks[key]
            if not finished.cancelled():
                finished.exception()
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
