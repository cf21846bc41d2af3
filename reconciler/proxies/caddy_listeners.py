"""Listen ports of our Caddy: locked against other daemons, and verified to be ours alone.

The kernel lets two Caddys of one user share a port without a word, and each gets a part of the
requests (SO_REUSEPORT), so that a port could be bound proves nothing.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable, Sequence

from reconciler.host import processes, sockets
from reconciler.host.locks import FileLock, runtime_directory
from reconciler.host.sockets import TcpSocket
from reconciler.model.errors import PortHeldError, ProxyError
from reconciler.proxies.caddy_config import Listen
from reconciler.proxies.caddy_process import CaddyProcess


class Listeners:
    """The locks this daemon holds, and the sockets that its Caddy was seen to listen on."""

    def __init__(self, holder: str) -> None:
        """`holder` is what another daemon reads about us when it finds the lock taken."""
        self._holder = holder
        self._locks: dict[int, FileLock] = {}
        self._ours: frozenset[int] = frozenset()

    @property
    def known(self) -> bool:
        """Whether it is known which sockets are our Caddy's."""
        return bool(self._ours)

    def claim(self, listen: Listen, process: CaddyProcess | None) -> None:
        """Takes the port for us, before Caddy is told of it. Idempotent.

        Raises PortHeldError naming who has it and what to change.
        """
        new = self._lock(listen)
        found = _overlapping(listen, sockets.listeners(listen.port))
        mine = processes.socket_inodes(process.pid) if process and found else frozenset()
        if any(one.inode in mine for one in found):
            return
        problem = f"is held by {_owner(found)}; stop it" if found else _why_not(listen)
        if problem:
            if new:
                self._locks.pop(listen.port).release()
            raise PortHeldError(f"port {listen.port} {problem}, or change {listen.setting}")

    def _lock(self, listen: Listen) -> bool:
        """Locks the port; False when it was locked before."""
        if listen.port in self._locks:
            return False
        lock = FileLock(runtime_directory() / f"listen-{listen.port}.lock")
        if not lock.acquire(self._holder):
            raise PortHeldError(
                f"port {listen.port} is configured by another daemon "
                f"({lock.holder() or 'which has just started'}); change {listen.setting}"
            )
        self._locks[listen.port] = lock
        return True

    def learn(self, wanted: Sequence[Listen], process: CaddyProcess) -> None:
        """Looks up which sockets are our Caddy's. Raises ProxyError if it does not listen."""
        mine = processes.socket_inodes(process.pid)
        found = sockets.listeners()
        self._ours = frozenset(one.inode for one in found if one.inode in mine)
        for listen in wanted:
            if not any(one.inode in mine for one in _overlapping(listen, found)):
                raise ProxyError(f"caddy does not listen on {listen.address} ({listen.setting})")

    def verify(self, wanted: Sequence[Listen], process: CaddyProcess) -> None:
        """Raises ProxyError unless our Caddy listens wherever it should, and alone."""
        if not self.known or self.stranger(wanted):
            self.learn(wanted, process)
        if problem := self.stranger(wanted):
            raise ProxyError(problem)

    def stranger(self, wanted: Iterable[Listen]) -> str:
        """Returns who listens beside our Caddy, empty when nobody does. Cheap."""
        found = [one for one in sockets.listeners() if one.inode not in self._ours]
        ports = {one.port for one in found}
        for listen in wanted:
            if listen.port in ports and (others := _overlapping(listen, found)):
                return (
                    f"{_owner(others)} listens on port {listen.port} beside our Caddy and gets a "
                    f"part of the requests; stop it, or change {listen.setting}"
                )
        return ""

    def keep(self, wanted: Iterable[Listen]) -> None:
        """Lets go of every port that is no longer wanted."""
        ports = {listen.port for listen in wanted}
        for port in [port for port in self._locks if port not in ports]:
            self._locks.pop(port).release()

    def forget(self) -> None:
        """Forgets the sockets of a Caddy that has ended; the locks stay."""
        self._ours = frozenset()


def _overlapping(listen: Listen, found: Iterable[TcpSocket]) -> list[TcpSocket]:
    return [one for one in found if one.port == listen.port and listen.overlaps(one.local)]


def _owner(found: Sequence[TcpSocket]) -> str:
    pid = processes.owner_of_inodes(one.inode for one in found)
    return processes.describe(pid) if pid else f"a process of user id {found[0].uid}"


def _why_not(listen: Listen) -> str:
    """Returns why the address cannot be listened on, empty when it can.

    Only what no privilege changes counts: the caddy program may have some that we lack.
    """
    try:
        family = ipaddress.ip_address(listen.host or "::").version
    except ValueError:
        return ""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    try:
        with socket.socket(kind, socket.SOCK_STREAM) as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            candidate.bind((listen.host, listen.port))
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            return f"cannot be listened on at {listen.address} ({error.strerror}); free it"
    return ""
