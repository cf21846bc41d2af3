"""The API over ASGI, with an engine that is all in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from reconciler.config import Settings
from reconciler.web.app import create_app
from reconciler.web.principal import Access
from tests.fakes import FakeCommands

OWN = "http://127.0.0.1:7778"
TOKEN = "the-admin-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
DAEMON_UID = 990

Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(repo=tmp_path, data_dir=tmp_path, port=0)


@pytest.fixture
def access() -> Access:
    return Access(TOKEN, DAEMON_UID)


@pytest.fixture
def commands() -> FakeCommands:
    return FakeCommands("web")


@pytest.fixture
async def connect(settings: Settings, access: Access) -> AsyncIterator[Connect]:
    """Returns a client of a fresh application for these commands."""
    async with AsyncExitStack() as stack:

        def connected(commands: FakeCommands, **options: object) -> httpx.AsyncClient:
            app = create_app(commands, settings, access)
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app),
                base_url=OWN,
                **options,  # type: ignore[arg-type]
            )
            stack.push_async_callback(client.aclose)
            return client

        yield connected


@pytest.fixture
def client(connect: Connect, commands: FakeCommands) -> httpx.AsyncClient:
    return connect(commands)
