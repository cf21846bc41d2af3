"""The subprocess door: deadlines that kill, output that is bounded, nothing that leaks in."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler import command
from reconciler.host.processes import is_alive, read_environment, read_stat, wait_end
from reconciler.model.errors import CommandFailedError, CommandTimeoutError

pytestmark = pytest.mark.anyio

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
LONG = timedelta(seconds=20)


async def test_output_and_status_are_returned() -> None:
    done = await command.run(
        ["sh", "-c", "cat; echo err >&2; exit 3"], env=ENV, timeout=LONG, stdin=b"in", check=False
    )
    assert (done.status, done.stdout, done.stderr) == (3, b"in", b"err\n")


async def test_a_failure_is_raised_with_its_status_and_the_end_of_its_output() -> None:
    with pytest.raises(CommandFailedError, match="status 3: broken") as caught:
        await command.run(["sh", "-c", "echo broken >&2; exit 3"], env=ENV, timeout=LONG)
    assert (caught.value.status, caught.value.output) == (3, "broken")


async def test_only_the_given_environment_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEMON_SECRET", "x")
    done = await command.run(["env"], env={**ENV, "A": "b"}, timeout=LONG)
    assert set(done.stdout.decode().split()) == {f"PATH={ENV['PATH']}", "A=b"}


async def test_the_deadline_kills_the_whole_group(tmp_path: Path) -> None:
    script = "sleep 300 & echo $! > pid; trap '' TERM; wait; sleep 300"
    with pytest.raises(CommandTimeoutError, match=r"0\.3 s"):
        await command.run(
            ["sh", "-c", script], env=ENV, timeout=timedelta(milliseconds=300), cwd=tmp_path
        )
    await _gone(int((tmp_path / "pid").read_text()))


async def test_cancelling_kills_the_whole_group(tmp_path: Path) -> None:
    script = "sleep 300 & echo $! > pid.new; mv pid.new pid; wait"
    running = asyncio.create_task(
        command.run(["sh", "-c", script], env=ENV, timeout=LONG, cwd=tmp_path)
    )
    async with asyncio.timeout(10):
        while not (tmp_path / "pid").exists():  # noqa: ASYNC110 (another process makes it)
            await asyncio.sleep(0.003)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await _gone(int((tmp_path / "pid").read_text()))


async def test_a_chatty_program_is_cut_to_the_end_of_its_output() -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' x; echo end"
    done = await command.run(["sh", "-c", script], env=ENV, timeout=LONG)
    assert len(done.stdout) == command.MAX_OUTPUT
    assert done.stdout.endswith(b"xend\n")


async def test_a_program_that_does_not_read_its_input_is_no_error() -> None:
    done = await command.run(["true"], env=ENV, timeout=LONG, stdin=b"x" * (1 << 20))
    assert done.status == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run as another user")
async def test_an_owner_is_dropped_to_without_groups() -> None:
    done = await command.run(["id"], env=ENV, timeout=LONG, owner=(65534, 65534), cwd=Path("/"))
    assert done.stdout.startswith(b"uid=65534")
    assert b"root" not in done.stdout


async def test_what_is_spawned_has_a_session_of_its_own_and_appends(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n", encoding="utf-8")
    spawned = command.spawn(
        ["sh", "-c", "cat; echo err >&2; exec sleep 300"],
        env={**ENV, "A": "b"},
        cwd=tmp_path,
        output=log,
        stdin=b"from memory\n",
    )
    async with asyncio.timeout(10):
        while log.read_text() != "before\nfrom memory\nerr\n":  # noqa: ASYNC110 (polled)
            await asyncio.sleep(0.003)
    stat = read_stat(spawned.pid)
    assert stat is not None
    assert stat.session == stat.group == spawned.pid
    assert read_environment(spawned.pid)[b"A"] == b"b"
    assert spawned.poll() is None
    os.kill(spawned.pid, signal.SIGKILL)
    await wait_end(spawned.pid, stat.started)
    assert spawned.poll() == -signal.SIGKILL


async def test_a_large_input_arrives_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    content = os.urandom(1 << 20)
    spawned = command.spawn(["cat"], env=ENV, cwd=tmp_path, output=log, stdin=content)
    async with asyncio.timeout(10):
        while spawned.poll() is None:  # noqa: ASYNC110 (polled)
            await asyncio.sleep(0.003)
    assert log.read_bytes() == content


async def test_without_input_nothing_is_read(tmp_path: Path) -> None:
    spawned = command.spawn(["cat"], env=ENV, cwd=tmp_path, output=tmp_path / "log")
    async with asyncio.timeout(10):
        while spawned.poll() is None:  # noqa: ASYNC110 (polled)
            await asyncio.sleep(0.003)
    assert spawned.poll() == 0


async def test_a_program_that_is_not_there_is_an_error_and_leaks_nothing(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        command.spawn(["/no/such"], env=ENV, cwd=tmp_path, output=tmp_path / "log", stdin=b"x")
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_released_child_is_neither_warned_of_nor_left_a_zombie(tmp_path: Path) -> None:
    """Warnings are errors in this suite: the collector would complain of a running child."""
    spawned = command.spawn(["sleep", "300"], env=ENV, cwd=tmp_path, output=tmp_path / "log")
    pid = spawned.pid
    spawned.release()
    del spawned
    gc.collect()
    os.kill(pid, signal.SIGKILL)
    await _gone(pid)
    command.spawn(["true"], env=ENV, cwd=tmp_path, output=tmp_path / "log").release()
    assert read_stat(pid) is None


async def _gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while (stat := read_stat(pid)) is not None and is_alive(pid, stat.started):  # noqa: ASYNC110 (polled)
            await asyncio.sleep(0.003)
