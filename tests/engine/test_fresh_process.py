"""Promise 3: nothing that a later pass needs lives in memory, so each pass gets a new process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.acceptance.harness import (
    PYTHON,
    ROOT,
    Daemon,
    app_processes,
    caddy_processes,
    scene,
    until,
)

# A pass costs little more than its process, but there are dozens.
pytestmark = pytest.mark.timeout(300)
SCRIPT = Path(__file__).with_name("one_pass.py")


@dataclass(frozen=True, slots=True)
class Passes:
    """A host whose daemon does not outlive a single pass."""

    daemon: Daemon
    proxy: str
    process: subprocess.Popen[str]

    def run(self, verb: str = "pass") -> list[str]:
        """Returns what there was to do in that pass."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{verb}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.daemon.said()
        told: list[str] = json.loads(line)
        return told

    def converge(self, goal: Callable[[], bool]) -> None:
        """Runs pass after pass until the goal is reached and there is nothing left to do."""
        left: list[str] = []

        def converged() -> bool:
            left[:] = self.run()
            return not left and goal()

        try:
            until(converged, within=60)
        except AssertionError as error:
            raise AssertionError(f"the passes do not converge: {left}") from error

    def serves(self, version: str) -> bool:
        if self.proxy == "caddy":
            return self.daemon.get().text == version
        address = (self.daemon.data / "routes/web/web").read_text().strip()
        return bool(address) and httpx.get(f"http://{address}/", trust_env=False).text == version


@pytest.fixture(params=["none", "caddy"])
def passes(request: pytest.FixtureRequest) -> Iterator[Passes]:
    with scene() as daemon, fresh_processes(daemon, request.param) as made:
        yield made


@contextmanager
def fresh_processes(daemon: Daemon, proxy: str) -> Iterator[Passes]:
    first, last = map(int, daemon.port_range.split("-"))
    settings = {
        "repo": str(daemon.repo.path),
        "data_dir": str(daemon.data),
        "proxy": proxy,
        "http_port": daemon.http_port,
        "port_range": [first, last + 1],
    }
    daemon.data.mkdir(mode=0o711)
    daemon.log = daemon.data.parent / "passes.log"
    with (
        daemon.log.open("ab") as log,
        subprocess.Popen(
            [PYTHON, str(SCRIPT), json.dumps(settings)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        ) as process,
    ):  # fmt: skip
        yield Passes(daemon, proxy, process)


def test_each_pass_in_a_fresh_process_reaches_every_goal(passes: Passes) -> None:
    repo, data = passes.daemon.repo, passes.daemon.data
    repo.release("one")
    passes.converge(lambda: passes.serves("one"))
    repo.release("two")
    passes.converge(lambda: passes.serves("two"))
    passes.run("rollback")
    passes.converge(lambda: passes.serves("one"))
    (app,) = app_processes(data)
    os.kill(app, signal.SIGKILL)
    passes.converge(lambda: passes.serves("one"))
    assert len(app_processes(data)) == 1
    assert len(caddy_processes(data)) == (1 if passes.proxy == "caddy" else 0)


def test_warm_rollback_reaches_its_goal_in_fresh_processes(passes: Passes) -> None:
    repo, data = passes.daemon.repo, passes.daemon.data
    repo.manifest(standby_ms=600_000)
    repo.release("one")
    passes.converge(lambda: passes.serves("one"))
    (first,) = app_processes(data)
    repo.release("two")
    passes.converge(lambda: passes.serves("two"))
    passes.run("rollback")
    passes.converge(lambda: passes.serves("one"))
    assert first in app_processes(data)


def test_failed_candidate_leaves_live_alone_and_is_not_tried_again(passes: Passes) -> None:
    repo, data = passes.daemon.repo, passes.daemon.data
    repo.release("one")
    passes.converge(lambda: passes.serves("one"))
    live = set(app_processes(data))
    repo.release("bad", "sys.exit(3)")
    passes.converge(lambda: passes.serves("one"))
    assert set(app_processes(data)) == live
    assert passes.run() == []
