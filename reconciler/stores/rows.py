"""Rows and records: how each of the model's records is written in a table and read back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeAlias

from reconciler.model.canonical import canonical
from reconciler.model.conditions import Condition, ConditionType
from reconciler.model.deploys import (
    Deploy,
    DeployRequest,
    Phase,
    Progress,
    Promotion,
    Quarantined,
    Trigger,
    Verdict,
    VerdictKind,
    VerdictResult,
    Wish,
    WishKind,
    WishStatus,
)
from reconciler.model.desired import Target
from reconciler.model.events import Event
from reconciler.model.instants import Instant
from reconciler.model.names import AppName, DeployId, HostId, Revision, SlotName, WishId

Value: TypeAlias = str | int | None
Values: TypeAlias = Mapping[str, Value]

# What people and apps write has no natural bound; a row has.
MAX_TEXT = 4_000
MAX_LOG_TAIL = 64_000
_WISH_KINDS = {kind.value: kind for kind in WishKind}


def clean(text: str) -> str:
    """Returns text that every database can hold: no NUL, no half of a surrogate pair."""
    return (
        text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")
    )


def bounded(text: str) -> str:
    """Returns the beginning of a text from outside, cleaned."""
    return clean(text[:MAX_TEXT])


def time_text(moment: datetime) -> str:
    """Returns RFC 3339 in UTC, always with microseconds, so that texts sort as times do."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _target_values(target: Target) -> Values:
    return {
        "revision": target.revision,
        "contract_digest": target.contract_digest,
        "secrets_digest": target.secrets_digest,
    }


def _target(row: sqlite3.Row) -> Target:
    return Target(Revision(row["revision"]), row["contract_digest"], row["secrets_digest"])


def wish_values(request: DeployRequest) -> Values:
    """Returns the row of the new wish that a request stands for."""
    return {
        "id": request.wish_id,
        "host_id": request.host,
        "app": request.app,
        "kind": request.kind,
        **_target_values(request.target),
        "contract": request.contract,
        "status": WishStatus.OPEN,
        "triggered_by": request.trigger,
        "actor": bounded(request.actor),
        "attempts": 1,
    }


def wish_of(row: sqlite3.Row) -> Wish:
    return Wish(
        id=WishId(row["id"]),
        seq=row["seq"],
        app=AppName(row["app"]),
        kind=WishKind(row["kind"]),
        target=_target(row),
        contract=row["contract"],
        status=WishStatus(row["status"]),
        trigger=Trigger(row["triggered_by"]),
        actor=row["actor"],
        attempts=row["attempts"],
        retry_at=Instant.parse(row["retry_at"]) if row["retry_at"] else None,
    )


def request_values(request: DeployRequest) -> Values:
    return {
        "id": request.id,
        "wish_id": request.wish_id,
        "host_id": request.host,
        "app": request.app,
        "kind": request.kind,
        **_target_values(request.target),
        "contract": request.contract,
        "actor": bounded(request.actor),
        "triggered_by": request.trigger,
        "requested_at": time_text(request.requested_at),
        "branch": request.branch,
        "message": bounded(request.message),
        "force": int(request.force),
        "reason": bounded(request.reason),
        "skip_probes": canonical(request.skip_probes),
        "retry_of": request.retry_of,
        "attempt": request.attempt,
        "rolls_back_to": request.rolls_back_to,
        "previous_commit": request.previous_commit,
    }


def request_of(row: sqlite3.Row) -> DeployRequest:
    return DeployRequest(
        id=DeployId(row["id"]),
        wish_id=WishId(row["wish_id"]),
        host=HostId(row["host_id"]),
        app=AppName(row["app"]),
        kind=WishKind(row["kind"]),
        target=_target(row),
        contract=row["contract"],
        actor=row["actor"],
        trigger=Trigger(row["triggered_by"]),
        requested_at=time_of(row["requested_at"]),
        branch=row["branch"],
        message=row["message"],
        force=bool(row["force"]),
        reason=row["reason"],
        skip_probes=tuple(json.loads(row["skip_probes"])),
        retry_of=row["retry_of"],
        attempt=row["attempt"],
        rolls_back_to=row["rolls_back_to"],
        previous_commit=row["previous_commit"],
    )


