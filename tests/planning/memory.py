"""A store in memory with the verbs and the law of the real one: wishes, deploys, quarantine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from reconciler.model.actions import AdoptLive, Advance, CloseDeploy, MakeWish, NoteSeen, Outcome
from reconciler.model.deploys import (
    STEP,
    Deploy,
    DeployRequest,
    Phase,
    Progress,
    Promotion,
    Reason,
    Trigger,
    Verdict,
    VerdictKind,
    VerdictResult,
    Wish,
    WishKind,
    WishStatus,
)
from reconciler.model.desired import Target
from reconciler.model.instants import Instant
from reconciler.model.names import DeployId, Revision, SlotName, WishId
from reconciler.model.observed import AppRecords
from tests.planning.worlds import HOST, SHOP, quarantined, step

ASIDE = (Phase.BAKING, Phase.DRAINING)


@dataclass
class Course:
    """A deploy as the store keeps it."""

    request: DeployRequest
    seq: int
    progress: list[Progress]
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def told(self) -> Deploy:
        return Deploy(self.request, self.seq, tuple(self.progress), tuple(self.verdicts))

    @property
    def phase(self) -> Phase:
        return self.told.phase


class Memory:
    """What the store of one app holds. `now` is whoever's inherits it."""

    def __init__(self, now: Instant) -> None:
        self.now = now
        self.wishes: list[Wish] = []
        self.courses: list[Course] = []
        self.promotions: list[Promotion] = []
        self.records = AppRecords()
        self._count = 0

    def forget(self) -> None:
        """The store is lost, and an empty one takes its place."""
        self.wishes, self.courses, self.promotions = [], [], []
        self.records = AppRecords()

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _adopt(self, action: AdoptLive) -> None:
        found = action.record
        asked = self._request(WishKind.DEPLOY, found.target, found.contract, Trigger.ADOPT)
        asked = replace(asked, id=found.deploy_id)
        self._note_seen(NoteSeen(action.head, action.inputs))
        self._wish(asked)
        self._promote(asked, action.slot)

    def _open(self) -> list[Course]:
        return [one for one in self.courses if one.phase.open]

    def _running(self) -> Course | None:
        begun = [one for one in self._open() if one.phase is not Phase.QUEUED]
        return next(iter(begun or self._open()), None)

    def _course(self, deploy_id: DeployId) -> Course:
        return next(one for one in self.courses if one.request.id == deploy_id)

    def _request(
        self, kind: WishKind, target: Target, contract: str, trigger: Trigger
    ) -> DeployRequest:
        number = self._next()
        return DeployRequest(
            id=DeployId(f"deploy-{number}"),
            wish_id=WishId(f"wish-{number}"),
            host=HOST,
            app=SHOP,
            kind=kind,
            target=target,
            contract=contract,
            actor="human:ada",
            trigger=trigger,
            requested_at=step(Phase.QUEUED, self.now).at,
        )

    def _make_wish(self, action: MakeWish) -> None:
        asked = self._request(action.kind, action.target, action.contract, action.trigger)
        asked = replace(asked, rolls_back_to=action.rolls_back_to, reason=action.reason)
        if action.quarantine is not None:
            self._quarantine(action.quarantine)
        self._note_seen(NoteSeen(action.head, action.inputs))
        self._wish(asked, pre_empt=action.kind is not WishKind.DEPLOY)

    def _note_seen(self, action: NoteSeen) -> None:
        self.records = replace(
            self.records,
            seen_head=action.head or self.records.seen_head,
            seen_inputs=action.inputs or self.records.seen_inputs,
        )

    def _wish(self, asked: DeployRequest, *, pre_empt: bool = False) -> Deploy:
        carried = set()
        for course in self._open():
            if pre_empt or course.phase is Phase.QUEUED:
                newer = Reason.SUPERSEDED_BY_ROLLBACK if pre_empt else Reason.SUPERSEDED_BY_NEWER
                self._close(course, Phase.SUPERSEDED, newer)
            else:
                carried.add(course.request.wish_id)
        for one in self.wishes:
            if one.status is WishStatus.OPEN and one.id not in carried:
                self._set_wish(one.id, WishStatus.SUPERSEDED)
        self.wishes.append(
            Wish(
                asked.wish_id,
                len(self.wishes) + 1,
                SHOP,
                asked.kind,
                asked.target,
                asked.contract,
                WishStatus.OPEN,
                asked.trigger,
                asked.actor,
            )
        )
        return self._add(asked)

    def _add(self, asked: DeployRequest) -> Deploy:
        queued = step(Phase.QUEUED, self.now)
        self.courses.append(Course(asked, len(self.courses) + 1, [queued]))
        return self.courses[-1].told

    def _retry(self, wish: Wish, last: DeployRequest) -> None:
        (known,) = [one for one in self.wishes if one.id == wish.id]
        assert known.status is WishStatus.OPEN
        self._replace(replace(known, attempts=known.attempts + 1, retry_at=None))
        number = DeployId(f"deploy-{self._next()}")
        self._add(
            replace(
                last,
                id=number,
                trigger=Trigger.RETRY,
                retry_of=last.id,
                attempt=wish.attempts + 1,
            )
        )

    def _replace(self, wish: Wish) -> None:
        self.wishes = [wish if one.id == wish.id else one for one in self.wishes]

    def _set_wish(
        self, wish_id: WishId, status: WishStatus, retry_at: Instant | None = None
    ) -> None:
        (known,) = [one for one in self.wishes if one.id == wish_id]
        if known.status is not WishStatus.SUPERSEDED:
            self._replace(replace(known, status=status, retry_at=retry_at))

    def _settle_wish(self, wish_id: WishId, status: WishStatus, retry_at: Instant | None) -> None:
        (known,) = [one for one in self.wishes if one.id == wish_id]
        if known.status is not WishStatus.OPEN:
            return
        if status is WishStatus.OPEN and self.wishes[-1].id != wish_id:
            status, retry_at = WishStatus.SUPERSEDED, None
        self._set_wish(wish_id, status, retry_at)

    def _advance(self, action: Advance) -> None:
        course = self._course(action.deploy_id)
        standing, last = course.phase, course.progress[-1]
        follows = (
            action.phase.open if standing.open else standing is Phase.LIVE and action.phase in ASIDE
        )
        same = (last.phase, last.slot, last.reason) == (action.phase, action.slot, action.reason)
        if follows and not same:
            course.progress.append(
                step(action.phase, self.now, action.slot, action.reason, action.detail)
            )

    def _tell_step(self, deploy_id: DeployId, reason: Reason) -> Outcome:
        verdict = Verdict(STEP, VerdictKind.PROBE, VerdictResult.ERROR, reason)
        self._course(deploy_id).verdicts.append(verdict)
        return Outcome(failed=True, reason=reason)

    def _close(self, course: Course, phase: Phase, reason: str, detail: str = "") -> None:
        course.progress.append(step(phase, self.now, None, reason, detail))

    def _close_deploy(self, action: CloseDeploy) -> None:
        course = self._course(action.deploy.id)
        if not course.phase.open:
            return
        self._close(course, action.phase, action.reason, action.detail)
        status = WishStatus.FAILED
        if action.retry_at is not None:
            status = WishStatus.OPEN
        elif action.phase is Phase.CANCELLED:
            status = WishStatus.CANCELLED
        self._settle_wish(action.deploy.wish_id, status, action.retry_at)
        if action.quarantine is not None:
            self._quarantine(action.quarantine)

    def _quarantine(self, target: Target) -> None:
        one = quarantined(target.revision, target.contract_digest, target.secrets_digest)
        if one not in self.records.quarantine:
            self.records = replace(self.records, quarantine=(*self.records.quarantine, one))

    def last(self) -> Deploy:
        return self.courses[-1].told

    def deploys_of(self, revision: Revision) -> list[Deploy]:
        return [one.told for one in self.courses if one.request.target.revision == revision]

    def _promote(self, asked: DeployRequest, name: SlotName) -> None:
        if any(one.deploy_id == asked.id for one in self.promotions):
            return
        covered = any(one.covers(asked.target) for one in self.records.quarantine)
        assert asked.kind is not WishKind.DEPLOY or asked.force or not covered, "quarantined"
        left = self._course(self.promotions[-1].deploy_id) if self.promotions else None
        self._course(asked.id).progress.append(step(Phase.LIVE, self.now, name))
        self.promotions.append(
            Promotion(
                len(self.promotions) + 1,
                asked.id,
                name,
                asked.target,
                asked.contract,
                asked.kind,
                asked.rolls_back_to,
                self.now,
            )
        )
        self._set_wish(asked.wish_id, WishStatus.MET)
        if left and asked.kind is not WishKind.DEPLOY and left.phase is Phase.LIVE:
            left.progress.append(step(Phase.ROLLED_BACK, self.now))
