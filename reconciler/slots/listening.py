"""Listening: one web instance as a probe sees it, and who really listens on its ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta

from reconciler.host import sockets
from reconciler.host.processes import (
    descendants,
    describe,
    is_alive,
    owner_of_inodes,
    socket_inodes,
    wait_end,
)
from reconciler.host.sockets import TcpSocket
from reconciler.model.instants import Instant
from reconciler.model.observed import Intent
from reconciler.ports import Clock, Listener
from reconciler.slots.instances import address
from reconciler.slots.membership import Leader

# Looking for a listener elsewhere reads the descriptors of all the slot's processes, and a probe
# asks every few milliseconds.
ELSEWHERE_PAUSE = timedelta(milliseconds=200)


class WebInstance:
    """The started `web` process of a slot; implements the Instance port.

    `slot_pids` lists the slot's processes as they are now, `slot_ports` what its processes were
    given, `status` tells the exit status once it is known.
    """

    def __init__(
        self,
        intent: Intent,
        leader: Leader | None,
        clock: Clock,
        slot_pids: Callable[[], Iterable[int]],
        slot_ports: frozenset[int],
        status: Callable[[], int | None],
    ) -> None:
        self._intent = intent
        self._leader = leader
        self._clock = clock
        self._slot_pids = slot_pids
        self._slot_ports = slot_ports
        self._status = status
        self._suspects: frozenset[int] = frozenset()
        self._elsewhere = Listener()
        self._looked_at: Instant | None = None

    @property
    def address(self) -> str:
        return address(self._intent.port)

    @property
    def internal_address(self) -> str:
        return address(self._intent.internal_port)

    async def listener(self, *, internal: bool = False) -> Listener:
        return self.look(internal=internal) or self._look_elsewhere()

    def look(self, *, internal: bool = False) -> Listener | None:
        """Returns who listens on the port, None when nobody does."""
        port = self._intent.internal_port if internal else self._intent.port
        listening = sockets.listeners(port) if port else ()
        if not listening:
            return None
        held = self._held({one.inode for one in listening})
        foreign = [one for one in listening if one.inode not in held and _takes_over(one)]
        if foreign:
            return self._suspect(foreign, port)
        ours = min((one for one in listening if one.inode in held), key=_rank, default=None)
        if ours is None:
            return Listener()
        exposed = any(not one.loopback_only for one in listening if one.inode in held)
        return Listener(ours=True, exposed=exposed, address=ours.dial, detail=ours.local)

    async def exited(self) -> bool:
        return self._leader is None or not is_alive(self._leader.pid, self._leader.started)

    async def wait_exit(self) -> None:
        if self._leader is not None:
            await wait_end(self._leader.pid, self._leader.started)

    @property
    def exit_status(self) -> int | None:
        return self._status()

    def _pids(self) -> Iterator[int]:
        """Yields the likely holders first: reading the whole process table is far dearer."""
        if self._leader is not None and is_alive(self._leader.pid, self._leader.started):
            yield from descendants(self._leader.pid)
        yield from self._slot_pids()

    def _held(self, inodes: set[int]) -> frozenset[int]:
        held: set[int] = set()
        for pid in self._pids():
            held |= inodes & socket_inodes(pid)
            if held == inodes:
                break
        return frozenset(held)

    def _suspect(self, foreign: list[TcpSocket], port: int) -> Listener:
        """A stranger is one that is seen twice: the holder may have forked between two looks."""
        inodes = frozenset(one.inode for one in foreign)
        seen_before = inodes & self._suspects
        self._suspects = inodes
        if not seen_before:
            return Listener()
        owner = owner_of_inodes(seen_before)
        who = describe(owner) if owner is not None else f"a process of uid {foreign[0].uid}"
        return Listener(stranger=True, detail=f"{who} listens on port {port}")

    def _look_elsewhere(self) -> Listener:
        now = self._clock.now()
        if self._looked_at is not None and now.since(self._looked_at) < ELSEWHERE_PAUSE:
            return self._elsewhere
        self._looked_at = now
        inodes: set[int] = set()
        for pid in set(self._pids()):
            inodes |= socket_inodes(pid)
        found = [
            one
            for one in sockets.listeners()
            if one.inode in inodes and one.port not in self._slot_ports
        ]
        addresses = ", ".join(sorted(one.dial for one in found))
        self._elsewhere = Listener(elsewhere=bool(found), detail=addresses)
        return self._elsewhere


def _takes_over(listener: TcpSocket) -> bool:
    """Whether a connection to a loopback address of this port could end there."""
    return listener.loopback_only or listener.unspecified


def _rank(listener: TcpSocket) -> tuple[bool, bool, str]:
    """IPv4 loopback first: it is what the app was told."""
    return (not listener.dial.startswith("127."), listener.unspecified, listener.local)
