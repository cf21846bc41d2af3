"""Scenario 6: one deploy at a time; a second is refused, or waits, and a newer wish wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.acceptance.harness import Daemon, until


def gated(daemon: Daemon, version: str) -> tuple[str, Path]:
    """Releases a version that boots only once the file returned with it is there."""
    gate = daemon.data.parent / f"gate-{version}"
    wait = f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    return daemon.repo.release(version, wait), gate


def begin(daemon: Daemon, commit: str, **keys: Any) -> str:
    answer = daemon.deploy(commit, wait=False, **keys)
    assert answer.status_code == 202, answer.text
    deploy_id: str = answer.json()["deploy_id"]
    return deploy_id


def in_progress(daemon: Daemon, commit: str) -> dict[str, Any]:
    """Waits until the deploy that holds the app is one of that commit and has begun."""

    def found() -> dict[str, Any] | None:
        record: dict[str, Any] | None = daemon.status()["deploy"]
        begun = record is not None and record["commit"] == commit and record["phase"] != "queued"
        return record if begun else None

    record: dict[str, Any] = until(found, what=f"{commit[:10]} is being deployed")
    return record


def test_second_deploy_is_refused_and_names_the_one_in_progress(daemon: Daemon) -> None:
    daemon.repo.manifest(deploy_on="request")
    first, gate = gated(daemon, "one")
    daemon.start()
    running = begin(daemon, first)
    second = daemon.repo.release("two")
    refused = daemon.deploy(second)
    assert (refused.status_code, refused.json()["type"]) == (409, "deploy-in-progress")
    assert refused.json()["deploy_id"] == running
    gate.touch()
    assert daemon.ended(running)["phase"] == "live"
    assert daemon.deploy(second).status_code == 200


def test_queued_deploy_waits_and_the_newest_supersedes_older_ones(daemon: Daemon) -> None:
    daemon.repo.manifest(deploy_on="request")
    first, gate = gated(daemon, "one")
    daemon.start()
    running = begin(daemon, first)
    in_progress(daemon, first)
    second, third = daemon.repo.release("two"), daemon.repo.release("three")
    waiting = begin(daemon, second, queue=True)
    assert [one["deploy_id"] for one in daemon.status()["queued"]] == [waiting]
    newest = begin(daemon, third, queue=True)
    older = daemon.ended(waiting)
    assert (older["phase"], older["reason"]) == ("superseded", "superseded-by-newer")
    assert [one["deploy_id"] for one in daemon.status()["queued"]] == [newest]
    gate.touch()
    assert daemon.ended(running)["phase"] == "live"
    assert daemon.ended(newest)["phase"] == "live"
    assert daemon.get().text == "three"


def test_push_during_a_deploy_waits_and_goes_live_after_it(daemon: Daemon) -> None:
    first, gate = gated(daemon, "one")
    daemon.start()
    running = in_progress(daemon, first)["deploy_id"]
    daemon.repo.release("two")
    until(lambda: daemon.status()["queued"], what="the push waits")
    third = daemon.repo.release("three")
    until(lambda: daemon.status()["queued"][0]["commit"] == third, what="the newer push waits")
    gate.touch()
    assert daemon.ended(running)["phase"] == "live"
    status = daemon.live(third)
    assert status["previous_commit"] == first
    assert [one["phase"] for one in status["recent"]] == ["live", "superseded", "live"]


def test_push_that_waits_behind_a_failing_deploy_is_deployed_after_it(daemon: Daemon) -> None:
    gate = daemon.data.parent / "gate"
    wait = f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)\nsys.exit(3)"
    bad = daemon.repo.release("bad", wait)
    daemon.start()
    running = in_progress(daemon, bad)["deploy_id"]
    good = daemon.repo.release("good")
    until(lambda: daemon.status()["queued"], what="the push waits")
    gate.touch()
    assert daemon.ended(running)["phase"] == "failed"
    daemon.live(good)
    assert daemon.condition("Stalled")["status"] is False


def test_deploy_of_one_app_does_not_wait_for_another(daemon: Daemon) -> None:
    daemon.repo.manifest("web", deploy_on="request", routes=[{"path": "/web"}])
    daemon.repo.manifest("api", deploy_on="request", routes=[{"path": "/api"}], path="api")
    daemon.repo.app("api one", path="api")
    first, gate = gated(daemon, "one")
    daemon.start()
    slow = begin(daemon, first, app="web")
    quick = daemon.deploy(first, app="api")
    assert quick.status_code == 200, quick.text
    assert daemon.get("/api").text == "api one"
    assert daemon.status("web")["deploy"]["deploy_id"] == slow
    gate.touch()
    assert daemon.ended(slow)["phase"] == "live"
