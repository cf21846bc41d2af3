"""Instances: the processes that a slot record means, as they are now. Starts and ends none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from reconciler.host.processes import is_alive
from reconciler.model.names import SETUP, AppName, ProcessName, SlotName
from reconciler.model.observed import Intent, ObservedInstance, SlotRecord
from reconciler.slots import cgroups, notes
from reconciler.slots.children import Children
from reconciler.slots.layout import Layout
from reconciler.slots.membership import Belonging, Leader, Seen, members, scan

Scan = Callable[[], Sequence[Seen]]


class Look:
    """One scan of all processes, made when first asked for and shared from then on."""

    def __init__(self) -> None:
        self._everyone: tuple[Seen, ...] | None = None

    def __call__(self) -> tuple[Seen, ...]:
        if self._everyone is None:
            self._everyone = scan()
        return self._everyone


class Instances:
    """Finds the process of each intent: our child, else by its own record, else by its cookie."""

    def __init__(self, layout: Layout, children: Children, boot_id: str) -> None:
        self._layout = layout
        self._children = children
        self._boot_id = boot_id

    def observe(
        self, app: AppName, slot: SlotName, record: SlotRecord, intent: Intent, look: Scan
    ) -> ObservedInstance:
        """Returns the instance as it is. One that is up is watched from now on; an end that
        nobody noticed yet is noted on the way."""
        paths = self._layout.slot(app, slot)
        key = (app, slot, intent.process, intent.index)
        leader = None if record.vacated else self.leader(app, slot, record, intent, look)
        up = leader is not None and is_alive(leader.pid, leader.started)
        if leader is not None and up:
            self._children.add(key, leader, None)
        else:
            self._children.reap(key)
        return ObservedInstance(
            process=intent.process,
            index=intent.index,
            address=address(intent.port),
            internal_address=address(intent.internal_port),
            up=up,
            since=intent.at,
            exit_status=None if up else notes.read_exit(paths, intent.process, intent.index),
            pid=leader.pid if leader is not None and up else None,
        )

    def leader(
        self, app: AppName, slot: SlotName, record: SlotRecord, intent: Intent, look: Scan
    ) -> Leader | None:
        """Returns the process an intent began with, alive or not; None when it left no trace."""
        if child := self._children.leader((app, slot, intent.process, intent.index)):
            return child
        paths = self._layout.slot(app, slot)
        if noted := notes.read_leader(paths, intent.process, intent.index, self._boot_id):
            return noted
        if intent.at.boot_id != self._boot_id:
            return None
        if notes.read_exit(paths, intent.process, intent.index) is not None:
            return None
        return _by_cookie(look(), record, intent)

    def members(
        self,
        app: AppName,
        slot: SlotName,
        record: SlotRecord,
        look: Scan,
        processes: Collection[ProcessName] | None = None,
    ) -> tuple[Seen, ...]:
        """Returns every process of the slot, or of some of its processes by name."""
        paths = self._layout.slot(app, slot)
        leaders = [self.leader(app, slot, record, intent, look) for intent in record.intents]
        leaders.append(notes.read_leader(paths, SETUP, 0, self._boot_id))
        belonging = Belonging(
            record.deploy_id,
            tuple(leader for leader in leaders if leader is not None),
            cgroups.processes(notes.read_group(paths)),
        )
        return members(look(), belonging, processes)

    def left(self, app: AppName, slot: SlotName, record: SlotRecord) -> tuple[Seen, ...]:
        """Returns the slot's processes, looked for twice before none is believed: in the middle of
        an exec a process shows no cookie."""
        return self.members(app, slot, record, Look()) or self.members(app, slot, record, Look())


def address(port: int) -> str:
    """Returns where an instance was told to listen; empty without a port."""
    return f"127.0.0.1:{port}" if port else ""


def _by_cookie(everyone: Sequence[Seen], record: SlotRecord, intent: Intent) -> Leader | None:
    """Finds a process whose daemon died before the launcher had recorded it."""
    for seen in everyone:
        if (
            seen.deploy == record.deploy_id
            and seen.process == intent.process
            and seen.port == str(intent.port)
            and seen.stat.session == seen.pid
        ):
            return Leader(intent.process, intent.index, seen.pid, seen.stat.started)
    return None
