"""The rules of a release one by one, each as a person would tell it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.model.actions import (
    Advance,
    BlankAddress,
    CheckHealth,
    CloseDeploy,
    ConfirmRoute,
    DrainSlot,
    EmptyTrash,
    FetchRevision,
    MakeWish,
    NoteAbsence,
    NoteConditions,
    NoteSeen,
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
    StopProcesses,
    StopSlot,
    SwitchRoute,
    WarmSlot,
)
from reconciler.model.conditions import Condition, ConditionType
from reconciler.model.deploys import (
    STEP,
    Phase,
    Reason,
    SeenHead,
    SeenInputs,
    Trigger,
    VerdictResult,
    WishKind,
    WishStatus,
)
from reconciler.model.desired import Problem, Target
from reconciler.model.names import WEB
from reconciler.model.observed import (
    UNKNOWN_HEALTH,
    Health,
    NoPointer,
    ObservedApp,
    PointsTo,
    Stage,
    Start,
    UnknownPointer,
)
from reconciler.planning.release import LONGEST_MESSAGE, plan_release
from reconciler.planning.tending import restart_pause
from tests.planning.worlds import (
    FIRST,
    LAST_BOOT,
    NEVER_LIVE,
    NOW,
    PLAIN,
    SECOND,
    SLOT_A,
    SLOT_B,
    SLOT_C,
    THIRD,
    UNHEALTHY,
    WITH_WORKER,
    WORKER,
    WORKER_ONLY,
    A,
    B,
    C,
    actions,
    after_first,
    after_second,
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
    quarantined,
    record,
    records_of,
    request,
    running,
    serving,
    settled,
    slot,
    stalled,
    step,
    target,
    verdict,
    wish,
    with_records,
    with_slots,
)


def names(*found: object) -> list[str]:
    return [type(one).__name__ for one in found]


def plan_names(seen: ObservedApp, **fields: object) -> list[str]:
    return names(*actions(plan_release(desired(**fields), seen, NOW)))  # type: ignore[arg-type]


def test_the_first_head_becomes_a_wish() -> None:
    seen = replace(NEVER_LIVE, head=head(A, subject="Begin"))
    (made,) = actions(plan_release(desired(), seen, NOW))
    assert isinstance(made, MakeWish)
    assert (made.trigger, made.target, made.message) == (Trigger.PUSH, target(A), "Begin")
    assert made.head == SeenHead("main", A)
    assert made.inputs == SeenInputs(PLAIN.digest, "")


def test_a_new_head_becomes_a_wish_once() -> None:
    seen = after_first(head=head(B))
    (made,) = actions(plan_release(desired(), seen, NOW))
    assert isinstance(made, MakeWish)
    noticed = with_records(seen, seen_head=SeenHead("main", B), wish=wish(SECOND))
    assert "MakeWish" not in plan_names(noticed)


@pytest.mark.parametrize(
    ("seen", "contract_", "why"),
    [
        (after_first(head=head(B, touches_app=False)), PLAIN, "changes nothing of this app"),
        (after_first(head=head(B)), contract(deploy_on="request"), "deployed only when asked"),
        (
            with_records(after_first(head=head(B)), quarantine=(quarantined(B),)),
            PLAIN,
            "is quarantined",
        ),
        (
            with_records(after_first(head=head(B)), wish=wish(SECOND, WishStatus.FAILED)),
            PLAIN,
            "is wished already",
        ),
        (
            with_records(after_first(head=head(A)), seen_head=SeenHead("main", B)),
            PLAIN,
            "is live already",
        ),
    ],
)
def test_a_head_that_is_no_wish_is_noted_with_the_reason(
    seen: ObservedApp, contract_: object, why: str
) -> None:
    plan = plan_release(replace(desired(), contract=contract_), seen, NOW)  # type: ignore[arg-type]
    assert isinstance(plan.steps[0].action, NoteSeen)
    assert why in plan.steps[0].why


def test_a_branch_that_was_rewritten_stalls_and_deploys_nothing() -> None:
    seen = after_first(head=head(B, descends=False))
    plan = plan_release(desired(), seen, NOW)
    assert "MakeWish" not in names(*actions(plan))
    assert stalled(plan).reason == "NonFastForward"


def test_in_development_a_rewritten_branch_is_followed() -> None:
    seen = after_first(head=head(B, descends=False))
    assert plan_names(seen, follows_rewrites=True) == ["MakeWish"]


def test_another_branch_counts_as_never_seen() -> None:
    seen = after_first(head=replace(head(B, descends=False, touches_app=False), branch="release"))
    assert plan_names(seen) == ["MakeWish"]


def test_a_changed_contract_becomes_a_wish_for_the_same_revision() -> None:
    changed = contract(env={"COLOUR": "blue"})
    seen = after_first(head=head(A))
    (made,) = actions(plan_release(desired(changed), seen, NOW))
    assert isinstance(made, MakeWish)
    assert (made.trigger, made.target) == (Trigger.CONTRACT, target(A, changed))


def test_a_changed_secret_becomes_a_wish_for_the_same_revision() -> None:
    (made,) = actions(plan_release(desired(secrets_digest="new"), after_first(), NOW))
    assert isinstance(made, MakeWish)
    assert (made.trigger, made.target) == (Trigger.SECRET, target(A, secrets="new"))


def test_changed_inputs_of_an_app_that_deploys_when_asked_are_only_noted() -> None:
    changed = contract(deploy_on="request", env={"COLOUR": "blue"})
    plan = plan_release(desired(changed), after_first(), NOW)
    assert names(*actions(plan)) == ["NoteSeen"]
    assert "deployed only when asked" in plan.steps[0].why


def test_inputs_that_failed_before_are_not_tried_again() -> None:
    changed = contract(env={"COLOUR": "blue"})
    bad = quarantined(A, changed.digest, "")
    seen = with_records(after_first(), quarantine=(bad,))
    assert plan_names(seen, of=changed) == ["NoteSeen"]


def test_inputs_are_noted_without_a_wish_while_there_is_none() -> None:
    assert plan_names(NEVER_LIVE) == ["NoteSeen"]


@pytest.mark.parametrize("fields", [{"of": None}, {"problems": (Problem("a.yaml", 3, "bad"),)}])
def test_an_invalid_manifest_wishes_nothing_and_leaves_live_alone(
    fields: dict[str, object],
) -> None:
    assert plan_names(after_first(head=head(B)), **fields) == []


def test_the_problems_of_a_manifest_are_told_with_file_and_line() -> None:
    problem = Problem(".autopilot/apps/shop.yaml", 3, "port: must be a number")
    plan = plan_release(desired(problems=(problem,)), after_first(), NOW)
    assert stalled(plan).reason == "InvalidManifest"
    assert ".autopilot/apps/shop.yaml:3: port: must be a number" in stalled(plan).message


def waiting(**fields: object) -> ObservedApp:
    ended = step(Phase.FAILED, ago(1), reason=fields.pop("reason", Reason.PORT_TAKEN))  # type: ignore[arg-type]
    asked = wish(SECOND, **fields)  # type: ignore[arg-type]
    return with_records(
        after_first(), wish=asked, last_deploy=deploy(SECOND, ended), seen_head=SeenHead("main", B)
    )


def test_an_open_wish_is_tried_again_when_its_pause_is_over() -> None:
    assert plan_names(waiting(retry_at=ago(1))) == ["RetryWish"]
    assert plan_names(waiting(retry_at=None)) == ["RetryWish"]


def test_an_open_wish_waits_for_its_pause() -> None:
    plan = plan_release(desired(), waiting(retry_at=later(4)), NOW)
    assert actions(plan) == []
    assert plan.wake_at == later(4)


def test_a_pause_of_an_earlier_boot_is_over() -> None:
    assert plan_names(waiting(retry_at=replace(later(9), boot_id=LAST_BOOT))) == ["RetryWish"]


def test_after_three_retries_the_wish_stalls() -> None:
    (made,) = actions(plan_release(desired(), waiting(attempts=4), NOW))
    assert isinstance(made, StallWish)


def test_a_full_disk_is_waited_for_without_end_and_told() -> None:
    seen = waiting(attempts=9, reason=Reason.DISK_PRESSURE, retry_at=later(1))
    plan = plan_release(desired(), seen, NOW)
    assert actions(plan) == []
    assert stalled(plan).reason == "DiskPressure"
    assert isinstance(actions(plan_release(desired(), seen, later(2)))[0], RetryWish)


def test_a_queued_deploy_is_fetched_and_its_slot_prepared() -> None:
    plan = plan_release(desired(), running(after_first(), deploy(SECOND)), NOW)
    assert names(*actions(plan)) == [
        "Advance", "FetchRevision", "Advance", "Advance", "PrepareSlot",
    ]  # fmt: skip
    prepared = actions(plan)[-1]
    assert isinstance(prepared, PrepareSlot)
    assert (prepared.slot, prepared.intact) == (SLOT_B, False)


def test_a_deploy_whose_gates_are_passed_is_not_fetched_again() -> None:
    passed = deploy(SECOND, step(Phase.FETCHING, ago(1)), step(Phase.GATING, ago(1)))
    assert plan_names(running(after_first(), passed)) == ["Advance", "PrepareSlot"]


def test_a_missing_secret_refuses_the_deploy_by_name() -> None:
    seen = running(after_first(), deploy(SECOND))
    (closed,) = actions(plan_release(desired(missing_secrets=("TOKEN",)), seen, NOW))
    assert isinstance(closed, CloseDeploy)
    assert (closed.phase, closed.reason) == (Phase.FAILED, Reason.MISSING_SECRET)
    assert "TOKEN" in closed.detail
    assert closed.quarantine is None
    assert closed.retry_at is None


def test_what_was_quarantined_while_it_waited_is_rejected() -> None:
    seen = with_records(running(after_first(), deploy(SECOND)), quarantine=(quarantined(B),))
    (closed,) = actions(plan_release(desired(), seen, NOW))
    assert isinstance(closed, CloseDeploy)
    assert (closed.phase, closed.reason) == (Phase.REJECTED, Reason.QUARANTINED)
    assert closed.quarantine is None


def test_with_force_quarantine_does_not_refuse() -> None:
    seen = running(after_first(), deploy(replace(SECOND, force=True)))
    seen = with_records(seen, quarantine=(quarantined(B),))
    assert "PrepareSlot" in plan_names(seen)


def test_an_empty_slot_is_taken_before_a_failed_one_and_that_before_a_cold_one() -> None:
    gone = noted(slot(SLOT_B, record(request(8, C), Stage.FAILED)), vacated=True)
    older = noted(down(serving(SLOT_C, FIRST)), vacated=True)
    seen = with_slots(running(after_first(), deploy(THIRD)), gone, older)
    assert _prepared(seen) == SLOT_B
    seen = with_slots(seen, slot(SLOT_B, record(SECOND)), slot(SLOT_C))
    assert _prepared(seen) == SLOT_C


def test_of_two_cold_slots_the_older_one_is_taken() -> None:
    first, second, third, fourth = (request(n, A) for n in range(1, 5))
    promoted = tuple(
        promotion(one, name, seq)
        for seq, (one, name) in enumerate(
            [(first, SLOT_A), (second, SLOT_B), (third, SLOT_C), (fourth, SLOT_A)], start=1
        )
    )
    seen = observed(
        PointsTo(SLOT_A),
        [
            serving(SLOT_A, fourth),
            noted(down(serving(SLOT_B, second)), vacated=True),
            noted(down(serving(SLOT_C, third)), vacated=True),
        ],
        records_of(promotions=promoted, live_deploy=live_deploy(fourth, SLOT_A)),
    )
    assert _prepared(running(seen, deploy(request(5, B)))) == SLOT_B


def _prepared(seen: ObservedApp) -> str:
    found = actions(plan_release(desired(), seen, NOW))
    return next(one.slot for one in found if isinstance(one, PrepareSlot))


def test_it_waits_while_every_slot_is_live_previous_or_draining() -> None:
    busy = noted(serving(SLOT_C, request(7, A)), term_at=ago(0.1))
    seen = with_slots(after_second(before=serving(SLOT_A, FIRST)), busy)
    plan = plan_release(desired(), running(seen, deploy(THIRD)), NOW)
    waited = [one for one in actions(plan) if isinstance(one, Advance)][-1]
    assert (waited.phase, waited.reason) == (Phase.PREPARING, Reason.WAITING_FOR_DRAIN)
    assert "waiting for a slot to drain" in plan.pending
    assert plan.wake_at is not None
    entered = step(Phase.PREPARING, ago(1), reason=Reason.WAITING_FOR_DRAIN)
    again = plan_release(desired(), running(seen, deploy(THIRD, entered)), NOW)
    assert "PrepareSlot" not in names(*actions(again))


def test_a_slot_is_never_reused_a_moment_before_it_is_empty() -> None:
    still = replace(down(serving(SLOT_C, request(7, A))), vacant=False)
    seen = with_slots(after_second(before=serving(SLOT_A, FIRST)), still)
    assert "PrepareSlot" not in plan_names(running(seen, deploy(THIRD)))


def test_a_slot_that_is_retired_in_the_same_pass_as_it_is_taken_is_not_retired() -> None:
    empty = down(serving(SLOT_C, request(7, A)))
    seen = with_slots(after_second(), empty)
    found = actions(plan_release(desired(), running(seen, deploy(THIRD)), NOW))
    taken = {one.slot for one in found if isinstance(one, PrepareSlot)}
    assert taken == {SLOT_C}
    assert not [one for one in found if isinstance(one, RetireSlot) and one.slot in taken]


def test_with_two_slots_previous_is_cooled_and_taken() -> None:
    two = contract(slots=2)
    warm = noted(serving(SLOT_A, FIRST), drain_since=ago(3), drained=True)
    seen = running(after_second(seconds_ago=5, before=warm), deploy(THIRD), two)
    assert StopSlot(SLOT_A) in actions(plan_release(desired(two), seen, NOW))
    seen = with_slots(seen, noted(down(serving(SLOT_A, FIRST)), vacated=True))
    (taken,) = [
        one
        for one in actions(plan_release(desired(two), seen, NOW))
        if isinstance(one, PrepareSlot)
    ]
    assert taken.slot == SLOT_A


def preparing(**fields: object) -> ObservedApp:
    chosen = step(Phase.PREPARING, ago(3), SLOT_C)
    held = replace(slot(SLOT_C, record(THIRD, Stage.PREPARING)), **fields)  # type: ignore[arg-type]
    return with_slots(running(after_second(), deploy(THIRD, chosen)), held)


def test_a_slot_that_was_chosen_but_not_written_to_is_prepared_now() -> None:
    seen = preparing(record=None)
    assert plan_names(seen) == ["PrepareSlot"]


def test_a_chosen_slot_that_somebody_is_in_after_all_is_given_up() -> None:
    found = serving(SLOT_C, request(9, A))
    seen = preparing(record=found.record, instances=found.instances, vacant=False)
    assert "PrepareSlot" not in plan_names(seen)


def test_a_chosen_slot_that_a_person_made_live_meanwhile_is_given_up() -> None:
    found = down(serving(SLOT_C, request(9, A)))
    seen = preparing(record=found.record, instances=found.instances)
    seen = replace(seen, pointer=PointsTo(SLOT_C), live_contract=PLAIN)
    found_slots = {
        one.slot
        for one in actions(plan_release(desired(), seen, NOW))
        if isinstance(one, PrepareSlot)
    }
    assert SLOT_C not in found_slots


def test_a_preparation_is_waited_for_until_its_deadline() -> None:
    seen = preparing(busy=frozenset({"prepare"}), vacant=False)
    plan = plan_release(desired(), seen, NOW)
    assert actions(plan) == []
    late = plan_release(desired(), seen, ago(3) + timedelta(minutes=20))
    (told,) = [one for one in actions(late) if isinstance(one, RecordVerdict)]
    assert (told.verdict.name, told.verdict.reason) == (STEP, Reason.DAEMON_STOPPED)


def test_a_preparation_that_was_cut_off_is_interrupted_and_tried_again() -> None:
    found = actions(plan_release(desired(), preparing(), NOW))
    assert names(*found) == ["RetireSlot", "CloseDeploy"]
    closed = found[-1]
    assert isinstance(closed, CloseDeploy)
    assert (closed.phase, closed.reason) == (Phase.INTERRUPTED, Reason.DAEMON_STOPPED)
    assert closed.retry_at == later(1)
    assert closed.quarantine is None


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 5), (3, 25), (9, 25)])
def test_the_pause_before_a_retry_grows(attempt: int, seconds: int) -> None:
    seen = preparing()
    again = replace(THIRD, attempt=attempt)
    chosen = step(Phase.PREPARING, ago(3), SLOT_C)
    found = actions(plan_release(desired(), running(seen, deploy(again, chosen)), NOW))
    closed = found[-1]
    assert isinstance(closed, CloseDeploy)
    assert closed.retry_at == later(seconds)


def test_a_setup_that_failed_ends_the_deploy_and_quarantines_the_whole_target() -> None:
    seen = preparing(record=record(THIRD, Stage.FAILED, reason=Reason.SETUP_EXIT, detail="1"))
    closed = actions(plan_release(desired(), seen, NOW))[-1]
    assert isinstance(closed, CloseDeploy)
    assert (closed.reason, closed.quarantine) == (Reason.SETUP_EXIT, THIRD.target)
    assert closed.log_slot == SLOT_C


def test_a_checkout_that_failed_for_no_told_reason_has_one() -> None:
    seen = preparing(record=record(THIRD, Stage.FAILED))
    closed = actions(plan_release(desired(), seen, NOW))[-1]
    assert isinstance(closed, CloseDeploy)
    assert closed.reason == Reason.CHECKOUT_FAILED


def test_a_step_that_failed_before_a_slot_was_chosen_closes_the_deploy() -> None:
    one = deploy(THIRD, step(Phase.FETCHING, ago(1)), verdicts=[failed(STEP, "", "odd")])
    (closed,) = actions(plan_release(desired(), running(after_second(), one), NOW))
    assert isinstance(closed, CloseDeploy)
    assert (closed.reason, closed.detail) == (Reason.LAUNCH_FAILED, "odd")


def test_a_prepared_slot_is_started_and_probed() -> None:
    found = actions(plan_release(desired(), preparing(record=record(THIRD)), NOW))
    assert names(*found) == ["Advance", "StartInstances", "Advance", "RunProbe"]
    begun = found[1]
    assert isinstance(begun, StartInstances)
    assert (begun.slot, begun.processes, begun.restart) == (SLOT_C, (WEB,), False)


def proving(*verdicts: object, asked: object = THIRD, **fields: object) -> ObservedApp:
    entered = step(Phase.PROVING, ago(1), SLOT_C)
    one = deploy(asked, entered, verdicts=verdicts)  # type: ignore[arg-type]
    begun = replace(serving(SLOT_C, THIRD, since=ago(1)), published="", health=UNKNOWN_HEALTH)
    return with_slots(running(after_second(), one), replace(begun, **fields))  # type: ignore[arg-type]


def test_a_proof_is_begun_once_and_waited_for() -> None:
    assert plan_names(proving()) == ["RunProbe"]
    plan = plan_release(desired(), proving(busy=frozenset({"probe"})), NOW)
    assert actions(plan) == []
    assert plan.wake_at is not None


def test_a_probe_of_which_nothing_is_heard_was_lost_and_condemns_nothing() -> None:
    seen = proving(busy=frozenset({"probe"}))
    plan = plan_release(desired(), seen, later(30))
    told = next(one for one in actions(plan) if isinstance(one, RecordVerdict))
    assert (told.verdict.name, told.verdict.reason) == (STEP, Reason.DAEMON_STOPPED)


def test_a_started_slot_that_lost_its_start_is_started_again() -> None:
    seen = proving(record=record(THIRD), instances=(), vacant=True)
    assert "StartInstances" in plan_names(seen)


def test_a_candidate_whose_slot_is_gone_is_interrupted() -> None:
    for phase in (Phase.PROVING, Phase.SWITCHING):
        one = deploy(THIRD, step(phase, ago(1), SLOT_C))
        closed = actions(plan_release(desired(), running(after_second(), one), NOW))[-1]
        assert isinstance(closed, CloseDeploy)
        assert closed.phase is Phase.INTERRUPTED


def test_the_deep_check_comes_after_health() -> None:
    deep = contract(health_test_payload={"method": "GET", "path": "/", "expect_status": 200})
    seen = replace(proving(verdict("health")), running_contract=deep)
    found = [
        one for one in actions(plan_release(desired(), seen, NOW)) if isinstance(one, RunProbe)
    ]
    assert [one.probe for one in found] == ["request"]


def test_without_health_the_slot_must_at_least_listen() -> None:
    asked = replace(THIRD, skip_probes=("health",), reason="it has none")
    chosen = step(Phase.PREPARING, ago(3), SLOT_C)
    seen = running(preparing(record=record(THIRD)), deploy(asked, chosen))
    probe = actions(plan_release(desired(), seen, NOW))[-1]
    assert isinstance(probe, RunProbe)
    assert (probe.probe, probe.verdict, probe.contract.health_endpoint) == (
        "health",
        "listen",
        None,
    )
    assert "SwitchRoute" not in plan_names(proving(asked=asked))
    assert "SwitchRoute" in plan_names(proving(verdict("listen"), asked=asked))


def test_a_skipped_probe_is_recorded_as_skipped_with_the_reason() -> None:
    asked = replace(THIRD, skip_probes=("health", "request"), reason="it has none")
    found = actions(plan_release(desired(), proving(asked=asked), NOW))
    told = [one.verdict for one in found if isinstance(one, RecordVerdict)]
    assert [one.name for one in told] == ["health", "request"]
    assert {one.result for one in told} == {VerdictResult.SKIPPED}
    assert {one.detail for one in told} == {"it has none"}
    known = [verdict("health", VerdictResult.SKIPPED), verdict("request", VerdictResult.SKIPPED)]
    assert "RecordVerdict" not in plan_names(proving(*known, asked=asked))


def test_a_failed_proof_stops_the_candidate_then_kills_it_then_closes_the_deploy() -> None:
    bad = failed("health", Reason.BAD_STATUS, "500")
    seen = proving(bad)
    assert StopSlot(SLOT_C) in actions(plan_release(desired(), seen, NOW))
    told = with_slots(seen, noted(seen.slots[2], term_at=ago(0.1)))
    plan = plan_release(desired(), told, NOW)
    assert actions(plan) == []
    assert plan.wake_at == later(0.4)
    stubborn = with_slots(seen, noted(seen.slots[2], term_at=ago(1)))
    assert StopSlot(SLOT_C, kill=True) in actions(plan_release(desired(), stubborn, NOW))
    gone = with_slots(seen, down(seen.slots[2]))
    closed = actions(plan_release(desired(), gone, NOW))[-1]
    assert isinstance(closed, CloseDeploy)
    assert (closed.reason, closed.detail) == (Reason.BAD_STATUS, "500")


def test_what_cannot_be_killed_is_closed_after_five_seconds_and_says_so() -> None:
    seen = proving(failed("health"))
    stuck = with_slots(seen, noted(seen.slots[2], term_at=ago(6)))
    closed = actions(plan_release(desired(), stuck, NOW))[0]
    assert isinstance(closed, CloseDeploy)
    assert closed.reason == Reason.PROBE_TIMEOUT
    assert "cannot be killed" in closed.detail


def test_a_proved_candidate_goes_live_in_this_order() -> None:
    found = actions(plan_release(desired(), proving(verdict("health")), NOW))
    assert names(*found) == ["Advance", "PublishAddress", "SwitchRoute", "ConfirmRoute", "Promote"]


def test_a_candidate_that_ended_after_its_proof_does_not_go_live() -> None:
    seen = proving(verdict("health"))
    found = actions(plan_release(desired(), with_slots(seen, down(seen.slots[2])), NOW))
    closed = found[-1]
    assert isinstance(closed, CloseDeploy)
    assert closed.reason == Reason.EXITED


def test_a_proved_candidate_waits_for_the_proxy_and_then_gives_up() -> None:
    seen = replace(proving(verdict("health")), routed=False)
    plan = plan_release(desired(), seen, NOW)
    assert actions(plan) == []
    assert "the proxy is not ready yet" in plan.pending
    found = actions(plan_release(desired(), seen, later(19)))
    told = next(one for one in found if isinstance(one, RecordVerdict))
    assert (told.verdict.name, told.verdict.reason) == (STEP, Reason.PROXY_DOWN)


def test_processes_without_web_must_live_for_a_second() -> None:
    begun = replace(
        serving(SLOT_C, THIRD, since=ago(0.4), processes=(WORKER,)), health=UNKNOWN_HEALTH
    )
    seen = with_slots(
        running(after_second(), deploy(THIRD, step(Phase.PROVING, ago(0.4), SLOT_C)), WORKER_ONLY),
        begun,
    )
    plan = plan_release(
        desired(WORKER_ONLY), with_records(seen, seen_inputs=_seen(WORKER_ONLY)), NOW
    )
    assert plan.wake_at == later(0.6)
    found = actions(plan_release(desired(), seen, later(0.6)))
    assert [one for one in names(*found) if one in ("RecordVerdict", "SwitchRoute", "Promote")] == [
        "RecordVerdict", "SwitchRoute", "Promote",
    ]  # fmt: skip
    ended = actions(plan_release(desired(), with_slots(seen, down(begun)), NOW))
    told = next(one for one in ended if isinstance(one, RecordVerdict))
    assert (told.verdict.result, told.verdict.reason) == (VerdictResult.FAILED, Reason.EXITED)
    assert "status 1" in told.verdict.detail


def _seen(of: object) -> SeenInputs:
    return SeenInputs(of.digest, "")  # type: ignore[attr-defined]


def test_processes_that_were_found_alive_before_go_live_without_a_second_verdict() -> None:
    begun = replace(serving(SLOT_C, THIRD, since=ago(4), processes=(WORKER,)))
    alive = deploy(THIRD, step(Phase.PROVING, ago(4), SLOT_C), verdicts=[verdict("alive")])
    seen = with_slots(running(after_second(), alive, WORKER_ONLY), begun)
    found = actions(plan_release(desired(), seen, NOW))
    assert "Promote" in names(*found)
    assert "RecordVerdict" not in names(*found)


def test_an_exit_that_nobody_saw_is_told_as_unknown() -> None:
    begun = down(serving(SLOT_C, THIRD, since=ago(1), processes=(WORKER,)))
    begun = replace(begun, instances=(replace(begun.instances[0], exit_status=None),))
    one = deploy(THIRD, step(Phase.PROVING, ago(1), SLOT_C))
    seen = with_slots(running(after_second(), one, WORKER_ONLY), begun)
    told = next(
        one for one in actions(plan_release(desired(), seen, NOW)) if isinstance(one, RecordVerdict)
    )
    assert "status unknown" in told.verdict.detail


def switching(*verdicts: object, moved: bool = False, **fields: object) -> ObservedApp:
    entered = step(Phase.SWITCHING, ago(0.1), SLOT_C)
    one = deploy(THIRD, entered, verdicts=(verdict("health"), *verdicts))  # type: ignore[arg-type]
    begun = replace(serving(SLOT_C, THIRD, since=ago(1)), **fields)  # type: ignore[arg-type]
    seen = with_slots(running(after_second(before=serving(SLOT_A, FIRST)), one), begun)
    return replace(seen, pointer=PointsTo(SLOT_C)) if moved else seen


def test_a_switch_that_was_cut_off_before_the_rename_is_done() -> None:
    found = actions(plan_release(desired(), switching(), NOW))
    assert [one for one in names(*found) if one in ("SwitchRoute", "ConfirmRoute", "Promote")] == [
        "SwitchRoute", "ConfirmRoute", "Promote",
    ]  # fmt: skip


def test_a_switch_that_was_cut_off_after_the_rename_is_confirmed() -> None:
    found = actions(plan_release(desired(), switching(moved=True), NOW))
    assert SwitchRoute(SLOT_C) not in found
    assert {"ConfirmRoute", "Promote"} <= set(names(*found))


def test_a_switch_without_web_that_was_cut_off_is_recorded() -> None:
    seen = replace(switching(moved=True), running_contract=WORKER_ONLY)
    found = actions(plan_release(desired(), seen, NOW))
    assert Promote(THIRD, SLOT_C) in found
    assert "PublishAddress" not in names(*found)


def test_a_route_that_an_ended_deploy_left_behind_is_taken_back() -> None:
    seen = replace(switching(moved=True), running_contract=None)
    ended = with_records(seen, running=None, wish=wish(THIRD, WishStatus.CANCELLED))
    assert actions(plan_release(desired(), ended, NOW)) == [SwitchRoute(SLOT_B)]


def test_a_route_is_not_taken_back_to_what_does_not_run() -> None:
    seen = with_slots(switching(moved=True), down(serving(SLOT_B, SECOND)))
    ended = with_records(seen, running=None, wish=wish(THIRD, WishStatus.CANCELLED))
    assert "SwitchRoute" not in plan_names(replace(ended, running_contract=None))


def test_a_switch_that_was_confirmed_before_is_recorded() -> None:
    found = actions(plan_release(desired(), switching(verdict("confirm"), moved=True), NOW))
    assert Promote(THIRD, SLOT_C) in found
    assert "ConfirmRoute" not in names(*found)


def test_an_unconfirmed_switch_goes_back_and_nothing_of_live_is_drained_meanwhile() -> None:
    bad = failed("confirm", Reason.NOT_CONFIRMED)
    found = actions(plan_release(desired(), switching(bad, moved=True), NOW))
    assert SwitchRoute(SLOT_B) in found
    assert not [
        one
        for one in found
        if isinstance(one, DrainSlot | StopProcesses | StopSlot) and one.slot == SLOT_B
    ]


def test_an_unconfirmed_first_deploy_takes_the_route_away() -> None:
    bad = failed("confirm", Reason.NOT_CONFIRMED)
    one = deploy(FIRST, step(Phase.SWITCHING, ago(0.1), SLOT_A), verdicts=[bad])
    seen = observed(PointsTo(SLOT_A), [serving(SLOT_A, FIRST)], records_of())
    found = actions(plan_release(desired(), running(seen, one), NOW))
    assert "RemoveRoute" in names(*found)


def test_an_unconfirmed_deploy_is_stopped_once_the_route_is_back() -> None:
    bad = failed("confirm", Reason.NOT_CONFIRMED)
    assert StopSlot(SLOT_C) in actions(plan_release(desired(), switching(bad), NOW))


def test_a_candidate_that_ended_just_before_the_rename_does_not_get_the_route() -> None:
    seen = switching()
    found = actions(plan_release(desired(), with_slots(seen, down(seen.slots[2])), NOW))
    closed = next(one for one in found if isinstance(one, CloseDeploy))
    assert closed.reason == Reason.EXITED
    assert not [one for one in found if isinstance(one, SwitchRoute)]


def test_a_deploy_that_has_ended_is_left_alone() -> None:
    over = deploy(THIRD, step(Phase.FAILED, ago(1)))
    assert actions(plan_release(desired(), running(after_second(), over), NOW)) == []


def rollback(before: object, *progress: object, verdicts: object = ()) -> ObservedApp:
    back = request(4, A, WishKind.ROLLBACK, rolls_back_to=FIRST.id)
    one = deploy(back, *progress, verdicts=verdicts)  # type: ignore[arg-type]
    return running(after_second(seconds_ago=5, before=before), one)  # type: ignore[arg-type]


def test_a_warm_previous_is_asked_and_not_drained_any_more() -> None:
    warm = noted(serving(SLOT_A, FIRST), drain_since=ago(3), drained=True)
    found = actions(plan_release(desired(), rollback(warm), NOW))
    assert names(*found) == ["WarmSlot", "Advance", "RunProbe"]


def test_a_previous_that_does_not_drain_yet_needs_no_taking_back() -> None:
    found = actions(plan_release(desired(), rollback(serving(SLOT_A, FIRST)), NOW))
    assert names(*found) == ["Advance", "RunProbe"]


def test_a_cold_rollback_into_its_own_slot_keeps_the_files() -> None:
    cold = noted(down(serving(SLOT_A, FIRST)), vacated=True)
    chosen = step(Phase.PREPARING, ago(1), SLOT_A)
    found = actions(plan_release(desired(), rollback(cold, chosen), NOW))
    (prepared,) = [one for one in found if isinstance(one, PrepareSlot)]
    assert (prepared.slot, prepared.intact) == (SLOT_A, True)


def test_files_of_another_boot_are_checked_in_full() -> None:
    cold = noted(down(serving(SLOT_A, FIRST)), vacated=True, boot_id=LAST_BOOT)
    chosen = step(Phase.PREPARING, ago(1), SLOT_A)
    found = actions(plan_release(desired(), rollback(cold, chosen), NOW))
    (prepared,) = [one for one in found if isinstance(one, PrepareSlot)]
    assert not prepared.intact


def test_live_that_is_down_is_blanked_and_started_again_from_its_own_slot() -> None:
    seen = with_slots(after_first(), down(serving(SLOT_A, FIRST)))
    found = actions(plan_release(desired(), seen, NOW))
    assert names(*found) == ["BlankAddress", "StopProcesses", "StartInstances"]
    assert found[0] == BlankAddress(SLOT_A)


def test_live_that_was_never_started_in_this_boot_is_started_without_a_pause() -> None:
    once = Start(WEB, replace(ago(1), boot_id=LAST_BOOT))
    seen = with_slots(
        after_first(), noted(down(serving(SLOT_A, FIRST, published="")), starts=(once,) * 9)
    )
    assert plan_names(seen) == ["StopProcesses", "StartInstances"]


def test_a_restart_waits_for_its_pause() -> None:
    twice = (Start(WEB, ago(3)), Start(WEB, ago(0.2)))
    seen = with_slots(
        after_first(), noted(down(serving(SLOT_A, FIRST, published="")), starts=twice)
    )
    plan = plan_release(desired(), seen, NOW)
    assert actions(plan) == []
    assert plan.wake_at == later(0.8)


@pytest.mark.parametrize(
    ("starts", "seconds"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (7, 32), (8, 60), (30, 60)]
)
def test_the_pause_doubles_up_to_a_minute(starts: int, seconds: int) -> None:
    assert restart_pause(starts) == timedelta(seconds=seconds)


def test_health_is_asked_when_it_is_due() -> None:
    fresh = with_slots(
        after_first(), serving(SLOT_A, FIRST, health=Health(ok=True, failures=0, checked_at=ago(4)))
    )
    plan = plan_release(desired(), fresh, NOW)
    assert actions(plan) == []
    assert plan.wake_at == later(6)
    assert names(*actions(plan_release(desired(), fresh, later(6)))) == ["CheckHealth"]


def test_health_of_an_earlier_boot_is_asked_again() -> None:
    old = Health(ok=True, failures=0, checked_at=replace(NOW, boot_id=LAST_BOOT))
    (asked,) = actions(
        plan_release(desired(), with_slots(after_first(), serving(SLOT_A, FIRST, health=old)), NOW)
    )
    assert asked == CheckHealth(SLOT_A, PLAIN)


def test_live_that_answers_is_published() -> None:
    seen = with_slots(after_first(), serving(SLOT_A, FIRST, published=""))
    assert PublishAddress(SLOT_A) in actions(plan_release(desired(), seen, NOW))


def test_an_unhealthy_live_is_blanked_and_stopped() -> None:
    seen = with_slots(after_first(), serving(SLOT_A, FIRST, health=UNHEALTHY))
    assert plan_names(seen) == ["BlankAddress", "StopProcesses"]


def test_workers_of_live_that_are_down_are_started() -> None:
    seen = with_slots(after_first(), serving(SLOT_A, FIRST))
    seen = replace(seen, live_contract=WITH_WORKER)
    found = actions(plan_release(desired(), seen, NOW))
    (begun,) = [one for one in found if isinstance(one, StartInstances)]
    assert begun.processes == (WORKER,)


def test_a_worker_only_live_that_is_up_needs_nothing() -> None:
    seen = with_slots(after_first(), serving(SLOT_A, FIRST, processes=(WORKER,)))
    seen = replace(seen, live_contract=WORKER_ONLY)
    assert plan_names(seen) == []


def test_a_bake_without_failure_is_passed_when_its_time_is_over() -> None:
    young = after_second(seconds_ago=5)
    assert plan_release(desired(), young, NOW).wake_at is not None
    found = actions(plan_release(desired(), young, later(25)))
    told = next(one for one in found if isinstance(one, RecordVerdict))
    assert (told.verdict.name, told.verdict.result) == ("bake", VerdictResult.PASSED)


def test_a_bake_that_ends_while_live_wavers_waits_for_the_next_check() -> None:
    once = Health(ok=False, failures=1, checked_at=later(24.9), reason="bad-status")
    seen = with_slots(after_second(seconds_ago=5), serving(SLOT_B, SECOND, health=once))
    plan = plan_release(desired(), seen, later(25))
    assert "RecordVerdict" not in names(*actions(plan))
    assert plan.wake_at == later(25.9)
    left = contract(on_unhealthy="alert")
    assert "RecordVerdict" in names(*actions(plan_release(desired(left), seen, later(25))))


def test_a_bake_that_fails_with_no_way_back_says_so_when_it_ends() -> None:
    loops = noted(
        down(serving(SLOT_A, FIRST, published="")),
        starts=tuple(Start(WEB, later(seconds)) for seconds in (22, 23, 24)),
    )
    alive = live_deploy(FIRST, SLOT_A, seconds_ago=5)
    seen = with_slots(with_records(after_first(), live_deploy=alive), loops)
    found = actions(plan_release(desired(), seen, later(25)))
    told = next(one.verdict for one in found if isinstance(one, RecordVerdict))
    assert (told.result, told.reason) == (VerdictResult.FAILED, Reason.CRASH_LOOP)


def test_in_a_short_bake_health_is_asked_often_enough_to_fail_it() -> None:
    short = contract(bake_ms=3000, health_interval_ms=60_000)
    fresh = Health(ok=True, failures=0, checked_at=NOW)
    seen = with_slots(after_second(seconds_ago=1), serving(SLOT_B, SECOND, health=fresh))
    assert plan_release(desired(short), seen, NOW).wake_at == later(0.5)


def test_a_bake_begins_with_its_phase_unless_it_has_no_length() -> None:
    alive = live_deploy(FIRST, SLOT_A, seconds_ago=1)
    fresh = with_records(after_first(), live_deploy=replace(alive, progress=alive.progress[:2]))
    assert Advance(FIRST.id, Phase.BAKING) in actions(plan_release(desired(), fresh, NOW))
    none = contract(bake_ms=0)
    assert Advance(FIRST.id, Phase.BAKING) not in actions(plan_release(desired(none), fresh, NOW))


def looping() -> ObservedApp:
    thrice = tuple(Start(WEB, ago(seconds)) for seconds in (4, 3, 1))
    warm = noted(serving(SLOT_A, FIRST), drain_since=ago(3), drained=True)
    seen = after_second(seconds_ago=5, before=warm)
    return with_slots(seen, noted(down(serving(SLOT_B, SECOND, published="")), starts=thrice))


def test_a_crash_loop_in_the_bake_wishes_previous_back_and_quarantines_what_fails() -> None:
    found = actions(plan_release(desired(), looping(), NOW))
    (back,) = [one for one in found if isinstance(one, MakeWish)]
    assert (back.kind, back.target, back.quarantine) == (
        WishKind.RETURN, FIRST.target, SECOND.target,
    )  # fmt: skip
    assert back.rolls_back_to == FIRST.id
    assert back.reason == Reason.CRASH_LOOP


def test_an_automatic_return_that_fails_its_own_bake_does_not_go_to_and_fro() -> None:
    seen = looping()
    back = replace(SECOND, kind=WishKind.RETURN, rolls_back_to=None)
    seen = with_records(seen, live_deploy=live_deploy(back, SLOT_B, seconds_ago=5))
    assert "MakeWish" not in plan_names(seen)


def test_a_bake_does_not_disturb_a_deploy_that_runs() -> None:
    assert "MakeWish" not in plan_names(running(looping(), deploy(THIRD)))


def test_a_bake_of_an_earlier_boot_is_not_watched_any_more() -> None:
    alive = live_deploy(FIRST, SLOT_A, seconds_ago=5)
    old = tuple(
        replace(one, instant=replace(one.instant, boot_id=LAST_BOOT)) for one in alive.progress
    )
    seen = with_records(after_first(), live_deploy=replace(alive, progress=old))
    assert plan_names(seen) == []


def test_previous_drains_is_warm_for_a_while_and_is_stopped_then() -> None:
    up = serving(SLOT_A, FIRST)
    young = after_second(seconds_ago=5, before=up)
    assert DrainSlot(SLOT_A, NOW) in actions(plan_release(desired(), young, NOW))
    quiet = noted(replace(up, connections=0), drain_since=ago(1))
    assert DrainSlot(SLOT_A, ago(1), NOW) in actions(
        plan_release(desired(), with_slots(young, quiet), NOW)
    )
    still = noted(quiet, quiet_since=ago(0.2))
    assert DrainSlot(SLOT_A, ago(1), ago(0.2), drained=True) in actions(
        plan_release(desired(), with_slots(young, still), NOW)
    )
    drained = noted(still, drained=True)
    assert actions(plan_release(desired(), with_slots(young, drained), NOW)) == []
    assert StopSlot(SLOT_A) in actions(
        plan_release(desired(), with_slots(young, drained), later(25))
    )


def test_two_samples_are_a_tenth_of_a_second_apart() -> None:
    young = after_second(seconds_ago=5, before=serving(SLOT_A, FIRST))
    early = noted(replace(young.slots[0], connections=0), drain_since=ago(1), quiet_since=ago(0.05))
    plan = plan_release(desired(), with_slots(young, early), NOW)
    assert actions(plan) == []
    assert plan.wake_at == later(0.05)


def test_a_connection_starts_the_count_again() -> None:
    young = after_second(seconds_ago=5, before=serving(SLOT_A, FIRST))
    talking = noted(
        replace(young.slots[0], connections=1), drain_since=ago(1), quiet_since=ago(0.05)
    )
    assert DrainSlot(SLOT_A, ago(1)) in actions(
        plan_release(desired(), with_slots(young, talking), NOW)
    )
    counted = noted(talking, quiet_since=None)
    assert actions(plan_release(desired(), with_slots(young, counted), NOW)) == []


def test_a_drain_ends_at_its_deadline_whatever_is_connected() -> None:
    young = after_second(seconds_ago=15, before=serving(SLOT_A, FIRST))
    talking = noted(replace(young.slots[0], connections=7), drain_since=ago(10))
    assert DrainSlot(SLOT_A, ago(10), drained=True) in actions(
        plan_release(desired(), with_slots(young, talking), NOW)
    )


def test_the_live_deploy_is_told_once_that_what_it_replaced_drains() -> None:
    alive = live_deploy(SECOND, SLOT_B, seconds_ago=5)
    fresh = replace(alive, progress=alive.progress[:3])
    seen = with_records(
        after_second(seconds_ago=5, before=serving(SLOT_A, FIRST)), live_deploy=fresh
    )
    assert Advance(SECOND.id, Phase.DRAINING) in actions(plan_release(desired(), seen, NOW))


def test_an_old_slot_may_finish_until_its_drain_would_have_ended() -> None:
    told = noted(serving(SLOT_A, FIRST), drain_since=ago(8), drained=True, term_at=ago(1))
    seen = after_second(seconds_ago=50, before=told)
    assert actions(plan_release(desired(), seen, NOW)) == []
    assert StopSlot(SLOT_A, kill=True) in actions(plan_release(desired(), seen, later(2)))


def test_a_slot_that_was_told_to_stop_without_a_drain_has_half_a_second() -> None:
    told = noted(serving(SLOT_C, THIRD), term_at=ago(0.3))
    seen = with_slots(after_second(), told)
    assert actions(plan_release(desired(), seen, NOW)) == []
    assert StopSlot(SLOT_C, kill=True) in actions(plan_release(desired(), seen, later(0.2)))


def test_what_was_told_to_stop_in_an_earlier_boot_and_still_runs_is_killed() -> None:
    told = noted(serving(SLOT_C, THIRD), term_at=replace(NOW, boot_id=LAST_BOOT))
    assert StopSlot(SLOT_C, kill=True) in actions(
        plan_release(desired(), with_slots(after_second(), told), NOW)
    )


def test_what_never_went_live_is_stopped_and_retired() -> None:
    seen = with_slots(after_second(), serving(SLOT_C, THIRD))
    assert StopSlot(SLOT_C) in actions(plan_release(desired(), seen, NOW))
    seen = with_slots(seen, down(serving(SLOT_C, THIRD)))
    assert RetireSlot(SLOT_C) in actions(plan_release(desired(), seen, NOW))


def test_previous_of_an_earlier_boot_is_not_kept_warm() -> None:
    warm = noted(serving(SLOT_A, FIRST), drain_since=ago(3), drained=True)
    seen = after_second(seconds_ago=5, before=warm)
    assert seen.records.live_deploy is not None
    old = tuple(
        replace(one, instant=replace(one.instant, boot_id=LAST_BOOT))
        for one in seen.records.live_deploy.progress
    )
    seen = with_records(seen, live_deploy=replace(seen.records.live_deploy, progress=old))
    assert StopSlot(SLOT_A) in actions(plan_release(desired(), seen, NOW))


def test_standby_keeps_previous_warm_for_longer_than_the_bake() -> None:
    kept = contract(standby_ms=120_000)
    warm = noted(serving(SLOT_A, FIRST), drain_since=ago(90), drained=True)
    assert plan_names(after_second(seconds_ago=100, before=warm), of=kept) == []


def test_trash_is_emptied_when_nothing_is_under_way_and_the_bake_is_over() -> None:
    littered = replace(serving(SLOT_A, FIRST), has_trash=True)
    assert actions(plan_release(desired(), with_slots(after_first(), littered), NOW)) == [
        EmptyTrash()
    ]
    young = with_records(after_first(), live_deploy=live_deploy(FIRST, SLOT_A, seconds_ago=2))
    assert plan_names(with_slots(young, littered)) == []


def test_an_app_is_looked_for_twice_before_it_is_taken_away() -> None:
    seen = after_first()
    assert plan_names(seen, of=None, removed=True) == ["NoteAbsence"]
    once = with_records(seen, absent_passes=1)
    assert NoteAbsence(2) in actions(plan_release(desired(None, removed=True), once, NOW))
    twice = with_records(seen, absent_passes=2)
    assert actions(plan_release(desired(None, removed=True), twice, NOW)) == [RemoveRoute()]


def test_a_removed_app_drains_everything_previous_too() -> None:
    warm = noted(serving(SLOT_A, FIRST), drain_since=ago(3), drained=True)
    seen = with_records(after_second(seconds_ago=5, before=warm), absent_passes=2)
    gone = replace(seen, pointer=NoPointer(), live_contract=None)
    found = actions(plan_release(desired(None, removed=True), gone, NOW))
    assert StopSlot(SLOT_A) in found
    assert DrainSlot(SLOT_B, NOW) in found


def test_an_app_that_is_named_again_starts_over() -> None:
    seen = with_records(after_first(), absent_passes=1)
    assert plan_names(seen) == ["NoteAbsence"]


def test_an_app_that_is_named_again_but_condemned_stays_away() -> None:
    seen = with_records(
        after_first(pointer=NoPointer(), live_contract=None, head=head(A)),
        quarantine=(quarantined(A),),
    )
    seen = with_slots(seen, noted(down(serving(SLOT_A, FIRST)), vacated=True))
    assert plan_names(seen) == []


def conditions(seen: ObservedApp, **fields: object) -> dict[ConditionType, Condition]:
    plan = plan_release(desired(**fields), seen, NOW)  # type: ignore[arg-type]
    return {one.type: one for one in plan.conditions}


def test_an_unknown_pointer_stops_everything_and_says_how_to_mend_it() -> None:
    seen = after_second()
    for pointer in (UnknownPointer("/elsewhere"), PointsTo(SLOT_C)):
        plan = plan_release(desired(), replace(seen, pointer=pointer), NOW)
        assert actions(plan) == []
        assert stalled(plan).reason == "PointerUnknown"
        assert "ln -sfn" in stalled(plan).message


def test_ready_says_whether_live_serves() -> None:
    assert conditions(after_first())[ConditionType.READY].reason == "Serving"
    ill = with_slots(after_first(), serving(SLOT_A, FIRST, published=""))
    assert conditions(ill)[ConditionType.READY].reason == "Unhealthy"
    assert conditions(NEVER_LIVE)[ConditionType.READY].reason == "NeverLive"


def test_an_app_that_is_deployed_when_asked_says_how_to_ask() -> None:
    told = conditions(NEVER_LIVE, of=contract(deploy_on="request"))[ConditionType.READY]
    assert "autopilot deploy --app shop" in told.message


def test_reconciling_names_the_revision_under_way() -> None:
    told = conditions(running(after_first(), deploy(SECOND)))[ConditionType.RECONCILING]
    assert (told.status, told.message) == (True, B[:10])
    told = conditions(waiting(retry_at=later(4)))[ConditionType.RECONCILING]
    assert (told.status, told.message) == (True, B[:10])


def test_reasons_from_around_are_told_and_the_first_one_leads() -> None:
    seen = after_first(
        source_problem="no network", disk_problem="/ is full", proxy_problem="port 80 is taken"
    )
    told = conditions(seen)[ConditionType.STALLED]
    assert told.reason == "SourceUnavailable"
    assert told.message == "no network (and DiskPressure, ProxyDown)"


def test_news_waits_until_a_rollback_has_arrived() -> None:
    asked = request(4, A, WishKind.ROLLBACK, rolls_back_to=FIRST.id)
    seen = with_records(after_second(), running=deploy(asked), wish=wish(asked))
    seen = replace(seen, running_contract=PLAIN, head=head(C))
    assert "MakeWish" not in plan_names(seen)
    assert "MakeWish" in plan_names(with_records(seen, wish=wish(asked, WishStatus.MET)))


def test_a_failed_deploy_is_told_with_the_way_to_its_output() -> None:
    told = conditions(waiting(status=WishStatus.FAILED))[ConditionType.STALLED]
    assert told.reason == "DeployFailed"
    assert "autopilot logs --deploy deploy-2" in told.message


def test_a_failure_is_forgotten_when_what_is_asked_for_is_what_is_live() -> None:
    seen = with_records(waiting(status=WishStatus.FAILED), seen_head=SeenHead("main", A))
    assert not conditions(seen)[ConditionType.STALLED].status


def test_a_superseded_wish_is_no_reason() -> None:
    assert not conditions(waiting(status=WishStatus.SUPERSEDED))[ConditionType.STALLED].status


def test_what_is_not_enforced_is_listed() -> None:
    seen = after_first(unenforced=("limits.memory_mb",))
    told = conditions(seen, of=contract(alert_webhook="https://example.org"))
    assert told[ConditionType.NOT_ENFORCED].message == "alert_webhook, limits.memory_mb"


def test_a_message_too_long_to_record_is_shortened_so_that_it_is_noted_once() -> None:
    problems = tuple(Problem("a.yaml", line, "x" * 90) for line in range(90))
    plan = plan_release(desired(problems=problems), after_first(), NOW)
    assert len(stalled(plan).message) == LONGEST_MESSAGE
    again = plan_release(desired(problems=problems), settled(after_first(), plan), NOW)
    assert not [one for one in again.steps if isinstance(one.action, NoteConditions)]


def test_while_a_rollback_holds_its_recorded_contract_is_the_policy() -> None:
    back = wish(request(4, A, WishKind.ROLLBACK), WishStatus.MET)
    seen = with_records(after_first(), wish=back)
    told = conditions(seen, of=contract(alert_webhook="https://example.org", env={"A": "b"}))
    assert ConditionType.NOT_ENFORCED not in told


def test_the_first_revision_is_fetched_for_its_deploy() -> None:
    seen = running(NEVER_LIVE, deploy(FIRST))
    assert FetchRevision(FIRST.id, A) in actions(
        plan_release(desired(), with_records(seen, seen_inputs=_seen(PLAIN)), NOW)
    )


def test_the_same_target_under_other_secrets_is_another_target() -> None:
    bad = quarantined(A, PLAIN.digest, "old")
    assert bad.covers(Target(A, PLAIN.digest, "old"))
    assert not bad.covers(Target(A, PLAIN.digest, "new"))


def test_a_confirmation_names_the_slot_and_the_deploy() -> None:
    found = actions(plan_release(desired(), switching(moved=True), NOW))
    assert ConfirmRoute(SLOT_C, THIRD.id, PLAIN) in found


def test_a_live_slot_with_a_drain_left_on_it_is_taken_back() -> None:
    seen = with_slots(after_first(), noted(serving(SLOT_A, FIRST), drain_since=ago(90)))
    assert WarmSlot(SLOT_A) in actions(plan_release(desired(), seen, NOW))
