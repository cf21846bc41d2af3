"""Every world there can be, or nearly: pointer, slots, deploy and wish in their combinations.

What must hold in all of them is what a person is promised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

from reconciler.model.actions import (
    Action,
    BlankAddress,
    CheckHealth,
    CloseDeploy,
    MakeWish,
    NoteConditions,
    Plan,
    PrepareSlot,
    Promote,
    PublishAddress,
    RetireSlot,
    RunProbe,
    StartInstances,
    StopProcesses,
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
    Trigger,
    WishKind,
    WishStatus,
)
from reconciler.model.desired import AppContract
from reconciler.model.names import WEB, SlotName
from reconciler.model.observed import (
    UNKNOWN_HEALTH,
    NoPointer,
    ObservedApp,
    ObservedSlot,
    Pointer,
    PointsTo,
    Stage,
    Start,
    UnknownPointer,
)
from reconciler.planning.candidate import UNREAPED_AFTER
from reconciler.planning.release import plan_release
from reconciler.planning.standing import is_warm, stand, stopping
from tests.planning.worlds import (
    FIRST,
    LAST_BOOT,
    NOW,
    PLAIN,
    SECOND,
    SLOT_A,
    SLOT_B,
    SLOT_C,
    THIRD,
    UNHEALTHY,
    A,
    actions,
    ago,
    contract,
    deploy,
    desired,
    down,
    failed,
    head,
    later,
    live_deploy,
    noted,
    observed,
    promotion,
    record,
    records_of,
    request,
    serving,
    settled,
    slot,
    step,
    verdict,
    wish,
)

BACK = request(4, A, WishKind.ROLLBACK, rolls_back_to=FIRST.id)
TWO_SLOTS = contract(slots=2)


@dataclass(frozen=True)
class Case:
    """One world, named after what it was made of."""

    name: str
    seen: ObservedApp
    of: AppContract
    plan: Plan

    @property
    def steps(self) -> list[Action]:
        return actions(self.plan)

    def told(self, action: object) -> str:
        return f"{self.name}: {action}"


def live_states() -> Mapping[str, ObservedSlot]:
    up = serving(SLOT_A, SECOND)
    five = tuple(Start(WEB, ago(seconds)) for seconds in (20, 19, 17, 13, 5))
    return {
        "healthy": up,
        "unknown": replace(up, health=UNKNOWN_HEALTH, published=""),
        "checked": replace(up, health=UNKNOWN_HEALTH, published="", busy=frozenset({"check"})),
        "unhealthy": replace(up, health=UNHEALTHY),
        "stopping": replace(up, health=UNKNOWN_HEALTH, published="", busy=frozenset({"stop web"})),
        "crashed": down(up),
        "looping": noted(down(up), starts=five),
        "rebooted": noted(
            replace(down(up), health=UNKNOWN_HEALTH),
            boot_id=LAST_BOOT,
            starts=(Start(WEB, replace(ago(9), boot_id=LAST_BOOT)),),
        ),
        "told to stop": noted(up, term_at=ago(1)),
        "told long ago": noted(up, term_at=ago(60)),
        "drained by mistake": noted(up, drain_since=ago(60), drained=True),
    }


def previous_states() -> Mapping[str, ObservedSlot]:
    up = replace(serving(SLOT_B, FIRST), connections=None)
    return {
        "reused": slot(SLOT_B),
        "undrained": up,
        "busy": noted(replace(up, connections=2), drain_since=ago(1), quiet_since=ago(0.5)),
        "quiet": noted(replace(up, connections=0), drain_since=ago(1), quiet_since=ago(0.5)),
        "drained": noted(up, drain_since=ago(2), quiet_since=ago(1), drained=True),
        "told to stop": noted(up, drain_since=ago(20), drained=True, term_at=ago(0.1)),
        "stubborn": noted(up, drain_since=ago(20), drained=True, term_at=ago(9)),
        "unkillable": noted(up, drained=True, term_at=ago(60), kill_at=ago(50)),
        "ended": down(up),
        "cold": noted(down(up), vacated=True),
        "rebooted": noted(down(up), boot_id=LAST_BOOT, drain_since=replace(NOW, boot_id=LAST_BOOT)),
    }


def candidate_states(one: Deploy | None) -> Mapping[str, ObservedSlot]:
    asked = one.request if one is not None else THIRD
    files = record(asked)
    up = replace(serving(SLOT_C, asked, since=ago(2)), published="", health=UNKNOWN_HEALTH)
    preparing = slot(SLOT_C, replace(files, stage=Stage.PREPARING))
    return {
        "empty": slot(SLOT_C),
        "prepared": slot(SLOT_C, files),
        "preparing": replace(preparing, vacant=False, busy=frozenset({"prepare"})),
        "lost": preparing,
        "failed": slot(SLOT_C, replace(files, stage=Stage.FAILED, reason=Reason.SETUP_EXIT)),
        "up": up,
        "probed": replace(up, busy=frozenset({"probe"})),
        "ended": down(up),
        "told to stop": noted(up, term_at=ago(0.1)),
        "stubborn": noted(up, term_at=ago(2)),
        "unkillable": noted(up, term_at=ago(60), kill_at=ago(50)),
        "rebooted": noted(down(up), boot_id=LAST_BOOT),
        "another's": noted(serving(SLOT_C, request(9, A)), term_at=ago(0.1)),
    }


NOT_CHOSEN = ("empty", "another's")
STOPPED = ("told to stop", "stubborn", "unkillable")
CHOSEN = ("empty", "prepared", "preparing", "lost", "failed", *STOPPED, "another's")
STARTED = ("prepared", "up", "probed", "ended", "rebooted", *STOPPED)
PROVED = ("up", "ended", "rebooted", *STOPPED)


def reachable(one: Deploy) -> tuple[str, ...]:
    """Returns the states in which the slot deploy-c can be while the deploy is that far."""
    if one.slot != SLOT_C:
        return NOT_CHOSEN
    match one.phase:
        case Phase.PREPARING:
            return CHOSEN
        case Phase.SWITCHING:
            return PROVED
        case _:
            return STARTED


def courses() -> Iterator[tuple[str, Deploy]]:
    """Deploys under way, with what was found of them so far."""
    fetching = (step(Phase.FETCHING, ago(5)), step(Phase.GATING, ago(5)))
    preparing = (*fetching, step(Phase.PREPARING, ago(4), SLOT_C))
    proving = (
        *preparing,
        step(Phase.STARTING, ago(2), SLOT_C),
        step(Phase.PROVING, ago(2), SLOT_C),
    )
    switching = (*proving, step(Phase.SWITCHING, ago(0.1), SLOT_C))
    healthy = verdict("health")
    yield "queued", deploy(THIRD)
    yield "fetching", deploy(THIRD, *fetching[:1], verdicts=[failed(STEP, Reason.FETCH_FAILED)])
    yield (
        "waiting",
        deploy(THIRD, *fetching, step(Phase.PREPARING, ago(4), reason="waiting-for-drain")),
    )
    yield "preparing", deploy(THIRD, *preparing)
    yield "stuck", deploy(THIRD, *preparing, verdicts=[failed(STEP, Reason.LAUNCH_FAILED)])
    yield "proving", deploy(THIRD, *proving)
    yield "proved", deploy(THIRD, *proving, verdicts=[healthy])
    yield "unhealthy", deploy(THIRD, *proving, verdicts=[failed("health", Reason.BAD_STATUS)])
    yield "switching", deploy(THIRD, *switching, verdicts=[healthy])
    yield "confirmed", deploy(THIRD, *switching, verdicts=[healthy, verdict("confirm")])
    yield (
        "unconfirmed",
        deploy(THIRD, *switching, verdicts=[healthy, failed("confirm", Reason.NOT_CONFIRMED)]),
    )
    warming = step(Phase.PROVING, ago(0.1), SLOT_B)
    yield "rollback", deploy(BACK)
    yield "warming", deploy(BACK, warming)
    yield "warm", deploy(BACK, warming, verdicts=[verdict("warm")])
    yield "not warm", deploy(BACK, warming, verdicts=[failed("warm", Reason.BAD_STATUS)])
    yield "cold", deploy(BACK, *fetching, step(Phase.PREPARING, ago(4), SLOT_B))
    yield (
        "returning",
        deploy(BACK, warming, step(Phase.SWITCHING, NOW, SLOT_B), verdicts=[verdict("warm")]),
    )


def wishes() -> Iterator[tuple[str, WishStatus, float | None]]:
    """How the newest wish may stand while nothing is under way."""
    yield "met", WishStatus.MET, None
    yield "failed", WishStatus.FAILED, None
    yield "due", WishStatus.OPEN, -1
    yield "waiting for its retry", WishStatus.OPEN, 5


def world(
    pointer: Pointer, slots: list[ObservedSlot], of: AppContract, *, baking: bool
) -> ObservedApp:
    seconds = 10 if baking else 100
    records = records_of(
        of=of,
        promotions=(promotion(FIRST, SLOT_B, 1), promotion(SECOND, SLOT_A, 2, ago(seconds))),
        live_deploy=live_deploy(SECOND, SLOT_A, seconds_ago=seconds),
        wish=wish(SECOND, WishStatus.MET),
    )
    return observed(pointer, slots, records, head=head(A), live_contract=of)


def neighbours() -> Iterator[tuple[str, str]]:
    """States of live and previous. What ails one is seen with all that may be the matter with the
    other where it is well, ended or quite gone."""
    for live, before in product(live_states(), previous_states()):
        if live == "healthy" or before in {"drained", "undrained", "cold"}:
            yield live, before


def under_way() -> Iterator[tuple[str, ObservedApp, AppContract]]:
    lives, befores = live_states(), previous_states()
    for (phase, one), of in product(courses(), (PLAIN, TWO_SLOTS)):
        if of is TWO_SLOTS and one.slot == SLOT_C:
            continue
        pointers = [PointsTo(SLOT_A)]
        if one.phase is Phase.SWITCHING and one.slot is not None:
            pointers.append(PointsTo(one.slot))
        candidates = candidate_states(one)
        for pointer, (live, before), candidate in product(pointers, neighbours(), reachable(one)):
            if before == "reused" and one.slot == SLOT_B:
                continue
            slots = [lives[live], befores[before], candidates[candidate]]
            seen = world(pointer, slots, of, baking=len(before) % 2 == 0)
            asked = wish(one.request)
            records = replace(seen.records, running=one, last_deploy=one, wish=asked)
            name = f"{phase}, {pointer}, live {live}, {before}, {candidate}"
            yield name, replace(seen, running_contract=of, records=records), of


def at_rest() -> Iterator[tuple[str, ObservedApp, AppContract]]:
    lives, befores, candidates = live_states(), previous_states(), candidate_states(None)
    for (how, status, retry), (live, before), candidate, baking in product(
        wishes(), neighbours(), candidates, (True, False)
    ):
        slots = [lives[live], befores[before], candidates[candidate]]
        seen = world(PointsTo(SLOT_A), slots, PLAIN, baking=baking)
        if status is not WishStatus.MET:
            ended = step(Phase.FAILED, ago(1), reason=Reason.PORT_TAKEN)
            due = later(retry) if retry is not None else None
            seen = replace(
                seen,
                records=replace(
                    seen.records,
                    wish=wish(THIRD, status, retry_at=due),
                    last_deploy=deploy(THIRD, ended),
                ),
            )
        yield f"{how}, live {live}, {before}, {candidate}, baking {baking}", seen, PLAIN


@cache
def cases() -> tuple[Case, ...]:
    return tuple(
        Case(name, seen, of, plan_release(desired(of), seen, NOW))
        for name, seen, of in (*under_way(), *at_rest())
    )


def slot_of(action: Action) -> SlotName | None:
    found = getattr(action, "slot", None)
    return SlotName(found) if isinstance(found, str) else None


def test_there_are_thousands_of_worlds() -> None:
    assert len(cases()) > 5_000


def test_live_is_only_tended() -> None:
    allowed = (BlankAddress, CheckHealth, PublishAddress, StartInstances, StopProcesses, WarmSlot)
    for case in cases():
        live = case.seen.live
        if live is None or stand(desired(case.of), case.seen, NOW).candidate is live:
            continue
        for action in case.steps:
            if slot_of(action) == live.name:
                moved_back = isinstance(action, SwitchRoute | Promote)
                assert isinstance(action, allowed) or moved_back, case.told(action)


def test_live_is_stopped_only_when_it_is_dead_unhealthy_or_was_told_to_stop() -> None:
    for case in cases():
        live = case.seen.live
        for action in case.steps:
            if live is None or live.record is None or slot_of(action) != live.name:
                continue
            web = live.instance(WEB)
            ill = live.health.failures >= 3 or live.record.term_at is not None
            if isinstance(action, StopProcesses | BlankAddress):
                assert web is None or not web.up or ill, case.told(action)
            if isinstance(action, StartInstances):
                assert action.restart, case.told(action)


def test_no_slot_is_prepared_that_is_live_or_not_empty_or_previous_while_unproved() -> None:
    for case in cases():
        standing = stand(desired(case.of), case.seen, NOW)
        for action in case.steps:
            if not isinstance(action, PrepareSlot):
                continue
            chosen = case.seen.slot(action.slot)
            assert chosen is not None
            assert chosen.vacant, case.told(action)
            assert chosen is not case.seen.live, case.told(action)
            rollback = action.deploy.kind is not WishKind.DEPLOY
            if case.of.slots > 2 and not (rollback and action.deploy.target.revision == A):
                assert chosen is not standing.previous, case.told(action)


def test_the_route_moves_only_to_what_is_proved_and_wanted_or_back() -> None:
    for case in cases():
        for action in case.steps:
            if not isinstance(action, SwitchRoute):
                continue
            running = case.seen.records.running
            assert running is not None, case.told(action)
            confirm = running.verdict("confirm")
            if confirm is not None and not confirm.passed:
                assert action.slot == case.seen.records.promotions[-1].slot, case.told(action)
                continue
            chosen = case.seen.slot(action.slot)
            assert chosen is not None
            assert chosen.record is not None
            assert chosen.record.target.revision == running.target.revision, case.told(action)
            ours = chosen.record.deploy_id == running.id
            proof = running.verdict("health" if ours else "warm")
            assert proof is not None, case.told(action)
            assert proof.passed, case.told(action)
            assert is_warm(chosen), case.told(action)


def test_only_what_was_proved_and_confirmed_is_promoted() -> None:
    for case in cases():
        kinds = [type(action) for action in case.steps]
        if Promote not in kinds:
            continue
        running = case.seen.records.running
        assert running is not None
        before = [kind.__name__ for kind in kinds[: kinds.index(Promote)]]
        assert running.verdict("confirm") or "ConfirmRoute" in before, case.name


def test_a_deploy_fails_only_when_nothing_of_it_is_left_or_it_cannot_be_killed() -> None:
    for case in cases():
        for action in case.steps:
            if not isinstance(action, CloseDeploy):
                continue
            for one in case.seen.slots:
                if one.record is None or one.record.deploy_id != action.deploy.id or one.vacant:
                    continue
                term_at = one.record.term_at
                assert term_at is not None, case.told(action)
                assert NOW.since(term_at) >= UNREAPED_AFTER, case.told(action)


def test_only_a_verdict_against_the_target_quarantines_it() -> None:
    for case in cases():
        for action in case.steps:
            if isinstance(action, CloseDeploy) and action.quarantine is not None:
                assert action.reason not in TRANSIENT, case.told(action)
                assert action.deploy.kind is WishKind.DEPLOY, case.told(action)
                assert action.quarantine == action.deploy.target, case.told(action)
            if isinstance(action, MakeWish) and action.quarantine is not None:
                assert action.trigger is Trigger.BAKE, case.told(action)


def test_nothing_is_done_twice_to_a_slot_in_ways_that_exclude_each_other() -> None:
    for case in cases():
        begun = {
            slot_of(one) for one in case.steps if isinstance(one, PrepareSlot | RunProbe | WarmSlot)
        }
        ended = {slot_of(one) for one in case.steps if isinstance(one, StopSlot | RetireSlot)}
        assert not begun & ended, f"{case.name}: {case.steps}"


def test_a_process_that_is_about_to_be_killed_is_not_started() -> None:
    for case in cases():
        for action in case.steps:
            if isinstance(action, StartInstances):
                chosen = case.seen.slot(action.slot)
                assert chosen is not None
                assert not stopping(chosen) & set(action.processes), case.told(action)


def test_every_plan_without_steps_looks_again_in_the_future() -> None:
    for case in cases():
        wake_at = case.plan.wake_at
        if wake_at is not None and not case.plan.steps:
            assert wake_at.boot_id == NOW.boot_id, case.name
            assert not NOW.reached(wake_at), case.name


def test_nothing_is_ever_stuck() -> None:
    for case in cases():
        if case.steps or case.plan.wake_at is not None:
            continue
        records = case.seen.records
        busy = any(one.busy for one in case.seen.slots)
        idle = records.running is None and (
            records.wish is None or records.wish.status is not WishStatus.OPEN
        )
        assert busy or idle, case.name


def test_equal_inputs_give_equal_plans() -> None:
    for case in cases()[::17]:
        assert plan_release(desired(case.of), case.seen, NOW) == case.plan


def test_conditions_once_noted_are_not_noted_again() -> None:
    for case in cases()[::17]:
        again = plan_release(desired(case.of), settled(case.seen, case.plan), NOW)
        assert not [one for one in again.steps if isinstance(one.action, NoteConditions)]


def test_an_unknown_pointer_stops_everything() -> None:
    for case in cases()[::17]:
        lost = replace(case.seen, pointer=UnknownPointer("/elsewhere"), live_contract=None)
        plan = plan_release(desired(case.of), lost, NOW)
        assert actions(plan) == [], case.name
        assert any(one.reason == "PointerUnknown" for one in plan.conditions)


def test_an_app_that_was_never_live_has_no_route_moved_but_by_its_deploy() -> None:
    for case in cases()[::17]:
        fresh = replace(
            case.seen,
            pointer=NoPointer(),
            live_contract=None,
            records=replace(case.seen.records, promotions=(), live_deploy=None),
        )
        for action in actions(plan_release(desired(case.of), fresh, NOW)):
            if isinstance(action, SwitchRoute):
                assert case.seen.records.running is not None, case.name


def test_a_converged_world_plans_nothing() -> None:
    lives, befores = live_states(), previous_states()
    for before in ("reused", "cold"):
        seen = world(PointsTo(SLOT_A), [lives["healthy"], befores[before]], PLAIN, baking=False)
        first = plan_release(desired(), seen, NOW)
        plan = plan_release(desired(), settled(seen, first), NOW)
        assert plan.steps == ()
        assert plan.pending == ()
        assert plan.wake_at is not None
        assert not NOW.reached(plan.wake_at)
