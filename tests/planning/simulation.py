"""A tiny world in memory that does what a plan says, as `apply` and the ports would.

It knows nothing of the planner's rules. It knows the ports' law (a slot that is not empty is not
written to, a kill goes by name, a lost daemon loses its long work) and, as nature does, the truth:
which process really answers. What may never happen is asserted at the moment at which it would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import assert_never

from reconciler.model.actions import (
    Action,
    AdoptLive,
    Advance,
    BlankAddress,
    CheckHealth,
    CloseDeploy,
    ConfigureProxy,
    ConfirmRoute,
    DrainSlot,
    EmptyTrash,
    FetchRevision,
    MakeWish,
    NoteAbsence,
    NoteConditions,
    NoteSeen,
    Outcome,
    Plan,
    PrepareSlot,
    Promote,
    PublishAddress,
    RecordVerdict,
    RemoveRoute,
    RetireSlot,
    RetryWish,
    RunProbe,
    StallWish,
    StartInstances,
    StartProxy,
    StopProcesses,
    StopSlot,
    SwitchRoute,
    WarmSlot,
)
from reconciler.model.canonical import Json
from reconciler.model.conditions import ConditionType
from reconciler.model.deploys import (
    Deploy,
    Phase,
    Reason,
    Trigger,
    Verdict,
    VerdictKind,
    VerdictResult,
    WishKind,
    WishStatus,
)
from reconciler.model.desired import AppContract, DesiredApp, Target
from reconciler.model.instants import Instant, earliest
from reconciler.model.names import (
    SLOT_NAMES,
    WEB,
    DeployId,
    ProcessName,
    Revision,
    SlotName,
)
from reconciler.model.observed import (
    UNKNOWN_HEALTH,
    Health,
    Intent,
    NoPointer,
    ObservedApp,
    ObservedHead,
    ObservedInstance,
    ObservedSlot,
    Pointer,
    PointsTo,
    SlotRecord,
    Stage,
    Start,
)
from reconciler.planning.history import find, previous
from reconciler.planning.release import plan_release
from reconciler.planning.standing import stand
from tests.planning.memory import Memory
from tests.planning.worlds import KEY, PLAIN, A, contract

DONE = Outcome()
MS = timedelta(milliseconds=1)
AT_LEAST_EVERY = timedelta(seconds=30)
CUT_OFF = (
    Phase.FETCHING,
    Phase.GATING,
    Phase.PREPARING,
    Phase.STARTING,
    Phase.PROVING,
    Phase.APPROVING,
)


@dataclass(frozen=True)
class Behaviour:
    """What an app does in this revision. `crashes` counts how many of its starts end by themselves
    after `lives`; None is every one. `healthy` False never answers well."""

    healthy: bool = True
    boots_in: timedelta = 30 * MS
    lives: timedelta | None = None
    crashes: int | None = None
    ends_in: timedelta = 5 * MS
    ignores_term: bool = False
    unkillable: bool = False
    lingers: timedelta = timedelta(0)
    setup: timedelta = 50 * MS
    setup_fails: bool = False
    setup_hangs: bool = False


@dataclass
class Process:
    name: ProcessName
    index: int
    behaviour: Behaviour
    spawned: Instant
    ends_at: Instant | None = None

    def up(self, now: Instant) -> bool:
        return self.ends_at is None or not now.reached(self.ends_at)

    def end_by(self, moment: Instant) -> None:
        self.ends_at = earliest(self.ends_at, moment)


@dataclass
class Work:
    """Long work of the daemon: done at `due` unless it was stopped; None is never by itself."""

    due: Instant | None
    finish: Callable[[], None]


@dataclass
class Slot:
    record: SlotRecord | None = None
    processes: list[Process] = field(default_factory=list)
    published: str = ""
    health: Health = UNKNOWN_HEALTH
    work: dict[str, Work] = field(default_factory=dict)
    connections_until: Instant | None = None


class World(Memory):
    """One app on one host. Commands record wishes; `settle` passes until nothing is left to do."""

    def __init__(self, initial: AppContract = PLAIN) -> None:
        super().__init__(Instant("boot-1", 1_000_000_000))
        self.contract: AppContract | None = initial
        self.contracts = {initial.text: initial}
        self.secrets = ""
        self.missing: tuple[str, ...] = ()
        self.head: ObservedHead | None = None
        self.removed = False
        self.routed = True
        self.confirms = True
        self.fetches = True
        self.behaviours: dict[Revision | Target, Behaviour] = {}
        self.starts: dict[Target, int] = {}
        self.slots = {name: Slot() for name in SLOT_NAMES}
        self.pointer: Pointer = NoPointer()
        self.done: list[Action] = []
        self.failures: list[tuple[Action, Outcome]] = []
        self.alerts: list[str] = []
        self.passes = 0
        self.plan = Plan()

    def push(self, revision: Revision, *, touches: bool = True, descends: bool = True) -> None:
        self.head = ObservedHead("main", revision, descends=descends, touches_app=touches)

    def set_contract(self, changed: AppContract) -> None:
        self.contract = changed
        self.contracts[changed.text] = changed

    def deploy(self, revision: Revision, *, force: bool = False) -> Deploy | None:
        """Asks for a deploy as a person would; None when it is quarantined."""
        current = self.contract
        assert current is not None
        target = Target(revision, current.digest, self.secrets)
        held = [one for one in self.records.quarantine if one.covers(target)]
        if held and not force:
            return None
        left = tuple(one for one in self.records.quarantine if not one.covers(target))
        self.records = replace(self.records, quarantine=left)
        asked = self._request(WishKind.DEPLOY, target, current.text, Trigger.MANUAL)
        return self._wish(replace(asked, force=force, reason="because" if force else ""))

    def rollback(self, to: str | None = None) -> Deploy | None:
        """Asks for a rollback as a person would; None when there is nothing to go back to."""
        goal = find(self.promotions, to) if to else previous(self.promotions)
        if goal is None or goal.deploy_id == self.promotions[-1].deploy_id:
            return None
        live = self.promotions[-1].target
        same = live.revision == goal.target.revision
        self._quarantine(
            replace(
                live,
                contract_digest=live.contract_digest if same else "",
                secrets_digest=live.secrets_digest if same else "",
            )
        )
        asked = self._request(WishKind.ROLLBACK, goal.target, goal.contract, Trigger.ROLLBACK)
        return self._wish(replace(asked, rolls_back_to=goal.deploy_id), pre_empt=True)

    def cancel(self) -> None:
        running = self._running()
        if running is not None:
            self._close(running, Phase.CANCELLED, Reason.CANCELLED_BY_REQUEST)
            self._settle_wish(running.request.wish_id, WishStatus.CANCELLED, None)

    def crash(self, process: ProcessName = WEB) -> None:
        """A process of live ends by itself, now."""
        assert isinstance(self.pointer, PointsTo)
        for one in self.slots[self.pointer.slot].processes:
            if one.name == process:
                one.end_by(self.now)

    def sicken(self, behaviour: Behaviour) -> None:
        """The processes of live go on, but differently."""
        assert isinstance(self.pointer, PointsTo)
        for one in self.slots[self.pointer.slot].processes:
            one.behaviour = behaviour

    def restart_daemon(self) -> None:
        """The daemon is killed and comes back: its long work is lost, processes live on."""
        for one in self.slots.values():
            one.work.clear()
        for course in self._open():
            if course.phase in CUT_OFF:
                self._close(course, Phase.INTERRUPTED, Reason.DAEMON_STOPPED)
                self._settle_wish(course.request.wish_id, WishStatus.OPEN, None)

    def reboot(self) -> None:
        """The host goes down and comes up: files stay, no process does, time begins again."""
        number = int(self.now.boot_id.removeprefix("boot-")) + 1
        self.now = Instant(f"boot-{number}", 60_000_000)
        for one in self.slots.values():
            one.processes.clear()
            one.health = UNKNOWN_HEALTH
            one.connections_until = None
        self.restart_daemon()

    def link_by_hand(self, slot: SlotName) -> None:
        self.pointer = PointsTo(slot)

    def settle(self, *, at_most: timedelta = timedelta(minutes=5), passes: int = 1500) -> Plan:
        """Passes, and waits as a plan says, until nothing is under way; never for ever."""
        began = self.passes
        end = self.now + at_most
        hot = 0
        while True:
            plan = self.one_pass()
            hot = hot + 1 if plan.steps else 0
            assert hot < 50, f"50 passes in a row did something: {plan.steps}"
            assert self.passes - began < passes, f"no rest after {passes} passes: {plan}"
            if plan.steps:
                continue
            if self.quiet(plan) or self.now.reached(end):
                return plan
            self._wait(plan)

    def wait(self, span: timedelta) -> None:
        """Lets time go by, with the passes that fall into it."""
        end = self.now + span
        hot = 0
        while not self.now.reached(end):
            plan = self.one_pass()
            hot = hot + 1 if plan.steps else 0
            assert hot < 50, f"50 passes in a row did something: {plan.steps}"
            if not plan.steps:
                self._wait(plan, end)

    def until(self, reached: Callable[[], bool], *, passes: int = 300) -> None:
        """Passes until it is so, which is the moment at which a test steps in."""
        for _ in range(passes):
            if reached():
                return
            if not self.one_pass().steps:
                self._wait(self.plan)
        raise AssertionError(f"never reached in {passes} passes; the last plan was {self.plan}")

    def quiet(self, plan: Plan) -> bool:
        """Nothing is under way. A crash loop goes on for ever, and says so."""
        looping = any(
            one.type is ConditionType.STALLED and one.status and "CrashLoop" in one.reason
            for one in plan.conditions
        )
        busy = any(one.work for one in self.slots.values())
        wished = any(one.status is WishStatus.OPEN for one in self.wishes)
        if looping and not wished and not self._open():
            return True
        return not (plan.steps or plan.pending or busy)

    def _wait(self, plan: Plan, end: Instant | None = None) -> None:
        events = [
            moment
            for one in self.slots.values()
            for moment in (
                *(process.ends_at for process in one.processes),
                *(work.due for work in one.work.values()),
            )
            if moment is not None and not self.now.reached(moment)
        ]
        moment = earliest(self.now + AT_LEAST_EVERY, plan.wake_at, end, *events)
        assert moment is not None
        if not self.now.reached(moment):
            self.now = moment
        self._finish_work()

    def _finish_work(self) -> None:
        for one in self.slots.values():
            for kind, work in list(one.work.items()):
                if work.due is not None and self.now.reached(work.due):
                    del one.work[kind]
                    work.finish()

    @property
    def desired(self) -> DesiredApp:
        if self.removed:
            return DesiredApp(KEY, None, removed=True)
        return DesiredApp(KEY, self.contract, self.secrets, self.missing)

    def one_pass(self) -> Plan:
        self.passes += 1
        self._finish_work()
        self.plan = plan_release(self.desired, self.look(), self.now)
        wake_at = self.plan.wake_at
        if wake_at is not None and not self.plan.steps:
            assert not self.now.reached(wake_at), f"woken in the past: {self.plan}"
            assert wake_at.boot_id == self.now.boot_id
        for one in self.plan.steps:
            self.done.append(one.action)
            outcome = self.apply(one.action)
            if outcome.failed:
                self.failures.append((one.action, outcome))
                break
        self.now += MS
        return self.plan

    def look(self) -> ObservedApp:
        running = self._running()
        queued = [one for one in self._open() if one is not running]
        last_wish = self.wishes[-1] if self.wishes else None
        of_wish = [one for one in self.courses if last_wish and one.request.wish_id == last_wish.id]
        live = self._course(self.promotions[-1].deploy_id) if self.promotions else None
        records = replace(
            self.records,
            wish=last_wish,
            running=running.told if running else None,
            queued=queued[-1].told if queued else None,
            live_deploy=live.told if live else None,
            last_deploy=of_wish[-1].told if of_wish else None,
            promotions=tuple(self.promotions),
        )
        seen = ObservedApp(KEY, self.pointer, tuple(map(self._observe, SLOT_NAMES)), records)
        head = self.head
        if head and records.seen_head and records.seen_head.revision == head.revision:
            head = ObservedHead("main", head.revision)
        at = seen.live
        return replace(
            seen,
            head=None if self.removed else head,
            routed=self.routed,
            live_contract=self.contracts[at.record.contract] if at and at.record else None,
            running_contract=self.contracts[running.request.contract] if running else None,
        )

    def _observe(self, name: SlotName) -> ObservedSlot:
        one = self.slots[name]
        record = one.record
        if record is None:
            return ObservedSlot(name)
        instances = tuple(self._instance(one, record, intent) for intent in record.intents)
        up = any(process.up(self.now) for process in one.processes)
        counted = record.drain_since is not None and record.term_at is None
        open_until = one.connections_until
        talking = open_until is not None and not self.now.reached(open_until)
        return ObservedSlot(
            name,
            record,
            instances,
            vacant=not up and "prepare" not in one.work,
            busy=frozenset(one.work),
            published=one.published,
            connections=int(talking) if counted else None,
            health=one.health,
        )

    def _instance(self, one: Slot, record: SlotRecord, intent: Intent) -> ObservedInstance:
        up = not record.vacated and any(
            (each.name, each.index) == (intent.process, intent.index) and each.up(self.now)
            for each in one.processes
        )
        address = f"127.0.0.1:{intent.port}"
        return ObservedInstance(
            intent.process, intent.index, address, "", up, intent.at, None if up else 1
        )

    def live(self) -> Revision | None:
        """The revision that really answers where the pointer leads; None when nothing does."""
        if not isinstance(self.pointer, PointsTo):
            return None
        one = self.slots[self.pointer.slot]
        answers = one.record is not None and one.published and self.answers(self.pointer.slot)
        return one.record.target.revision if one.record and answers else None

    def answers(self, name: SlotName, process: ProcessName = WEB) -> bool:
        return any(
            each.name == process
            and each.up(self.now)
            and each.behaviour.healthy
            and self.now.reached(each.spawned + each.behaviour.boots_in)
            for each in self.slots[name].processes
        )

    def up_in(self, name: SlotName) -> set[ProcessName]:
        return {one.name for one in self.slots[name].processes if one.up(self.now)}

    def live_up(self) -> set[ProcessName]:
        return self.up_in(self.pointer.slot) if isinstance(self.pointer, PointsTo) else set()

    def previous_slot(self) -> SlotName | None:
        found = stand(self.desired, self.look(), self.now).previous
        return found.name if found else None

    def stalls(self) -> str:
        return next(
            (
                one.reason
                for one in self.records.conditions
                if one.type is ConditionType.STALLED and one.status
            ),
            "",
        )

    def apply(self, action: Action) -> Outcome:
        match action:
            case NoteSeen():
                self._note_seen(action)
            case NoteAbsence(passes):
                self.records = replace(self.records, absent_passes=passes)
            case MakeWish():
                self._make_wish(action)
            case AdoptLive():
                self._adopt(action)
            case RetryWish(wish, last):
                self._retry(wish, last)
            case StallWish(wish):
                self._settle_wish(wish.id, WishStatus.STALLED, None)
            case Advance():
                self._advance(action)
            case FetchRevision(deploy_id, _):
                if not self.fetches:
                    return self._tell_step(deploy_id, Reason.FETCH_FAILED)
            case PrepareSlot():
                return self._prepare(action)
            case StartInstances():
                return self._start(action)
            case RunProbe():
                self._probe(action)
            case RecordVerdict(deploy_id, verdict):
                self._course(deploy_id).verdicts.append(verdict)
            case CheckHealth():
                self._check(action)
            case PublishAddress(name):
                one = self.slots[name]
                one.published = "127.0.0.1:20000" if self.answers(name) else ""
            case BlankAddress(name):
                assert not self._serves(name), f"{name} answers and was blanked"
                self.slots[name].published = ""
            case SwitchRoute(name):
                self._switch(name)
            case RemoveRoute():
                assert self.removed or not self.promotions, "live lost its route"
                self.pointer = NoPointer()
            case ConfirmRoute(name, deploy_id, _):
                return self._confirm(name, deploy_id)
            case Promote(asked, name):
                self._promote(asked, name)
            case DrainSlot(name, since, quiet, drained):
                self._change(name, drain_since=since, quiet_since=quiet, drained=drained)
            case WarmSlot(name):
                self._change(name, drain_since=None, quiet_since=None, drained=False)
            case StopProcesses():
                self._stop_processes(action)
            case StopSlot(name, kill):
                self._stop_slot(name, kill=kill)
            case RetireSlot(name):
                if not self._observe(name).vacant:
                    return Outcome(failed=True, detail=f"{name} is not vacant")
                self._change(name, vacated=True)
            case CloseDeploy():
                self._close_deploy(action)
            case NoteConditions(conditions):
                before = self.stalls()
                self.records = replace(self.records, conditions=conditions)
                if self.stalls() and self.stalls() != before:
                    self.alerts.append(self.stalls())
            case EmptyTrash() | StartProxy() | ConfigureProxy():
                pass
            case _:
                assert_never(action)
        return DONE

    def _change(self, name: SlotName, **fields: object) -> None:
        one = self.slots[name]
        assert one.record is not None
        one.record = replace(one.record, **fields)  # type: ignore[arg-type]

    def _prepare(self, action: PrepareSlot) -> Outcome:
        name, asked = action.slot, action.deploy
        one = self.slots[name]
        assert self.pointer != PointsTo(name), "live was prepared"
        assert name in SLOT_NAMES[: action.contract.slots], f"{name} is one slot too many"
        if not self._observe(name).vacant:
            return Outcome(failed=True, detail=f"{name} is not vacant")
        if self.missing and action.contract == self.contract:
            return self._tell_step(asked.id, Reason.MISSING_SECRET)
        old = one.record
        kept = old.starts if old is not None and old.deploy_id == asked.id else ()
        stage = Stage.PREPARED if action.intact else Stage.PREPARING
        if action.intact:
            assert old is not None
            assert old.stage is Stage.PREPARED
            assert old.target.revision == asked.target.revision
        one.record = SlotRecord(
            asked.id, asked.target, asked.contract, self.now.boot_id, stage, starts=kept
        )
        one.published, one.health, one.processes = "", UNKNOWN_HEALTH, []
        if not action.intact:
            behaviour = self.behaviour(asked.target)
            due = self.now + behaviour.setup
            if behaviour.setup_hangs:
                one.work["prepare"] = Work(None, lambda: None)
            else:
                one.work["prepare"] = Work(
                    due, lambda: self._prepared(name, fails=behaviour.setup_fails)
                )
        return DONE

    def _prepared(self, name: SlotName, *, fails: bool) -> None:
        if fails:
            self._change(name, stage=Stage.FAILED, reason=Reason.SETUP_EXIT, detail="status 1")
        else:
            self._change(name, stage=Stage.PREPARED)

    def behaviour(self, target: Target) -> Behaviour:
        return self.behaviours.get(target) or self.behaviours.get(target.revision) or Behaviour()

    def _start(self, action: StartInstances) -> Outcome:
        one = self.slots[action.slot]
        record = one.record
        assert record is not None
        assert record.stage is Stage.PREPARED, "what is not prepared was started"
        assert record.target.revision == action.revision
        assert "prepare" not in one.work
        wanted = [
            (spec.name, index)
            for spec in action.contract.processes
            if spec.name in action.processes
            for index in range(spec.count)
        ]
        up = {(each.name, each.index) for each in one.processes if each.up(self.now)}
        fresh = [each for each in wanted if each not in up]
        if not fresh:
            return DONE
        one.processes = [each for each in one.processes if (each.name, each.index) not in fresh]
        for name, index in fresh:
            one.processes.append(self._spawn(record.target, name, index))
        intents = tuple(Intent(name, index, 20_000, 0, self.now) for name, index in fresh)
        others = tuple(each for each in record.intents if (each.process, each.index) not in fresh)
        starts = tuple(Start(name, self.now) for name in dict.fromkeys(name for name, _ in fresh))
        if any(name == WEB for name, _ in fresh):
            one.health = UNKNOWN_HEALTH
        self._change(
            action.slot,
            deploy_id=action.deploy_id,
            intents=(*others, *intents),
            starts=(*record.starts, *starts)[-32:],
            drain_since=None,
            quiet_since=None,
            drained=False,
            term_at=None,
            kill_at=None,
            vacated=False,
        )
        return DONE

    def _spawn(self, target: Target, name: ProcessName, index: int) -> Process:
        behaviour = self.behaviour(target)
        started = self.starts.get(target, 0)
        self.starts[target] = started + 1
        process = Process(name, index, behaviour, self.now)
        crashes = behaviour.crashes is None or started < behaviour.crashes
        if behaviour.lives is not None and crashes:
            process.ends_at = self.now + behaviour.lives
        return process

    def _web(self, name: SlotName) -> Process | None:
        return next((one for one in self.slots[name].processes if one.name == WEB), None)

    def _probe(self, action: RunProbe) -> None:
        one = self.slots[action.slot]
        if "probe" in one.work:
            return
        due = self._answered_by(action.slot, action.contract.health_timeout)

        def finish() -> None:
            verdict = self._judge(action.slot, action.verdict)
            self._course(action.deploy_id).verdicts.append(verdict)
            if action.probe == "health":
                one.health = Health(
                    verdict.passed, 0 if verdict.passed else 1, self.now, verdict.reason
                )

        one.work["probe"] = Work(due, finish)

    def _answered_by(self, name: SlotName, patience: timedelta) -> Instant:
        web = self._web(name)
        if web is None or not web.up(self.now):
            return self.now + MS
        ready = web.spawned + web.behaviour.boots_in
        answered = (self.now if self.now.reached(ready) else ready) + 10 * MS
        due = answered if web.behaviour.healthy else self.now + patience
        found = earliest(due, web.ends_at)
        assert found is not None
        return found

    def _judge(self, name: SlotName, verdict: str) -> Verdict:
        web = self._web(name)
        if web is None or not web.up(self.now):
            return Verdict(verdict, VerdictKind.PROBE, VerdictResult.FAILED, Reason.EXITED)
        if not self.answers(name):
            return Verdict(verdict, VerdictKind.PROBE, VerdictResult.FAILED, Reason.PROBE_TIMEOUT)
        return Verdict(verdict, VerdictKind.PROBE, VerdictResult.PASSED)

    def _check(self, action: CheckHealth) -> None:
        one = self.slots[action.slot]
        if "check" in one.work:
            return
        patience = action.contract.health_timeout if action.boot else timedelta(seconds=2)

        def finish() -> None:
            verdict = self._judge(action.slot, "check")
            if verdict.reason == Reason.EXITED:
                return
            threshold = action.contract.health_failures
            failures = threshold if action.boot else one.health.failures + 1
            one.health = Health(
                verdict.passed, 0 if verdict.passed else failures, self.now, verdict.reason
            )

        one.work["check"] = Work(self._answered_by(action.slot, patience), finish)

    def _serves(self, name: SlotName) -> bool:
        """Whether it is live and does what live is for."""
        live = self.pointer == PointsTo(name) and not self.removed
        return live and self.answers(name) and bool(self.slots[name].published)

    def _switch(self, name: SlotName) -> None:
        running = self._running()
        record = self.slots[name].record
        assert record is not None
        back = self.promotions and self.promotions[-1].slot == name
        if running is not None and not back:
            assert record.target.revision == running.request.target.revision
            has_web = self.contracts[running.request.contract].has_web
            proved = any(
                one.passed and one.name in ("health", "warm", "alive") for one in running.verdicts
            )
            assert proved, "the route moved to what was not proved"
            assert not has_web or self.answers(name), "the route moved to what does not answer"
        if isinstance(self.pointer, PointsTo) and self.pointer.slot != name:
            left = self.slots[self.pointer.slot]
            lingers = max((one.behaviour.lingers for one in left.processes), default=timedelta(0))
            left.connections_until = self.now + lingers
        self.pointer = PointsTo(name)

    def _confirm(self, name: SlotName, deploy_id: DeployId) -> Outcome:
        fine = self.confirms and bool(self.slots[name].published)
        result = VerdictResult.PASSED if fine else VerdictResult.FAILED
        reason = "" if fine else Reason.NOT_CONFIRMED
        self._course(deploy_id).verdicts.append(
            Verdict("confirm", VerdictKind.PROBE, result, reason)
        )
        return Outcome(failed=not fine, reason=reason)

    def _stop_processes(self, action: StopProcesses) -> None:
        name, names = action.slot, action.processes
        one = self.slots[name]
        record = one.record
        told = record is not None and record.term_at is not None
        for process in names:
            serving = self._serves(name) if process == WEB else False
            assert not serving or told, f"{process} of live answers and was stopped"
        if not action.grace:
            self._kill(name, names)
            return
        if WEB in names:
            one.health = UNKNOWN_HEALTH
        self._terminate(name, names)
        kind = f"stop {','.join(names)}"
        if kind not in one.work:
            one.work[kind] = Work(self.now + action.grace, lambda: self._kill(name, names))

    def _stop_slot(self, name: SlotName, *, kill: bool) -> None:
        one = self.slots[name]
        assert self.pointer != PointsTo(name), "live was stopped"
        if "prepare" in one.work:
            self._change(name, stage=Stage.FAILED, reason=Reason.CANCELLED_BY_REQUEST)
        one.work.clear()
        record = one.record
        assert record is not None
        everyone = tuple({each.name for each in one.processes})
        if kill:
            self._change(name, kill_at=record.kill_at or self.now)
            self._kill(name, everyone)
        else:
            self._change(name, term_at=record.term_at or self.now)
            self._terminate(name, everyone)

    def _terminate(self, name: SlotName, names: tuple[ProcessName, ...]) -> None:
        for one in self.slots[name].processes:
            if one.name in names and not one.behaviour.ignores_term and one.up(self.now):
                one.end_by(self.now + one.behaviour.ends_in)

    def _kill(self, name: SlotName, names: tuple[ProcessName, ...]) -> None:
        for one in self.slots[name].processes:
            if one.name in names and not one.behaviour.unkillable:
                one.end_by(self.now)
        if any(one.name in names and one.up(self.now) for one in self.slots[name].processes):
            self.now += timedelta(seconds=1)


def world(**document: Json) -> World:
    """Returns a world whose contract says so, with A live in deploy-a and nothing under way."""
    made = World(contract(**document) if document else PLAIN)
    made.push(A)
    made.settle()
    return made
