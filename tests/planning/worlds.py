"""Worlds: frozen data for the planner, built with few words. One app, three slots, one boot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from reconciler.manifests.contract import contract_of
from reconciler.model.actions import Action, NoteConditions, Plan
from reconciler.model.canonical import Json
from reconciler.model.conditions import Condition, ConditionType
from reconciler.model.deploys import (
    Deploy,
    DeployRequest,
    Phase,
    Progress,
    Promotion,
    Quarantined,
    SeenHead,
    SeenInputs,
    Trigger,
    Verdict,
    VerdictKind,
    VerdictResult,
    Wish,
    WishKind,
    WishStatus,
)
from reconciler.model.desired import AppContract, DesiredApp, Target
from reconciler.model.instants import Instant
from reconciler.model.names import (
    WEB,
    AppKey,
    AppName,
    DeployId,
    HostId,
    ProcessName,
    Revision,
    SlotName,
    WishId,
)
from reconciler.model.observed import (
    AppRecords,
    Health,
    Intent,
    NoPointer,
    ObservedApp,
    ObservedHead,
    ObservedInstance,
    ObservedSlot,
    Pointer,
    PointsTo,
    SlotRecord,
    Stage,
    Start,
)

HOST = HostId("host-1")
SHOP = AppName("shop")
KEY = AppKey(HOST, SHOP)
BOOT = "boot-1"
LAST_BOOT = "boot-0"
NOW = Instant(BOOT, 7_200_000_000)
NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
A, B, C, D = (Revision(letter * 40) for letter in "abcd")
SLOT_A, SLOT_B, SLOT_C, SLOT_D = (SlotName(f"deploy-{letter}") for letter in "abcd")
WORKER = ProcessName("worker")


def ago(seconds: float) -> Instant:
    return NOW + timedelta(seconds=-seconds)


def later(seconds: float) -> Instant:
    return NOW + timedelta(seconds=seconds)


def contract(**document: Json) -> AppContract:
    if "processes" not in document:
        document = {"start_command": "./serve", **document}
    return contract_of(SHOP, document)


PLAIN = contract()
WITH_WORKER = contract(processes={"web": "./serve", "worker": "./work"})
WORKER_ONLY = contract(processes={"worker": "./work"})


def target(revision: Revision, of: AppContract = PLAIN, secrets: str = "") -> Target:
    return Target(revision, of.digest, secrets)


def desired(of: AppContract | None = PLAIN, **fields: object) -> DesiredApp:
    return replace(DesiredApp(KEY, of), **fields)  # type: ignore[arg-type]


def request(
    number: int,
    revision: Revision,
    kind: WishKind = WishKind.DEPLOY,
    of: AppContract = PLAIN,
    **fields: object,
) -> DeployRequest:
    made = DeployRequest(
        id=DeployId(f"deploy-{number}"),
        wish_id=WishId(f"wish-{number}"),
        host=HOST,
        app=SHOP,
        kind=kind,
        target=target(revision, of),
        contract=of.text,
        actor="human:ada",
        trigger=Trigger.PUSH if kind is WishKind.DEPLOY else Trigger.ROLLBACK,
        requested_at=NOON,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def step(
    phase: Phase,
    at: Instant = NOW,
    slot: SlotName | None = None,
    reason: str = "",
    detail: str = "",
    log_tail: str = "",
) -> Progress:
    wall = NOON + timedelta(microseconds=at.micros - NOW.micros)
    return Progress(phase, wall, at, slot, reason, detail, log_tail)


def deploy(
    asked: DeployRequest, *progress: Progress, verdicts: Sequence[Verdict] = (), seq: int = 1
) -> Deploy:
    return Deploy(asked, seq, (step(Phase.QUEUED, ago(1)), *progress), tuple(verdicts))


def verdict(
    name: str, result: VerdictResult = VerdictResult.PASSED, reason: str = "", detail: str = ""
) -> Verdict:
    kind = VerdictKind.BAKE if name == "bake" else VerdictKind.PROBE
    return Verdict(name, kind, result, reason, detail)


def failed(name: str, reason: str = "", detail: str = "") -> Verdict:
    return verdict(name, VerdictResult.FAILED, reason, detail)


def wish(asked: DeployRequest, status: WishStatus = WishStatus.OPEN, **fields: object) -> Wish:
    made = Wish(
        id=asked.wish_id,
        seq=1,
        app=SHOP,
        kind=asked.kind,
        target=asked.target,
        contract=asked.contract,
        status=status,
        trigger=asked.trigger,
        actor=asked.actor,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def promotion(asked: DeployRequest, slot: SlotName, seq: int, at: Instant = NOW) -> Promotion:
    return Promotion(
        seq, asked.id, slot, asked.target, asked.contract, asked.kind, asked.rolls_back_to, at
    )


def quarantined(
    revision: Revision, contract_digest: str = "", secrets_digest: str = "", reason: str = "bad"
) -> Quarantined:
    return Quarantined(SHOP, revision, contract_digest, secrets_digest, reason, "human:ada", NOON)


def record(asked: DeployRequest, stage: Stage = Stage.PREPARED, **fields: object) -> SlotRecord:
    made = SlotRecord(asked.id, asked.target, asked.contract, BOOT, stage)
    return replace(made, **fields)  # type: ignore[arg-type]


def started(of: SlotRecord, at: Instant, *processes: ProcessName) -> SlotRecord:
    """Returns the record with those processes (`web` when none are named) started then."""
    names = processes or (WEB,)
    intents = tuple(Intent(name, 0, 20_000 + n, 0, at) for n, name in enumerate(names))
    return replace(of, intents=intents, starts=tuple(Start(name, at) for name in names))


def instance(
    process: ProcessName = WEB, *, up: bool = True, since: Instant = NOW, status: int | None = None
) -> ObservedInstance:
    address = "127.0.0.1:20000" if process == WEB else ""
    return ObservedInstance(process, 0, address, "", up, since, status, pid=100 if up else None)


def slot(name: SlotName, of: SlotRecord | None = None, **fields: object) -> ObservedSlot:
    return replace(ObservedSlot(name, of), **fields)  # type: ignore[arg-type]


HEALTHY = Health(ok=True, failures=0, checked_at=ago(1))
UNHEALTHY = Health(ok=False, failures=3, checked_at=ago(1), reason="bad-status: status 500")


def serving(
    name: SlotName,
    asked: DeployRequest,
    *,
    since: Instant | None = None,
    processes: Sequence[ProcessName] = (WEB,),
    health: Health = HEALTHY,
    **fields: object,
) -> ObservedSlot:
    """Returns a slot whose processes are up, healthy and published."""
    begun = since or ago(100)
    made = ObservedSlot(
        name,
        started(record(asked), begun, *processes),
        tuple(instance(process, since=begun) for process in processes),
        vacant=False,
        published="127.0.0.1:20000" if WEB in processes else "",
        health=health,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def noted(one: ObservedSlot, **fields: object) -> ObservedSlot:
    """Returns the slot with other fields in its record."""
    assert one.record is not None
    return replace(one, record=replace(one.record, **fields))  # type: ignore[arg-type]


def down(one: ObservedSlot) -> ObservedSlot:
    """Returns the slot with every process ended."""
    ended = tuple(replace(each, up=False, exit_status=1, pid=None) for each in one.instances)
    return replace(one, instances=ended, vacant=True)


def observed(
    pointer: Pointer, slots: Sequence[ObservedSlot], records: AppRecords, **fields: object
) -> ObservedApp:
    names = (SLOT_A, SLOT_B, SLOT_C)
    missing = tuple(ObservedSlot(name) for name in names if name not in {s.name for s in slots})
    ordered = tuple(sorted((*slots, *missing), key=lambda one: one.name))
    seen = ObservedApp(KEY, pointer, ordered, records)
    contracts = {"live_contract": PLAIN if seen.live else None}
    contracts["running_contract"] = PLAIN if records.running else None
    return replace(seen, **{**contracts, **fields})  # type: ignore[arg-type]


def records_of(
    *, of: AppContract = PLAIN, head: Revision | None = A, **fields: object
) -> AppRecords:
    """Returns records that have taken notice of the head, the contract and the secrets."""
    made = AppRecords(
        seen_head=SeenHead("main", head) if head else None,
        seen_inputs=SeenInputs(of.digest, ""),
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def head(revision: Revision = A, **fields: object) -> ObservedHead:
    return replace(ObservedHead("main", revision), **fields)  # type: ignore[arg-type]


FIRST, SECOND, THIRD = request(1, A), request(2, B), request(3, C)
LIVE_FOR = 100.0


def live_deploy(asked: DeployRequest, at: SlotName, *, seconds_ago: float = LIVE_FOR) -> Deploy:
    """Returns a deploy that went live so long ago; after its bake it has the verdict as well."""
    moment = ago(seconds_ago)
    over = seconds_ago >= 30
    aside = (step(Phase.BAKING, moment, at), step(Phase.DRAINING, moment, at))
    return Deploy(
        asked,
        1,
        (step(Phase.QUEUED, moment), step(Phase.LIVE, moment, at), *aside),
        (verdict("health"), *([verdict("bake")] if over else [])),
    )


def after_first(**fields: object) -> ObservedApp:
    """Returns the world in which A has been live in deploy-a for a while and all is well."""
    records = records_of(
        wish=wish(FIRST, WishStatus.MET),
        promotions=(promotion(FIRST, SLOT_A, 1, ago(LIVE_FOR)),),
        live_deploy=live_deploy(FIRST, SLOT_A),
        last_deploy=live_deploy(FIRST, SLOT_A),
    )
    made = observed(PointsTo(SLOT_A), [serving(SLOT_A, FIRST)], records)
    return replace(made, **fields)  # type: ignore[arg-type]


def after_second(
    *, seconds_ago: float = LIVE_FOR, before: ObservedSlot | None = None
) -> ObservedApp:
    """Returns the world in which B went live in deploy-b so long ago and A was live before it."""
    alive = live_deploy(SECOND, SLOT_B, seconds_ago=seconds_ago)
    records = records_of(
        head=B,
        wish=wish(SECOND, WishStatus.MET),
        promotions=(
            promotion(FIRST, SLOT_A, 1, ago(1000)),
            promotion(SECOND, SLOT_B, 2, ago(seconds_ago)),
        ),
        live_deploy=alive,
        last_deploy=alive,
    )
    old = before or noted(down(serving(SLOT_A, FIRST, published="")), vacated=True)
    return observed(PointsTo(SLOT_B), [old, serving(SLOT_B, SECOND)], records)


def with_slots(seen: ObservedApp, *slots: ObservedSlot) -> ObservedApp:
    named = {one.name: one for one in slots}
    return replace(seen, slots=tuple(named.get(one.name, one) for one in seen.slots))


def with_records(seen: ObservedApp, **fields: object) -> ObservedApp:
    return replace(seen, records=replace(seen.records, **fields))  # type: ignore[arg-type]


def running(seen: ObservedApp, one: Deploy, of: AppContract = PLAIN) -> ObservedApp:
    """Returns the world with that deploy under way and its wish open."""
    asked = wish(one.request)
    changed = with_records(seen, running=one, last_deploy=one, wish=asked)
    return replace(changed, running_contract=of)


def settled(seen: ObservedApp, plan: Plan) -> ObservedApp:
    """Returns the world with the plan's conditions recorded, so that they are not noted again."""
    return with_records(seen, conditions=plan.conditions)


def actions(plan: Plan) -> list[Action]:
    """Returns what the plan does, its notes of conditions left out."""
    return [one.action for one in plan.steps if not isinstance(one.action, NoteConditions)]


def stalled(plan: Plan) -> Condition:
    return next(one for one in plan.conditions if one.type is ConditionType.STALLED)


NEVER_LIVE = observed(NoPointer(), [], AppRecords())
