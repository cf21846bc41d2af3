"""A stage for proxies: a short data directory, real apps on real sockets, and a real Caddy."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from reconciler.host import sockets
from reconciler.host.boot import SystemClock
from reconciler.model.desired import Route
from reconciler.model.names import AppName, SlotName
from reconciler.model.observed import AppRouting, RoutingTable
from reconciler.proxies import CaddyProxy, ProxySettings, caddy_process

A = SlotName("deploy-a")
B = SlotName("deploy-b")


def free_port() -> int:
    """Returns a port that nobody uses, from a range that no outgoing connection takes."""
    for _ in range(200):
        port = random.randrange(10000, 19999)
        if sockets.is_free(port):
            return port
    raise AssertionError("no free port")


async def until(fact: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not fact():  # noqa: ASYNC110 (what a test waits for is seldom ours to signal)
            await asyncio.sleep(0.005)


@dataclass
class Hit:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Upstream:
    """An app. `/die` closes without an answer, `/status/N` answers N, `/stream` sends on `tick`,
    `/hang` never answers; everything else answers with its name."""

    name: str
    port: int = 0
    hits: list[Hit] = field(default_factory=list)
    connections: int = 0
    tick: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def was_hit(self, times: int) -> bool:
        return len(self.hits) >= times

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if task := asyncio.current_task():
            self.tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    pass
        finally:
            writer.close()

    async def close(self) -> None:
        """Drops every connection, as an app that is killed does."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {
            name.lower(): value
            for name, _, value in (line.partition(": ") for line in head[1:] if line)
        }
        hit = Hit(method, path, headers)
        self.hits.append(hit)
        async for part in _body(reader, headers):
            hit.body += part
        if path == "/die":
            return False
        if path == "/hang":
            await asyncio.Event().wait()
        if path == "/stream":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            await self.tick.wait()
            writer.write(b"data: 2\n\n")
            await writer.drain()
            return False
        status = path.removeprefix("/status/") if path.startswith("/status/") else "200"
        text = self.name.encode()
        writer.write(b"HTTP/1.1 %s OK\r\n" % status.encode())
        writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
        await writer.drain()
        return headers.get("connection", "") != "close"


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if length := int(headers.get("content-length", "0")):
        yield await reader.readexactly(length)
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            yield await reader.readexactly(size)
            await reader.readline()
        await reader.readline()


def routing(
    name: str,
    *routes: Route,
    live: bool = True,
    port: int | None = None,
    internal_port: int | None = None,
    bind: str = "127.0.0.1",
    keep_alive: bool = True,
) -> AppRouting:
    """Returns the routing of an app; without routes it has the host `<name>.test`."""
    return AppRouting(
        app=AppName(name),
        routes=routes or (Route(f"{name}.test"),),
        port=port,
        bind=bind,
        internal_port=internal_port,
        keep_alive=keep_alive,
        live=live,
    )


def table(*apps: AppRouting) -> RoutingTable:
    return RoutingTable(apps)


@dataclass
class Scene:
    data_dir: Path
    client: httpx.AsyncClient
    port: int = field(default_factory=free_port)
    proxies: list[CaddyProxy] = field(default_factory=list)
    servers: list[asyncio.Server] = field(default_factory=list)
    upstreams: list[Upstream] = field(default_factory=list)
    extra_dirs: list[Path] = field(default_factory=list)

    def caddy(self, data_dir: Path | None = None, *, http_port: int | None = 0) -> CaddyProxy:
        """Returns a new CaddyProxy, as a daemon that has just started has one."""
        settings = ProxySettings(
            data_dir or self.data_dir,
            SystemClock(),
            os.environ,
            http_port=self.port if http_port == 0 else http_port,
        )
        if data_dir is not None:
            self.extra_dirs.append(data_dir)
        proxy = CaddyProxy(settings)
        self.proxies.append(proxy)
        return proxy

    async def upstream(self, name: str) -> Upstream:
        app = Upstream(name)
        server = await asyncio.start_server(app.serve, "127.0.0.1", 0)
        app.port = server.sockets[0].getsockname()[1]
        self.servers.append(server)
        self.upstreams.append(app)
        return app

    def address_file(self, app: str, slot: SlotName, kind: str = "web") -> Path:
        directory = self.data_dir / "apps" / app / "slots" / f"{slot}.addr"
        directory.mkdir(parents=True, exist_ok=True)
        return directory / kind

    def publish(self, app: str, slot: SlotName, address: str, kind: str = "web") -> None:
        file = self.address_file(app, slot, kind)
        beside = file.with_name(f".{kind}")
        beside.write_text(address)
        beside.rename(file)

    async def get(self, host: str, path: str = "/", method: str = "GET") -> httpx.Response:
        return await self.client.request(
            method, f"http://127.0.0.1:{self.port}{path}", headers={"Host": host}
        )

    async def seen(self, host: str, path: str = "/") -> str:
        """Returns the name of the app that answered, or the status when none did."""
        answer = await self.get(host, path)
        return answer.text if answer.status_code == 200 else str(answer.status_code)

    def pid(self) -> int:
        (process,) = caddy_process.strays(self.data_dir / "proxy")
        return process.pid

    def loads(self) -> int:
        """Counts how often a configuration was posted, equal ones too."""
        log = (self.data_dir / "proxy" / "caddy.log").read_text()
        return log.count('"uri":"/load"')


@asynccontextmanager
async def open_scene() -> AsyncIterator[Scene]:
    with short_directory() as data_dir:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            scene = Scene(data_dir, client)
            try:
                yield scene
            finally:
                for proxy in scene.proxies:
                    await proxy.stop()
                    await proxy.close()
                for server in scene.servers:
                    server.close()
                for app in scene.upstreams:
                    await app.close()
        left = [
            process
            for directory in (data_dir, *scene.extra_dirs)
            for process in caddy_process.strays(directory / "proxy")
        ]
        for process in left:
            await caddy_process.end(process, 0)
        assert not left, "a Caddy was left behind"


@contextmanager
def short_directory() -> Iterator[Path]:
    """Yields a directory whose path leaves room for the name of a socket."""
    directory = Path(tempfile.mkdtemp(prefix="ap-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
