"""Detaching: what is started leaves session, group, cookie and caller behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconciler.host.detach import detached_environment
from reconciler.host.processes import is_alive, read_environment, read_stat

REPOSITORY = str(Path(__file__).parents[2])
SCRIPT = (
    "import sys\n"
    "from reconciler.host.detach import detach\n"
    "from reconciler.model.errors import LaunchError\n"
    "try: print(detach(sys.argv[1:]), flush=True)\n"
    "except LaunchError as error: print(error); sys.exit(1)\n"
)


@pytest.fixture
def started() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:
        stat = read_stat(pid)
        if stat is not None and is_alive(pid, stat.started):
            os.kill(pid, signal.SIGKILL)


def _detach(*words: str, home: Path, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": REPOSITORY,
        "HOME": str(home),
        "ORCHESTRATOR_URL": "http://127.0.0.1:7778",
        "AUTOPILOT": "1",
        "AUTOPILOT_APP": "shop",
        "AUTOPILOT_DEPLOY_ID": "d-1",
        "AUTOPILOT_PROCESS": "web",
        "AUTOPILOT_SLOT": "deploy-a",
        "AUTOPILOT_COMMIT": "a" * 40,
        "PORT": "20001",
        "TMPDIR": "/gone",
    }
    argv = [sys.executable, "-c", SCRIPT, *words]
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        argv,
        check=False,
        env=environment,
        cwd="/",
        timeout=20,
        **{"capture_output": True, "text": True, **options},
    )


def _until(fact: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_program_runs_on_by_itself(tmp_path: Path, started: list[int]) -> None:
    pid = int(_detach("sh", "-c", "pwd > where; exec sleep 300", home=tmp_path).stdout)
    started.append(pid)
    _until(lambda: read_environment(pid).get(b"AUTOPILOT_DETACHED") == b"d-1")
    stat = read_stat(pid)
    assert stat is not None
    assert stat.session == stat.group != os.getsid(0)
    assert stat.parent != os.getpid()
    _until((tmp_path / "where").exists)
    _until(lambda: (tmp_path / "where").read_text().strip() == str(tmp_path))
    assert os.readlink(f"/proc/{pid}/fd/1") == "/dev/null"
    environment = read_environment(pid)
    assert b"AUTOPILOT_DEPLOY_ID" not in environment
    assert environment[b"AUTOPILOT_APP"] == b"shop"


def test_output_that_was_redirected_to_a_file_goes_there(
    tmp_path: Path, started: list[int]
) -> None:
    """The call returns while the program still writes: nothing of it holds the caller's pipes."""
    log = tmp_path / "log"
    argv = ("sh", "-c", "echo out; echo err >&2; exec sleep 300")
    with log.open("ab") as output:
        done = _detach(
            *argv, home=tmp_path, capture_output=False, stdout=output, stderr=output, text=True
        )
    assert done.returncode == 0
    _until(lambda: log.read_text().count("\n") == 3)
    pid = next(int(line) for line in log.read_text().split("\n") if line.isdigit())
    started.append(pid)
    assert set(log.read_text().split()) == {str(pid), "out", "err"}


def test_a_program_that_is_not_there_is_an_error_with_its_name(tmp_path: Path) -> None:
    done = _detach("no-such-program", home=tmp_path)
    assert done.returncode == 1
    assert "no-such-program" in done.stdout
    done = _detach("true", home=tmp_path / "missing")
    assert done.returncode == 1
    assert "missing" in done.stdout


def test_detaching_twice_keeps_the_mark_of_the_first_slot() -> None:
    once = detached_environment({"AUTOPILOT_DEPLOY_ID": "d-1", "HOME": "/home/ada", "X": "1"})
    assert once == {"HOME": "/home/ada", "PWD": "/home/ada", "X": "1", "AUTOPILOT_DETACHED": "d-1"}
    assert detached_environment(once) == once
    assert detached_environment({})["AUTOPILOT_DETACHED"] == ""
