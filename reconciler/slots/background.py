"""Background work of the driver: kept alive, one of each kind for each app, awaited by `settle`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable


class Background:
    """Tasks that nobody awaits at once. The loop alone would let go of them in mid-work."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}

    def begin(self, key: Hashable, work: Coroutine[None, None, None]) -> bool:
        """Starts the work unless that of the same key still goes on."""
        if key in self._tasks:
            work.close()
            return False
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))
        return True

    def busy(self, key: Hashable) -> bool:
        return key in self._tasks

    def cancel(self, key: Hashable) -> None:
        if task := self._tasks.get(key):
            task.cancel()

    async def settle(self) -> None:
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def close(self) -> None:
        """Cancels everything and waits until it has ended."""
        for task in list(self._tasks.values()):
            task.cancel()
        await self.settle()
