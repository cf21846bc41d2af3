"""Scenario 13: what a change of the manifests does to apps that run, and what it must not do."""

from __future__ import annotations

import threading
from typing import Any

from tests.acceptance.harness import Daemon, app_processes, free_port, until
from tests.acceptance.test_processes import get, listens


def two_apps(daemon: Daemon) -> str:
    """Makes `web` and `api` live, each in a directory of its own; returns the commit."""
    for name in ("web", "api"):
        daemon.repo.manifest(name, path=name, routes=[{"path": f"/{name}"}])
        daemon.repo.app(f"{name} one", path=name)
    commit = daemon.repo.commit("two apps")
    daemon.start().live(commit, "web")
    daemon.live(commit, "api")
    return commit


def standing(daemon: Daemon, app: str) -> tuple[Any, ...]:
    """What must not change when nothing is deployed: slot, process and number of deploys."""
    status = daemon.status(app)
    pids = [
        one["pid"]
        for slot in status["slots"]
        if slot["role"] == "live"
        for one in slot["instances"]
    ]
    return status["live_slot"], pids, len(status["recent"])


def test_app_that_is_deployed_on_request_waits_for_it(daemon: Daemon) -> None:
    daemon.repo.manifest(deploy_on="request")
    first = daemon.repo.release("one")
    daemon.start()
    until(lambda: daemon.cli("plan").returncode == 0, what="it is converged")
    assert daemon.status()["recent"] == []
    assert daemon.deploy(None).json()["commit"] == first
    second = daemon.repo.release("two")
    until(lambda: daemon.api("GET", "/plan").json()["converged"], what="it is converged")
    assert daemon.get().text == "one"
    assert daemon.deploy("main").json()["commit"] == second


def test_keys_that_need_no_restart_apply_in_place(daemon: Daemon) -> None:
    two_apps(daemon)
    before = standing(daemon, "web")
    port = free_port()
    daemon.repo.manifest(
        "web",
        path="web",
        routes=[{"path": "/elsewhere"}],
        port=port,
        drain_timeout_ms=1234,
        bake_ms=1,
        standby_ms=1,
        health_interval_ms=50,
    )
    daemon.repo.commit("other routes")
    until(lambda: daemon.get("/elsewhere").text == "web one", what="the new route leads there")
    until(lambda: listens(port) and get(port).text == "web one", what="its own port listens")
    assert daemon.get("/web").status_code == 404
    assert daemon.get("/api").text == "api one"
    assert standing(daemon, "web") == before
    assert daemon.cli("plan").returncode == 0


def test_change_of_the_drain_applies_to_a_drain_that_goes_on(daemon: Daemon) -> None:
    """What drains for an hour by the old contract is let go by the new one."""
    keys: dict[str, Any] = {"path": "web", "bake_ms": 0}
    daemon.repo.manifest("web", **keys, drain_timeout_ms=3_600_000)
    daemon.repo.app("one", "time.sleep = lambda seconds, real=time.sleep: real(30)", path="web")
    daemon.repo.commit("one")
    daemon.start()
    first = daemon.repo.git("rev-parse", "HEAD")
    daemon.live(first)
    asked = threading.Thread(target=lambda: hang_up(daemon), daemon=True)
    asked.start()
    daemon.repo.app("two", path="web")
    second = daemon.repo.commit("two")
    daemon.live(second)
    until(
        lambda: [one for one in daemon.status()["slots"] if one["condition"] == "draining"],
        what="one drains",
    )
    daemon.repo.manifest("web", **keys, drain_timeout_ms=100)
    daemon.repo.commit("shorter")
    until(lambda: len(app_processes(daemon.data)) == 1, what="one is gone")
    asked.join(10)


def hang_up(daemon: Daemon) -> None:
    daemon.get("/slow")


def test_removed_app_is_drained_stopped_and_unrouted_and_comes_back(daemon: Daemon) -> None:
    commit = two_apps(daemon)
    before = standing(daemon, "web")
    manifest = daemon.repo.path / ".autopilot" / "apps" / "api.json"
    kept = manifest.read_text()
    manifest.unlink()
    daemon.repo.commit("without api")
    until(lambda: daemon.get("/api").status_code == 404, what="it is unrouted")
    until(lambda: len(app_processes(daemon.data)) == 1, what="it is stopped")
    assert standing(daemon, "web") == before
    assert (daemon.data / "apps" / "api" / "deploy-a" / "api" / "app.py").exists()
    assert daemon.api("GET", "/deploys?app=api").json()["items"]
    manifest.write_text(kept)
    again = daemon.repo.commit("with api")
    until(lambda: daemon.get("/api").text == "api one", what="it is back")
    assert daemon.status("api")["live_commit"] in (commit, again)
    assert standing(daemon, "web") == before


def test_request_in_flight_at_a_removed_app_is_answered(daemon: Daemon) -> None:
    started = daemon.data.parent / "started"
    slow = (
        f"def lazy(seconds, real=time.sleep):\n    open({str(started)!r}, 'w')\n    real(1.5)\n"
        "time.sleep = lazy"
    )
    daemon.repo.manifest("web", path="web", routes=[{"path": "/web"}])
    daemon.repo.app("web one", path="web")
    daemon.repo.manifest("api", path="api", routes=[{"path": "/slow"}], drain_timeout_ms=5000)
    daemon.repo.app("api one", slow, path="api")
    commit = daemon.repo.commit("two apps")
    daemon.start().live(commit, "api")
    daemon.live(commit, "web")
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(daemon.get("/slow").status_code))
    (daemon.repo.path / ".autopilot" / "apps" / "api.json").unlink()
    asking.start()
    until(started.exists, what="the request is in flight")
    daemon.repo.commit("without api")
    asking.join(10)
    assert answers == [200]
    until(lambda: len(app_processes(daemon.data)) == 1, what="it is stopped")


def test_invalid_or_empty_manifests_prune_nothing(daemon: Daemon) -> None:
    two_apps(daemon)
    before = [standing(daemon, app) for app in ("web", "api")]
    manifest = daemon.repo.path / ".autopilot" / "apps" / "api.json"
    kept = manifest.read_text()
    manifest.write_text('{"start_command": 5}')
    daemon.repo.commit("broken")
    until(lambda: daemon.condition("Stalled", "web")["reason"] == "InvalidManifest", what="told")
    daemon.repo.git("rm", "-r", "-q", ".autopilot")
    daemon.repo.commit("nothing at all")
    until(
        lambda: "no app is named" in daemon.condition("Stalled", "web")["message"],
        what="the emptiness is told",
    )
    daemon.stop()
    daemon.start()
    until(lambda: daemon.status("web")["healthy"], what="it is adopted")
    assert [standing(daemon, app) for app in ("web", "api")] == before
    assert daemon.get("/web").text == "web one"
    assert daemon.get("/api").text == "api one"
    daemon.repo.manifest("web", path="web", routes=[{"path": "/web"}])
    manifest.write_text(kept)
    daemon.repo.commit("mended")
    until(lambda: not daemon.condition("Stalled", "web")["status"], what="it is not stalled")
    assert [standing(daemon, app) for app in ("web", "api")] == before
