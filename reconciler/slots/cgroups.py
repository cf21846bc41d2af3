"""Control groups of slots: version 2, where this daemon may make them. Limits and membership.

A group of its own holds even what leaves its session and wipes its environment. Joining one takes
the kernel some 10 ms, so only a process with limits waits for it; others are moved afterwards.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from reconciler.host.processes import descendants, is_alive
from reconciler.model.desired import Limits
from reconciler.slots.membership import Leader

_PERIOD = 100_000
_WANTED = ("memory", "cpu", "pids")


class Cgroups:
    """The groups of one data directory, below the daemon's own or the nearest delegated one."""

    def __init__(self, data_dir: Path, own: Path | None) -> None:
        self._base: Path | None = None
        self.controllers: frozenset[str] = frozenset()
        if own is None:
            return
        digest = hashlib.sha256(str(data_dir).encode()).hexdigest()[:12]
        self._base = _make(_delegated(own) / f"autopilot-{digest}")
        if self._base is not None:
            self.controllers = _enable(self._base)

    def create(self, name: str, limits: Limits) -> Path | None:
        """Makes the group with its limits; None where none can be made."""
        if self._base is None or _make(self._base) is None:
            return None
        group = _make(self._base / name)
        if group is None:
            return None
        for file, value in self._values(limits).items():
            (group / file).write_text(value, encoding="ascii")
        return group

    def close(self) -> None:
        """Removes the group of this data directory when no slot is left in it."""
        if self._base is not None:
            with suppress(OSError):
                self._base.rmdir()

    def binding(self, limits: Limits) -> bool:
        """Whether a process must be in its group before it starts, for a limit to hold."""
        return bool(self._values(limits))

    def _values(self, limits: Limits) -> dict[str, str]:
        values: dict[str, str] = {}
        if limits.memory_mb is not None and "memory" in self.controllers:
            values["memory.max"] = str(limits.memory_mb << 20)
        if limits.cpu is not None and "cpu" in self.controllers:
            values["cpu.max"] = f"{max(int(limits.cpu * _PERIOD), 1000)} {_PERIOD}"
        if limits.processes is not None and "pids" in self.controllers:
            values["pids.max"] = str(limits.processes)
        return values


def _delegated(own: Path) -> Path:
    """Returns the nearest group that systemd delegated (Delegate=), else our own."""
    for group in (own, *own.parents):
        with suppress(OSError):
            if os.getxattr(group, "user.delegate") == b"1":
                return group
    return own


def _make(group: Path) -> Path | None:
    try:
        group.mkdir(exist_ok=True)
    except OSError:
        return None
    return group if os.access(group / "cgroup.procs", os.W_OK) else None


def _enable(base: Path) -> frozenset[str]:
    """Hands the controllers down to the groups below `base`; returns those that arrived."""
    for group in (base.parent, base):
        for controller in _WANTED:
            with suppress(OSError):
                (group / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")
    try:
        return frozenset((base / "cgroup.subtree_control").read_text(encoding="ascii").split())
    except OSError:
        return frozenset()


def move(group: Path, leader: Leader) -> None:
    """Moves a started process with all it has forked so far. It may be gone by now."""
    if not is_alive(leader.pid, leader.started):
        return
    for pid in descendants(leader.pid):
        with suppress(OSError):
            (group / "cgroup.procs").write_text(str(pid), encoding="ascii")


def processes(group: Path | None) -> frozenset[int]:
    """Returns the ids of the processes in the group and in groups made below it."""
    if group is None:
        return frozenset()
    found: set[int] = set()
    for directory, _, _ in os.walk(group):
        with suppress(OSError, ValueError):
            text = (Path(directory) / "cgroup.procs").read_text(encoding="ascii")
            found.update(int(line) for line in text.split())
    return frozenset(found)


def remove(group: Path) -> None:
    """Removes an empty group, with those made below it."""
    for directory, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            Path(directory).rmdir()
