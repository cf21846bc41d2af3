"""Membership: which processes belong to a slot, told by cookie, session, group and cgroup.

A process that was detached on purpose belongs to none. Reads /proc; signals nobody.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from reconciler.host.processes import ProcessStat, environment_block, parse_environment, read_stat
from reconciler.model.names import DeployId, ProcessName


@dataclass(frozen=True, slots=True)
class Leader:
    """The process that an instance began with; its id is that of its session and group too."""

    process: ProcessName
    index: int
    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A live process. `deploy` is its cookie, and with `app`, `process` and `port` it is empty for
    one that is of no slot."""

    stat: ProcessStat
    deploy: str = ""
    app: str = ""
    process: str = ""
    port: str = ""
    detached: bool = False

    @property
    def pid(self) -> int:
        return self.stat.pid


@dataclass(frozen=True, slots=True)
class Belonging:
    """What tells a slot's processes. `cgroup` holds the ids found in its cgroup."""

    deploy_id: DeployId
    leaders: tuple[Leader, ...] = ()
    cgroup: frozenset[int] = frozenset()


def scan() -> tuple[Seen, ...]:
    """Returns every live process of this host but kernel threads and ourselves."""
    return tuple(
        seen
        for name in os.listdir("/proc")
        if name.isdigit() and int(name) != os.getpid() and (seen := _look(int(name))) is not None
    )


def _look(pid: int) -> Seen | None:
    stat = read_stat(pid)
    if stat is None or not stat.alive or stat.kernel_thread:
        return None
    block = environment_block(pid)
    if b"AUTOPILOT_" not in block:
        return Seen(stat)
    values = parse_environment(block)
    deploy = values.get(b"AUTOPILOT_DEPLOY_ID", b"").decode("ascii", "replace")
    return Seen(
        stat,
        deploy=deploy,
        app=values.get(b"AUTOPILOT_APP", b"").decode("ascii", "replace"),
        process=values.get(b"AUTOPILOT_PROCESS", b"").decode("ascii", "replace"),
        port=values.get(b"PORT", b"").decode("ascii", "replace"),
        detached=not deploy and b"AUTOPILOT_DETACHED" in values,
    )


def members(
    everyone: Sequence[Seen],
    slot: Belonging,
    processes: Collection[ProcessName] | None = None,
) -> tuple[Seen, ...]:
    """Returns the processes of the slot, or only those of some of its processes by name."""
    wanted = [one for one in slot.leaders if processes is None or one.process in processes]
    sessions = _own_sessions(everyone, slot.deploy_id, wanted)

    def belongs(seen: Seen) -> bool:
        if seen.detached:
            return False
        if seen.deploy == slot.deploy_id:
            return processes is None or seen.process in processes
        if seen.stat.session in sessions or seen.stat.group in sessions:
            return True
        return processes is None and seen.pid in slot.cgroup

    return tuple(seen for seen in everyone if belongs(seen))


def _own_sessions(
    everyone: Sequence[Seen], deploy_id: DeployId, leaders: Iterable[Leader]
) -> frozenset[int]:
    """Returns the ids of sessions that are still the leaders' own.

    An id is not reused while its session lasts, but once the leader is gone only a member with
    the cookie proves that this is the same session and no stranger's.
    """
    alive = {seen.pid: seen.stat.started for seen in everyone}
    proved = {
        number
        for seen in everyone
        if seen.deploy == deploy_id
        for number in (seen.stat.session, seen.stat.group)
    }

    def own(leader: Leader) -> bool:
        started = alive.get(leader.pid)
        return leader.pid in proved if started is None else started == leader.started

    return frozenset(leader.pid for leader in leaders if own(leader))