def progress_values(host: HostId, deploy_id: DeployId, step: Progress) -> Values:
    return {
        "host_id": host,
        "deploy_id": deploy_id,
        "phase": step.phase,
        "at": time_text(step.at),
        "instant": step.instant.text(),
        "slot": step.slot,
        "reason": bounded(step.reason),
        "detail": bounded(step.detail),
        # The end of a log is what explains a failure.
        "log_tail": clean(step.log_tail[-MAX_LOG_TAIL:]),
    }


def progress_of(row: sqlite3.Row) -> Progress:
    return Progress(
        phase=Phase(row["phase"]),
        at=time_of(row["at"]),
        instant=Instant.parse(row["instant"]),
        slot=SlotName(row["slot"]) if row["slot"] else None,
        reason=row["reason"],
        detail=row["detail"],
        log_tail=row["log_tail"],
    )


def verdict_values(host: HostId, deploy_id: DeployId, verdict: Verdict, at: datetime) -> Values:
    return {
        "host_id": host,
        "deploy_id": deploy_id,
        "name": verdict.name,
        "kind": verdict.kind,
        "result": verdict.result,
        "reason": bounded(verdict.reason),
        "detail": bounded(verdict.detail),
        "at": time_text(at),
    }


def verdict_of(row: sqlite3.Row) -> Verdict:
    return Verdict(
        name=row["name"],
        kind=VerdictKind(row["kind"]),
        result=VerdictResult(row["result"]),
        reason=row["reason"],
        detail=row["detail"],
    )


def promotion_values(request: DeployRequest, slot: SlotName, at: Progress) -> Values:
    return {
        "host_id": request.host,
        "app": request.app,
        "deploy_id": request.id,
        "slot": slot,
        "at": time_text(at.at),
        "instant": at.instant.text(),
    }


def promotion_of(row: sqlite3.Row) -> Promotion:
    """Reads by position: up to 200 of these are read for every pass over an app."""
    seq, deploy_id, slot, instant, revision, contract_digest, secrets_digest, *rest = row
    contract, kind, rolls_back_to = rest
    return Promotion(
        seq=seq,
        deploy_id=deploy_id,
        slot=slot,
        target=Target(revision, contract_digest, secrets_digest),
        contract=contract,
        kind=_WISH_KINDS[kind],
        rolls_back_to=rolls_back_to,
        at=Instant.parse(instant),
    )


def quarantine_values(host: HostId, one: Quarantined) -> Values:
    return {
        "host_id": host,
        "app": one.app,
        "revision": one.revision,
        "contract_digest": one.contract_digest,
        "secrets_digest": one.secrets_digest,
        "reason": bounded(one.reason),
        "by": bounded(one.by),
        "since": time_text(one.since),
    }


def quarantined_of(row: sqlite3.Row) -> Quarantined:
    return Quarantined(
        app=AppName(row["app"]),
        revision=Revision(row["revision"]),
        contract_digest=row["contract_digest"],
        secrets_digest=row["secrets_digest"],
        reason=row["reason"],
        by=row["by"],
        since=time_of(row["since"]),
    )


def condition_of(row: sqlite3.Row) -> Condition:
    return Condition(
        type=ConditionType(row["type"]),
        status=bool(row["status"]),
        reason=row["reason"],
        message=row["message"],
    )


def event_of(row: sqlite3.Row) -> Event:
    return Event(
        seq=row["seq"],
        event_id=row["event_id"],
        host_id=HostId(row["host_id"]),
        kind=row["kind"],
        schema_version=row["schema_version"],
        occurred_at=time_of(row["occurred_at"]),
        received_at=time_of(row["received_at"]),
        payload=json.loads(row["payload"]),
    )


def deploy_of(
    row: sqlite3.Row, progress: tuple[Progress, ...], verdicts: tuple[Verdict, ...]
) -> Deploy:
    return Deploy(request_of(row), row["seq"], progress, verdicts)
