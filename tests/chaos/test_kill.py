"""Scenarios 15 and 16: kill -9 of the daemon and of Caddy, under load, at every moment."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.acceptance.harness import (
    Daemon,
    Tally,
    app_processes,
    caddy_processes,
    load,
    processes,
    until,
)

OPEN = {"queued", "fetching", "gating", "preparing", "starting", "proving", "switching"}
PHASES = (
    "queued", "fetching", "gating", "preparing", "starting", "proving", "switching", "live",
    "baking", "draining",
)  # fmt: skip


@pytest.mark.parametrize("phase", PHASES)
def test_kill_at_a_phase_drops_nothing_and_the_wish_is_met(daemon: Daemon, phase: str) -> None:
    daemon.repo.manifest(bake_ms=300)
    first = daemon.repo.release("one")
    daemon.start().live(first)
    with never_failing(daemon) as tally:
        second = daemon.repo.release("two")
        wait_for_step(daemon.data, second, phase)
        daemon.kill()
        daemon.start()
        daemon.live(second)
        check_rest(daemon, second, "two")
    assert {"one", "two"} == tally.versions


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", range(4))
def test_kill_at_random_moments_leaves_one_live(daemon: Daemon, seed: int) -> None:
    kill_at_random(daemon, random.Random(seed), rounds=5)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_kill_at_200_random_moments_leaves_one_live(daemon: Daemon) -> None:
    kill_at_random(daemon, random.Random(), rounds=200)


def kill_at_random(daemon: Daemon, chance: random.Random, rounds: int) -> None:
    daemon.start().live(daemon.repo.release("start"))
    with never_failing(daemon):
        for number in range(rounds):
            version = f"v{number}"
            commit = daemon.repo.release(version)
            # From the first sight of the commit to the end of the drain takes less.
            pass_time(chance.uniform(0, 1.5))
            daemon.kill()
            daemon.start()
            daemon.live(commit)
            check_rest(daemon, commit, version)


def test_kill_while_it_starts_leaves_one_live(daemon: Daemon) -> None:
    chance = random.Random(1)
    daemon.start().live(daemon.repo.release("one"))
    commit = daemon.repo.release("two")
    with never_failing(daemon):
        # A wish is tried three times again before it stalls.
        for _ in range(3):
            daemon.kill()
            daemon.start(ready=False)
            pass_time(chance.uniform(0, 1.5))
        daemon.wait_ready()
        daemon.live(commit)
        check_rest(daemon, commit, "two")


def test_kill_of_daemon_and_app_at_once_brings_both_back(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    for _ in range(2):
        (app,) = app_processes(daemon.data)
        daemon.kill()
        kill(app)
        daemon.start().live(commit)
        check_rest(daemon, commit, "one")


def test_kill_of_caddy_in_a_deploy_lets_the_deploy_go_on(daemon: Daemon) -> None:
    daemon.start().live(daemon.repo.release("one"))
    for phase in ("preparing", "starting", "switching", "live"):
        commit = daemon.repo.release(phase)
        wait_for_step(daemon.data, commit, phase)
        for caddy in caddy_processes(daemon.data):
            kill(caddy)
        daemon.live(commit)
        daemon.serves(phase)
        check_rest(daemon, commit, phase)


def test_frozen_daemon_changes_nothing_for_clients(daemon: Daemon) -> None:
    daemon.start().live(daemon.repo.release("one"))
    assert daemon.process is not None
    with never_failing(daemon) as tally:
        for phase in ("starting", "switching"):
            commit = daemon.repo.release(phase)
            wait_for_step(daemon.data, commit, phase)
            daemon.process.send_signal(signal.SIGSTOP)
            wait_for_answers(tally, 50)
            daemon.process.send_signal(signal.SIGCONT)
            daemon.live(commit)
            check_rest(daemon, commit, phase)


def test_kill_in_a_rollback_goes_back_all_the_same(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    second = daemon.repo.release("two")
    daemon.live(second)
    with never_failing(daemon):
        asked = daemon.api("POST", "/rollback", {"wait": False})
        assert asked.status_code == 202, asked.text
        daemon.kill()
        daemon.start()
        daemon.live(first)
        check_rest(daemon, first, "one")
        assert daemon.deploy(second).json()["type"] == "quarantined"


def test_killed_caddy_serves_again_within_a_second(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    for _ in range(3):
        (before,) = caddy_processes(daemon.data)
        kill(before)
        daemon.serves("one", within=1)
        (after,) = caddy_processes(daemon.data)
        assert after != before
    check_rest(daemon, commit, "one")


def test_caddy_killed_while_the_daemon_is_down_comes_back_with_it(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    daemon.kill()
    (caddy,) = caddy_processes(daemon.data)
    kill(caddy)
    daemon.start()
    daemon.serves("one")
    check_rest(daemon, commit, "one")


@contextmanager
def never_failing(daemon: Daemon) -> Iterator[Tally]:
    """Requests all the while, and none of them may fail."""
    with load(daemon, clients=4) as tally:
        yield tally
    assert tally.answers > 0
    assert tally.failures == [], tally.failures[:5]


def check_rest(daemon: Daemon, commit: str, version: str) -> None:
    """What must be true at rest: one live, nothing unfinished, nothing stray, and it is served."""
    until(lambda: at_rest(daemon), what="it comes to rest")
    status = daemon.status()
    assert status["live_commit"] == commit
    roles = [slot["role"] for slot in status["slots"]]
    assert roles.count("live") == 1
    assert roles.count("previous") <= 1
    for record in daemon.api("GET", "/deploys?limit=200").json()["items"]:
        assert record["phase"] not in OPEN, record
    answer = daemon.get()
    assert (answer.status_code, answer.text) == (200, version)
    until(lambda: no_strays(daemon), what=f"nothing stray runs: {processes(daemon.data)}")


def at_rest(daemon: Daemon) -> bool:
    status = daemon.status()
    busy = [one for one in status["conditions"] if one["type"] == "Reconciling" and one["status"]]
    return not (status["deploy"] or status["queued"] or busy)


def no_strays(daemon: Daemon) -> bool:
    """Only live, what is still warm or draining, one Caddy and the daemon itself."""
    shown = [one for slot in daemon.status()["slots"] for one in slot["instances"] if one["up"]]
    named = {one["pid"] for one in shown}
    caddies = caddy_processes(daemon.data)
    assert daemon.process is not None
    return len(caddies) == 1 and set(processes(daemon.data)) == {
        *named, *caddies, daemon.process.pid
    }  # fmt: skip


def wait_for_step(data: Path, commit: str, phase: str) -> None:
    """Returns the moment a deploy of the commit has entered the phase, by the store itself."""
    deadline = time.monotonic() + 20
    with closing(sqlite3.connect(f"file:{data}/autopilot.db?mode=ro", uri=True)) as store:
        while not store.execute(
            "SELECT 1 FROM progress JOIN deploys ON deploys.id = progress.deploy_id"
            " WHERE deploys.revision = ? AND progress.phase = ?", (commit, phase),
        ).fetchone():  # fmt: skip
            assert time.monotonic() < deadline, f"{commit} did not reach {phase}"
            time.sleep(0.0005)


def wait_for_answers(tally: Tally, more: int) -> None:
    before = tally.answers
    until(lambda: tally.answers > before + more, what="clients are served")


def pass_time(seconds: float) -> None:
    """The one place that waits for nothing: a random moment has no event of its own."""
    time.sleep(seconds)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
