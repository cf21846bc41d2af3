"""Adoption: a daemon that comes back finds what the last one started, and never starts it twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from reconciler.host.boot import SystemClock
from reconciler.host.processes import read_stat
from reconciler.model.errors import ReconcilerError
from reconciler.model.names import WEB
from reconciler.model.observed import UNKNOWN_HEALTH, Health, Stage
from reconciler.slots.ports import lock_path
from tests.slots.scene import APP, SERVE, A, Scene, contract, until, until_listening

pytestmark = pytest.mark.anyio


async def test_the_next_daemon_sees_the_same_instances_and_notices_their_end(scene: Scene) -> None:
    before = await scene.run(scene.job(made=contract(SERVE)))
    await scene.slots.close()
    scene.slots = scene.open()
    after = await scene.see()
    assert after.instances == before.instances
    assert not after.vacant
    await until_listening(scene.instance())
    woken: list[str] = []
    scene.slots.on_change(woken.append)
    pid = after.instances[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: woken)
    ended = (await scene.see()).instances[0]
    assert not ended.up
    assert ended.exit_status is None
    assert scene.instance().exit_status is None


async def test_an_adopted_instance_is_left_alone_by_a_restart(scene: Scene) -> None:
    job = scene.job()
    before = await scene.run(job)
    await scene.slots.close()
    scene.slots = scene.open()
    await scene.start(job, restart=True)
    assert (await scene.see()).instances[0].pid == before.instances[0].pid


async def test_the_ports_of_adopted_instances_are_locked_again(scene: Scene) -> None:
    port = int((await scene.run(scene.job())).instances[0].address.rpartition(":")[2])
    await scene.slots.close()
    scene.slots = scene.open()
    await scene.see()
    assert str(scene.data) in _holder(port)


def _holder(port: int) -> str:
    from reconciler.host.locks import FileLock  # noqa: PLC0415 (one look)

    return FileLock(lock_path(port)).holder()


async def test_a_daemon_killed_between_spawn_and_record_leaves_no_orphan(scene: Scene) -> None:
    """The launcher is held up where it records itself, and the daemon dies right there."""
    job = scene.job(made=contract(SERVE))
    await scene.prepare(job)
    run = scene.app_dir / "slots" / "deploy-a.run"
    os.mkfifo(run / "web.0.tmp")
    await scene.start(job)
    await scene.slots.close()
    scene.slots = scene.open()
    assert not (run / "web.0").exists()
    seen = await scene.see()
    assert seen.instances[0].up
    assert not seen.vacant
    pid = seen.instances[0].pid
    await scene.start(job, restart=True)
    assert (await scene.see()).instances[0].pid == pid
    await scene.slots.kill(APP, A)
    assert (await scene.see()).vacant


async def test_a_daemon_that_is_killed_right_after_the_spawn_is_adopted_from(scene: Scene) -> None:
    """The same with a real SIGKILL to a process of its own, at whatever moment it strikes."""
    job = scene.job(made=contract(SERVE))
    await scene.prepare(job)
    await scene.slots.close()
    script = Path(__file__).with_name("dying_daemon.py")
    argv = [sys.executable, str(script), str(scene.data), job.deploy_id]
    repository = Path(__file__).parents[2]
    died = await asyncio.to_thread(
        subprocess.run, argv, check=False, cwd=repository, env={"PYTHONPATH": str(repository)}
    )
    assert died.returncode == -signal.SIGKILL
    scene.slots = scene.open()
    assert (await scene.see()).instances[0].up
    await until_listening(scene.instance())
    await scene.start(job, restart=True)
    seen = await scene.see()
    assert seen.record is not None
    assert len(seen.record.starts) == 1


async def test_the_same_pid_of_another_boot_is_nobodys(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reboot the id and even the start time can be those of another program."""
    seen = await scene.run(scene.job())
    await scene.slots.note_health(APP, A, Health(ok=True, failures=0, checked_at=scene.clock.now()))
    pid = seen.instances[0].pid
    assert pid is not None
    monkeypatch.setenv("AUTOPILOT_BOOT_ID", "the-next-boot")
    rebooted = scene.open(clock=SystemClock())
    after = await scene.see(slots=rebooted)
    assert not after.instances[0].up
    assert after.health == UNKNOWN_HEALTH
    stat = read_stat(pid)
    assert stat is not None
    assert stat.alive
    monkeypatch.delenv("AUTOPILOT_BOOT_ID")
    await scene.end()


async def test_a_slot_of_another_boot_is_checked_in_full(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.prepare(scene.job())
    monkeypatch.setenv("AUTOPILOT_BOOT_ID", "the-next-boot")
    rebooted = scene.open(clock=SystemClock())
    assert (await scene.see(slots=rebooted)).vacant
    job = scene.job()
    await rebooted.prepare(job)
    await rebooted.settle()
    assert job.export is not None
    assert job.export.trees[-1].full  # type: ignore[attr-defined]


async def test_a_daemon_that_ends_in_a_preparation_leaves_the_slot_dirty(scene: Scene) -> None:
    job = scene.job(made=contract(setup_command="sleep 300"))
    await scene.slots.prepare(job)
    await until(lambda: scene.log(job, "setup").exists())
    await scene.slots.close()
    scene.slots = scene.open()
    seen = await scene.see()
    assert seen.record is not None
    assert seen.record.stage is Stage.PREPARING
    assert not seen.busy
    assert seen.vacant


async def test_a_record_that_cannot_be_read_stops_everything_of_its_app(scene: Scene) -> None:
    await scene.run(scene.job())
    path = scene.app_dir / "slots" / "deploy-a.json"
    good = path.read_bytes()
    path.write_bytes(good[:40])

    async def known(ids: Sequence[str]) -> frozenset[str]:
        return frozenset(ids) & frozenset(scene.deploys)

    with pytest.raises(ReconcilerError, match=r"deploy-a\.json"):
        await scene.see()
    assert await scene.slots.sweep(known) == 0
    path.write_bytes(good)
    instance = (await scene.see()).instance(WEB)
    assert instance is not None
    assert instance.up
