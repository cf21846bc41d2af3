"""Preparation: what a checkout and a setup may leave behind, and what they must not."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.model.errors import (
    DiskPressureError,
    ExportError,
    ReconcilerError,
    SlotBusyError,
    UnknownHistoryError,
)
from reconciler.model.names import AppName
from reconciler.model.observed import ObservedSlot, SlotRecord, Stage
from reconciler.ports import Preparation, SlotTree
from tests.slots.scene import APP, SLEEP, A, Export, Scene, contract, cookies, until

pytestmark = pytest.mark.anyio


def _record(seen: ObservedSlot) -> SlotRecord:
    assert seen.record is not None
    return seen.record


async def test_the_export_is_told_where_and_how(scene: Scene) -> None:
    export = Export()
    made = contract(path="services/shop", keep_dirs=("node_modules", "./.cache"))
    jobs = [scene.job(made=made, export=export) for _ in range(2)]
    for job in jobs:
        await scene.prepare(job)
    first, second = export.trees
    assert first == SlotTree(
        worktree=scene.worktree(),
        git_dir=scene.app_dir / "slots" / "deploy-a.git",
        trash=scene.app_dir / "trash",
        keep=("services/shop/node_modules", "services/shop/.cache"),
        full=False,
        owner=None,
        home=first.home,
        cookie=jobs[0].deploy_id,
        app=APP,
    )
    assert second == replace(first, cookie=jobs[1].deploy_id)


async def test_a_checkout_that_outlives_its_daemon_keeps_the_slot_occupied(scene: Scene) -> None:
    """After `kill -9` of the daemon git works on, and would write into the next deploy's files."""
    orphan: int | None = None

    async def leave(tree: SlotTree) -> None:
        nonlocal orphan
        environment = {"AUTOPILOT_DEPLOY_ID": tree.cookie, "AUTOPILOT_APP": tree.app}
        orphan = _sleeper(environment)

    seen = await scene.prepare(scene.job(export=Export(then=leave)))
    assert not seen.vacant
    with pytest.raises(SlotBusyError):
        await scene.slots.prepare(scene.job())
    await scene.slots.kill(APP, A)
    assert orphan is not None
    assert _end_of(orphan) == -signal.SIGKILL
    assert (await scene.prepare(scene.job())).vacant


async def test_a_slot_that_failed_is_compared_in_full(scene: Scene) -> None:
    export = Export()
    await scene.prepare(scene.job(made=contract(setup_command="exit 1"), export=export))
    await scene.prepare(scene.job(export=export))
    await scene.prepare(scene.job(export=export))
    assert [tree.full for tree in export.trees] == [False, True, False]


async def test_files_without_a_record_are_compared_in_full(scene: Scene) -> None:
    scene.worktree().mkdir(parents=True)
    export = Export()
    await scene.prepare(scene.job(export=export))
    assert export.trees[0].full


async def test_the_slot_is_marked_dirty_before_the_first_write(scene: Scene) -> None:
    stages: list[str] = []

    async def look(_: SlotTree) -> None:
        stages.append(_record(await scene.see()).stage)

    await scene.prepare(scene.job(export=Export(then=look)))
    assert stages == [Stage.PREPARING]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ExportError("git said no"), "checkout-failed"),
        (DiskPressureError("no space"), "disk-pressure"),
        (OSError(28, "No space left on device"), "disk-pressure"),
        (UnknownHistoryError("shallow"), "unknown-history"),
        (ReconcilerError("odd"), "checkout-failed"),
        (ZeroDivisionError("a bug"), "checkout-failed"),
    ],
)
async def test_a_failed_checkout_is_recorded_with_its_reason(
    scene: Scene, error: Exception, reason: str
) -> None:
    async def fail(_: SlotTree) -> None:
        raise error

    record = _record(await scene.prepare(scene.job(export=Export(then=fail))))
    assert (record.stage, record.reason) == (Stage.FAILED, reason)
    assert record.detail


async def test_a_setup_runs_in_the_apps_directory_with_its_own_temporary_one(scene: Scene) -> None:
    export = Export({"services/shop/file": "x"})
    made = contract(path="services/shop", setup_command="pwd > where; mktemp > tmp; test -f file")
    seen = await scene.prepare(scene.job(made=made, export=export))
    assert _record(seen).stage is Stage.PREPARED
    directory = scene.worktree() / "services" / "shop"
    assert (directory / "where").read_text().strip() == str(directory)
    temporary = Path((directory / "tmp").read_text().strip())
    assert temporary.parent == scene.app_dir / "tmp" / "deploy-a"
    await scene.prepare(scene.job(made=made, export=export))
    assert not temporary.exists()


async def test_a_setup_that_takes_too_long_dies_with_everything_it_started(scene: Scene) -> None:
    command = "setsid sleep 300 & (trap '' TERM; sleep 300) & sleep 300"
    made = contract(setup_command=command, setup_timeout=timedelta(milliseconds=200))
    job = scene.job(made=made)
    seen = await scene.prepare(job)
    assert _record(seen).reason == "setup-timeout"
    assert "0.2 s" in _record(seen).detail
    assert seen.vacant
    assert cookies({job.deploy_id}) == []


async def test_a_setup_leaves_no_process_behind(scene: Scene) -> None:
    """A build daemon would keep the slot from ever being empty."""
    job = scene.job(made=contract(setup_command="setsid sleep 300 & exit 0"))
    seen = await scene.prepare(job)
    assert _record(seen).stage is Stage.PREPARED
    assert cookies({job.deploy_id}) == []


