"""Wishes: recorded with their first deploy, retried, superseded, and settled."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from reconciler.model.deploys import (
    Deploy,
    DeployRequest,
    Phase,
    Progress,
    Quarantined,
    Reason,
    SeenHead,
    SeenInputs,
    Wish,
    WishStatus,
)
from reconciler.model.desired import Target
from reconciler.model.errors import RefusedError, StoreError
from reconciler.model.instants import Instant
from reconciler.model.names import AppName, DeployId, WishId
from reconciler.ports import IdempotencyKey
from reconciler.stores import queries
from reconciler.stores.notices import add_quarantine, lift_quarantine, note_seen
from reconciler.stores.progress import append
from reconciler.stores.queries import known_deploy
from reconciler.stores.rows import bounded, request_values, time_of, time_text, wish_of, wish_values
from reconciler.stores.writing import Writing

KEY_LIFETIME = timedelta(days=1)

_PURGE_KEYS = "DELETE FROM idempotency_keys WHERE at < :before"
_SET_STATUS = "UPDATE wishes SET status = :status, retry_at = :retry_at WHERE id = :id"
_COUNT_ATTEMPT = "UPDATE wishes SET attempts = attempts + 1, retry_at = NULL WHERE id = :id"


def record_wish(
    tx: Writing,
    request: DeployRequest,
    at: Progress,
    *,
    head: SeenHead | None,
    inputs: SeenInputs | None,
    quarantine: Sequence[Quarantined],
    lift: Target | None,
    pre_empt: bool,
    only_if_idle: bool,
    key: IdempotencyKey | None,
) -> Deploy:
    if key is not None and (known := answered(tx, key)) is not None:
        return known
    if only_if_idle:
        _refuse_unless_idle(tx, request.app)
    _supersede(tx, request.app, at, pre_empt=pre_empt)
    if lift is not None:
        lift_quarantine(tx, request.app, lift, request.actor, at.at)
    add_quarantine(tx, quarantine)
    _add_wish(tx, request, at)
    deploy = _add_deploy(tx, request, at)
    note_seen(tx, request.app, head, inputs, at.at)
    if key is not None:
        _remember(tx, key, request.id)
    return deploy


def retry(tx: Writing, wish_id: WishId, request: DeployRequest, at: Progress) -> Deploy:
    wish = _wish(tx, wish_id)
    if wish.status is not WishStatus.OPEN:
        raise RefusedError(
            "invalid-request", f"wish {wish_id} is {wish.status}, so it is not tried again"
        )
    underway = tx.row(queries.OPEN_DEPLOY_OF_WISH, wish=wish_id)
    if underway is not None:
        return known_deploy(tx, DeployId(underway["deploy_id"]))
    tx.change(_COUNT_ATTEMPT, id=wish_id)
    return _add_deploy(tx, request, at)


def set_wish(tx: Writing, wish_id: WishId, status: WishStatus, at: datetime) -> None:
    """Sets the status; a wish that a newer one has replaced stays superseded."""
    wish = _wish(tx, wish_id)
    if wish.status is not WishStatus.SUPERSEDED:
        _set_status(tx, wish, status, None, at)


def settle(
    tx: Writing, wish_id: WishId, status: WishStatus, retry_at: Instant | None, at: datetime
) -> None:
    """Says what the end of a deploy means for its wish, unless that was settled before.

    A wish that would go on is superseded instead when a newer one waits for its deploy to end.
    """
    wish = _wish(tx, wish_id)
    if wish.status is not WishStatus.OPEN:
        return
    if status is WishStatus.OPEN and tx.row(queries.NEWER_WISH, app=wish.app, seq=wish.seq):
        status, retry_at = WishStatus.SUPERSEDED, None
    _set_status(tx, wish, status, retry_at, at)


def _wish(tx: Writing, wish_id: WishId) -> Wish:
    wish = queries.wish_by_id(tx, wish_id)
    if wish is None:
        raise StoreError(f"the store has no wish {wish_id}")
    return wish


def _set_status(
    tx: Writing, wish: Wish, status: WishStatus, retry_at: Instant | None, at: datetime
) -> None:
    if (wish.status, wish.retry_at) == (status, retry_at):
        return
    tx.change(
        _SET_STATUS, id=wish.id, status=status, retry_at=retry_at.text() if retry_at else None
    )
    tx.tell("wish.changed", at, {"app": wish.app, "wish_id": wish.id, "status": status})


def _supersede(tx: Writing, app: AppName, at: Progress, *, pre_empt: bool) -> None:
    """Ends every deploy that waits, with `pre_empt` every open one, and wishes left without one."""
    reason = Reason.SUPERSEDED_BY_ROLLBACK if pre_empt else Reason.SUPERSEDED_BY_NEWER
    ended = Progress(Phase.SUPERSEDED, at.at, at.instant, reason=reason)
    carried = set()
    for row in tx.rows(queries.OPEN_DEPLOYS_OF_APP, app=app):
        if pre_empt or row["phase"] == Phase.QUEUED:
            append(tx, app, DeployId(row["deploy_id"]), ended)
        else:
            carried.add(row["wish_id"])
    for row in tx.rows(queries.OPEN_WISHES, app=app):
        if row["id"] not in carried:
            _set_status(tx, wish_of(row), WishStatus.SUPERSEDED, None, at.at)


def _add_wish(tx: Writing, request: DeployRequest, at: Progress) -> None:
    tx.insert("wishes", wish_values(request))
    tx.tell(
        "wish.recorded",
        at.at,
        {
            "app": request.app,
            "wish_id": request.wish_id,
            "deploy_id": request.id,
            "kind": request.kind,
            "trigger": request.trigger,
            "actor": bounded(request.actor),
            "revision": request.target.revision,
            "contract_digest": request.target.contract_digest,
            "reason": bounded(request.reason),
        },
    )


def _add_deploy(tx: Writing, request: DeployRequest, at: Progress) -> Deploy:
    if request.host != tx.host:
        raise StoreError(f"deploy {request.id} is of host {request.host}, not of {tx.host}")
    seq = tx.insert("deploys", request_values(request))
    tx.insert(
        "open_deploys",
        {
            "deploy_id": request.id,
            "seq": seq,
            "host_id": request.host,
            "app": request.app,
            "wish_id": request.wish_id,
            "phase": at.phase,
        },
    )
    append(tx, request.app, request.id, at)
    return known_deploy(tx, request.id)


def _refuse_unless_idle(tx: Writing, app: AppName) -> None:
    underway = tx.row(queries.OPEN_DEPLOYS_OF_APP, app=app)
    if underway is not None:
        deploy_id = underway["deploy_id"]
        raise RefusedError(
            "deploy-in-progress",
            f"deploy {deploy_id} of {app} is in progress ({underway['phase']}); "
            "wait for it, cancel it, or ask to queue",
            deploy_id,
        )


def answered(tx: Writing, key: IdempotencyKey) -> Deploy | None:
    """Returns the deploy that the key made, None for a new key or one that is over a day old."""
    row = tx.row(queries.KEY, key=key.key)
    if row is None or time_of(row["at"]) < tx.wall() - KEY_LIFETIME:
        return None
    if row["fingerprint"] != key.fingerprint:
        raise RefusedError(
            "invalid-request", "this Idempotency-Key was used before, for something else"
        )
    return known_deploy(tx, DeployId(row["deploy_id"]))


def _remember(tx: Writing, key: IdempotencyKey, deploy_id: DeployId) -> None:
    tx.change(_PURGE_KEYS, before=time_text(tx.wall() - KEY_LIFETIME))
    tx.insert(
        "idempotency_keys",
        {
            "host_id": tx.host,
            "key": key.key,
            "fingerprint": key.fingerprint,
            "deploy_id": deploy_id,
            "at": time_text(tx.wall()),
        },
    )
