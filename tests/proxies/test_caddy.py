"""Caddy under real traffic: routing, switches, death, adoption, and ports that others hold."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest
import websockets
from websockets.asyncio.server import ServerConnection

from reconciler.host import processes, sockets
from reconciler.host.boot import SystemClock
from reconciler.host.locks import FileLock, runtime_directory
from reconciler.model.desired import Route
from reconciler.model.errors import ConfigError, PortHeldError, ProxyError
from reconciler.model.names import AppName
from reconciler.proxies import CaddyProxy, ProxySettings, caddy_process
from tests.proxies.scene import (
    A,
    B,
    Scene,
    Upstream,
    free_port,
    open_scene,
    routing,
    short_directory,
    table,
    until,
)

pytestmark = pytest.mark.anyio
HELLO = AppName("hello")
SECOND = timedelta(seconds=1)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with open_scene() as opened:
        yield opened


@asynccontextmanager
async def stray_caddy(scene: Scene) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Caddy of the same user on the scene's port, started by somebody who knows no locks."""
    directory = scene.data_dir / "stranger"
    directory.mkdir()
    (directory / "Caddyfile").write_text(
        "{\n admin off\n persist_config off\n auto_https off\n}\n"
        f"http://:{scene.port} {{\n bind 127.0.0.1\n respond stray\n}}\n"
    )
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "caddy",
        "run",
        cwd=directory,
        env={"HOME": str(directory)},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def live_app(scene: Scene, proxy: CaddyProxy, name: str = "hello") -> Upstream:
    app = await scene.upstream(name)
    scene.publish(name, A, f"{app.address}\n")
    await proxy.switch(AppName(name), A)
    return app


# What a request meets


async def test_no_route_is_404_and_never_live_is_503_at_once(scene: Scene) -> None:
    proxy = scene.caddy()
    await proxy.ensure(table(routing("hello", live=False)))
    began = time.monotonic()
    assert (await scene.get("stranger.test")).status_code == 404
    never = await scene.get("hello.test")
    assert (never.status_code, never.headers["Retry-After"]) == (503, "1")
    assert time.monotonic() - began < 1


async def test_the_first_switch_serves_without_a_load(scene: Scene) -> None:
    proxy = scene.caddy()
    await proxy.ensure(table(routing("hello", live=False)))
    await live_app(scene, proxy)
    assert await scene.seen("hello.test") == "hello"
    await proxy.ensure(table(routing("hello", live=True)))
    assert scene.loads() == 0
    assert (await proxy.observe()).table == table(routing("hello", live=True))


async def test_an_app_that_was_taken_off_is_503_again(
    scene: Scene,
) -> None:
    proxy = scene.caddy()
    await proxy.ensure(table(routing("hello", live=True)))
    await live_app(scene, proxy)
    await proxy.unroute(HELLO)
    await proxy.ensure(table(routing("hello", live=False)))
    assert await scene.seen("hello.test") == "503"


async def test_hosts_and_paths_lead_where_the_longest_path_says(scene: Scene) -> None:
    proxy = scene.caddy()
    for name in ("root", "api", "deep", "any"):
        await live_app(scene, proxy, name)
    await proxy.ensure(
        table(
            routing("any", Route(None, "/"), Route(None, "/api/v2")),
            routing("root", Route("example.test", "/")),
            routing("api", Route("Example.Test", "/api")),
            routing("deep", Route("example.test", "/api/v2"), Route("example.test", "/a.c*/x")),
        )
    )
    seen = {
        ("example.test", path): await scene.seen("EXAMPLE.test", path)
        for path in (
            "/",
            "/api",
            "/api/",
            "/api?q",
            "/apix",
            "/api/v2/x",
            "/API",
            "/a.c*/x",
            "/abcd/x",
        )
    }
    assert list(seen.values()) == [
        "root", "api", "api", "api", "root", "deep", "root", "deep", "root",
    ]  # fmt: skip
    assert await scene.seen("other.test", "/api/v2") == "any"
    assert await scene.seen("other.test", "/api/v1") == "any"
    assert await scene.seen("example.test:8443", "//api/../api/x") == "api"


