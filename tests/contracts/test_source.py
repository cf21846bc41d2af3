"""What every source promises behind the port, whichever it is."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import cast

import pytest

from reconciler.model.errors import ExportError, UnknownRevisionError
from reconciler.model.names import Revision
from reconciler.ports import SlotTree, Source
from reconciler.sources.git import GitSource
from tests.sources.trees import (
    Link,
    Program,
    Repository,
    Submodule,
    Tree,
    assert_equals_tree,
    make_repository,
)

pytestmark = pytest.mark.anyio

MAKERS: dict[str, Callable[[Path, Path], Source]] = {
    "git": lambda repository, data: GitSource("app", repository, data / "repos/app/git"),
}
UNKNOWN = Revision("f" * 40)


@dataclass
class Stage:
    repository: Repository
    source: Source
    tree: SlotTree

    async def commit(self, tree: Tree, message: str = "change", branch: str = "main") -> Revision:
        revision = self.repository.commit(tree, message, branch)
        await self.source.refresh()
        return revision


@pytest.fixture(params=sorted(MAKERS))
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    repository = make_repository(tmp_path / "repository")
    source = MAKERS[request.param](repository.path, tmp_path / "data")
    tree = SlotTree(tmp_path / "slot", tmp_path / "slot.git", tmp_path / "trash")
    return Stage(repository, source, tree)


async def test_nothing_is_known_before_the_first_refresh(stage: Stage) -> None:
    assert await stage.source.heads() == {}
    assert await stage.source.default_branch() is None


async def test_heads_are_those_of_the_last_refresh(stage: Stage) -> None:
    first = await stage.commit({"file": b"1"})
    second = stage.repository.commit({"file": b"2"})
    assert await stage.source.heads() == {"main": first}
    await stage.source.refresh()
    assert await stage.source.heads() == {"main": second}


async def test_refresh_twice_is_refresh_once(stage: Stage) -> None:
    first = await stage.commit({"file": b"1"})
    await asyncio.gather(*(stage.source.refresh() for _ in range(5)))
    assert await stage.source.heads() == {"main": first}


async def test_resolve_takes_ids_branches_and_tags(stage: Stage) -> None:
    first = await stage.commit({"file": b"1"})
    second = await stage.commit({"file": b"2"}, branch="topic/x")
    stage.repository.git("tag", "light", first)
    stage.repository.git("tag", "--annotate", "--message=m", "heavy", second)
    await stage.source.refresh()
    for text in (first, first[:4], first[:12].upper(), "main", "origin/main", "refs/heads/main"):
        assert await stage.source.resolve(text) == first
    for text in ("light", "refs/tags/light", "HEAD"):
        assert await stage.source.resolve(text) == first
    for text in ("heavy", "topic/x", stage.repository.git("rev-parse", "heavy")):
        assert await stage.source.resolve(text) == second


async def test_branch_hides_short_id_but_not_full_id(stage: Stage) -> None:
    first = await stage.commit({"file": b"1"})
    second = await stage.commit({"file": b"2"})
    for name in (first[:7], first):
        stage.repository.git("update-ref", f"refs/heads/{name}", second)
    await stage.source.refresh()
    assert await stage.source.resolve(first[:7]) == second
    assert await stage.source.resolve(first) == first


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "--help", "--upload-pack=x", "a..b", "main:file", "main^", "main~1", "main@{1}"),
        *("a\0b", "a\nb", "a b", "x" * 251, "nothing", "abcd", "abc", "f" * 40, "@", "/", "main/"),
        *("*", "main.lock", "../main", "refs/heads/", "\udcff", "origin/", "f" * 64),
    ],
)
async def test_what_is_no_revision_is_unknown(stage: Stage, text: str) -> None:
    await stage.commit({"file": b"1"})
    with pytest.raises(UnknownRevisionError):
        await stage.source.resolve(text)


async def test_ids_of_trees_and_files_are_unknown(stage: Stage) -> None:
    head = await stage.commit({"file": b"1"})
    for name in (f"{head}^{{tree}}", f"{head}:file"):
        object_id = stage.repository.git("rev-parse", name)
        for text in (object_id, object_id[:10]):
            with pytest.raises(UnknownRevisionError):
                await stage.source.resolve(text)


async def test_short_id_of_a_commit_may_be_that_of_a_file_as_well(stage: Stage) -> None:
    head = await stage.commit({"file": b"1"})
    contents = (b"%d" % number for number in count())
    same = next(content for content in contents if _blob_id(content).startswith(head[:4]))
    await stage.commit({"file": same}, branch="other")
    assert await stage.source.resolve(head[:4]) == head


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()  # noqa: S324


async def test_manifests_are_plain_files_below_dot_autopilot(stage: Stage) -> None:
    files: Tree = {
        ".autopilot/apps/web.yaml": b"name: web",
        ".autopilot/script": Program(b"#!"),
        ".autopilot/link": Link(b"/etc/passwd"),
        ".autopilot/module": Submodule(),
        ".autopilot/large": b"x" * ((1 << 20) + 1),
        ".autopilot/limit": b"x" * (1 << 20),
        "elsewhere/.autopilot/app.yaml": b"",
    }
    found = await stage.source.manifests(await stage.commit(files))
    assert found == {
        ".autopilot/apps/web.yaml": b"name: web",
        ".autopilot/script": b"#!",
        ".autopilot/limit": b"x" * (1 << 20),
    }


@pytest.mark.parametrize("entry", [None, b"a file", Link(b"elsewhere"), Submodule()])
async def test_dot_autopilot_that_is_no_directory_holds_nothing(
    stage: Stage, entry: bytes | Link | Submodule | None
) -> None:
    tree: dict[str, bytes | Link | Program | Submodule] = {"elsewhere/apps/web.yaml": b"name: web"}
    if entry is not None:
        tree[".autopilot"] = entry
    assert await stage.source.manifests(await stage.commit(tree)) == {}


async def test_questions_about_unknown_revisions_say_so(stage: Stage) -> None:
    head = await stage.commit({"file": b"1"})
    for revision in (UNKNOWN, Revision("not an id"), Revision("--help")):
        for question in (
            stage.source.manifests(revision),
            stage.source.subject(revision),
            stage.source.tracks(revision, "file"),
            stage.source.touches(head, revision, ".", []),
            stage.source.keep({"live/app": revision}),
        ):
            with pytest.raises(UnknownRevisionError):
                await question
        with pytest.raises(ExportError):
            await stage.source.export(revision, stage.tree)


async def test_descends_follows_history_and_is_true_of_itself(stage: Stage) -> None:
    first = await stage.commit({"file": b"1"})
    second = await stage.commit({"file": b"2"})
    aside = await stage.commit({"file": b"3"}, branch="aside")
    assert await stage.source.descends(second, first)
    assert await stage.source.descends(second, second)
    assert not await stage.source.descends(first, second)
    assert not await stage.source.descends(aside, second)
    assert not await stage.source.descends(second, UNKNOWN)


BASE: Tree = {
    "app/main.py": b"1",
    "app/deep/file.py": b"1",
    "lib/shared.py": b"1",
    "lib/deep/er/x.py": b"1",
    "docs/read.md": b"1",
    "script": b"#!",
}


@pytest.mark.parametrize(
    ("changed", "path", "globs", "expected"),
    [
        ({}, ".", ["**"], False),
        ({"docs/read.md": b"2"}, ".", [], True),
        ({"docs/read.md": b"2"}, "app", [], False),
        ({"app/deep/file.py": b"2"}, "app", [], True),
        ({"app/deep/file.py": b"2"}, "./app/", [], True),
        ({"app/new": b"2"}, "app", [], True),
        ({"app/main.py": None}, "app", [], True),
        ({"app/main.py": Program(b"1")}, "app", [], True),
        ({"app": Link(b"lib")}, "app", [], True),
        ({"script": Program(b"#!")}, "app", ["script"], True),
        ({"lib/shared.py": b"2"}, "app", ["lib/*.py"], True),
        ({"lib/deep/er/x.py": b"2"}, "app", ["lib/*.py"], False),
        ({"lib/deep/er/x.py": b"2"}, "app", ["lib/**/*.py"], True),
        ({"lib/shared.py": b"2"}, "app", ["lib/**/*.py"], True),
        ({"lib/shared.py": b"2"}, "app", ["**/*.md", "lib/**"], True),
        ({"lib/deep/er/x.py": b"2"}, "app", ["lib"], True),
        ({"lib/deep/er/x.py": b"2"}, "app", ["lib/d*/"], True),
        ({"lib/shared.py": None, "lib/moved.py": b"1"}, "app", ["lib/moved.py"], True),
        ({"lib/shared.py": None, "docs/shared.py": b"1"}, "app", ["lib/*"], True),
        ({"docs/read.md": b"2"}, "absent", ["lib/**", "*.md"], False),
        ({"absent/file": b"2"}, "absent", [], True),
    ],
)
async def test_touches(
    stage: Stage,
    changed: dict[str, bytes | Link | Program | None],
    path: str,
    globs: Sequence[str],
    expected: bool,
) -> None:
    after = {name: content for name, content in BASE.items() if changed.get(name, b"") is not None}
    after |= {name: content for name, content in changed.items() if content is not None}
    if "app" in changed:
        after = {name: content for name, content in after.items() if not name.startswith("app/")}
    base, head = await stage.commit(BASE), await stage.commit(after)
    assert await stage.source.touches(base, head, path, globs) is expected
    assert await stage.source.touches(head, base, path, globs) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("data", True),
        ("data/", True),
        ("./data/seed.db", True),
        ("data/seed.db/x", False),
        ("dat", False),
        ("link", True),
        ("link/x", False),
        ("module", True),
        ("../data", False),
        (".", True),
    ],
)
async def test_tracks(stage: Stage, path: str, expected: bool) -> None:
    tree: Tree = {"data/seed.db": b"1", "link": Link(b"data"), "module": Submodule()}
    assert await stage.source.tracks(await stage.commit(tree), path) is expected


@pytest.mark.parametrize(
    ("message", "subject"),
    [
        ("one line", "one line"),
        ("\n\nfirst\nsecond", "first"),
        ("x" * 300, "x" * 200),
        ("red \x1b[31mink", "red [31mink"),
        ("", ""),
        ("ünï", "ünï"),
    ],
)
async def test_subject(stage: Stage, message: str, subject: str) -> None:
    assert await stage.source.subject(await stage.commit({"f": b"1"}, message)) == subject


async def test_export_makes_the_slot_equal_the_tree(stage: Stage) -> None:
    tree: Tree = {**BASE, "link": Link(b"app"), "run": Program(b"#!"), "module": Submodule()}
    for revision in [await stage.commit(tree), await stage.commit(BASE)]:
        for _ in range(2):
            await stage.source.export(revision, stage.tree)
            assert_equals_tree(stage.tree.worktree, stage.repository, revision)


async def test_keep_adds_and_moves(stage: Stage) -> None:
    first, second = await stage.commit({"f": b"1"}), await stage.commit({"f": b"2"})
    await stage.source.keep({"live/app": first})
    await stage.source.keep({"live/app": second, "prev/app": first})
    await stage.source.keep({})
    await stage.source.refresh()
    assert await stage.source.heads() == {"main": second}


async def test_watch_yields_at_a_move(stage: Stage) -> None:
    await stage.commit({"f": b"1"})
    watcher = cast("AsyncGenerator[None, None]", stage.source.watch())
    async with aclosing(watcher), asyncio.timeout(10):
        await anext(watcher)
        noticed = asyncio.ensure_future(anext(watcher))
        stage.repository.commit({"f": b"2"})
        await noticed
