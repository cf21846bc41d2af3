"""The real server, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from reconciler.config import Settings
from reconciler.model.errors import ConfigError, PortHeldError
from reconciler.web.principal import Access
from reconciler.web.server import ApiServer, bind_tcp, bind_unix
from tests.fakes import FakeCommands
from tests.web.conftest import TOKEN

pytestmark = pytest.mark.anyio

FORCE = {"commit": "main", "force": True, "reason": "for the test"}
NOBODY = 65534

ASK_OVER_SOCKET = """
import json, os, socket, sys
uid = int(sys.argv[3])
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
body = sys.argv[2].encode()
client = socket.socket(socket.AF_UNIX)
client.settimeout(10)
client.connect(sys.argv[1])
client.sendall(b"POST /deploy HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n"
    b"Content-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
answer = b""
while chunk := client.recv(65536):
    answer += chunk
print(json.dumps([int(answer.split()[1]), answer.partition(b"\\r\\n\\r\\n")[2].decode()]))
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can reach, unlike pytest's own."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


async def ask_as(uid: int, path: Path, body: dict[str, object]) -> tuple[int, dict[str, object]]:
    """Posts a deploy over the socket from a process of that user."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", ASK_OVER_SOCKET, str(path), json.dumps(body), str(uid),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    status, text = json.loads(output)
    return status, json.loads(text)


async def test_serves_over_tcp(commands: FakeCommands, settings: Settings, access: Access) -> None:
    async with (
        ApiServer(commands, settings, access) as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client,
    ):
        assert (await client.post("/deploy", json={"commit": "main"})).status_code == 200
        assert (await client.post("/deploy", json=FORCE)).status_code == 403
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert (await client.post("/deploy", json=FORCE, headers=headers)).status_code == 200
        foreign = await client.get("/status", headers={"Host": f"evil.example:{server.port}"})
        assert foreign.status_code == 403
        assert "date" in foreign.headers
        assert "server" not in foreign.headers


async def test_socket_gives_authority_by_the_peers_uid(
    commands: FakeCommands, settings: Settings, access: Access
) -> None:
    own = Access(access.token, os.geteuid())
    async with ApiServer(commands, settings, own):
        transport = httpx.AsyncHTTPTransport(uds=str(settings.api_socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://any") as client:
            answer = await client.post("/deploy", json=FORCE)
        assert (answer.status_code, answer.json()["actor"]) == (200, "human:admin")
        assert settings.api_socket.stat().st_mode & 0o777 == 0o666


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process takes root")
async def test_another_user_on_the_socket_is_local_only(
    commands: FakeCommands, settings: Settings, access: Access, open_directory: Path
) -> None:
    path = open_directory / "api.sock"
    async with ApiServer(commands, replace(settings, socket=path), Access(access.token, 0)):
        forced = await ask_as(NOBODY, path, FORCE)
        plain = await ask_as(NOBODY, path, {"commit": "main"})
        as_root = await ask_as(0, path, FORCE)

    assert (forced[0], forced[1]["type"]) == (403, "forbidden")
    assert (plain[0], plain[1]["actor"]) == (200, "human:local")
    assert (as_root[0], as_root[1]["actor"]) == (200, "human:admin")


async def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    """With Nagle's algorithm each answer on a kept connection came 40 ms late."""
    accepted: asyncio.Queue[int] = asyncio.Queue()

    async def note(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        accepted.put_nowait(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    listener = bind_tcp("127.0.0.1", 0)
    async with await asyncio.start_server(note, sock=listener):
        with socket.create_connection(listener.getsockname()):
            assert await asyncio.wait_for(accepted.get(), 5) != 0


async def test_held_port_names_its_holder_and_the_flag(
    commands: FakeCommands, settings: Settings, access: Access
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        server = ApiServer(commands, replace(settings, port=port), access)
        with pytest.raises(PortHeldError, match=rf"pid {os.getpid()} .*--port"):
            await server.start()
    assert not settings.api_socket.exists()


async def test_stale_socket_is_replaced_and_removed_at_the_end(
    commands: FakeCommands, settings: Settings, access: Access
) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(settings.api_socket))

    async with ApiServer(commands, settings, access):
        assert settings.api_socket.is_socket()

    assert not settings.api_socket.exists()


async def test_socket_of_a_running_daemon_is_left_alone(
    commands: FakeCommands, settings: Settings, access: Access
) -> None:
    async with ApiServer(commands, settings, access):
        with pytest.raises(PortHeldError, match="--socket"):
            await ApiServer(commands, settings, access).start()
        assert settings.api_socket.is_socket()


async def test_stop_leaves_the_socket_of_a_successor(
    commands: FakeCommands, settings: Settings, access: Access
) -> None:
    first = ApiServer(commands, settings, access)
    await first.start()
    settings.api_socket.unlink()
    async with ApiServer(commands, settings, access):
        await first.stop()
        assert settings.api_socket.is_socket()


def test_file_in_place_of_the_socket_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.write_text("mine", encoding="ascii")

    with pytest.raises(ConfigError, match="--socket"):
        bind_unix(path)
    with pytest.raises(ConfigError, match="--socket"):
        bind_unix(tmp_path / "missing" / "api.sock")

    assert path.read_text(encoding="ascii") == "mine"


def test_address_that_is_not_of_this_host_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        bind_tcp("192.0.2.1", 0)


async def test_socket_path_may_be_longer_than_an_address(
    commands: FakeCommands, settings: Settings, access: Access, tmp_path: Path
) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    path = directory / "api.sock"
    async with ApiServer(commands, replace(settings, socket=path), access):
        assert path.is_socket()
        with pytest.raises(PortHeldError):
            bind_unix(path)
    assert not path.exists()


async def test_signals_stay_the_daemons(
    commands: FakeCommands, settings: Settings, access: Access
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with ApiServer(commands, settings, access):
        after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert before == after


async def test_stop_answers_those_who_wait_for_a_deploy(
    commands: FakeCommands, settings: Settings, access: Access
) -> None:
    commands.held = True
    server = ApiServer(commands, settings, access)
    await server.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        asking = asyncio.create_task(client.post("/deploy", json={"commit": "main"}))
        await commands.next_event(0, 5)
        async with asyncio.timeout(3):
            await server.stop()
        assert (await asking).json()["type"] == "interrupted"
