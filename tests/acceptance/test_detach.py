"""Scenario 25: an agent inside the app asks for a deploy and outlives the swap."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.acceptance.harness import PYTHON, ROOT, Daemon, app_processes, until

# What the app starts when it is told to: through `autopilot detach`, from its own process tree.
START_AGENT = """
import subprocess
def start_agent(*_):
    subprocess.Popen([
        {python!r}, "-m", "reconciler", "detach", "--", {python!r}, {agent!r}, {commit!r}, {out!r},
    ], env=dict(os.environ, PYTHONPATH={root!r}))
signal.signal(signal.SIGUSR1, start_agent)
"""
AGENT = """
import json, os, sys, time, urllib.request
commit, out = sys.argv[1:]
def tell(name, value):
    with open(f"{out}/{name}.tmp", "w") as file:
        json.dump(value, file)
    os.rename(f"{out}/{name}.tmp", f"{out}/{name}")
tell("pid", os.getpid())
tell("environment", dict(os.environ))
tell("directory", os.getcwd())
ask = urllib.request.Request(
    os.environ["ORCHESTRATOR_URL"] + "/deploy", json.dumps({"commit": commit}).encode(),
    {"Content-Type": "application/json"},
)
with urllib.request.urlopen(ask) as answer:
    tell("result", json.load(answer))
while not os.path.exists(f"{out}/go"):
    time.sleep(0.01)
tell("end", "of its own")
"""


def test_detached_agent_outlives_the_swap_and_reads_its_result(
    daemon: Daemon, tmp_path: Path
) -> None:
    daemon.repo.manifest(deploy_on="request", drain_timeout_ms=500)
    second = daemon.repo.release("two")
    first = release_with_agent(daemon, tmp_path, second)
    daemon.start()
    assert daemon.deploy(first).status_code == 200
    (app,) = app_processes(daemon.data)
    try:
        os.kill(app, signal.SIGUSR1)
        result = told(tmp_path, "result")
        assert (result["success"], result["commit"]) == (True, second)
        assert daemon.get().text == "two"
        until(lambda: app not in app_processes(daemon.data), what="the old slot is empty")
        assert daemon.status()["live_commit"] == second
        agent = told(tmp_path, "pid")
        os.kill(agent, 0)
        # The slot it came from is used again while it lives.
        assert daemon.rollback().status_code == 200
        assert daemon.deploy(first).status_code == 200
        os.kill(agent, 0)
        (tmp_path / "go").touch()
        assert told(tmp_path, "end") == "of its own"
    finally:
        end_agent(tmp_path)


def test_detached_agent_takes_nothing_of_the_slot_along(daemon: Daemon, tmp_path: Path) -> None:
    daemon.repo.manifest(deploy_on="request")
    second = daemon.repo.release("two")
    first = release_with_agent(daemon, tmp_path, second)
    daemon.start()
    assert daemon.deploy(first).status_code == 200
    (app,) = app_processes(daemon.data)
    try:
        os.kill(app, signal.SIGUSR1)
        environment = told(tmp_path, "environment")
        assert "AUTOPILOT_DEPLOY_ID" not in environment
        assert "PORT" not in environment
        assert environment["AUTOPILOT_APP"] == "web"
        assert str(daemon.data) not in told(tmp_path, "directory")
        pid = told(tmp_path, "pid")
        assert os.getsid(pid) != os.getsid(app)
        told(tmp_path, "result")
    finally:
        end_agent(tmp_path)


def test_stop_of_everything_leaves_a_detached_agent(daemon: Daemon, tmp_path: Path) -> None:
    daemon.flags = ("--on-exit", "stop")
    first = release_with_agent(daemon, tmp_path, "main")
    daemon.start().live(first)
    (app,) = app_processes(daemon.data)
    try:
        os.kill(app, signal.SIGUSR1)
        told(tmp_path, "result")
        assert daemon.stop() == 0
        os.kill(told(tmp_path, "pid"), 0)
    finally:
        end_agent(tmp_path)


def release_with_agent(daemon: Daemon, out: Path, commit: str) -> str:
    agent = out / "agent.py"
    agent.write_text(AGENT)
    return daemon.repo.release(
        "one",
        START_AGENT.format(
            python=PYTHON, agent=str(agent), commit=commit, out=str(out), root=str(ROOT)
        ),
    )


def told(out: Path, name: str) -> Any:
    until((out / name).exists, what=f"the agent told {name}")
    return json.loads((out / name).read_text())


def end_agent(out: Path) -> None:
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((out / "pid").read_text()), signal.SIGKILL)
