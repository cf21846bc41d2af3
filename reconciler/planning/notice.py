"""Notice: heads, contracts and secrets that an app has not seen before become a wish, once."""

from __future__ import annotations

from reconciler.model.actions import MakeWish, NoteSeen, RetryWish, StallWish
from reconciler.model.deploys import (
    Reason,
    SeenHead,
    SeenInputs,
    Trigger,
    WishKind,
    WishStatus,
)
from reconciler.model.desired import AppContract, Target
from reconciler.model.observed import ObservedHead
from reconciler.planning.draft import Draft
from reconciler.planning.standing import Standing

RETRIES = 3


def take_notice(standing: Standing, draft: Draft) -> bool:
    """Adds a wish, or notes that there is none to make; True when the pass should start over."""
    contract, head = standing.app.contract, standing.seen.head
    if contract is None or standing.app.problems:
        return False
    records = standing.seen.records
    if records.wish is not None and records.wish.holds and records.wish.status is WishStatus.OPEN:
        # Somebody, or a failed bake, is on the way back: news must not supersede that, and waits.
        return False
    inputs = SeenInputs(contract.digest, standing.app.secrets_digest)
    if head is not None and (
        _taken_away(standing) or records.seen_head != SeenHead(head.branch, head.revision)
    ):
        return _new_head(standing, contract, head, inputs, draft)
    if records.seen_inputs != inputs:
        return _new_inputs(standing, contract, inputs, draft)
    return False


def _taken_away(standing: Standing) -> bool:
    """Whether the app was live, then removed, and is named again now."""
    records = standing.seen.records
    settled = records.wish is None or records.wish.status is WishStatus.MET
    return bool(records.promotions) and standing.live is None and not records.running and settled


def _new_head(
    standing: Standing,
    contract: AppContract,
    head: ObservedHead,
    inputs: SeenInputs,
    draft: Draft,
) -> bool:
    records = standing.seen.records
    seen = SeenHead(head.branch, head.revision)
    target = Target(head.revision, contract.digest, standing.app.secrets_digest)
    if _is_live(standing, target):
        draft.do(NoteSeen(head=seen, inputs=inputs), f"{head.revision[:10]} is live already")
        return True
    known = records.seen_head is not None and records.seen_head.branch == head.branch
    if known and not head.descends and not standing.app.follows_rewrites:
        draft.stall(
            "NonFastForward",
            f"{head.branch} was rewritten: {head.revision[:10]} does not contain the head seen "
            "before. Restore the branch, or deploy the commit you want by its id",
        )
        return False
    first = not known or _taken_away(standing)
    refusal = _refusal(standing, contract, head, target, first=first)
    if refusal and records.seen_head == seen:
        return False
    if refusal:
        draft.do(NoteSeen(head=seen), refusal)
        return True
    draft.do(
        MakeWish(
            WishKind.DEPLOY, target, contract.text, Trigger.PUSH,
            branch=head.branch, message=head.subject, head=seen, inputs=inputs,
        ),
        f"{head.branch} is at {head.revision[:10]}, which was not seen before",
    )  # fmt: skip
    return True


def _refusal(
    standing: Standing, contract: AppContract, head: ObservedHead, target: Target, *, first: bool
) -> str:
    """Returns why a new head is no wish, empty when it is one."""
    records = standing.seen.records
    short = head.revision[:10]
    wished = records.wish is not None and records.wish.target == target
    if wished and not _taken_away(standing):
        return f"{short} is wished already"
    if contract.deploy_on == "request":
        return f"{short} is deployed only when asked: `autopilot deploy --app {contract.name}`"
    if not first and not head.touches_app:
        return f"{short} changes nothing of this app"
    if any(one.covers(target) for one in records.quarantine):
        return f"{short} is quarantined; a person can deploy it with --force and a reason"
    return ""


def _is_live(standing: Standing, target: Target) -> bool:
    records = standing.seen.records
    live = records.promotions[-1].target if standing.live and records.promotions else None
    return records.running is None and live == target


def _new_inputs(
    standing: Standing, contract: AppContract, inputs: SeenInputs, draft: Draft
) -> bool:
    records = standing.seen.records
    wish, before = records.wish, records.seen_inputs
    if wish is None or before is None:
        draft.do(NoteSeen(inputs=inputs), "contract and secrets are as first seen")
        return True
    target = Target(wish.target.revision, inputs.contract_digest, inputs.secrets_digest)
    known = wish.target == target or _is_live(standing, target)
    if known or any(one.covers(target) for one in records.quarantine):
        draft.do(NoteSeen(inputs=inputs), "contract and secrets changed to what was tried before")
        return True
    if contract.deploy_on == "request":
        draft.do(NoteSeen(inputs=inputs), "contract or secrets changed; deployed only when asked")
        return True
    changed = before.contract_digest != inputs.contract_digest
    if standing.held and not changed:
        # The contract of the branch may be what was left: only a person's change brings one back.
        draft.do(NoteSeen(inputs=inputs), "a secret changed while a rollback holds")
        return True
    draft.do(
        MakeWish(
            WishKind.DEPLOY, target, contract.text,
            Trigger.CONTRACT if changed else Trigger.SECRET,
            message="the contract changed" if changed else "a secret changed", inputs=inputs,
        ),
        "the contract changed" if changed else "a secret changed",
    )  # fmt: skip
    return True


def retry_wish(standing: Standing, draft: Draft) -> None:
    """Tries an open wish again whose last deploy ended for a reason that may pass."""
    records = standing.seen.records
    wish, last = records.wish, records.last_deploy
    if wish is None or wish.status is not WishStatus.OPEN or records.running or last is None:
        return
    patient = last.reason == Reason.DISK_PRESSURE
    if wish.attempts > RETRIES and not patient:
        draft.do(
            StallWish(wish),
            f"{wish.attempts} attempts ended with {last.reason}; `autopilot deploy` tries again",
        )
        return
    due = wish.retry_at
    if due is not None and due.boot_id == draft.now.boot_id and not draft.now.reached(due):
        draft.wait(f"the last attempt ended with {last.reason}; it is tried again", due)
        return
    draft.do(RetryWish(wish, last.request), f"the last attempt ended with {last.reason}")
