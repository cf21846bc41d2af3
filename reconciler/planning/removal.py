"""Removal: an app that a valid `.autopilot/` no longer names is drained, stopped and unrouted."""

from __future__ import annotations

from datetime import timedelta

from reconciler.model.actions import CloseDeploy, NoteAbsence, RemoveRoute
from reconciler.model.deploys import Phase, Reason
from reconciler.planning.draft import Draft
from reconciler.planning.standing import Standing

PASSES = 2
BETWEEN = timedelta(seconds=1)


def remove_app(standing: Standing, draft: Draft) -> bool:
    """Takes the app out of service after two passes; its data and log stay.

    True when nothing else is to be planned for it but clearing its slots.
    """
    absent = standing.seen.records.absent_passes
    if not standing.app.removed:
        if absent:
            draft.do(NoteAbsence(0), "the app is named again")
        return False
    if absent < PASSES:
        draft.do(NoteAbsence(absent + 1), "a valid .autopilot/ does not name the app")
        draft.wait("looking twice before the app is taken away", draft.now + BETWEEN)
        return True
    running = standing.running
    if running is not None:
        draft.do(
            CloseDeploy(
                running.request, Phase.CANCELLED, Reason.CANCELLED_BY_REQUEST, "the app was removed"
            ),
            "the app was removed",
        )
    if standing.live is not None:
        draft.do(RemoveRoute(), "the app was removed")
    return True
