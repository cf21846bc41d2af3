"""The course of a deploy from its first step to its promotion or its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from reconciler.model.deploys import (
    DeployRequest,
    Phase,
    Progress,
    Quarantined,
    Reason,
    Verdict,
    WishKind,
    WishStatus,
)
from reconciler.model.instants import Instant
from reconciler.model.names import DeployId, SlotName, WishId
from reconciler.stores import queries
from reconciler.stores.notices import add_quarantine
from reconciler.stores.progress import append, follows, repeats
from reconciler.stores.queries import known_deploy
from reconciler.stores.rows import bounded, promotion_values, verdict_values
from reconciler.stores.wishes import set_wish, settle
from reconciler.stores.writing import Writing


def advance(tx: Writing, deploy_id: DeployId, steps: Sequence[Progress]) -> None:
    """Appends steps; those of a deploy that has ended meanwhile are dropped, so it stays ended."""
    request = known_deploy(tx, deploy_id).request
    for step in steps:
        if step.phase is Phase.LIVE or step.phase.unsuccessful:
            raise ValueError(f"{step.phase} is recorded by promote or close_deploy, not advance")
        standing = queries.standing(tx, deploy_id)
        last = queries.last_step(tx, deploy_id)
        if standing and follows(standing, step.phase) and not repeats(last, step):
            append(tx, request.app, deploy_id, step)


def record_verdict(tx: Writing, deploy_id: DeployId, verdict: Verdict, at: datetime) -> None:
    request = known_deploy(tx, deploy_id).request
    tx.insert("verdicts", verdict_values(tx.host, deploy_id, verdict, at))
    tx.tell(
        "deploy.verdict",
        at,
        {
            "app": request.app,
            "deploy_id": deploy_id,
            "name": verdict.name,
            "kind": verdict.kind,
            "result": verdict.result,
            "reason": bounded(verdict.reason),
        },
    )


def promote(tx: Writing, request: DeployRequest, slot: SlotName, at: Progress) -> None:
    """Records what is live. The pointer has moved already, so even a deploy that was superseded
    in that moment is recorded as live: the log says what happened, not what was meant."""
    if tx.row(queries.PROMOTION_OF_DEPLOY, deploy=request.id):
        return
    known_deploy(tx, request.id)
    left = tx.row(queries.LAST_PROMOTED, app=request.app)
    append(tx, request.app, request.id, replace(at, phase=Phase.LIVE, slot=slot))
    tx.insert("promotions", promotion_values(request, slot, at))
    set_wish(tx, request.wish_id, WishStatus.MET, at.at)
    if left is not None and request.kind is not WishKind.DEPLOY:
        _leave(tx, DeployId(left["deploy_id"]), request, at)


def _leave(tx: Writing, left: DeployId, request: DeployRequest, at: Progress) -> None:
    if queries.standing(tx, left) is not Phase.LIVE:
        return
    gone = Progress(
        Phase.ROLLED_BACK, at.at, at.instant, reason=_why_left(request), detail=request.reason
    )
    append(tx, request.app, left, gone)


def _why_left(request: DeployRequest) -> str:
    if request.kind is WishKind.ROLLBACK:
        return Reason.ROLLED_BACK_BY_REQUEST
    return request.reason if request.reason in list(Reason) else Reason.BAKE_FAILED


def close(
    tx: Writing,
    deploy_id: DeployId,
    at: Progress,
    *,
    wish_status: WishStatus,
    retry_at: Instant | None,
    quarantine: Sequence[Quarantined],
) -> None:
    if not at.phase.unsuccessful:
        raise ValueError(f"a deploy does not end as {at.phase}")
    row = tx.row(queries.OPEN_DEPLOY, deploy=deploy_id)
    if row is None:
        known_deploy(tx, deploy_id)
        return
    append(tx, row["app"], deploy_id, at)
    settle(tx, WishId(row["wish_id"]), wish_status, retry_at, at.at)
    add_quarantine(tx, quarantine)


def interrupt(tx: Writing, at: Progress, phases: Sequence[Phase]) -> tuple[DeployId, ...]:
    ended = replace(at, phase=Phase.INTERRUPTED)
    rows = [row for row in tx.rows(queries.OPEN_DEPLOYS_OF_HOST) if row["phase"] in phases]
    for row in rows:
        append(tx, row["app"], DeployId(row["deploy_id"]), ended)
        settle(tx, WishId(row["wish_id"]), WishStatus.OPEN, None, at.at)
    return tuple(DeployId(row["deploy_id"]) for row in rows)
