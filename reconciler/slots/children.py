"""Children: noticing the end of instances, reaping those that are ours, telling who asked.

A pidfd only wakes: whether a slot is empty is never concluded from it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from reconciler.command import Spawned
from reconciler.host.processes import is_alive
from reconciler.model.names import AppName, ProcessName, SlotName
from reconciler.slots.membership import Leader

Key: TypeAlias = "tuple[AppName, SlotName, ProcessName, int]"


@dataclass(slots=True)
class _Watched:
    leader: Leader
    spawned: Spawned | None
    pidfd: int | None = None


class Children:
    """Every instance that this daemon watches. `ended` is told of each end, with the exit status
    of our own children and None for adopted ones."""

    def __init__(self, ended: Callable[[Key, int | None], None]) -> None:
        self._ended = ended
        self._watched: dict[Key, _Watched] = {}

    def add(self, key: Key, leader: Leader, spawned: Spawned | None) -> None:
        """Begins to watch; a second time for the same process is nothing new."""
        known = self._watched.get(key)
        if known is not None:
            if known.leader == leader:
                return
            self._drop(key, known)
        watched = _Watched(leader, spawned)
        self._watched[key] = watched
        # Without a descriptor left (EMFILE) the next pass finds the end, only later.
        with suppress(OSError):
            watched.pidfd = os.pidfd_open(leader.pid)
            asyncio.get_running_loop().add_reader(watched.pidfd, self.reap, key)

    def leader(self, key: Key) -> Leader | None:
        """Returns what was spawned by us under that key, whether it runs or not."""
        watched = self._watched.get(key)
        return watched.leader if watched and watched.spawned else None

    def reap(self, key: Key) -> None:
        """Takes note of an end: called by the pidfd, or by whoever saw it first."""
        watched = self._watched.get(key)
        if watched is None:
            return
        status = watched.spawned.poll() if watched.spawned else None
        if is_alive(watched.leader.pid, watched.leader.started):
            return
        self._drop(key, watched)
        self._ended(key, status)

    def close(self) -> None:
        for key, watched in list(self._watched.items()):
            self._drop(key, watched)

    def _drop(self, key: Key, watched: _Watched) -> None:
        if watched.pidfd is not None:
            asyncio.get_running_loop().remove_reader(watched.pidfd)
            os.close(watched.pidfd)
        if watched.spawned:
            watched.spawned.release()
        del self._watched[key]
