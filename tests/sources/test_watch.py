"""A moved repository is noticed soon, an idle one costs nothing."""

from __future__ import annotations

import asyncio
import resource
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from reconciler.sources.watch import moves
from tests.sources.trees import Repository, make_repository

pytestmark = pytest.mark.anyio


class Wakes:
    """What a watcher yields, so that a test can wait for one more."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._more = asyncio.Event()

    async def collect(self, path: Path) -> None:
        async with aclosing(moves(path)) as wakes:
            async for _ in wakes:
                self.begun.set()
                self._more.set()

    async def after(self, move: Callable[[], object], seconds: float) -> float:
        """Makes a move; returns how long after it was noticed."""
        self._more.clear()
        await asyncio.to_thread(move)
        moved = time.perf_counter()
        async with asyncio.timeout(seconds):
            await self._more.wait()
        return time.perf_counter() - moved

    async def quiet_for(self, seconds: float) -> bool:
        self._more.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._more.wait()
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def watching(path: Path) -> AsyncIterator[Wakes]:
    wakes = Wakes()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(wakes.collect(path))
        async with asyncio.timeout(5):
            await wakes.begun.wait()
        if path.exists():
            # What the first look or a poll finds proves that events come next.
            await wakes.after(lambda: Repository(path).git("tag", "watched"), 5)
        yield wakes
        task.cancel()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = make_repository(tmp_path / "repository")
    repository.save("file", "0")
    return repository


async def test_commit_amend_reset_branch_and_tag_are_noticed_within_a_second(
    repository: Repository,
) -> None:
    async with watching(repository.path) as wakes:
        for move in (
            lambda: repository.save("file", "1"),
            lambda: repository.git("commit", "--quiet", "--amend", "--message=amended"),
            lambda: repository.git("reset", "--quiet", "--hard", "HEAD^"),
            lambda: repository.git("branch", "other"),
            lambda: repository.git("tag", "v1"),
            lambda: repository.git("checkout", "--quiet", "other"),
            lambda: repository.git("checkout", "--quiet", "--detach"),
            lambda: repository.save("file", "detached"),
        ):
            assert await wakes.after(move, 5) < 1


async def test_commit_in_a_linked_worktree_is_noticed(
    repository: Repository, tmp_path: Path
) -> None:
    linked = Repository(tmp_path / "linked")
    repository.git("worktree", "add", "--quiet", "-b", "topic", str(linked.path))
    async with watching(linked.path) as wakes:
        assert await wakes.after(lambda: linked.save("file", "1"), 5) < 1
        assert await wakes.after(lambda: linked.git("checkout", "--quiet", "--detach"), 5) < 1
        assert await wakes.after(lambda: repository.save("file", "2"), 5) < 1


async def test_branch_in_a_new_directory_is_noticed_again_and_again(
    repository: Repository,
) -> None:
    async with watching(repository.path) as wakes:
        assert await wakes.after(lambda: repository.git("branch", "agent/one/x"), 5) < 1
        move = lambda: repository.git(  # noqa: E731
            "update-ref", "refs/heads/agent/one/x", repository.save("file", "1")
        )
        await wakes.after(move, 5)


async def test_commit_after_packing_is_noticed(repository: Repository) -> None:
    async with watching(repository.path) as wakes:
        repository.git("pack-refs", "--all", "--prune")
        assert await wakes.after(lambda: repository.save("file", "1"), 5) < 1


async def test_what_moves_nothing_wakes_nobody(repository: Repository) -> None:
    async with watching(repository.path) as wakes:
        repository.git("pack-refs", "--all")
        repository.git("status")
        repository.git("gc", "--quiet")
        (repository.path / "file").write_text("not committed")
        repository.git("add", "file")
        assert await wakes.quiet_for(1)


async def test_references_made_anew_are_watched_again(repository: Repository) -> None:
    heads = repository.path / ".git/refs/heads"

    def make_anew() -> None:
        content = (heads / "main").read_bytes()
        shutil.rmtree(heads)
        heads.mkdir()
        (heads / "main").write_bytes(content)

    async with watching(repository.path) as wakes:
        make_anew()
        assert await wakes.after(lambda: repository.save("file", "1"), 5) < 3


async def test_repository_that_vanishes_and_returns_is_noticed(
    repository: Repository, tmp_path: Path
) -> None:
    async with watching(repository.path) as wakes:
        repository.path.rename(tmp_path / "away")
        assert await wakes.quiet_for(0.5)
        Repository(tmp_path / "away").save("file", "1")
        await wakes.after(lambda: (tmp_path / "away").rename(repository.path), 10)
        await wakes.after(lambda: repository.save("file", "2"), 10)


async def test_repository_that_is_not_there_yet_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "later"
    async with watching(path) as wakes:
        await wakes.after(lambda: make_repository(path).save("file", "1"), 10)


async def test_idle_watching_costs_next_to_nothing(repository: Repository) -> None:
    async with watching(repository.path) as wakes:
        before = resource.getrusage(resource.RUSAGE_SELF)
        assert await wakes.quiet_for(4)
        after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # 0.1 % of a core when nothing else runs; the rest is for a busy machine.
    assert spent / 4 < 0.005
