"""Scenario 14 and what is near it: the daemon goes and comes, and apps and proxy do not notice."""

from __future__ import annotations

import os
import signal
import threading

import httpx
import pytest

from tests.acceptance.harness import (
    ROOT,
    Daemon,
    app_processes,
    caddy_processes,
    load,
    processes,
    until,
)

STREAMS = ROOT / "fixtures" / "apps" / "streams" / "server.py"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stop_and_start_drops_nothing_and_adopts(daemon: Daemon, number: signal.Signals) -> None:
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    before = running(daemon)
    with load(daemon) as tally:
        for _ in range(2):
            assert daemon.stop(number) == 0
            assert running(daemon) == before
            daemon.start().live(commit)
    assert running(daemon) == before
    assert tally.answers > 0
    assert tally.failures == []


def test_commit_while_the_daemon_is_down_deploys_when_it_is_back(daemon: Daemon) -> None:
    daemon.start().live(daemon.repo.release("one"))
    with load(daemon) as tally:
        daemon.stop()
        second = daemon.repo.release("two")
        daemon.start().live(second)
    assert tally.failures == []
    assert daemon.get().text == "two"


def test_app_that_died_while_the_daemon_was_down_is_started_again(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    daemon.stop()
    (app,) = app_processes(daemon.data)
    os.kill(app, signal.SIGKILL)
    daemon.start().live(commit)
    assert daemon.get().text == "one"


def test_stop_with_on_exit_stop_leaves_nothing(daemon: Daemon) -> None:
    daemon.flags = ("--on-exit", "stop")
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    assert daemon.stop() == 0
    assert processes(daemon.data) == {}
    with pytest.raises(httpx.ConnectError):
        daemon.get()
    daemon.start().live(commit)
    assert daemon.get().text == "one"


def test_stop_lets_requests_under_way_end(daemon: Daemon) -> None:
    daemon.flags = ("--on-exit", "stop")
    daemon.repo.manifest(health_endpoint="/")
    daemon.repo.write("app.py", STREAMS.read_text())
    daemon.start().live(daemon.repo.commit("one"))
    begun, told = threading.Event(), []

    def ask() -> None:
        url = f"http://127.0.0.1:{daemon.http_port}/late"
        with (
            httpx.Client(trust_env=False, timeout=10) as client,
            client.stream("GET", url) as answer,
        ):
            begun.set()
            told.append(answer.read().decode())

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert begun.wait(10)
        assert daemon.stop() == 0
    finally:
        asking.join(10)
    assert told == ["one"]
    assert processes(daemon.data) == {}


def test_second_daemon_names_the_first_and_ends(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    assert daemon.process is not None
    first = daemon.process
    second = daemon.cli(
        "server", "start", "--repo", str(daemon.repo.path), "--data-dir", str(daemon.data),
        "--port", str(daemon.port), "--http-port", str(daemon.http_port),
    )  # fmt: skip
    assert second.returncode == 1
    told = second.stdout + second.stderr
    assert str(first.pid) in told
    assert f"http://127.0.0.1:{daemon.port}" in told
    assert f"http://127.0.0.1:{daemon.http_port}" in told
    assert "Traceback" not in told
    assert daemon.get().text == "one"


def test_stopped_app_is_noticed_and_restarted(daemon: Daemon) -> None:
    daemon.repo.manifest(health_interval_ms=200, health_failures=2)
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    (app,) = app_processes(daemon.data)
    os.kill(app, signal.SIGSTOP)
    until(lambda: app not in app_processes(daemon.data), what="the frozen one is gone")
    daemon.live(commit)
    assert daemon.get().text == "one"
    assert len(app_processes(daemon.data)) == 1


def test_hung_app_is_noticed_and_restarted(daemon: Daemon) -> None:
    daemon.repo.manifest(health_interval_ms=200, health_failures=2)
    hang = "hung = threading.Event()\nsignal.signal(signal.SIGUSR1, lambda *_: hung.set())\n"
    health = "def health():\n    while hung.is_set():\n        time.sleep(1)\n    return 200\n"
    commit = daemon.repo.release("one", hang + health)
    daemon.start().live(commit)
    (app,) = app_processes(daemon.data)
    os.kill(app, signal.SIGUSR1)
    until(lambda: app not in app_processes(daemon.data), what="the hung one is gone")
    daemon.live(commit)
    assert daemon.get().text == "one"


def test_unhealthy_app_is_left_alone_when_told_to_alert(daemon: Daemon) -> None:
    daemon.repo.manifest(health_interval_ms=200, health_failures=2, on_unhealthy="alert")
    sick = "sick = threading.Event()\nsignal.signal(signal.SIGUSR1, lambda *_: sick.set())\n"
    commit = daemon.repo.release("one", sick + "def health(): return 500 if sick.is_set() else 200")
    daemon.start().live(commit)
    (app,) = app_processes(daemon.data)
    os.kill(app, signal.SIGUSR1)
    until(lambda: daemon.condition("Stalled")["reason"] == "Unhealthy", what="it is told")
    assert list(app_processes(daemon.data)) == [app]
    assert daemon.get().text == "one"


def running(daemon: Daemon) -> tuple[list[int], list[int]]:
    return sorted(app_processes(daemon.data)), caddy_processes(daemon.data)
