"""Apps that run as another user, with real second users."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.model.errors import UserRefusedError
from reconciler.model.observed import Stage
from reconciler.slots.users import Users
from tests.slots.scene import (
    APP,
    NOBODY,
    SERVE,
    SLEEP,
    A,
    Export,
    Scene,
    contract,
    cookies,
    until,
    until_listening,
)

pytestmark = [pytest.mark.anyio, pytest.mark.root]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run as another user")
UID = 65534


def _ids(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    pairs = (line.split(":", 1) for line in lines)
    return {name: value.split() for name, value in pairs}


@needs_root
async def test_an_app_really_runs_as_its_user_and_owns_its_slot(scene: Scene) -> None:
    made = contract(SERVE, user=NOBODY, shared_dirs=("data",), setup_command="id -u > data/who")
    job = scene.job(made=made, environment={"SECRET": "value"})
    seen = await scene.run(job)
    pid = seen.instances[0].pid
    assert pid is not None
    await until_listening(scene.instance())
    status = _ids(pid)
    assert set(status["Uid"]) == {str(UID)}
    assert set(status["Gid"]) == {str(UID)}
    assert "0" not in status["Groups"]
    assert int(status["CapEff"][0], 16) == int(status["CapPrm"][0], 16) == 0
    assert scene.worktree().stat().st_uid == UID
    assert (scene.app_dir / "slots" / "deploy-a.git").stat().st_uid == UID
    assert (scene.app_dir / "shared" / "data" / "who").read_text().strip() == str(UID)
    assert (scene.app_dir / "shared" / "data").stat().st_uid == UID
    for ours in ("deploy-a.json", "deploy-a.run", "deploy-a.addr"):
        assert (scene.app_dir / "slots" / ours).stat().st_uid == 0
    assert (scene.app_dir / "slots" / "deploy-a.run" / "web.0").stat().st_uid == 0
    address = await scene.slots.publish(APP, A)
    assert address == seen.instances[0].address


@needs_root
async def test_processes_of_another_user_are_found_and_killed(scene: Scene) -> None:
    command = "setsid sh -c 'sleep 300 & sleep 300' & exec sleep 300"
    job = scene.job(made=contract(command, user=NOBODY))
    await scene.run(job)
    await until(lambda: len(cookies({job.deploy_id})) >= 3)
    await scene.slots.kill(APP, A)
    assert cookies({job.deploy_id}) == []


@needs_root
async def test_the_apps_environment_never_reaches_what_root_runs(
    scene: Scene, tmp_path: Path
) -> None:
    """PATH and LD_PRELOAD of the app would let it choose the programs that the launcher calls."""
    tmp_path.chmod(0o777)
    planted = scene.data / "planted"
    planted.mkdir()
    proof = scene.data / "proof"
    for name in ("mv", "setpriv", "id"):
        program = planted / name
        program.write_text(f"#!/bin/sh\nid -u >> {proof}\n", encoding="utf-8")
        program.chmod(0o755)
    planted.chmod(0o755)
    proof.touch()
    proof.chmod(0o666)
    environment = {"PATH": f"{planted}:/usr/bin:/bin", "LD_PRELOAD": str(planted / "none.so")}
    await scene.run(scene.job(made=contract(SLEEP, user=NOBODY), environment=environment))
    assert proof.read_text() == ""


@needs_root
async def test_a_directory_that_only_root_may_enter_is_closed_to_the_app(scene: Scene) -> None:
    """`path` can be a link in the repository: it is entered as the app's user, never as root."""
    secret = scene.data / "secret"
    secret.mkdir(mode=0o700)

    async def plant(tree: object) -> None:
        (scene.worktree() / "web").symlink_to(secret)

    made = contract("pwd; exec sleep 300", user=NOBODY, path="web")
    job = scene.job(made=made, export=Export(then=plant))
    await scene.prepare(job)
    await scene.start(job)
    await scene.instance().wait_exit()
    assert scene.instance().exit_status not in (0, None)


@needs_root
async def test_the_trash_is_closed_to_the_app(scene: Scene) -> None:
    """Root renames and deletes in it. An earlier version gave it to the app's user."""
    trash = scene.app_dir / "trash"
    trash.mkdir(parents=True)
    os.chown(trash, UID, UID)
    await scene.prepare(scene.job(made=contract(user=NOBODY)))
    status = trash.stat()
    assert (status.st_uid, oct(status.st_mode & 0o7777)) == (os.geteuid(), "0o700")


@needs_root
async def test_a_change_of_user_starts_from_a_fresh_tree(scene: Scene) -> None:
    await scene.prepare(scene.job(made=contract(user=NOBODY)))
    (scene.worktree() / "old").touch()
    export = Export()
    seen = await scene.prepare(scene.job(export=export))
    assert seen.record is not None
    assert seen.record.stage is Stage.PREPARED
    assert seen.has_trash
    assert not (scene.worktree() / "old").exists()
    assert scene.worktree().stat().st_uid == os.geteuid()
    assert not export.trees[0].full


@needs_root
async def test_the_default_user_is_the_hosts(scene: Scene) -> None:
    scene.slots = scene.open(default_user=NOBODY)
    pid = (await scene.run(scene.job())).instances[0].pid
    assert pid is not None
    await until(lambda: _ids(pid)["Uid"][0] == str(UID))


async def test_an_unknown_user_is_refused_before_anything_is_written(scene: Scene) -> None:
    with pytest.raises(UserRefusedError, match="useradd"):
        await scene.slots.prepare(scene.job(made=contract(user="no-such-user")))
    assert not scene.app_dir.exists()


def test_the_daemons_own_user_needs_no_rights() -> None:
    assert Users(None).resolve(None).owner is None


REFUSED = (
    "from reconciler.slots.users import Users\n"
    "from reconciler.model.errors import UserRefusedError\n"
    "try: Users(None).resolve('nobody')\n"
    "except UserRefusedError as error: print(error)\n"
)


@needs_root
def test_root_without_ptrace_is_told_what_it_lacks() -> None:
    """A container's default: whose listener it is could not be told."""
    told = _as(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"])
    assert "CAP_SYS_PTRACE" in told


@needs_root
def test_a_daemon_without_root_refuses_any_other_user() -> None:
    told = _as(["--reuid=1", "--regid=1", "--clear-groups"])
    assert "only root" in told


def _as(options: list[str]) -> str:
    repository = Path(__file__).parents[2]
    argv = ["setpriv", *options, sys.executable, "-c", REFUSED]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=repository)
    if done.returncode in (126, 127):
        pytest.skip("the interpreter or the repository is closed to other users")
    assert done.returncode == 0, done.stderr
    return done.stdout
