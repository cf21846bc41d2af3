"""What every proxy promises behind the port, whichever it is."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from reconciler.host.boot import SystemClock
from reconciler.model.errors import ProxyError
from reconciler.model.names import AppName
from reconciler.model.observed import NoPointer, PointsTo, UnknownPointer
from reconciler.ports import Proxy
from reconciler.proxies import PROXIES, ProxySettings
from tests.proxies.scene import A, B, Scene, open_scene, routing, table

pytestmark = pytest.mark.anyio
HELLO = AppName("hello")
SECOND = timedelta(seconds=1)


@dataclass
class Stage:
    scene: Scene
    kind: str
    proxy: Proxy

    def again(self) -> Proxy:
        """Returns what a daemon that starts again has."""
        return _proxy(self.kind, self.scene)


def _proxy(kind: str, scene: Scene) -> Proxy:
    settings = ProxySettings(scene.data_dir, SystemClock(), os.environ, http_port=scene.port)
    return PROXIES[kind](settings)


@pytest.fixture(params=sorted(PROXIES))
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with open_scene() as scene:
        stage = Stage(scene, request.param, _proxy(request.param, scene))
        yield stage
        last = stage.again()
        await last.stop()
        await last.close()
        await stage.proxy.close()


async def test_pointer_follows_switch_and_unroute(stage: Stage) -> None:
    for slot in (A, B):
        stage.scene.publish("hello", slot, "127.0.0.1:1")
    assert await stage.proxy.pointer(HELLO) == NoPointer()
    await stage.proxy.switch(HELLO, A)
    assert await stage.proxy.pointer(HELLO) == PointsTo(A)
    await stage.proxy.switch(HELLO, B)
    assert await stage.proxy.pointer(HELLO) == PointsTo(B)
    await stage.proxy.unroute(HELLO)
    await stage.proxy.unroute(HELLO)
    assert await stage.proxy.pointer(HELLO) == NoPointer()


async def test_a_pointer_moved_by_hand_is_seen_and_a_strange_one_is_unknown(stage: Stage) -> None:
    stage.scene.publish("hello", A, "127.0.0.1:1")
    await stage.proxy.switch(HELLO, A)
    link = stage.scene.data_dir / "routes" / "hello"
    link.unlink()
    link.symlink_to("../apps/hello/slots/deploy-h.addr")
    assert isinstance(await stage.proxy.pointer(HELLO), UnknownPointer)


async def test_a_switch_to_a_slot_without_addresses_is_refused(stage: Stage) -> None:
    with pytest.raises(ProxyError):
        await stage.proxy.switch(HELLO, A)
    assert await stage.proxy.pointer(HELLO) == NoPointer()


async def test_ensure_is_idempotent_and_observe_tells_the_table(stage: Stage) -> None:
    wanted = table(routing("hello", live=False), routing("other"))
    for _ in range(3):
        await stage.proxy.ensure(wanted)
        seen = await stage.proxy.observe()
        assert (seen.up, seen.table, seen.problem) == (True, wanted, "")


async def test_the_newest_table_is_what_is_served(stage: Stage) -> None:
    await stage.proxy.ensure(table(routing("hello")))
    await stage.proxy.ensure(table(routing("other")))
    assert (await stage.proxy.observe()).table == table(routing("other"))


async def test_a_switch_is_confirmed(stage: Stage) -> None:
    app = await stage.scene.upstream("hello")
    stage.scene.publish("hello", A, f"{app.address}\n")
    await stage.proxy.ensure(table(routing("hello")))
    await stage.proxy.switch(HELLO, A)
    assert await stage.proxy.confirm(HELLO, app.address, "/healthz", SECOND) == ""


async def test_pointers_and_proxy_outlive_the_daemon(stage: Stage) -> None:
    stage.scene.publish("hello", A, "127.0.0.1:1")
    await stage.proxy.ensure(table(routing("hello")))
    await stage.proxy.switch(HELLO, A)
    await stage.proxy.close()
    again = stage.again()
    assert await again.pointer(HELLO) == PointsTo(A)
    assert (await again.observe()).up
    await again.close()


async def test_it_can_be_stopped_twice_and_used_again(stage: Stage) -> None:
    await stage.proxy.ensure(table(routing("hello")))
    await stage.proxy.stop()
    await stage.proxy.stop()
    assert (await stage.proxy.observe()).table is None
    await stage.proxy.ensure(table(routing("hello")))
    assert (await stage.proxy.observe()).table == table(routing("hello"))
