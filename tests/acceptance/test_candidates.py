"""Scenario 9: a candidate that is no good fails in time, for its own reason, and leaves nothing."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import PYTHON, Daemon, app_processes, until

TIMEOUT_MS = 1500
# Beside the second that the promise allows: others use the machine, too.
SLACK_MS = 1000

HANGS = """
import socket
listener = socket.create_server((os.environ["HOST"], int(os.environ["PORT"])))
kept = []
while True:
    kept.append(listener.accept())
"""
NEVER_BINDS = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(60)"
HANGS_SOON = """
count = 0
def health():
    global count
    count += 1
    time.sleep(60 if count > 1 else 0)
    return 200
"""

BAD = {
    "exits": ("sys.exit(3)", "exited"),
    "never-binds": (NEVER_BINDS, "never-bound"),
    "answers-500": ("health = lambda: 500", "bad-status"),
    "redirects": ("health = lambda: 302", "bad-status"),
    "hangs": (HANGS, "probe-timeout"),
    "hangs-at-the-second-answer": (HANGS_SOON, "probe-timeout"),
    "another-port": ('os.environ["PORT"] = "0"', "wrong-address"),
}


def ports_of(daemon: Daemon, slot: str) -> list[int]:
    """Returns the ports that the slot's instances were given last."""
    found = next(one for one in daemon.status()["slots"] if one["name"] == slot)
    return [int(one["address"].rpartition(":")[2]) for one in found["instances"]]


def listening(port: int) -> bool:
    lines = [*Path("/proc/net/tcp").read_text().splitlines()[1:]]
    lines += [*Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    words = [line.split() for line in lines]
    return any(one[3] == "0A" and one[1].endswith(f":{port:04X}") for one in words)


def took_ms(record: dict[str, Any]) -> float:
    """Returns how long the deploy lasted from the start of its processes to its end."""
    phases = [one["phase"] for one in record["phases"]]
    ran = record["phases"][phases.index("starting") : phases.index("failed")]
    return sum(float(one["duration_ms"]) for one in ran)


@pytest.mark.parametrize(("behaviour", "reason"), BAD.values(), ids=BAD.keys())
def test_bad_candidate_fails_in_time_for_its_own_reason(
    daemon: Daemon, behaviour: str, reason: str
) -> None:
    daemon.repo.manifest(deploy_on="request", health_timeout_ms=TIMEOUT_MS)
    first = daemon.repo.release("one")
    daemon.start()
    assert daemon.deploy(first).status_code == 200
    before = set(app_processes(daemon.data))
    bad = daemon.repo.release("bad", behaviour)
    answer = daemon.deploy(bad)
    assert (answer.status_code, answer.json()["reason"]) == (422, reason), answer.text
    assert answer.json()["type"] == "candidate-unhealthy"
    assert took_ms(answer.json()) < TIMEOUT_MS + 1000 + SLACK_MS
    assert set(app_processes(daemon.data)) == before
    assert not any(listening(port) for port in ports_of(daemon, answer.json()["slot"]))
    assert daemon.get().text == "one"
    assert daemon.status()["live_commit"] == first


def test_candidate_whose_port_a_stranger_holds_is_not_to_blame(daemon: Daemon) -> None:
    daemon.repo.manifest(deploy_on="request", health_timeout_ms=TIMEOUT_MS)
    first = daemon.repo.release("one")
    daemon.start()
    assert daemon.deploy(first).status_code == 200
    told, taken = daemon.data.parent / "port", daemon.data.parent / "taken"
    daemon.repo.manifest(
        deploy_on="request",
        start_command=(
            f"echo $PORT >{told}.new; mv {told}.new {told}; "
            f"until test -e {taken}; do sleep 0.02; done; exec {PYTHON} -S -E app.py"
        ),
    )
    second = daemon.repo.release("two")
    deploy_id = daemon.deploy(second, wait=False).json()["deploy_id"]
    until(told.exists, what="the candidate knows its port")
    with socket.create_server(("127.0.0.1", int(told.read_text()))):
        taken.touch()
        record = daemon.ended(deploy_id)
    assert (record["phase"], record["reason"]) == ("failed", "port-taken")
    assert daemon.status()["quarantine"] == []
    assert daemon.get().text == "one"
    # It is nobody's fault, so it is tried again, elsewhere.
    daemon.live(second)


def test_candidate_is_served_where_it_really_listens(daemon: Daemon) -> None:
    commit = daemon.repo.release(
        "one", 'import socket\nThreadingHTTPServer.address_family = socket.AF_INET6\n'
        'os.environ["HOST"] = "::1"',
    )  # fmt: skip
    daemon.start().live(commit)
    assert daemon.get().text == "one"


def test_candidate_that_turns_bad_after_promotion_goes_back(daemon: Daemon) -> None:
    daemon.repo.manifest(health_interval_ms=50, health_failures=3, bake_ms=20000)
    first = daemon.repo.release("one")
    daemon.start().live(first)
    # Two good answers are its proof.
    healthy_twice = (
        "asked = []\nhealth = lambda: asked.append(1) or (200 if len(asked) < 3 else 500)"
    )
    second = daemon.repo.release("two", healthy_twice)
    until(lambda: daemon.status()["quarantine"], what="two is found to be bad")
    status = daemon.live(first)
    bad = status["recent"][1]
    assert (bad["commit"], bad["phase"], bad["reason"]) == (second, "rolled_back", "bake-failed")
    assert [one["commit"] for one in status["quarantine"]] == [second]
    assert daemon.get().text == "one"


def test_deep_check_that_fails_has_its_own_reason(daemon: Daemon) -> None:
    asks = {"method": "POST", "path": "/", "body": {"x": 1}, "expect_body": "two"}
    daemon.repo.manifest(deploy_on="request", health_test_payload=asks)
    first = daemon.repo.release("one")
    daemon.start()
    answer = daemon.deploy(first)
    assert (answer.status_code, answer.json()["reason"]) == (422, "request-failed"), answer.text
    assert app_processes(daemon.data) == {}
    assert daemon.deploy(daemon.repo.release("two")).status_code == 200
