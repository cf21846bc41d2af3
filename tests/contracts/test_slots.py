"""The Slots port: what every driver promises, shown with real processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.model.errors import LaunchError, PortsExhaustedError, SlotBusyError
from reconciler.model.names import WEB, AppName
from reconciler.model.observed import UNKNOWN_HEALTH, Health, Stage
from reconciler.slots import DRIVERS
from tests.slots.scene import (
    APP,
    SERVE,
    SLEEP,
    WORKER,
    A,
    B,
    C,
    Export,
    Scene,
    contract,
    processes,
    some_ports,
    staged,
    until,
    until_listening,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=sorted(DRIVERS))
async def scene(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    assert request.param == "process", "a new driver needs a stage of its own"
    async with staged() as made:
        yield made


async def test_a_slot_that_was_never_used_is_vacant_and_has_no_record(scene: Scene) -> None:
    seen = await scene.slots.observe(APP, (B, A))
    assert [slot.name for slot in seen] == [B, A]
    assert all(slot.vacant and slot.record is None and not slot.instances for slot in seen)


async def test_prepare_returns_at_once_and_is_told_by_busy_until_the_record_says_how_it_ended(
    scene: Scene,
) -> None:
    gate = asyncio.Event()

    async def wait(_: object) -> None:
        await gate.wait()

    job = scene.job(export=Export(then=wait))
    await scene.slots.prepare(job)
    seen = await scene.see()
    assert seen.busy == {"prepare"}
    assert not seen.vacant
    assert seen.record is not None
    assert seen.record.stage is Stage.PREPARING
    gate.set()
    await scene.slots.settle()
    seen = await scene.see()
    assert not seen.busy
    assert seen.vacant
    assert seen.record is not None
    assert (seen.record.stage, seen.record.deploy_id) == (Stage.PREPARED, job.deploy_id)
    assert seen.record.target == job.target
    assert seen.record.contract == job.contract.text


async def test_a_slot_with_a_process_is_refused_and_left_untouched(scene: Scene) -> None:
    await scene.run(scene.job())
    marker = scene.worktree() / "marker"
    marker.touch()
    with pytest.raises(SlotBusyError, match="still has"):
        await scene.slots.prepare(scene.job())
    assert marker.exists()


async def test_a_slot_that_is_being_prepared_is_refused(scene: Scene) -> None:
    async def for_ever(_: object) -> None:
        await asyncio.Event().wait()

    await scene.slots.prepare(scene.job(export=Export(then=for_ever)))
    with pytest.raises(SlotBusyError):
        await scene.slots.prepare(scene.job())
    with pytest.raises(SlotBusyError):
        await scene.slots.start(scene.launch(scene.job()))
    await scene.slots.terminate(APP, A)
    await scene.slots.settle()


async def test_start_gives_each_process_a_port_and_records_the_intent(scene: Scene) -> None:
    made = contract(
        processes=tuple(
            replace(spec, count=2) if spec.name == WORKER else spec
            for spec in processes(web=SLEEP, worker=SLEEP)
        ),
        internal_port=9000,
    )
    seen = await scene.run(scene.job(made=made))
    web, *workers = seen.instances
    assert (web.process, web.index, web.up, web.exit_status) == (WEB, 0, True, None)
    assert [(one.process, one.index, one.up) for one in workers] == [
        (WORKER, 0, True),
        (WORKER, 1, True),
    ]
    addresses = [one.address for one in seen.instances] + [web.internal_address]
    assert len(set(addresses)) == 4
    assert not any(one.internal_address for one in workers)
    assert not seen.vacant
    assert seen.record is not None
    assert seen.record.started(WEB) == web.since


async def test_starting_twice_starts_once(scene: Scene) -> None:
    job = scene.job()
    first = (await scene.run(job)).instances[0]
    await scene.start(job)
    await scene.start(job, restart=True)
    assert (await scene.see()).instances == (first,)


async def test_nothing_starts_in_a_slot_that_is_not_prepared(scene: Scene) -> None:
    with pytest.raises(LaunchError, match="not prepared"):
        await scene.start(scene.job())
    failed = scene.job(made=contract(setup_command="exit 3"))
    await scene.prepare(failed)
    with pytest.raises(LaunchError, match="not prepared"):
        await scene.start(failed)
    with pytest.raises(LaunchError):
        scene.instance()


async def test_an_instance_tells_its_listener_and_its_end(scene: Scene) -> None:
    await scene.run(scene.job(made=contract(f"{SERVE}; exit")))
    instance = scene.instance()
    await until_listening(instance)
    listener = await instance.listener()
    assert listener.ours
    assert listener.address == instance.address
    assert not await instance.exited()
    ended = asyncio.create_task(instance.wait_exit())
    await scene.slots.terminate(APP, A)
    await asyncio.wait_for(ended, 5)
    assert await instance.exited()
    assert instance.exit_status == -15


async def test_publish_writes_the_real_address_and_blank_empties_it(scene: Scene) -> None:
    await scene.run(scene.job(made=contract(SERVE)))
    assert await scene.slots.publish(APP, A) in ("", scene.instance().address)
    await until_listening(scene.instance())
    address = await scene.slots.publish(APP, A)
    assert address == scene.instance().address
    assert (await scene.see()).published == address
    assert (scene.app_dir / "slots" / "deploy-a.addr" / "web").read_text() == f"{address}\n"
    await scene.slots.blank(APP, A)
    assert (await scene.see()).published == ""


async def test_an_address_nobody_of_the_slot_listens_on_is_published_empty(scene: Scene) -> None:
    await scene.run(scene.job())
    assert await scene.slots.publish(APP, A) == ""
    assert (await scene.see()).published == ""


async def test_a_drain_counts_connections_until_sigterm_was_sent(scene: Scene) -> None:
    await scene.run(scene.job(made=contract(SERVE)))
    await until_listening(scene.instance())
    assert (await scene.see()).connections is None
    now = scene.clock.now()
    await scene.slots.note_drain(APP, A, since=now, quiet_since=None, drained=False)
    assert (await scene.see()).connections == 0
    host, _, port = scene.instance().address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    seen = await scene.see()
    assert seen.connections == 1
    assert seen.record is not None
    assert seen.record.drain_since == now
    writer.close()
    await scene.slots.note_drain(APP, A, since=None, quiet_since=None, drained=False)
    assert (await scene.see()).connections is None


async def test_terminate_is_recorded_once_and_ends_everything(scene: Scene) -> None:
    before = await scene.run(scene.job())
    await scene.slots.terminate(APP, A)
    first = await scene.see()
    assert first.record is not None
    assert first.record.term_at is not None
    assert first.record.cold
    await scene.slots.terminate(APP, A)
    assert (await scene.see()).record == first.record
    await until(lambda: not _alive(before.instances[0].pid))
    assert (await scene.see()).vacant


async def test_one_process_can_be_stopped_and_the_slot_stays_warm(scene: Scene) -> None:
    made = contract(processes=processes(web=SLEEP, worker=SLEEP))
    before = await scene.run(scene.job(made=made))
    await scene.slots.terminate(APP, A, (WORKER,))
    worker = before.instance(WORKER)
    await until(lambda: worker is not None and not _alive(worker.pid))
    seen = await scene.see()
    assert seen.record is not None
    assert seen.record.term_at is None
    assert [one.up for one in seen.instances] == [True, False]
    await scene.slots.kill(APP, A, (WEB,))
    assert (await scene.see()).vacant


async def test_kill_leaves_nothing_and_retire_records_it(scene: Scene) -> None:
    job = scene.job(made=contract("trap '' TERM; sleep 300 & sleep 300 & wait; wait; wait"))
    await scene.run(job)
    await scene.slots.terminate(APP, A)
    assert not (await scene.see()).vacant
    with pytest.raises(SlotBusyError):
        await scene.slots.retire(APP, A)
    await scene.slots.kill(APP, A)
    await scene.slots.retire(APP, A)
    await scene.slots.retire(APP, A)
    seen = await scene.see()
    assert seen.vacant
    assert seen.record is not None
    assert seen.record.vacated
    assert seen.instances[0].exit_status == -9


async def test_a_restart_keeps_its_port_and_is_counted(scene: Scene) -> None:
    job = scene.job()
    before = (await scene.run(job)).instances[0]
    await scene.slots.note_health(APP, A, Health(ok=True, failures=0, checked_at=scene.clock.now()))
    await scene.slots.kill(APP, A, (WEB,))
    await scene.start(job, restart=True)
    seen = await scene.see()
    after = seen.instances[0]
    assert after.up
    assert after.address == before.address
    assert after.pid != before.pid
    assert seen.record is not None
    assert len(seen.record.starts) == 2
    assert seen.health == UNKNOWN_HEALTH


async def test_health_is_noted_for_one_deploy_only(scene: Scene) -> None:
    await scene.run(scene.job())
    found = Health(ok=False, failures=2, checked_at=scene.clock.now(), reason="bad-status")
    await scene.slots.note_health(APP, A, found)
    assert (await scene.see()).health == found
    await scene.end()
    assert (await scene.prepare(scene.job())).health == UNKNOWN_HEALTH


async def test_a_slot_at_its_target_is_made_new_without_touching_its_files(scene: Scene) -> None:
    await scene.run(scene.job())
    await scene.end()
    (scene.worktree() / "built").touch()
    job = scene.job(intact=True)
    seen = await scene.prepare(job)
    assert seen.record is not None
    assert seen.record.stage is Stage.PREPARED
    assert seen.record.deploy_id == job.deploy_id
    assert seen.record.intents == ()
    assert (scene.worktree() / "built").exists()
    await scene.start(job)
    assert (await scene.see()).instances[0].up


async def test_a_failed_setup_is_recorded_with_its_output(scene: Scene) -> None:
    job = scene.job(made=contract(setup_command="echo building; echo broken >&2; exit 3"))
    seen = await scene.prepare(job)
    assert seen.record is not None
    assert (seen.record.stage, seen.record.reason) == (Stage.FAILED, "setup-exit")
    assert "status 3" in seen.record.detail
    assert await scene.slots.log_tail(APP, job.deploy_id, 50) == "building\nbroken"


async def test_the_end_of_work_and_of_instances_wakes(scene: Scene) -> None:
    woken: list[AppName] = []
    scene.slots.on_change(woken.append)
    job = scene.job(made=contract("exit 7"))
    await scene.prepare(job)
    assert woken == [APP]
    await scene.start(job)
    await until(lambda: len(woken) == 2)
    assert (await scene.see()).instances[0].exit_status == 7


async def test_apps_are_those_with_a_record(scene: Scene) -> None:
    assert await scene.slots.apps() == ()
    await scene.prepare(scene.job())
    assert await scene.slots.apps() == (APP,)


async def test_no_port_left_is_refused_by_name(scene: Scene) -> None:
    scene.slots = scene.open(port_range=some_ports(1))
    await scene.run(scene.job(A))
    job = scene.job(B)
    await scene.prepare(job)
    with pytest.raises(PortsExhaustedError, match="--port-range"):
        await scene.start(job)
    seen = await scene.see(B)
    assert seen.record is not None
    assert seen.record.intents == ()


async def test_three_slots_are_independent(scene: Scene) -> None:
    for slot in (A, B, C):
        await scene.run(scene.job(slot))
    await scene.end(B)
    seen = await scene.slots.observe(APP, (A, B, C))
    assert [slot.vacant for slot in seen] == [False, True, False]


async def test_free_bytes_are_those_of_the_data_directory(scene: Scene) -> None:
    assert 0 < await scene.slots.free_bytes() <= os.statvfs(scene.data).f_blocks * 4096 * 1024


async def test_a_preparation_is_stopped_by_terminate(scene: Scene) -> None:
    made = contract(setup_command="sleep 300", setup_timeout=timedelta(minutes=5))
    job = scene.job(made=made)
    await scene.slots.prepare(job)
    await until(lambda: scene.log(job, "setup").exists())
    await scene.slots.terminate(APP, A)
    await asyncio.wait_for(scene.slots.settle(), 5)
    seen = await scene.see()
    assert seen.vacant
    assert seen.record is not None
    assert (seen.record.stage, seen.record.reason) == (Stage.FAILED, "cancelled-by-request")


def _alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
