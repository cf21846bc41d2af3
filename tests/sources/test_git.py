"""What GitSource sees of repositories of every kind, and how it fetches them."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.model.errors import (
    NotOwnerError,
    SourceError,
    UnknownHistoryError,
    UnknownRevisionError,
)
from reconciler.model.names import Revision
from reconciler.ports import SlotTree
from reconciler.sources.git import GitSource
from reconciler.sources.refs import locate, read_refs
from tests.sources.trees import (
    NOBODY,
    Repository,
    assert_equals_tree,
    give_to,
    make_repository,
    run_git,
)

pytestmark = pytest.mark.anyio
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@dataclass
class Stage:
    repository: Repository
    source: GitSource
    mirror: Path

    def again(self) -> GitSource:
        """Returns what a daemon that starts again has."""
        return GitSource("again", self.repository.path, self.mirror)

    def move_to(self, path: Path) -> None:
        self.repository = Repository(path)
        self.source = self.again()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    repository = make_repository(tmp_path / "repository")
    mirror = tmp_path / "data/repos/app/git"
    return Stage(repository, GitSource("app", repository.path, mirror), mirror)


def _bare(stage: Stage, path: Path) -> None:
    run_git("clone", "--quiet", "--bare", str(stage.repository.path), str(path), cwd=path.parent)


def _linked_worktree(stage: Stage, path: Path) -> None:
    stage.repository.git("worktree", "add", "--quiet", "-b", "linked", str(path))


def _shallow(stage: Stage, path: Path) -> None:
    url = stage.repository.path.as_uri()
    run_git("clone", "--quiet", "--depth=1", url, str(path), cwd=path.parent)


def _with_alternates(stage: Stage, path: Path) -> None:
    url = str(stage.repository.path)
    run_git("clone", "--quiet", "--shared", url, str(path), cwd=path.parent)


def _packed(stage: Stage, path: Path) -> None:
    _bare(stage, path)
    run_git("pack-refs", "--all", cwd=path)


KINDS = [_bare, _linked_worktree, _shallow, _with_alternates, _packed]


@pytest.mark.parametrize("make", KINDS)
async def test_every_kind_of_repository_is_fetched(
    stage: Stage, tmp_path: Path, make: Callable[[Stage, Path], None]
) -> None:
    stage.repository.save("file", "1")
    head = stage.repository.save("file", "2")
    make(stage, tmp_path / "kind")
    stage.move_to(tmp_path / "kind")
    await stage.source.refresh()
    assert (await stage.source.heads())["main"] == head


@pytest.mark.parametrize("name", ["with space", "with:colon", "per%20cent", "ünï", "-dash"])
async def test_path_of_any_name_is_fetched(stage: Stage, tmp_path: Path, name: str) -> None:
    head = stage.repository.save("file", "1")
    stage.repository.path.rename(tmp_path / name)
    stage.move_to(tmp_path / name)
    await stage.source.refresh()
    assert await stage.source.heads() == {"main": head}


async def test_objects_are_in_the_mirror_itself(stage: Stage, tmp_path: Path) -> None:
    head = stage.repository.save("file", "1")
    _with_alternates(stage, tmp_path / "shared")
    stage.move_to(tmp_path / "shared")
    await stage.source.refresh()
    shutil.rmtree(tmp_path / "repository")
    shutil.rmtree(tmp_path / "shared")
    slot = SlotTree(tmp_path / "slot", tmp_path / "slot.git", tmp_path / "trash")
    await stage.source.export(head, slot)
    assert_equals_tree(slot.worktree, Repository(stage.mirror), head)


async def test_commit_amend_and_reset_are_seen(stage: Stage) -> None:
    first = stage.repository.save("file", "1")
    for move in (
        ["commit", "--quiet", "--allow-empty", "--message=more"],
        ["commit", "--quiet", "--amend", "--allow-empty", "--message=amended"],
        ["reset", "--quiet", "--hard", first],
    ):
        stage.repository.git(*move)
        await stage.source.refresh()
        assert await stage.source.heads() == {"main": stage.repository.head()}


async def test_deleted_branches_and_tags_go_and_may_stand_in_the_way(stage: Stage) -> None:
    head = stage.repository.save("file", "1")
    stage.repository.git("branch", "a")
    stage.repository.git("tag", "t")
    await stage.source.refresh()
    stage.repository.git("branch", "-D", "a")
    stage.repository.git("tag", "-d", "t")
    stage.repository.git("branch", "a/b")
    await stage.source.refresh()
    assert await stage.source.heads() == {"main": head, "a/b": head}
    with pytest.raises(UnknownRevisionError):
        await stage.source.resolve("t")


async def test_references_of_ours_survive_refresh_and_their_gc(stage: Stage) -> None:
    stage.repository.save("file", "1")
    lost = stage.repository.save("file", "2", message="to be lost")
    await stage.source.refresh()
    await stage.source.keep({"live/app": lost, "try/app/1": lost})
    stage.repository.git("reset", "--quiet", "--hard", "HEAD^")
    stage.repository.git("reflog", "expire", "--expire=now", "--all")
    stage.repository.git("gc", "--quiet", "--prune=now")
    await stage.source.refresh()
    run_git("gc", "--quiet", "--prune=now", cwd=stage.mirror)
    assert await stage.source.subject(lost) == "to be lost"
    kept = run_git("for-each-ref", "--format=%(refname)", "refs/autopilot", cwd=stage.mirror)
    assert kept.decode().split() == ["refs/autopilot/live/app", "refs/autopilot/try/app/1"]


async def test_detached_head_is_fetched_and_named(stage: Stage) -> None:
    main = stage.repository.save("file", "1")
    stage.repository.git("checkout", "--quiet", "--detach")
    detached = stage.repository.save("file", "2")
    await stage.source.refresh()
    assert await stage.source.heads() == {"main": main, "HEAD": detached}
    assert await stage.source.checked_out() is None
    assert await stage.source.default_branch() == "main"
    assert await stage.source.resolve("HEAD") == detached
    stage.repository.git("checkout", "--quiet", "main")
    await stage.source.refresh()
    assert await stage.source.heads() == {"main": main}


async def test_empty_repository_has_nothing_and_then_something(stage: Stage) -> None:
    await stage.source.refresh()
    assert await stage.source.heads() == {}
    assert await stage.source.default_branch() is None
    assert await stage.source.checked_out() == "main"
    head = stage.repository.save("file", "1")
    await stage.source.refresh()
    assert await stage.source.heads() == {"main": head}


async def test_repository_that_lost_everything_prunes_nothing(stage: Stage) -> None:
    head = stage.repository.save("file", "1")
    await stage.source.refresh()
    shutil.rmtree(stage.repository.path)
    with pytest.raises(SourceError):
        await stage.source.refresh()
    make_repository(stage.repository.path)
    with pytest.raises(SourceError, match="no commits any more"):
        await stage.source.refresh()
    assert await stage.again().heads() == {"main": head}


async def test_default_branch_is_main_then_what_head_names(stage: Stage) -> None:
    stage.repository.git("checkout", "--quiet", "-b", "trunk")
    stage.repository.save("file", "1")
    await stage.source.refresh()
    assert await stage.source.default_branch() == "trunk"
    stage.repository.git("branch", "main")
    await stage.source.refresh()
    assert await stage.source.default_branch() == "main"
    assert await stage.source.checked_out() == "trunk"


async def test_one_broken_reference_does_not_stop_the_others(stage: Stage) -> None:
    head = stage.repository.save("file", "1")
    heads = stage.repository.path / ".git/refs/heads"
    (heads / "empty").touch()
    (heads / "missing").write_text("1" * 40 + "\n")
    (heads / "garbage").write_text("not an id\n")
    (heads / "bad name").write_text(head)
    await stage.source.refresh()
    assert (await stage.source.heads())["main"] == head
    again = stage.repository.save("file", "2")
    await stage.source.refresh()
    assert (await stage.source.heads())["main"] == again


async def test_pipe_among_the_references_holds_nobody_up(stage: Stage) -> None:
    head = stage.repository.save("file", "1")
    os.mkfifo(stage.repository.path / ".git/refs/heads/pipe")
    assert read_refs(locate(stage.repository.path)).named == {"refs/heads/main": head}


async def test_nothing_is_not_a_repository(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        source = GitSource("app", path, tmp_path / "mirror")
        with pytest.raises(SourceError, match="not a Git repository"):
            await source.refresh()
    assert not (tmp_path / "mirror").exists()


async def test_sha256_repository_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "repository"
    path.mkdir()
    run_git("init", "--quiet", "--object-format=sha256", cwd=path)
    Repository(path).save("file", "1")
    with pytest.raises(SourceError, match="SHA-256"):
        await GitSource("app", path, tmp_path / "mirror").refresh()


async def test_reftable_is_refused_by_name(stage: Stage) -> None:
    (stage.repository.path / ".git/reftable").mkdir()
    with pytest.raises(SourceError, match="reftable"):
        await stage.source.refresh()


async def test_half_made_mirrors_of_a_crash_are_removed(stage: Stage) -> None:
    head = stage.repository.save("file", "1")
    leftover = stage.mirror.parent / ".git.abandoned"
    (leftover / "objects").mkdir(parents=True)
    await stage.source.refresh()
    assert sorted(path.name for path in stage.mirror.parent.iterdir()) == ["git"]
    assert await stage.source.heads() == {"main": head}


async def test_only_objects_of_the_mirror_are_readable_by_others(stage: Stage) -> None:
    previous = os.umask(0o077)
    try:
        stage.repository.save("file", "1")
        await stage.source.refresh()
    finally:
        os.umask(previous)
    for folder in (stage.mirror, *stage.mirror.parents[:2]):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o711
    for path in stage.mirror.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        shared = "objects" in path.relative_to(stage.mirror).parts
        if shared:
            assert mode == (0o755 if path.is_dir() else 0o444)
        elif path.parent == stage.mirror:
            assert mode == (0o700 if path.is_dir() else 0o600)


async def test_packs_are_merged_and_lose_nothing(stage: Stage) -> None:
    commits = []
    for number in range(55):
        commits.append(stage.repository.save("file", f"{number}", message=f"{number}"))
        await stage.source.refresh()
        if number == 20:
            stage.repository.git("reset", "--quiet", "--hard", "HEAD~5")
    packs = list((stage.mirror / "objects/pack").glob("*.pack"))
    assert len(packs) < 20
    assert {oct(pack.stat().st_mode & 0o777) for pack in packs} == {"0o444"}
    assert [await stage.source.subject(commit) for commit in commits] == [
        f"{number}" for number in range(55)
    ]


async def test_shallow_history_is_unknown_until_it_is_fetched(stage: Stage, tmp_path: Path) -> None:
    first = stage.repository.save("file", "1")
    stage.repository.save("file", "2")
    third = stage.repository.save("file", "3")
    _shallow(stage, tmp_path / "clone")
    origin = stage.repository
    stage.move_to(tmp_path / "clone")
    await stage.source.refresh()
    assert await stage.source.descends(third, third)
    with pytest.raises(UnknownHistoryError, match="unshallow"):
        await stage.source.descends(third, first)
    fourth = stage.repository.save("file", "4")
    await stage.source.refresh()
    assert await stage.source.descends(fourth, third)
    assert not await stage.source.descends(third, fourth)
    stage.repository.git("fetch", "--quiet", "--unshallow", origin.path.as_uri(), "main")
    await stage.source.refresh()
    assert await stage.source.descends(fourth, first)
    assert not (stage.mirror / "shallow").exists()


async def test_full_mirror_of_a_repository_made_anew_as_shallow_keeps_its_history(
    stage: Stage, tmp_path: Path
) -> None:
    first, second = stage.repository.save("file", "1"), stage.repository.save("file", "2")
    await stage.source.refresh()
    _shallow(stage, tmp_path / "clone")
    stage.repository.path.rename(tmp_path / "origin")
    (tmp_path / "clone").rename(stage.repository.path)
    third = stage.repository.save("file", "3")
    await stage.source.refresh()
    assert await stage.source.descends(third, first)
    assert await stage.source.descends(third, second)


async def test_unchanged_repository_is_not_fetched_again(stage: Stage) -> None:
    stage.repository.save("file", "1")
    lines = [f"create refs/heads/agent/{number} HEAD\n" for number in range(200)]
    stage.repository.git("update-ref", "--stdin", stdin="".join(lines).encode())
    await stage.source.refresh()
    before = (stage.mirror / "FETCH_HEAD").stat()
    for source in (stage.source, stage.again()):
        await source.refresh()
    assert (stage.mirror / "FETCH_HEAD").stat() == before


@needs_root
@pytest.mark.root
@pytest.mark.parametrize("make", [None, *KINDS])
async def test_repository_of_another_user_is_fetched_as_that_user(
    stage: Stage, tmp_path: Path, make: Callable[[Stage, Path], None] | None
) -> None:
    stage.repository.save("file", "1")
    head = stage.repository.save("file", "2")
    if make is not None:
        make(stage, tmp_path / "kind")
        stage.move_to(tmp_path / "kind")
        give_to(tmp_path / "kind", NOBODY)
    give_to(tmp_path / "repository", NOBODY)
    await stage.source.refresh()
    assert (await stage.source.heads())["main"] == head
    assert {path.stat().st_uid for path in stage.mirror.rglob("*")} == {0}
    assert await stage.source.subject(head) == "change"


@needs_root
@pytest.mark.root
async def test_detached_and_shallow_repository_of_another_user(
    stage: Stage, tmp_path: Path
) -> None:
    stage.repository.save("file", "1")
    stage.repository.save("file", "2")
    _shallow(stage, tmp_path / "clone")
    stage.move_to(tmp_path / "clone")
    stage.repository.git("checkout", "--quiet", "--detach")
    detached = stage.repository.save("file", "3")
    give_to(tmp_path / "clone", NOBODY)
    await stage.source.refresh()
    assert (await stage.source.heads())["HEAD"] == detached
    with pytest.raises(UnknownHistoryError):
        await stage.source.descends(detached, Revision("1" * 40))


@needs_root
@pytest.mark.root
async def test_configuration_of_another_user_runs_nothing_as_root(
    stage: Stage, tmp_path: Path
) -> None:
    head = stage.repository.save("file", "1")
    witness = tmp_path / "witness"
    witness.mkdir()
    witness.chmod(0o777)
    script = tmp_path / "evil"
    script.write_text(f'#!/bin/sh\ntouch {witness}/$(id -u)\nexec "$@"\n')
    script.chmod(0o755)
    for key in ("uploadpack.packObjectsHook", "core.fsmonitor", "core.sshCommand"):
        stage.repository.git("config", key, str(script))
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        shutil.copy(script, stage.repository.path / ".git/hooks" / hook)
    give_to(stage.repository.path, NOBODY)
    await stage.source.refresh()
    assert await stage.source.heads() == {"main": head}
    assert {path.name for path in witness.iterdir()} <= {str(NOBODY)}


@needs_root
@pytest.mark.root
async def test_repository_that_points_at_a_private_one_of_ours_is_not_read(
    stage: Stage, tmp_path: Path
) -> None:
    stage.repository.save("file", "private")
    stage.repository.path.chmod(0o700)
    lure = tmp_path / "lure"
    lure.mkdir()
    (lure / ".git").write_text(f"gitdir: {stage.repository.path / '.git'}\n")
    give_to(lure, NOBODY)
    source = GitSource("lure", lure, tmp_path / "mirror")
    with pytest.raises(SourceError):
        await source.refresh()
    assert list((tmp_path / "mirror/objects/pack").iterdir()) == []


@needs_root
@pytest.mark.root
async def test_without_root_a_repository_of_another_user_is_refused(
    stage: Stage, tmp_path: Path
) -> None:
    stage.repository.save("file", "1")
    (tmp_path / "data").mkdir(mode=0o777)
    (tmp_path / "data").chmod(0o777)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(NotOwnerError, match="belongs to another user"):
            await stage.source.refresh()
    finally:
        os.seteuid(0)


async def test_file_names_of_any_bytes_never_stop_a_question(stage: Stage) -> None:
    names = ["a\nb", os.fsdecode(b"\xff\xfe"), "-x", 'q"', ".autopilot/\n", "x/..y"]
    base = stage.repository.commit({"file": b"1"})
    names.append(os.fsdecode(b".autopilot/\xff.yaml"))
    head = stage.repository.commit(dict.fromkeys(names, b"1"))
    await stage.source.refresh()
    assert set(await stage.source.manifests(head)) == {
        name for name in names if name.startswith(".autopilot/")
    }
    for name in names:
        assert await stage.source.touches(base, head, "elsewhere", [name])
    assert await stage.source.touches(base, head, ".", [])
    assert not await stage.source.tracks(head, os.fsdecode(b"\xfe"))


async def test_reads_and_refreshes_at_once_do_not_disturb_each_other(stage: Stage) -> None:
    import anyio  # noqa: PLC0415

    first = stage.repository.save("file", "1")
    await stage.source.refresh()

    async def read() -> None:
        for _ in range(50):
            assert await stage.source.subject(first) == "change"

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(read)
        for number in range(10):
            stage.repository.save("file", f"more {number}")
            group.start_soon(stage.source.refresh)
    await stage.source.refresh()
    assert await stage.source.heads() == {"main": stage.repository.head()}
