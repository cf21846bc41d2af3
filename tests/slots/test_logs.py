"""Logs: holes with the writer still attached, tails that skip them, old ones deleted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.model.names import DeployId
from reconciler.slots import logs
from tests.slots.scene import APP, PYTHON, Export, Scene, contract, until

pytestmark = pytest.mark.anyio

DEPLOY = DeployId("0198-d")
MIB = 1 << 20


def test_a_hole_gives_space_back_and_moves_no_offset(tmp_path: Path) -> None:
    path = tmp_path / f"{DEPLOY}.web.log"
    with path.open("ab", buffering=0) as writer:
        for number in range(4096):
            writer.write(b"%08d %s\n" % (number, b"x" * 1000))
        size, before = path.stat().st_size, path.stat().st_blocks
        logs.punch(path, keep=MIB)
        assert path.stat().st_size == size
        assert path.stat().st_blocks * 512 <= MIB + 64 * 1024
        assert path.stat().st_blocks < before
        writer.write(b"the writer goes on\n")
    assert path.stat().st_size == size + len("the writer goes on\n")
    assert logs.tail(tmp_path, DEPLOY, 2).splitlines() == [
        f"{4095:08d} {'x' * 1000}",
        "the writer goes on",
    ]


async def test_the_log_of_a_running_process_is_trimmed_and_goes_on(scene: Scene) -> None:
    code = (
        "import sys, time\n"
        "for n in range(12 * 1024): sys.stdout.write('%08d ' % n + 'x' * 1014 + '\\n')\n"
        "sys.stdout.flush(); open('written', 'w').close()\n"
        "while not __import__('os').path.exists('go'): time.sleep(0.005)\n"
        "print('after', flush=True); time.sleep(300)\n"
    )
    export = Export({"app.py": code})
    job = scene.job(made=contract(f"exec {PYTHON} -S app.py"), export=export)
    await scene.run(job)
    await until((scene.worktree() / "written").exists)
    log = scene.log(job)
    size = log.stat().st_size
    assert size > logs.KEPT_BYTES
    await scene.slots.trim_logs()
    assert log.stat().st_size == size
    assert log.stat().st_blocks * 512 <= logs.KEPT_BYTES + 64 * 1024
    (scene.worktree() / "go").touch()
    await until(lambda: log.stat().st_size > size)
    assert await scene.slots.log_tail(APP, job.deploy_id, 1) == "after"


def test_a_tail_skips_holes_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / f"{DEPLOY}.web.log"
    path.write_bytes(b"\0" * 5000 + b"half\xff\nlast\n")
    assert logs.tail(tmp_path, DEPLOY, 50) == "half�\nlast"


def test_setup_comes_first_and_the_last_written_last(tmp_path: Path) -> None:
    for age, process in enumerate(("worker", "web", "setup")):
        path = tmp_path / f"{DEPLOY}.{process}.log"
        path.write_text(f"{process} one\n{process} two\n", encoding="utf-8")
        os.utime(path, (1000 - age, 1000 - age))
    assert logs.tail(tmp_path, DEPLOY, 3).splitlines() == ["web two", "worker one", "worker two"]
    assert logs.tail(tmp_path, DEPLOY, 50).splitlines()[0] == "setup one"
    assert logs.tail(tmp_path, DEPLOY, 0) == ""
    assert logs.tail(tmp_path, DeployId("unknown"), 50) == ""


def test_logs_of_old_deploys_go_but_for_those_a_slot_names(tmp_path: Path) -> None:
    ids = [f"0198-{number:04d}" for number in range(logs.KEPT_DEPLOYS + 5)]
    for deploy in ids:
        (tmp_path / f"{deploy}.web.log").touch()
        (tmp_path / f"{deploy}.setup.log").touch()
    logs.trim(tmp_path, {ids[0]})
    left = {path.name.partition(".")[0] for path in tmp_path.iterdir()}
    assert left == {ids[0], *ids[5:]}
    assert (tmp_path / f"{ids[0]}.setup.log").exists()


async def test_the_log_is_appended_to_over_restarts(scene: Scene) -> None:
    job = scene.job(made=contract("echo started; exec sleep 300"))
    await scene.run(job)
    await until(lambda: scene.log(job).read_text() == "started\n")
    await scene.slots.kill(APP, job.slot)
    await scene.start(job, restart=True)
    await until(lambda: scene.log(job).read_text() == "started\nstarted\n")
    assert oct(scene.log(job).stat().st_mode & 0o777) == "0o640"
