"""Ports of instances: chosen outside the ephemeral range, locked while in use, rested afterwards.

Locks are per host, so that two daemons never give out one port; the kernel drops them with us.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from reconciler.host import sockets
from reconciler.host.files import disk_pressure
from reconciler.host.locks import FileLock, runtime_directory
from reconciler.model.errors import PortsExhaustedError
from reconciler.model.instants import Instant
from reconciler.ports import Clock

REST = timedelta(minutes=10)
_RESTING = "resting since "


class Ports:
    """The ports this daemon holds. `owner` is written into the locks, for people."""

    def __init__(self, allowed: range, clock: Clock, owner: str) -> None:
        ephemeral = sockets.ephemeral_range()
        self._allowed = tuple(port for port in allowed if port not in ephemeral)
        self._range = allowed
        self._clock = clock
        self._owner = owner
        self._held: dict[int, FileLock] = {}
        # Daemons begin at different places, so that they seldom try the same port.
        self._next = sum(owner.encode()) * 31

    def take(self) -> int:
        """Returns a port that is free on both families, locked. Raises PortsExhaustedError."""
        for _ in self._allowed:
            port = self._allowed[self._next % len(self._allowed)]
            self._next += 1
            if port not in self._held and self._try(port, rested=True):
                return port
        raise PortsExhaustedError(
            f"every port of --port-range {self._range.start}-{self._range.stop - 1} outside the "
            "kernel's ephemeral range is in use, locked by another daemon, or was in use within "
            "the last 10 minutes; give a wider range"
        )

    def retake(self, port: int) -> bool:
        """Takes the port that the same slot had before, rested or not; False when it is in use."""
        if self._try(port, rested=False):
            return True
        self.rest((port,))
        return False

    def hold(self, port: int) -> None:
        """Locks the port of an adopted instance; in vain while its last daemon still lives."""
        if port and port not in self._held:
            lock = self._lock(port)
            if lock.acquire(f"held by {self._owner}\n"):
                self._held[port] = lock

    def rest(self, ports: Iterable[int]) -> None:
        """Lets go of the ports; nobody takes them for ten minutes."""
        for port in ports:
            if lock := self._held.pop(port, None):
                lock.write(f"{_RESTING}{self._clock.now().text()}\n")
                lock.release()

    def release(self, ports: Iterable[int]) -> None:
        """Lets go of ports that were taken and never used."""
        for port in ports:
            if lock := self._held.pop(port, None):
                lock.write("")
                lock.release()

    def close(self) -> None:
        """Lets go of the locks, as the end of this process would: the ports are still in use."""
        for lock in self._held.values():
            lock.release()
        self._held.clear()

    def _try(self, port: int, *, rested: bool) -> bool:
        lock = self._held.get(port) or self._lock(port)
        with disk_pressure(str(lock.path)):
            if not lock.acquire(None):
                return False
            if (rested and self._rests(lock.read())) or not sockets.is_free(port):
                if port not in self._held:
                    lock.release()
                return False
            lock.write(f"held by {self._owner}\n")
        self._held[port] = lock
        return True

    def _rests(self, content: str) -> bool:
        if not content.startswith(_RESTING):
            return False
        try:
            since = Instant.parse(content.removeprefix(_RESTING).strip())
        except ValueError:
            return False
        now = self._clock.now()
        return since.boot_id == now.boot_id and now.since(since) < REST

    @staticmethod
    def _lock(port: int) -> FileLock:
        return FileLock(lock_path(port))


def lock_path(port: int) -> Path:
    return runtime_directory() / f"port-{port}.lock"
