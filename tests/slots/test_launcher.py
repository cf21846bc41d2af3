"""The launcher: limits, the record it writes, and what it leaves to the app."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from reconciler.host.boot import boot_id
from reconciler.host.processes import own_cgroup, read_stat
from reconciler.model.desired import Limits
from reconciler.model.errors import LaunchError
from reconciler.model.observed import Stage
from reconciler.slots.cgroups import Cgroups
from tests.slots.scene import APP, NOBODY, A, Scene, contract, until

pytestmark = pytest.mark.anyio


async def test_the_record_is_of_the_process_itself(scene: Scene) -> None:
    seen = await scene.run(scene.job())
    pid = seen.instances[0].pid
    note = scene.app_dir / "slots" / "deploy-a.run" / "web.0"
    stat = read_stat(pid or 0)
    assert stat is not None
    assert note.read_text().split() == [str(pid), str(stat.started), boot_id()]
    assert stat.session == stat.group == pid
    assert not note.with_name("web.0.tmp").exists()


async def test_the_app_reads_nothing_and_keeps_no_descriptor_of_ours(scene: Scene) -> None:
    made = contract("ls -l /proc/self/fd > fds; cat > read; umask > mask; exec sleep 300")
    await scene.run(scene.job(made=made))
    mask = scene.worktree() / "mask"
    await until(lambda: mask.exists() and mask.read_text())
    descriptors = (scene.worktree() / "fds").read_text()
    assert "memfd" not in descriptors
    assert "0 -> /dev/null" in descriptors
    assert (scene.worktree() / "read").read_text() == ""
    assert mask.read_text().strip() == "0022"


async def test_open_files_are_limited(scene: Scene) -> None:
    limited = contract("ulimit -n > files; exec sleep 300", limits=Limits(open_files=123))
    await scene.run(scene.job(made=limited))
    files = scene.worktree() / "files"
    await until(lambda: files.exists() and files.read_text())
    assert files.read_text().strip() == "123"
    assert scene.slots.unenforced(limited) == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run as another user")
async def test_processes_are_limited_for_an_app_with_a_user_of_its_own(scene: Scene) -> None:
    limited = contract(
        "cat /proc/self/limits > l; exec sleep 300", user=NOBODY, limits=Limits(processes=77)
    )
    await scene.run(scene.job(made=limited))
    found = scene.worktree() / "l"
    await until(lambda: found.exists() and "Max processes" in found.read_text())
    if not scene.slots.unenforced(limited) and "pids" not in _controllers(scene):
        line = next(one for one in found.read_text().split("\n") if one.startswith("Max processes"))
        assert line.split()[2] == "77"


def _controllers(scene: Scene) -> frozenset[str]:
    groups = Cgroups(scene.data / "probe", own_cgroup())
    groups.close()
    return groups.controllers


def test_limits_that_do_not_hold_are_named(scene_sync: Scene) -> None:
    wanted = contract(limits=Limits(memory_mb=64, cpu=0.5, processes=10, open_files=100))
    names = {"memory": "limits.memory_mb", "cpu": "limits.cpu", "pids": "limits.processes"}
    controllers = _controllers(scene_sync)
    expected = {name for controller, name in names.items() if controller not in controllers}
    assert set(scene_sync.slots.unenforced(wanted)) == expected
    assert scene_sync.slots.unenforced(contract()) == ()


def test_no_address_space_limit_stands_in_for_memory(scene_sync: Scene) -> None:
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    assert "ulimit -v" not in Path("reconciler/slots/launcher.sh").read_text(encoding="utf-8")
    assert scene_sync.slots.unenforced(contract()) == ()


async def test_a_record_that_cannot_be_written_starts_nothing(scene: Scene) -> None:
    """An app that nobody knows of would be an orphan from the start."""
    job = scene.job(made=contract("touch started; exec sleep 300"))
    await scene.prepare(job)
    (scene.app_dir / "slots" / "deploy-a.run" / "web.0.tmp").mkdir()
    await scene.start(job)
    await scene.instance().wait_exit()
    assert scene.instance().exit_status == 126
    assert not (scene.worktree() / "started").exists()
    assert "cannot record" in await scene.slots.log_tail(APP, job.deploy_id, 5)


async def test_a_directory_that_is_missing_is_told_in_the_log(scene: Scene) -> None:
    job = scene.job(made=contract(path="not/there"))
    seen = await scene.prepare(job)
    assert seen.record is not None
    assert seen.record.stage is Stage.PREPARED
    await scene.start(job)
    await scene.instance().wait_exit()
    assert scene.instance().exit_status not in (0, None)
    assert "not/there" in await scene.slots.log_tail(APP, job.deploy_id, 5)


async def test_a_value_that_cannot_be_exported_fails_before_the_spawn(scene: Scene) -> None:
    job = scene.job(environment={"not-a-name": "x"})
    await scene.prepare(job)
    with pytest.raises(LaunchError, match="not-a-name"):
        await scene.start(job)
    assert (await scene.see()).vacant
    await scene.end(A)
