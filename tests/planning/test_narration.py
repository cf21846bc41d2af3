"""What is said at the terminal, word for word."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.model.canonical import Json
from reconciler.model.deploys import Phase, Reason, Trigger, WishKind
from reconciler.planning.narration import ORIGIN, narrate_condition, narrate_deploy
from tests.planning.worlds import NOW, SECOND, ago, deploy, step


def test_a_new_deploy_is_announced_with_its_cause_and_subject() -> None:
    asked = replace(SECOND, message="Mend the cart\n\nIt was broken.")
    told = narrate_deploy(deploy(asked), Phase.QUEUED, "", serving=False)
    assert told == "shop: deploying bbbbbbbbbb (new commit) Mend the cart"


def test_a_deploy_without_a_message_is_announced_without_one() -> None:
    told = narrate_deploy(deploy(SECOND), Phase.QUEUED, "", serving=False)
    assert told == "shop: deploying bbbbbbbbbb (new commit)"


def test_every_cause_has_its_words() -> None:
    assert set(ORIGIN) == set(Trigger)


def test_going_live_tells_how_long_it_took_and_where() -> None:
    live = deploy(SECOND, step(Phase.LIVE, ago(0.25)))
    told = narrate_deploy(live, Phase.LIVE, "http://127.0.0.1:8080", serving=True)
    assert told == "shop: bbbbbbbbbb is live after 750 ms at http://127.0.0.1:8080"


def test_a_rollback_is_live_again() -> None:
    back = deploy(replace(SECOND, kind=WishKind.ROLLBACK), step(Phase.LIVE, NOW))
    told = narrate_deploy(back, Phase.LIVE, "", serving=True)
    assert told == "shop: bbbbbbbbbb is live again after 1000 ms"


def test_live_without_its_step_took_an_unknown_time() -> None:
    told = narrate_deploy(deploy(SECOND), Phase.LIVE, "", serving=True)
    assert told == "shop: bbbbbbbbbb is live after an unknown time"


@pytest.mark.parametrize(
    ("serving", "kept"), [(True, "the old version keeps serving"), (False, "nothing is live")]
)
def test_a_failure_is_told_with_its_reason_its_output_and_what_serves(
    *, serving: bool, kept: str
) -> None:
    ended = step(Phase.FAILED, NOW, None, Reason.EXITED, "status 1", "one\ntwo")
    told = narrate_deploy(deploy(SECOND, ended), Phase.FAILED, "", serving=serving)
    assert told.splitlines() == [
        "shop: bbbbbbbbbb FAILED: exited",
        "  status 1",
        "  | one",
        "  | two",
        f"  {kept}; whole output: autopilot logs --deploy deploy-2",
    ]


def test_a_failure_shows_at_most_twenty_lines_of_output() -> None:
    output = "\n".join(str(number) for number in range(100))
    ended = step(Phase.REJECTED, NOW, None, Reason.QUARANTINED, "", output)
    told = narrate_deploy(deploy(SECOND, ended), Phase.REJECTED, "", serving=True)
    assert told.count("  | ") == 20
    assert "  | 99" in told


@pytest.mark.parametrize(
    ("phase", "reason", "told"),
    [
        (Phase.SUPERSEDED, Reason.SUPERSEDED_BY_NEWER, "superseded (superseded by newer)"),
        (Phase.ROLLED_BACK, Reason.CRASH_LOOP, "rolled back (crash loop)"),
    ],
)
def test_an_end_that_is_no_failure_is_told_in_one_line(
    phase: Phase, reason: Reason, told: str
) -> None:
    ended = deploy(SECOND, step(phase, NOW, None, reason))
    assert narrate_deploy(ended, phase, "", serving=True) == f"shop: bbbbbbbbbb {told}"


def test_steps_on_the_way_are_not_told() -> None:
    assert narrate_deploy(deploy(SECOND), Phase.PROVING, "", serving=True) == ""


def changed(status: Json, kind: str = "Stalled", reason: str = "CrashLoop") -> dict[str, Json]:
    told = {"app": "shop", "type": kind, "reason": reason, "message": "web ended"}
    return {**told, "status": status}


def test_a_stall_is_told_and_so_is_its_end_once() -> None:
    known: set[str] = set()
    assert narrate_condition(changed(status=True), known) == "shop: STALLED CrashLoop: web ended"
    assert narrate_condition(changed(status=False), known) == "shop: not stalled any more"
    assert narrate_condition(changed(status=False), known) == ""


@pytest.mark.parametrize(
    "payload",
    [changed(status=True, kind="Ready"), changed(status=True, reason="DeployFailed")],
)
def test_other_conditions_are_not_told(payload: dict[str, Json]) -> None:
    assert narrate_condition(payload, set()) == ""
