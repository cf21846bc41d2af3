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
)
from reconciler.model.desired import AppContract
from reconciler.model.instants import Instant
from reconciler.model.names import WEB, ProcessName
from reconciler.model.observed import ObservedSlot, SlotRecord
from reconciler.planning.draft import Draft
from reconciler.planning.standing import Standing

# Restarts close together: the first is at once, then the pause doubles.
CRASH_WINDOW = timedelta(minutes=10)
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=1)
LOOP_IN_BAKE = 3
LOOP = 5
SOON = timedelta(milliseconds=20)


def tend_live(standing: Standing, draft: Draft) -> None:
    """Restarts what died, with back-off; watches health; keeps the address true."""
    live, contract = standing.live, standing.seen.live_contract
    if live is None or live.record is None or contract is None or standing.policy is None:
        return
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
        draft.wait("live was told to stop; it starts again when it has", draft.now + SOON)
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
    _watch(live, contract, policy, draft)


def _watch(live: ObservedSlot, contract: AppContract, policy: AppContract, draft: Draft) -> None:
    if "check" in live.busy:
        return
    checked = live.health.checked_at
    due = None
    if checked is not None and checked.boot_id == draft.now.boot_id:
        due = checked + policy.health_interval
    if due is None or draft.now.reached(due):
        draft.do(CheckHealth(live.name, contract), "time to ask live whether it is healthy")
    else:
        draft.look_at(due)


def _unhealthy(standing: Standing, live: ObservedSlot, policy: AppContract, draft: Draft) -> None:
    told = live.health.reason or "the health endpoint fails"
    if policy.on_unhealthy == "alert":
        draft.stall("Unhealthy", f"live fails its health check ({told}); on_unhealthy is alert")
        _watch(live, standing.seen.live_contract or policy, policy, draft)
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
    if down and (record.term_at is None or live.vacant or contract.has_web):
        _restart(standing, live, record, contract, down, draft)


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
        count = len(started)
        if count >= LOOP:
            draft.stall(
                "CrashLoop",
                f"{name} was started {count} times within 10 minutes and ended each time; "
                "see `autopilot logs`, then deploy a fix or roll back",
            )
        due = started[-1] + restart_pause(count) if started else None
        if due is not None and not draft.now.reached(due):
            draft.wait(f"{name} is started again after a pause", due)
            continue
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
