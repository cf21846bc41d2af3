"""The real command line in its own process, against the real server with an engine in memory."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.config import Settings
from reconciler.web.principal import Access, admin_token
from reconciler.web.server import ApiServer
from tests.fakes import FakeCommands

RUN = "from reconciler.cli.main import main; main()"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Shell:
    """Where and with what environment command lines are run."""

    home: Path

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}

    async def start(
        self, *words: str, cwd: Path | None = None, **env: str
    ) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", RUN, *words,
            cwd=cwd or self.home, env={**self.env, **env},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def __call__(
        self, *words: str, stdin: str = "", cwd: Path | None = None, **env: str
    ) -> Ran:
        process = await self.start(*words, cwd=cwd, **env)
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())


@dataclass(frozen=True)
class Daemon:
    commands: FakeCommands
    server: ApiServer
    data_dir: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"


Serve = Callable[[FakeCommands], Awaitable[Daemon]]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    home = tmp_path / "home"
    home.mkdir()
    return Shell(home)


@pytest.fixture
async def serve(shell: Shell) -> AsyncIterator[Serve]:
    """Serves an engine with its data in `.data` of the shell's directory."""
    async with AsyncExitStack() as stack:

        async def served(commands: FakeCommands) -> Daemon:
            data_dir = shell.home / ".data"
            data_dir.mkdir()
            settings = Settings(repo=shell.home, data_dir=data_dir, port=0)
            access = Access(admin_token(data_dir), os.geteuid())
            server = await stack.enter_async_context(ApiServer(commands, settings, access))
            return Daemon(commands, server, data_dir)

        yield served


@pytest.fixture
async def daemon(serve: Serve) -> Daemon:
    return await serve(FakeCommands("web"))
