"""Progress: the appended steps of deploys, and the projection of which are still open."""

from __future__ import annotations

from reconciler.model.deploys import Phase, Progress
from reconciler.model.names import AppName, DeployId
from reconciler.stores.rows import bounded, progress_values
from reconciler.stores.writing import Writing

# Steps beside being live: they change nothing about how the deploy stands.
ASIDE = (Phase.BAKING, Phase.DRAINING)

_GO_ON = "UPDATE open_deploys SET phase = :phase WHERE deploy_id = :deploy"
_END = "DELETE FROM open_deploys WHERE deploy_id = :deploy"


def append(tx: Writing, app: AppName, deploy_id: DeployId, step: Progress) -> None:
    tx.insert("progress", progress_values(tx.host, deploy_id, step))
    if step.phase.open:
        tx.change(_GO_ON, deploy=deploy_id, phase=step.phase)
    elif step.phase not in ASIDE:
        tx.change(_END, deploy=deploy_id)
    tx.tell(
        _kind(step.phase),
        step.at,
        {
            "app": app,
            "deploy_id": deploy_id,
            "phase": step.phase,
            "slot": step.slot,
            "reason": bounded(step.reason),
        },
    )


def _kind(phase: Phase) -> str:
    if phase is Phase.QUEUED:
        return "deploy.queued"
    if phase is Phase.LIVE:
        return "deploy.live"
    return "deploy.closed" if phase.unsuccessful else "deploy.phase"


def follows(standing: Phase, phase: Phase) -> bool:
    """Whether a deploy that stands like this may still enter that phase; an ended one none."""
    if standing.open:
        return phase.open
    return standing is Phase.LIVE and phase in ASIDE


def repeats(last: Progress | None, step: Progress) -> bool:
    """Whether the step says what the last one said, so that a pass done twice leaves it once."""
    return last is not None and (
        (last.phase, last.slot, last.reason, last.detail)
        == (step.phase, step.slot, bounded(step.reason), bounded(step.detail))
    )
