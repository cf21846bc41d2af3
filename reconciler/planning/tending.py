"""Tending: what keeps the live slot serving. Touches live only, and never moves the route."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from reconciler.model.actions import (
    BlankAddress,
    CheckHealth,
    PublishAddress,
    StartInstances,
    StopProcesses,
    WarmSlot,
)
from reconciler.model.deploys import Phase
from reconciler.model.desired import AppContract
from reconciler.model.instants import Instant
from reconciler.model.names import WEB, ProcessName
from reconciler.model.observed import ObservedSlot, SlotRecord
from reconciler.planning.candidate import GRACE
from reconciler.planning.draft import Draft
from reconciler.planning.standing import Standing, stopping

# Restarts close together: the first is at once, then the pause doubles.
CRASH_WINDOW = timedelta(minutes=10)
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=1)
AFTER_A_FAILURE = timedelta(seconds=1)
LOOP_IN_BAKE = 3
LOOP = 5


def tend_live(standing: Standing, draft: Draft) -> None:
    """Restarts what died, with back-off; watches health; keeps the address true."""
    live, contract = standing.live, standing.seen.live_contract
    if live is None or live.record is None or contract is None or standing.policy is None:
        return
    if (
        standing.running
        and standing.running.phase is Phase.SWITCHING
        and live is standing.candidate
    ):
        # The switch is not confirmed: its processes that take work must not start yet.
        return
    if live.record.term_at is None and (live.record.drain_since or live.record.drained):
        draft.do(WarmSlot(live.name), "live does not drain: the route leads to it")
    _tell_loops(live, live.record, contract, draft)
    if contract.has_web:
        _tend_web(standing, live, live.record, contract, draft)
    down = [
        process.name
        for process in contract.processes
        if process.name != WEB and not _all_up(live, process.name, process.count)
    ]
    _restart_others(standing, live, live.record, contract, down, draft)


def _tend_web(
    standing: Standing,
    live: ObservedSlot,
    record: SlotRecord,
    contract: AppContract,
    draft: Draft,
) -> None:
    policy = standing.policy or contract
    web = live.instance(WEB)
    if web is None or not web.up:
        if live.published:
            draft.do(BlankAddress(live.name), "live is down: no stranger may get its requests")
        _restart(standing, live, record, contract, (WEB,), draft)
        return
    if record.term_at is not None and record.term_at.boot_id == draft.now.boot_id:
        _await_stop(live, record.term_at, (WEB,), policy, draft)
        return
    if WEB in stopping(live):
        draft.wait("live is stopping; it starts again when it has")
        return
    if live.health.ok is None:
        if "check" in live.busy:
            draft.wait("live is being asked whether it is healthy")
        else:
            draft.do(CheckHealth(live.name, contract, boot=True), "live started: is it healthy?")
        return
    if live.health.failures >= policy.health_failures:
        _unhealthy(standing, live, policy, draft)
        return
    if live.health.ok and not live.published:
        draft.do(PublishAddress(live.name), "live answers, so its address is given out")
    _watch(standing, live, contract, policy, draft)


def _watch(
    standing: Standing,
    live: ObservedSlot,
    contract: AppContract,
    policy: AppContract,
    draft: Draft,
) -> None:
    if "check" in live.busy:
        return
    checked = live.health.checked_at
    due = None
    if checked is not None and checked.boot_id == draft.now.boot_id:
        due = checked + _pause_between_checks(standing, live, policy)
    if due is None or draft.now.reached(due):
        draft.do(CheckHealth(live.name, contract), "time to ask live whether it is healthy")
    else:
        draft.look_at(due)


def _pause_between_checks(standing: Standing, live: ObservedSlot, policy: AppContract) -> timedelta:
    """In the bake so many checks must fit that all of them could fail; a failure is looked into
    soon."""
    pause = policy.health_interval
    if standing.baking_until() is not None:
        pause = min(pause, policy.bake / (2 * policy.health_failures))
    return min(pause, AFTER_A_FAILURE) if live.health.failures else pause


def _unhealthy(standing: Standing, live: ObservedSlot, policy: AppContract, draft: Draft) -> None:
    told = live.health.reason or "the health endpoint fails"
    if policy.on_unhealthy == "alert" or policy.restart == "no":
        draft.stall(
            "Unhealthy", f"live fails its health check ({told}), and its contract leaves it so"
        )
        _watch(standing, live, standing.seen.live_contract or policy, policy, draft)
        return
    draft.do(BlankAddress(live.name), f"live is unhealthy: {told}")
    draft.do(
        StopProcesses(live.name, (WEB,), grace=timedelta(milliseconds=500)),
        f"live failed {live.health.failures} health checks in a row and is restarted: {told}",
    )


def _restart_others(
    standing: Standing,
    live: ObservedSlot,
    record: SlotRecord,
    contract: AppContract,
    down: list[ProcessName],
    draft: Draft,
) -> None:
    up = tuple(dict.fromkeys(one.process for one in live.instances if one.up))
    told = record.term_at if not contract.has_web else None
    if told is not None and told.boot_id == draft.now.boot_id and up:
        _await_stop(live, told, up, standing.policy or contract, draft)
    elif down:
        _restart(standing, live, record, contract, down, draft)


def _await_stop(
    live: ObservedSlot,
    term_at: Instant,
    names: tuple[ProcessName, ...],
    policy: AppContract,
    draft: Draft,
) -> None:
    """Live was told to stop by an end of the daemon that was cut short: it may take its time once,
    then it is killed, so that it can start again."""
    deadline = term_at + max(GRACE, policy.drain_timeout)
    if draft.now.reached(deadline):
        draft.do(
            StopProcesses(live.name, names, grace=timedelta(0)),
            "live was told to stop and did not; it starts again when it has",
        )
    else:
        draft.wait("live was told to stop; it starts again when it has", deadline)


def _tell_loops(
    live: ObservedSlot, record: SlotRecord, contract: AppContract, draft: Draft
) -> None:
    """A loop lasts until the process has outlived its pause: between two ends it is only up."""
    for process in contract.processes:
        starts = _starts(record, process.name, draft.now)
        if len(starts) < LOOP:
            continue
        outlived = starts[-1] + restart_pause(len(starts))
        if _all_up(live, process.name, process.count):
            if draft.now.reached(outlived):
                continue
            draft.look_at(outlived)
        draft.stall(
            "CrashLoop",
            f"{process.name} was started {LOOP} times or more within 10 minutes and ended each "
            "time; see `autopilot logs`, then deploy a fix or roll back",
        )


def _restart(
    standing: Standing,
    live: ObservedSlot,
    record: SlotRecord,
    contract: AppContract,
    down: Iterable[ProcessName],
    draft: Draft,
) -> None:
    policy = standing.policy or contract
    for name in down:
        started = _starts(record, name, draft.now)
        if started and policy.restart == "no":
            draft.stall("Exited", f"{name} ended, and `restart: no` leaves it so")
            continue
        if name in stopping(live):
            draft.wait(f"{name} is stopping; it starts again when it has")
            continue
        due = started[-1] + restart_pause(len(started)) if started else None
        if due is not None and not draft.now.reached(due):
            draft.wait(f"{name} is started again after a pause", due)
            continue
        if not any(one.up for one in live.instances if one.process == name):
            draft.do(
                StopProcesses(live.name, (name,), grace=timedelta(0)),
                f"nothing of the {name} that ended may hold its port",
            )
        draft.do(
            StartInstances(
                live.name, record.deploy_id, record.target.revision, contract, (name,), restart=True
            ),
            f"{name} of live is down" if started else f"{name} of live is not running yet",
        )


def _starts(record: SlotRecord, name: ProcessName, now: Instant) -> list[Instant]:
    """Starts of that process in this boot, within the window, oldest first."""
    return [
        start.at
        for start in record.starts
        if start.process == name
        and start.at.boot_id == now.boot_id
        and now.since(start.at) <= CRASH_WINDOW
    ]


def restart_pause(starts: int) -> timedelta:
    """Returns how long after the last of so many starts the next one may come."""
    if starts <= 1:
        return timedelta(0)
    return min(FIRST_PAUSE * (1 << (starts - 2)), LONGEST_PAUSE)


def crash_loop(standing: Standing) -> ProcessName | None:
    """Returns the live process that has ended so often since promotion that the bake fails."""
    live, contract = standing.live, standing.seen.live_contract
    if live is None or live.record is None or contract is None:
        return None
    for process in contract.processes:
        starts = _starts(live.record, process.name, standing.now)
        down = not _all_up(live, process.name, process.count)
        if down and (len(starts) >= LOOP_IN_BAKE or (starts and contract.restart == "no")):
            return process.name
    return None


def _all_up(slot: ObservedSlot, name: ProcessName, count: int) -> bool:
    return sum(1 for one in slot.instances if one.process == name and one.up) >= count
