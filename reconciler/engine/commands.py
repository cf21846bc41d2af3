"""Commands: what people and programs ask for. Each records a wish and awaits its outcome."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler.engine.apply import LOG_TAIL, contract_of, progress
from reconciler.engine.effects import Effects
from reconciler.engine.loop import Loop, Pass
from reconciler.engine.observe import observe
from reconciler.model.canonical import Json, canonical
from reconciler.model.conditions import Condition, ConditionType
from reconciler.model.deploys import (
    Deploy,
    DeployRequest,
    Phase,
    Promotion,
    Quarantined,
    Reason,
    SeenHead,
    SeenInputs,
    Trigger,
    WishKind,
    WishStatus,
)
from reconciler.model.desired import AppContract, Target
from reconciler.model.errors import (
    DiskPressureError,
    ReconcilerError,
    RefusedError,
    UnknownRevisionError,
)
from reconciler.model.events import Event
from reconciler.model.names import AppName, DeployId, Revision, WishId
from reconciler.model.observed import UnknownPointer
from reconciler.model.principals import Principal, Scope
from reconciler.planning.history import find, previous
from reconciler.planning.release import plan_release
from reconciler.planning.standing import stand
from reconciler.planning.status import app_plan, app_status, app_summary, told_condition
from reconciler.ports import IdempotencyKey

# A deploy that another wish superseded is decided without a pass.
UNHEARD_S = 0.25
PROBES = ("health", "request")
# Beyond the deadlines of its steps: queueing behind another, stopping what failed.
PATIENCE = timedelta(minutes=5)
MAX_LOG = 1 << 14


@dataclass(frozen=True, slots=True)
class DeployAsk:
    """The body of `POST /deploy`, parsed. `commit` None means the head of the app's branch."""

    commit: str | None = None
    app: str | None = None
    queue: bool = False
    message: str = ""
    force: bool = False
    skip_probes: tuple[str, ...] = ()
    reason: str = ""
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class RollbackAsk:
    """The body of `POST /rollback`, parsed. `to` is a deploy id or a commit, None the previous."""

    app: str | None = None
    to: str | None = None
    reason: str = ""
    idempotency_key: str | None = None


