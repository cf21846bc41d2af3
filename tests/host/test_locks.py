"""Locks: held by one at a time, let go of by the death of the holder, true only while held."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.host.locks import FileLock, runtime_directory


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "l"), FileLock(tmp_path / "l")
    assert first.acquire("first")
    assert first.acquire("again is nothing new")
    assert not second.acquire("second")
    assert second.holder() == "first"
    first.write("other")
    assert second.holder() == "other"
    first.release()
    assert second.holder() == ""
    assert second.acquire()
    assert second.held
    second.release()
    second.release()


def test_what_the_last_holder_wrote_can_be_looked_at(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "l"), FileLock(tmp_path / "l")
    assert second.read() == ""
    first.acquire("resting")
    first.release()
    assert second.acquire(None)
    assert second.read() == "resting"
    second.write("mine")
    assert second.read() == "mine"
    second.release()


def test_the_death_of_the_holder_lets_go_and_children_do_not_inherit(tmp_path: Path) -> None:
    path = tmp_path / "l"
    script = (
        "import subprocess, sys, pathlib; sys.path.insert(0, sys.argv[2])\n"
        "from reconciler.host.locks import FileLock\n"
        "lock = FileLock(pathlib.Path(sys.argv[1])); lock.acquire('daemon')\n"
        "child = subprocess.Popen(['sleep', '300'], stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True); sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", script, str(path), str(Path(__file__).parents[2])]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as daemon:
        assert daemon.stdout is not None
        sleeper = int(daemon.stdout.readline())
        assert FileLock(path).holder() == "daemon"
        daemon.kill()
        daemon.wait()
    lock = FileLock(path)
    assert lock.acquire()
    lock.release()
    os.kill(sleeper, signal.SIGKILL)


def test_nobody_holds_a_lock_that_was_never_made(tmp_path: Path) -> None:
    assert FileLock(tmp_path / "missing").holder() == ""


def test_the_runtime_directory_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runtime_directory().stat().st_mode & 0o777 == 0o700
    if os.geteuid() == 0:
        assert runtime_directory() == Path("/run/autopilot")
        return
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_directory() == tmp_path / "autopilot"
