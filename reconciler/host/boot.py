"""Which boot of the host this is, and the clock that started with it."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reconciler.model.instants import Instant
from reconciler.model.names import uuid7

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def boot_id() -> str:
    """Returns the kernel's boot id; `AUTOPILOT_BOOT_ID` overrides it, in tests only."""
    override = os.environ.get("AUTOPILOT_BOOT_ID")
    return override or Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class SystemClock:
    """The real Clock: CLOCK_BOOTTIME for deadlines, UTC for people, the kernel for ids."""

    def __init__(self) -> None:
        self._boot_id = boot_id()

    def now(self) -> Instant:
        return Instant(self._boot_id, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)

    def wall(self) -> datetime:
        return datetime.fromtimestamp(time.time(), tz=UTC)

    def new_id(self) -> str:
        return uuid7(time.time_ns() // 1_000_000, secrets.randbits(74))

    async def sleep(self, span: timedelta) -> None:
        await asyncio.sleep(span.total_seconds())
