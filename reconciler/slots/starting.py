"""Starting: what to spawn in a slot, on which ports, and the intent that comes before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

from reconciler.model.errors import LaunchError
from reconciler.model.instants import Instant
from reconciler.model.names import WEB, ProcessName
from reconciler.model.observed import Intent, SlotRecord, Start
from reconciler.ports import Clock, Launch
from reconciler.slots import notes
from reconciler.slots.children import Children
from reconciler.slots.environment import Identity
from reconciler.slots.instances import Instances, Look
from reconciler.slots.launcher import Launcher, Order
from reconciler.slots.layout import SlotPaths
from reconciler.slots.ports import Ports
from reconciler.slots.records import STARTS_KEPT, Records, forget_health
from reconciler.slots.users import AppUser


@dataclass(frozen=True, slots=True)
class _Wanted:
    process: ProcessName
    index: int
    command: str


class Starter:
    def __init__(
        self,
        records: Records,
        ports: Ports,
        launcher: Launcher,
        children: Children,
        instances: Instances,
        clock: Clock,
    ) -> None:
        self._records = records
        self._ports = ports
        self._launcher = launcher
        self._children = children
        self._instances = instances
        self._clock = clock

    async def start(
        self, launch: Launch, paths: SlotPaths, record: SlotRecord, user: AppUser
    ) -> None:
        """Starts what is not up yet. Raises PortsExhaustedError, LaunchError, DiskPressureError."""
        look = Look()
        wanted = [one for one in _wanted(launch) if not self._is_up(launch, record, one, look)]
        if not wanted:
            return
        if not launch.restart:
            self._launcher.require_space()
        now = self._clock.now()
        taken: list[int] = []
        try:
            intents = [self._intend(launch, record, one, now, taken) for one in wanted]
            await asyncio.to_thread(self._record, launch, intents)
        except BaseException:
            self._ports.release(taken)
            raise
        if any(one.process == WEB for one in wanted):
            forget_health(paths)
        for one, intent in zip(wanted, intents, strict=True):
            self._spawn(launch, paths, one, intent, user)

    def _is_up(self, launch: Launch, record: SlotRecord, one: _Wanted, look: Look) -> bool:
        intent = _intent_of(record, one)
        if intent is None:
            return False
        return self._instances.observe(launch.app, launch.slot, record, intent, look).up

    def _intend(
        self, launch: Launch, record: SlotRecord, one: _Wanted, now: Instant, taken: list[int]
    ) -> Intent:
        old = _intent_of(record, one)
        internal = one.process == WEB and launch.contract.internal_port is not None
        return Intent(
            process=one.process,
            index=one.index,
            port=self._port(old.port if old else 0, taken),
            internal_port=self._port(old.internal_port if old else 0, taken) if internal else 0,
            at=now,
        )

    def _port(self, before: int, taken: list[int]) -> int:
        """A restart keeps its port, so that the route need not change, when it is free."""
        if before and self._ports.retake(before):
            return before
        port = self._ports.take()
        taken.append(port)
        return port

    def _record(self, launch: Launch, intents: list[Intent]) -> None:
        def intend(record: SlotRecord) -> SlotRecord:
            fresh = {(one.process, one.index) for one in intents}
            others = [one for one in record.intents if (one.process, one.index) not in fresh]
            started = [
                Start(name, intents[0].at) for name in dict.fromkeys(one.process for one in intents)
            ]
            return replace(
                record,
                deploy_id=launch.deploy_id,
                intents=(*others, *intents),
                starts=(*record.starts, *started)[-STARTS_KEPT:],
                drain_since=None,
                quiet_since=None,
                drained=False,
                term_at=None,
                kill_at=None,
                vacated=False,
            )

        if self._records.change(launch.app, launch.slot, intend) is None:
            raise LaunchError(f"{launch.slot} of {launch.app} has lost its record")

    def _spawn(
        self, launch: Launch, paths: SlotPaths, one: _Wanted, intent: Intent, user: AppUser
    ) -> None:
        notes.forget(paths, one.process, one.index)
        identity = Identity(
            launch.app,
            launch.slot,
            launch.deploy_id,
            launch.revision,
            one.process,
            intent.port,
            intent.internal_port,
        )
        order = Order(identity, one.index, one.command, launch.contract, user, launch.environment)
        launched = self._launcher.launch(order)
        key = (launch.app, launch.slot, one.process, one.index)
        self._children.add(key, launched.leader, launched.spawned)


def _wanted(launch: Launch) -> Iterator[_Wanted]:
    for spec in launch.contract.processes:
        if spec.name in launch.processes:
            for index in range(spec.count):
                yield _Wanted(spec.name, index, spec.command)


def _intent_of(record: SlotRecord, one: _Wanted) -> Intent | None:
    return next(
        (
            intent
            for intent in record.intents
            if (intent.process, intent.index) == (one.process, one.index)
        ),
        None,
    )
