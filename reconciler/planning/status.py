"""The JSON that people and programs read: deploys, slots and conditions as records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from reconciler.model.actions import (
    MakeWish,
    Plan,
    PrepareSlot,
    RemoveRoute,
    RetryWish,
    StartInstances,
    SwitchRoute,
)
from reconciler.model.canonical import Json
from reconciler.model.conditions import Condition, ConditionType
from reconciler.model.deploys import Deploy, Phase, Progress, WishStatus
from reconciler.model.desired import DesiredApp
from reconciler.model.instants import Instant
from reconciler.model.names import SLOT_NAMES, WEB
from reconciler.model.observed import ObservedApp, ObservedSlot, Stage
from reconciler.planning.history import previous
from reconciler.planning.release import serves
from reconciler.planning.standing import Standing, stand

# What ends a phase is the next phase; draining and baking run beside being live.
PASSING = (Phase.BAKING, Phase.DRAINING)


def timestamp(moment: datetime | None) -> str | None:
    """Returns RFC 3339 in UTC with milliseconds."""
    if moment is None:
        return None
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def deploy_record(deploy: Deploy) -> dict[str, Json]:
    """Returns a deploy as the contract's deploy record."""
    request = deploy.request
    finished = _finished(deploy)
    started = deploy.progress[0].at
    return {
        "success": deploy.promoted is not None and not deploy.phase.unsuccessful,
        "deploy_id": deploy.id,
        "app": request.app,
        "slot": deploy.slot,
        "commit": deploy.target.revision,
        "previous_commit": request.previous_commit,
        "phase": deploy.phase.value,
        "reason": deploy.reason or None,
        "detail": deploy.progress[-1].detail or None,
        "trigger": request.trigger.value,
        "actor": request.actor,
        "branch": request.branch,
        "message": request.message or None,
        "started_at": timestamp(started),
        "finished_at": timestamp(finished.at if finished else None),
        "duration_ms": _span_ms(deploy.progress[0], finished) if finished else None,
        "retry_of": request.retry_of,
        "phases": _phases(deploy.progress),
        "verdicts": [
            {
                "name": verdict.name,
                "kind": verdict.kind.value,
                "result": verdict.result.value,
                "reason": verdict.reason or None,
                "detail": verdict.detail or None,
            }
            for verdict in deploy.verdicts
        ],
    }


def _finished(deploy: Deploy) -> Progress | None:
    """The step with which the deploy was decided: going live, or ending without."""
    return deploy.promoted or next(
        (step for step in deploy.progress if step.phase.unsuccessful), None
    )


def _phases(steps: Sequence[Progress]) -> list[Json]:
    return [
        {
            "phase": step.phase.value,
            "started_at": timestamp(step.at),
            "duration_ms": _span_ms(step, following),
        }
        for step, following in zip(steps, [*steps[1:], None], strict=True)
    ]


def _span_ms(start: Progress, end: Progress | None) -> float | None:
    if end is None or start.instant.boot_id != end.instant.boot_id:
        return None
    return (end.instant.micros - start.instant.micros) / 1000


Look = tuple[DesiredApp, ObservedApp, Instant]


def app_status(
    look: Look | None,
    wall: datetime,
    recent: Sequence[Deploy] = (),
    conditions: Sequence[tuple[Condition, datetime]] = (),
) -> dict[str, Json]:
    """Returns the flat fields of `GET /status` for one app; all empty without a look.

    `wall` is the time of the look, by which boot-time instants are told to people.
    """
    if look is None:
        return _EMPTY.copy()
    standing = stand(*look)
    records = standing.seen.records
    live = standing.live
    back = previous(records.promotions) if live else None
    now_live = records.promotions[-1] if live and records.promotions else None
    return {
        **_EMPTY,
        "live_slot": live.name if live else None,
        "live_commit": live.record.target.revision if live and live.record else None,
        "previous_slot": standing.previous.name if standing.previous else None,
        "previous_commit": back.target.revision if back else None,
        "last_deploy_time": _live_since(records.live_deploy) if now_live else None,
        "healthy": serves(standing),
        "slots": [
            _slot(standing, slot, wall) for slot in standing.seen.slots if _shown(standing, slot)
        ],
        "conditions": [told_condition(condition, since) for condition, since in conditions],
        "deploy": deploy_record(records.running) if records.running else None,
        "queued": [deploy_record(records.queued)] if records.queued else [],
        "recent": [deploy_record(deploy) for deploy in recent],
        "quarantine": [
            {
                "commit": one.revision,
                "contract_digest": one.contract_digest or None,
                "reason": one.reason,
                "by": one.by,
                "since": timestamp(one.since),
            }
            for one in records.quarantine
        ],
    }


