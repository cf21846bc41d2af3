"""Release: the plan for one app, from what is desired and what was seen. Pure; takes `now`."""

from __future__ import annotations

from reconciler.model.actions import NoteConditions, Plan
from reconciler.model.conditions import Condition, ConditionType
from reconciler.model.deploys import WishStatus
from reconciler.model.desired import DesiredApp, Target
from reconciler.model.instants import Instant
from reconciler.model.names import WEB
from reconciler.model.observed import ObservedApp
from reconciler.planning.adoption import adopt_live
from reconciler.planning.bake import watch_bake
from reconciler.planning.candidate import advance_deploy, mend_route
from reconciler.planning.draft import Draft
from reconciler.planning.draining import clear_slots, empty_trash
from reconciler.planning.notice import retry_wish, take_notice
from reconciler.planning.removal import remove_app
from reconciler.planning.standing import Standing, pointer_problem, stand
from reconciler.planning.tending import tend_live

LONGEST_MESSAGE = 2000


def plan_release(app: DesiredApp, seen: ObservedApp, now: Instant) -> Plan:
    """Returns the next safe steps for one app; a converged app gets none.

    Equal inputs give equal plans. An unknown pointer stops everything: what serves is unknown, so
    nothing is stopped and nothing deployed.
    """
    draft = Draft(now)
    standing = stand(app, seen, now)
    if problem := pointer_problem(seen):
        draft.stall(
            "PointerUnknown",
            f"routes/{app.key.app} points to {problem}. Nothing is stopped and nothing deployed "
            f"until it points to a slot: ln -sfn ../apps/{app.key.app}/slots/deploy-X.addr "
            f"routes/{app.key.app}",
        )
    elif remove_app(standing, draft):
        clear_slots(standing, draft)
    else:
        _steps(standing, draft)
    conditions = judge(standing, draft)
    if frozenset(conditions) != frozenset(seen.records.conditions):
        draft.do(NoteConditions(conditions), "its conditions changed")
    return draft.plan(conditions)


def _steps(standing: Standing, draft: Draft) -> None:
    if mend_route(standing, draft):
        return
    tend_live(standing, draft)
    if adopt_live(standing, draft):
        return
    if watch_bake(standing, draft) or take_notice(standing, draft):
        return
    retry_wish(standing, draft)
    advance_deploy(standing, draft)
    clear_slots(standing, draft)
    empty_trash(standing, draft)


def judge(standing: Standing, draft: Draft) -> tuple[Condition, ...]:
    """Returns the conditions as they stand with this draft."""
    stalled = _stalled(standing, draft)
    found = [_ready(standing), _reconciling(standing), stalled]
    not_enforced = _not_enforced(standing)
    return tuple([*found, not_enforced] if not_enforced else found)


def serves(standing: Standing) -> bool:
    """Whether the live slot is up, not found unhealthy, and reachable through its address."""
    live, contract = standing.live, standing.seen.live_contract
    if live is None or contract is None:
        return False
    if not contract.has_web:
        return all(one.up for one in live.instances) and bool(live.instances)
    web = live.instance(WEB)
    return web is not None and web.up and live.health.ok is not False and bool(live.published)


def _ready(standing: Standing) -> Condition:
    name = standing.app.key.app
    if serves(standing):
        return Condition(ConditionType.READY, status=True, reason="Serving")
    if standing.live is None:
        contract = standing.app.contract
        asked = contract is not None and contract.deploy_on == "request"
        how = f"; deploy it with `autopilot deploy --app {name}`" if asked else ""
        return Condition(
            ConditionType.READY, status=False, reason="NeverLive",
            message=f"{name} has not been live yet{how}",
        )  # fmt: skip
    return Condition(
        ConditionType.READY, status=False, reason="Unhealthy",
        message=f"the live slot of {name} does not answer; see `autopilot logs --app {name}`",
    )  # fmt: skip


def _reconciling(standing: Standing) -> Condition:
    wish, running = standing.seen.records.wish, standing.running
    busy = running is not None or (wish is not None and wish.status is WishStatus.OPEN)
    if not busy:
        return Condition(ConditionType.RECONCILING, status=False)
    revision = running.target.revision if running else wish.target.revision if wish else ""
    return Condition(
        ConditionType.RECONCILING, status=True, reason="Deploying", message=revision[:10]
    )


def _stalled(standing: Standing, draft: Draft) -> Condition:
    reasons = list(draft.stalls)
    if standing.app.problems:
        listing = "; ".join(str(problem) for problem in standing.app.problems)
        reasons.append(("InvalidManifest", f"the last good manifests stay in force. {listing}"))
    if standing.seen.source_problem:
        reasons.append(("SourceUnavailable", standing.seen.source_problem))
    if standing.seen.disk_problem:
        full = f"{standing.seen.disk_problem}; free some and it goes on by itself"
        reasons.append(("DiskPressure", full))
    if standing.seen.proxy_problem:
        reasons.append(("ProxyDown", standing.seen.proxy_problem))
    if told := _failed_wish(standing):
        reasons.append(told)
    if not reasons:
        return Condition(ConditionType.STALLED, status=False)
    reason, message = reasons[0]
    more = f" (and {', '.join(slug for slug, _ in reasons[1:])})" if reasons[1:] else ""
    return Condition(
        ConditionType.STALLED, status=True, reason=reason, message=_fit(message + more)
    )


def _fit(message: str) -> str:
    """A message that the store would shorten never equals what it recorded."""
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"


def _failed_wish(standing: Standing) -> tuple[str, str] | None:
    records = standing.seen.records
    wish, last = records.wish, records.last_deploy
    if wish is None or last is None or wish.status is WishStatus.MET or standing.running:
        return None
    live = records.promotions[-1].target if records.promotions else None
    head, inputs = records.seen_head, records.seen_inputs
    asked = [
        Target(revision, inputs.contract_digest, inputs.secrets_digest)
        for revision in (wish.target.revision, head.revision if head else None)
        if revision is not None and inputs is not None
    ]
    if live is not None and live != wish.target and live in asked:
        # What is asked for now is what is live: nothing is left to act on.
        return None
    if wish.status in (WishStatus.FAILED, WishStatus.STALLED):
        why = f"deploy of {wish.target.revision[:10]} ended {last.phase}: {last.reason}"
        return "DeployFailed", f"{why}. `autopilot logs --deploy {last.id}` shows its output"
    if wish.status is WishStatus.OPEN and last.reason == "disk-pressure":
        return "DiskPressure", "no space left; free some and it goes on by itself"
    return None


def _not_enforced(standing: Standing) -> Condition | None:
    contract = standing.policy
    keys = (*(contract.not_enforced if contract else ()), *standing.seen.unenforced)
    if not keys:
        return None
    return Condition(
        ConditionType.NOT_ENFORCED, status=True, reason="NotEnforced", message=", ".join(keys)
    )
