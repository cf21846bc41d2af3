"""Shutdown: what becomes of apps and proxy when the daemon is told to end."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import structlog

from reconciler.engine.apply import progress
from reconciler.engine.effects import Effects, recorded_contract
from reconciler.engine.loop import CUT_OFF
from reconciler.model.deploys import Phase, Reason
from reconciler.model.errors import ReconcilerError
from reconciler.model.names import SLOT_NAMES, AppName, DeployId
from reconciler.model.observed import ObservedSlot, PointsTo

log = structlog.get_logger()

LOOK_EVERY = timedelta(milliseconds=20)
KILL_AFTER = timedelta(milliseconds=500)
REAP_WITHIN = timedelta(seconds=5)


async def interrupt(effects: Effects) -> None:
    """Closes running deploys as interrupted and stops their candidates; their wishes stay."""
    step = progress(
        effects, Phase.INTERRUPTED, reason=Reason.DAEMON_STOPPED, detail="the daemon was stopped"
    )
    cut_off = await effects.store.interrupt_open(step, CUT_OFF)
    for app in await effects.slots.apps():
        with _by_itself(app):
            await _kill_candidate(app, cut_off, effects)


async def _kill_candidate(app: AppName, cut_off: Container[DeployId], effects: Effects) -> None:
    for slot in await effects.slots.observe(app, SLOT_NAMES):
        if slot.record and slot.record.deploy_id in cut_off and not slot.vacant:
            await effects.slots.kill(app, slot.name)


@contextmanager
def _by_itself(app: AppName) -> Iterator[None]:
    """What stands in the way of one app's end is told, and does not keep the others from theirs."""
    try:
        yield
    except ReconcilerError as error:
        log.error("shutdown", app=app, problem=str(error))


async def stop_everything(effects: Effects, *, hurry: asyncio.Event) -> None:
    """Stops proxy and apps: in-flight requests end first, unless somebody is in a hurry."""
    proxy = asyncio.create_task(effects.proxy.stop())
    rushed = asyncio.create_task(hurry.wait())
    await asyncio.wait((proxy, rushed), return_when=asyncio.FIRST_COMPLETED)
    rushed.cancel()
    apps = await effects.slots.apps()
    await asyncio.gather(*(_stop_app(app, effects, hurry) for app in apps))
    try:
        await proxy
    except ReconcilerError as error:
        log.error("proxy", problem=str(error))


async def _stop_app(app: AppName, effects: Effects, hurry: asyncio.Event) -> None:
    with _by_itself(app):
        await _end_app(app, effects, hurry)


async def _end_app(app: AppName, effects: Effects, hurry: asyncio.Event) -> None:
    occupied = await _occupied(app, effects)
    for slot in occupied:
        await effects.slots.blank(app, slot.name)
        await effects.slots.terminate(app, slot.name)
    began = effects.clock.now()
    patience = await _patience(app, occupied, effects)
    while occupied and effects.clock.now().since(began) < patience and not hurry.is_set():
        await effects.clock.sleep(LOOK_EVERY)
        occupied = await _occupied(app, effects)
    for slot in occupied:
        await effects.slots.kill(app, slot.name)
    began = effects.clock.now()
    while occupied and effects.clock.now().since(began) < REAP_WITHIN:
        occupied = await _occupied(app, effects)
        await effects.clock.sleep(LOOK_EVERY)
    for slot in await effects.slots.observe(app, SLOT_NAMES):
        if slot.record is not None and slot.vacant:
            await effects.slots.retire(app, slot.name)


async def _occupied(app: AppName, effects: Effects) -> list[ObservedSlot]:
    seen = await effects.slots.observe(app, SLOT_NAMES)
    return [slot for slot in seen if slot.record is not None and not slot.vacant]


async def _patience(app: AppName, slots: Iterable[ObservedSlot], effects: Effects) -> timedelta:
    """Live may finish within its drain; what serves nobody is given half a second."""
    pointer = await effects.proxy.pointer(app)
    for slot in slots:
        if pointer == PointsTo(slot.name) and slot.record is not None:
            return recorded_contract(slot.record.contract).drain_timeout
    return KILL_AFTER
