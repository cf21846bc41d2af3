"""Which processes belong to a slot, shown on processes that do what apps do."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from reconciler.host.processes import ProcessStat, is_alive, read_stat
from reconciler.model.names import WEB, DeployId
from reconciler.slots.membership import Belonging, Leader, Seen, members, scan
from tests.slots.scene import APP, PYTHON, WORKER, A, Scene, contract, cookies, processes, until

pytestmark = pytest.mark.anyio

DEPLOY = DeployId("d-1")


async def test_a_shell_that_dies_leaves_its_slot_occupied_while_the_app_runs(scene: Scene) -> None:
    """The pid of an instance is that of sh: the app behind it may drain for seconds more."""
    seen = await scene.run(scene.job(made=contract("sleep 300; true")))
    shell = seen.instances[0].pid
    assert shell is not None
    await until(lambda: len(_children(shell)) == 1)
    os.kill(shell, signal.SIGKILL)
    await until(lambda: not _runs(shell))
    seen = await scene.see()
    assert not seen.instances[0].up
    assert not seen.vacant
    await scene.slots.kill(APP, A)
    assert (await scene.see()).vacant


READY = "touch ready; sleep 300; true"


@pytest.mark.parametrize(
    "command",
    [
        f"setsid sh -c '{READY}' & exec sleep 300",
        f"(setsid sh -c '({READY}) & exit' &) ; exec sleep 300",
        f"nohup sh -c 'trap \"\" TERM HUP; {READY}' & exec sleep 300",
    ],
)
async def test_what_left_its_session_dies_with_the_slot(scene: Scene, command: str) -> None:
    job = scene.job(made=contract(command))
    seen = await scene.run(job)
    leader = seen.instances[0].pid
    assert leader is not None
    await until((scene.worktree() / "ready").exists)
    # What the naive form does: a signal to the group, and a look at the leader.
    os.killpg(leader, signal.SIGTERM)
    await until(lambda: not _runs(leader))
    assert not (await scene.see()).vacant
    await scene.slots.kill(APP, A)
    assert cookies({job.deploy_id}) == []
    assert (await scene.see()).vacant


async def test_a_member_without_cookie_is_found_by_its_session(scene: Scene) -> None:
    job = scene.job(made=contract("env -i sleep 300 & sleep 300; true"))
    seen = await scene.run(job)
    leader = seen.instances[0].pid
    assert leader is not None
    await until(lambda: len(_children(leader)) == 2)
    bare = [pid for pid in _children(leader) if pid not in cookies({job.deploy_id})]
    assert len(bare) == 1
    await scene.slots.kill(APP, A)
    assert not _runs(bare[0])


async def test_only_the_processes_asked_for_are_signalled(scene: Scene) -> None:
    made = contract(
        processes=processes(web="setsid sleep 300 & sleep 300", worker="sleep 300; true")
    )
    job = scene.job(made=made)
    await scene.run(job)
    await until(lambda: len(cookies({job.deploy_id})) == 5)
    await scene.slots.kill(APP, A, (WORKER,))
    left = [one for one in scan() if one.deploy == job.deploy_id]
    assert {one.process for one in left} == {WEB}


async def test_a_detached_process_survives_its_slot(scene: Scene) -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]);"
        "from reconciler.host.detach import detach;"
        "open('pid', 'w').write(str(detach(['sleep', '300'])))"
    )
    repository = Path(__file__).parents[2]
    job = scene.job(made=contract(f'{PYTHON} -c "{script}" {repository}; sleep 300'))
    await scene.run(job)
    note = scene.worktree() / "pid"
    await until(lambda: note.exists() and note.read_text())
    pid = int(note.read_text())
    try:
        await scene.slots.terminate(APP, A)
        await scene.slots.kill(APP, A)
        assert (await scene.see()).vacant
        assert _runs(pid)
        await scene.slots.retire(APP, A)
        assert _runs(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


async def test_a_stopped_process_dies_too(scene: Scene) -> None:
    job = scene.job()
    pid = (await scene.run(job)).instances[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    await scene.slots.terminate(APP, A)
    assert not (await scene.see()).vacant
    await scene.slots.kill(APP, A)
    assert (await scene.see()).vacant


async def test_sweep_kills_strays_of_ours_and_nothing_else(scene: Scene) -> None:
    named, stray, foreign = scene.job(), scene.new_deploy(), scene.new_deploy()
    await scene.run(named)
    children = [_sleeper({"AUTOPILOT_DEPLOY_ID": deploy}) for deploy in (stray, foreign)]

    async def known(ids: Sequence[str]) -> frozenset[str]:
        assert set(ids) >= {stray, foreign}
        assert named.deploy_id not in ids
        return frozenset({stray, named.deploy_id})

    try:
        assert await scene.slots.sweep(known) == 1
        assert not _runs(children[0])
        assert _runs(children[1])
        assert (await scene.see()).instances[0].up
    finally:
        _end(*children)


def _process(pid: int, session: int, started: int = 1, **known: str) -> Seen:
    return Seen(ProcessStat(pid, "x", "S", 1, session, session, started), **known)  # type: ignore[arg-type]


def test_a_recycled_session_is_a_strangers() -> None:
    """The leader died, its id went to another program, which has children of its own."""
    leader = Leader(WEB, 0, pid=100, started=1)
    everyone = (_process(100, 100, started=9), _process(101, 100, started=9))
    assert members(everyone, Belonging(DEPLOY, (leader,))) == ()


def test_a_session_without_its_leader_counts_only_with_a_cookie_in_it() -> None:
    leader = Leader(WEB, 0, pid=100, started=1)
    bare = _process(101, 100)
    assert members((bare,), Belonging(DEPLOY, (leader,))) == ()
    proof = _process(102, 100, deploy=DEPLOY)
    assert members((bare, proof), Belonging(DEPLOY, (leader,))) == (bare, proof)


def test_the_cgroup_holds_what_has_neither_session_nor_cookie() -> None:
    bare = _process(101, 101)
    slot = Belonging(DEPLOY, cgroup=frozenset({101}))
    assert members((bare,), slot) == (bare,)
    assert members((bare,), slot, (WEB,)) == ()
    detached = Seen(bare.stat, detached=True)
    assert members((detached,), slot) == ()


def test_a_cookie_inside_another_value_is_no_cookie() -> None:
    child = _sleeper({"X": "AUTOPILOT_DEPLOY_ID=d-1"})
    try:
        seen = next(one for one in scan() if one.pid == child)
        assert seen.deploy == ""
    finally:
        _end(child)


def test_only_the_kernels_own_threads_are_left_out() -> None:
    """In a container the daemon itself may be process 2, the parent of everything."""
    kernel = ProcessStat(5, "kworker/0:0", "I", 2, 0, 0, 1, flags=0x04208060)
    child = ProcessStat(5, "node", "S", 2, 5, 5, 1, flags=0x00400000)
    assert (kernel.kernel_thread, child.kernel_thread) == (True, False)
    ours = read_stat(os.getpid())
    assert ours is not None
    assert ours.flags
    assert not ours.kernel_thread
    assert not any(one.stat.kernel_thread for one in scan())


def _sleeper(environment: dict[str, str]) -> int:
    return os.posix_spawn("/bin/sleep", ["sleep", "300"], environment)


def _end(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _runs(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and is_alive(pid, stat.started)


def _children(pid: int) -> list[int]:
    return [one.pid for one in scan() if one.stat.parent == pid]