async def test_the_path_reaches_the_app_as_it_was_sent(scene: Scene) -> None:
    proxy = scene.caddy()
    app = await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello", Route(None, "/api"))))
    assert await scene.seen("x.test", "/api/a%2Fb?q=%7B1%7D") == "hello"
    assert app.hits[0].path == "/api/a%2Fb?q=%7B1%7D"


async def test_many_apps_are_told_apart(scene: Scene) -> None:
    proxy = scene.caddy()
    for name in ("a7", "a199"):
        await live_app(scene, proxy, name)
    apps = [routing(f"a{number}", live=number % 2 == 1) for number in range(200)]
    apps.append(routing("deep", Route("a7.test", "/deep"), live=False))
    await proxy.ensure(table(*apps))
    assert await scene.seen("A7.test") == "a7"
    assert await scene.seen("a199.test", "/x") == "a199"
    assert await scene.seen("a8.test") == "503"
    assert await scene.seen("a7.test", "/deep") == "503"
    assert await scene.seen("a200.test") == "404"


async def test_forwarding_headers_of_clients_are_overwritten(scene: Scene) -> None:
    proxy = scene.caddy()
    app = await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    await scene.client.get(
        f"http://127.0.0.1:{scene.port}/",
        headers={
            "Host": "hello.test",
            "X-Forwarded-For": "203.0.113.9",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "bank.test",
        },
    )
    headers = app.hits[0].headers
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert (headers["x-forwarded-proto"], headers["x-forwarded-host"]) == ("http", "hello.test")
    assert headers["host"] == "hello.test"


async def test_a_stream_is_passed_on_as_it_comes(scene: Scene) -> None:
    proxy = scene.caddy()
    app = await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    url = f"http://127.0.0.1:{scene.port}/stream"
    async with scene.client.stream("GET", url, headers={"Host": "hello.test"}) as answer:
        parts = answer.aiter_raw()
        assert await anext(parts) == b"data: 1\n\n"
        app.tick.set()
        assert await anext(parts) == b"data: 2\n\n"


async def test_a_request_body_reaches_the_app_while_it_is_still_sent(scene: Scene) -> None:
    proxy = scene.caddy()
    app = await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await until(lambda: bool(app.hits) and app.hits[0].body == b"first")
        yield b"second"

    answer = await scene.client.post(
        f"http://127.0.0.1:{scene.port}/", content=body(), headers={"Host": "hello.test"}
    )
    assert (answer.status_code, app.hits[0].body) == (200, b"firstsecond")


async def test_keep_alive_to_the_app_can_be_turned_off(scene: Scene) -> None:
    proxy = scene.caddy()
    kept, fresh = [await live_app(scene, proxy, name) for name in ("kept", "fresh")]
    await proxy.ensure(table(routing("kept"), routing("fresh", keep_alive=False)))
    for _ in range(3):
        await scene.seen("kept.test")
        await scene.seen("fresh.test")
    assert (kept.connections, fresh.connections) == (1, 3)


async def test_an_idle_connection_to_the_app_is_closed_after_a_second(scene: Scene) -> None:
    proxy = scene.caddy()
    app = await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    await scene.seen("hello.test")
    assert sockets.connections(app.port) == 1
    began = time.monotonic()
    await until(lambda: sockets.connections(app.port) == 0)
    assert 0.5 < time.monotonic() - began < 3


# Live that dies


async def test_a_request_on_which_the_app_dies_is_sent_to_it_once(scene: Scene) -> None:
    proxy = scene.caddy()
    app = await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    assert (await scene.get("hello.test", "/die")).status_code == 502
    assert (await scene.get("hello.test", "/die", "POST")).status_code == 502
    assert [hit.method for hit in app.hits] == ["GET", "POST"]


