"""Scenario 7: what becomes of a live process that ends, or that stops answering well."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from tests.acceptance.harness import Daemon, until

# Beside what the promise allows: others use the machine, too.
SLACK_S = 1.0


def web(daemon: Daemon) -> dict[str, Any]:
    """Returns the web instance of the live slot."""
    slot = next(one for one in daemon.status()["slots"] if one["role"] == "live")
    found: dict[str, Any] = next(one for one in slot["instances"] if one["process"] == "web")
    return found


def waits_for(path: Path) -> str:
    """Behaviour that boots the app only once the file is there."""
    return f"while not os.path.exists({str(path)!r}): time.sleep(0.01)"


def doomed(path: Path) -> str:
    """Behaviour that ends the app once the file is there, and each one that is started then."""
    return (
        "def end():\n"
        f"    while not os.path.exists({str(path)!r}): time.sleep(0.01)\n"
        "    os._exit(3)\n"
        "threading.Thread(target=end, daemon=True).start()"
    )


def sick(path: Path) -> str:
    return f"health = lambda: 500 if os.path.exists({str(path)!r}) else 200"


def test_dead_live_is_told_at_once(daemon: Daemon) -> None:
    gate = daemon.data.parent / "gate"
    gate.touch()
    commit = daemon.repo.release("one", waits_for(gate))
    daemon.start().live(commit)
    gate.unlink()
    os.kill(web(daemon)["pid"], signal.SIGKILL)
    until(
        lambda: daemon.status()["healthy"] is False,
        within=0.5 + SLACK_S, what="it is told as unhealthy",
    )  # fmt: skip
    assert daemon.condition("Ready")["status"] is False
    gate.touch()
    daemon.live(commit)


def test_dead_live_is_restarted_on_its_port_while_requests_wait(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    before = web(daemon)
    os.kill(before["pid"], signal.SIGKILL)
    answers: list[int] = []
    asking = [
        threading.Thread(target=lambda: answers.append(daemon.get().status_code)) for _ in range(4)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(10)
    assert answers == [200] * 4
    daemon.live(commit)
    after = web(daemon)
    assert after["address"] == before["address"]
    assert after["pid"] != before["pid"]
    assert daemon.status()["recent"][0]["phase"] == "live"


def test_live_that_dies_during_a_deploy_is_restarted_while_the_deploy_goes_on(
    daemon: Daemon,
) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    before = web(daemon)["pid"]
    gate = daemon.data.parent / "gate"
    second = daemon.repo.release("two", waits_for(gate))
    until(
        lambda: (found := daemon.status()["deploy"]) and found["phase"] == "proving",
        what="two is being proved",
    )
    os.kill(before, signal.SIGKILL)
    assert daemon.get().text == "one"
    assert web(daemon)["pid"] != before
    gate.touch()
    daemon.live(second)
    assert daemon.get().text == "two"


def test_crash_loop_within_the_bake_returns_to_previous(daemon: Daemon) -> None:
    daemon.repo.manifest(bake_ms=30000)
    first = daemon.repo.release("one")
    daemon.start().live(first)
    doom = daemon.data.parent / "doom"
    second = daemon.repo.release("two", doomed(doom))
    daemon.live(second)
    doom.touch()
    status = daemon.live(first)
    assert daemon.get().text == "one"
    back, bad = status["recent"][:2]
    assert (bad["commit"], bad["phase"], bad["reason"]) == (second, "rolled_back", "crash-loop")
    assert (back["commit"], back["phase"], back["trigger"]) == (first, "live", "bake")
    assert [one["commit"] for one in status["quarantine"]] == [second]
    assert daemon.deploy(second).json()["type"] == "quarantined"
    assert daemon.cli("plan").returncode == 0


def test_crash_loop_with_no_way_back_stalls_with_one_reason(daemon: Daemon) -> None:
    doom = daemon.data.parent / "doom"
    commit = daemon.repo.release("one", doomed(doom))
    daemon.start().live(commit)
    doom.touch()
    stalled = until(
        lambda: (found := daemon.condition("Stalled"))["status"] and found,
        within=30, what="it is stalled",
    )  # fmt: skip
    assert stalled["reason"] == "CrashLoop"
    assert "(and " not in stalled["message"]
    fixed = daemon.repo.release("two")
    daemon.live(fixed)
    assert daemon.condition("Stalled")["status"] is False


def test_process_that_may_not_restart_stalls_and_stays_down(daemon: Daemon) -> None:
    daemon.repo.manifest(restart="no")
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    os.kill(web(daemon)["pid"], signal.SIGKILL)
    until(lambda: daemon.condition("Stalled")["reason"] == "Exited", what="it is told")
    assert web(daemon)["up"] is False


def test_live_that_turns_unhealthy_is_restarted_once_and_kept(daemon: Daemon) -> None:
    daemon.repo.manifest(health_interval_ms=50, health_failures=2)
    flag = daemon.data.parent / "sick"
    commit = daemon.repo.release("one", sick(flag))
    daemon.start().live(commit)
    before = web(daemon)["pid"]
    flag.touch()
    until(lambda: web(daemon)["pid"] != before, what="the sick process is gone")
    flag.unlink()
    daemon.live(commit)
    after = web(daemon)["pid"]
    looked = time.monotonic()
    until(
        lambda: web(daemon)["pid"] != after or time.monotonic() - looked > 1.5,
        what="longer than a stop may take",
    )
    assert web(daemon)["pid"] == after


def test_unhealthy_live_of_an_app_that_only_alerts_is_left_running(daemon: Daemon) -> None:
    daemon.repo.manifest(health_interval_ms=50, health_failures=2, on_unhealthy="alert")
    flag = daemon.data.parent / "sick"
    commit = daemon.repo.release("one", sick(flag))
    daemon.start().live(commit)
    before = web(daemon)["pid"]
    flag.touch()
    until(lambda: daemon.condition("Stalled")["reason"] == "Unhealthy", what="it is told")
    assert web(daemon)["pid"] == before
    assert daemon.get().text == "one"
    flag.unlink()
    until(lambda: not daemon.condition("Stalled")["status"], what="it is well again")


def test_live_that_answers_badly_within_the_bake_returns_to_previous(daemon: Daemon) -> None:
    daemon.repo.manifest(health_interval_ms=50, health_failures=2, bake_ms=30000)
    first = daemon.repo.release("one")
    daemon.start().live(first)
    flag = daemon.data.parent / "sick"
    second = daemon.repo.release("two", sick(flag))
    daemon.live(second)
    flag.touch()
    status = daemon.live(first)
    bad = status["recent"][1]
    assert (bad["commit"], bad["phase"], bad["reason"]) == (second, "rolled_back", "bake-failed")
    assert [one["commit"] for one in status["quarantine"]] == [second]
    assert daemon.get().text == "one"
