"""Processes as /proc shows them: told by id, start time and state, never by id alone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from reconciler.host import processes
from reconciler.host.processes import (
    all_processes,
    descendants,
    describe,
    describe_exit,
    is_alive,
    owner_of_inodes,
    read_environment,
    read_stat,
    send_signal,
    socket_inodes,
    wait_end,
)

pytestmark = pytest.mark.anyio


@contextmanager
def child(*argv: str, **environment: str) -> Iterator[int]:
    pid = os.posix_spawnp(argv[0], list(argv), {"PATH": os.environ["PATH"], **environment})
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def started(pid: int) -> int:
    stat = read_stat(pid)
    assert stat is not None
    return stat.started


def test_a_name_with_spaces_and_parentheses_is_read_right(tmp_path: Path) -> None:
    program = tmp_path / "a) R (b"
    program.symlink_to("/bin/sleep")
    with child(str(program), "300") as pid:
        while (stat := read_stat(pid)) is not None and stat.command != "a) R (b":
            assert stat.alive
        assert stat is not None
        assert stat.parent == os.getpid()
        assert stat.group == os.getpgrp()


def test_a_zombie_is_not_alive() -> None:
    with child("true") as pid:
        began = started(pid)
        while is_alive(pid, began):
            pass
        stat = read_stat(pid)
        assert stat is not None
        assert stat.status == "Z"
        assert not send_signal(pid, began, signal.SIGTERM)
    assert read_stat(pid) is None
    assert not is_alive(pid, began)


def test_another_start_time_is_another_process() -> None:
    """An id that was reused is never hit."""
    with child("sleep", "300") as pid:
        assert not is_alive(pid, started(pid) + 1)
        assert not send_signal(pid, started(pid) - 1, signal.SIGKILL)
        assert is_alive(pid, started(pid))
        assert send_signal(pid, started(pid), signal.SIGKILL)


async def test_the_end_of_a_process_that_is_not_our_child_is_noticed() -> None:
    with child("sh", "-c", "sleep 300 & wait") as shell:
        while len(found := list(descendants(shell))) < 2:  # noqa: ASYNC110 (polled)
            await asyncio.sleep(0.002)
        grandchild = found[1]
        waiting = asyncio.create_task(wait_end(grandchild, started(grandchild)))
        await asyncio.sleep(0)
        assert not waiting.done()
        os.kill(grandchild, signal.SIGKILL)
        await asyncio.wait_for(waiting, 5)


async def test_waiting_for_what_has_ended_returns_at_once_and_leaks_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with child("sleep", "300") as pid:
        await asyncio.wait_for(wait_end(pid, started(pid) + 1), 5)
        waiting = asyncio.create_task(wait_end(pid, started(pid)))
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
    await asyncio.wait_for(wait_end(pid, 1), 5)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_environment_is_that_of_the_start() -> None:
    long = "x" * 200_000
    # One string may have 128 KiB at most, so the block takes several.
    parts = {f"LONG{number}": long[:100_000] for number in range(3)}
    with child("sleep", "300", COOKIE="a=b", **parts) as pid:
        while read_environment(pid).get(b"COOKIE") != b"a=b":
            pass
        assert read_environment(pid)[b"LONG2"] == b"x" * 100_000
    assert read_environment(pid) == {}
    assert processes.environment_block(2**22 + 1) == b""


def test_a_socket_leads_to_its_holder() -> None:
    with socket.socket() as server:
        inode = os.fstat(server.fileno()).st_ino
        assert inode in socket_inodes(os.getpid())
        assert owner_of_inodes({inode}) == os.getpid()
    assert inode not in socket_inodes(os.getpid())
    assert owner_of_inodes({inode}) is None
    assert socket_inodes(2**22 + 1) == frozenset()


def test_all_processes_are_listed() -> None:
    assert os.getpid() in {stat.pid for stat in all_processes()}


def test_a_process_is_described_for_people() -> None:
    assert describe(os.getpid()).startswith(f"pid {os.getpid()} (")
    assert describe(2**22 + 1) == f"pid {2**22 + 1}"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (None, "exited, status unknown"),
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (127, "exited with status 127"),
        (128, "exited with status 128"),
        (137, "exited with status 137 (SIGKILL)"),
        (255, "exited with status 255"),
        (-9, "killed by SIGKILL"),
        (-40, "killed by signal 40"),
    ],
)
def test_an_end_is_told_as_people_say_it(status: int | None, told: str) -> None:
    assert describe_exit(status) == told
