"""Scenario 8: an app that does not want to end is dead in time, and its slot is free no sooner."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.acceptance.harness import PYTHON, Daemon, until

DRAIN_MS = 2500
# The shell waits for the app, as many images do; everybody ignores SIGTERM, and children leave
# the group, the session, and the parent behind.
STUBBORN = (
    "trap '' TERM; "
    "sh -c 'sh -c \"sleep 611; :\"; :' & "
    "setsid sh -c 'sleep 612; :' & "
    "(setsid sh -c 'sleep 613 & sleep 614; :' &) ; "
    f"{PYTHON} -S -E app.py & wait; wait"
)
IGNORES = "signal.signal = lambda *_: None"


def alive(deploy_id: str) -> list[str]:
    """Returns what still runs of a deploy, whoever its parent is now."""
    cookie = f"AUTOPILOT_DEPLOY_ID={deploy_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text() if entry.name.isdigit() else ") Z"
            if stat.rpartition(")")[2].split()[0] in "ZX":
                continue
            if cookie in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def deployed(daemon: Daemon, commit: str) -> dict[str, Any]:
    answer = daemon.deploy(commit)
    assert answer.status_code == 200, answer.text
    record: dict[str, Any] = answer.json()
    return record


def start_stubborn(daemon: Daemon, drain_ms: int) -> dict[str, Any]:
    daemon.repo.manifest(deploy_on="request", start_command=STUBBORN, drain_timeout_ms=drain_ms)
    commit = daemon.repo.release("stubborn", IGNORES)
    daemon.start()
    record = deployed(daemon, commit)
    assert len(alive(record["deploy_id"])) >= 7
    # From here on the app is a plain one.
    daemon.repo.manifest(deploy_on="request", drain_timeout_ms=drain_ms)
    return record


def test_everything_an_app_started_is_dead_soon_after_its_drain(daemon: Daemon) -> None:
    stubborn = start_stubborn(daemon, DRAIN_MS)
    second = daemon.repo.release("two")
    deployed(daemon, second)
    switched = time.monotonic()
    assert alive(stubborn["deploy_id"])
    until(lambda: not alive(stubborn["deploy_id"]), within=DRAIN_MS / 1000 + 1, what="all is dead")
    assert time.monotonic() - switched > DRAIN_MS / 1000 - 1
    assert daemon.get().text == "two"
    until(
        lambda: json.loads(record_path(daemon, stubborn["slot"]).read_text())["vacated"],
        what="its slot is vacant",
    )


def test_fourth_deploy_waits_for_the_slot_that_still_drains(daemon: Daemon) -> None:
    stubborn = start_stubborn(daemon, 4000)
    commits = [daemon.repo.release(version) for version in ("two", "three", "four")]
    slots = [deployed(daemon, commit)["slot"] for commit in commits[:2]]
    assert len({stubborn["slot"], *slots}) == 3
    assert alive(stubborn["deploy_id"])
    fourth = daemon.deploy(commits[2], wait=False).json()["deploy_id"]
    source = daemon.data / "apps" / "web" / stubborn["slot"] / "app.py"
    reused_early = []

    def decided() -> bool:
        # In this order: a process that lives now was alive when the file was another one.
        changed = "stubborn" not in source.read_text()
        if changed and (left := alive(stubborn["deploy_id"])):
            reused_early.append(left)
        return daemon.api("GET", f"/deploys/{fourth}").json()["finished_at"] is not None

    until(decided, what="the fourth deploy is decided")
    assert reused_early == []
    record = daemon.ended(fourth)
    assert (record["phase"], record["slot"]) == ("live", stubborn["slot"])
    assert daemon.get().text == "four"


def test_fourth_deploy_takes_a_slot_that_is_free(daemon: Daemon) -> None:
    daemon.repo.manifest(deploy_on="request")
    daemon.start()
    records = [deployed(daemon, daemon.repo.release(v)) for v in ("one", "two", "three")]
    until(lambda: not alive(records[0]["deploy_id"]), what="the first is stopped")
    fourth = deployed(daemon, daemon.repo.release("four"))
    assert fourth["slot"] == records[0]["slot"]
    status = daemon.status()
    assert status["previous_slot"] == records[2]["slot"]


def record_path(daemon: Daemon, slot: str) -> Path:
    return daemon.data / "apps" / "web" / "slots" / f"{slot}.json"
