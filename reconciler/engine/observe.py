"""Observe: look at one app on this host, in the store and at its branch. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reconciler.engine.effects import Effects, recorded_contract
from reconciler.model.deploys import SeenHead
from reconciler.model.desired import AppContract, DesiredApp
from reconciler.model.errors import UnknownHistoryError, UnknownRevisionError
from reconciler.model.names import SLOT_NAMES, AppName, Revision
from reconciler.model.observed import ObservedApp, ObservedHead, ObservedSlot
from reconciler.planning.routing import is_routed
from reconciler.planning.standing import stand


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all apps share: the heads as last read, and why repository, disk or proxy fail now."""

    heads: Mapping[str, Revision] = field(default_factory=dict)
    human: str | None = None
    source_problem: str = ""
    disk_problem: str = ""
    proxy_problem: str = ""

    def head_of(self, contract: AppContract) -> tuple[str, Revision] | None:
        branch = contract.branch or self.human
        if branch is None or branch not in self.heads:
            return None
        return branch, self.heads[branch]


async def observe(
    app: DesiredApp, around: Surroundings, effects: Effects, *, known: ObservedApp | None = None
) -> ObservedApp:
    """Looks at one app. Raises what the ports raise; a pass that cannot see does nothing.

    With `known` the head is taken from that look: Git may be busy, and people do not wait for it.
    """
    name = app.key.app
    found = await effects.slots.observe(name, SLOT_NAMES)
    slots = tuple(_with_work(slot, name, effects) for slot in found)
    pointer = await effects.proxy.pointer(name)
    records = await effects.store.records(name)
    seen = ObservedApp(app.key, pointer, slots, records)
    live = seen.live
    live_contract = recorded_contract(live.record.contract) if live and live.record else None
    running = records.running
    proxy = await effects.proxy.observe()
    seen = replace(seen, live_contract=live_contract)
    routing = stand(app, seen, effects.clock.now()).policy
    head = known.head if known else await _head(app, around, records.seen_head, effects)
    return replace(
        seen,
        head=head,
        routed=routing is None or is_routed(name, routing, proxy),
        running_contract=recorded_contract(running.request.contract) if running else None,
        unenforced=effects.slots.unenforced(routing) if routing else (),
        source_problem=around.source_problem,
        disk_problem=around.disk_problem,
        proxy_problem=around.proxy_problem,
    )


def _with_work(slot: ObservedSlot, app: AppName, effects: Effects) -> ObservedSlot:
    work = effects.work.busy(app, slot.name)
    return replace(slot, busy=slot.busy | work) if work else slot


async def _head(
    app: DesiredApp, around: Surroundings, seen: SeenHead | None, effects: Effects
) -> ObservedHead | None:
    contract = app.contract
    found = around.head_of(contract) if contract is not None else None
    if contract is None or found is None:
        return None
    branch, revision = found
    if seen is None or seen.branch != branch:
        return ObservedHead(branch, revision, subject=await effects.source.subject(revision))
    if seen.revision == revision:
        return ObservedHead(branch, revision)
    return ObservedHead(
        branch,
        revision,
        descends=await _descends(revision, seen.revision, effects),
        touches_app=await _touches(contract, seen.revision, revision, effects),
        subject=await effects.source.subject(revision),
    )


async def _descends(head: Revision, seen: Revision, effects: Effects) -> bool:
    try:
        return await effects.source.descends(head, seen)
    except (UnknownHistoryError, UnknownRevisionError):
        # A shallow clone cannot tell; a fetched head is taken at its word.
        return True


async def _touches(contract: AppContract, seen: Revision, head: Revision, effects: Effects) -> bool:
    try:
        return await effects.source.touches(seen, head, contract.path, contract.watch_paths)
    except (UnknownHistoryError, UnknownRevisionError):
        return True
