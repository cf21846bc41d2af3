"""Wake-ups: "look again". They carry nothing, coalesce, and losing one costs only time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

from reconciler.model.names import AppName

# However quiet it is, look again: the hint that should have come may have been lost.
AT_LEAST_EVERY = timedelta(seconds=30)


class Wakeups:
    """One flag for each app, the repository, the proxy and the house; set often, seen once."""

    def __init__(self) -> None:
        self._apps: dict[AppName, asyncio.Event] = {}
        self.proxy = asyncio.Event()
        self.source = asyncio.Event()
        self.house = asyncio.Event()

    def wake(self, app: AppName) -> None:
        self._event(app).set()

    def wake_all(self) -> None:
        for event in self._apps.values():
            event.set()

    async def wait(self, app: AppName, timeout: timedelta) -> None:
        """Returns when the app was woken, or the time has passed; the flag is taken down."""
        event = self._event(app)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, timeout.total_seconds())):
                await event.wait()
        event.clear()

    def _event(self, app: AppName) -> asyncio.Event:
        return self._apps.setdefault(app, asyncio.Event())
