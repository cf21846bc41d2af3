"""Scenario 23: whatever lay in a slot before, what runs is the tree of its commit, byte by byte."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.harness import Daemon
from tests.sources.trees import Content, Link, Program, Repository, Submodule, assert_equals_tree


def base(daemon: Daemon) -> dict[str, Content]:
    """The files that an app needs to run, as the repository has them now."""
    files = ("app.py", ".autopilot/apps/web.json")
    return {name: (daemon.repo.path / name).read_bytes() for name in files}


def commit(daemon: Daemon, version: str, tree: dict[str, Content]) -> str:
    daemon.repo.app(version)
    return Repository(daemon.repo.path).commit({**base(daemon), **tree}, version)


def check(daemon: Daemon, revision: str, kept: tuple[str, ...] = ()) -> Path:
    """Waits until the revision is live, compares its slot with its tree; returns the slot."""
    status = daemon.live(revision)
    slot = daemon.data / "apps/web" / str(status["live_slot"])
    assert_equals_tree(slot, Repository(daemon.repo.path), revision, kept)
    return slot


def test_slots_equal_their_trees_in_every_order_of_deploys(daemon: Daemon) -> None:
    daemon.repo.manifest(deploy_on="request")
    many = {f"d{number % 7}/f{number}": b"%d\n" % number for number in range(100)}
    a = commit(daemon, "a", {**many, "only-a": b"a", "turns": b"a file"})
    b = commit(daemon, "b", {**many, "d0/f0": b"b", "turns/into": b"a directory"})
    c = commit(
        daemon, "c", {"d0": b"was a directory", "turns": Link(b"only-a"), "run": Program(b"")}
    )
    daemon.start()
    for revision in (a, b, a, c, b, c, a, a):
        answer = daemon.deploy(revision)
        assert answer.status_code == 200, answer.text
        check(daemon, revision)
    for revision in (a, c):
        assert daemon.rollback().status_code == 200
        check(daemon, revision)


def appended(slot: Path) -> None:
    (slot / "d0/f0").write_bytes(b"tampered")
    stat = (slot / "d0/f1").stat()
    (slot / "d0/f1").write_bytes(b"x" * stat.st_size)
    os.utime(slot / "d0/f1", ns=(stat.st_atime_ns, stat.st_mtime_ns))


def removed(slot: Path) -> None:
    (slot / "d0/f0").unlink()
    (slot / "d0").rename(slot / "elsewhere")


def nested(slot: Path) -> None:
    for folder in (slot / "vendored", slot / "d0/inner"):
        Repository(folder).path.mkdir()
        Repository(folder).git("init", "-q")
        (folder / "file").write_text("x")


def ignored(slot: Path) -> None:
    (slot / ".gitignore").write_text("*\n")
    (slot / "cache").mkdir()
    (slot / "cache/file").write_text("x")
    (slot / "a\nb").write_text("x")


def closed(slot: Path) -> None:
    (slot / "locked").mkdir()
    (slot / "locked/file").write_text("x")
    (slot / "locked").chmod(0o555)
    (slot / "d0").chmod(0o500)
    (slot / "d0/f0").chmod(0o000)
    (slot / "d0/f1").chmod(0o755)


def special(slot: Path) -> None:
    os.mkfifo(slot / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(slot / "s"))
    (slot / "d0/f0").unlink()
    os.mkfifo(slot / "d0/f0")


def damaged(slot: Path) -> None:
    git = slot.parent / "slots" / f"{slot.name}.git"
    (git / "index").write_bytes(b"nonsense")
    (git / "HEAD").unlink()
    (git / "index.lock").touch()
    (git / "config").write_text("[core]\n\tworktree = /\n\tautocrlf = true\n")


@pytest.mark.parametrize("tamper", [appended, removed, nested, ignored, closed, special, damaged])
def test_what_was_tampered_with_is_right_again(
    daemon: Daemon, tamper: Callable[[Path], None]
) -> None:
    daemon.repo.manifest(deploy_on="request")
    tree: dict[str, Content] = {"d0/f0": b"0\n", "d0/f1": b"1\n", "other": b"o\n"}
    first = commit(daemon, "one", tree)
    second = commit(daemon, "two", {**tree, "other": b"p\n"})
    daemon.start()
    tampered: set[Path] = set()
    for revision in (first, first, first, first, second, first, second):
        assert daemon.deploy(revision).status_code == 200
        live = check(daemon, revision)
        tampered.discard(live)
        for slot in set((daemon.data / "apps/web").glob("deploy-*")) - tampered - {live}:
            tamper(slot)
            tampered.add(slot)


def test_a_link_out_of_the_slot_is_never_written_through(daemon: Daemon) -> None:
    daemon.repo.manifest(deploy_on="request")
    outside = daemon.data.parent / "outside"
    outside.mkdir()
    (outside / "f0").write_text("theirs")
    linked = commit(
        daemon, "linked", {"d0": Link(os.fsencode(outside)), "up": Link(b"../../../..")}
    )
    plain = commit(daemon, "plain", {"d0/f0": b"ours", "d0/f1": b"ours", "up/f2": b"ours"})
    daemon.start()
    for revision in (linked, linked, linked, plain, plain, plain, plain):
        assert daemon.deploy(revision).status_code == 200
        live = check(daemon, revision)
        for slot in (daemon.data / "apps/web").glob("deploy-*"):
            if slot != live and (slot / "d0").is_dir() and not (slot / "d0").is_symlink():
                (slot / "d0").rename(slot.parent / f"trash/{slot.name}.{os.urandom(4).hex()}")
                (slot / "d0").symlink_to(outside)
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"f0": "theirs"}


def test_attributes_of_the_tree_change_no_byte(daemon: Daemon) -> None:
    daemon.repo.git("config", "filter.shout.smudge", "tr a-z A-Z")
    daemon.repo.git("config", "filter.shout.required", "true")
    attributes = b"* text eol=crlf ident filter=shout working-tree-encoding=UTF-16\n"
    tree: dict[str, Content] = {
        ".gitattributes": attributes, "unix": b"one\ntwo\n", "dos": b"one\r\ntwo\r\n",
        "id": b"$Id$\n", "sub/.gitattributes": attributes, "sub/odd": b"\xff\xfe\x00\n",
    }  # fmt: skip
    first = commit(daemon, "one", tree)
    daemon.start()
    check(daemon, first)
    check(daemon, commit(daemon, "two", {**tree, "unix": b"one\nthree\n"}))


def test_a_submodule_is_an_empty_directory(daemon: Daemon) -> None:
    first = commit(daemon, "one", {"sub": Submodule(), ".gitmodules": b""})
    daemon.start()
    slot = check(daemon, first)
    assert list((slot / "sub").iterdir()) == []


def test_kept_and_shared_directories_stay_beside_the_tree(daemon: Daemon) -> None:
    daemon.repo.manifest(
        keep_dirs=["node_modules"], shared_dirs=["data"],
        setup_command="mkdir -p node_modules && date +%N >> node_modules/built; echo x >> data/log",
    )  # fmt: skip
    first = commit(daemon, "v0", {"f": b"0"})
    daemon.start()
    slot = check(daemon, first, kept=("node_modules", "data"))
    for number in range(1, 5):
        revision = commit(daemon, f"v{number}", {"f": b"%d" % number})
        slot = check(daemon, revision, kept=("node_modules", "data"))
    assert len((slot / "node_modules/built").read_text().split()) == 2
    assert len((slot / "data/log").read_text().split()) == 5
    assert (slot / "data").resolve() == daemon.data / "apps/web/shared/data"


def test_a_commit_that_tracks_what_is_shared_is_refused_by_name(daemon: Daemon) -> None:
    daemon.repo.manifest(shared_dirs=["data"], deploy_on="request")
    daemon.repo.write("data/log", "tracked")
    bad = daemon.repo.release("one")
    daemon.start()
    answer = daemon.deploy(bad)
    assert (answer.status_code, answer.json()["reason"]) == (422, "shared-dir-tracked")
    assert "git rm -r --cached data" in answer.json()["detail"]
