"""The loop: one reconcile task for each app, one for the proxy, one for the repository."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from reconciler.engine.apply import apply, failure, progress
from reconciler.engine.effects import Effects
from reconciler.engine.observe import observe
from reconciler.engine.sync import Sync
from reconciler.engine.timers import Timers
from reconciler.engine.wakeups import AT_LEAST_EVERY, Wakeups
from reconciler.model.actions import Action, NoteConditions, Outcome, Plan, StartInstances
from reconciler.model.deploys import Phase, Reason
from reconciler.model.desired import DesiredApp
from reconciler.model.errors import ReconcilerError
from reconciler.model.names import AppName
from reconciler.model.observed import (
    AppRouting,
    NoPointer,
    ObservedApp,
    ObservedProxy,
    PointsTo,
)
from reconciler.planning.release import plan_release
from reconciler.planning.routing import plan_routing, route_app, table_of
from reconciler.planning.standing import stand

log = structlog.get_logger()

# What a daemon that ended left open is closed: all but what waits and what may have switched.
CUT_OFF = (
    Phase.FETCHING,
    Phase.GATING,
    Phase.PREPARING,
    Phase.STARTING,
    Phase.PROVING,
    Phase.APPROVING,
)
FIRST_PAUSE = timedelta(milliseconds=50)
LONGEST_PAUSE = timedelta(seconds=5)
COALESCE = timedelta(milliseconds=10)
# A repository that hangs (a dead network mount) holds up nothing else.
LOOK_WITHIN = timedelta(seconds=60)
FIRST_LOOK = timedelta(seconds=5)
HOUSEKEEPING = timedelta(minutes=1)
# The proxy serves all apps: its actions belong to none.
ALL_APPS = AppName("*")


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over one app: what was desired, seen and planned, and whether all of it was done."""

    desired: DesiredApp
    seen: ObservedApp
    plan: Plan
    failed: bool


