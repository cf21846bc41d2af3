"""The Store port: one suite of promises, a row in `OPENERS` for each implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.model.canonical import Json
from reconciler.model.conditions import Condition, ConditionType
from reconciler.model.deploys import (
    Deploy,
    Phase,
    Reason,
    SeenHead,
    SeenInputs,
    Trigger,
    Verdict,
    VerdictKind,
    VerdictResult,
    WishKind,
    WishStatus,
)
from reconciler.model.errors import RefusedError, StoreError
from reconciler.model.instants import Instant
from reconciler.model.names import AppName, DeployId, WishId
from reconciler.model.observed import AppRecords
from reconciler.ports import Clock, IdempotencyKey, Store
from reconciler.stores.sqlite import open_sqlite
from tests.stores.samples import (
    BLOG,
    BOOT,
    HOST,
    NOON,
    PROVED,
    SHOP,
    SLOT_A,
    SLOT_B,
    HandClock,
    quarantined,
    request,
    revision,
    step,
    target,
)

pytestmark = pytest.mark.anyio


async def _sqlite(directory: Path, clock: Clock) -> Store:
    return await open_sqlite(directory / "autopilot.db", HOST, have_slots=False, clock=clock)


OPENERS: Mapping[str, Callable[[Path, Clock], Awaitable[Store]]] = {"sqlite": _sqlite}


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=sorted(OPENERS))
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock
) -> AsyncIterator[Store]:
    opened = await OPENERS[request.param](tmp_path, clock)
    yield opened
    await opened.close()


async def kinds(store: Store, after: int = 0) -> list[str]:
    return [event.kind for event in await store.events(after, 1_000)]


async def told(store: Store, kind: str) -> list[Mapping[str, Json]]:
    return [event.payload for event in await store.events(0, 1_000) if event.kind == kind]


async def found(store: Store, deploy_id: str) -> Deploy:
    deploy = await store.deploy(DeployId(deploy_id))
    assert deploy is not None
    return deploy


async def go_live(store: Store, number: int, **changes: object) -> Deploy:
    asked = request(number, **changes)  # type: ignore[arg-type]
    await store.record_wish(asked, step())
    await store.promote(asked, SLOT_A, step(Phase.LIVE, number))
    return await found(store, asked.id)


async def status_of(store: Store, app: AppName = SHOP) -> WishStatus:
    wish = (await store.records(app)).wish
    assert wish is not None
    return wish.status


async def test_unknown_app_has_empty_records(store: Store) -> None:
    assert await store.records(SHOP) == AppRecords()


async def test_wish_is_recorded_with_its_first_deploy(store: Store) -> None:
    asked = request(1, message="first", branch="main", skip_probes=("health",), force=True)
    deploy = await store.record_wish(asked, step())
    assert deploy.request == asked
    assert deploy.progress == (step(),)
    seen = await store.records(SHOP)
    assert seen.running == deploy
    assert seen.queued is None
    assert seen.wish is not None
    assert (seen.wish.id, seen.wish.status, seen.wish.attempts) == (
        asked.wish_id,
        WishStatus.OPEN,
        1,
    )
    assert seen.wish.target == asked.target


async def test_every_field_of_a_request_comes_back(store: Store) -> None:
    asked = request(
        7,
        kind=WishKind.ROLLBACK,
        trigger=Trigger.ROLLBACK,
        retry_of=DeployId("a"),
        rolls_back_to=DeployId("b"),
        previous_commit=revision(3),
        reason="it leaks",
        target=target(7, "s" * 64),
    )
    await store.record_wish(asked, step())
    assert (await found(store, asked.id)).request == asked


async def test_records_of_one_app_hold_nothing_of_another(store: Store) -> None:
    await go_live(store, 1, app=BLOG)
    await store.record_wish(request(2, BLOG), step(), quarantine=[quarantined(1, BLOG)])
    await store.note_conditions(BLOG, [Condition(ConditionType.READY, status=True)])
    assert await store.records(SHOP) == AppRecords()


async def test_waiting_deploy_is_superseded_by_a_newer_wish(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.record_wish(request(2), step(micros=5))
    old = await found(store, request(1).id)
    assert old.phase is Phase.SUPERSEDED
    assert old.reason == Reason.SUPERSEDED_BY_NEWER
    seen = await store.records(SHOP)
    assert seen.running is not None
    assert seen.running.id == request(2).id
    assert seen.queued is None


async def test_running_deploy_goes_on_beside_a_newer_wish(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.advance(request(1).id, [step(Phase.PREPARING)])
    await store.record_wish(request(2), step())
    seen = await store.records(SHOP)
    assert seen.running is not None
    assert seen.queued is not None
    assert seen.wish is not None
    assert (seen.running.id, seen.queued.id) == (request(1).id, request(2).id)
    assert seen.wish.id == request(2).wish_id


async def test_at_most_one_deploy_waits(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.advance(request(1).id, [step(Phase.PREPARING)])
    await store.record_wish(request(2), step())
    await store.record_wish(request(3), step())
    seen = await store.records(SHOP)
    assert seen.queued is not None
    assert seen.queued.id == request(3).id
    assert (await found(store, request(2).id)).phase is Phase.SUPERSEDED


async def test_wish_in_back_off_is_superseded_by_a_newer_one(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.close_deploy(
        request(1).id,
        step(Phase.FAILED, reason=Reason.DISK_PRESSURE),
        wish_status=WishStatus.OPEN,
        retry_at=Instant(BOOT, 9),
    )
    await store.record_wish(request(2), step())
    changed = await told(store, "wish.changed")
    assert changed[-1] == {"app": SHOP, "wish_id": request(1).wish_id, "status": "superseded"}


async def test_wish_that_would_be_retried_yields_to_a_newer_one(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.advance(request(1).id, [step(Phase.PREPARING)])
    await store.record_wish(request(2), step())
    await store.close_deploy(
        request(1).id,
        step(Phase.FAILED),
        wish_status=WishStatus.OPEN,
        retry_at=Instant(BOOT, 9),
    )
    with pytest.raises(RefusedError):
        await store.retry(request(1).wish_id, request(3), step())
    seen = await store.records(SHOP)
    assert seen.running is not None
    assert seen.running.id == request(2).id


async def test_pre_empt_ends_the_running_and_the_waiting_deploy(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.advance(request(1).id, [step(Phase.PROVING)])
    await store.record_wish(request(2), step())
    back = request(3, kind=WishKind.ROLLBACK)
    await store.record_wish(back, step(), pre_empt=True)
    for ended in (request(1), request(2)):
        deploy = await found(store, ended.id)
        assert (deploy.phase, deploy.reason) == (Phase.SUPERSEDED, Reason.SUPERSEDED_BY_ROLLBACK)
    seen = await store.records(SHOP)
    assert seen.running is not None
    assert (seen.running.id, seen.queued) == (back.id, None)


async def test_only_if_idle_refuses_and_names_the_open_deploy(store: Store) -> None:
    await store.record_wish(request(1), step())
    with pytest.raises(RefusedError) as refused:
        await store.record_wish(request(2), step(), only_if_idle=True)
    assert refused.value.slug == "deploy-in-progress"
    assert refused.value.deploy_id == request(1).id
    assert await store.deploy(request(2).id) is None


async def test_only_if_idle_is_satisfied_by_a_live_deploy(store: Store) -> None:
    await go_live(store, 1)
    await store.record_wish(request(2), step(), only_if_idle=True)


async def test_of_two_wishes_at_once_only_one_finds_the_app_idle(store: Store) -> None:
    results = await asyncio.gather(
        *(store.record_wish(request(n), step(), only_if_idle=True) for n in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Deploy) for result in results) == 1
    assert sum(isinstance(result, RefusedError) for result in results) == 7
    assert len(await store.deploys(SHOP, 10, None)) == 1


async def test_wish_carries_what_it_took_notice_of(store: Store) -> None:
    head, inputs = SeenHead("main", revision(1)), SeenInputs("c", "s")
    await store.record_wish(request(1), step(), head=head, inputs=inputs)
    seen = await store.records(SHOP)
    assert (seen.seen_head, seen.seen_inputs) == (head, inputs)


async def test_refused_wish_leaves_nothing_behind(store: Store) -> None:
    await store.record_wish(request(1), step())
    last = await store.last_event()
    with pytest.raises(RefusedError):
        await store.record_wish(
            request(2),
            step(),
            head=SeenHead("main", revision(2)),
            quarantine=[quarantined(1)],
            only_if_idle=True,
        )
    seen = await store.records(SHOP)
    assert (seen.seen_head, seen.quarantine) == (None, ())
    assert await store.last_event() == last


async def test_deploy_of_another_host_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="host"):
        await store.record_wish(replace(request(1), host="elsewhere"), step())  # type: ignore[arg-type]


async def test_key_replays_its_deploy_and_changes_nothing(store: Store) -> None:
    key = IdempotencyKey("k-1", "POST /deploy abc")
    first = await store.record_wish(request(1), step(), key=key)
    last = await store.last_event()
    again = await store.record_wish(request(2), step(), only_if_idle=True, key=key)
    assert again == first
    assert await store.last_event() == last


async def test_key_with_another_fingerprint_is_refused(store: Store) -> None:
    await store.record_wish(request(1), step(), key=IdempotencyKey("k-1", "one"))
    with pytest.raises(RefusedError) as refused:
        await store.record_wish(request(2), step(), key=IdempotencyKey("k-1", "two"))
    assert refused.value.slug == "invalid-request"


async def test_key_is_forgotten_after_a_day(store: Store, clock: HandClock) -> None:
    key = IdempotencyKey("k-1", "one")
    await store.record_wish(request(1), step(), key=key)
    clock.time += timedelta(hours=24)
    assert (await store.record_wish(request(2), step(), key=key)).id == request(1).id
    clock.time += timedelta(seconds=1)
    assert (await store.record_wish(request(3), step(), key=key)).id == request(3).id


async def test_retry_adds_a_deploy_and_counts_the_attempt(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.close_deploy(
        request(1).id,
        step(Phase.INTERRUPTED),
        wish_status=WishStatus.OPEN,
        retry_at=Instant(BOOT, 5),
    )
    waiting = (await store.records(SHOP)).wish
    assert waiting is not None
    assert waiting.retry_at == Instant(BOOT, 5)
    again = request(2, wish_id=request(1).wish_id, retry_of=request(1).id)
    deploy = await store.retry(again.wish_id, again, step())
    seen = await store.records(SHOP)
    assert seen.wish is not None
    assert (seen.wish.id, seen.wish.attempts, seen.wish.retry_at) == (again.wish_id, 2, None)
    assert seen.running == deploy


async def test_retry_done_twice_adds_one_deploy(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.interrupt_open(step(Phase.INTERRUPTED), [Phase.QUEUED])
    again = request(2, wish_id=request(1).wish_id)
    first = await store.retry(again.wish_id, again, step())
    second = await store.retry(again.wish_id, replace(again, id=DeployId("other")), step())
    assert second == first
    wish = (await store.records(SHOP)).wish
    assert wish is not None
    assert wish.attempts == 2


@pytest.mark.parametrize(
    "status", [status for status in WishStatus if status is not WishStatus.OPEN]
)
async def test_wish_that_is_not_open_is_not_retried(store: Store, status: WishStatus) -> None:
    await store.record_wish(request(1), step())
    await store.close_deploy(request(1).id, step(Phase.FAILED), wish_status=status)
    with pytest.raises(RefusedError):
        await store.retry(request(1).wish_id, request(2), step())


async def test_steps_come_back_in_order_with_all_they_say(store: Store) -> None:
    await store.record_wish(request(1), step())
    steps = [
        step(Phase.PREPARING, 10, slot=SLOT_B, reason="waiting-for-drain", detail="deploy-b"),
        step(Phase.STARTING, 20, slot=SLOT_B),
        step(Phase.PROVING, 30),
    ]
    await store.advance(request(1).id, steps)
    deploy = await found(store, request(1).id)
    assert deploy.progress == (step(), *steps)
    assert (deploy.phase, deploy.slot) == (Phase.PROVING, SLOT_B)


async def test_step_said_twice_is_recorded_once(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.advance(request(1).id, [step(Phase.PREPARING, 10)])
    await store.advance(request(1).id, [step(Phase.PREPARING, 11)])
    assert len((await found(store, request(1).id)).progress) == 2


async def test_step_after_the_end_does_not_reopen_a_deploy(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.close_deploy(
        request(1).id,
        step(Phase.CANCELLED, reason=Reason.CANCELLED_BY_REQUEST),
        wish_status=WishStatus.CANCELLED,
    )
    await store.advance(request(1).id, [step(Phase.STARTING), step(Phase.BAKING)])
    deploy = await found(store, request(1).id)
    assert (deploy.phase, deploy.reason) == (Phase.CANCELLED, Reason.CANCELLED_BY_REQUEST)
    assert (await store.records(SHOP)).running is None


async def test_baking_and_draining_leave_a_deploy_live(store: Store) -> None:
    await go_live(store, 1)
    await store.advance(
        request(1).id, [step(Phase.BAKING), step(Phase.PROVING), step(Phase.DRAINING)]
    )
    deploy = await found(store, request(1).id)
    assert [one.phase for one in deploy.progress[1:]] == [
        Phase.LIVE,
        Phase.BAKING,
        Phase.DRAINING,
    ]
    assert deploy.phase is Phase.LIVE


@pytest.mark.parametrize("phase", [Phase.LIVE, Phase.FAILED])
async def test_advance_does_not_decide_a_deploy(store: Store, phase: Phase) -> None:
    await store.record_wish(request(1), step())
    with pytest.raises(ValueError, match="promote or close_deploy"):
        await store.advance(request(1).id, [step(phase)])


async def test_deploy_does_not_end_in_a_phase_that_goes_on(store: Store) -> None:
    await store.record_wish(request(1), step())
    with pytest.raises(ValueError, match="does not end"):
        await store.close_deploy(request(1).id, step(Phase.LIVE), wish_status=WishStatus.MET)


async def test_verdicts_are_kept_in_order(store: Store) -> None:
    failed = Verdict("smoke", VerdictKind.PROBE, VerdictResult.FAILED, "exited", "status 3")
    await store.record_wish(request(1), step())
    await store.record_verdict(request(1).id, PROVED, NOON)
    await store.record_verdict(request(1).id, failed, NOON)
    deploy = await found(store, request(1).id)
    assert deploy.verdicts == (PROVED, failed)
    assert (await told(store, "deploy.verdict"))[1] == {
        "app": SHOP,
        "deploy_id": request(1).id,
        "name": "smoke",
        "kind": "probe",
        "result": "failed",
        "reason": "exited",
    }


async def test_unknown_deploy_and_wish_are_errors(store: Store) -> None:
    nobody, nothing = DeployId("nobody"), WishId("nothing")
    with pytest.raises(StoreError, match="nobody"):
        await store.advance(nobody, [step(Phase.STARTING)])
    with pytest.raises(StoreError, match="nobody"):
        await store.record_verdict(nobody, PROVED, NOON)
    with pytest.raises(StoreError, match="nobody"):
        await store.close_deploy(nobody, step(Phase.FAILED), wish_status=WishStatus.FAILED)
    with pytest.raises(StoreError, match="nothing"):
        await store.set_wish(nothing, WishStatus.STALLED)
    with pytest.raises(StoreError):
        await store.promote(request(5), SLOT_A, step(Phase.LIVE))
    assert await store.deploy(nobody) is None
    assert await store.last_event() == 0


async def test_promotion_makes_live_and_meets_the_wish(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.advance(request(1).id, [step(Phase.SWITCHING, 5)])
    await store.promote(request(1), SLOT_B, step(Phase.LIVE, 9))
    seen = await store.records(SHOP)
    assert await status_of(store) is WishStatus.MET
    assert seen.running is None
    assert seen.live_deploy == await found(store, request(1).id)
    [promotion] = seen.promotions
    assert (promotion.deploy_id, promotion.slot) == (request(1).id, SLOT_B)
    assert (promotion.target, promotion.contract) == (request(1).target, request(1).contract)
    assert promotion.at == Instant(BOOT, 9)


async def test_promotion_done_twice_is_recorded_once(store: Store) -> None:
    await go_live(store, 1)
    last = await store.last_event()
    await store.promote(request(1), SLOT_A, step(Phase.LIVE, 99))
    assert len((await store.records(SHOP)).promotions) == 1
    assert await store.last_event() == last


@pytest.mark.parametrize(
    ("kind", "asked_because", "reason"),
    [
        (WishKind.ROLLBACK, "it leaks", Reason.ROLLED_BACK_BY_REQUEST),
        (WishKind.RETURN, "crash-loop", Reason.CRASH_LOOP),
        (WishKind.RETURN, "", Reason.BAKE_FAILED),
    ],
)
async def test_going_back_marks_the_deploy_it_left(
    store: Store, kind: WishKind, asked_because: str, reason: Reason
) -> None:
    await go_live(store, 1)
    await go_live(store, 2)
    await go_live(store, 3, kind=kind, reason=asked_because, rolls_back_to=request(1).id)
    left = await found(store, request(2).id)
    assert (left.phase, left.reason) == (Phase.ROLLED_BACK, reason)
    assert (await found(store, request(1).id)).phase is Phase.LIVE
    seen = await store.records(SHOP)
    assert [one.deploy_id for one in seen.promotions] == [request(n).id for n in (1, 2, 3)]
    assert seen.promotions[-1].rolls_back_to == request(1).id


async def test_ordinary_promotion_marks_nothing_as_rolled_back(store: Store) -> None:
    await go_live(store, 1)
    await go_live(store, 2)
    assert (await found(store, request(1).id)).phase is Phase.LIVE


async def test_switch_that_a_rollback_pre_empted_too_late_is_recorded_as_live(store: Store) -> None:
    """The pointer has moved: the log must say so, whatever was asked in that moment."""
    await store.record_wish(request(1), step())
    await store.advance(request(1).id, [step(Phase.SWITCHING)])
    back = request(2, kind=WishKind.ROLLBACK)
    await store.record_wish(back, step(), pre_empt=True)
    await store.promote(request(1), SLOT_A, step(Phase.LIVE))
    seen = await store.records(SHOP)
    assert seen.live_deploy is not None
    assert seen.live_deploy.id == request(1).id
    assert seen.running is not None
    assert seen.wish is not None
    assert (seen.running.id, seen.wish.status) == (back.id, WishStatus.OPEN)


async def test_promotions_are_bounded_to_the_newest(store: Store) -> None:
    for number in range(205):
        await go_live(store, number)
    promotions = (await store.records(SHOP)).promotions
    assert len(promotions) == 50
    assert promotions[0].deploy_id == request(155).id
    assert promotions[-1].deploy_id == request(204).id


async def test_closing_ends_a_deploy_and_quarantines_in_one_step(store: Store) -> None:
    await store.record_wish(request(1), step())
    ended = step(Phase.FAILED, 7, reason=Reason.EXITED, detail="status 1", log_tail="boom\n")
    await store.close_deploy(
        request(1).id, ended, wish_status=WishStatus.FAILED, quarantine=[quarantined(1)]
    )
    seen = await store.records(SHOP)
    assert (await found(store, request(1).id)).progress[-1] == ended
    assert seen.running is None
    assert await status_of(store) is WishStatus.FAILED
    assert seen.quarantine == (quarantined(1),)


async def test_closing_an_ended_deploy_leaves_it_as_it_is(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.record_wish(request(2), step())
    last = await store.last_event()
    await store.close_deploy(
        request(1).id,
        step(Phase.FAILED),
        wish_status=WishStatus.FAILED,
        quarantine=[quarantined(1)],
    )
    assert (await found(store, request(1).id)).phase is Phase.SUPERSEDED
    assert (await store.records(SHOP)).quarantine == ()
    assert await store.last_event() == last


async def test_cancelled_wish_is_not_reopened_by_the_end_of_its_deploy(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.set_wish(request(1).wish_id, WishStatus.CANCELLED)
    await store.close_deploy(request(1).id, step(Phase.CANCELLED), wish_status=WishStatus.OPEN)
    assert await status_of(store) is WishStatus.CANCELLED


async def test_wish_status_is_set_and_told_once(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.set_wish(request(1).wish_id, WishStatus.STALLED)
    await store.set_wish(request(1).wish_id, WishStatus.STALLED)
    assert await status_of(store) is WishStatus.STALLED
    assert len(await told(store, "wish.changed")) == 1


async def test_superseded_wish_stays_superseded(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.record_wish(request(2), step())
    last = await store.last_event()
    await store.set_wish(request(1).wish_id, WishStatus.STALLED)
    assert await store.last_event() == last


async def test_interruption_ends_deploys_of_the_phases_and_leaves_wishes_open(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.advance(request(1).id, [step(Phase.STARTING)])
    await store.record_wish(request(1, BLOG), step())
    await go_live(store, 1, app=AppName("wiki"))
    ended = await store.interrupt_open(
        step(Phase.INTERRUPTED, reason=Reason.DAEMON_STOPPED),
        [Phase.PREPARING, Phase.STARTING, Phase.LIVE],
    )
    assert ended == (request(1).id,)
    deploy = await found(store, request(1).id)
    assert (deploy.phase, deploy.reason) == (Phase.INTERRUPTED, Reason.DAEMON_STOPPED)
    assert await status_of(store) is WishStatus.OPEN
    assert (await found(store, request(1, BLOG).id)).phase is Phase.QUEUED
    assert (await found(store, "wiki-deploy-1")).phase is Phase.LIVE


async def test_interruption_supersedes_a_wish_that_a_newer_one_waits_behind(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.advance(request(1).id, [step(Phase.STARTING)])
    await store.record_wish(request(2), step())
    await store.interrupt_open(step(Phase.INTERRUPTED), [Phase.STARTING])
    assert (await told(store, "wish.changed"))[-1]["status"] == "superseded"
    assert await status_of(store) is WishStatus.OPEN


async def test_quarantine_keeps_its_first_reason(store: Store) -> None:
    later = quarantined(1, reason="again", since=NOON + timedelta(hours=1))
    await store.record_wish(request(1), step(), quarantine=[quarantined(1)])
    await store.record_wish(request(2), step(), quarantine=[later])
    assert (await store.records(SHOP)).quarantine == (quarantined(1),)
    assert len(await told(store, "quarantine.added")) == 1


async def test_lift_removes_every_entry_that_covers_the_target(store: Store) -> None:
    whole = quarantined(1)
    exact = quarantined(1, contract_digest="c" * 64)
    other_contract = quarantined(1, contract_digest="d" * 64)
    other_revision = quarantined(2)
    everything = [whole, exact, other_contract, other_revision]
    await store.record_wish(request(3), step(), quarantine=everything)
    await store.record_wish(request(1, force=True), step(), lift=target(1))
    assert (await store.records(SHOP)).quarantine == (other_contract, other_revision)
    lifted = await told(store, "quarantine.lifted")
    assert [one["contract_digest"] for one in lifted] == ["", "c" * 64]


async def test_lift_leaves_other_apps_alone(store: Store) -> None:
    await store.record_wish(request(9, BLOG), step(), quarantine=[quarantined(1, BLOG)])
    await store.record_wish(request(1), step(), lift=target(1))
    assert (await store.records(BLOG)).quarantine == (quarantined(1, BLOG),)


async def test_seen_is_replaced_and_told_only_when_it_moved(store: Store) -> None:
    head, inputs = SeenHead("main", revision(1)), SeenInputs("c", "s")
    await store.note_seen(SHOP, head, inputs)
    last = await store.last_event()
    await store.note_seen(SHOP, head, inputs)
    await store.note_seen(SHOP, None, None)
    assert await store.last_event() == last
    moved = SeenHead("main", revision(2))
    await store.note_seen(SHOP, moved, None)
    seen = await store.records(SHOP)
    assert (seen.seen_head, seen.seen_inputs) == (moved, inputs)
    assert (await kinds(store))[-1] == "head.seen"


async def test_absence_is_counted_and_started_over(store: Store) -> None:
    await store.note_absence(SHOP, 0)
    assert await store.last_event() == 0
    await store.note_absence(SHOP, 2)
    assert (await store.records(SHOP)).absent_passes == 2
    await store.note_absence(SHOP, 0)
    assert (await store.records(SHOP)).absent_passes == 0


async def test_conditions_are_replaced(store: Store) -> None:
    ready = Condition(ConditionType.READY, status=False, reason="Starting", message="wait")
    stalled = Condition(ConditionType.STALLED, status=True, reason="X", message="act")
    await store.note_conditions(SHOP, [stalled, ready])
    assert (await store.records(SHOP)).conditions == (ready, stalled)
    await store.note_conditions(SHOP, [ready])
    assert (await store.records(SHOP)).conditions == (ready,)
    assert (await told(store, "condition.changed"))[-1] == {
        "app": SHOP,
        "type": "Stalled",
        "status": False,
        "reason": "",
        "message": "",
    }


async def test_since_moves_only_with_the_status(store: Store, clock: HandClock) -> None:
    waiting = Condition(ConditionType.READY, status=False, reason="Starting")
    await store.note_conditions(SHOP, [waiting])
    clock.time += timedelta(minutes=1)
    await store.note_conditions(SHOP, [replace(waiting, reason="Proving")])
    assert (await store.conditions(SHOP))[0][1] == NOON
    clock.time += timedelta(minutes=1)
    await store.note_conditions(SHOP, [replace(waiting, status=True, reason="Live")])
    assert (await store.conditions(SHOP))[0][1] == NOON + timedelta(minutes=2)


async def test_equal_conditions_are_told_once(store: Store) -> None:
    stalled = Condition(ConditionType.STALLED, status=True, reason="X", message="m" * 9_000)
    for _ in range(3):
        await store.note_conditions(SHOP, [stalled])
    assert len(await told(store, "condition.changed")) == 1


async def test_deploys_are_paged_newest_first(store: Store) -> None:
    for number in range(5):
        await store.record_wish(request(number), step())
        await store.record_wish(request(number, BLOG), step())
    first = await store.deploys(SHOP, 2, None)
    assert [deploy.id for deploy in first] == [request(4).id, request(3).id]
    rest = await store.deploys(SHOP, 9, first[-1].seq)
    assert [deploy.id for deploy in rest] == [request(n).id for n in (2, 1, 0)]
    everything = await store.deploys(None, 100, None)
    assert len(everything) == 10
    assert [one.seq for one in everything] == sorted((one.seq for one in everything), reverse=True)
    assert all(deploy.progress for deploy in everything)


async def test_known_deploys_picks_out_ours(store: Store) -> None:
    await store.record_wish(request(1), step())
    ids = [request(1).id, "somebody-else", *(f"x-{n}" for n in range(5_000))]
    assert await store.known_deploys(ids) == {request(1).id}
    assert await store.known_deploys([]) == frozenset()


async def test_events_of_a_deploy_come_in_order_and_once(store: Store) -> None:
    await store.record_wish(request(1), step())
    await store.advance(request(1).id, [step(Phase.PREPARING), step(Phase.PROVING)])
    await store.record_verdict(request(1).id, PROVED, NOON)
    await store.promote(request(1), SLOT_A, step(Phase.LIVE))
    back = request(2, kind=WishKind.ROLLBACK)
    await store.record_wish(back, step(), quarantine=[quarantined(1)])
    await store.promote(back, SLOT_B, step(Phase.LIVE))
    assert await kinds(store) == [
        "wish.recorded", "deploy.queued", "deploy.phase", "deploy.phase", "deploy.verdict",
        "deploy.live", "wish.changed", "quarantine.added", "wish.recorded", "deploy.queued",
        "deploy.live", "wish.changed", "deploy.closed",
    ]  # fmt: skip
    assert (await told(store, "deploy.phase"))[0] == {
        "app": SHOP,
        "deploy_id": request(1).id,
        "phase": "preparing",
        "slot": None,
        "reason": "",
    }


async def test_events_are_read_from_where_one_stopped(store: Store) -> None:
    for number in range(5):
        await store.tell("proxy.started", {"number": str(number)})
    events = await store.events(0, 100)
    assert [event.seq for event in await store.events(events[1].seq, 2)] == [
        events[2].seq,
        events[3].seq,
    ]
    assert await store.last_event() == events[-1].seq
    assert len({event.event_id for event in events}) == 5
    assert events[0].payload == {"number": "0"}
    assert (events[0].host_id, events[0].received_at) == (HOST, NOON)


async def test_listeners_are_called_after_the_commit(store: Store) -> None:
    heard: list[str] = []
    store.on_event(lambda: heard.append("event"))
    await store.tell("proxy.started", {})
    assert heard == ["event"]
    await store.note_seen(SHOP, None, None)
    assert heard == ["event"]


async def test_good_manifests_are_kept_for_each_source(store: Store) -> None:
    assert await store.good_manifests("main") is None
    await store.note_good_manifests("main", revision(1))
    await store.note_good_manifests("main", revision(2))
    await store.note_good_manifests("other", revision(3))
    assert await store.good_manifests("main") == revision(2)
    assert await store.good_manifests("other") == revision(3)


async def test_text_that_people_type_is_bounded_and_clean(store: Store) -> None:
    asked = request(1, message="m" * 10_000, reason="nul \0 and half \ud800")
    deploy = await store.record_wish(asked, step())
    assert deploy.request.message == "m" * 4_000
    assert deploy.request.reason == "nul \N{REPLACEMENT CHARACTER} and half ?"


async def test_log_tail_keeps_its_end(store: Store) -> None:
    await store.record_wish(request(1), step())
    ended = step(Phase.FAILED, log_tail="x" * 100_000 + "the cause")
    await store.close_deploy(request(1).id, ended, wish_status=WishStatus.FAILED)
    tail = (await found(store, request(1).id)).progress[-1].log_tail
    assert len(tail) == 64_000
    assert tail.endswith("the cause")


async def test_closed_store_says_so(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.records(SHOP)
