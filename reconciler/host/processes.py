"""Processes as /proc shows them: who they are, whose they are, and how to end them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
# Of include/linux/sched.h.
_PF_KTHREAD = 0x00200000


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What /proc/PID/stat says; `started` is in clock ticks since boot."""

    pid: int
    command: str
    status: str
    parent: int
    group: int
    session: int
    started: int
    flags: int = 0

    @property
    def kernel_thread(self) -> bool:
        """Told by the flag: in a container, process 2 is no parent of kernel threads."""
        return bool(self.flags & _PF_KTHREAD)

    @property
    def alive(self) -> bool:
        return self.status not in "ZX"


def read_stat(pid: int) -> ProcessStat | None:
    """Returns the process, or None when there is none of that id."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(descriptor, 4096).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)
    # The name may hold spaces and parentheses, so count from the last one.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return ProcessStat(
        pid=pid,
        command=head.partition("(")[2],
        status=fields[0],
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        started=int(fields[19]),
        flags=int(fields[6]),
    )


def is_alive(pid: int, started: int) -> bool:
    """Whether that very process, told by its start time, still runs (a zombie does not)."""
    stat = read_stat(pid)
    return stat is not None and stat.alive and stat.started == started


def all_processes() -> Iterator[ProcessStat]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := read_stat(int(name))) is not None:
            yield stat


def environment_block(pid: int) -> bytes:
    """Returns /proc/PID/environ as it is; empty when it may not be read.

    It is what the process was started with, unless it wrote over it to change its title.
    """
    try:
        descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        block = b""
        while chunk := os.read(descriptor, 1 << 16):
            block += chunk
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return block


def parse_environment(block: bytes) -> dict[bytes, bytes]:
    pairs = (entry.partition(b"=") for entry in block.split(b"\0") if b"=" in entry)
    return {name: value for name, _, value in pairs}


def read_environment(pid: int) -> dict[bytes, bytes]:
    """Returns the environment the process was started with; empty when it may not be read."""
    return parse_environment(environment_block(pid))


def describe(pid: int) -> str:
    """Returns how to name a process to a person: its id and the start of its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    text = b" ".join(words).decode("utf-8", "replace").strip()[:80]
    return f"pid {pid} ({text})" if text else f"pid {pid}"


def socket_inodes(pid: int) -> frozenset[int]:
    """Returns the inodes of the sockets that the process holds; empty when it may not be read."""
    found = set()
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return frozenset()
    for descriptor in descriptors:
        with suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    return frozenset(found)


def descendants(pid: int) -> Iterator[int]:
    """Yields the process and its children, children's children and so on, as they are now."""
    pending = [pid]
    while pending:
        parent = pending.pop()
        yield parent
        with suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with suppress(OSError):
                    text = Path(f"/proc/{parent}/task/{task}/children").read_text(encoding="ascii")
                    pending.extend(int(child) for child in text.split())


def send_signal(pid: int, started: int, number: signal.Signals) -> bool:
    """Signals that very process; False when it is gone. A reused id is never hit."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(pid, started):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, PermissionError):
        # Of another user (a setuid program): as far out of our reach as one that is gone.
        return False
    finally:
        os.close(descriptor)
    return True


async def wait_end(pid: int, started: int) -> None:
    """Returns when that very process has ended, reaped or not; cancel freely."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        if not is_alive(pid, started):
            return
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
    finally:
        os.close(descriptor)


def owner_of_inodes(inodes: Iterable[int]) -> int | None:
    """Returns a process that holds one of the sockets, None when none may be seen to."""
    wanted = frozenset(inodes)
    for name in os.listdir("/proc"):
        if name.isdigit() and wanted & socket_inodes(int(name)):
            return int(name)
    return None


def describe_exit(status: int | None) -> str:
    """Returns how a process ended, as people say it; `status` is negative for a signal."""
    if status is None:
        return "exited, status unknown"
    if status < 0:
        return f"killed by {_signal_name(-status)}"
    # A shell tells the signal that ended its last command like this.
    hint = f" ({_signal_name(status - 128)})" if 128 < status < 128 + signal.NSIG else ""
    return f"exited with status {status}{hint}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def own_cgroup() -> Path | None:
    """Returns this process's group in the version 2 hierarchy, None where none is mounted."""
    mount = _mount_point()
    if mount is None:
        return None
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    return mount / path.lstrip("/") if path is not None else None


def _mount_point() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4])
    return None
