"""The one subprocess door: argument lists, own process group, deadline, bounded output.

`run` waits for a program; `spawn` starts one that outlives the daemon. Both take the whole
environment explicitly: nothing of the daemon's own leaks into a child.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from reconciler.model.errors import CommandFailedError, CommandTimeoutError

MAX_OUTPUT = 1 << 20
REAP_WITHIN = 1.0


@dataclass(frozen=True, slots=True)
class Completed:
    """What a program left: its exit status and at most 1 MiB of each stream's end."""

    status: int
    stdout: bytes
    stderr: bytes


async def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout: timedelta,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    owner: tuple[int, int] | None = None,
    check: bool = True,
) -> Completed:
    """Runs a program to its end in a process group of its own.

    `owner` runs it as (uid, gid) without supplementary groups. When the deadline passes, or the
    caller is cancelled, the whole group is killed. Raises CommandTimeoutError, and with `check`
    CommandFailedError for a status other than 0.
    """
    identity = {"user": owner[0], "group": owner[1], "extra_groups": []} if owner else {}
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            cwd=cwd,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            process_group=0,
            **identity,  # type: ignore[arg-type]
        )
    )
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # asyncio would kill the program alone and wait for whatever else holds its pipes.
        await _kill_group(await starting)
        raise
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            stdout, stderr = await _communicate(process, stdin)
            status = await process.wait()
    except TimeoutError:
        await _kill_group(process)
        raise CommandTimeoutError(
            f"{argv[0]} did not end within {timeout.total_seconds():g} s and was killed"
        ) from None
    except BaseException:
        await _kill_group(process)
        raise
    if check and status != 0:
        tail = stderr.decode("utf-8", "replace").strip()[-2000:]
        raise CommandFailedError(
            f"{' '.join(argv[:2])} ended with status {status}: {tail}", status, tail
        )
    return Completed(status, stdout, stderr)


async def _communicate(
    process: asyncio.subprocess.Process, stdin: bytes | None
) -> tuple[bytes, bytes]:
    async def feed() -> None:
        if process.stdin is not None and stdin is not None:
            with suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(stdin)
                await process.stdin.drain()
            process.stdin.close()

    async with asyncio.TaskGroup() as group:
        _feeding = group.create_task(feed())
        out = group.create_task(_read_tail(process.stdout))
        err = group.create_task(_read_tail(process.stderr))
    return out.result(), err.result()


async def _read_tail(stream: asyncio.StreamReader | None) -> bytes:
    """Reads to the end and keeps the last 1 MiB, so that a chatty program cannot fill memory."""
    kept = b""
    while stream is not None and (chunk := await stream.read(1 << 16)):
        kept = (kept + chunk)[-MAX_OUTPUT:]
    return kept


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        process.kill()
    # Its end is told when its pipes are closed, which what has left the group may still hold.
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), REAP_WITHIN)
    process._transport.close()  # type: ignore[attr-defined] # noqa: SLF001 (asyncio has no other way)


@dataclass(slots=True)
class Spawned:
    """A program that runs on its own; `poll` reaps it when it is our child and has ended."""

    pid: int
    _status: int | None = None

    def poll(self) -> int | None:
        """Returns the exit status (negative: the signal), None while it runs."""
        if self._status is None:
            self._status = _reap(self.pid)
        return self._status

    def release(self) -> None:
        """Stops caring: it runs on, and is reaped at some later spawn if it ends before us."""
        if self.poll() is None:
            _released.add(self.pid)


# Children that nobody waits for any more; unreaped, their ends would fill the process table.
_released: set[int] = set()


def _reap(pid: int) -> int | None:
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        # Reaped by somebody else: its status is lost, and must not pass for success.
        return 255
    return os.waitstatus_to_exitcode(status) if ended else None


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    output: Path,
    stdin: bytes | None = None,
) -> Spawned:
    """Starts a program in a session of its own, appending to `output`.

    It reads `stdin` from memory that nobody else can name, or nothing. It does not die with the
    daemon. Raises OSError when it cannot be started.
    """
    _released.difference_update([pid for pid in _released if _reap(pid) is not None])
    with ExitStack() as stack:
        descriptor = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        stack.callback(os.close, descriptor)
        source = subprocess.DEVNULL
        if stdin is not None:
            source = os.memfd_create("stdin", os.MFD_CLOEXEC)
            stack.callback(os.close, source)
            _fill(source, stdin)
        process = subprocess.Popen(  # noqa: TID251 (this is the door)
            list(argv),
            env=dict(env),
            cwd=cwd,
            stdin=source,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
    # Reaping is ours from here on: a Popen that is dropped while its child runs complains.
    process.returncode = 0
    return Spawned(process.pid)


def _fill(descriptor: int, content: bytes) -> None:
    os.truncate(descriptor, len(content))
    offset = 0
    while offset < len(content):
        offset += os.pwrite(descriptor, content[offset:], offset)
