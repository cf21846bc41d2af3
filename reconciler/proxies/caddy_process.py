"""The Caddy process: started on its own, found again, watched, stopped. Knows nothing of routes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from reconciler import command
from reconciler.host import processes
from reconciler.host.files import write_atomic
from reconciler.model.canonical import canonical
from reconciler.model.errors import ProxyError

COOKIE = "AUTOPILOT_PROXY"

KILLED_WITHIN_S = 5.0

# A Caddy outlives whoever started it. While that daemon lives it is its child all the same, so
# its handle is kept until the exit status has been collected.
_children: list[command.Spawned] = []


@dataclass(frozen=True, slots=True)
class CaddyProcess:
    """A process told apart from every other by start time (in ticks) and boot."""

    pid: int
    started: int
    boot_id: str

    def alive(self) -> bool:
        return processes.is_alive(self.pid, self.started)


def find(record: Path, admin_socket: Path, boot_id: str) -> CaddyProcess | None:
    """Returns the Caddy that runs here: the recorded one, else the one that serves the socket.

    The latter was started by a daemon that died before it could write the record.
    """
    recorded = _read_record(record)
    if recorded is not None and recorded.boot_id == boot_id and recorded.alive():
        return recorded
    pid = _server_of(admin_socket)
    stat = processes.read_stat(pid) if pid else None
    if stat is None or not stat.alive:
        return None
    serving = CaddyProcess(stat.pid, stat.started, boot_id)
    write_record(record, serving)
    return serving


def _read_record(record: Path) -> CaddyProcess | None:
    try:
        fields = json.loads(record.read_bytes())
        return CaddyProcess(int(fields["pid"]), int(fields["started"]), str(fields["boot_id"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(record: Path, process: CaddyProcess) -> None:
    write_atomic(record, canonical(asdict(process)).encode(), mode=0o600)


def _server_of(admin_socket: Path) -> int | None:
    """Returns the id of the process that listens on the socket (unix(7), SO_PEERCRED)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(0.2)
        try:
            connection.connect(str(admin_socket))
        except OSError:
            return None
        size = struct.calcsize("3i")
        pid, _, _ = struct.unpack(
            "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
    return int(pid)


def start(program: Path, config: Path, directory: Path, boot_id: str) -> CaddyProcess:
    """Starts Caddy in a session of its own; what it prints, not logs, goes to `start.log`.

    Its environment is made here: no proxy variables, no home directory of anybody, and a cookie
    by which a process that was never recorded is found. Raises ProxyError.
    """
    output = directory / "start.log"
    output.unlink(missing_ok=True)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(directory),
        "XDG_CONFIG_HOME": str(directory / "storage"),
        "XDG_DATA_HOME": str(directory / "storage"),
        "LANG": "C.UTF-8",
        COOKIE: str(directory),
    }
    try:
        spawned = command.spawn(
            [str(program), "run", "--config", str(config)],
            env=environment,
            cwd=directory,
            output=output,
        )
    except OSError as error:
        raise ProxyError(f"cannot start {program}: {error}") from error
    _children.append(spawned)
    stat = processes.read_stat(spawned.pid)
    if stat is None:
        raise ProxyError(f"{program} ended at once")
    return CaddyProcess(stat.pid, stat.started, boot_id)


def last_words(directory: Path, log: Path) -> str:
    """Returns why Caddy ended: what it printed, else the last error it logged since its start."""
    with suppress(OSError):
        printed = (directory / "start.log").read_text(encoding="utf-8", errors="replace").strip()
        if printed:
            return printed.splitlines()[-1].removeprefix("Error: ")[:2000]
    with suppress(OSError, ValueError):
        for line in reversed(log.read_text(encoding="utf-8", errors="replace").splitlines()):
            entry = json.loads(line)
            if entry["level"] == "error":
                return str(entry["msg"])[:2000]
            if entry["msg"] == "using config from file":
                break
    return "it did not say why"


def strays(directory: Path) -> tuple[CaddyProcess, ...]:
    """Returns the processes started for that directory, recorded or not."""
    cookie = os.fsencode(directory)
    return tuple(
        CaddyProcess(stat.pid, stat.started, "")
        for stat in processes.all_processes()
        if stat.alive and processes.read_environment(stat.pid).get(os.fsencode(COOKIE)) == cookie
    )


async def end(process: CaddyProcess, patience_s: float) -> None:
    """Ends the process: SIGTERM, after `patience_s` SIGKILL. Raises ProxyError if it stays."""
    if patience_s > 0:
        processes.send_signal(process.pid, process.started, signal.SIGTERM)
        if await gone(process, patience_s):
            return
    processes.send_signal(process.pid, process.started, signal.SIGKILL)
    if not await gone(process, KILLED_WITHIN_S):
        raise ProxyError(f"{processes.describe(process.pid)} does not end on SIGKILL")


async def gone(process: CaddyProcess, within_s: float) -> bool:
    """Waits until it has ended with all its threads, and so holds no port any more.

    Its first thread is a zombie, and it is not `alive`, some time before that.
    """
    ended = asyncio.Event()
    watch = Watch(process, ended.set)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await ended.wait()
    finally:
        watch.close()
        reap()
    return ended.is_set()


def reap() -> None:
    """Collects the exit status of every Caddy of this process that has ended."""
    _children[:] = [child for child in _children if child.poll() is None]


class Watch:
    """Calls back once, on the running loop, when the process has ended."""

    def __init__(self, process: CaddyProcess, ended: Callable[[], None]) -> None:
        self.process = process
        self._ended = ended
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._descriptor: int | None = None
        with suppress(ProcessLookupError):
            self._descriptor = os.pidfd_open(process.pid)
        stat = processes.read_stat(process.pid)
        if self._descriptor is not None and stat and stat.started == process.started:
            self._loop.add_reader(self._descriptor, self._fire)
        else:
            self._loop.call_soon(self._fire)

    def _fire(self) -> None:
        if not self._closed:
            self.close()
            reap()
            self._ended()

    def close(self) -> None:
        """Looks away; the process goes on."""
        self._closed = True
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