class Commands:
    """What the doors may ask of the engine. Refusals are RefusedError, unless a verb says more."""

    def __init__(self, effects: Effects, loop: Loop) -> None:
        self._effects = effects
        self._loop = loop
        self._moved = asyncio.Condition()
        self._telling: asyncio.Task[None] | None = None
        effects.store.on_event(self._tell)

    def _tell(self) -> None:
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._notify())

    async def _notify(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def deploy(self, principal: Principal, ask: DeployAsk) -> Deploy:
        """Records a wish and returns its deploy at once; `outcome` awaits what becomes of it.

        Refuses with unknown-app, ambiguous-app, unknown-revision, deploy-in-progress, quarantined,
        invalid-request, pointer-unknown, forbidden (force and skip_probes need ADMIN and a reason).
        """
        _check_privileges(principal, ask)
        key = _idempotency(principal, "deploy", ask)
        if key is not None and (answered := await self._effects.store.answered(key)) is not None:
            return answered
        # What the mirror has can still be deployed when the repository is out of reach.
        moved = await self._loop.sync.refresh()
        try:
            if full := self._loop.sync.around.disk_problem:
                # What is asked for may be what could not be fetched.
                raise DiskPressureError(full)
            return await self._wish(principal, ask, key)
        finally:
            # Not before: a push that is noticed first stands in the way of what is asked for.
            if moved:
                self._loop.wakeups.source.set()
                self._loop.wakeups.wake_all()

    async def _wish(
        self, principal: Principal, ask: DeployAsk, key: IdempotencyKey | None
    ) -> Deploy:
        app = self._pick(ask.app)
        contract = self._contract(app)
        if not self.ready and app not in self._loop.views:
            # What is live must have been looked at, and adopted, before anything replaces it.
            raise RefusedError("store-busy", f"{app} has not been looked at yet; ask again")
        await self._refuse_unknown_pointer(app)
        revision, branch = await self._resolve(contract, ask.commit)
        granted = await self._effects.secrets.resolve(app, contract)
        target = Target(revision, contract.digest, granted.digest)
        records = await self._effects.store.records(app)
        if not ask.force:
            _refuse_quarantined(records.quarantine, target)
        if (joined := _same_push(records.running, target, ask)) is not None:
            return joined
        live = records.promotions[-1].target.revision if records.promotions else None
        request = self._request(
            app,
            WishKind.DEPLOY,
            target,
            contract.text,
            principal,
            Trigger.MANUAL,
            branch=branch,
            message=ask.message,
            force=ask.force,
            reason=ask.reason,
            skip_probes=ask.skip_probes,
            previous_commit=live,
        )
        deploy = await self._effects.store.record_wish(
            request,
            progress(self._effects, Phase.QUEUED),
            head=self._head_if(contract, revision),
            inputs=SeenInputs(target.contract_digest, target.secrets_digest),
            lift=target if ask.force else None,
            only_if_idle=not ask.queue,
            key=key,
        )
        self._loop.sync.accepted = revision
        self._loop.wakeups.source.set()
        self._loop.wakeups.wake(app)
        return deploy

    async def rollback(self, principal: Principal, ask: RollbackAsk) -> Deploy:
        """The same for a rollback: no-previous, unknown-app, ambiguous-app, unknown-revision,
        pointer-unknown, and quarantined for what `to` names."""
        if not principal.may(Scope.DEPLOY):
            raise RefusedError("forbidden", "rolling back needs the deploy scope")
        key = _idempotency(principal, "rollback", ask)
        if key is not None and (answered := await self._effects.store.answered(key)) is not None:
            return answered
        app = self._pick(ask.app)
        await self._refuse_unknown_pointer(app)
        records = await self._effects.store.records(app)
        goal = _rollback_goal(records.promotions, ask.to)
        if ask.to is not None:
            # Only a goal that was named: from what is live there must always be a way back.
            _refuse_quarantined(records.quarantine, goal.target)
        live = records.promotions[-1]
        reason = ask.reason or "rolled back by a person"
        request = self._request(
            app,
            WishKind.ROLLBACK,
            goal.target,
            goal.contract,
            principal,
            Trigger.ROLLBACK,
            message=ask.reason,
            reason=ask.reason,
            rolls_back_to=goal.deploy_id,
            previous_commit=live.target.revision,
        )
        deploy = await self._effects.store.record_wish(
            request,
            progress(self._effects, Phase.QUEUED),
            quarantine=(self._left_behind(app, live, goal, principal, reason),),
            pre_empt=True,
            key=key,
        )
        self._loop.wakeups.wake(app)
        return deploy

    def _left_behind(
        self, app: AppName, live: Promotion, goal: Promotion, principal: Principal, reason: str
    ) -> Quarantined:
        """A person's rollback condemns the revision it leaves, unless it goes to the same one."""
        same = live.target.revision == goal.target.revision
        return Quarantined(
            app,
            live.target.revision,
            live.target.contract_digest if same else "",
            live.target.secrets_digest if same else "",
            reason,
            principal.actor,
            self._effects.clock.wall(),
        )

    def _request(
        self,
        app: AppName,
        kind: WishKind,
        target: Target,
        contract: str,
        principal: Principal,
        trigger: Trigger,
        *,
        branch: str | None = None,
        message: str = "",
        force: bool = False,
        reason: str = "",
        skip_probes: tuple[str, ...] = (),
        rolls_back_to: DeployId | None = None,
        previous_commit: Revision | None = None,
    ) -> DeployRequest:
        clock = self._effects.clock
        return DeployRequest(
            id=DeployId(clock.new_id()),
            wish_id=WishId(clock.new_id()),
            host=self._effects.host,
            app=app,
            kind=kind,
            target=target,
            contract=contract,
            actor=principal.actor,
            trigger=trigger,
            requested_at=clock.wall(),
            branch=branch,
            message=message,
            force=force,
            reason=reason,
            skip_probes=skip_probes,
            rolls_back_to=rolls_back_to,
            previous_commit=previous_commit,
        )

    async def cancel(self, principal: Principal, deploy_id: DeployId) -> Deploy:
        """Ends a deploy that is not live yet; what it started is stopped by the next pass."""
        if not principal.may(Scope.DEPLOY):
            raise RefusedError("forbidden", "cancelling needs the deploy scope")
        deploy = await self.record(deploy_id)
        if not deploy.phase.open or deploy.phase is Phase.SWITCHING:
            raise RefusedError(
                "invalid-request", f"deploy {deploy_id} is {deploy.phase} already", deploy_id
            )
        await self._effects.store.close_deploy(
            deploy_id,
            progress(
                self._effects,
                Phase.CANCELLED,
                reason=Reason.CANCELLED_BY_REQUEST,
                detail=f"cancelled by {principal.actor}",
            ),
            wish_status=WishStatus.CANCELLED,
        )
        self._loop.wakeups.wake(deploy.request.app)
        return await self.record(deploy_id)

    async def outcome(self, deploy_id: DeployId) -> Deploy:
        """Returns the deploy once it is live or has ended; waits as long as its deadlines allow."""
        deploy = await self.record(deploy_id)
        contract = contract_of(deploy)
        patience = contract.setup_timeout + contract.health_timeout + PATIENCE
        with suppress(TimeoutError):
            async with asyncio.timeout(patience.total_seconds()):
                while deploy.phase.open:
                    await self._effects.decisions.wait(UNHEARD_S)
                    deploy = await self.record(deploy_id)
                await self._until_routed(deploy)
        return deploy

    async def _next_move(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait()

    async def _until_routed(self, deploy: Deploy) -> None:
        """A first promotion opens the app's own port: that is part of being live for a caller."""
        app = deploy.request.app
        if deploy.phase is not Phase.LIVE or contract_of(deploy).port is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(3):
                while True:
                    seen = await self._effects.proxy.observe()
                    routing = seen.table.routing(app) if seen.table else None
                    if routing is not None and routing.live:
                        return
                    await self._effects.clock.sleep(timedelta(milliseconds=5))

    async def record(self, deploy_id: DeployId) -> Deploy:
        """Returns the deploy as it stands; refuses with unknown-deploy (404)."""
        deploy = await self._effects.store.deploy(deploy_id)
        if deploy is None:
            raise RefusedError("unknown-deploy", f"no deploy has the id {deploy_id}")
        return deploy

    async def deploys(self, app: str | None, limit: int, before: int | None) -> Sequence[Deploy]:
        name = None if app is None else self._known(app)
        return await self._effects.store.deploys(name, limit, before)

    async def log(self, deploy_id: DeployId) -> str:
        """Returns setup and process output of the deploy, bounded to its last 16,384 lines."""
        deploy = await self.record(deploy_id)
        return await self._effects.slots.log_tail(deploy.request.app, deploy_id, MAX_LOG)

    async def log_tail(self, deploy: Deploy) -> str:
        """Returns the last 50 lines that explain why a deploy failed."""
        kept = deploy.progress[-1].log_tail
        return kept or await self._effects.slots.log_tail(deploy.request.app, deploy.id, LOG_TAIL)

    async def status(self, app: str | None) -> Mapping[str, Json]:
        """Returns the body of `GET /status`; looks at the app asked for anew, at others not."""
        names = self.app_names()
        summaries: dict[str, Json] = {
            name: app_summary(view.desired, view.seen, self._effects.clock.now())
            for name, view in sorted(self._loop.views.items())
        }
        chosen = self._known(app) if app is not None else names[0] if len(names) == 1 else None
        if chosen is None or chosen not in self._loop.views:
            in_the_way = self._host_conditions()
            if chosen is not None:
                in_the_way += [told_condition(*pair) for pair in self._with_trouble(chosen, ())]
            return {
                **app_status(None, self._effects.clock.wall()),
                "apps": summaries,
                "conditions": in_the_way,
            }
        view = await self._look(chosen)
        store = self._effects.store
        recent = await store.deploys(chosen, 10, None)
        conditions = self._with_trouble(chosen, await store.conditions(chosen))
        look = (view.desired, view.seen, self._effects.clock.now())
        body = app_status(look, self._effects.clock.wall(), recent, conditions)
        summaries[chosen] = app_summary(view.desired, view.seen, self._effects.clock.now())
        return {**body, "apps": summaries}

    def _with_trouble(
        self, app: AppName, recorded: Sequence[tuple[Condition, datetime]]
    ) -> Sequence[tuple[Condition, datetime]]:
        """Adds why passes over the app fail, which cannot be recorded where the store is full."""
        trouble = self._loop.troubles.get(app)
        if trouble is None:
            return recorded
        full = trouble.reason == Reason.DISK_PRESSURE
        reason = "DiskPressure" if full else "PassFailed"
        how = "; free some and it goes on by itself" if full else "; it is tried again"
        message = f"{trouble.detail}{how}"
        told = Condition(ConditionType.STALLED, status=True, reason=reason, message=message)
        others = [pair for pair in recorded if pair[0].type is not ConditionType.STALLED]
        return [*others, (told, self._effects.clock.wall())]

    def _host_conditions(self) -> list[Json]:
        """What stands in the way of every app, for when no app is there to say it."""
        sync = self._loop.sync
        told = self._loop.problem or sync.around.source_problem
        reason = "SourceUnavailable"
        if sync.around.disk_problem:
            reason, told = "DiskPressure", sync.around.disk_problem
        elif sync.problems:
            reason, told = "InvalidManifest", "; ".join(str(one) for one in sync.problems)
        elif not told and not sync.apps():
            reason, told = "NoApps", sync.nothing_to_run()
        if not told:
            return []
        return [
            {"type": "Stalled", "status": True, "reason": reason, "message": told, "since": None}
        ]

    async def _look(self, app: AppName) -> Pass:
        """Returns the last pass with what can be observed looked at again; acts on nothing."""
        view = self._loop.views[app]
        try:
            seen = await observe(
                view.desired, self._loop.sync.around, self._effects, known=view.seen
            )
        except ReconcilerError:
            # Passes fail for the same reason, which is told as a condition.
            return view
        return Pass(view.desired, seen, view.plan, failed=False)

    async def plan(self, app: str | None) -> Mapping[str, Json]:
        """Returns `{converged, apps: {name: {converged, pending: [..], steps: [{action, why}],
        conditions: [..], next_look_at}}}`, planned anew from what is seen now."""
        names = [self._known(app)] if app is not None else list(self.app_names())
        plans: dict[str, Json] = {}
        for name in names:
            desired = await self._loop.sync.wanted(name)
            seen = await observe(desired, self._loop.sync.around, self._effects)
            now = self._effects.clock.now()
            plans[name] = app_plan(plan_release(desired, seen, now), stand(desired, seen, now))
        converged = all(isinstance(one, Mapping) and one["converged"] for one in plans.values())
        return {"converged": converged, "apps": plans}

    async def apps(self) -> Sequence[Mapping[str, Json]]:
        now = self._effects.clock.now()
        return [
            {"name": name, **app_summary(view.desired, view.seen, now)}
            for name, view in sorted(self._loop.views.items())
        ]

    async def events(self, after: int, limit: int) -> Sequence[Event]:
        return await self._effects.store.events(after, limit)

    async def last_event(self) -> int:
        return await self._effects.store.last_event()

    async def next_event(self, after: int, timeout: float) -> None:
        """Returns when an event after that seq may exist, or the timeout (seconds) has passed."""
        if await self._effects.store.last_event() <= after:
            await self._next_move(timeout)

    def app_names(self) -> Sequence[AppName]:
        return sorted(self._loop.sync.apps() | self._loop.views.keys())

    @property
    def ready(self) -> bool:
        """Whether the first pass over every app is done."""
        return self._loop.ready.is_set()

    def _known(self, app: str) -> AppName:
        name = AppName(app)
        if name not in self.app_names():
            known = ", ".join(self.app_names()) or "none"
            raise RefusedError("unknown-app", f"no app is named {app!r}; there are: {known}")
        return name

    def _pick(self, app: str | None) -> AppName:
        if app is not None:
            return self._known(app)
        names = self.app_names()
        if len(names) == 1:
            return names[0]
        if not names:
            raise RefusedError(
                "unknown-app", "there is no app: add .autopilot/apps/NAME.yaml and commit it"
            )
        raise RefusedError(
            "ambiguous-app", f"there are several apps, name one with `app`: {', '.join(names)}"
        )

    def _contract(self, app: AppName) -> AppContract:
        desired = self._loop.sync.desired
        contract = desired.apps.get(app) if desired else None
        if contract is None:
            raise RefusedError(
                "unknown-app", f"{app} is not in .autopilot/ any more; it can only be rolled back"
            )
        return contract

    async def _refuse_unknown_pointer(self, app: AppName) -> None:
        pointer = await self._effects.proxy.pointer(app)
        if isinstance(pointer, UnknownPointer):
            raise RefusedError(
                "pointer-unknown",
                f"routes/{app} points to {pointer.text}: what serves is unknown, so nothing moves",
            )

    def _head_if(self, contract: AppContract, revision: Revision) -> SeenHead | None:
        """The head of the app's branch, when that is what is asked for: it is noticed by it."""
        head = self._loop.sync.around.head_of(contract)
        return SeenHead(*head) if head is not None and head[1] == revision else None

    async def _resolve(
        self, contract: AppContract, text: str | None
    ) -> tuple[Revision, str | None]:
        """Returns the commit meant, and the branch when a branch was named."""
        around = self._loop.sync.around
        if text is None:
            found = around.head_of(contract)
            if found is None:
                branch = contract.branch or around.human
                raise RefusedError("unknown-revision", f"branch {branch} has no commit yet")
            return found[1], found[0]
        try:
            revision = await self._effects.source.resolve(text)
        except UnknownRevisionError as error:
            raise RefusedError("unknown-revision", str(error)) from error
        return revision, text if text in around.heads else None


def _check_privileges(principal: Principal, ask: DeployAsk) -> None:
    if not principal.may(Scope.DEPLOY):
        raise RefusedError("forbidden", "deploying needs the deploy scope")
    unknown = [name for name in ask.skip_probes if name not in PROBES]
    if unknown:
        raise RefusedError(
            "invalid-request", f"skip_probes: unknown probe {unknown[0]!r}; use {', '.join(PROBES)}"
        )
    if not (ask.force or ask.skip_probes):
        return
    if not principal.may(Scope.ADMIN):
        raise RefusedError(
            "forbidden", "force and skip_probes need the admin credential (`--token`)"
        )
    if not ask.reason:
        raise RefusedError("invalid-request", "reason: force and skip_probes need one")


def _refuse_quarantined(quarantine: Sequence[Quarantined], target: Target) -> None:
    for held in quarantine:
        if held.covers(target):
            raise RefusedError(
                "quarantined",
                f"{target.revision[:10]} is quarantined since {held.since:%Y-%m-%d %H:%M} "
                f"({held.reason}). Deploy a fix, or insist: deploy it with --force --reason",
            )


def _same_push(running: Deploy | None, target: Target, ask: DeployAsk) -> Deploy | None:
    """Returns the deploy that a push of just this has begun: who asks for it gets that one."""
    if running is None or ask.force or ask.skip_probes:
        return None
    pushed = running.request.trigger is Trigger.PUSH and running.target == target
    return running if pushed else None


def _rollback_goal(promotions: Sequence[Promotion], to: str | None) -> Promotion:
    if to is None:
        goal = previous(promotions)
        if goal is None:
            raise RefusedError(
                "no-previous", "nothing was live before this, so there is no way back"
            )
        return goal
    goal = find(promotions, to)
    if goal is None or not promotions:
        raise RefusedError("unknown-revision", f"{to} was never live here; see `autopilot history`")
    if goal.deploy_id == promotions[-1].deploy_id:
        raise RefusedError("no-previous", f"{to} is live already")
    return goal


def _idempotency(
    principal: Principal, verb: str, ask: DeployAsk | RollbackAsk
) -> IdempotencyKey | None:
    """The caller's key with a fingerprint of what was asked, not of what it meant at the time."""
    if ask.idempotency_key is None:
        return None
    asked = canonical([principal.actor, verb, repr(ask)])
    return IdempotencyKey(ask.idempotency_key, hashlib.sha256(asked.encode()).hexdigest())
