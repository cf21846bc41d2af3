"""Scenario 22: a store that is newer, missing or begun anew, while apps serve."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tests.acceptance.harness import ROOT, Daemon, caddy_processes, load

VERSION_AFTER_NEXT = "99.1.0"


def test_newer_store_is_refused_with_the_version_that_opens_it(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    before = running(daemon)
    daemon.stop()
    mark_newer(daemon)
    with load(daemon, clients=2) as tally:
        told = refused_start(daemon)
    assert VERSION_AFTER_NEXT in told
    assert tally.failures == []
    assert running(daemon) == before
    assert daemon.get().text == "one"


def test_store_of_the_first_release_is_opened_with_its_history(daemon: Daemon) -> None:
    daemon.data.mkdir(mode=0o711)
    (daemon.data / "host.id").write_text("host-1")
    with closing(sqlite3.connect(daemon.data / "autopilot.db")) as store:
        store.executescript((ROOT / "fixtures" / "stores" / "v1.sql").read_text())
    commit = daemon.repo.release("one")
    daemon.start().live(commit, "web")
    found = daemon.api("GET", "/deploys?limit=200").json()["items"]
    assert {"shop", "web"} == {record["app"] for record in found}


def test_missing_store_while_slots_exist_is_refused(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    before = running(daemon)
    daemon.stop()
    remove_store(daemon)
    told = refused_start(daemon)
    assert "--adopt" in told
    assert not (daemon.data / "autopilot.db").exists()
    assert running(daemon) == before
    assert daemon.get().text == "one"


def test_adopt_begins_a_store_from_what_is_live(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    before = running(daemon)
    daemon.stop()
    remove_store(daemon)
    with load(daemon, clients=2) as tally:
        daemon.start("--adopt").live(commit)
        assert daemon.cli("plan").returncode == 0
        assert running(daemon) == before
        second = daemon.repo.release("two")
        daemon.live(second)
        assert daemon.rollback().status_code == 200
        daemon.live(commit)
    assert tally.failures == []


def test_adopt_keeps_a_rollback(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    second = daemon.repo.release("two")
    daemon.live(second)
    assert daemon.rollback().status_code == 200
    daemon.stop()
    remove_store(daemon)
    daemon.start("--adopt").live(first)
    assert daemon.get().text == "one"
    # Asked anew, as a restart and a poll would.
    daemon.stop()
    daemon.start().live(first)
    third = daemon.repo.release("three")
    daemon.live(third)


def test_adopt_in_a_fresh_data_directory_changes_nothing(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start("--adopt").live(commit)
    assert daemon.get().text == "one"


def test_damaged_store_is_refused_and_apps_keep_serving(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    daemon.stop()
    remove_store(daemon)
    (daemon.data / "autopilot.db").write_bytes(b"no database at all" * 1000)
    assert "autopilot.db" in refused_start(daemon)
    assert daemon.get().text == "one"


def refused_start(daemon: Daemon) -> str:
    """Returns what a daemon says that must refuse to start."""
    already = len(daemon.said())
    daemon.start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(20) == 1
    told = daemon.said()[already:]
    assert "Traceback" not in told
    return told


def mark_newer(daemon: Daemon) -> None:
    """Makes the store look as a later release would leave it."""
    with closing(sqlite3.connect(daemon.data / "autopilot.db")) as store, store:
        store.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
        store.execute(
            "UPDATE meta SET value = ? WHERE key = 'product_version'", (VERSION_AFTER_NEXT,)
        )


def remove_store(daemon: Daemon) -> None:
    for path in daemon.data.glob("autopilot.db*"):
        path.unlink()


def running(daemon: Daemon) -> tuple[str, list[int]]:
    """Which app and which proxy answer, told by themselves: the store cannot tell any more."""
    return daemon.get().headers["X-Pid"], caddy_processes(daemon.data)
