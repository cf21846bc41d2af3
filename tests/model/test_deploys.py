"""How a deploy stands is read off its steps; what is condemned is a triple."""

from __future__ import annotations

from itertools import product

import pytest

from reconciler.model.deploys import (
    TRANSIENT,
    Deploy,
    Phase,
    Reason,
    ResolvedSecrets,
    VerdictResult,
    WishKind,
)
from reconciler.model.desired import Target
from tests.planning.worlds import (
    FIRST,
    NOW,
    SECOND,
    SLOT_A,
    SLOT_B,
    A,
    B,
    ago,
    deploy,
    failed,
    quarantined,
    request,
    step,
    verdict,
    wish,
)


def test_a_phase_is_open_live_or_unsuccessful_and_never_two_of_them() -> None:
    beside = {Phase.LIVE, Phase.BAKING, Phase.DRAINING}
    for phase in Phase:
        assert [phase.open, phase.unsuccessful, phase in beside].count(True) == 1


def test_baking_and_draining_leave_a_deploy_live() -> None:
    one = deploy(FIRST, step(Phase.LIVE), step(Phase.BAKING), step(Phase.DRAINING))
    assert one.phase is Phase.LIVE
    assert deploy(FIRST).phase is Phase.QUEUED


def test_the_slot_is_the_one_named_last() -> None:
    one = deploy(
        FIRST,
        step(Phase.PREPARING, slot=SLOT_A),
        step(Phase.PREPARING, slot=SLOT_B),
        step(Phase.PROVING),
    )
    assert one.slot == SLOT_B
    assert deploy(FIRST).slot is None


def test_a_phase_is_entered_when_it_is_first_reached() -> None:
    first, again = step(Phase.PREPARING, ago(2)), step(Phase.PREPARING, ago(1))
    one = deploy(FIRST, first, again)
    assert one.entered(Phase.PREPARING) == first
    assert one.entered(Phase.LIVE) is None
    assert one.promoted is None


def test_the_last_verdict_of_a_name_counts() -> None:
    one = deploy(FIRST, verdicts=[failed("health"), verdict("health")])
    found = one.verdict("health")
    assert found is not None
    assert found.passed
    assert one.verdict("request") is None


def test_a_skipped_probe_has_passed_and_an_error_has_not() -> None:
    assert verdict("health", VerdictResult.SKIPPED).passed
    assert not verdict("health", VerdictResult.ERROR).passed


def test_a_deploy_tells_what_was_asked() -> None:
    one: Deploy = deploy(FIRST, step(Phase.FAILED, NOW, reason=Reason.EXITED))
    assert (one.id, one.target, one.attempt, one.reason) == (FIRST.id, FIRST.target, 1, "exited")


def test_only_a_deploy_follows_the_human_branch() -> None:
    assert not wish(SECOND).holds
    assert wish(request(3, A, WishKind.ROLLBACK)).holds
    assert wish(request(3, A, WishKind.RETURN)).holds


@pytest.mark.parametrize(("contract", "secrets"), list(product(("", "c1", "c2"), ("", "s1", "s2"))))
def test_an_empty_digest_covers_every_one(contract: str, secrets: str) -> None:
    held = quarantined(A, contract, secrets)
    expected = contract in ("", "c1") and secrets in ("", "s1")
    assert held.covers(Target(A, "c1", "s1")) is expected
    assert not held.covers(Target(B, "c1", "s1"))


def test_what_says_nothing_of_a_revision_is_transient() -> None:
    assert Reason.DISK_PRESSURE in TRANSIENT
    assert Reason.EXITED not in TRANSIENT
    assert Reason.BAD_STATUS not in TRANSIENT


def test_secrets_never_show_their_values() -> None:
    granted = ResolvedSecrets({"TOKEN": "hunter2"}, "digest", ("OTHER",))
    assert "hunter2" not in repr(granted)
    assert "hunter2" not in f"{granted}"
    assert "TOKEN" in repr(granted)
