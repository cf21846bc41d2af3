"""Reaping: signals to all processes of a slot, each checked to be the one that was seen."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable, Sequence

from reconciler.host.processes import send_signal
from reconciler.slots.membership import Seen

KILL_FOR_SECONDS = 1.0
_PAUSE_SECONDS = 0.001


def signal_all(processes: Iterable[Seen], number: signal.Signals) -> int:
    """Signals each process by itself: a group's id can be a stranger's by now, and what left the
    group must hear it too. Returns how many were still there."""
    return sum(send_signal(one.pid, one.stat.started, number) for one in processes)


async def kill_all(find: Callable[[], Sequence[Seen]]) -> bool:
    """Kills what `find` returns until it finds nothing twice in a row: a process may fork between
    a scan and its signal. False when some are left after a second (uninterruptible sleep)."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + KILL_FOR_SECONDS
    pause, empty = _PAUSE_SECONDS, 0
    while loop.time() < deadline:
        found = find()
        signal_all(found, signal.SIGKILL)
        empty = 0 if found else empty + 1
        if empty == 2:
            return True
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.05) if found else _PAUSE_SECONDS
    return False
