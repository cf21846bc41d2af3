"""What `GET /status`, `GET /plan` and the deploy records say, field for field."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.model.conditions import Condition, ConditionType
from reconciler.model.deploys import Deploy, Phase, Reason, WishKind, WishStatus
from reconciler.model.names import WEB
from reconciler.model.observed import (
    UNKNOWN_HEALTH,
    Health,
    ObservedApp,
    ObservedSlot,
    PointsTo,
    Stage,
)
from reconciler.planning.release import plan_release
from reconciler.planning.standing import stand
from reconciler.planning.status import (
    app_plan,
    app_status,
    app_summary,
    condition,
    deploy_record,
    role,
    timestamp,
)
from tests.planning.worlds import (
    FIRST,
    LAST_BOOT,
    NEVER_LIVE,
    NOON,
    NOW,
    SECOND,
    SLOT_A,
    SLOT_B,
    SLOT_C,
    SLOT_D,
    THIRD,
    WORKER,
    WORKER_ONLY,
    A,
    B,
    after_first,
    after_second,
    ago,
    contract,
    deploy,
    desired,
    down,
    failed,
    instance,
    later,
    noted,
    quarantined,
    record,
    running,
    serving,
    slot,
    step,
    wish,
    with_records,
    with_slots,
)


def test_times_are_utc_with_milliseconds() -> None:
    assert (
        timestamp(datetime(2026, 3, 4, 5, 6, 7, 89_999, tzinfo=UTC)) == "2026-03-04T05:06:07.089Z"
    )
    assert timestamp(None) is None


def told(one: Deploy) -> dict[str, Any]:
    return dict(deploy_record(one))


def test_the_record_of_a_live_deploy_ends_with_going_live() -> None:
    live = deploy(
        SECOND,
        step(Phase.PREPARING, ago(0.9), SLOT_B),
        step(Phase.LIVE, ago(0.5), SLOT_B),
        step(Phase.BAKING, NOW, SLOT_B),
    )
    found = told(live)
    assert (found["success"], found["phase"], found["slot"]) == (True, "live", "deploy-b")
    assert found["duration_ms"] == 500
    assert found["finished_at"] == "2026-01-02T11:59:59.500Z"
    assert [each["phase"] for each in found["phases"]] == ["queued", "preparing", "live", "baking"]
    assert [each["duration_ms"] for each in found["phases"]] == [100, 400, 500, None]
    assert (found["reason"], found["detail"], found["message"]) == (None, None, None)


def test_the_record_of_a_failed_deploy_tells_reason_detail_and_verdicts() -> None:
    ended = step(Phase.FAILED, NOW, None, Reason.BAD_STATUS, "status 500")
    found = told(deploy(SECOND, ended, verdicts=[failed("health", Reason.BAD_STATUS, "500")]))
    assert (found["success"], found["phase"]) == (False, "failed")
    assert (found["reason"], found["detail"]) == ("bad-status", "status 500")
    assert found["duration_ms"] == 1000
    assert found["verdicts"] == [
        {
            "name": "health",
            "kind": "probe",
            "result": "failed",
            "reason": "bad-status",
            "detail": "500",
        }
    ]


def test_a_deploy_that_was_rolled_back_is_no_success_any_more() -> None:
    found = told(deploy(SECOND, step(Phase.LIVE, ago(0.5)), step(Phase.ROLLED_BACK, NOW)))
    assert (found["success"], found["phase"]) == (False, "rolled_back")


def test_a_deploy_under_way_has_not_finished() -> None:
    found = told(deploy(SECOND, step(Phase.PROVING, NOW, SLOT_B)))
    assert (found["finished_at"], found["duration_ms"]) == (None, None)


def test_a_span_across_a_reboot_is_unknown() -> None:
    across = deploy(SECOND, step(Phase.INTERRUPTED, replace(NOW, boot_id=LAST_BOOT)))
    assert told(across)["duration_ms"] is None


def status(seen: ObservedApp, **fields: object) -> dict[str, Any]:
    return dict(app_status((desired(**fields), seen, NOW), NOON))  # type: ignore[arg-type]


def test_without_a_look_everything_is_empty() -> None:
    empty = app_status(None, NOON)
    assert empty["live_slot"] is None
    assert empty["slots"] == []
    assert empty["healthy"] is None


def test_an_app_that_was_never_live_has_nothing_live() -> None:
    found = status(NEVER_LIVE)
    assert (found["live_slot"], found["live_commit"], found["healthy"]) == (None, None, False)
    assert [each["condition"] for each in found["slots"]] == ["empty"] * 3
    assert found["last_deploy_time"] is None


def test_live_and_previous_are_named() -> None:
    found = status(after_second())
    assert (found["live_slot"], found["live_commit"]) == ("deploy-b", B)
    assert (found["previous_slot"], found["previous_commit"]) == ("deploy-a", A)
    assert found["healthy"]
    assert found["last_deploy_time"] == "2026-01-02T11:58:20.000Z"
    assert [each["role"] for each in found["slots"]] == ["previous", "live", "none"]


def test_an_instance_tells_since_when_it_is_up_in_wall_time() -> None:
    (found, *_) = status(after_first())["slots"]
    assert found["instances"] == [
        {
            "process": "web",
            "address": "127.0.0.1:20000",
            "up": True,
            "since": "2026-01-02T11:58:20.000Z",
            "pid": 100,
        }
    ]
    unknown = replace(serving(SLOT_A, FIRST), instances=(replace(instance(), since=None),))
    (found, *_) = status(with_slots(after_first(), unknown))["slots"]
    assert found["instances"][0]["since"] is None


def test_what_runs_waits_and_went_before_is_listed() -> None:
    seen = with_records(
        running(after_first(), deploy(SECOND)),
        queued=deploy(THIRD),
        quarantine=(quarantined(B, reason="loops"),),
    )
    look = (desired(), seen, NOW)
    noted_since = Condition(ConditionType.READY, status=True, reason="Serving")
    found: dict[str, Any] = dict(
        app_status(look, NOON, [deploy(FIRST)], [(noted_since, NOON - timedelta(hours=1))])
    )
    assert found["deploy"]["deploy_id"] == "deploy-2"
    assert [each["deploy_id"] for each in found["queued"]] == ["deploy-3"]
    assert [each["deploy_id"] for each in found["recent"]] == ["deploy-1"]
    assert found["quarantine"] == [
        {
            "commit": B,
            "contract_digest": None,
            "reason": "loops",
            "by": "human:ada",
            "since": "2026-01-02T12:00:00.000Z",
        }
    ]
    assert found["conditions"] == [
        {
            "type": "Ready",
            "status": True,
            "reason": "Serving",
            "message": "",
            "since": "2026-01-02T11:00:00.000Z",
        }
    ]


def test_slots_beyond_the_contract_are_shown_only_when_something_is_in_them() -> None:
    one = after_first()
    beyond = replace(one, slots=(*one.slots, slot(SLOT_D)))
    assert len(status(beyond)["slots"]) == 3
    assert len(status(beyond, of=contract(slots=2))["slots"]) == 2
    used = replace(one, slots=(*one.slots, slot(SLOT_D, record(THIRD))))
    assert len(status(used)["slots"]) == 4
    assert len(status(NEVER_LIVE, of=None)["slots"]) == 3


def test_an_app_is_ready_when_it_serves_and_nothing_is_under_way() -> None:
    assert app_summary(desired(), after_first(), NOW) == {
        "live_commit": A,
        "healthy": True,
        "ready": True,
    }
    busy = running(after_first(), deploy(SECOND))
    assert app_summary(desired(), busy, NOW)["ready"] is False
    assert app_summary(desired(), NEVER_LIVE, NOW)["live_commit"] is None


@pytest.mark.parametrize(
    ("seen", "one", "expected"),
    [
        (after_first(), serving(SLOT_A, FIRST), "live"),
        (after_second(before=serving(SLOT_A, FIRST)), serving(SLOT_A, FIRST), "previous"),
        (
            running(after_first(), deploy(SECOND, step(Phase.PROVING, NOW, SLOT_B))),
            serving(SLOT_B, SECOND),
            "candidate",
        ),
        (after_first(), noted(serving(SLOT_C, THIRD), drain_since=ago(1)), "draining"),
        (after_first(), noted(down(serving(SLOT_C, THIRD)), drain_since=ago(1)), "none"),
        (after_first(), slot(SLOT_C), "none"),
    ],
)
def test_roles_are_derived(seen: ObservedApp, one: ObservedSlot, expected: str) -> None:
    seen = with_slots(seen, one)
    assert role(stand(desired(), seen, NOW), one) == expected


UP = replace(serving(SLOT_C, THIRD), published="")


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (slot(SLOT_C), "empty"),
        (slot(SLOT_C, record(THIRD, Stage.PREPARING), busy=frozenset({"prepare"})), "preparing"),
        (slot(SLOT_C, record(THIRD, Stage.PREPARING)), "dirty"),
        (slot(SLOT_C, record(THIRD, Stage.FAILED)), "failed"),
        (slot(SLOT_C, record(THIRD)), "stopped"),
        (noted(UP, term_at=ago(1)), "draining"),
        (noted(UP, drain_since=ago(1)), "draining"),
        (noted(UP, drain_since=ago(1), drained=True), "healthy"),
        (replace(UP, instances=(replace(UP.instances[0], up=False),)), "unhealthy"),
        (replace(UP, health=UNKNOWN_HEALTH), "starting"),
        (replace(UP, health=Health(ok=False, failures=1, checked_at=NOW)), "unhealthy"),
        (UP, "healthy"),
    ],
)
def test_conditions_of_slots_are_derived(one: ObservedSlot, expected: str) -> None:
    standing = stand(desired(), with_slots(after_first(), one), NOW)
    assert condition(standing, one) == expected


def test_live_is_healthy_when_it_serves() -> None:
    one = serving(SLOT_A, FIRST)
    standing = stand(desired(), with_slots(after_first(), one), NOW)
    assert condition(standing, one) == "healthy"
    hidden = replace(one, published="")
    assert (
        condition(stand(desired(), with_slots(after_first(), hidden), NOW), hidden) == "unhealthy"
    )


def test_an_app_without_web_is_healthy_while_its_processes_live() -> None:
    alive = serving(SLOT_A, FIRST, processes=(WORKER,))
    seen = replace(with_slots(after_first(), alive), live_contract=WORKER_ONLY)
    assert status(seen, of=WORKER_ONLY)["healthy"]
    assert not status(with_slots(seen, down(alive)), of=WORKER_ONLY)["healthy"]
    gone = replace(alive, instances=())
    assert not status(with_slots(seen, gone), of=WORKER_ONLY)["healthy"]


def planned(seen: ObservedApp, **fields: object) -> dict[str, Any]:
    wanted = desired(**fields)  # type: ignore[arg-type]
    return dict(app_plan(plan_release(wanted, seen, NOW), stand(wanted, seen, NOW)))


def test_at_rest_the_plan_is_converged() -> None:
    found = planned(after_first())
    assert found["converged"]
    assert found["pending"] == []
    assert not found["held"]


def test_a_held_rollback_is_converged() -> None:
    back = wish(replace(FIRST, kind=WishKind.ROLLBACK), WishStatus.MET)
    found = planned(with_records(after_first(), wish=back))
    assert found["converged"]
    assert found["held"]


@pytest.mark.parametrize(
    "seen",
    [
        running(after_first(), deploy(SECOND)),
        with_slots(after_first(), down(serving(SLOT_A, FIRST))),
        replace(after_first(), pointer=PointsTo(SLOT_C), live_contract=None),
        with_records(
            after_first(), wish=wish(SECOND, retry_at=later(5)), last_deploy=deploy(SECOND)
        ),
    ],
)
def test_what_is_still_to_be_done_or_stalled_is_not_converged(seen: ObservedApp) -> None:
    found = planned(seen)
    assert not found["converged"]
    assert found["pending"] or found["conditions"][2]["status"]


def test_keeping_house_is_no_pending_change() -> None:
    old = replace(serving(SLOT_A, FIRST), published="127.0.0.1:1")
    draining = after_second(seconds_ago=1, before=old)
    found = planned(draining)
    assert found["converged"]
    assert "DrainSlot" in [each["action"] for each in found["steps"]]
    assert [each["action"] for each in found["steps"]].count("StartInstances") == 0
    assert WEB in {each.process for each in old.instances}
