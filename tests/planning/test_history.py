"""Where a rollback leads: the line of what was live, with what was left cut off."""

from __future__ import annotations

from itertools import product

import pytest

from reconciler.model.deploys import Promotion, WishKind
from reconciler.model.names import DeployId, Revision
from reconciler.planning.history import find, lineage, previous, tenants
from tests.planning.worlds import SLOT_A, A, B, C, promotion, request


def deployed(number: int, revision: Revision) -> Promotion:
    return promotion(request(number, revision), SLOT_A, number)


def rolled_back(number: int, revision: Revision, to: int) -> Promotion:
    back = request(number, revision, WishKind.ROLLBACK, rolls_back_to=DeployId(f"deploy-{to}"))
    return promotion(back, SLOT_A, number)


FIRST, SECOND, THIRD = deployed(1, A), deployed(2, B), deployed(3, C)


def test_nothing_lies_before_the_first_promotion() -> None:
    assert previous([]) is None
    assert previous([FIRST]) is None


def test_previous_is_what_was_live_before() -> None:
    assert previous([FIRST, SECOND]) == FIRST
    assert previous([FIRST, SECOND, deployed(3, A)]) == SECOND


def test_what_a_rollback_left_is_not_previous() -> None:
    back = rolled_back(4, B, to=2)
    assert lineage([FIRST, SECOND, THIRD, back]) == (FIRST, back)
    assert previous([FIRST, SECOND, THIRD, back]) == FIRST


def test_a_second_rollback_goes_further_back_and_a_third_nowhere() -> None:
    once = rolled_back(4, B, to=2)
    twice = rolled_back(5, A, to=1)
    assert lineage([FIRST, SECOND, THIRD, once, twice]) == (twice,)
    assert previous([FIRST, SECOND, THIRD, once, twice]) is None


def test_a_deploy_after_a_rollback_has_the_rollback_before_it() -> None:
    back = rolled_back(3, A, to=1)
    after = deployed(4, C)
    assert previous([FIRST, SECOND, back, after]) == back


def test_a_rollback_to_a_revision_that_was_left_cuts_only_what_is_live() -> None:
    back = rolled_back(3, A, to=1)
    forth = rolled_back(4, B, to=2)
    assert lineage([FIRST, SECOND, back, forth]) == (forth,)


def test_a_rollback_to_before_the_bounded_history_cuts_only_what_it_left() -> None:
    back = rolled_back(9, A, to=77)
    assert lineage([FIRST, SECOND, back]) == (FIRST, back)


def test_live_is_always_the_end_of_the_line() -> None:
    for kinds in product((True, False), repeat=5):
        history = [FIRST]
        for number, forward in enumerate(kinds, start=2):
            back = previous(history)
            if forward or back is None:
                history.append(deployed(number, B))
            else:
                goal = int(back.deploy_id.removeprefix("deploy-"))
                history.append(rolled_back(number, back.target.revision, goal))
        line = lineage(history)
        assert line[-1] == history[-1]
        assert previous(history) != history[-1]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("deploy-1", FIRST),
        (A, FIRST),
        (B[:7], SECOND),
        (B[:7].upper(), SECOND),
        (B[:6], None),
        ("nothing", None),
    ],
)
def test_a_promotion_is_found_by_deploy_or_commit(wanted: str, found: Promotion | None) -> None:
    assert find([FIRST, SECOND, THIRD], wanted) == found


def test_of_several_promotions_of_a_commit_the_newest_is_found() -> None:
    again = deployed(4, A)
    assert find([FIRST, SECOND, again], A) == again


def test_a_rollback_may_live_in_the_slot_of_what_it_goes_back_to() -> None:
    once = rolled_back(3, A, to=1)
    twice = rolled_back(4, A, to=3)
    assert tenants([FIRST, SECOND, once, twice], twice) == {"deploy-4", "deploy-3", "deploy-1"}


def test_a_tenant_from_before_the_bounded_history_is_still_named() -> None:
    back = rolled_back(9, A, to=77)
    assert tenants([back], back) == {"deploy-9", "deploy-77"}
