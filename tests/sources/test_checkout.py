"""What a slot looks like after an export, whatever the app did to it before."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import pytest

from reconciler.host.processes import all_processes, read_environment
from reconciler.model.errors import DiskPressureError, ExportError
from reconciler.model.names import Revision
from reconciler.ports import SlotTree
from reconciler.sources.git import GitSource
from tests.sources.trees import (
    NOBODY,
    Content,
    Link,
    Program,
    Repository,
    Submodule,
    Tree,
    assert_equals_tree,
    files_of,
    give_to,
    make_repository,
    run_git,
)

pytestmark = pytest.mark.anyio
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
FIRST: Tree = {
    "same": b"the same in both",
    "changed": b"1",
    "d0/one": b"1",
    "d0/two": b"2",
    "d0/deep/three": b"3",
    "run": Program(b"#!/bin/sh\n"),
    "link": Link(b"d0/one"),
    "gone/file": b"only in the first",
}
SECOND: Tree = {**FIRST, "changed": b"2", "run": b"#!/bin/sh\n", "new": b""}
del SECOND["gone/file"]  # type: ignore[attr-defined]


@dataclass
class Stage:
    repository: Repository
    source: GitSource
    tree: SlotTree

    @property
    def slot(self) -> Path:
        return self.tree.worktree

    async def commit(self, tree: Tree) -> Revision:
        revision = self.repository.commit(tree)
        await self.source.refresh()
        return revision

    async def export(self, revision: Revision, **changes: object) -> None:
        """Exports and compares every file."""
        tree = replace(self.tree, **changes)  # type: ignore[arg-type]
        await self.source.export(revision, tree)
        assert_equals_tree(tree.worktree, self.repository, revision, tree.keep)

    def slot_tree(self, name: str) -> SlotTree:
        app = self.tree.worktree.parent
        return SlotTree(app / name, app / "slots" / f"{name}.git", app / "trash")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    repository = make_repository(tmp_path / "repository")
    source = GitSource("app", repository.path, tmp_path / "data/repos/app/git")
    app = tmp_path / "data/apps/app"
    app.mkdir(parents=True)
    stage = Stage(repository, source, SlotTree(app / "x", app / "x.git", app / "trash"))
    stage.tree = stage.slot_tree("deploy-a")
    return stage


async def test_two_slots_going_back_and_forth_never_mix(stage: Stage) -> None:
    first, second = await stage.commit(FIRST), await stage.commit(SECOND)
    a, b = stage.slot_tree("deploy-a"), stage.slot_tree("deploy-b")
    for tree, revision in ((a, first), (b, first), (a, second), (b, second), (a, first)):
        await stage.source.export(revision, tree)
        assert_equals_tree(tree.worktree, stage.repository, revision)
    assert_equals_tree(b.worktree, stage.repository, second)


async def test_export_is_idempotent_and_rewrites_nothing(stage: Stage) -> None:
    first = await stage.commit(FIRST)
    await stage.export(first)
    before = (stage.slot / "same").stat()
    await stage.export(first)
    assert (stage.slot / "same").stat() == before


async def test_tampered_file_with_one_blob_in_both_revisions_is_mended(stage: Stage) -> None:
    first, second = await stage.commit(FIRST), await stage.commit(SECOND)
    await stage.export(first)
    (stage.slot / "same").write_bytes(b"tampered with by x")
    await stage.export(second)


async def test_tampering_that_keeps_size_and_times_is_mended(stage: Stage) -> None:
    first = await stage.commit(FIRST)
    await stage.export(first)
    file = stage.slot / "same"
    before = file.stat()
    file.write_bytes(b"tAe same in both")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    await stage.export(first)


async def test_full_export_trusts_no_index(stage: Stage) -> None:
    first = await stage.commit(FIRST)
    await stage.export(first)
    (stage.slot / "same").write_bytes(b"tampered, with the index told to look away")
    at_slot = (f"--git-dir={stage.tree.git_dir}", f"--work-tree={stage.slot}")
    run_git(*at_slot, "update-index", "--skip-worktree", "same", cwd=stage.slot)
    await stage.export(first, full=True)


async def test_changed_modes_are_mended(stage: Stage) -> None:
    first = await stage.commit(FIRST)
    await stage.export(first)
    (stage.slot / "run").chmod(0o644)
    (stage.slot / "same").chmod(0o755)
    await stage.export(first)


def _nested_repository(slot: Path) -> None:
    for folder in (slot / "nested", slot / "d0/deep/nested"):
        make_repository(folder).save("file", "content")


def _git_everywhere(slot: Path) -> None:
    run_git("init", "--quiet", cwd=slot)
    run_git("init", "--quiet", cwd=slot / "d0")
    (slot / "d0/deep/.git").write_text("gitdir: /nonexistent\n")


def _odd_files(slot: Path) -> None:
    os.mkfifo(slot / "d0/pipe")
    folder = os.open(slot / "d0/deep", os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        # The path itself is too long for an address.
        server.bind(f"/proc/self/fd/{folder}/app.sock")
    os.close(folder)
    (slot / "d0/new\nline").touch()
    (slot / os.fsdecode(b"d0/\xff\xfe")).touch()
    (slot / "-rf").touch()


def _folder_for_file(slot: Path) -> None:
    (slot / "same").unlink()
    (slot / "same/inside").mkdir(parents=True)
    (slot / "same/inside/file").touch()


def _file_for_folder(slot: Path) -> None:
    shutil.rmtree(slot / "d0")
    (slot / "d0").touch()


def _moved_and_linked(slot: Path) -> None:
    (slot / "d0").rename(slot / "elsewhere")
    (slot / "d0").symlink_to("elsewhere")


def _moved_into_untracked(slot: Path) -> None:
    (slot / "cache").mkdir()
    (slot / "d0/deep").rename(slot / "cache/deep")
    (slot / "d0/deep").symlink_to("../cache/deep")


def _empty_folders(slot: Path) -> None:
    (slot / "d0/empty/deeper").mkdir(parents=True)
    (slot / "empty").mkdir()


def _read_only(slot: Path) -> None:
    (slot / "build/cache").mkdir(parents=True)
    (slot / "build/cache/file").touch()
    (slot / "build/cache").chmod(0o555)
    (slot / "d0/untracked").touch()
    (slot / "d0").chmod(0o555)


def _unreadable(slot: Path) -> None:
    (slot / "d0/deep/untracked").touch()
    (slot / "d0/deep").chmod(0)


def _broken_index(slot: Path) -> None:
    index = slot.parent / "slots/deploy-a.git/index"
    index.write_bytes(index.read_bytes()[:-30])


def _left_lock(slot: Path) -> None:
    (slot.parent / "slots/deploy-a.git/index.lock").write_bytes(b"half")


def _links_in_git_dir(slot: Path) -> None:
    git_dir = slot.parent / "slots/deploy-a.git"
    for name in ("config", "HEAD", "info"):
        path = git_dir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to("/nonexistent/target")
    os.mkfifo(git_dir / "left")


def _replaced_object(slot: Path) -> None:
    git_dir = slot.parent / "slots/deploy-a.git"
    at_slot = f"--git-dir={git_dir}"
    forged = run_git(at_slot, "hash-object", "-w", "--stdin", cwd=slot, stdin=b"forged")
    same = run_git(at_slot, "rev-parse", "HEAD:same", cwd=slot)
    run_git(at_slot, "replace", same.decode().strip(), forged.decode().strip(), cwd=slot)
    (slot / "same").unlink()


DAMAGE = [
    _nested_repository,
    _git_everywhere,
    _odd_files,
    _folder_for_file,
    _file_for_folder,
    _moved_and_linked,
    _moved_into_untracked,
    _empty_folders,
    _read_only,
    _unreadable,
    _broken_index,
    _left_lock,
    _links_in_git_dir,
    _replaced_object,
]


@pytest.mark.parametrize("next_tree", [FIRST, SECOND], ids=["same", "next"])
@pytest.mark.parametrize("damage", DAMAGE)
async def test_whatever_the_app_left_the_slot_ends_up_right(
    stage: Stage, damage: Callable[[Path], None], next_tree: Tree
) -> None:
    await stage.export(await stage.commit(FIRST))
    damage(stage.slot)
    await stage.export(await stage.commit(next_tree))


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("next_tree", [FIRST, SECOND], ids=["same", "next"])
@pytest.mark.parametrize("damage", DAMAGE)
async def test_whatever_another_user_left_the_slot_ends_up_right(
    stage: Stage, damage: Callable[[Path], None], next_tree: Tree
) -> None:
    stage.tree = replace(stage.tree, owner=(NOBODY, NOBODY))
    await stage.export(await stage.commit(FIRST))
    damage(stage.slot)
    give_to(stage.slot, NOBODY)
    give_to(stage.tree.git_dir, NOBODY)
    await stage.export(await stage.commit(next_tree))
    assert {path.lstat().st_uid for path in stage.slot.rglob("*")} == {NOBODY}


async def test_link_that_leads_out_is_replaced_and_the_host_left_alone(
    stage: Stage, tmp_path: Path
) -> None:
    first, second = await stage.commit(FIRST), await stage.commit(SECOND)
    await stage.export(first)
    host = tmp_path / "host"
    shutil.copytree(stage.slot / "d0", host)
    (host / "one").write_bytes(b"of the host")
    before = files_of(host)
    shutil.rmtree(stage.slot / "d0")
    (stage.slot / "d0").symlink_to(host)
    (stage.slot / "untracked").symlink_to(host)
    await stage.export(second)
    assert files_of(host) == before


async def test_link_of_a_shared_directory_goes_but_not_what_it_leads_to(
    stage: Stage, tmp_path: Path
) -> None:
    first = await stage.commit(FIRST)
    await stage.export(first)
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "seed.db").write_bytes(b"precious")
    (stage.slot / "data").symlink_to(shared)
    await stage.export(await stage.commit({**FIRST, "data/seed.db": b"of the tree"}))
    assert (shared / "seed.db").read_bytes() == b"precious"


async def test_attributes_of_the_tree_change_no_byte(stage: Stage) -> None:
    attributes = b"* text eol=crlf ident working-tree-encoding=UTF-16\n*.x filter=lfs\n"
    tree = {
        ".gitattributes": attributes,
        "d/.gitattributes": attributes,
        "unix": b"a\nb\n$Id$\n",
        "dos": b"a\r\nb\r\n",
        "pointer.x": b"version https://git-lfs.github.com/spec/v1\n",
        "d/unix": b"a\n",
    }
    await stage.export(await stage.commit(tree))
    await stage.export(await stage.commit({**tree, "unix": b"c\n$Id$\n"}))


async def test_submodules_are_empty_directories_whatever_is_put_there(stage: Stage) -> None:
    tree: Tree = {"file": b"1", "vendor/lib": Submodule(), "vendor/file": b"1"}
    first = await stage.commit(tree)
    await stage.export(first)
    make_repository(stage.slot / "vendor/lib/nested").save("file", "1")
    run_git("init", "--quiet", cwd=stage.slot / "vendor/lib")
    (stage.slot / "vendor/lib/file").touch()
    await stage.export(first)
    (stage.slot / "vendor/lib").rmdir()
    (stage.slot / "vendor/lib").symlink_to("/etc")
    await stage.export(await stage.commit({**tree, "file": b"2"}))
    make_repository(stage.slot / "vendor/lib/again").save("file", "1")
    await stage.export(await stage.commit({"file": b"3", "vendor/lib/file": b"now ours"}))


async def test_kept_directories_stay_and_only_those(stage: Stage) -> None:
    stage.tree = replace(stage.tree, keep=("node_modules", "w*x", "front/node_modules", "absent"))
    await stage.export(await stage.commit({**FIRST, "front/file": b"1"}))
    kept = ["node_modules/a/.git/x", "w*x/a", "front/node_modules/a"]
    gone = ["d0/node_modules/a", "wZx/a", "w/x/a", "front/other", "front/dist/a"]
    for name in [*kept, *gone]:
        (stage.slot / name).parent.mkdir(parents=True, exist_ok=True)
        (stage.slot / name).write_text("x")
    await stage.export(await stage.commit(SECOND))
    assert [name for name in kept if not (stage.slot / name).exists()] == []
    assert [name for name in gone if (stage.slot / name).exists()] == []
    await stage.export(await stage.commit(FIRST), full=True)
    assert [name for name in kept if not (stage.slot / name).exists()] == []


async def test_link_with_the_name_of_a_kept_directory_goes(stage: Stage, tmp_path: Path) -> None:
    stage.tree = replace(stage.tree, keep=("node_modules", "front/node_modules"))
    await stage.export(await stage.commit(FIRST))
    (tmp_path / "node_modules").mkdir()
    (stage.slot / "node_modules").symlink_to(tmp_path)
    (stage.slot / "front").symlink_to(tmp_path)
    revision = await stage.commit(SECOND)
    await stage.source.export(revision, stage.tree)
    assert_equals_tree(stage.slot, stage.repository, revision)
    assert (tmp_path / "node_modules").is_dir()


@pytest.mark.parametrize("name", ["..", "/etc", ".", "a/../../b", "a\nb"])
async def test_kept_directory_outside_the_slot_is_refused(stage: Stage, name: str) -> None:
    first = await stage.commit(FIRST)
    with pytest.raises(ExportError, match="not a directory below the slot"):
        await stage.source.export(first, replace(stage.tree, keep=(name,)))


async def test_large_untracked_trees_are_moved_to_the_trash(stage: Stage) -> None:
    await stage.export(await stage.commit(FIRST))
    modules = stage.slot / "node_modules"
    modules.mkdir()
    for number in range(1_100):
        (modules / f"{number}").touch()
    await stage.export(await stage.commit(SECOND))
    (moved,) = (path for path in stage.tree.trash.rglob("*") if (path / "1099").exists())
    assert len(list(moved.iterdir())) == 1_100


async def test_more_untracked_files_than_one_listing_holds_all_go(stage: Stage) -> None:
    first = await stage.commit(FIRST)
    await stage.export(first)
    for number in range(6_000):
        (stage.slot / "d0" / f"{number:04}{'x' * 200}").touch()
    await stage.export(first)


async def test_planted_configuration_of_the_slot_runs_nothing(stage: Stage, tmp_path: Path) -> None:
    first = await stage.commit(FIRST)
    await stage.export(first)
    witness = tmp_path / "witness"
    script = tmp_path / "evil"
    script.write_text(f"#!/bin/sh\nid -u >>{witness}\n")
    script.chmod(0o755)
    hooks = stage.tree.git_dir / "hooks"
    hooks.mkdir()
    for name in ("post-index-change", "post-checkout"):
        shutil.copy(script, hooks / name)
    settings = {"core.fsmonitor": str(script), "core.hooksPath": str(hooks)}
    settings |= {"filter.evil.smudge": str(script)}
    for key, value in settings.items():
        run_git("config", "-f", str(stage.tree.git_dir / "config"), key, value, cwd=tmp_path)
    await stage.export(await stage.commit({**SECOND, ".gitattributes": b"* filter=evil\n"}))
    assert not witness.exists()


@needs_root
@pytest.mark.root
async def test_git_runs_as_the_owner_of_the_slot(stage: Stage) -> None:
    stage.tree = replace(stage.tree, owner=(NOBODY, NOBODY))
    await stage.export(await stage.commit(FIRST))
    owned = [stage.slot, *stage.slot.rglob("*"), *stage.tree.git_dir.rglob("*")]
    assert {path.lstat().st_uid for path in owned} == {NOBODY}


@needs_root
@pytest.mark.root
async def test_slot_of_another_user_is_set_aside_not_written(stage: Stage) -> None:
    first = await stage.commit(FIRST)
    await stage.export(first)
    give_to(stage.slot, NOBODY)
    give_to(stage.tree.git_dir, NOBODY)
    await stage.export(first)
    assert stage.slot.stat().st_uid == 0


async def test_unknown_revision_is_an_export_error_and_leaves_the_slot(stage: Stage) -> None:
    first = await stage.commit(FIRST)
    await stage.export(first)
    with pytest.raises(ExportError, match="no commit"):
        await stage.source.export(Revision("0" * 40), stage.tree)
    assert_equals_tree(stage.slot, stage.repository, first)


async def test_missing_contents_are_an_export_error(stage: Stage, tmp_path: Path) -> None:
    first = await stage.commit(FIRST)
    for pack in (tmp_path / "data/repos/app/git/objects/pack").iterdir():
        pack.unlink()
    with pytest.raises(ExportError):
        await stage.source.export(first, stage.tree)


@needs_root
@pytest.mark.root
async def test_full_disk_is_disk_pressure(stage: Stage, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    options = ("-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small))
    if await asyncio.to_thread(subprocess.call, ["mount", *options]) != 0:
        pytest.skip("may not mount")
    try:
        big = await stage.commit({f"file{number}": os.urandom(100_000) for number in range(20)})
        with pytest.raises(DiskPressureError):
            await stage.source.export(big, SlotTree(small / "a", small / "a.git", small / "trash"))
    finally:
        await asyncio.to_thread(subprocess.check_call, ["umount", str(small)])


async def test_git_carries_the_cookie_of_its_deploy(stage: Stage, tmp_path: Path) -> None:
    """By it the processes of a checkout are found whose daemon died."""
    slow = tmp_path / "slow" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 300\n")
    slow.chmod(0o755)
    source = GitSource("app", stage.repository.path, tmp_path / "data/slow/git", git=str(slow))
    revision = await stage.commit(FIRST)
    await source.refresh()
    cookie = f"d-{os.getpid()}-{os.urandom(4).hex()}"
    tree = replace(stage.tree, cookie=cookie, app="shop")
    export = asyncio.ensure_future(source.export(revision, tree))
    try:
        async with asyncio.timeout(20):
            while "sleep" not in (found := _carriers(cookie)):
                await asyncio.wait([export], timeout=0.01)
                assert not export.done(), export
        assert set(found.values()) == {b"shop"}
    finally:
        export.cancel()
        await asyncio.wait([export])
    assert not _carriers(cookie)


def _carriers(cookie: str) -> dict[str, bytes]:
    """Returns command -> app of the processes that carry the cookie."""
    environments = ((stat.command, read_environment(stat.pid)) for stat in all_processes())
    return {
        command: values.get(b"AUTOPILOT_APP", b"")
        for command, values in environments
        if values.get(b"AUTOPILOT_DEPLOY_ID") == cookie.encode()
    }


async def test_names_of_any_bytes_are_written_and_taken_away(stage: Stage) -> None:
    names = ["a\nb", os.fsdecode(b"\xff\xfe"), 'quo"te', "back\\slash", "-n", " lead", "tab\t", "*"]
    odd: dict[str, Content] = {f"d/{name}": b"1" for name in names}
    await stage.export(await stage.commit({**odd, **dict.fromkeys(names, b"2")}))
    await stage.export(await stage.commit({"file": b"1"}))


async def test_files_are_readable_whatever_the_umask_of_the_daemon(stage: Stage) -> None:
    first = await stage.commit(FIRST)
    previous = os.umask(0o077)
    try:
        await stage.export(first)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((stage.slot / "same").stat().st_mode) == 0o644
    assert stat.S_IMODE((stage.slot / "run").stat().st_mode) == 0o755


def _random_tree(random: Random) -> Tree:
    """A small tree in which files, directories, links and submodules often trade places."""
    tree: dict[str, Content] = {}
    for _ in range(random.randrange(1, 12)):
        parts = [random.choice("abc") for _ in range(random.randrange(1, 4))]
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        path = "/".join(parts)
        if any(name in tree for name in above) or any(name.startswith(path) for name in tree):
            continue
        kinds: list[Content] = [b"x", b"y", Program(b"x"), Link(b"a/b"), Link(b"/etc"), Submodule()]
        tree[path] = random.choice(kinds)
    return tree or {"a": b"x"}


def _random_damage(random: Random, slot: Path) -> None:
    """What an app may do to its slot, at places that trees use as well."""
    path = slot / "/".join(random.choice("abcd") for _ in range(random.randrange(1, 4)))
    parents = [above for above in path.parents if above != slot and slot in above.parents]
    if any(above.is_symlink() or not above.is_dir() for above in parents):
        return
    match random.randrange(6):
        case 0 if path.is_symlink() or path.is_file():
            path.unlink()
        case 1 if path.is_dir() and not path.is_symlink():
            elsewhere = slot / f"moved{random.random()}"
            path.rename(elsewhere)
            path.symlink_to(elsewhere)
        case 2 if not os.path.lexists(path):
            path.symlink_to(random.choice(["/etc", "..", "a", "/nonexistent"]))
        case 3 if path.is_dir() and not path.is_symlink():
            (path / ".git").mkdir(exist_ok=True)
        case 4 if path.is_dir() and not path.is_symlink():
            (path / "untracked").write_bytes(b"")
        case _ if not path.is_symlink() and not path.is_dir():
            path.write_bytes(random.choice([b"x", b"z"]))
        case _:
            pass


@pytest.mark.parametrize("seed", range(4))
async def test_any_sequence_of_trees_and_damage_ends_up_right(stage: Stage, seed: int) -> None:
    random = Random(seed)
    for _ in range(25):
        await stage.export(await stage.commit(_random_tree(random)), full=random.random() < 0.1)
        for _ in range(random.randrange(6)):
            _random_damage(random, stage.slot)
