from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from reconciler.config import Settings
from reconciler.web.principal import Access
from reconciler.web.server import ApiServer
from tests.fakes import FakeCommands

pytestmark = pytest.mark.anyio

STREAM = {"Accept": "text/event-stream"}


@asynccontextmanager
async def streaming(
    server: ApiServer, path: str = "/events", headers: dict[str, str] | None = None
) -> AsyncIterator[AsyncIterator[str]]:
    url = f"http://127.0.0.1:{server.port}"
    async with (
        httpx.AsyncClient(base_url=url, timeout=10) as client,
        client.stream("GET", path, headers={**STREAM, **(headers or {})}) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 1000"
        yield lines


async def seqs(lines: AsyncIterator[str], count: int) -> list[int]:
    found: list[int] = []
    async for line in lines:
        if line.startswith("id: "):
            found.append(int(line[4:]))
        if line.startswith("data: "):
            assert json.loads(line[6:])["seq"] == found[-1]
            if len(found) == count:
                return found
    return found


async def test_list_goes_on_after_a_seq(client: httpx.AsyncClient, commands: FakeCommands) -> None:
    commands.seed(5)

    first = (await client.get("/events", params={"after": 0, "limit": 3})).json()
    rest = (await client.get("/events", params={"after": first["next"]})).json()
    end = (await client.get("/events", params={"after": rest["next"]})).json()

    assert [event["seq"] for event in first["items"] + rest["items"]] == [1, 2, 3, 4, 5]
    assert end == {"items": [], "next": 5}
    assert set(first["items"][0]) == {
        "seq", "event_id", "host_id", "kind", "schema_version", "occurred_at", "received_at",
        "payload",
    }  # fmt: skip


async def test_list_without_a_seq_holds_the_newest(
    client: httpx.AsyncClient, commands: FakeCommands
) -> None:
    commands.seed(5)

    page = (await client.get("/events", params={"limit": 2})).json()

    assert [event["seq"] for event in page["items"]] == [4, 5]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/events?after=2", {}),
        ("/events", {"Last-Event-ID": "2"}),
        ("/events?after=1", {"Last-Event-ID": "2"}),
    ],
)
async def test_stream_goes_on_where_the_client_left_off(
    commands: FakeCommands, settings: Settings, access: Access, path: str, headers: dict[str, str]
) -> None:
    commands.seed(4)
    async with (
        ApiServer(commands, settings, access) as server,
        streaming(server, path, headers) as lines,
    ):
        assert await seqs(lines, 2) == [3, 4]
        commands.seed(1)
        assert await seqs(lines, 1) == [5]


async def test_fresh_stream_starts_now(
    commands: FakeCommands, settings: Settings, access: Access
) -> None:
    commands.seed(3)
    async with ApiServer(commands, settings, access) as server, streaming(server) as lines:
        commands.seed(1)
        assert await seqs(lines, 1) == [4]


class Hasty(FakeCommands):
    """Its time-outs pass at once."""

    async def next_event(self, after: int, timeout: float) -> None:
        await super().next_event(after, timeout / 1000)


async def test_quiet_stream_has_a_heartbeat(settings: Settings, access: Access) -> None:
    async with ApiServer(Hasty(), settings, access) as server, streaming(server) as lines:
        async with asyncio.timeout(5):
            while not (await anext(lines)).startswith(":"):
                pass


async def test_stream_ends_cleanly_when_the_server_stops(
    commands: FakeCommands, settings: Settings, access: Access
) -> None:
    server = ApiServer(commands, settings, access)
    await server.start()
    async with streaming(server) as lines:
        async with asyncio.timeout(3):
            await server.stop()
            assert [line async for line in lines if line.startswith("data")] == []


async def test_wrong_last_event_id_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/events", headers={**STREAM, "Last-Event-ID": "x"})

    assert (answer.status_code, answer.json()["type"]) == (400, "invalid-request")