class Loop:
    """Runs passes until it is cancelled. What it keeps is a view for people, never a memory."""

    def __init__(self, effects: Effects, sync: Sync, wakeups: Wakeups) -> None:
        self.effects = effects
        self.sync = sync
        self.wakeups = wakeups
        self.views: dict[AppName, Pass] = {}
        # Why passes over an app cannot be made: a condition needs a store that can be written.
        self.troubles: dict[AppName, Outcome] = {}
        self.problem = ""
        self.proxy_refused = ""
        self._routing: dict[AppName, AppRouting] = {}
        self._tasks: dict[AppName, asyncio.Task[None]] = {}
        self._tried: set[AppName] = set()
        self._group: asyncio.TaskGroup | None = None
        self._on_pass: list[Callable[[AppName], None]] = []
        self.ready = asyncio.Event()
        self._looked = asyncio.Event()

    def on_pass(self, listener: Callable[[AppName], None]) -> None:
        self._on_pass.append(listener)

    async def recover(self) -> None:
        """Closes what a daemon that ended left open, and ends processes that no slot names."""
        effects = self.effects
        step = progress(
            effects,
            Phase.INTERRUPTED,
            reason=Reason.DAEMON_STOPPED,
            detail="the daemon ended while this deploy was running",
        )
        closed = await effects.store.interrupt_open(step, CUT_OFF)
        for deploy_id in closed:
            log.warning("deploy interrupted", deploy=deploy_id)
        await effects.slots.sweep(effects.store.known_deploys)

    async def run(self) -> None:
        """Reconciles for ever; cancel to stop."""
        self.effects.slots.on_change(self.wakeups.wake)
        self.effects.proxy.on_change(self.wakeups.proxy.set)
        timers = Timers()
        timers.every(AT_LEAST_EVERY, self.wakeups.source.set, "look at the repository")
        timers.every(AT_LEAST_EVERY, self.wakeups.proxy.set, "look at the proxy")
        timers.every(HOUSEKEEPING, self.wakeups.house.set, "keep house")
        timers.start()
        try:
            await self._run()
        finally:
            timers.stop()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            # What this host has already must not wait for a repository that hangs.
            for app in sorted(await self.effects.slots.apps()):
                self._start(app)
            self.wakeups.source.set()
            for name, work in (
                ("source", self._follow_source),
                ("source hints", self._hear_source),
                ("secret hints", self._hear_secrets),
                ("proxy", self._serve),
                ("housekeeping", self._keep_house),
            ):
                group.create_task(_for_ever(name, work), name=name)

    async def _follow_source(self) -> None:
        while True:
            await _wait(self.wakeups.source)
            await self._look_at_source()
            if not self._looked.is_set():
                # Every app is passed over once more, now with its contract, before the proxy is
                # configured: a table without them would be loaded for nothing.
                self._tried.clear()
                self._looked.set()
                self.wakeups.wake_all()
                self._tell_ready()

    async def _look_at_source(self) -> None:
        try:
            async with asyncio.timeout(LOOK_WITHIN.total_seconds()):
                changed = await self.sync.refresh()
            known = self.sync.apps() | frozenset(await self.effects.slots.apps())
            self.problem = ""
        except ReconcilerError as error:
            # Nothing of what is in force changes, and the next look tries again.
            self.problem = str(error)
            log.error("repository", problem=self.problem)
            return
        except TimeoutError:
            self.problem = f"the repository did not answer within {LOOK_WITHIN.seconds} s"
            log.error("repository", problem=self.problem)
            return
        for app in sorted(known - self._tasks.keys()):
            self._start(app)
        if changed:
            self.wakeups.wake_all()

    def _start(self, app: AppName) -> None:
        if self._group is not None:
            self._tasks[app] = self._group.create_task(self._reconcile(app), name=f"app {app}")

    async def _hear_source(self) -> None:
        async for _ in self.effects.source.watch():
            self.wakeups.source.set()

    async def _hear_secrets(self) -> None:
        async for _ in self.effects.secrets.watch():
            self.wakeups.wake_all()

    async def _reconcile(self, app: AppName) -> None:
        """Passes over one app, one after the other, as long as it exists."""
        failures = 0
        while True:
            try:
                done = await self.reconcile_once(app)
                failed = done.failed
            except ReconcilerError as error:
                self._note_trouble(app, failure(error))
                done, failed = None, True
            except Exception:
                log.exception("pass failed", app=app)
                done, failed = None, True
            failures = failures + 1 if failed else 0
            self._note_try(app)
            if failures > 1:
                await self.wakeups.wait(app, _pause(failures))
            elif done is not None and not failed and not done.plan.steps:
                await self.wakeups.wait(app, self._until(done.plan))

    def _note_trouble(self, app: AppName, trouble: Outcome | None) -> None:
        if trouble is None:
            self.troubles.pop(app, None)
            return
        if self.troubles.get(app) != trouble:
            log.error("pass failed", app=app, problem=trouble.detail)
        self.troubles[app] = trouble

    def _note_try(self, app: AppName) -> None:
        """Everybody waits for the first pass over each app, but not until it succeeds."""
        if app in self._tried:
            return
        self._tried.add(app)
        self._tell_ready()

    def _tell_ready(self) -> None:
        if self._looked.is_set() and self._all_tried():
            self.wakeups.proxy.set()
            self.ready.set()

    def _all_tried(self) -> bool:
        return self._tried >= self._tasks.keys()

    def _until(self, plan: Plan) -> timedelta:
        if plan.wake_at is None:
            return AT_LEAST_EVERY
        return min(AT_LEAST_EVERY, self.effects.clock.now().until(plan.wake_at))

    async def reconcile_once(self, app: AppName) -> Pass:
        """One pass: what is desired, what is there, what to do, and doing it."""
        desired = await self.sync.wanted(app)
        seen = await observe(desired, self.sync.around, self.effects)
        plan = plan_release(desired, seen, self.effects.clock.now())
        failed, full = False, None
        for step in plan.steps:
            if not isinstance(step.action, NoteConditions):
                log.debug("step", app=app, action=type(step.action).__name__, why=step.why)
            outcome = await apply(app, step.action, self.effects)
            if outcome.failed:
                log.warning(
                    "step failed",
                    app=app,
                    action=type(step.action).__name__,
                    reason=outcome.reason,
                    detail=outcome.detail,
                )
                failed = True
                full = outcome if outcome.reason == Reason.DISK_PRESSURE else None
                if not _stands_alone(step.action):
                    break
        self._note_trouble(app, full)
        result = Pass(desired, seen, plan, failed)
        self.views[app] = result
        await self._note_routing(app, result)
        for listener in self._on_pass:
            listener(app)
        return result

    async def _note_routing(self, app: AppName, done: Pass) -> None:
        """Tells the proxy's task when what this app needs of it is other than before."""
        standing = stand(done.desired, done.seen, self.effects.clock.now())
        pointer = await self.effects.proxy.pointer(app)
        wanted = None
        if standing.policy is not None and not (
            done.desired.removed and isinstance(pointer, NoPointer)
        ):
            live = isinstance(pointer, PointsTo)
            wanted = route_app(app, standing.policy, live=live)
        if wanted == self._routing.get(app):
            return
        if wanted is None:
            del self._routing[app]
        else:
            self._routing[app] = wanted
        self.wakeups.proxy.set()

    async def _serve(self) -> None:
        """Keeps the proxy up and configured; changes that come together are loaded as one."""
        failures = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK.total_seconds()):
                await self.ready.wait()
        while True:
            # After that an app whose pass hangs keeps what the proxy serves of it.
            await self.effects.clock.sleep(COALESCE)
            before = self.sync.around.proxy_problem
            told = await self.serve_once()
            failures = failures + 1 if told else 0
            if told != before:
                self.sync.around = replace(self.sync.around, proxy_problem=told)
                if told:
                    log.error("proxy", problem=told)
            self.wakeups.wake_all()
            await _wait(self.wakeups.proxy, _pause(failures) if failures else None)

    async def serve_once(self) -> str:
        """One pass over the proxy; returns why it does not serve what it should, or nothing."""
        try:
            seen = await self.effects.proxy.observe()
            wanted = table_of([*self._routing.values(), *self._kept(seen)])
            plan = plan_routing(wanted, seen, self.effects.clock.now())
            for step in plan.steps:
                log.debug("step", action=type(step.action).__name__, why=step.why)
                outcome = await apply(ALL_APPS, step.action, self.effects)
                if outcome.failed:
                    if outcome.reason == Reason.PORT_TAKEN:
                        self.proxy_refused = outcome.detail
                    return outcome.detail
        except ReconcilerError as error:
            return str(error)
        return "" if plan.steps else seen.problem

    def _kept(self, seen: ObservedProxy) -> list[AppRouting]:
        """What the proxy serves of apps that could not be looked at yet: that stays as it is."""
        unknown = [app for app in self._tasks if app not in self.views]
        found = [seen.table.routing(app) for app in unknown] if seen.table else []
        return [one for one in found if one is not None]

    async def _keep_house(self) -> None:
        while True:
            await _wait(self.wakeups.house)
            try:
                await self.effects.slots.trim_logs()
            except (ReconcilerError, OSError) as error:
                log.warning("housekeeping", problem=str(error))


def _stands_alone(action: Action) -> bool:
    """Whether the pass may go on without it: a live process that cannot be started must not keep
    the deploy waiting that would mend it."""
    return isinstance(action, StartInstances) and action.restart


async def _wait(event: asyncio.Event, timeout: timedelta | None = None) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout.total_seconds() if timeout else None):
            await event.wait()
    event.clear()


async def _for_ever(name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
    """Runs a task again when it fails unexpectedly: no single one may end the daemon."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("task failed", task=name)
        await asyncio.sleep(LONGEST_PAUSE.total_seconds())


def _pause(failures: int) -> timedelta:
    return min(FIRST_PAUSE * (1 << min(failures, 10)), LONGEST_PAUSE)
