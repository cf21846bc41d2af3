"""What a person sees happen, played through: deploys, failures, rollbacks, crashes, reboots."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from reconciler.model.actions import (
    BlankAddress,
    ConfirmRoute,
    PrepareSlot,
    PublishAddress,
    StartInstances,
    StopProcesses,
    SwitchRoute,
)
from reconciler.model.conditions import ConditionType
from reconciler.model.deploys import Phase, Reason, Trigger, WishKind, WishStatus
from reconciler.model.desired import Target
from reconciler.model.names import WEB
from reconciler.model.observed import NoPointer, PointsTo, Stage
from reconciler.planning.history import previous
from reconciler.planning.standing import stand
from reconciler.planning.status import app_plan
from tests.planning.simulation import MS, Behaviour, World, world
from tests.planning.worlds import (
    SLOT_A,
    SLOT_B,
    SLOT_C,
    WORKER,
    A,
    B,
    C,
    D,
    contract,
)

SECOND = timedelta(seconds=1)
NEVER_HEALTHY = Behaviour(healthy=False)
DIES_AT_BOOT = Behaviour(lives=5 * MS)
# Proved at once, then it ends again and again.
CRASH_LOOP = Behaviour(boots_in=10 * MS, lives=200 * MS)
STUBBORN = Behaviour(ignores_term=True)


def with_second(**document: int | str) -> World:
    """Returns a world in which A was live and B is, nothing under way."""
    one = world(**document)
    one.push(B)
    one.settle()
    return one


def test_a_healthy_push_goes_live() -> None:
    one = with_second()
    assert one.live() == B
    assert one.last().phase is Phase.LIVE
    assert one.failures == []


def test_a_push_of_what_is_live_is_converged() -> None:
    one = world()
    before = len(one.courses)
    one.push(A)
    plan = one.settle()
    assert len(one.courses) == before
    assert not plan.steps


def test_asked_to_deploy_what_is_live_it_rolls_to_another_slot() -> None:
    one = world()
    one.deploy(A)
    one.settle()
    assert one.pointer == PointsTo(SLOT_B)
    assert one.live() == A


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (NEVER_HEALTHY, Reason.PROBE_TIMEOUT),
        (DIES_AT_BOOT, Reason.EXITED),
        (Behaviour(setup_fails=True), Reason.SETUP_EXIT),
        (replace(NEVER_HEALTHY, ignores_term=True), Reason.PROBE_TIMEOUT),
    ],
)
def test_a_bad_candidate_leaves_live_untouched_and_nothing_behind(
    behaviour: Behaviour, reason: Reason
) -> None:
    one = world(setup_timeout_ms=1000)
    one.behaviours[B] = behaviour
    one.push(B)
    one.settle(at_most=timedelta(minutes=30))
    assert (one.last().phase, one.last().reason) == (Phase.FAILED, reason)
    assert one.live() == A
    assert one.up_in(SLOT_B) == set()
    assert one.stalls() == "DeployFailed"
    assert [held.revision for held in one.records.quarantine] == [B]


def test_a_preparation_of_which_nothing_is_heard_is_stopped_and_tried_again() -> None:
    one = world()
    one.behaviours[B] = Behaviour(setup_hangs=True)
    one.push(B)
    one.until(lambda: one.last().phase is Phase.INTERRUPTED, passes=900)
    one.behaviours[B] = Behaviour()
    one.settle()
    assert one.live() == B
    assert one.records.quarantine == ()


def test_a_deploy_cancelled_in_the_moment_of_an_unconfirmed_switch_gives_the_route_back() -> None:
    one = world()
    one.confirms = False
    one.push(B)
    one.until(lambda: one.pointer == PointsTo(SLOT_B))
    one.cancel()
    one.settle()
    assert one.live() == A
    assert one.up_in(SLOT_B) == set()


def test_the_processes_of_a_failed_deploy_are_gone_before_it_is_closed() -> None:
    one = world()
    one.behaviours[B] = replace(STUBBORN, healthy=False)
    one.push(B)
    one.until(lambda: one.last().phase is Phase.FAILED)
    assert one.up_in(SLOT_B) == set()


def test_a_failed_deploy_whose_processes_cannot_be_killed_is_closed_and_told() -> None:
    one = world()
    one.behaviours[B] = Behaviour(healthy=False, ignores_term=True, unkillable=True)
    one.push(B)
    one.wait(timedelta(seconds=60))
    assert one.last().phase is Phase.FAILED
    assert "cannot be killed" in one.last().progress[-1].detail
    assert "Unkillable" in one.stalls()
    before = one.passes
    one.wait(timedelta(seconds=10))
    assert one.passes - before < 40, "it kills without a pause"
    assert one.live() == A


def test_a_slot_that_cannot_be_emptied_is_not_used() -> None:
    one = world()
    one.behaviours[B] = Behaviour(healthy=False, ignores_term=True, unkillable=True)
    one.push(B)
    one.wait(timedelta(seconds=60))
    one.push(C)
    one.until(lambda: one.live() == C)
    assert one.pointer == PointsTo(SLOT_C)


def test_rollback_returns_to_previous_at_once() -> None:
    one = with_second()
    asked = one.rollback()
    assert asked is not None
    began = one.now
    one.until(lambda: one.live() == A)
    assert one.now.since(began) < 30 * MS
    assert one.last().entered(Phase.PREPARING) is None


def test_a_rolled_back_revision_never_comes_back_by_itself() -> None:
    one = with_second()
    one.rollback()
    one.settle()
    one.push(B)
    one.settle()
    one.reboot()
    one.settle()
    one.restart_daemon()
    one.settle()
    assert one.live() == A
    assert len(one.deploys_of(B)) == 1


def test_a_rollback_holds_and_the_plan_is_converged_while_it_does() -> None:
    one = with_second()
    one.rollback()
    plan = one.settle()
    told = app_plan(plan, stand(one.desired, one.look(), one.now))
    assert told["converged"]
    assert told["held"]


def test_there_and_back_again_makes_the_other_one_previous() -> None:
    one = with_second()
    one.deploy(A)
    one.settle()
    back = previous(one.promotions)
    assert one.live() == A
    assert back is not None
    assert back.target.revision == B


def test_without_previous_there_is_no_rollback() -> None:
    one = world()
    assert one.rollback() is None


def test_a_second_rollback_goes_further_back_and_a_third_has_nowhere_to_go() -> None:
    one = with_second()
    one.push(C)
    one.settle()
    one.rollback()
    one.settle()
    assert one.live() == B
    one.rollback()
    one.settle()
    assert one.live() == A
    assert one.rollback() is None


def test_what_a_rollback_left_is_not_previous_and_is_stopped() -> None:
    one = with_second()
    one.rollback()
    one.settle()
    assert previous(one.promotions) is None
    assert one.up_in(SLOT_B) == set()


def test_a_rollback_in_the_middle_of_the_drain_takes_the_drain_back() -> None:
    one = world()
    one.behaviours[A] = Behaviour(lingers=timedelta(seconds=5))
    one.slots[SLOT_A].processes[0].behaviour = one.behaviours[A]
    one.push(B)
    one.until(lambda: _draining(one))
    one.rollback()
    one.settle()
    record = one.slots[SLOT_A].record
    assert one.live() == A
    assert record is not None
    assert (record.drain_since, record.drained, record.term_at) == (None, False, None)


def _draining(one: World) -> bool:
    record = one.slots[SLOT_A].record
    return record is not None and record.drain_since is not None


def test_a_rollback_at_the_moment_previous_goes_cold_does_not_stop_what_it_warms() -> None:
    one = with_second()
    one.until(lambda: one.now.since(one.promotions[-1].at) >= timedelta(seconds=29.9))
    one.now = one.promotions[-1].at + timedelta(seconds=30)
    one.rollback()
    one.settle()
    assert one.live() == A
    assert one.last().entered(Phase.PREPARING) is None


def test_a_rollback_to_a_cold_previous_starts_it_again() -> None:
    one = with_second()
    one.wait(timedelta(seconds=40))
    assert one.up_in(SLOT_A) == set()
    one.rollback()
    one.settle()
    assert one.live() == A
    assert one.failures == []
    prepared = [each for each in one.done if isinstance(each, PrepareSlot)][-1]
    assert (prepared.slot, prepared.intact) == (SLOT_A, True), "its files are there already"


def test_a_rollback_whose_warm_slot_does_not_answer_starts_it_afresh() -> None:
    one = with_second()
    one.slots[SLOT_A].processes[0].behaviour = NEVER_HEALTHY
    one.rollback()
    one.settle()
    assert one.live() == A
    assert one.last().entered(Phase.PREPARING) is not None


def test_a_rollback_whose_warm_slot_died_in_the_meantime_starts_it_afresh() -> None:
    one = with_second()
    one.slots[SLOT_A].processes[0].behaviour = NEVER_HEALTHY
    one.rollback()
    one.until(lambda: one.last().phase is Phase.PROVING)
    one.slots[SLOT_A].processes[0].end_by(one.now)
    one.settle()
    assert one.live() == A


def test_rollback_to_a_revision_whose_slot_was_reused_checks_it_out_again() -> None:
    one = with_second()
    for revision in (C, D):
        one.push(revision)
        one.settle()
        one.wait(timedelta(seconds=40))
    one.rollback(A)
    one.settle()
    assert one.live() == A


def test_rollback_then_deploy() -> None:
    one = with_second()
    one.rollback()
    one.settle()
    one.push(C)
    one.settle()
    assert one.live() == C


def test_rollback_right_after_a_failed_deploy_goes_to_the_one_before_live() -> None:
    one = with_second()
    one.behaviours[C] = DIES_AT_BOOT
    one.push(C)
    one.settle()
    one.rollback()
    one.settle()
    assert one.live() == A


def test_a_rollback_preempts_a_running_deploy() -> None:
    one = with_second()
    one.push(C)
    one.until(lambda: one.last().phase is Phase.PROVING)
    one.rollback()
    one.settle()
    assert one.deploys_of(C)[-1].phase is Phase.SUPERSEDED
    assert one.live() == A
    assert one.up_in(SLOT_C) == set()


def test_a_rollback_does_not_ask_for_secrets_that_only_the_new_contract_names() -> None:
    one = with_second()
    one.set_contract(contract(secrets_inject=["TOKEN"]))
    one.missing = ("TOKEN",)
    one.settle()
    assert one.last().reason == Reason.MISSING_SECRET
    one.rollback()
    one.settle()
    assert one.live() == A


def test_a_newer_push_supersedes_the_queued_one_and_the_running_one_ends_first() -> None:
    one = world()
    one.push(B)
    one.until(lambda: one.last().phase is Phase.PREPARING)
    one.push(C)
    one.one_pass()
    one.push(D)
    one.settle()
    assert [one.deploys_of(revision)[0].phase for revision in (B, C, D)] == [
        Phase.LIVE,
        Phase.SUPERSEDED,
        Phase.LIVE,
    ]
    assert one.live() == D


def test_a_cancelled_deploy_is_stopped_and_is_not_tried_again() -> None:
    one = world()
    one.push(B)
    one.until(lambda: one.last().phase is Phase.PROVING)
    one.cancel()
    one.settle()
    assert one.live() == A
    assert one.up_in(SLOT_B) == set()
    assert len(one.deploys_of(B)) == 1
    assert one.records.quarantine == ()


def test_a_deploy_in_bake_is_allowed_and_waits_until_a_slot_is_empty() -> None:
    one = world(drain_timeout_ms=2000, slots=2)
    one.behaviours[A] = one.behaviours[B] = Behaviour(lingers=timedelta(seconds=60))
    one.slots[SLOT_A].processes[0].behaviour = one.behaviours[A]
    one.push(B)
    one.until(lambda: one.live() == B)
    one.push(C)
    one.until(lambda: one.last().reason == Reason.WAITING_FOR_DRAIN)
    assert one.up_in(SLOT_A) == {WEB}
    one.settle()
    assert one.live() == C
    assert one.pointer == PointsTo(SLOT_A)
    assert one.failures == []


def test_a_third_deploy_takes_the_free_slot_and_spares_previous() -> None:
    one = with_second()
    one.push(C)
    one.until(lambda: one.last().phase is Phase.PROVING)
    assert one.last().slot == SLOT_C
    assert one.up_in(SLOT_A) == {WEB}


def test_a_setup_that_begins_after_a_long_wait_has_its_whole_time() -> None:
    one = world(slots=2, drain_timeout_ms=60_000, setup_timeout_ms=1000)
    one.slots[SLOT_A].processes[0].behaviour = Behaviour(lingers=timedelta(minutes=60))
    one.behaviours[C] = Behaviour(setup=timedelta(milliseconds=900))
    one.push(B)
    one.until(lambda: one.live() == B)
    one.push(C)
    one.settle()
    assert one.live() == C


def test_a_stubborn_old_slot_is_killed_when_its_drain_is_over() -> None:
    one = world(bake_ms=0, drain_timeout_ms=3000)
    one.slots[SLOT_A].processes[0].behaviour = STUBBORN
    one.push(B)
    one.settle()
    assert one.live() == B
    assert one.up_in(SLOT_A) == set()


def test_a_crashed_live_is_restarted_at_once_and_its_address_is_blank_meanwhile() -> None:
    one = world()
    one.crash()
    before = len(one.done)
    one.settle()
    kinds = [type(action) for action in one.done[before:]]
    assert one.live() == A
    assert kinds[:3] == [BlankAddress, StopProcesses, StartInstances]
    assert kinds.index(PublishAddress) > kinds.index(StartInstances)


def test_restarts_of_live_come_further_and_further_apart() -> None:
    one = world(bake_ms=0)
    one.behaviours[A] = Behaviour(boots_in=10 * MS, lives=50 * MS)
    one.crash()
    one.wait(timedelta(seconds=40))
    record = one.slots[SLOT_A].record
    assert record is not None
    starts = [each.at for each in record.starts]
    gaps = [after.since(before) for before, after in pairwise(starts)]
    assert gaps[1:6] == sorted(gaps[1:6])
    assert [round(gap.total_seconds()) for gap in gaps[1:6]] == [1, 2, 4, 8, 16]


def test_a_crash_loop_in_the_bake_returns_to_previous_and_quarantines_what_it_leaves() -> None:
    one = world()
    one.behaviours[B] = CRASH_LOOP
    one.push(B)
    one.wait(timedelta(seconds=10))
    assert one.live() == A
    assert one.last().request.kind is WishKind.RETURN
    assert one.last().request.trigger is Trigger.BAKE
    assert one.deploys_of(B)[0].phase is Phase.ROLLED_BACK
    assert [held.revision for held in one.records.quarantine] == [B]
    one.wait(timedelta(minutes=2))
    assert one.live() == A


def test_a_crash_loop_without_previous_stalls_with_one_reason_told_once() -> None:
    one = World()
    one.behaviours[A] = CRASH_LOOP
    one.push(A)
    one.settle()
    one.wait(timedelta(minutes=5))
    assert one.stalls() == "CrashLoop"
    assert one.alerts == ["CrashLoop"]
    (verdict,) = [each for each in one.last().verdicts if each.name == "bake"]
    assert not verdict.passed


def test_the_crash_loop_is_over_when_the_process_outlives_its_pause() -> None:
    one = world(bake_ms=0)
    one.behaviours[A] = Behaviour(boots_in=10 * MS, lives=50 * MS, crashes=6)
    one.crash()
    one.wait(timedelta(minutes=2))
    assert one.alerts == ["CrashLoop"]
    assert one.stalls() == ""
    assert one.live() == A


def test_live_that_goes_on_failing_its_health_check_is_restarted() -> None:
    one = world(health_interval_ms=1000)
    one.slots[SLOT_A].processes[0].behaviour = NEVER_HEALTHY
    one.wait(timedelta(seconds=10))
    assert one.live() == A


def test_an_unhealthy_live_in_the_bake_returns_to_previous() -> None:
    one = world(health_interval_ms=1000)
    one.push(B)
    one.until(lambda: one.live() == B)
    one.behaviours[B] = NEVER_HEALTHY
    one.slots[SLOT_B].processes[0].behaviour = NEVER_HEALTHY
    one.settle()
    one.wait(timedelta(seconds=20))
    assert one.live() == A
    assert one.deploys_of(B)[0].phase is Phase.ROLLED_BACK


@pytest.mark.parametrize("document", [{"on_unhealthy": "alert"}, {"restart": "no"}])
def test_an_unhealthy_live_that_would_not_come_back_is_left_and_told(
    document: dict[str, str],
) -> None:
    one = world(health_interval_ms=1000, **document)
    one.slots[SLOT_A].processes[0].behaviour = NEVER_HEALTHY
    one.wait(timedelta(seconds=10))
    assert one.up_in(SLOT_A) == {WEB}
    assert one.stalls() == "Unhealthy"


def test_a_restart_waits_for_the_kill_that_was_promised() -> None:
    one = world(health_interval_ms=1000)
    first = one.slots[SLOT_A].processes[0]
    first.behaviour = NEVER_HEALTHY
    one.until(lambda: one.slots[SLOT_A].processes[0] is not first)
    second = one.slots[SLOT_A].processes[0]
    one.wait(timedelta(seconds=5))
    assert one.slots[SLOT_A].processes[0] is second, "the kill for the first hit the second"


def test_a_stubborn_unhealthy_live_is_not_published_while_it_is_stopped() -> None:
    one = world(health_interval_ms=1000)
    first = one.slots[SLOT_A].processes[0]
    first.behaviour = replace(STUBBORN, healthy=False)
    one.until(lambda: not one.slots[SLOT_A].published)
    first.behaviour = STUBBORN
    one.wait(timedelta(milliseconds=400))
    assert not one.slots[SLOT_A].published
    one.wait(timedelta(seconds=2))
    assert one.live() == A


def test_a_crashed_live_with_restart_no_stays_down_and_is_told() -> None:
    one = world(restart="no", bake_ms=0)
    one.crash()
    one.wait(timedelta(minutes=1))
    assert one.live() is None
    assert one.stalls() == "Exited"


def test_a_reboot_starts_live_from_its_own_slot_with_its_address_blanked_first() -> None:
    one = with_second()
    before = len(one.done)
    one.reboot()
    one.settle()
    assert one.live() == B
    assert one.pointer == PointsTo(SLOT_B)
    acts = [each for each in one.done[before:] if getattr(each, "slot", None) == SLOT_B]
    assert isinstance(acts[0], BlankAddress)
    assert not any(isinstance(each, PrepareSlot | SwitchRoute) for each in one.done[before:])


def test_a_reboot_between_proof_and_switch_says_nothing_of_the_revision() -> None:
    one = world()
    one.routed = False
    one.push(B)
    one.until(lambda: len(one.courses) == 2 and one.last().verdict("health") is not None)
    one.courses[-1].progress.append(
        replace(one.last().progress[-1], phase=Phase.SWITCHING, instant=one.now)
    )
    one.routed = True
    one.reboot()
    one.settle()
    assert one.records.quarantine == ()
    assert one.live() == B


def test_a_daemon_that_ends_in_mid_deploy_tries_again_with_a_new_deploy() -> None:
    one = world()
    one.push(B)
    one.until(lambda: one.last().phase is Phase.PREPARING)
    one.restart_daemon()
    one.settle()
    first, second = one.deploys_of(B)
    assert first.phase is Phase.INTERRUPTED
    assert second.request.retry_of == first.id
    assert one.live() == B


def test_a_deploy_that_is_interrupted_again_and_again_stalls() -> None:
    one = world()
    one.push(B)
    for _ in range(4):
        one.until(lambda: one.last().phase is Phase.PREPARING)
        one.restart_daemon()
        one.one_pass()
    one.settle()
    assert one.wishes[-1].status is WishStatus.STALLED
    assert len(one.deploys_of(B)) == 4
    assert one.stalls() == "DeployFailed"
    assert one.live() == A


def test_an_adopted_live_is_not_restarted() -> None:
    one = with_second()
    kept = one.slots[SLOT_B].processes[0]
    one.restart_daemon()
    one.settle()
    assert one.slots[SLOT_B].processes[0] is kept
    assert kept.up(one.now)


def test_a_switch_that_is_not_confirmed_goes_back_and_live_keeps_its_workers() -> None:
    one = world(processes={"web": "./serve", "worker": "./work"})
    one.settle()
    kept = list(one.slots[SLOT_A].processes)
    one.confirms = False
    one.push(B)
    one.until(lambda: one.last().phase is Phase.FAILED)
    assert one.last().reason == Reason.NOT_CONFIRMED
    assert one.pointer == PointsTo(SLOT_A)
    assert one.slots[SLOT_A].processes == kept
    assert all(each.up(one.now) for each in kept)
    assert one.up_in(SLOT_B) == set()
    record = one.slots[SLOT_A].record
    assert record is not None
    assert record.drain_since is None
    started = [each for each in one.done if isinstance(each, StartInstances)]
    assert not [each for each in started if each.slot == SLOT_B and WORKER in each.processes]


def test_an_unconfirmed_switch_is_tried_again_and_then_stalls() -> None:
    one = world()
    one.confirms = False
    one.push(B)
    one.settle()
    assert len([each for each in one.done if isinstance(each, ConfirmRoute)]) == 1 + 4
    assert one.wishes[-1].status is WishStatus.STALLED
    assert one.live() == A
    assert one.records.quarantine == ()


def test_the_first_deploy_that_is_not_confirmed_leaves_no_route() -> None:
    one = World()
    one.confirms = False
    one.push(A)
    one.until(lambda: one.courses[-1:] != [] and one.last().phase is Phase.FAILED)
    assert one.pointer == NoPointer()


def test_a_fetch_that_fails_is_tried_again_with_back_off() -> None:
    one = world()
    one.fetches = False
    one.push(B)
    one.until(lambda: len(one.deploys_of(B)) == 2)
    one.fetches = True
    one.settle()
    assert one.live() == B
    assert one.deploys_of(B)[-1].request.trigger is Trigger.RETRY


def test_while_a_retry_is_awaited_the_plan_is_not_converged() -> None:
    one = world()
    one.fetches = False
    one.push(B)
    one.until(lambda: one.plan.pending != () and "tried again" in one.plan.pending[0])
    assert not app_plan(one.plan, stand(one.desired, one.look(), one.now))["converged"]


def test_a_proxy_that_does_not_come_up_fails_the_deploy_in_the_end() -> None:
    one = world()
    one.routed = False
    one.push(B)
    one.until(lambda: one.last().phase is Phase.FAILED)
    assert one.last().reason == Reason.PROXY_DOWN
    assert one.records.quarantine == ()
    one.routed = True
    one.settle()
    assert one.live() == B


def test_a_contract_change_alone_rolls_the_same_revision() -> None:
    one = world()
    one.set_contract(contract(env={"COLOUR": "blue"}))
    one.settle()
    assert one.last().request.trigger is Trigger.CONTRACT
    assert one.pointer == PointsTo(SLOT_B)
    assert one.live() == A


def test_a_secret_change_alone_rolls_the_same_revision() -> None:
    one = world()
    one.secrets = "second"
    one.settle()
    assert one.last().request.trigger is Trigger.SECRET
    assert one.pointer == PointsTo(SLOT_B)


def test_a_key_that_needs_no_restart_applies_in_place() -> None:
    one = world()
    one.set_contract(contract(drain_timeout_ms=1, bake_ms=5, routes=[{"host": "shop.example"}]))
    one.settle()
    assert len(one.courses) == 1


def test_a_bad_contract_fails_without_condemning_the_revision() -> None:
    one = world()
    bad = contract(env={"COLOUR": "red"})
    one.behaviours[Target(A, bad.digest, "")] = DIES_AT_BOOT
    one.set_contract(bad)
    one.settle()
    assert one.live() == A
    assert one.pointer == PointsTo(SLOT_A)
    assert [held.covers(one.promotions[0].target) for held in one.records.quarantine] == [False]


def test_a_contract_that_loops_in_the_bake_returns_without_condemning_the_revision() -> None:
    one = world()
    bad = contract(env={"COLOUR": "red"})
    one.behaviours[Target(A, bad.digest, "")] = CRASH_LOOP
    one.set_contract(bad)
    one.wait(timedelta(seconds=10))
    assert one.pointer == PointsTo(SLOT_A)
    assert one.live() == A
    assert [held.covers(one.promotions[0].target) for held in one.records.quarantine] == [False]


def test_a_bad_contract_that_is_taken_back_is_converged_and_not_stalled() -> None:
    one = world()
    bad, good = contract(env={"COLOUR": "red"}), one.contract
    assert good is not None
    one.behaviours[Target(A, bad.digest, "")] = DIES_AT_BOOT
    one.set_contract(bad)
    one.settle()
    deploys = len(one.courses)
    one.set_contract(good)
    one.settle()
    assert len(one.courses) == deploys
    assert one.stalls() == ""


def test_a_bad_push_that_is_taken_back_with_its_contract_is_converged() -> None:
    one = world()
    good = one.contract
    assert good is not None
    one.behaviours[B] = DIES_AT_BOOT
    one.set_contract(contract(env={"COLOUR": "red"}))
    one.push(B)
    one.settle()
    one.set_contract(good)
    one.push(A)
    one.settle()
    assert len(one.deploys_of(B)) == 1
    assert one.live() == A
    assert one.stalls() == ""


def test_an_app_that_is_removed_is_drained_stopped_and_unrouted() -> None:
    one = world()
    one.slots[SLOT_A].processes[0].behaviour = Behaviour(lingers=timedelta(seconds=3))
    one.removed = True
    one.until(lambda: one.pointer == NoPointer())
    one.slots[SLOT_A].connections_until = one.now + timedelta(seconds=3)
    one.wait(SECOND)
    assert one.up_in(SLOT_A) == {WEB}, "its connections were cut"
    one.settle()
    assert one.up_in(SLOT_A) == set()
    assert len(one.promotions) == 1


def test_an_app_that_is_removed_in_mid_deploy_ends_the_deploy() -> None:
    one = world()
    one.push(B)
    one.until(lambda: one.last().phase is Phase.PROVING)
    one.removed = True
    one.settle()
    assert one.last().phase is Phase.CANCELLED
    assert one.up_in(SLOT_B) == set()


@pytest.mark.parametrize(("revision", "touches"), [(A, True), (B, False), (B, True)])
def test_an_app_that_is_named_again_comes_back(revision: str, touches: bool) -> None:
    one = world()
    one.removed = True
    one.settle()
    one.removed = False
    one.push(B if revision == B else A, touches=touches)
    one.settle()
    assert one.live() == revision
    assert one.records.absent_passes == 0


def test_a_store_begun_anew_adopts_live_and_deploys_nothing_over_it() -> None:
    one = with_second()
    kept = one.slots[SLOT_B].processes[0]
    one.forget()
    one.push(C)
    one.settle()
    assert one.live() == B
    assert one.slots[SLOT_B].processes[0] is kept
    assert one.last().request.trigger is Trigger.ADOPT
    assert one.up_in(SLOT_A) == set()
    one.push(D)
    one.settle()
    assert one.live() == D


def test_workers_start_after_the_switch_and_the_old_ones_stop_at_it() -> None:
    one = world(processes={"web": "./serve", "worker": "./work"})
    assert one.up_in(SLOT_A) == {WEB, WORKER}
    one.push(B)
    one.until(lambda: one.last().phase is Phase.PROVING)
    assert one.up_in(SLOT_B) == {WEB}
    one.settle()
    assert one.up_in(SLOT_B) == {WEB, WORKER}
    assert one.up_in(SLOT_A) == {WEB}


def test_a_worker_that_takes_its_time_to_stop_is_told_once() -> None:
    one = world(processes={"web": "./serve", "worker": "./work"})
    for each in one.slots[SLOT_A].processes:
        each.behaviour = Behaviour(ends_in=timedelta(seconds=3))
    one.push(B)
    one.settle()
    stops = [each for each in one.done if isinstance(each, StopProcesses)]
    assert len([each for each in stops if each.slot == SLOT_A and each.grace]) == 1
    assert one.up_in(SLOT_A) == {WEB}


def test_a_worker_that_the_new_contract_does_not_name_stops_at_the_switch() -> None:
    one = world(processes={"web": "./serve", "worker": "./work"})
    one.set_contract(contract(processes={"web": "./serve", "jobs": "./work"}))
    one.settle()
    assert one.up_in(SLOT_A) == {WEB}


def test_a_rollback_starts_the_workers_of_what_it_returns_to() -> None:
    one = world(processes={"web": "./serve", "worker": "./work"})
    one.push(B)
    one.settle()
    one.rollback()
    one.settle()
    assert one.up_in(SLOT_A) == {WEB, WORKER}
    assert WORKER not in one.up_in(SLOT_B)


def test_a_rollback_while_the_old_worker_is_still_stopping_keeps_the_new_one_alive() -> None:
    one = world(processes={"web": "./serve", "worker": "./work"}, drain_timeout_ms=5000)
    for each in one.slots[SLOT_A].processes:
        each.behaviour = Behaviour(ends_in=timedelta(seconds=1))
    one.push(B)
    one.until(lambda: "stop worker" in one.slots[SLOT_A].work)
    one.rollback()
    one.settle()
    one.wait(timedelta(seconds=10))
    record = one.slots[SLOT_A].record
    assert record is not None
    assert len([each for each in record.starts if each.process == WORKER]) == 2
    assert one.up_in(SLOT_A) == {WEB, WORKER}


def test_an_app_without_web_is_proved_by_living_and_its_old_processes_stop() -> None:
    one = world(processes={"worker": "./work"})
    assert one.up_in(SLOT_A) == {WORKER}
    one.push(B)
    one.settle()
    assert one.pointer == PointsTo(SLOT_B)
    assert one.up_in(SLOT_A) == set()


def test_an_app_without_web_that_ends_at_once_does_not_go_live() -> None:
    one = world(processes={"worker": "./work"})
    one.behaviours[B] = DIES_AT_BOOT
    one.push(B)
    one.settle()
    assert one.last().reason == Reason.EXITED
    assert one.pointer == PointsTo(SLOT_A)


def test_one_worker_of_two_that_ends_is_started_again_and_the_other_lives_on() -> None:
    one = world(processes={"web": "./serve", "worker": {"command": "./work", "count": 2}})
    kept = next(
        each for each in one.slots[SLOT_A].processes if (each.name, each.index) == (WORKER, 1)
    )
    for each in one.slots[SLOT_A].processes:
        if (each.name, each.index) == (WORKER, 0):
            each.end_by(one.now)
    one.settle()
    assert kept.up(one.now)
    up = [each for each in one.slots[SLOT_A].processes if each.name == WORKER and each.up(one.now)]
    assert len(up) == 2


def test_a_rollback_by_hand_is_taken_as_it_is() -> None:
    one = with_second()
    one.link_by_hand(SLOT_A)
    one.settle()
    record = one.slots[SLOT_A].record
    assert one.live() == A
    assert record is not None
    assert (record.drain_since, record.drained) == (None, False)


@pytest.mark.parametrize("behaviour", [Behaviour(), STUBBORN])
def test_live_that_was_told_to_stop_by_a_cut_short_shutdown_starts_again(
    behaviour: Behaviour,
) -> None:
    one = world(drain_timeout_ms=1000)
    one.slots[SLOT_A].processes[0].behaviour = behaviour
    one.slots[SLOT_A].published = ""
    one._change(SLOT_A, term_at=one.now)
    one._terminate(SLOT_A, (WEB,))
    one.restart_daemon()
    one.settle()
    assert one.live() == A


def test_a_worker_only_live_that_was_told_to_stop_starts_again() -> None:
    one = world(processes={"worker": "./work"}, drain_timeout_ms=1000)
    one.slots[SLOT_A].processes[0].behaviour = STUBBORN
    one._change(SLOT_A, term_at=one.now)
    one.restart_daemon()
    one.settle()
    record = one.slots[SLOT_A].record
    assert record is not None
    assert record.term_at is None
    assert one.up_in(SLOT_A) == {WORKER}


def test_nothing_is_ever_asked_of_a_port_that_it_refuses() -> None:
    one = world()
    for revision in (B, C, D, A, B):
        one.deploy(revision)
        one.settle()
    one.rollback()
    one.settle()
    assert one.failures == []


def test_at_rest_the_plan_is_empty_and_ready_is_told() -> None:
    one = with_second()
    one.wait(timedelta(minutes=2))
    plan = one.settle()
    ready = next(each for each in plan.conditions if each.type is ConditionType.READY)
    assert ready.status
    assert plan.steps == ()
    assert plan.pending == ()
    assert plan.wake_at is not None
    assert not one.now.reached(plan.wake_at)


def test_previous_keeps_its_files_when_it_is_cold() -> None:
    one = with_second()
    one.wait(timedelta(minutes=1))
    record = one.slots[SLOT_A].record
    assert record is not None
    assert record.stage is Stage.PREPARED
    assert one.previous_slot() == SLOT_A
