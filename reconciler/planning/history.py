"""History: what was live, what is previous, and where a rollback leads."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.model.deploys import Promotion, WishKind
from reconciler.model.names import DeployId


def lineage(promotions: Sequence[Promotion]) -> tuple[Promotion, ...]:
    """Returns the promotions that a rollback can walk back, oldest first; the last one is live.

    A deploy adds to the line. A rollback or return to an entry of the line cuts what lies after
    it, because what was left is not previous; the entry itself is replaced by the new promotion,
    which leads to the same slot.
    """
    line: list[Promotion] = []
    for promotion in promotions:
        if promotion.kind is not WishKind.DEPLOY:
            line = _cut(line, promotion.rolls_back_to)
        line.append(promotion)
    return tuple(line)


def _cut(line: list[Promotion], target: DeployId | None) -> list[Promotion]:
    for index in range(len(line) - 1, -1, -1):
        if line[index].deploy_id == target:
            return line[:index]
    # A target from before the bounded history: only what is left behind is certain.
    return line[:-1]


def previous(promotions: Sequence[Promotion]) -> Promotion | None:
    """Returns what a rollback would go back to, None when nothing lies before live."""
    line = lineage(promotions)
    return line[-2] if len(line) > 1 else None


def find(promotions: Sequence[Promotion], wanted: str) -> Promotion | None:
    """Returns the newest promotion of that deploy id or commit (a prefix of 7 or more will do)."""
    for promotion in reversed(promotions):
        if wanted in (promotion.deploy_id, promotion.target.revision):
            return promotion
        if len(wanted) >= 7 and promotion.target.revision.startswith(wanted.lower()):
            return promotion
    return None


def tenants(promotions: Sequence[Promotion], promotion: Promotion) -> frozenset[DeployId]:
    """Returns the deploys whose processes may be in the promotion's slot.

    Its own, or, as a warm rollback takes over a slot that an earlier deploy started, those it
    goes back to.
    """
    by_id = {one.deploy_id: one for one in promotions}
    found = [promotion.deploy_id]
    back = promotion.rolls_back_to
    while back is not None and back not in found:
        found.append(back)
        back = by_id[back].rolls_back_to if back in by_id else None
    return frozenset(found)
