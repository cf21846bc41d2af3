"""Bake: the watch after a promotion, with an automatic return to previous."""

from __future__ import annotations

from reconciler.model.actions import Advance, MakeWish, RecordVerdict
from reconciler.model.deploys import (
    Deploy,
    Phase,
    Reason,
    Trigger,
    Verdict,
    VerdictKind,
    VerdictResult,
    WishKind,
)
from reconciler.planning.draft import Draft
from reconciler.planning.history import previous
from reconciler.planning.standing import Standing
from reconciler.planning.tending import crash_loop


def watch_bake(standing: Standing, draft: Draft) -> bool:
    """Passes or fails the bake of the live deploy; True when it wished to return to previous."""
    deploy = standing.seen.records.live_deploy
    until = standing.baking_until()
    if deploy is None or until is None or standing.policy is None:
        return False
    if deploy.entered(Phase.BAKING) is None and standing.policy.bake:
        draft.do(Advance(deploy.id, Phase.BAKING), "it is watched for a while")
    over = draft.now.reached(until)
    if not over:
        draft.look_at(until)
    failure = _failure(standing)
    if failure is not None:
        if standing.running is None and _return_to_previous(standing, deploy, *failure, draft):
            return True
        if over:
            verdict = Verdict("bake", VerdictKind.BAKE, VerdictResult.FAILED, *failure)
            draft.do(RecordVerdict(deploy.id, verdict), failure[1])
    elif over and _wavers(standing):
        draft.wait("live failed its last health check: the bake ends with the next ones")
    elif over:
        verdict = Verdict("bake", VerdictKind.BAKE, VerdictResult.PASSED)
        draft.do(RecordVerdict(deploy.id, verdict), "it kept well")
    return False


def _wavers(standing: Standing) -> bool:
    """Whether live has begun to fail, so that the next checks decide what the bake found."""
    live, policy = standing.live, standing.policy
    if live is None or policy is None or policy.on_unhealthy == "alert":
        return False
    return live.health.failures > 0


def _failure(standing: Standing) -> tuple[Reason, str] | None:
    looping = crash_loop(standing)
    if looping is not None:
        return Reason.CRASH_LOOP, f"{looping} kept ending"
    live, policy = standing.live, standing.policy
    if live is None or policy is None or policy.on_unhealthy == "alert":
        return None
    if live.health.failures >= policy.health_failures:
        return Reason.BAKE_FAILED, live.health.reason or "the health endpoint fails"
    return None


def _return_to_previous(
    standing: Standing, deploy: Deploy, reason: Reason, detail: str, draft: Draft
) -> bool:
    records = standing.seen.records
    back = previous(records.promotions)
    if back is None or deploy.request.kind is not WishKind.DEPLOY:
        # Nothing to go back to, or we came back already: going to and fro helps nobody.
        return False
    verdict = Verdict("bake", VerdictKind.BAKE, VerdictResult.FAILED, reason, detail)
    draft.do(RecordVerdict(deploy.id, verdict), detail)
    draft.do(
        MakeWish(
            WishKind.RETURN,
            back.target,
            back.contract,
            Trigger.BAKE,
            message=f"{reason}: {detail}",
            rolls_back_to=back.deploy_id,
            quarantine=deploy.target,
            reason=reason,
        ),
        f"the bake failed ({detail}): back to {back.target.revision[:10]}",
    )
    return True