@pytest.mark.parametrize("address", ["", "127.0.0.1:1\n"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_requests_wait_for_a_live_app_that_comes_back(
    scene: Scene, method: str, address: str
) -> None:
    proxy = scene.caddy()
    app = await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    scene.publish("hello", A, address)
    request = asyncio.create_task(
        scene.client.request(
            method,
            f"http://127.0.0.1:{scene.port}/",
            headers={"Host": "hello.test"},
            content=b"x" * 100_000 if method == "POST" else b"",
        )
    )
    done, _ = await asyncio.wait([request], timeout=0.3)
    assert not done
    scene.publish("hello", A, app.address)
    assert (await request).status_code == 200
    assert len(app.hits) == 1
    assert len(app.hits[0].body) == (100_000 if method == "POST" else 0)


@pytest.mark.parametrize("how", ["blank", "missing"])
async def test_a_dead_live_is_502_after_two_seconds(scene: Scene, how: str) -> None:
    proxy = scene.caddy()
    await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    if how == "blank":
        scene.publish("hello", A, "")
    else:
        scene.address_file("hello", A).unlink()
    began = time.monotonic()
    assert (await scene.get("hello.test")).status_code == 502
    assert 1.8 < time.monotonic() - began < 3


# Switches


async def test_thirty_switches_under_load_drop_nothing_and_serve_no_old_slot(
    scene: Scene,
) -> None:
    proxy = scene.caddy()
    apps = {A: await scene.upstream("one"), B: await scene.upstream("two")}
    for slot, app in apps.items():
        scene.publish("hello", slot, app.address)
    await proxy.switch(HELLO, A)
    await proxy.ensure(table(routing("hello")))
    failed: list[str] = []
    done = asyncio.Event()

    async def client(method: str) -> int:
        count = 0
        limits = httpx.Limits(max_keepalive_connections=1, max_connections=1)
        async with httpx.AsyncClient(trust_env=False, limits=limits) as http:
            while not done.is_set():
                answer = await http.request(
                    method, f"http://127.0.0.1:{scene.port}/", headers={"Host": "hello.test"}
                )
                count += 1
                if answer.status_code != 200:
                    failed.append(f"{method} {answer.status_code}")
        return count

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client(method)) for method in ("GET", "POST") * 2]
        for turn in range(30):
            slot = (B, A)[turn % 2]
            seen = len(apps[slot].hits)
            await proxy.switch(HELLO, slot)
            assert await proxy.confirm(HELLO, apps[slot].address, "/", SECOND) == ""
            assert await scene.seen("hello.test") == apps[slot].name
            await until(partial(apps[slot].was_hit, seen + 8))
        done.set()
    assert failed == []
    assert sum(task.result() for task in clients) > 100


async def test_a_websocket_survives_a_load_of_another_configuration(scene: Scene) -> None:
    proxy = scene.caddy()

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        scene.publish("hello", A, f"127.0.0.1:{port}")
        await proxy.switch(HELLO, A)
        await proxy.ensure(table(routing("hello", Route(None, "/"))))
        async with websockets.connect(f"ws://127.0.0.1:{scene.port}/", proxy=None) as connection:
            await connection.send("before")
            assert await connection.recv() == "before"
            await proxy.ensure(table(routing("hello", Route(None, "/")), routing("other")))
            assert scene.loads() == 1
            await connection.send("after")
            assert await connection.recv() == "after"


# Confirmation


async def test_confirm_tells_what_is_dialled_instead(scene: Scene) -> None:
    proxy = scene.caddy()
    app = await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    brief = timedelta(seconds=0.1)
    assert await proxy.confirm(HELLO, "127.0.0.1:1", "/", brief) == app.address
    scene.publish("hello", A, "127.0.0.1:1")
    assert "127.0.0.1:1, which did not answer" in await proxy.confirm(
        HELLO, "127.0.0.1:1", "/", brief
    )
    scene.publish("hello", A, "")
    assert await proxy.confirm(HELLO, "127.0.0.1:1", "/", brief) == "no address"
    await proxy.stop()
    assert "the proxy did not answer" in await proxy.confirm(HELLO, app.address, "/", brief)


async def test_any_status_of_the_right_app_confirms_and_a_silent_one_does_not(scene: Scene) -> None:
    proxy = scene.caddy()
    app = await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    assert await proxy.confirm(HELLO, app.address, "/status/404", SECOND) == ""
    assert await proxy.confirm(HELLO, app.address, "/stream", SECOND) == ""
    brief = timedelta(seconds=0.1)
    assert await proxy.confirm(HELLO, app.address, "/hang", brief) == "no answer in time"


