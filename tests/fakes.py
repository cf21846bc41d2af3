"""Fakes that stand in for a whole room: honest, in memory, and of no use outside of tests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from reconciler.engine.commands import Commands, DeployAsk, RollbackAsk
from reconciler.model.canonical import Json
from reconciler.model.deploys import (
    Deploy,
    DeployRequest,
    Phase,
    Progress,
    Trigger,
    Verdict,
    VerdictKind,
    VerdictResult,
    WishKind,
)
from reconciler.model.desired import Target
from reconciler.model.errors import RefusedError
from reconciler.model.events import Event
from reconciler.model.instants import Instant
from reconciler.model.names import (
    AppName,
    DeployId,
    HostId,
    Revision,
    SlotName,
    WishId,
    uuid7,
)
from reconciler.model.principals import Principal, Scope
from reconciler.planning.status import deploy_record, timestamp

EPOCH = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOST = HostId("host-1")
STEPS = (Phase.FETCHING, Phase.GATING, Phase.PREPARING, Phase.STARTING, Phase.PROVING,
         Phase.SWITCHING)  # fmt: skip
GOOD = Revision("a" * 40)
BETTER = Revision("b" * 40)
BAD = Revision("c" * 40)


@dataclass(frozen=True, slots=True)
class End:
    """How a deploy of a revision ends."""

    phase: Phase = Phase.LIVE
    reason: str = ""
    detail: str = ""


class FakeCommands(Commands):
    """An engine without a world: deploys of `ends` fail as they say, every other one goes live.

    With `held` a deploy stays where it is until a test says `advance` or `finish`.
    """

    def __init__(
        self,
        *apps: str,
        ends: Mapping[str, End] | None = None,
        revisions: Mapping[str, str] | None = None,
        held: bool = False,
    ) -> None:
        self.names = [AppName(app) for app in apps or ("web",)]
        self.ends = dict(ends or {})
        self.revisions = {"main": GOOD, "better": BETTER, "bad": BAD, **(revisions or {})}
        self.held = held
        self.is_ready = True
        self.asked: list[tuple[Principal, DeployAsk | RollbackAsk]] = []
        self.failure: Exception | None = None
        self.pending: list[str] = []
        self.conditions: list[Mapping[str, Json]] = []
        self.logs: dict[DeployId, str] = {}
        self.quarantined: set[Revision] = set()
        self._by_key: dict[str, tuple[DeployAsk | RollbackAsk, DeployId]] = {}
        self._deploys: dict[DeployId, Deploy] = {}
        self._live: dict[AppName, list[DeployId]] = {}
        self._events: list[Event] = []
        self._changed = asyncio.Event()
        self._ticks = 0

    async def deploy(self, principal: Principal, ask: DeployAsk) -> Deploy:
        self._note_ask(principal, ask)
        app = self._app(ask.app)
        if known := self._asked_before(ask):
            return known
        if (ask.force or ask.skip_probes) and not principal.may(Scope.ADMIN):
            raise RefusedError("forbidden", "force and skip_probes need the admin credential")
        revision = self._revision_of(ask.commit or "main")
        if revision in self.quarantined and not ask.force:
            raise RefusedError("quarantined", f"{revision[:12]} is quarantined; deploy with force")
        running = self._running(app)
        if running and not ask.queue:
            raise RefusedError(
                "deploy-in-progress",
                f"{running.id} is deploying {app}; wait, cancel it, or ask with queue",
                running.id,
            )
        deploy = self._begin(
            principal, app, revision, ask, kind=WishKind.DEPLOY, message=ask.message
        )
        if not self.held:
            self.finish(deploy.id)
        return deploy

    async def rollback(self, principal: Principal, ask: RollbackAsk) -> Deploy:
        self._note_ask(principal, ask)
        app = self._app(ask.app)
        if known := self._asked_before(ask):
            return known
        past = self._live.get(app, [])
        to = [one for one in past[:-1] if ask.to in (None, one, self._deploys[one].target.revision)]
        if not to:
            raise RefusedError("no-previous", f"{app} has no earlier revision to go back to")
        if running := self._running(app):
            self.advance(running.id, Phase.SUPERSEDED, "superseded-by-rollback")
        revision = self._deploys[to[-1]].target.revision
        if (left := self._live_commit(app)) not in (None, revision):
            self.quarantined.add(left)
        deploy = self._begin(principal, app, revision, ask, kind=WishKind.ROLLBACK)
        if not self.held:
            self.finish(deploy.id)
        return deploy

    async def cancel(self, principal: Principal, deploy_id: DeployId) -> Deploy:
        self._fail_if_told()
        assert principal.may(Scope.DEPLOY)
        deploy = await self.record(deploy_id)
        if not deploy.phase.open:
            raise RefusedError("invalid-request", f"{deploy_id} has ended already", deploy_id)
        return self.advance(deploy_id, Phase.CANCELLED, "cancelled-by-request")

    async def outcome(self, deploy_id: DeployId) -> Deploy:
        while (deploy := await self.record(deploy_id)).phase.open:
            await self._changed.wait()
        return deploy

    async def record(self, deploy_id: DeployId) -> Deploy:
        self._fail_if_told()
        if deploy_id not in self._deploys:
            raise RefusedError("unknown-deploy", f"there is no deploy {deploy_id}")
        return self._deploys[deploy_id]

    async def deploys(self, app: str | None, limit: int, before: int | None) -> Sequence[Deploy]:
        self._fail_if_told()
        if app is not None:
            self._app(app)
        found = [
            one
            for one in self._deploys.values()
            if app in (None, one.request.app) and (before is None or one.seq < before)
        ]
        return sorted(found, key=lambda one: -one.seq)[:limit]

    async def log(self, deploy_id: DeployId) -> str:
        await self.record(deploy_id)
        return self.logs.get(deploy_id, "")

    async def log_tail(self, deploy: Deploy) -> str:
        return "\n".join(self.logs.get(deploy.id, "").splitlines()[-50:])

    async def status(self, app: str | None) -> Mapping[str, Json]:
        self._fail_if_told()
        chosen = self._app(app) if app or len(self.names) == 1 else None
        apps: dict[str, Json] = {name: self._brief(name) for name in self.names}
        flat = dict(_EMPTY) if chosen is None else self._flat(chosen)
        return {**flat, "apps": apps}

    async def plan(self, app: str | None) -> Mapping[str, Json]:
        self._fail_if_told()
        names = [self._app(app)] if app else self.names
        each: Json = {
            "converged": not self.pending,
            "pending": list(self.pending),
            "steps": [{"action": "PrepareSlot", "why": one} for one in self.pending],
            "conditions": [],
            "held": False,
        }
        return {"converged": not self.pending, "apps": dict.fromkeys(names, each)}

    async def apps(self) -> Sequence[Mapping[str, Json]]:
        self._fail_if_told()
        return [{"name": name, **self._brief(name)} for name in self.names]

    async def events(self, after: int, limit: int) -> Sequence[Event]:
        self._fail_if_told()
        return [event for event in self._events if event.seq > after][:limit]

    async def last_event(self) -> int:
        return len(self._events)

    async def next_event(self, after: int, timeout: float) -> None:
        if len(self._events) > after:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return

    def app_names(self) -> Sequence[AppName]:
        return self.names

    @property
    def ready(self) -> bool:
        return self.is_ready

    def finish(self, deploy_id: DeployId) -> Deploy:
        """Takes a deploy through its phases to the end that its revision has."""
        deploy = self._deploys[deploy_id]
        end = self.ends.get(deploy.target.revision, End())
        reached = [step.phase for step in deploy.progress]
        for phase in STEPS:
            if phase not in reached:
                self.advance(deploy_id, phase)
        return self.advance(deploy_id, end.phase, end.reason, end.detail)

    def advance(
        self, deploy_id: DeployId, phase: Phase, reason: str = "", detail: str = ""
    ) -> Deploy:
        """Appends one step to a deploy, and tells of it."""
        deploy = self._deploys[deploy_id]
        at, instant = self._tick()
        slot = SlotName("deploy-b" if deploy.seq % 2 else "deploy-a")
        step = Progress(phase, at, instant, slot=slot, reason=reason, detail=detail)
        deploy = replace(deploy, progress=(*deploy.progress, step))
        if phase is Phase.PROVING:
            health = Verdict("health", VerdictKind.PROBE, VerdictResult.PASSED)
            deploy = replace(deploy, verdicts=(health,))
        self._deploys[deploy_id] = deploy
        if phase is Phase.LIVE:
            self._go_live(deploy)
        self._announce("deploy.progressed", {"deploy_id": deploy_id, "phase": phase.value})
        return deploy

    def seed(self, count: int) -> None:
        """Records events that mean nothing, so that there are pages of them."""
        for number in range(count):
            self._announce("test.seeded", {"number": number})

    def _note_ask(self, principal: Principal, ask: DeployAsk | RollbackAsk) -> None:
        self._fail_if_told()
        self.asked.append((principal, ask))

    def _fail_if_told(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _app(self, name: str | None) -> AppName:
        if name is None and len(self.names) == 1:
            return self.names[0]
        if name is None:
            raise RefusedError("ambiguous-app", f"name one of {', '.join(self.names)}")
        if name not in self.names:
            raise RefusedError("unknown-app", f"there is no app {name!r}")
        return AppName(name)

    def _revision_of(self, text: str) -> Revision:
        found = {one for one in self.revisions.values() if one.startswith(text)}
        named = self.revisions.get(text)
        if named is None and len(found) != 1:
            raise RefusedError("unknown-revision", f"no commit, branch or tag is {text!r}")
        return Revision(named or found.pop())

    def _asked_before(self, ask: DeployAsk | RollbackAsk) -> Deploy | None:
        if ask.idempotency_key is None or ask.idempotency_key not in self._by_key:
            return None
        asked, deploy_id = self._by_key[ask.idempotency_key]
        if asked != ask:
            raise RefusedError("idempotency-conflict", "that key was used for another request")
        return self._deploys[deploy_id]

    def _running(self, app: AppName) -> Deploy | None:
        mine = [one for one in self._deploys.values() if one.request.app == app]
        return next((one for one in mine if one.phase.open), None)

    def _begin(
        self,
        principal: Principal,
        app: AppName,
        revision: Revision,
        ask: DeployAsk | RollbackAsk,
        *,
        kind: WishKind,
        message: str = "",
    ) -> Deploy:
        at, instant = self._tick()
        deploy_id = DeployId(uuid7(self._ticks, self._ticks))
        rollback = kind is WishKind.ROLLBACK
        request = DeployRequest(
            id=deploy_id,
            wish_id=WishId(f"wish-{deploy_id}"),
            host=HOST,
            app=app,
            kind=kind,
            target=Target(revision, "", ""),
            contract="{}",
            actor=principal.actor,
            trigger=Trigger.ROLLBACK if rollback else Trigger.MANUAL,
            requested_at=at,
            branch="main",
            message=message,
            force=isinstance(ask, DeployAsk) and ask.force,
            reason=ask.reason,
            previous_commit=self._live_commit(app),
        )
        queued = Progress(Phase.QUEUED, at, instant)
        deploy = Deploy(request, seq=len(self._deploys) + 1, progress=(queued,))
        self._deploys[deploy_id] = deploy
        if ask.idempotency_key is not None:
            self._by_key[ask.idempotency_key] = (ask, deploy_id)
        self._announce("deploy.requested", {"deploy_id": deploy_id})
        return deploy

    def _go_live(self, deploy: Deploy) -> None:
        past = self._live.setdefault(deploy.request.app, [])
        if deploy.request.kind is WishKind.ROLLBACK:
            # What was left is not previous: a second rollback goes further back.
            while past and self._deploys[past[-1]].target != deploy.target:
                past.pop()
            past[-1:] = []
        past.append(deploy.id)

    def _live_commit(self, app: AppName, back: int = 1) -> Revision | None:
        past = self._live.get(app, [])
        return self._deploys[past[-back]].target.revision if len(past) >= back else None

    def _brief(self, app: AppName) -> dict[str, Json]:
        live = self._live_commit(app)
        return {"live_commit": live, "healthy": True if live else None, "ready": live is not None}

    def _flat(self, app: AppName) -> dict[str, Json]:
        past = [self._deploys[one] for one in self._live.get(app, [])]
        live = past[-1] if past else None
        previous = past[-2] if len(past) > 1 else None
        mine = [one for one in self._deploys.values() if one.request.app == app]
        running = self._running(app)
        return {
            "live_slot": live.slot if live is not None else None,
            "live_commit": self._live_commit(app),
            "previous_slot": previous.slot if previous is not None else None,
            "previous_commit": self._live_commit(app, 2),
            "last_deploy_time": timestamp(live.progress[-1].at) if live is not None else None,
            "healthy": True if live is not None else None,
            "workspace_dir": None,
            "slots": [_slot(name, live, previous) for name in ("deploy-a", "deploy-b", "deploy-c")],
            "conditions": list(self.conditions),
            "deploy": deploy_record(running) if running else None,
            "queued": [deploy_record(one) for one in mine if one.phase.open and one is not running],
            "recent": [deploy_record(one) for one in reversed(mine[-10:])],
            "quarantine": [_quarantined(revision) for revision in sorted(self.quarantined)],
        }

    def _announce(self, kind: str, payload: Mapping[str, Json]) -> None:
        at, _ = self._tick()
        seq = len(self._events) + 1
        self._events.append(Event(seq, f"event-{seq}", HOST, kind, 1, at, at, payload))
        # Whoever waits is woken once, and waits for the next change on a fresh event.
        self._changed.set()
        self._changed = asyncio.Event()

    def _tick(self) -> tuple[datetime, Instant]:
        self._ticks += 1
        span = timedelta(milliseconds=10 * self._ticks)
        return EPOCH + span, Instant("boot", 0) + span


_EMPTY: Mapping[str, Json] = {
    "live_slot": None, "live_commit": None, "previous_slot": None, "previous_commit": None,
    "last_deploy_time": None, "healthy": None, "workspace_dir": None, "slots": [],
    "conditions": [], "deploy": None, "queued": [], "recent": [], "quarantine": [],
}  # fmt: skip


def _quarantined(revision: Revision) -> Mapping[str, Json]:
    return {
        "commit": revision,
        "contract_digest": None,
        "reason": "rolled back by a person",
        "by": "human:local",
        "since": timestamp(EPOCH),
    }


def _slot(name: str, live: Deploy | None, previous: Deploy | None) -> Mapping[str, Json]:
    if live is not None and live.slot == name:
        return _filled(name, "live", live)
    if previous is not None and previous.slot == name:
        return _filled(name, "previous", previous)
    return {"name": name, "role": "none", "condition": "empty", "commit": None, "instances": []}


def _filled(name: str, role: str, deploy: Deploy) -> Mapping[str, Json]:
    instance: Json = {
        "process": "web",
        "address": "127.0.0.1:20001",
        "up": True,
        "since": timestamp(deploy.progress[0].at),
        "pid": 4711,
    }
    return {
        "name": name,
        "role": role,
        "condition": "healthy",
        "commit": deploy.target.revision,
        "instances": [instance],
    }
