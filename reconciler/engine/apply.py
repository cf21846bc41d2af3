"""Apply: the one place from which effects are reached. Does what a step says, decides nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import assert_never

from reconciler.engine.effects import Effects, recorded_contract
from reconciler.model.actions import (
    Action,
    AdoptLive,
    Advance,
    BlankAddress,
    CheckHealth,
    CloseDeploy,
    ConfigureProxy,
    ConfirmRoute,
    DrainSlot,
    EmptyTrash,
    FetchRevision,
    MakeWish,
    NoteAbsence,
    NoteConditions,
    NoteSeen,
    Outcome,
    PrepareSlot,
    Promote,
    PublishAddress,
    RecordVerdict,
    RemoveRoute,
    RetireSlot,
    RetryWish,
    RunProbe,
    StallWish,
    StartInstances,
    StartProxy,
    StopProcesses,
    StopSlot,
    SwitchRoute,
    WarmSlot,
)
from reconciler.model.deploys import (
    STEP,
    Deploy,
    DeployRequest,
    Phase,
    Progress,
    Quarantined,
    Reason,
    Trigger,
    Verdict,
    VerdictKind,
    VerdictResult,
    WishKind,
    WishStatus,
)
from reconciler.model.desired import AppContract, Target
from reconciler.model.errors import (
    DiskPressureError,
    ExportError,
    LaunchError,
    MissingSecretError,
    NotOwnerError,
    PortHeldError,
    PortsExhaustedError,
    ProxyError,
    ReconcilerError,
    SlotBusyError,
    SourceError,
    UnknownHistoryError,
    UnknownRevisionError,
    UserRefusedError,
)
from reconciler.model.names import WEB, AppName, DeployId, SlotName, WishId
from reconciler.model.observed import Health
from reconciler.planning.history import previous
from reconciler.ports import Launch, Preparation

CONFIRM_WITHIN = timedelta(seconds=1)
ANSWER_WITHIN = timedelta(seconds=2)
LOG_TAIL = 50

# What an error of a port means for a deploy. The first match counts.
REASONS: tuple[tuple[type[ReconcilerError], Reason], ...] = (
    (DiskPressureError, Reason.DISK_PRESSURE),
    (MissingSecretError, Reason.MISSING_SECRET),
    (UnknownHistoryError, Reason.UNKNOWN_HISTORY),
    (NotOwnerError, Reason.NOT_OWNER),
    (UnknownRevisionError, Reason.FETCH_FAILED),
    (SourceError, Reason.FETCH_FAILED),
    (ExportError, Reason.CHECKOUT_FAILED),
    (UserRefusedError, Reason.USER_REFUSED),
    (PortsExhaustedError, Reason.PORT_TAKEN),
    (PortHeldError, Reason.PORT_TAKEN),
    (LaunchError, Reason.LAUNCH_FAILED),
    (ProxyError, Reason.PROXY_DOWN),
)

DONE = Outcome()


async def apply(app: AppName, action: Action, effects: Effects) -> Outcome:
    """Carries out one action; an expected failure is an Outcome, and a running deploy that it
    concerns gets it as a verdict, so that the next pass knows."""
    try:
        return await _carry_out(app, action, effects)
    except SlotBusyError as error:
        return Outcome(failed=True, detail=str(error))
    except ReconcilerError as error:
        failed = failure(error)
        await _tell_deploy(action, failed.reason, failed.detail, effects)
        return failed


def failure(error: ReconcilerError) -> Outcome:
    """Returns the outcome that an error of a port means."""
    reason = next((slug for kind, slug in REASONS if isinstance(error, kind)), "")
    return Outcome(failed=True, reason=reason, detail=str(error))


async def _tell_deploy(action: Action, reason: str, detail: str, effects: Effects) -> None:
    match action:
        case PrepareSlot(deploy=request):
            deploy_id = request.id
        case (
            StartInstances(deploy_id=deploy_id, restart=False) | FetchRevision(deploy_id=deploy_id)
        ):
            pass
        case _:
            return
    verdict = Verdict(STEP, VerdictKind.PROBE, VerdictResult.ERROR, reason, detail)
    await effects.store.record_verdict(deploy_id, verdict, effects.clock.wall())


async def _carry_out(app: AppName, action: Action, effects: Effects) -> Outcome:  # noqa: C901, PLR0912, PLR0915 (one list: splitting it hides the order)
    slots, proxy, store, clock = effects.slots, effects.proxy, effects.store, effects.clock
    match action:
        case NoteSeen(head, inputs):
            await store.note_seen(app, head, inputs)
        case NoteAbsence(passes):
            await store.note_absence(app, passes)
        case MakeWish():
            await _make_wish(app, action, effects)
        case AdoptLive():
            await _adopt(app, action, effects)
        case RetryWish(wish, last):
            await _retry(wish.id, last, wish.attempts + 1, effects)
        case StallWish(wish):
            await store.set_wish(wish.id, WishStatus.STALLED)
        case Advance(deploy_id, phase, slot, reason, detail):
            step = progress(effects, phase, slot=slot, reason=reason, detail=detail)
            await store.advance(deploy_id, (step,))
            if phase is Phase.SWITCHING:
                return await _still_wanted(deploy_id, effects)
        case FetchRevision(deploy_id, revision):
            await effects.source.keep({f"try/{app}/{deploy_id}": revision})
        case PrepareSlot():
            return await _prepare(app, action, effects)
        case StartInstances():
            await _start(app, action, effects)
        case RunProbe(slot, _, _, _, _):
            effects.work.begin(app, slot, "probe", _prove(app, action, effects))
        case RecordVerdict(deploy_id, verdict):
            await store.record_verdict(deploy_id, verdict, clock.wall())
        case CheckHealth(slot, _, _):
            effects.work.begin(app, slot, "check", _check(app, action, effects))
        case PublishAddress(slot):
            await slots.publish(app, slot)
        case BlankAddress(slot):
            await slots.blank(app, slot)
        case SwitchRoute(slot):
            await proxy.switch(app, slot)
        case RemoveRoute():
            await proxy.unroute(app)
        case ConfirmRoute(slot, deploy_id, contract):
            return await _confirm(app, slot, deploy_id, contract, effects)
        case Promote(request, slot):
            await _promote(app, request, slot, effects)
        case DrainSlot(slot, since, quiet_since, drained):
            await slots.note_drain(app, slot, since=since, quiet_since=quiet_since, drained=drained)
        case WarmSlot(slot):
            await slots.note_drain(app, slot, since=None, quiet_since=None, drained=False)
        case StopProcesses():
            await _stop_processes(app, action, effects)
        case StopSlot(slot, kill):
            effects.work.stop(app, slot)
            await (slots.kill(app, slot) if kill else slots.terminate(app, slot))
        case RetireSlot(slot):
            await slots.retire(app, slot)
        case CloseDeploy():
            await _close(app, action, effects)
        case EmptyTrash():
            await slots.empty_trash(app)
        case NoteConditions(conditions):
            await store.note_conditions(app, conditions)
        case StartProxy():
            pass
        case ConfigureProxy(table):
            await proxy.ensure(table)
        case _:
            assert_never(action)
    return DONE


async def _still_wanted(deploy_id: DeployId, effects: Effects) -> Outcome:
    """The last look before the route moves: a person may have cancelled it since the pass began."""
    deploy = await effects.store.deploy(deploy_id)
    if deploy is None or deploy.phase is not Phase.SWITCHING:
        return Outcome(failed=True, detail="the deploy was ended before the switch")
    return DONE


def progress(
    effects: Effects,
    phase: Phase,
    *,
    slot: SlotName | None = None,
    reason: str = "",
    detail: str = "",
    log_tail: str = "",
) -> Progress:
    return Progress(
        phase, effects.clock.wall(), effects.clock.now(), slot, reason, detail, log_tail
    )


async def _make_wish(app: AppName, wish: MakeWish, effects: Effects) -> None:
    records = await effects.store.records(app)
    live = records.promotions[-1].target.revision if records.promotions else None
    request = DeployRequest(
        id=DeployId(effects.clock.new_id()),
        wish_id=WishId(effects.clock.new_id()),
        host=effects.host,
        app=app,
        kind=wish.kind,
        target=wish.target,
        contract=wish.contract,
        actor=effects.actor,
        trigger=wish.trigger,
        requested_at=effects.clock.wall(),
        branch=wish.branch,
        message=wish.message,
        reason=wish.reason,
        rolls_back_to=wish.rolls_back_to,
        previous_commit=live,
    )
    quarantine = quarantined(app, wish.quarantine, wish.message, effects)
    await effects.store.record_wish(
        request,
        progress(effects, Phase.QUEUED),
        head=wish.head,
        inputs=wish.inputs,
        quarantine=quarantine,
        pre_empt=wish.kind is not WishKind.DEPLOY,
    )


def quarantined(
    app: AppName, target: Target | None, reason: str, effects: Effects
) -> tuple[Quarantined, ...]:
    if target is None:
        return ()
    return (
        Quarantined(
            app,
            target.revision,
            target.contract_digest,
            target.secrets_digest,
            reason,
            effects.actor,
            effects.clock.wall(),
        ),
    )


async def _adopt(app: AppName, found: AdoptLive, effects: Effects) -> None:
    record = found.record
    request = DeployRequest(
        id=record.deploy_id,
        wish_id=WishId(effects.clock.new_id()),
        host=effects.host,
        app=app,
        kind=WishKind.DEPLOY,
        target=record.target,
        contract=record.contract,
        actor=effects.actor,
        trigger=Trigger.ADOPT,
        requested_at=effects.clock.wall(),
        branch=found.head.branch,
        message="found live by a store that was begun anew",
    )
    await effects.store.record_wish(
        request, progress(effects, Phase.QUEUED), head=found.head, inputs=found.inputs
    )
    await _promote(app, request, found.slot, effects)


async def _retry(wish: WishId, last: DeployRequest, attempt: int, effects: Effects) -> None:
    request = replace(
        last,
        id=DeployId(effects.clock.new_id()),
        actor=effects.actor,
        trigger=Trigger.RETRY,
        requested_at=effects.clock.wall(),
        retry_of=last.id,
        attempt=attempt,
    )
    await effects.store.retry(wish, request, progress(effects, Phase.QUEUED))


async def _prepare(app: AppName, action: PrepareSlot, effects: Effects) -> Outcome:
    request = action.deploy
    granted = await effects.secrets.resolve(app, action.contract)
    if granted.missing:
        raise MissingSecretError(f"not on this host: {', '.join(granted.missing)}")
    if not action.intact and (tracked := await _tracked(action, effects)):
        return await _refuse_tracked(action, tracked, effects)
    revision = request.target.revision
    source = effects.source
    await effects.slots.prepare(
        Preparation(
            app=app,
            slot=action.slot,
            deploy_id=request.id,
            target=request.target,
            contract=action.contract,
            environment=granted.values,
            export=None if action.intact else lambda tree: source.export(revision, tree),
        )
    )
    return DONE


async def _tracked(action: PrepareSlot, effects: Effects) -> str:
    """Returns the shared directory that the commit tracks anything in, empty when there is none."""
    contract = action.contract
    for shared in contract.shared_dirs:
        path = shared if contract.path == "." else f"{contract.path}/{shared}"
        if await effects.source.tracks(action.deploy.target.revision, path):
            return path
    return ""


async def _refuse_tracked(action: PrepareSlot, path: str, effects: Effects) -> Outcome:
    """A commit that tracks what every slot shares would write through the link."""
    detail = (
        f"the commit tracks {path}, which `shared_dirs` keeps outside of Git: "
        f"git rm -r --cached {path}"
    )
    reason = Reason.SHARED_DIR_TRACKED
    verdict = Verdict(STEP, VerdictKind.PROBE, VerdictResult.FAILED, reason, detail)
    await effects.store.record_verdict(action.deploy.id, verdict, effects.clock.wall())
    return Outcome(failed=True, reason=reason, detail=detail)


async def _start(app: AppName, action: StartInstances, effects: Effects) -> None:
    granted = await effects.secrets.resolve(app, action.contract)
    if granted.missing and not action.restart:
        raise MissingSecretError(f"not on this host: {', '.join(granted.missing)}")
    await effects.slots.start(
        Launch(
            app=app,
            slot=action.slot,
            deploy_id=action.deploy_id,
            revision=action.revision,
            contract=action.contract,
            processes=action.processes,
            environment=granted.values,
            restart=action.restart,
        )
    )


async def _prove(app: AppName, action: RunProbe, effects: Effects) -> None:
    instance = effects.slots.instance(app, action.slot)
    probe = effects.probes[action.probe]
    found = await probe.run(instance, action.contract, action.contract.health_timeout)
    verdict = replace(found, name=action.verdict)
    await effects.store.record_verdict(action.deploy_id, verdict, effects.clock.wall())
    if action.probe == "health":
        ok = found.result is VerdictResult.PASSED
        health = Health(ok, 0 if ok else 1, effects.clock.now(), found.reason)
        await effects.slots.note_health(app, action.slot, health)


async def _check(app: AppName, action: CheckHealth, effects: Effects) -> None:
    (before,) = await effects.slots.observe(app, (action.slot,))
    within = action.contract.health_timeout if action.boot else ANSWER_WITHIN
    instance = effects.slots.instance(app, action.slot)
    verdict = await effects.probes["health"].run(instance, action.contract, within)
    if verdict.reason == Reason.EXITED:
        return
    told = f"{verdict.reason}: {verdict.detail}" if verdict.detail else verdict.reason
    if verdict.passed:
        failures = 0
    else:
        # A boot that never answers has used up its patience at once.
        threshold = action.contract.health_failures
        failures = threshold if action.boot else before.health.failures + 1
    health = Health(verdict.passed, failures, effects.clock.now(), told)
    await effects.slots.note_health(app, action.slot, health)


async def _confirm(
    app: AppName, slot: SlotName, deploy_id: DeployId, contract: AppContract, effects: Effects
) -> Outcome:
    (seen,) = await effects.slots.observe(app, (slot,))
    path = contract.health_endpoint or "/"
    if seen.published:
        said = await effects.proxy.confirm(app, seen.published, path, CONFIRM_WITHIN)
    else:
        said = "nothing of the slot listens on its port"
    result = VerdictResult.FAILED if said else VerdictResult.PASSED
    verdict = Verdict(
        "confirm", VerdictKind.PROBE, result, Reason.NOT_CONFIRMED if said else "", said
    )
    await effects.store.record_verdict(deploy_id, verdict, effects.clock.wall())
    return Outcome(failed=bool(said), reason=verdict.reason, detail=said)


async def _promote(app: AppName, request: DeployRequest, slot: SlotName, effects: Effects) -> None:
    before = await effects.store.records(app)
    await effects.store.promote(request, slot, progress(effects, Phase.LIVE, slot=slot))
    effects.decisions.tell()
    refs = {f"live/{app}": request.target.revision}
    if before.promotions:
        refs[f"prev/{app}"] = before.promotions[-1].target.revision
    await effects.source.keep(refs)
    after = await effects.store.records(app)
    back = previous(after.promotions)
    await effects.slots.show_roles(app, slot, back.slot if back else None)


async def _stop_processes(app: AppName, action: StopProcesses, effects: Effects) -> None:
    """SIGTERM now; SIGKILL to what is left after the grace, as work of its own."""
    if not action.grace:
        await effects.slots.kill(app, action.slot, action.processes)
        return
    if WEB in action.processes:
        await effects.slots.note_health(app, action.slot, Health(None, 0, None))
    await effects.slots.terminate(app, action.slot, action.processes)
    kind = f"stop {','.join(action.processes)}"
    effects.work.begin(app, action.slot, kind, _kill_after(app, action, effects))


async def _kill_after(app: AppName, action: StopProcesses, effects: Effects) -> None:
    await effects.clock.sleep(action.grace)
    await effects.slots.kill(app, action.slot, action.processes)


async def _close(app: AppName, action: CloseDeploy, effects: Effects) -> None:
    request = action.deploy
    tail = ""
    if action.log_slot is not None:
        tail = await effects.slots.log_tail(app, request.id, LOG_TAIL)
    if action.retry_at is not None:
        status = WishStatus.OPEN
    elif action.phase is Phase.CANCELLED:
        status = WishStatus.CANCELLED
    else:
        status = WishStatus.FAILED
    reason = f"{action.reason}: {action.detail}" if action.detail else action.reason
    await effects.store.close_deploy(
        request.id,
        progress(effects, action.phase, reason=action.reason, detail=action.detail, log_tail=tail),
        wish_status=status,
        retry_at=action.retry_at,
        quarantine=quarantined(app, action.quarantine, reason, effects),
    )
    effects.decisions.tell()


def contract_of(deploy: Deploy) -> AppContract:
    """Returns the contract recorded with the deploy."""
    return recorded_contract(deploy.request.contract)