async def test_confirm_waits_for_the_pointer_to_move(scene: Scene) -> None:
    proxy = scene.caddy()
    await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    other = await scene.upstream("other")
    scene.publish("hello", B, other.address)
    async with asyncio.TaskGroup() as group:
        confirmed = group.create_task(proxy.confirm(HELLO, other.address, "/", SECOND))
        await asyncio.sleep(0)
        await proxy.switch(HELLO, B)
    assert confirmed.result() == ""


async def test_the_secret_reaches_neither_app_nor_public(scene: Scene) -> None:
    proxy = scene.caddy()
    app = await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    await proxy.confirm(HELLO, app.address, "/", SECOND)
    secret = (scene.data_dir / "proxy/secret").read_text()
    assert secret not in str(app.hits[0].headers)
    public = await scene.client.get(
        f"http://127.0.0.1:{scene.port}/",
        headers={"Host": "hello.test", "X-Autopilot-Secret": secret, "X-Autopilot-App": "hello"},
    )
    assert public.status_code == 200
    assert not [name for name in public.headers if "autopilot" in name.lower()]


async def test_the_confirm_listener_is_shut_to_who_does_not_know_the_secret(scene: Scene) -> None:
    proxy = scene.caddy()
    await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    socket_path = scene.data_dir / "proxy/confirm.sock"
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    transport = httpx.AsyncHTTPTransport(uds=str(socket_path))
    async with httpx.AsyncClient(transport=transport) as client:
        answer = await client.get(
            "http://localhost/",
            headers={"X-Autopilot-App": "hello", "X-Autopilot-Secret": "guess"},
        )
    assert answer.status_code == 403


# Ports of apps


async def test_a_port_of_an_app_listens_from_its_first_promotion_on(scene: Scene) -> None:
    proxy = scene.caddy()
    port = free_port()
    await proxy.ensure(table(routing("hello", port=port, live=False)))
    assert sockets.listeners(port) == ()
    await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello", port=port)))
    answer = await scene.client.get(f"http://127.0.0.1:{port}/any")
    assert (answer.text, [one.local for one in sockets.listeners(port)]) == ("hello", ["127.0.0.1"])


@pytest.mark.parametrize("bind", ["::1", "[::1]"])
async def test_a_port_can_be_bound_to_ipv6(scene: Scene, bind: str) -> None:
    proxy = scene.caddy()
    port = free_port()
    await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello", port=port, bind=bind)))
    assert (await scene.client.get(f"http://[::1]:{port}/")).text == "hello"


async def test_the_internal_port_leads_inside_and_checks_the_host(
    scene: Scene,
) -> None:
    proxy = scene.caddy()
    port = free_port()
    await live_app(scene, proxy)
    inside = await scene.upstream("inside")
    scene.publish("hello", A, inside.address, "internal")
    await proxy.ensure(table(routing("hello", internal_port=port)))
    assert [one.loopback_only for one in sockets.listeners(port)] == [True]
    for host in ("localhost", f"127.0.0.1:{port}", "[::1]", f"LOCALHOST:{port}"):
        answer = await scene.client.get(f"http://127.0.0.1:{port}/", headers={"Host": host})
        assert answer.text == "inside"
    for host in ("hello.test", "evil.example.com", "127.0.0.2"):
        answer = await scene.client.get(f"http://127.0.0.1:{port}/", headers={"Host": host})
        assert answer.status_code == 403
    assert len(inside.hits) == 4


async def test_a_port_held_by_a_stranger_is_named_and_other_apps_are_served(
    scene: Scene,
) -> None:
    proxy = scene.caddy()
    await live_app(scene, proxy, "other")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        wanted = table(routing("hello", port=port), routing("other"))
        with pytest.raises(PortHeldError) as raised:
            await proxy.ensure(wanted)
        assert f"port {port} is held by pid {os.getpid()}" in str(raised.value)
        assert "`port` of hello" in str(raised.value)
        assert await scene.seen("other.test") == "other"
        assert (await proxy.observe()).table != wanted
    await proxy.ensure(wanted)
    assert (await proxy.observe()).table == wanted


