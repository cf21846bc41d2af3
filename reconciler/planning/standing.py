"""Standing: the roles of an app's slots and the contract in force, derived anew in every pass."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.model.deploys import Deploy, Promotion, WishKind
from reconciler.model.desired import AppContract, DesiredApp
from reconciler.model.instants import Instant
from reconciler.model.names import SLOT_NAMES, WEB, ProcessName, SlotName
from reconciler.model.observed import (
    ObservedApp,
    ObservedSlot,
    PointsTo,
    SlotRecord,
    Stage,
    UnknownPointer,
)
from reconciler.planning.history import previous, tenants


@dataclass(frozen=True, slots=True)
class Standing:
    """An app with its roles worked out. `policy` is the contract whose in-place keys apply now."""

    app: DesiredApp
    seen: ObservedApp
    now: Instant
    live: ObservedSlot | None
    previous: ObservedSlot | None
    candidate: ObservedSlot | None
    policy: AppContract | None

    @property
    def running(self) -> Deploy | None:
        return self.seen.records.running

    @property
    def held(self) -> bool:
        wish = self.seen.records.wish
        return wish is not None and wish.holds

    def baking_until(self) -> Instant | None:
        """When the watch after the last promotion ends; None when there is none (any more)."""
        deploy = self.seen.records.live_deploy
        promoted = deploy.promoted if deploy else None
        if deploy is None or promoted is None or self.policy is None or deploy.verdict("bake"):
            return None
        if promoted.instant.boot_id != self.now.boot_id:
            return None
        return promoted.instant + self.policy.bake

    def warm_until(self) -> Instant | None:
        """Until when previous stays warm, None when that has no meaning in this boot."""
        deploy = self.seen.records.live_deploy
        promoted = deploy.promoted if deploy else None
        if promoted is None or self.policy is None:
            return None
        if promoted.instant.boot_id != self.now.boot_id:
            return None
        return promoted.instant + self.policy.warm_for


def stand(app: DesiredApp, seen: ObservedApp, now: Instant) -> Standing:
    running = seen.records.running
    live = seen.live
    held = seen.records.wish is not None and seen.records.wish.holds
    recorded = seen.live_contract
    return Standing(
        app=app,
        seen=seen,
        now=now,
        live=live,
        previous=slot_of(seen, previous(seen.records.promotions)),
        candidate=seen.slot(running.slot) if running else None,
        policy=(recorded if held and recorded else app.contract) or recorded,
    )


def slot_of(seen: ObservedApp, promotion: Promotion | None) -> ObservedSlot | None:
    """Returns the slot that still holds what was promoted then, None when it has been reused."""
    if promotion is None:
        return None
    slot = seen.slot(promotion.slot)
    if slot is None or slot.record is None:
        return None
    if seen.pointer == PointsTo(slot.name):
        return None
    return slot if slot.record.deploy_id in tenants(seen.records.promotions, promotion) else None


def was_promoted(seen: ObservedApp, record: SlotRecord) -> bool:
    return any(one.deploy_id == record.deploy_id for one in seen.records.promotions)


def is_warm(slot: ObservedSlot) -> bool:
    """Whether the slot could serve at once: started, never told to stop, its web process up."""
    web = slot.instance(WEB)
    return slot.record is not None and not slot.record.cold and web is not None and web.up


def stopping(slot: ObservedSlot) -> frozenset[ProcessName]:
    """Returns the processes that were told to stop and are killed when their grace is over.

    One that is started again before then would be killed as well: the kill goes by name.
    """
    told = (kind.removeprefix("stop ") for kind in slot.busy if kind.startswith("stop "))
    return frozenset(ProcessName(name) for names in told for name in names.split(","))


def choose_slot(standing: Standing, contract: AppContract) -> SlotName | None:
    """Returns the slot a deploy takes: empty, failed, or the oldest cold one; None is to wait.

    Never live. Never previous while the candidate is unproved, unless two slots are all there are.
    """
    names = SLOT_NAMES[: contract.slots]
    taken = {standing.live.name} if standing.live else set()
    if standing.previous and contract.slots > 2:
        taken.add(standing.previous.name)
    free = [
        slot
        for slot in standing.seen.slots
        if slot.name in names and slot.name not in taken and slot.vacant and not slot.busy
    ]
    return min(free, key=lambda slot: _preference(standing, slot)).name if free else None


def _preference(standing: Standing, slot: ObservedSlot) -> tuple[int, int, str]:
    record = slot.record
    if record is None:
        return (0, 0, slot.name)
    if record.stage is not Stage.PREPARED or not was_promoted(standing.seen, record):
        return (1, 0, slot.name)
    seqs = [
        one.seq for one in standing.seen.records.promotions if one.deploy_id == record.deploy_id
    ]
    return (2, max(seqs), slot.name)


def pointer_problem(seen: ObservedApp) -> str:
    """Returns why the pointer cannot be trusted, empty when it can."""
    match seen.pointer:
        case UnknownPointer(text):
            return text
        case PointsTo(slot):
            found = seen.slot(slot)
            return "" if found and found.record else f"{slot}, which has no record"
        case _:
            return ""


def warm_target(standing: Standing, deploy: Deploy) -> ObservedSlot | None:
    """Returns the slot that a rollback can switch to without starting anything."""
    slot = goal_slot(standing, deploy)
    return slot if slot is not None and is_warm(slot) else None


def goal_slot(standing: Standing, deploy: Deploy) -> ObservedSlot | None:
    """Returns the slot that still holds what a rollback goes back to, warm or cold."""
    if deploy.request.kind is WishKind.DEPLOY:
        return None
    promotions = standing.seen.records.promotions
    goal = next(
        (one for one in reversed(promotions) if one.deploy_id == deploy.request.rolls_back_to), None
    )
    return slot_of(standing.seen, goal)


def intact(slot: ObservedSlot, deploy: Deploy, boot_id: str) -> bool:
    """Whether the slot's files are already what a rollback wants, set up and of this boot."""
    record = slot.record
    return (
        deploy.request.kind is not WishKind.DEPLOY
        and record is not None
        and record.stage is Stage.PREPARED
        and record.boot_id == boot_id
        and record.target.revision == deploy.target.revision
        and record.target.contract_digest == deploy.target.contract_digest
    )
