"""Timers: what happens however quiet it is. They only wake; a late or lost one costs only time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler


class Timers:
    """Recurring wake-ups on the running loop, in memory only: nothing depends on their past."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(
            timezone="UTC",
            # A tick that is late is due at once, and many that were missed are one.
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def every(self, span: timedelta, wake: Callable[[], None], name: str) -> None:
        async def tick() -> None:
            """A coroutine, so that the wake-up happens on the loop and not in a thread."""
            wake()

        self._scheduler.add_job(tick, "interval", seconds=span.total_seconds(), name=name)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
