"""A rollback that is under way, or holds: news from Git and from secrets must not undo it."""

from __future__ import annotations

from dataclasses import replace

from reconciler.model.actions import MakeWish, NoteSeen
from reconciler.model.deploys import SeenHead, SeenInputs, Trigger, WishKind, WishStatus
from reconciler.model.observed import ObservedApp
from reconciler.planning.release import plan_release
from tests.planning.worlds import (
    FIRST,
    NOW,
    PLAIN,
    SLOT_A,
    A,
    B,
    C,
    actions,
    after_first,
    after_second,
    contract,
    deploy,
    desired,
    head,
    promotion,
    records_of,
    request,
    running,
    stalled,
    target,
    wish,
    with_records,
)

OTHER = contract(env={"COLOR": "green"})
BACK = request(3, A, WishKind.ROLLBACK, rolls_back_to=FIRST.id)


def held() -> ObservedApp:
    """A is live again: a person went back to it from the contract that the branch still has."""
    left = request(2, A, of=OTHER)
    records = records_of(
        of=OTHER,
        wish=wish(BACK, WishStatus.MET),
        promotions=(
            promotion(FIRST, SLOT_A, 1),
            promotion(left, SLOT_A, 2),
            promotion(BACK, SLOT_A, 3),
        ),
    )
    return replace(after_first(), records=records, head=head(A))


def test_push_does_not_supersede_a_rollback_that_waits() -> None:
    waiting = replace(after_second(), head=head(C))
    seen = running(waiting, deploy(BACK))
    assert not [
        one for one in actions(plan_release(desired(), seen, NOW)) if isinstance(one, MakeWish)
    ]


def test_push_is_taken_up_once_the_rollback_has_ended() -> None:
    seen = with_records(replace(after_second(), head=head(C)), wish=wish(BACK, WishStatus.FAILED))
    (made,) = [
        one for one in actions(plan_release(desired(), seen, NOW)) if isinstance(one, MakeWish)
    ]
    assert (made.target.revision, made.trigger) == (C, Trigger.PUSH)


def test_changed_secret_does_not_bring_back_the_contract_that_was_left() -> None:
    plan = plan_release(desired(OTHER, secrets_digest="new"), held(), NOW)
    assert NoteSeen(inputs=SeenInputs(OTHER.digest, "new")) in actions(plan)
    assert not [one for one in actions(plan) if isinstance(one, MakeWish)]


def test_changed_contract_is_a_new_wish_even_while_a_rollback_holds() -> None:
    fixed = contract(env={"COLOR": "blue"})
    (made,) = [
        one
        for one in actions(plan_release(desired(fixed), held(), NOW))
        if isinstance(one, MakeWish)
    ]
    assert (made.target, made.trigger) == (target(A, fixed), Trigger.CONTRACT)


def test_contract_that_failed_and_was_taken_back_leaves_no_stall() -> None:
    bad = request(2, A, of=OTHER)
    seen = with_records(
        replace(after_first(), head=head(B)),
        seen_head=SeenHead("main", B),
        wish=wish(bad, WishStatus.FAILED),
        last_deploy=deploy(bad),
        seen_inputs=SeenInputs(PLAIN.digest, ""),
    )
    assert not stalled(plan_release(desired(), seen, NOW)).status
