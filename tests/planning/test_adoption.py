"""A store begun anew: what serves is taken over, and nothing is deployed over it."""

from __future__ import annotations

from dataclasses import replace

from reconciler.model.actions import AdoptLive, NoteSeen, Promote
from reconciler.model.deploys import Phase, SeenHead, SeenInputs
from reconciler.model.observed import AppRecords, ObservedApp, PointsTo
from reconciler.planning.release import plan_release
from tests.planning.worlds import (
    FIRST,
    NOW,
    PLAIN,
    SLOT_A,
    A,
    B,
    actions,
    deploy,
    desired,
    head,
    observed,
    running,
    serving,
    step,
)


def unknown_live(**fields: object) -> ObservedApp:
    """A serves, and the store has never heard of the app."""
    seen = observed(PointsTo(SLOT_A), [serving(SLOT_A, FIRST)], AppRecords(), head=head(A))
    return replace(seen, **fields)  # type: ignore[arg-type]


def test_live_is_adopted_with_the_head_as_seen() -> None:
    plan = plan_release(desired(), unknown_live(), NOW)
    (adopted,) = actions(plan)
    assert isinstance(adopted, AdoptLive)
    assert (adopted.slot, adopted.record.deploy_id) == (SLOT_A, FIRST.id)
    assert adopted.head == SeenHead("main", A)
    assert adopted.inputs == SeenInputs(PLAIN.digest, "")


def test_head_beyond_live_counts_as_seen_too() -> None:
    plan = plan_release(desired(), unknown_live(head=head(B)), NOW)
    (adopted,) = actions(plan)
    assert isinstance(adopted, AdoptLive)
    assert (adopted.record.target.revision, adopted.head.revision) == (A, B)


def test_without_manifests_it_waits() -> None:
    assert actions(plan_release(desired(None), unknown_live(), NOW)) == []


def test_without_a_head_it_waits() -> None:
    plan = plan_release(desired(), unknown_live(head=None), NOW)
    assert not [one for one in actions(plan) if not isinstance(one, NoteSeen)]


def test_adoption_that_was_cut_off_is_finished() -> None:
    seen = running(unknown_live(), deploy(FIRST))
    assert actions(plan_release(desired(), seen, NOW)) == [Promote(FIRST, SLOT_A)]


def test_first_deploy_that_has_just_switched_is_not_adopted() -> None:
    switching = deploy(FIRST, step(Phase.SWITCHING, NOW, SLOT_A))
    plan = plan_release(desired(), running(unknown_live(), switching), NOW)
    assert not [one for one in actions(plan) if isinstance(one, AdoptLive)]
