"""The server: the API on a loopback port and on a Unix socket, inside the daemon's own loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from reconciler.config import Settings
from reconciler.engine.commands import Commands
from reconciler.host.processes import describe, owner_of_inodes
from reconciler.host.sockets import listeners
from reconciler.model.errors import ConfigError, PortHeldError
from reconciler.web.app import create_app
from reconciler.web.principal import PEER, Access

STOP_S = 5
_SUN_PATH = 107
_UCRED = struct.Struct("3i")


class ApiServer:
    """Serves between `start` and `stop`; `async with` does both."""

    def __init__(self, commands: Commands, settings: Settings, access: Access) -> None:
        self.app = create_app(commands, settings, access)
        self._settings = settings
        self._sockets: list[socket.socket] = []
        self._own_path: tuple[Path, int] | None = None
        self._server = _Embedded(
            uvicorn.Config(
                self.app,
                http=PeerProtocol,
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_S,
            )
        )
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The TCP port it listens on, known once started."""
        bound: tuple[str, int] = self._sockets[0].getsockname()
        return bound[1]

    async def start(self) -> None:
        """Binds both sockets and serves. Raises PortHeldError, naming who holds one of them."""
        try:
            self._sockets.append(bind_tcp(self._settings.host, self._settings.port))
            path = self._settings.api_socket
            self._sockets.append(bind_unix(path))
            self._own_path = (path, path.stat().st_ino)
        except BaseException:
            self._release()
            raise
        self._serving = asyncio.create_task(self._server.serve(sockets=self._sockets))
        up = asyncio.create_task(self._server.up.wait())
        await asyncio.wait((self._serving, up), return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if self._serving.done():
            self._release()
            await self._serving

    async def wait(self) -> None:
        """Returns when it has stopped serving, and raises what ended it."""
        if self._serving is not None:
            await asyncio.shield(self._serving)

    async def stop(self) -> None:
        """Ends streams and waiting answers, lets the others finish, and lets go of the sockets."""
        self.app.state.closing.set()
        self._server.leave()
        if self._serving is not None:
            await self._serving
        self._release()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _release(self) -> None:
        for one in self._sockets:
            one.close()
        if self._own_path is not None:
            path, inode = self._own_path
            # Never the socket of a daemon that took the place of this one.
            with suppress(FileNotFoundError):
                if path.stat().st_ino == inode:
                    path.unlink()
            self._own_path = None


class _Embedded(uvicorn.Server):
    """uvicorn without its signal handlers, and without waking ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self._leaving = asyncio.Event()

    def leave(self) -> None:
        self.should_exit = True
        self._leaving.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    async def main_loop(self) -> None:
        # Each tick renews the Date header, so once a second is enough.
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), 1)


class PeerProtocol(HttpToolsProtocol):
    """HTTP that tells the application who is at the other end of a Unix socket."""

    _extensions: dict[str, dict[object, object]] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection.family == socket.AF_UNIX:
            ucred = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            pid, uid, _gid = _UCRED.unpack(ucred)
            self._extensions = {PEER: {"pid": pid, "uid": uid}}

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._extensions is not None:
            self.scope["extensions"] = self._extensions


def bind_tcp(host: str, port: int) -> socket.socket:
    """Returns a listening socket; raises PortHeldError naming the holder and the flag."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named asyncio turns Nagle off; without, each answer waits 40 ms for an ACK.
    server = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen(1024)
        server.settimeout(0)
    except OSError as error:
        server.close()
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(f"cannot serve the API on {host}:{port}: {error.strerror}") from error
        raise PortHeldError(
            f"cannot serve the API on {host}:{port}: the port is held by {_holder(port)}; "
            "stop that, or choose another port with --port"
        ) from error
    return server


def _holder(port: int) -> str:
    holder = owner_of_inodes(one.inode for one in listeners(port))
    return "another process" if holder is None else describe(holder)


def bind_unix(path: Path) -> socket.socket:
    """Returns a listening socket that every user may connect to, in place of a stale one.

    The peer's uid decides what they may. Raises PortHeldError when somebody serves it.
    """
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"cannot make {path}: {error.strerror}; choose --socket") from error
    try:
        name = str(path)
        if len(os.fsencode(name)) > _SUN_PATH:
            # A socket's address holds 107 bytes; through the descriptor any directory fits.
            name = f"/proc/self/fd/{directory}/{path.name}"
        _clear_stale(path, name)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.bind(name)
            path.chmod(0o666)
            server.listen(1024)
            server.settimeout(0)
        except OSError as error:
            server.close()
            raise ConfigError(f"cannot make {path}: {error.strerror}; choose --socket") from error
    finally:
        os.close(directory)
    return server


def _clear_stale(path: Path, name: str) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"cannot make {path}: a file is there already; choose --socket")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(1)
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ConfigError(f"cannot take over {path}: {error.strerror}") from error
    raise PortHeldError(
        f"cannot serve the API on {path}: a running daemon holds it; stop that, or choose --socket"
    )
