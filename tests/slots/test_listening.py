"""Whose listener it is: the slot's own, a stranger's, or the slot's in the wrong place."""

from __future__ import annotations

import asyncio
import socket

import pytest

from reconciler.host import sockets
from reconciler.ports import Listener
from reconciler.slots.listening import WebInstance
from tests.slots.scene import (
    APP,
    PYTHON,
    SERVE,
    SLEEP,
    WORKER,
    A,
    Scene,
    contract,
    processes,
    until,
    until_listening,
)

pytestmark = pytest.mark.anyio


def _port(instance: WebInstance) -> int:
    return int(instance.address.rpartition(":")[2])


async def test_nobody_listens_yet(scene: Scene) -> None:
    await scene.run(scene.job())
    listener = await scene.instance().listener()
    assert listener == Listener()


async def test_a_port_of_a_stranger_is_told_with_its_name(scene: Scene) -> None:
    await scene.run(scene.job())
    instance = scene.instance()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", _port(instance)))
        stranger.listen()
        async with asyncio.timeout(5):
            while not (listener := await instance.listener()).stranger:
                pass
        assert not listener.ours
        assert "pid" in listener.detail
        assert await scene.slots.publish(APP, A) == ""


async def test_a_stranger_that_shares_the_port_is_no_small_matter(scene: Scene) -> None:
    """With SO_REUSEPORT the kernel gives every other connection to the stranger."""
    code = (
        "import os, socket, time; s = socket.socket();"
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1);"
        "s.bind(('127.0.0.1', int(os.environ['PORT']))); s.listen(); time.sleep(300)"
    )
    await scene.run(scene.job(made=contract(f'exec {PYTHON} -c "{code}"')))
    instance = scene.instance()
    await until_listening(instance)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", _port(instance)))
        stranger.listen()
        await instance.listener()
        assert (await instance.listener()).stranger
        assert await scene.slots.publish(APP, A) == ""


@pytest.mark.parametrize(
    ("arguments", "dialled", "exposed"),
    [
        ("::1", "[::1]", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("'::' PORT dual", "[::1]", True),
    ],
)
async def test_the_address_is_where_it_can_be_dialled(
    scene: Scene, arguments: str, dialled: str, exposed: bool
) -> None:
    await scene.run(scene.job(made=contract(f"{SERVE} {arguments}")))
    instance = scene.instance()
    await until_listening(instance)
    listener = await instance.listener()
    assert listener.address == f"{dialled}:{_port(instance)}"
    assert listener.exposed is exposed
    published = await scene.slots.publish(APP, A)
    assert published == listener.address
    host, _, port = published.rpartition(":")
    _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.close()


async def test_an_app_that_listens_elsewhere_is_told_where(scene: Scene) -> None:
    code = (
        "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen();"
        "open('port', 'w').write(str(s.getsockname()[1])); time.sleep(300)"
    )
    await scene.run(scene.job(made=contract(f'exec {PYTHON} -c "{code}"')))
    instance = scene.instance()
    async with asyncio.timeout(10):
        while not (listener := await instance.listener()).elsewhere:  # noqa: ASYNC110 (polled)
            await asyncio.sleep(0.01)
    port = (scene.worktree() / "port").read_text()
    assert listener.detail == f"127.0.0.1:{port}"


async def test_a_grandchild_in_another_session_is_the_slots_own(scene: Scene) -> None:
    await scene.run(scene.job(made=contract(f"setsid {PYTHON} -S server.py & sleep 300")))
    await until_listening(scene.instance())


async def test_the_internal_listener_is_looked_at_by_itself(scene: Scene) -> None:
    command = f"{PYTHON} -S server.py 0.0.0.0 INTERNAL_PORT & {SERVE}"
    await scene.run(scene.job(made=contract(command, internal_port=9000)))
    instance = scene.instance()
    await until_listening(instance)
    await until_listening(instance, internal=True)
    assert (await instance.listener(internal=True)).exposed
    assert not (await instance.listener()).exposed
    await scene.slots.publish(APP, A)
    written = (scene.app_dir / "slots" / "deploy-a.addr" / "internal").read_text().strip()
    assert written == instance.internal_address


async def test_the_port_of_another_process_is_not_elsewhere(scene: Scene) -> None:
    await scene.run(scene.job(made=contract(processes=processes(web=SLEEP, worker=SERVE))))
    worker = (await scene.see()).instance(WORKER)
    assert worker is not None
    port = int(worker.address.rpartition(":")[2])
    await until(lambda: sockets.listeners(port))
    assert not (await scene.instance().listener()).elsewhere
