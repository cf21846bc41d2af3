"""Scenarios 18 and 20: several apps of one repository, each by itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.acceptance.harness import Daemon, load, until


@pytest.fixture
def apps(daemon: Daemon) -> Daemon:
    """Three apps, each in a directory of its own, at the same host."""
    (daemon.repo.path / ".autopilot/apps/web.json").unlink()
    for name in ("red", "green", "blue"):
        add(daemon, name)
    return daemon


def add(
    daemon: Daemon, name: str, version: str = "one", behaviour: str = "", **keys: object
) -> None:
    daemon.repo.manifest(name, path=name, routes=[{"path": f"/{name}"}], **keys)
    daemon.repo.app(f"{name} {version}", behaviour, path=name)


def deploys(daemon: Daemon, app: str) -> list[str]:
    answer = daemon.api("GET", f"/deploys?app={app}")
    return [record["commit"] for record in answer.json()["items"]]


def test_slow_boot_of_one_app_does_not_delay_another(daemon: Daemon) -> None:
    (daemon.repo.path / ".autopilot/apps/web.json").unlink()
    add(daemon, "slow", behaviour="time.sleep(4)", health_timeout_ms=30000)
    add(daemon, "quick")
    commit = daemon.repo.commit("both")
    daemon.start().live(commit, "quick")
    assert daemon.status("slow")["live_commit"] is None
    daemon.repo.app("quick two", path="quick")
    second = daemon.repo.commit("two")
    daemon.live(second, "quick")
    assert daemon.get("/quick").text == "quick two"
    assert daemon.status("slow")["live_commit"] is None
    daemon.live(commit, "slow")
    assert daemon.get("/slow").text == "slow one"


def test_commit_that_touches_one_path_deploys_that_app_only(apps: Daemon) -> None:
    first = apps.repo.commit("all")
    apps.start()
    for name in ("red", "green", "blue"):
        apps.live(first, name)
        assert apps.get(f"/{name}").text == f"{name} one"
    apps.repo.app("green two", path="green")
    second = apps.repo.commit("green")
    apps.live(second, "green")
    third = apps.repo.commit("nothing")
    until(lambda: seen(apps, third, "blue"), what="the empty commit was seen")
    assert deploys(apps, "red") == deploys(apps, "blue") == [first]
    assert deploys(apps, "green") == [second, first]
    assert apps.get("/green").text == "green two"
    assert apps.get("/red").text == "red one"


def test_app_added_later_deploys_and_the_others_stay(apps: Daemon) -> None:
    (apps.repo.path / ".autopilot/apps/blue.json").unlink()
    first = apps.repo.commit("two apps")
    apps.start()
    for name in ("red", "green"):
        apps.live(first, name)
    assert apps.get("/blue").status_code == 404
    add(apps, "blue")
    second = apps.repo.commit("blue")
    until(lambda: "blue" in apps.status()["apps"], what="blue is known")
    apps.live(second, "blue")
    assert apps.get("/blue").text == "blue one"
    assert deploys(apps, "red") == deploys(apps, "green") == [first]


def test_watched_paths_deploy_an_app_too(apps: Daemon) -> None:
    add(apps, "red", watch_paths=["shared/**", "*.lock"])
    first = apps.repo.commit("all")
    apps.start()
    for name in ("red", "green"):
        apps.live(first, name)
    apps.repo.write("shared/deep/words.txt", "new")
    second = apps.repo.commit("shared")
    apps.live(second, "red")
    apps.repo.write("some.lock", "new")
    third = apps.repo.commit("lock")
    apps.live(third, "red")
    assert deploys(apps, "green") == [first]


def test_without_a_name_several_apps_are_ambiguous(apps: Daemon) -> None:
    first = apps.repo.commit("all")
    apps.start().live(first, "red")
    refused = apps.deploy(first)
    assert (refused.status_code, refused.json()["type"]) == (400, "ambiguous-app")
    status = apps.status()
    assert status["live_commit"] is None
    assert status["apps"]["red"]["live_commit"] == first
    unknown = apps.deploy(first, app="violet")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "unknown-app")


def test_app_that_is_removed_is_unrouted_and_the_others_are_not_disturbed(apps: Daemon) -> None:
    first = apps.repo.commit("all")
    apps.start()
    for name in ("red", "green", "blue"):
        apps.live(first, name)
    (apps.repo.path / ".autopilot/apps/blue.json").unlink()
    apps.repo.commit("no blue")
    until(lambda: apps.get("/blue").status_code == 404, what="blue is gone")
    assert apps.get("/red").text == "red one"
    add(apps, "blue", "two")
    third = apps.repo.commit("blue is back")
    apps.live(third, "blue")
    assert apps.get("/blue").text == "blue two"


def test_deploys_of_several_apps_at_once_drop_nothing(apps: Daemon) -> None:
    first = apps.repo.commit("all")
    apps.start()
    for name in ("red", "green", "blue"):
        apps.live(first, name)
    with load(apps, clients=4, path="/red") as tally:
        for name in ("red", "green", "blue"):
            apps.repo.app(f"{name} two", path=name)
        second = apps.repo.commit("all again")
        for name in ("red", "green", "blue"):
            apps.live(second, name)
    assert tally.failures == []
    assert tally.versions == {"red one", "red two"}


def test_app_that_cannot_be_looked_at_disturbs_nobody_and_keeps_its_routes(apps: Daemon) -> None:
    (apps.repo.path / ".autopilot/apps/blue.json").unlink()
    first = apps.repo.commit("two apps")
    apps.start()
    for name in ("red", "green"):
        apps.live(first, name)
    slot = apps.status("red")["live_slot"]
    apps.stop()
    (apps.data / f"apps/red/slots/{slot}.json").write_text("half a rec")
    apps.start()
    assert apps.condition("Stalled", "red")["reason"] == "PassFailed"
    add(apps, "blue")
    apps.repo.app("green two", path="green")
    second = apps.repo.commit("blue, and green")
    until(lambda: "blue" in apps.status()["apps"], what="blue is known")
    for name in ("green", "blue"):
        apps.live(second, name)
    assert apps.get("/green").text == "green two"
    assert apps.get("/blue").text == "blue one"
    assert apps.get("/red").text == "red one"
    assert apps.stop() == 0
    assert apps.get("/red").text == "red one"


def test_removed_app_leaves_the_daemon_idle(apps: Daemon) -> None:
    first = apps.repo.commit("all")
    apps.start()
    for name in ("red", "green", "blue"):
        apps.live(first, name)
    (apps.repo.path / ".autopilot/apps/blue.json").unlink()
    apps.repo.commit("no blue")
    until(lambda: apps.get("/blue").status_code == 404, what="blue is gone")
    until(lambda: idle(apps), what="it does nothing any more")


def idle(daemon: Daemon) -> bool:
    """Whether the daemon used next to no time of a processor for half a second."""
    assert daemon.process is not None
    before, began = processor_time(daemon.process.pid), time.monotonic()
    until(lambda: time.monotonic() > began + 0.5)
    return processor_time(daemon.process.pid) - before <= 0.02


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seen(daemon: Daemon, commit: str, app: str) -> bool:
    """Whether the app has taken notice of the head: told by its events."""
    events = daemon.api("GET", "/events?limit=200").json()["items"]
    return any(
        one["kind"] == "head.seen"
        and (one["payload"]["app"], one["payload"]["revision"]) == (app, commit)
        for one in events
    )
