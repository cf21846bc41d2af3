"""Candidate: the next safe step of the one deploy that holds the app, from queued to live."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from reconciler.model.actions import (
    Advance,
    CloseDeploy,
    ConfirmRoute,
    FetchRevision,
    PrepareSlot,
    Promote,
    PublishAddress,
    RecordVerdict,
    RemoveRoute,
    RetireSlot,
    RunProbe,
    StartInstances,
    StopSlot,
    SwitchRoute,
    WarmSlot,
)
from reconciler.model.deploys import (
    STEP,
    TRANSIENT,
    Deploy,
    Phase,
    Reason,
    Verdict,
    VerdictKind,
    VerdictResult,
    WishKind,
)
from reconciler.model.desired import AppContract, When
from reconciler.model.instants import Instant
from reconciler.model.names import WEB, SlotName
from reconciler.model.observed import ObservedSlot, PointsTo, SlotRecord, Stage
from reconciler.planning.draft import Draft
from reconciler.planning.standing import (
    Standing,
    choose_slot,
    goal_slot,
    intact,
    is_warm,
    warm_target,
    was_promoted,
)

LISTEN = "listen"
GRACE = timedelta(milliseconds=500)
PATIENCE = timedelta(seconds=11)
SOON = timedelta(milliseconds=20)
LIVED = timedelta(seconds=1)
PROXY_PATIENCE = timedelta(seconds=10)
# A checkout has deadlines of its own; this one is for when nothing is heard of it any more.
EXPORT_PATIENCE = timedelta(minutes=10)
UNREAPED_AFTER = timedelta(seconds=5)
BACK_OFF = (timedelta(0), timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=25))


def advance_deploy(standing: Standing, draft: Draft) -> None:
    """Plans the next steps of the running deploy; nothing here touches the live slot but
    SwitchRoute, and that only to a slot that is proved and of the wanted revision."""
    deploy, contract = standing.running, standing.seen.running_contract
    if deploy is None or contract is None:
        return
    if (step := deploy.verdict(STEP)) is not None and deploy.phase is not Phase.SWITCHING:
        _give_up(standing, deploy, step, draft)
        return
    match deploy.phase:
        case Phase.QUEUED | Phase.FETCHING | Phase.GATING:
            _begin(standing, deploy, contract, draft)
        case Phase.PREPARING:
            _prepare(standing, deploy, contract, draft)
        case Phase.STARTING | Phase.PROVING | Phase.APPROVING:
            _prove(standing, deploy, contract, draft)
        case Phase.SWITCHING:
            _switch(standing, deploy, contract, draft)
        case _:
            pass


def _begin(standing: Standing, deploy: Deploy, contract: AppContract, draft: Draft) -> None:
    refusal = _refusal(standing, deploy)
    if refusal:
        reason, detail = refusal
        _close(draft, deploy, reason, detail, None)
        return
    if warm := warm_target(standing, deploy):
        if warm.record is not None and (warm.record.drain_since or warm.record.drained):
            draft.do(WarmSlot(warm.name), "the slot goes back to work")
        draft.do(Advance(deploy.id, Phase.PROVING, warm.name), "its slot is still warm")
        draft.do(_probe(warm.name, deploy, contract, "health", "warm"), "is it still healthy?")
        return
    if deploy.phase is Phase.QUEUED:
        draft.do(Advance(deploy.id, Phase.FETCHING), "the app is free for this deploy")
        draft.do(FetchRevision(deploy.id, deploy.target.revision), "its commit must be ours")
        draft.do(Advance(deploy.id, Phase.GATING), "its commit is here")
    _take_slot(standing, deploy, contract, draft)


def _give_up(standing: Standing, deploy: Deploy, step: Verdict, draft: Draft) -> None:
    slot = standing.candidate
    reason = step.reason or Reason.LAUNCH_FAILED
    if slot is None:
        _close(draft, deploy, reason, step.detail, None)
    else:
        _fail(deploy, slot, reason, step.detail, draft)


def _refusal(standing: Standing, deploy: Deploy) -> tuple[Reason, str] | None:
    """Returns why a deploy must not begin."""
    by_deploy = deploy.request.kind is WishKind.DEPLOY
    if by_deploy and standing.app.missing_secrets and standing.app.contract is not None:
        names = ", ".join(standing.app.missing_secrets)
        return (
            Reason.MISSING_SECRET,
            (
                f"not on this host: {names}. Set each with `autopilot secrets set NAME "
                f"--app {deploy.request.app}`"
            ),
        )
    if by_deploy and not deploy.request.force:
        covering = [one for one in standing.seen.records.quarantine if one.covers(deploy.target)]
        if covering:
            return (Reason.QUARANTINED, f"quarantined: {covering[0].reason}")
    return None


def _take_slot(standing: Standing, deploy: Deploy, contract: AppContract, draft: Draft) -> None:
    own = goal_slot(standing, deploy)
    chosen = choose_slot(standing, contract)
    if own and own.vacant and not own.busy and intact(own, deploy, draft.now.boot_id):
        chosen = own.name
    if chosen is None:
        if deploy.phase is not Phase.PREPARING:
            draft.do(
                Advance(deploy.id, Phase.PREPARING, reason=Reason.WAITING_FOR_DRAIN),
                "every slot is live, previous or draining",
            )
        draft.wait("waiting for a slot to drain", draft.now + timedelta(milliseconds=100))
        return
    slot = standing.seen.slot(chosen)
    draft.do(Advance(deploy.id, Phase.PREPARING, chosen), f"{chosen} is free")
    ready_made = slot is not None and intact(slot, deploy, draft.now.boot_id)
    draft.do(
        PrepareSlot(chosen, deploy.request, contract, intact=ready_made),
        f"{chosen} is brought to {deploy.target.revision[:10]}",
    )


def _prepare(standing: Standing, deploy: Deploy, contract: AppContract, draft: Draft) -> None:
    slot = standing.candidate
    if slot is None:
        _take_slot(standing, deploy, contract, draft)
        return
    record = slot.record
    if record is None or record.deploy_id != deploy.id:
        if not slot.vacant or slot.busy or slot is standing.live:
            _take_slot(standing, deploy, contract, draft)
            return
        ready_made = intact(slot, deploy, draft.now.boot_id)
        draft.do(
            PrepareSlot(slot.name, deploy.request, contract, intact=ready_made),
            f"{slot.name} is brought to {deploy.target.revision[:10]}",
        )
        return
    match record.stage:
        case Stage.PREPARED:
            _start(slot, deploy, contract, draft)
        case Stage.FAILED:
            reason = record.reason or Reason.CHECKOUT_FAILED
            _fail(deploy, slot, reason, record.detail, draft)
        case Stage.PREPARING if "prepare" in slot.busy:
            _await_preparation(slot, deploy, contract, draft)
        case _:
            # Whoever prepared it is gone; nothing says how far it came.
            _fail(deploy, slot, Reason.DAEMON_STOPPED, "the preparation was cut off", draft)


def _await_preparation(
    slot: ObservedSlot, deploy: Deploy, contract: AppContract, draft: Draft
) -> None:
    # The last time it entered: before that it may have waited for a slot to drain.
    entered = [step for step in deploy.progress if step.phase is Phase.PREPARING]
    begun = entered[-1].instant if entered else draft.now
    due = begun + contract.setup_timeout + EXPORT_PATIENCE
    if draft.now.reached(due):
        detail = f"{slot.name} was not prepared within {contract.setup_timeout + EXPORT_PATIENCE}"
        draft.do(RecordVerdict(deploy.id, _unheard(detail)), detail)
    else:
        draft.wait(f"{slot.name} is being prepared", due)


def _start(slot: ObservedSlot, deploy: Deploy, contract: AppContract, draft: Draft) -> None:
    names = tuple(process.name for process in contract.started(When.BEFORE))
    draft.do(Advance(deploy.id, Phase.STARTING, slot.name), "its files are ready")
    draft.do(
        StartInstances(slot.name, deploy.id, deploy.target.revision, contract, names),
        f"{slot.name} boots {deploy.target.revision[:10]}",
    )
    draft.do(Advance(deploy.id, Phase.PROVING, slot.name), "it is started")
    if contract.has_web:
        name = _wanted(deploy, contract)[0]
        draft.do(_probe_named(slot.name, deploy, contract, name), f"the {name} probe is next")


def _probe(
    slot: SlotName, deploy: Deploy, contract: AppContract, probe: str, verdict: str
) -> RunProbe:
    return RunProbe(slot, deploy.id, probe, contract, verdict)


def _wanted(deploy: Deploy, contract: AppContract) -> list[str]:
    """Returns the probes to pass, in order. Without `health` the slot must at least listen."""
    skipped = deploy.request.skip_probes
    first = LISTEN if "health" in skipped else "health"
    deep = contract.health_test is not None and "request" not in skipped
    return [first, "request"] if deep else [first]


def _probe_named(slot: SlotName, deploy: Deploy, contract: AppContract, name: str) -> RunProbe:
    if name == LISTEN:
        bare = replace(contract, health_endpoint=None)
        return _probe(slot, deploy, bare, "health", LISTEN)
    return _probe(slot, deploy, contract, name, name)


def _unheard(detail: str) -> Verdict:
    """Work of ours that was lost says nothing about the revision: it is tried again."""
    return Verdict(STEP, VerdictKind.PROBE, VerdictResult.ERROR, Reason.DAEMON_STOPPED, detail)


def _skipped(deploy: Deploy, probe: str) -> RecordVerdict:
    verdict = Verdict(probe, VerdictKind.PROBE, VerdictResult.SKIPPED, detail=deploy.request.reason)
    return RecordVerdict(deploy.id, verdict)


def _prove(standing: Standing, deploy: Deploy, contract: AppContract, draft: Draft) -> None:
    slot = standing.candidate
    if slot is None or slot.record is None:
        _close(draft, deploy, Reason.DAEMON_STOPPED, "its slot is gone", None)
        return
    if slot.record.deploy_id != deploy.id:
        _prove_warm(standing, deploy, contract, slot, draft)
        return
    if not slot.record.intents and slot.record.stage is Stage.PREPARED:
        _start(slot, deploy, contract, draft)
        return
    failed = next(
        (one for one in deploy.verdicts if not one.passed and one.name not in ("warm", "bake")),
        None,
    )
    if failed is not None:
        reason = failed.reason or Reason.PROBE_TIMEOUT
        _fail(deploy, slot, reason, failed.detail, draft)
    elif contract.has_web:
        _prove_web(standing, deploy, contract, slot, slot.record, draft)
    else:
        _prove_others(standing, deploy, contract, slot, draft)


def _prove_warm(
    standing: Standing, deploy: Deploy, contract: AppContract, slot: ObservedSlot, draft: Draft
) -> None:
    """A rollback into a slot that still runs: one health probe, or else a cold start."""
    verdict = deploy.verdict("warm")
    if is_warm(slot) and verdict is not None and verdict.passed:
        _go_live(standing, deploy, contract, slot, draft)
    elif is_warm(slot) and verdict is None:
        if "probe" not in slot.busy:
            draft.do(_probe(slot.name, deploy, contract, "health", "warm"), "is it still healthy?")
        draft.wait("the warm slot is being asked")
    else:
        if not slot.vacant:
            draft.do(StopSlot(slot.name, kill=True), "the warm slot does not answer any more")
        draft.do(
            Advance(deploy.id, Phase.PREPARING, slot.name), "it does not answer: started afresh"
        )


def _prove_web(
    standing: Standing,
    deploy: Deploy,
    contract: AppContract,
    slot: ObservedSlot,
    record: SlotRecord,
    draft: Draft,
) -> None:
    wanted = _wanted(deploy, contract)
    for name in deploy.request.skip_probes:
        if deploy.verdict(name) is None:
            draft.do(_skipped(deploy, name), "skipped as asked")
    for name in wanted:
        if (verdict := deploy.verdict(name)) is not None and verdict.passed:
            continue
        due = (record.started(WEB) or draft.now) + len(wanted) * contract.health_timeout + PATIENCE
        if draft.now.reached(due):
            detail = f"the {name} probe said nothing in time"
            draft.do(RecordVerdict(deploy.id, _unheard(detail)), detail)
            return
        if "probe" not in slot.busy:
            draft.do(_probe_named(slot.name, deploy, contract, name), f"the {name} probe is next")
        draft.wait(f"the {name} probe is running", due)
        return
    ended = next((one.process for one in slot.instances if not one.up), None)
    if ended or not is_warm(slot):
        detail = f"{ended or WEB} ended after it was proved, before the switch"
        _fail(deploy, slot, Reason.EXITED, detail, draft)
        return
    _go_live(standing, deploy, contract, slot, draft)


def _prove_others(
    standing: Standing, deploy: Deploy, contract: AppContract, slot: ObservedSlot, draft: Draft
) -> None:
    """Without `web` the processes are proved when all have lived for a second."""
    ended = next((one for one in slot.instances if not one.up), None)
    if ended is not None:
        told = "unknown" if ended.exit_status is None else str(ended.exit_status)
        detail = f"{ended.process} exited within its first second, status {told}"
        verdict = Verdict("alive", VerdictKind.PROBE, VerdictResult.FAILED, Reason.EXITED, detail)
        draft.do(RecordVerdict(deploy.id, verdict), detail)
        return
    since = max((one.at.micros for one in slot.record.starts), default=0) if slot.record else 0
    due = Instant(draft.now.boot_id, since) + LIVED
    if not draft.now.reached(due):
        draft.wait("its processes must live for a second", due)
        return
    verdict = Verdict("alive", VerdictKind.PROBE, VerdictResult.PASSED)
    if deploy.verdict("alive") is None:
        draft.do(RecordVerdict(deploy.id, verdict), "all its processes live")
    _go_live(standing, deploy, contract, slot, draft)


def _go_live(
    standing: Standing, deploy: Deploy, contract: AppContract, slot: ObservedSlot, draft: Draft
) -> None:
    """The slot is proved: move the route, have the proxy confirm it, record it. In that order."""
    entered = deploy.entered(Phase.PROVING)
    if contract.has_web and not standing.seen.routed:
        begun = entered.instant if entered else draft.now
        due = begun + contract.health_timeout + PROXY_PATIENCE
        if draft.now.reached(due):
            # A verdict, because once the candidate is stopped all that is seen is that it ended.
            detail = "the proxy did not come up in time; see the log of the proxy"
            verdict = Verdict(
                STEP, VerdictKind.PROBE, VerdictResult.ERROR, Reason.PROXY_DOWN, detail
            )
            draft.do(RecordVerdict(deploy.id, verdict), detail)
        else:
            draft.wait("the proxy is not ready yet", due)
        return
    draft.do(Advance(deploy.id, Phase.SWITCHING, slot.name), "it is proved")
    _move_route(deploy, contract, slot, draft)


def _move_route(deploy: Deploy, contract: AppContract, slot: ObservedSlot, draft: Draft) -> None:
    if contract.has_web:
        draft.do(PublishAddress(slot.name), "the address it really listens on")
    draft.do(SwitchRoute(slot.name), f"{slot.name} becomes live")
    _confirm(deploy, contract, slot, draft)


def _confirm(deploy: Deploy, contract: AppContract, slot: ObservedSlot, draft: Draft) -> None:
    if contract.has_web:
        draft.do(ConfirmRoute(slot.name, deploy.id, contract), "does the proxy dial it?")
    draft.do(Promote(deploy.request, slot.name), "confirmed")


def _switch(standing: Standing, deploy: Deploy, contract: AppContract, draft: Draft) -> None:
    slot = standing.candidate
    if slot is None or slot.record is None:
        _close(draft, deploy, Reason.DAEMON_STOPPED, "its slot is gone", None)
        return
    moved = standing.seen.pointer == PointsTo(slot.name)
    verdict = deploy.verdict("confirm")
    if verdict is not None and not verdict.passed:
        if moved:
            _move_back(standing, slot, draft)
        else:
            _fail(deploy, slot, Reason.NOT_CONFIRMED, verdict.detail, draft)
        return
    if verdict is not None and moved:
        draft.do(Promote(deploy.request, slot.name), "confirmed before")
    elif moved:
        if contract.has_web:
            # What was written before a crash or a reboot may be a stranger's address by now.
            draft.do(PublishAddress(slot.name), "the address it listens on now")
        _confirm(deploy, contract, slot, draft)
    elif contract.has_web and not is_warm(slot):
        detail = "it ended between its proof and the switch"
        # A reboot says nothing about the revision.
        rebooted = slot.record.boot_id != draft.now.boot_id
        _fail(deploy, slot, Reason.DAEMON_STOPPED if rebooted else Reason.EXITED, detail, draft)
    else:
        _move_route(deploy, contract, slot, draft)


def _move_back(standing: Standing, slot: ObservedSlot, draft: Draft) -> None:
    promotions = standing.seen.records.promotions
    before = promotions[-1].slot if promotions else None
    if before is not None and before != slot.name:
        draft.do(SwitchRoute(before), "the proxy did not confirm the switch: back to what was live")
    else:
        draft.do(RemoveRoute(), "the proxy did not confirm the switch, and nothing was live before")


def _fail(
    deploy: Deploy,
    slot: ObservedSlot,
    reason: str,
    detail: str,
    draft: Draft,
) -> None:
    """Ends a deploy: first nothing of it may be left, then it is closed with its reason."""
    record = slot.record
    ours = record is not None and record.deploy_id == deploy.id
    if not ours or slot.vacant:
        if ours and record is not None and not record.vacated:
            draft.do(RetireSlot(slot.name), f"nothing of {slot.name} is left")
        _close(draft, deploy, reason, detail, slot.name if ours else None)
        return
    term_at = record.term_at if record else None
    if term_at is None:
        draft.do(StopSlot(slot.name), f"the candidate failed: {reason}")
        draft.wait("the failed candidate is stopping", draft.now + GRACE)
    elif draft.now.since(term_at) >= UNREAPED_AFTER:
        _close(draft, deploy, reason, f"{detail} (some of its processes cannot be killed)", None)
    elif draft.now.since(term_at) >= GRACE:
        draft.do(StopSlot(slot.name, kill=True), "it did not stop when told to")
        draft.wait("the failed candidate is being killed", draft.now + SOON)
    else:
        draft.wait("the failed candidate is stopping", term_at + GRACE)


def _close(
    draft: Draft, deploy: Deploy, reason: str, detail: str, log_slot: SlotName | None
) -> None:
    transient = reason in TRANSIENT
    judged = reason not in (Reason.MISSING_SECRET, Reason.QUARANTINED) and not transient
    by_deploy = deploy.request.kind is WishKind.DEPLOY
    phase = Phase.REJECTED if reason == Reason.QUARANTINED else Phase.FAILED
    if reason == Reason.DAEMON_STOPPED:
        phase = Phase.INTERRUPTED
    draft.do(
        CloseDeploy(
            deploy.request,
            phase,
            reason,
            detail,
            quarantine=deploy.target if judged and by_deploy else None,
            retry_at=draft.now + _back_off(deploy) if transient else None,
            log_slot=log_slot,
        ),
        f"{phase}: {reason}",
    )


def _back_off(deploy: Deploy) -> timedelta:
    return BACK_OFF[min(deploy.attempt, len(BACK_OFF) - 1)]


def mend_route(standing: Standing, draft: Draft) -> bool:
    """Takes the route back from a slot that was never promoted and that no deploy is proving.

    A deploy that was ended in the moment of its switch leaves it there. True when it did.
    """
    live, promotions = standing.live, standing.seen.records.promotions
    if live is None or live.record is None or not promotions:
        return False
    held = standing.running is not None and standing.running.slot == live.name
    if held or was_promoted(standing.seen, live.record):
        return False
    back = standing.seen.slot(promotions[-1].slot)
    if back is None or back.name == live.name or not is_warm(back):
        return False
    draft.do(SwitchRoute(back.name), f"{live.name} was never promoted: back to {back.name}")
    return True
