"""Observation: slots as found at this moment. Changes nothing but what is watched and locked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reconciler.host import sockets
from reconciler.model.names import WEB, AppName, SlotName
from reconciler.model.observed import ObservedSlot, SlotRecord
from reconciler.slots.bins import Bins
from reconciler.slots.instances import Instances, Look
from reconciler.slots.layout import Layout
from reconciler.slots.ports import Ports
from reconciler.slots.preparation import Preparations
from reconciler.slots.records import Records, read_health


class Observer:
    def __init__(
        self,
        layout: Layout,
        records: Records,
        instances: Instances,
        ports: Ports,
        preparations: Preparations,
        bins: Bins,
        boot_id: str,
    ) -> None:
        self._layout = layout
        self._records = records
        self._instances = instances
        self._ports = ports
        self._preparations = preparations
        self._bins = bins
        self._boot_id = boot_id

    def observe(self, app: AppName, names: Sequence[SlotName]) -> tuple[ObservedSlot, ...]:
        look = Look()
        trash = self._bins.full(app)
        return tuple(self._slot(app, name, look, trash=trash) for name in names)

    def _slot(self, app: AppName, name: SlotName, look: Look, *, trash: bool) -> ObservedSlot:
        record = self._records.read(app, name)
        if record is None:
            return ObservedSlot(name, has_trash=trash)
        paths = self._layout.slot(app, name)
        busy = self._preparations.busy(app, name)
        instances = tuple(
            self._instances.observe(app, name, record, intent, look) for intent in record.intents
        )
        occupied = busy or any(one.up for one in instances)
        if not record.vacated:
            self._hold_ports(record)
        return ObservedSlot(
            name=name,
            record=record,
            instances=instances,
            vacant=not occupied
            and (record.vacated or not self._instances.members(app, name, record, look)),
            busy=frozenset({"prepare"} if busy else ()),
            published=_first_line(paths.addr / "web"),
            connections=_connections(record),
            health=read_health(paths, record, self._boot_id),
            has_trash=trash,
        )

    def _hold_ports(self, record: SlotRecord) -> None:
        """Locks the ports of what an earlier daemon started; nothing for those held already."""
        for intent in record.intents:
            self._ports.hold(intent.port)
            self._ports.hold(intent.internal_port)


def _connections(record: SlotRecord) -> int | None:
    """Counts what a draining slot still serves. By port and not by the process's descriptors:
    a connection that is not accepted yet belongs to no process."""
    if record.drain_since is None or record.term_at is not None:
        return None
    return sum(
        sockets.connections(intent.port) for intent in record.intents if intent.process == WEB
    )


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