def told_condition(condition: Condition, since: datetime) -> Json:
    return {
        "type": condition.type.value,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "since": timestamp(since),
    }


_EMPTY: dict[str, Json] = {
    "live_slot": None,
    "live_commit": None,
    "previous_slot": None,
    "previous_commit": None,
    "last_deploy_time": None,
    "healthy": None,
    "workspace_dir": None,
    "slots": [],
    "conditions": [],
    "deploy": None,
    "queued": [],
    "recent": [],
    "quarantine": [],
    "apps": {},
}


def app_summary(desired: DesiredApp, seen: ObservedApp, now: Instant) -> dict[str, Json]:
    """Returns what `apps` says of one app."""
    standing = stand(desired, seen, now)
    healthy = serves(standing)
    return {
        "live_commit": standing.live.record.target.revision
        if standing.live and standing.live.record
        else None,
        "healthy": healthy,
        "ready": healthy and standing.running is None,
    }


def app_plan(plan: Plan, standing: Standing) -> dict[str, Json]:
    """Returns what `GET /plan` says of one app. A held rollback is converged."""
    wish = standing.seen.records.wish
    running = standing.running is not None or (wish is not None and wish.status is WishStatus.OPEN)
    changing = [step for step in plan.steps if isinstance(step.action, CHANGING)]
    waiting = [why for why in plan.pending if why not in {step.why for step in plan.steps}]
    stalled = [one for one in plan.conditions if one.type is ConditionType.STALLED and one.status]
    return {
        "converged": not (running or changing or stalled),
        "pending": [*(step.why for step in changing), *waiting],
        "steps": [{"action": type(step.action).__name__, "why": step.why} for step in plan.steps],
        "conditions": [
            {
                "type": one.type.value,
                "status": one.status,
                "reason": one.reason,
                "message": one.message,
            }
            for one in plan.conditions
        ],
        "held": standing.held,
    }


# Steps that change what runs; the rest keep house and change nothing a person waits for.
CHANGING = (MakeWish, RetryWish, PrepareSlot, StartInstances, SwitchRoute, RemoveRoute)


def _live_since(deploy: Deploy | None) -> str | None:
    promoted = deploy.promoted if deploy else None
    return timestamp(promoted.at) if promoted else None


def _shown(standing: Standing, slot: ObservedSlot) -> bool:
    contract = standing.policy
    known = SLOT_NAMES[: contract.slots if contract else 3]
    return slot.name in known or slot.record is not None


def role(standing: Standing, slot: ObservedSlot) -> str:
    """Returns the role of a slot, derived, never stored."""
    if standing.live and slot.name == standing.live.name:
        return "live"
    if standing.candidate and slot.name == standing.candidate.name:
        return "candidate"
    if standing.previous and slot.name == standing.previous.name:
        return "previous"
    if slot.record is not None and not slot.vacant and slot.record.drain_since is not None:
        return "draining"
    return "none"


def condition(standing: Standing, slot: ObservedSlot) -> str:  # noqa: PLR0911 (one answer each)
    """Returns the condition of a slot, as the contract names them."""
    record = slot.record
    if record is None:
        return "empty"
    if record.stage is Stage.PREPARING:
        return "preparing" if "prepare" in slot.busy else "dirty"
    if record.stage is Stage.FAILED:
        return "failed"
    if slot.vacant:
        return "stopped"
    if record.term_at is not None or (record.drain_since is not None and not record.drained):
        return "draining"
    web = slot.instance(WEB)
    if any(not one.up for one in slot.instances):
        return "unhealthy"
    if standing.live and slot.name == standing.live.name:
        return "healthy" if serves(standing) else "unhealthy"
    if web is not None and slot.health.ok is None:
        return "starting"
    return "unhealthy" if slot.health.ok is False else "healthy"


def _slot(standing: Standing, slot: ObservedSlot, wall: datetime) -> dict[str, Json]:
    record = slot.record
    return {
        "name": slot.name,
        "role": role(standing, slot),
        "condition": condition(standing, slot),
        "commit": record.target.revision if record else None,
        "instances": [
            {
                "process": one.process,
                "address": one.address or None,
                "up": one.up,
                "since": timestamp(wall - standing.now.since(one.since)) if one.since else None,
                "pid": one.pid,
            }
            for one in slot.instances
        ],
    }