async def test_kept_directories_are_dropped_after_a_failed_setup_only(scene: Scene) -> None:
    kept = scene.worktree() / "web" / "node_modules"
    good = contract(path="web", keep_dirs=("node_modules",), setup_command="mkdir -p node_modules")
    bad = contract(
        path="web", keep_dirs=("node_modules",), setup_command="touch node_modules/half; exit 1"
    )
    export = Export({"web/x": ""})
    await scene.prepare(scene.job(made=good, export=export))
    assert kept.is_dir()
    await scene.prepare(scene.job(made=bad, export=export))
    assert not kept.exists()
    assert [path.name for path in (scene.app_dir / "trash").glob("*/half")] == ["half"]


async def test_dropping_a_kept_directory_follows_no_planted_link(
    scene: Scene, tmp_path: Path
) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "precious").touch()
    made = contract(
        path="web",
        keep_dirs=("node_modules",),
        setup_command=f"cd .. && rm -r web && ln -s {tmp_path} web && exit 1",
    )
    await scene.prepare(scene.job(made=made, export=Export({"web/x": ""})))
    assert (tmp_path / "node_modules" / "precious").exists()


async def test_a_stopped_setup_drops_what_was_kept(scene: Scene) -> None:
    made = contract(keep_dirs=("venv",), setup_command="mkdir venv; touch started; sleep 300")
    job = scene.job(made=made)
    await scene.slots.prepare(job)
    await until((scene.worktree() / "started").exists)
    await scene.slots.kill(APP, A)
    await scene.slots.settle()
    seen = await scene.see()
    assert _record(seen).stage is Stage.FAILED
    assert not (scene.worktree() / "venv").exists()
    assert seen.vacant


async def test_directories_have_the_modes_that_users_and_proxy_need(scene: Scene) -> None:
    await scene.run(scene.job(made=contract(SLEEP, shared_dirs=("data",))))
    app = scene.app_dir

    def modes(*paths: Path) -> list[str]:
        return [oct(stat.S_IMODE(path.stat().st_mode)) for path in paths]

    slots = app / "slots"
    assert modes(scene.data, scene.data / "apps", app, slots) == ["0o711"] * 4
    assert modes(app / "shared", app / "tmp") == ["0o711"] * 2
    assert modes(slots / "deploy-a.addr", slots / "deploy-a.run") == ["0o755", "0o700"]
    assert modes(slots / "deploy-a.json") == ["0o600"]
    assert modes(scene.worktree(), slots / "deploy-a.git") == ["0o750", "0o700"]
    await scene.slots.publish(APP, A)
    assert modes(slots / "deploy-a.addr" / "web") == ["0o644"]


async def test_an_old_address_is_gone_before_the_slot_is_used_again(scene: Scene) -> None:
    await scene.prepare(scene.job())
    web = scene.app_dir / "slots" / "deploy-a.addr" / "web"
    web.write_text("127.0.0.1:1\n")
    await scene.prepare(scene.job())
    assert web.read_text() == ""


async def test_a_full_disk_is_told_and_leaves_the_old_record(scene: Scene) -> None:
    await scene.prepare(scene.job())
    before = await scene.see()
    with _full_disk(scene.app_dir / "slots"):
        with pytest.raises(DiskPressureError):
            await scene.slots.prepare(scene.job())
        with pytest.raises(DiskPressureError):
            await scene.slots.start(scene.launch(_again(scene, before)))
    assert not (await scene.see()).instances


@pytest.mark.parametrize("verb", ["terminate", "kill"])
async def test_a_full_disk_stops_no_signal(scene: Scene, verb: str) -> None:
    """What fills the disk may be just what is to be ended."""
    job = scene.job()
    await scene.run(job)
    with _full_disk(scene.app_dir / "slots"):
        with pytest.raises(DiskPressureError):
            await getattr(scene.slots, verb)(APP, A)
        await until(lambda: not cookies({job.deploy_id}))


def _sleeper(environment: dict[str, str]) -> int:
    return os.posix_spawn("/bin/sleep", ["sleep", "300"], environment)


def _end_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _again(scene: Scene, seen: ObservedSlot) -> Preparation:
    return scene.job(deploy_id=_record(seen).deploy_id)


class _full_disk:  # noqa: N801 (used like a function)
    """Mounts a small tmpfs that is full, with the same files, over a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __enter__(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root to mount a tmpfs")
        files = {path: path.read_bytes() for path in self.directory.rglob("*") if path.is_file()}
        folders = [path for path in self.directory.rglob("*") if path.is_dir()]
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=711", "none", str(self.directory)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("cannot mount a tmpfs here")
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            path.write_bytes(content)
        try:
            with (self.directory / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(b"x" * 4096)
        except OSError:
            pass

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.directory)], check=True)


async def test_preparations_of_different_apps_do_not_wait_for_each_other(scene: Scene) -> None:
    """Each setup waits for the other one to have begun."""
    meeting = f"{scene.data}/meeting"
    first = f"touch {meeting}-1; until [ -e {meeting}-2 ]; do sleep 0.01; done"
    second = f"touch {meeting}-2; until [ -e {meeting}-1 ]; do sleep 0.01; done"
    jobs = [
        scene.job(made=contract(setup_command=first)),
        replace(
            scene.job(made=contract(setup_command=second)),
            app=AppName("other"),
        ),
    ]
    for job in jobs:
        await scene.slots.prepare(job)
    await scene.slots.settle()
    for job in jobs:
        (slot,) = await scene.slots.observe(job.app, (job.slot,))
        assert slot.record is not None
        assert slot.record.stage is Stage.PREPARED