async def test_a_shared_port_held_by_a_stranger_names_it_and_the_flag(
    scene: Scene,
) -> None:
    proxy = scene.caddy()
    with (
        socket.create_server(("127.0.0.1", scene.port)),
        pytest.raises(PortHeldError, match="--http-port") as raised,
    ):
        await proxy.ensure(table())
    assert f"pid {os.getpid()}" in str(raised.value)
    assert not (await proxy.observe()).up
    await proxy.ensure(table())


async def test_one_port_asked_for_twice_is_refused_once(scene: Scene) -> None:
    proxy = scene.caddy()
    await live_app(scene, proxy)
    with pytest.raises(PortHeldError, match=r"asked for twice.*--http-port.*`port` of hello"):
        await proxy.ensure(table(routing("hello", port=scene.port)))
    assert await scene.seen("hello.test") == "hello"


async def test_an_address_that_is_not_of_this_host_stops_no_other_app(scene: Scene) -> None:
    proxy = scene.caddy()
    await live_app(scene, proxy, "other")
    wanted = table(routing("hello", port=free_port(), bind="203.0.113.1"), routing("other"))
    with pytest.raises(PortHeldError, match=r"203\.0\.113\.1"):
        await proxy.ensure(wanted)
    assert await scene.seen("other.test") == "other"


async def test_two_daemons_cannot_share_a_port(scene: Scene) -> None:
    await scene.caddy().ensure(table())
    with short_directory() as other:
        second = scene.caddy(other)
        with pytest.raises(PortHeldError) as raised:
            await second.ensure(table())
        assert str(scene.data_dir) in str(raised.value)
        assert not (await second.observe()).up


async def test_a_port_that_another_daemon_has_locked_is_left_to_it(scene: Scene) -> None:
    """Between its lock and its first listener nothing but the lock tells of the other daemon."""
    other = FileLock(runtime_directory() / f"listen-{scene.port}.lock")
    assert other.acquire("/srv/other pid 7")
    proxy = scene.caddy()
    with pytest.raises(PortHeldError, match=r"another daemon \(/srv/other pid 7\).*--http-port"):
        await proxy.ensure(table())
    other.release()
    await proxy.ensure(table())


async def test_a_second_caddy_that_knows_no_locks_is_found_out(scene: Scene) -> None:
    """The kernel lets it listen on our port, and half of the requests would go astray."""
    proxy = scene.caddy()
    await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    async with stray_caddy(scene) as stranger:
        await until(lambda: len(sockets.listeners(scene.port)) == 2)
        assert f"pid {stranger.pid}" in (await proxy.observe()).problem
        with pytest.raises(ProxyError, match=f"pid {stranger.pid}.*beside our Caddy"):
            await proxy.ensure(table(routing("hello")))
        with pytest.raises(ProxyError, match="beside our Caddy"):
            await proxy.ensure(table(routing("hello"), routing("other")))
    await proxy.ensure(table(routing("hello"), routing("other")))
    assert (await proxy.observe()).problem == ""


async def test_a_caddy_of_others_is_there_first(scene: Scene) -> None:
    async with stray_caddy(scene) as stranger:
        await until(lambda: len(sockets.listeners(scene.port)) == 1)
        with pytest.raises(PortHeldError, match=f"held by pid {stranger.pid}"):
            await scene.caddy().ensure(table())


async def test_ports_are_unlocked_when_they_are_given_up(scene: Scene) -> None:
    proxy = scene.caddy()
    port = free_port()
    lock = FileLock(runtime_directory() / f"listen-{port}.lock")
    await proxy.ensure(table(routing("hello", port=port)))
    assert str(scene.data_dir) in lock.holder()
    assert not lock.acquire()
    await proxy.ensure(table(routing("hello")))
    assert lock.acquire()
    lock.release()


# Loading


