"""Draining: what becomes of every slot that is neither live nor the candidate."""

from __future__ import annotations

from datetime import timedelta

from reconciler.model.actions import (
    Advance,
    DrainSlot,
    EmptyTrash,
    PrepareSlot,
    RetireSlot,
    RunProbe,
    StopProcesses,
    StopSlot,
    WarmSlot,
)
from reconciler.model.deploys import Phase
from reconciler.model.desired import When
from reconciler.model.instants import Instant
from reconciler.model.names import WEB, SlotName
from reconciler.model.observed import ObservedSlot, SlotRecord
from reconciler.planning.candidate import GRACE, SOON, UNREAPED_AFTER
from reconciler.planning.draft import Draft
from reconciler.planning.standing import Standing, is_warm, stopping, was_promoted

SAMPLE = timedelta(milliseconds=100)
LOOK_AGAIN = timedelta(seconds=1)
# For an app without a contract: it was removed, and its connections still count.
DRAIN = timedelta(seconds=10)


def clear_slots(standing: Standing, draft: Draft) -> None:
    """Drains what served, keeps previous warm for as long as it may be needed, stops the rest."""
    spared = _spared(standing, draft)
    for slot in standing.seen.slots:
        if slot.record is None or slot.name in spared:
            continue
        _clear(standing, slot, slot.record, draft)


def _spared(standing: Standing, draft: Draft) -> frozenset[SlotName]:
    """Live and candidate, also the one that this pass has just chosen, and, until the switch is
    confirmed, the slot that the route may have to go back to."""
    live, candidate, records = standing.live, standing.candidate, standing.seen.records
    spared = {slot.name for slot in (live, candidate) if slot is not None}
    for step in draft.steps:
        if isinstance(step.action, PrepareSlot | WarmSlot | RunProbe):
            spared.add(step.action.slot)
    if standing.running and standing.running.phase is Phase.SWITCHING and records.promotions:
        spared.add(records.promotions[-1].slot)
    return frozenset(spared)


def _clear(standing: Standing, slot: ObservedSlot, record: SlotRecord, draft: Draft) -> None:
    if slot.vacant:
        if not record.vacated:
            draft.do(RetireSlot(slot.name), f"nothing of {slot.name} is left")
        return
    if record.term_at is not None:
        _await_end(standing, slot, record, record.term_at, draft)
    elif not was_promoted(standing.seen, record):
        draft.do(StopSlot(slot.name), f"{slot.name} holds what never went live")
        draft.wait(f"{slot.name} is stopping", draft.now + GRACE)
    else:
        _stop_other_processes(standing, slot, draft)
        if not record.drained:
            _drain(standing, slot, record, draft)
        elif (until := _warm_until(standing, slot)) is not None and not draft.now.reached(until):
            draft.look_at(until)
        else:
            draft.do(StopSlot(slot.name), f"{slot.name} is drained and not needed any more")
            draft.wait(f"{slot.name} is stopping", draft.now + SOON)


def _warm_until(standing: Standing, slot: ObservedSlot) -> Instant | None:
    if standing.previous is None or standing.previous.name != slot.name or not is_warm(slot):
        return None
    contract = standing.seen.running_contract
    if contract is not None and contract.slots <= 2 and standing.running is not None:
        # With two slots previous is the only place a candidate can take.
        return None
    return standing.warm_until()


def _stop_other_processes(standing: Standing, slot: ObservedSlot, draft: Draft) -> None:
    """Processes that take work start after the switch, and the old ones stop at it."""
    policy = standing.policy
    if policy is None:
        return
    kept = {WEB, *(process.name for process in policy.started(When.BEFORE)), *stopping(slot)}
    left = tuple(sorted({one.process for one in slot.instances if one.up} - kept))
    if left:
        draft.do(
            StopProcesses(slot.name, left, grace=policy.drain_timeout),
            f"{', '.join(left)} of {slot.name} make way for those of live",
        )


def _drain(standing: Standing, slot: ObservedSlot, record: SlotRecord, draft: Draft) -> None:
    """No inbound connection in two samples 100 ms apart, or the deadline, whichever is first."""
    since = record.drain_since
    if since is None or since.boot_id != draft.now.boot_id:
        draft.do(DrainSlot(slot.name, draft.now), f"{slot.name} does not get new requests any more")
        _note_draining(standing, draft)
        draft.wait(f"{slot.name} is draining", draft.now + SOON)
        return
    deadline = since + _drain_timeout(standing)
    if draft.now.reached(deadline):
        draft.do(DrainSlot(slot.name, since, drained=True), f"the drain of {slot.name} timed out")
        return
    quiet = record.quiet_since
    if slot.connections:
        if quiet is not None:
            draft.do(DrainSlot(slot.name, since), f"{slot.name} has connections again")
        draft.wait(f"{slot.name} has {slot.connections} connections", draft.now + SAMPLE)
    elif quiet is None or quiet.boot_id != draft.now.boot_id:
        draft.do(DrainSlot(slot.name, since, draft.now), f"{slot.name} has no connection")
        draft.wait(f"{slot.name} is draining", draft.now + SAMPLE)
    elif draft.now.since(quiet) >= SAMPLE:
        draft.do(DrainSlot(slot.name, since, quiet, drained=True), f"{slot.name} is drained")
    else:
        draft.wait(f"{slot.name} is draining", quiet + SAMPLE)


def _note_draining(standing: Standing, draft: Draft) -> None:
    deploy = standing.seen.records.live_deploy
    if deploy is not None and deploy.entered(Phase.DRAINING) is None:
        draft.do(Advance(deploy.id, Phase.DRAINING), "what it replaced is draining")


def _drain_timeout(standing: Standing) -> timedelta:
    return standing.policy.drain_timeout if standing.policy else DRAIN


def _await_end(
    standing: Standing, slot: ObservedSlot, record: SlotRecord, term_at: Instant, draft: Draft
) -> None:
    """Until its drain would have ended the app may finish by itself; then all that is left dies."""
    deadline = term_at + GRACE
    since = record.drain_since
    if since is not None and since.boot_id == draft.now.boot_id:
        grace_of_drain = since + _drain_timeout(standing)
        deadline = max(deadline, grace_of_drain, key=lambda moment: moment.micros)
    if record.kill_at is not None and draft.now.since(record.kill_at) >= UNREAPED_AFTER:
        draft.stall(
            "Unkillable",
            f"some processes of {slot.name} do not end when they are killed (see `ps`, state D); "
            "the slot is not used until they do",
        )
        draft.wait(f"{slot.name} cannot be emptied", draft.now + LOOK_AGAIN)
    elif term_at.boot_id != draft.now.boot_id or draft.now.reached(deadline):
        draft.do(StopSlot(slot.name, kill=True), f"{slot.name} did not stop in its time")
        draft.wait(f"{slot.name} is being killed", draft.now + SOON)
    else:
        draft.wait(
            f"{slot.name} is stopping",
            min(deadline, draft.now + SAMPLE, key=lambda moment: moment.micros),
        )


def empty_trash(standing: Standing, draft: Draft) -> None:
    """Deletes what was renamed away, once the bake is over and no deploy runs."""
    at_rest = standing.running is None and standing.baking_until() is None
    under_way = any("trash" in slot.busy for slot in standing.seen.slots)
    if at_rest and not under_way and any(slot.has_trash for slot in standing.seen.slots):
        draft.do(EmptyTrash(), "nothing is being checked out, so the trash can go")
