"""Trash: renamed away at once, deleted in the background, read-only directories included."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.slots import trash
from tests.slots.scene import APP, Scene

pytestmark = pytest.mark.anyio


def _read_only_tree(root: Path) -> None:
    (root / "deep" / "deeper").mkdir(parents=True)
    (root / "deep" / "deeper" / "file").touch()
    (root / "deep" / "deeper").chmod(0o555)
    (root / "deep").chmod(0o555)


async def test_the_trash_is_emptied_in_the_background(scene: Scene, tmp_path: Path) -> None:
    await scene.prepare(scene.job())
    bin_ = scene.app_dir / "trash"
    outside = tmp_path / "precious"
    outside.touch()
    _read_only_tree(bin_ / "tree")
    (bin_ / "link").symlink_to(tmp_path)
    (bin_ / "tree2").mkdir()
    (bin_ / "tree2" / "link").symlink_to(tmp_path)
    (bin_ / "file").touch()
    assert (await scene.see()).has_trash
    woken: list[str] = []
    scene.slots.on_change(woken.append)
    await scene.slots.empty_trash(APP)
    await scene.slots.empty_trash(APP)
    await scene.slots.settle()
    assert not (await scene.see()).has_trash
    assert woken == [APP]
    assert outside.exists()


async def test_trash_that_resists_is_not_shown_again_at_once(scene: Scene) -> None:
    """Whoever sees trash has it emptied: shown at once again, that would go on for ever."""
    await scene.prepare(scene.job())
    stuck = scene.app_dir / "trash" / "stuck"
    with _mounted(stuck):
        assert (await scene.see()).has_trash
        await scene.slots.empty_trash(APP)
        assert not (await scene.see()).has_trash, "it is being emptied"
        await scene.slots.settle()
        assert stuck.exists()
        assert not (await scene.see()).has_trash
        assert (await scene.see(slots=scene.open())).has_trash


@contextmanager
def _mounted(directory: Path) -> Iterator[None]:
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "none", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="root drops its rights here; others have none")
def test_read_only_directories_go_without_root_too(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    script = (
        "import sys, os; from pathlib import Path; from reconciler.slots import trash;"
        "from tests.slots.test_trash import _read_only_tree;"
        "bin_ = Path(sys.argv[1]) / 'bin'; tree = Path(sys.argv[1]) / 'work' / 'tree';"
        "bin_.mkdir(); tree.mkdir(parents=True); _read_only_tree(tree); tree.chmod(0o555);"
        "trash.discard(tree, bin_, 'one'); assert not tree.exists();"
        "trash.empty(bin_); assert not list(bin_.iterdir()), list(bin_.iterdir())"
    )
    repository = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        done = subprocess.run(
            [*argv, sys.executable, "-c", script, directory],
            check=False,
            capture_output=True,
            text=True,
            cwd=repository,
            env={"PYTHONPATH": str(repository), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        if done.returncode in (126, 127):
            pytest.skip("the interpreter or the repository is closed to other users")
        assert done.returncode == 0, done.stderr


def test_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    trash.discard(tmp_path / "missing", tmp_path, "x")
    trash.discard_inside(tmp_path, ("a", "b"), tmp_path, "x")
    trash.empty(tmp_path / "missing")
    assert not trash.has_trash(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []
