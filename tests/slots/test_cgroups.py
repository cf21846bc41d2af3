"""Control groups: what escapes session and cookie is still found, where groups can be made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.host.processes import own_cgroup
from reconciler.model.desired import Limits
from reconciler.slots import cgroups
from reconciler.slots.cgroups import Cgroups
from tests.slots.scene import APP, PYTHON, A, Export, Scene, contract, until

pytestmark = pytest.mark.anyio


def _writable() -> bool:
    own = own_cgroup()
    return own is not None and os.access(own, os.W_OK)


needs_cgroup = pytest.mark.skipif(
    not _writable() and os.environ.get("AUTOPILOT_CI") != "1", reason="no writable cgroup v2"
)


@needs_cgroup
async def test_a_process_without_session_and_cookie_is_found_by_its_group(scene: Scene) -> None:
    code = (
        "import os, time, subprocess\n"
        "while 'autopilot-' not in open('/proc/self/cgroup').read(): time.sleep(0.005)\n"
        "child = subprocess.Popen(['sleep', '300'], env={}, start_new_session=True)\n"
        "open('pid', 'w').write(str(child.pid))\n"
    )
    job = scene.job(made=contract(f"{PYTHON} -S app.py"), export=Export({"app.py": code}))
    await scene.run(job)
    note = scene.worktree() / "pid"
    await until(lambda: note.exists() and note.read_text())
    pid = int(note.read_text())
    await scene.instance().wait_exit()
    assert not (await scene.see()).vacant
    await scene.slots.kill(APP, A)
    assert (
        not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    assert (await scene.see()).vacant


@needs_cgroup
async def test_the_group_is_removed_when_the_slot_is_retired(scene: Scene) -> None:
    await scene.run(scene.job())
    await scene.slots.settle()
    group = Path((scene.app_dir / "slots" / "deploy-a.run" / "cgroup").read_text())
    assert cgroups.processes(group)
    await scene.end()
    assert not group.exists()


@needs_cgroup
async def test_a_slot_leaves_no_group_behind_when_it_is_prepared_again(scene: Scene) -> None:
    note = scene.app_dir / "slots" / "deploy-a.run" / "cgroup"
    made = contract(setup_command="exit 1")
    await scene.prepare(scene.job(made=made))
    first = Path(note.read_text())
    await scene.prepare(scene.job(made=made))
    assert Path(note.read_text()) != first
    assert not first.exists()


def test_no_group_is_no_error(tmp_path: Path) -> None:
    groups = Cgroups(tmp_path, None)
    assert groups.create("x", Limits(memory_mb=1)) is None
    assert not groups.binding(Limits(memory_mb=1))
    assert cgroups.processes(None) == frozenset()
    assert cgroups.processes(tmp_path / "missing") == frozenset()
    groups.close()


def test_limits_are_values_of_the_group(tmp_path: Path) -> None:
    """On a group with all controllers: what is written is what the kernel reads."""
    own = tmp_path / "own"
    base = own / f"autopilot-{'0' * 12}"
    own.mkdir()
    groups = Cgroups(tmp_path, own)
    assert groups.controllers == frozenset()
    assert base.parent.exists()
    groups.controllers = frozenset({"memory", "cpu", "pids"})
    assert groups.binding(Limits(cpu=0.5))
    assert not groups.binding(Limits(open_files=5))
    assert groups._values(Limits(memory_mb=64, cpu=0.5, processes=9)) == {
        "memory.max": str(64 << 20),
        "cpu.max": "50000 100000",
        "pids.max": "9",
    }
