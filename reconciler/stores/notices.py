"""What an app has taken notice of, what is in its way, and what never comes back by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from reconciler.model.conditions import Condition
from reconciler.model.deploys import Quarantined, SeenHead, SeenInputs
from reconciler.model.desired import Target
from reconciler.model.names import AppName, Revision
from reconciler.stores import queries
from reconciler.stores.rows import bounded, quarantine_values, time_text
from reconciler.stores.writing import Writing

_KEEP_CONDITION = """
    INSERT INTO conditions (host_id, app, type, status, reason, message, since)
    VALUES (:host, :app, :type, :status, :reason, :message, :since)
    ON CONFLICT (host_id, app, type) DO UPDATE SET
        since = CASE conditions.status WHEN excluded.status THEN since ELSE excluded.since END,
        status = excluded.status, reason = excluded.reason, message = excluded.message"""
_DROP_CONDITION = "DELETE FROM conditions WHERE host_id = :host AND app = :app AND type = :type"
_ADD_QUARANTINE = """
    INSERT OR IGNORE INTO quarantine
        (host_id, app, revision, contract_digest, secrets_digest, reason, by, since)
    VALUES
        (:host_id, :app, :revision, :contract_digest, :secrets_digest, :reason, :by, :since)"""
_LIFT_QUARANTINE = """
    DELETE FROM quarantine
    WHERE host_id = :host AND app = :app AND revision = :revision
      AND contract_digest = :contract AND secrets_digest = :secrets"""


def note_head(tx: Writing, app: AppName, head: SeenHead, at: datetime) -> None:
    if queries.seen_head(tx, app) == head:
        return
    values = {"app": app, "branch": head.branch, "revision": head.revision}
    tx.put("seen_heads", {"host_id": tx.host, **values})
    tx.tell("head.seen", at, values)


def note_inputs(tx: Writing, app: AppName, inputs: SeenInputs, at: datetime) -> None:
    if queries.seen_inputs(tx, app) == inputs:
        return
    values = {
        "app": app,
        "contract_digest": inputs.contract_digest,
        "secrets_digest": inputs.secrets_digest,
    }
    tx.put("seen_inputs", {"host_id": tx.host, **values})
    tx.tell("inputs.seen", at, values)


def note_seen(
    tx: Writing, app: AppName, head: SeenHead | None, inputs: SeenInputs | None, at: datetime
) -> None:
    if head is not None:
        note_head(tx, app, head, at)
    if inputs is not None:
        note_inputs(tx, app, inputs, at)


def note_absence(tx: Writing, app: AppName, passes: int) -> None:
    if queries.absent_passes(tx, app) == passes:
        return
    tx.put("absences", {"host_id": tx.host, "app": app, "passes": passes})
    tx.tell("app.absent", tx.wall(), {"app": app, "passes": passes})


def note_conditions(tx: Writing, app: AppName, conditions: Sequence[Condition]) -> None:
    """Writes only what differs, so that a pass that finds nothing new costs no disk write."""
    before = {one.type: one for one, _ in queries.conditions(tx, app)}
    after = {one.type: replace(one, message=bounded(one.message)) for one in conditions}
    for gone in before.keys() - after.keys():
        tx.change(_DROP_CONDITION, app=app, type=gone)
        if before[gone].status:
            _tell_condition(tx, app, Condition(gone, status=False))
    for one in after.values():
        if before.get(one.type) != one:
            _keep_condition(tx, app, one)
            _tell_condition(tx, app, one)


def _keep_condition(tx: Writing, app: AppName, one: Condition) -> None:
    tx.change(
        _KEEP_CONDITION,
        app=app,
        type=one.type,
        status=int(one.status),
        reason=one.reason,
        message=one.message,
        since=time_text(tx.wall()),
    )


def _tell_condition(tx: Writing, app: AppName, one: Condition) -> None:
    tx.tell(
        "condition.changed",
        tx.wall(),
        {
            "app": app,
            "type": one.type,
            "status": one.status,
            "reason": one.reason,
            "message": one.message,
        },
    )


def add_quarantine(tx: Writing, quarantine: Sequence[Quarantined]) -> None:
    """Adds what is not there yet; what is keeps its first reason and date."""
    for one in quarantine:
        if tx.change(_ADD_QUARANTINE, **quarantine_values(tx.host, one)):
            tx.tell("quarantine.added", one.since, _payload(one) | {"reason": one.reason})


def lift_quarantine(tx: Writing, app: AppName, target: Target, by: str, at: datetime) -> None:
    """Removes every entry that covers the target, however widely it was drawn."""
    for one in queries.quarantine(tx, app):
        if one.covers(target):
            tx.change(
                _LIFT_QUARANTINE,
                app=app,
                revision=one.revision,
                contract=one.contract_digest,
                secrets=one.secrets_digest,
            )
            tx.tell("quarantine.lifted", at, _payload(one) | {"by": bounded(by)})


def _payload(one: Quarantined) -> dict[str, str]:
    return {
        "app": one.app,
        "revision": one.revision,
        "contract_digest": one.contract_digest,
        "secrets_digest": one.secrets_digest,
        "by": bounded(one.by),
    }


def note_good_manifests(tx: Writing, source: str, revision: Revision) -> None:
    if queries.good_manifests(tx, source) == revision:
        return
    values = {"source": source, "revision": revision}
    tx.put("good_manifests", {"host_id": tx.host, **values})
    tx.tell("manifests.accepted", tx.wall(), values)
