"""Links of shared_dirs, with an app that plants links of its own where ours should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.model.errors import ExportError
from reconciler.model.observed import Stage
from reconciler.ports import SlotTree
from reconciler.slots.confined import opened, parts_of
from reconciler.slots.links import SharedDirTrackedError, make_links, remove_links
from tests.slots.scene import A, B, Export, Scene, contract

pytestmark = pytest.mark.anyio


async def test_slots_share_one_directory_and_checkouts_never_see_the_link(scene: Scene) -> None:
    seen: list[bool] = []

    async def look(tree: SlotTree) -> None:
        seen.append((tree.worktree / "web" / "data").is_symlink())

    export = Export({"web/x": ""}, then=look)
    made = contract(
        path="web", shared_dirs=("data", "var/uploads"), setup_command="touch data/$AUTOPILOT_SLOT"
    )
    for slot in (A, B, A):
        prepared = await scene.prepare(scene.job(slot, made, export=export))
        assert prepared.record is not None
        assert prepared.record.stage is Stage.PREPARED
    assert seen == [False, False, False]
    shared = scene.app_dir / "shared"
    assert {path.name for path in (shared / "data").iterdir()} == {"deploy-a", "deploy-b"}
    for slot in (A, B):
        assert (scene.worktree(slot) / "web" / "data").resolve() == shared / "data"
        assert (scene.worktree(slot) / "web/var/uploads").resolve() == shared / "var" / "uploads"


async def test_a_commit_that_has_the_directory_is_refused_and_nothing_is_written_into_it(
    scene: Scene,
) -> None:
    export = Export({"data/seed.db": "of the commit"})
    seen = await scene.prepare(scene.job(made=contract(shared_dirs=("data",)), export=export))
    assert seen.record is not None
    assert (seen.record.stage, seen.record.reason) == (Stage.FAILED, "shared-dir-tracked")
    assert list((scene.app_dir / "shared" / "data").iterdir()) == []


def test_a_planted_parent_link_is_not_followed(tmp_path: Path) -> None:
    """The app replaced `var` by a link to a directory of the host with `uploads` as a link."""
    worktree, host, shared = (tmp_path / name for name in ("slot", "host", "shared"))
    for directory in (worktree, host, shared):
        directory.mkdir()
    (host / "uploads").symlink_to("/etc")
    (worktree / "var").symlink_to(host)
    made = contract(shared_dirs=("var/uploads", "var/new"))
    remove_links(worktree, made)
    assert (host / "uploads").is_symlink()
    with pytest.raises(SharedDirTrackedError):
        make_links(worktree, shared, made, None)
    assert {path.name for path in host.iterdir()} == {"uploads"}


def test_a_link_planted_in_the_shared_directory_is_not_followed(tmp_path: Path) -> None:
    """`shared/a` is the app's to change: a link there must not make us create `b` elsewhere."""
    worktree, host, shared = (tmp_path / name for name in ("slot", "host", "shared"))
    for directory in (worktree, host, shared):
        directory.mkdir()
    (shared / "a").symlink_to(host)
    with pytest.raises((SharedDirTrackedError, OSError)):
        make_links(worktree, shared, contract(shared_dirs=("a/b",)), None)
    assert list(host.iterdir()) == []


def test_only_links_are_removed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").touch()
    remove_links(tmp_path, contract(shared_dirs=("data", "missing/deep")))
    assert (tmp_path / "data" / "file").exists()


@pytest.mark.parametrize("path", ["../x", "/etc", "a/../../b", "a\0b"])
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(ExportError):
        parts_of(".", path)


def test_parts_are_those_of_the_path_below_the_apps_directory() -> None:
    assert parts_of(".", "data") == ("data",)
    assert parts_of("web/", "./var/uploads") == ("web", "var", "uploads")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_directories_that_are_made_belong_to_the_app(tmp_path: Path) -> None:
    with opened(tmp_path, ("a", "b"), create=True, owner=(65534, 65534)):
        pass
    assert (tmp_path / "a" / "b").stat().st_uid == 65534