async def test_an_equal_configuration_is_never_loaded(scene: Scene) -> None:
    proxy = scene.caddy()
    one, two = routing("one"), routing("two")
    await proxy.ensure(table(one, two))
    before = {socket.inode for socket in sockets.listeners(scene.port)}
    for wanted in (table(one, two), table(two, one), table(one, two)):
        await proxy.ensure(wanted)
        assert (await proxy.observe()).table == wanted
    assert scene.loads() == 0
    assert {socket.inode for socket in sockets.listeners(scene.port)} == before


async def test_changes_asked_for_at_once_are_coalesced_and_the_newest_wins(scene: Scene) -> None:
    proxy = scene.caddy()
    await proxy.ensure(table())
    tables = [table(*(routing(f"a{number}") for number in range(count))) for count in range(1, 9)]
    await asyncio.gather(*map(proxy.ensure, tables))
    assert (await proxy.observe()).table == tables[-1]
    assert scene.loads() <= 2


async def test_a_configuration_that_caddy_refuses_leaves_the_old_one(scene: Scene) -> None:
    proxy = scene.caddy()
    await live_app(scene, proxy)
    good = table(routing("hello"))
    await proxy.ensure(good)
    with pytest.raises(ProxyError, match=r"caddy refuses the configuration: .*listen"):
        await proxy.ensure(table(routing("hello", port=free_port(), bind="no host")))
    assert await scene.seen("hello.test") == "hello"
    assert (await proxy.observe()).table == good
    await proxy.ensure(good)


async def test_a_start_that_fails_says_why_and_leaves_nothing(scene: Scene) -> None:
    proxy = scene.caddy()
    with pytest.raises(ProxyError, match=r"cannot start: .*listen"):
        await proxy.ensure(table(routing("hello", port=free_port(), bind="no host")))
    assert not (await proxy.observe()).up
    await proxy.ensure(table(routing("hello")))


# Life and death


async def test_admin_is_a_socket_of_this_user_and_nothing_else_listens(scene: Scene) -> None:
    proxy = scene.caddy()
    await proxy.ensure(table(routing("hello", Route("www.example.com"))))
    directory = scene.data_dir / "proxy"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "admin.sock").stat().st_mode) == 0o600
    for name in ("caddy.json", "table.json", "record.json", "secret", "caddy.log"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    mine = processes.socket_inodes(scene.pid())
    assert {one.port for one in sockets.listeners() if one.inode in mine} == {scene.port}
    assert not list(directory.rglob("autosave.json"))


async def test_its_environment_holds_nothing_of_the_daemons(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("AUTOPILOT_TOKEN", "s3cret")
    await scene.caddy().ensure(table())
    environment = processes.read_environment(scene.pid())
    assert set(environment) <= {
        b"PATH", b"HOME", b"XDG_CONFIG_HOME", b"XDG_DATA_HOME", b"LANG", b"AUTOPILOT_PROXY",
    }  # fmt: skip


async def test_after_kill_9_it_wakes_us_and_serves_again_within_a_second(scene: Scene) -> None:
    proxy = scene.caddy()
    await live_app(scene, proxy)
    wanted = table(routing("hello"))
    await proxy.ensure(wanted)
    woken = asyncio.Event()
    proxy.on_change(woken.set)
    began = time.monotonic()
    os.kill(scene.pid(), signal.SIGKILL)
    async with asyncio.timeout(1):
        await woken.wait()
    assert not (await proxy.observe()).up
    await proxy.ensure(wanted)
    assert await scene.seen("hello.test") == "hello"
    assert time.monotonic() - began < 1


async def test_a_new_daemon_adopts_without_a_load(scene: Scene) -> None:
    first = scene.caddy()
    await live_app(scene, first)
    wanted = table(routing("hello"), routing("two", live=False))
    await first.ensure(wanted)
    pid = scene.pid()
    await first.close()
    second = scene.caddy()
    seen = await second.observe()
    assert (seen.up, seen.table) == (True, wanted)
    await second.ensure(wanted)
    assert (scene.pid(), scene.loads()) == (pid, 0)
    woken = asyncio.Event()
    second.on_change(woken.set)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(1):
        await woken.wait()


async def test_an_adopted_caddy_with_another_configuration_is_loaded(scene: Scene) -> None:
    first = scene.caddy()
    await first.ensure(table(routing("hello", live=False)))
    old = (scene.data_dir / "proxy/table.json").read_bytes()
    await first.ensure(table(routing("other", live=False)))
    await first.close()
    (scene.data_dir / "proxy/table.json").write_bytes(old)
    second = scene.caddy()
    await second.ensure(table(routing("hello", live=False)))
    assert (await scene.get("hello.test")).status_code == 503


async def test_a_caddy_that_was_never_recorded_is_adopted_by_its_socket(scene: Scene) -> None:
    first = scene.caddy()
    await first.ensure(table())
    pid = scene.pid()
    await first.close()
    for name in ("record.json", "table.json"):
        (scene.data_dir / "proxy" / name).unlink()
    second = scene.caddy()
    assert (await second.observe()).up
    await second.ensure(table())
    assert scene.pid() == pid


async def test_a_caddy_that_nobody_can_talk_to_is_replaced(scene: Scene) -> None:
    first = scene.caddy()
    await first.ensure(table())
    pid = scene.pid()
    await first.close()
    for name in ("record.json", "admin.sock"):
        (scene.data_dir / "proxy" / name).unlink()
    await scene.caddy().ensure(table())
    assert scene.pid() != pid
    assert len(sockets.listeners(scene.port)) == 1


async def test_a_record_of_another_process_or_boot_is_not_believed(scene: Scene) -> None:
    (scene.data_dir / "proxy").mkdir(mode=0o700)
    me = processes.read_stat(os.getpid())
    assert me is not None
    boot_id = SystemClock().now().boot_id
    record = scene.data_dir / "proxy/record.json"
    for process in (
        caddy_process.CaddyProcess(me.pid, me.started + 1, boot_id),
        caddy_process.CaddyProcess(me.pid, me.started, "another boot"),
    ):
        caddy_process.write_record(record, process)
        assert not (await scene.caddy().observe()).up
    record.write_text("{")
    assert not (await scene.caddy().observe()).up


async def test_close_leaves_it_running_and_stop_ends_it(scene: Scene) -> None:
    proxy = scene.caddy()
    await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    await proxy.close()
    assert await scene.seen("hello.test") == "hello"
    await scene.caddy().stop()
    assert sockets.listeners(scene.port) == ()
    assert not (scene.data_dir / "proxy/admin.sock").exists()


async def test_stop_does_not_wait_for_a_request_without_end(scene: Scene) -> None:
    proxy = scene.caddy()
    app = await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello")))
    request = asyncio.create_task(scene.get("hello.test", "/hang"))
    await until(lambda: bool(app.hits))
    async with asyncio.timeout(8):
        await proxy.stop()
    with pytest.raises(httpx.HTTPError):
        await request


async def test_without_a_shared_port_only_ports_of_apps_are_served(scene: Scene) -> None:
    proxy = scene.caddy(http_port=None)
    port = free_port()
    await live_app(scene, proxy)
    await proxy.ensure(table(routing("hello", port=port)))
    assert (await scene.client.get(f"http://127.0.0.1:{port}/")).text == "hello"
    assert sockets.listeners(scene.port) == ()


# Where the data lies


@pytest.mark.parametrize("name", ["a b'\"c", "ünï|:8080,#%$", "x" * 120])
async def test_an_odd_path_is_followed(scene: Scene, name: str) -> None:
    scene.data_dir /= name
    proxy = scene.caddy(scene.data_dir)
    wanted = table(routing("hello", live=False), routing("other", live=False))
    await proxy.ensure(wanted)
    app = await live_app(scene, proxy)
    assert await scene.seen("hello.test") == "hello"
    assert await scene.seen("other.test") == "503"
    assert await proxy.confirm(HELLO, app.address, "/", SECOND) == ""


@pytest.mark.parametrize("name", ["a{b", "a}b", "a\\b", "a\nb", "a*", "a[b]", "a?"])
def test_a_path_that_caddy_would_read_as_its_own_is_refused(tmp_path: Path, name: str) -> None:
    settings = ProxySettings(tmp_path / name, SystemClock(), {})
    with pytest.raises(ConfigError, match="--data-dir"):
        CaddyProxy(settings)
    assert not (tmp_path / name).exists()
