"""Adoption: what becomes of a live slot that the store, begun anew, knows nothing of."""

from __future__ import annotations

from reconciler.model.actions import AdoptLive, Promote
from reconciler.model.deploys import Phase, SeenHead, SeenInputs
from reconciler.planning.draft import Draft
from reconciler.planning.standing import Standing


def adopt_live(standing: Standing, draft: Draft) -> bool:
    """Takes what serves as what is wished; True when the pass should start over.

    The head counts as seen even where live is another revision: it may be one that was rolled
    back, and a lost store must not bring it back.
    """
    live, records = standing.live, standing.seen.records
    if live is None or live.record is None or records.promotions:
        return False
    running = records.running
    if running and running.id == live.record.deploy_id and running.phase is Phase.QUEUED:
        draft.do(Promote(running.request, live.name), "it was being adopted")
        return True
    contract, head = standing.app.contract, standing.seen.head
    if records.wish is not None or contract is None or head is None:
        return False
    draft.do(
        AdoptLive(
            live.name,
            live.record,
            SeenHead(head.branch, head.revision),
            SeenInputs(contract.digest, standing.app.secrets_digest),
        ),
        f"the store knows nothing of {live.name}, which serves",
    )
    return True
