"""Scenario 19: a full disk stops deploys in words, never what serves, and goes on by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.harness import Daemon, processes, until

SIZE_MB = 24


@dataclass
class SmallDisk:
    """A directory on a small file system that only the daemon and its children see mounted."""

    daemon: Daemon
    mount: Path

    @property
    def inside(self) -> Path:
        """The directory as the daemon sees it."""
        assert self.daemon.process is not None
        return Path(f"/proc/{self.daemon.process.pid}/root{self.mount}")

    @property
    def filler(self) -> Path:
        return self.inside / "filler"

    def fill(self) -> None:
        with self.filler.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def free(self) -> None:
        self.filler.unlink()


def able() -> bool:
    tried = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(tried, capture_output=True, check=False).returncode
    )


pytestmark = pytest.mark.skipif(not able(), reason="needs unshare -rm and mounts in it")


def on_small_disk(daemon: Daemon, mount: Path) -> SmallDisk:
    """Has the daemon run in a namespace where `mount` is a small tmpfs."""
    mount.mkdir(parents=True, exist_ok=True)
    script = f'mount -t tmpfs -o size={SIZE_MB}m,mode=0755 none "$0" && exec "$@"'
    # As root a user namespace would only take rights away.
    flags = "-m" if os.geteuid() == 0 else "-rm"
    daemon.wrapper = ("unshare", flags, "/bin/sh", "-c", script, str(mount))
    return SmallDisk(daemon, mount)


@pytest.fixture
def small(daemon: Daemon) -> SmallDisk:
    """The whole data directory on one small disk: store, slots, logs and mirror."""
    return on_small_disk(daemon, daemon.data)


def test_full_disk_lets_live_serve_and_is_told_and_goes_on_by_itself(small: SmallDisk) -> None:
    daemon = small.daemon
    first = daemon.repo.release("one")
    daemon.start().live(first)
    pid = daemon.get().headers["x-pid"]
    small.fill()
    second = daemon.repo.release("two")
    answer = daemon.deploy("main")
    assert (answer.status_code, answer.json()["type"]) == (507, "disk-pressure"), answer.text
    until(lambda: stalled_for_space(daemon), what=f"it is told: {daemon.status()['conditions']}")
    assert daemon.get().headers["x-pid"] == pid
    assert daemon.status()["live_commit"] == first
    small.free()
    daemon.live(second, within=45)
    assert daemon.get().text == "two"
    until(lambda: not daemon.condition("Stalled")["status"], within=45)
    assert daemon.status()["quarantine"] == []


def stalled_for_space(daemon: Daemon) -> bool:
    found = daemon.condition("Stalled")
    return (
        bool(found["status"]) and found["reason"] == "DiskPressure" and "space" in found["message"]
    )


def test_checkout_that_does_not_fit_is_disk_pressure_and_quarantines_nothing(
    small: SmallDisk,
) -> None:
    daemon = small.daemon
    first = daemon.repo.release("one")
    daemon.start().live(first)
    (daemon.repo.path / "large").write_bytes(os.urandom(14 << 20))
    large = daemon.repo.release("two")
    until(
        lambda: (
            any(one["reason"] == "disk-pressure" for one in daemon.status()["recent"])
            or stalled_for_space(daemon)
        ),
        what=f"it is told: {daemon.status()['conditions']} {daemon.status()['recent'][:2]}",
    )
    assert daemon.get().text == "one"
    assert daemon.status()["quarantine"] == []
    subprocess.run(
        ["nsenter", "-t", str(daemon.process.pid if daemon.process else 0), "-m", "mount", "-o",
         "remount,size=200m", str(daemon.data)],
        check=True, capture_output=True,
    )  # fmt: skip
    daemon.live(large, within=45)
    assert daemon.get().text == "two"


def test_daemon_that_starts_on_a_full_disk_keeps_what_serves(small: SmallDisk) -> None:
    daemon = small.daemon
    first = daemon.repo.release("one")
    daemon.start().live(first)
    pid = daemon.get().headers["x-pid"]
    small.fill()
    daemon.kill()
    # The next one must see the same mount, which lives on in the app's namespace.
    daemon.wrapper = ("nsenter", "-t", pid, "-m", *(["-U"] if os.geteuid() else []), "--")
    daemon.start(ready=False)
    until(lambda: ended(daemon) or ready(daemon), what="it runs, or says why not")
    answer = daemon.get()
    assert answer.headers.get("x-pid") == pid, (answer.status_code, daemon.said()[-4000:])
    Path(f"/proc/{pid}/root{daemon.data}/filler").unlink()
    if ended(daemon):
        assert "no space left" in daemon.said()
        daemon.start()
    daemon.live(daemon.repo.release("two"))
    assert daemon.get().text == "two"


def ended(daemon: Daemon) -> bool:
    return daemon.process is not None and daemon.process.poll() is not None


def ready(daemon: Daemon) -> bool:
    return daemon.api("GET", "/readyz").status_code == 200


def test_app_that_fills_its_log_ends_only_its_own_writes(daemon: Daemon) -> None:
    small = on_small_disk(daemon, daemon.data / "logs")
    noisy = f"print({'x' * 200!r} * 1000, flush=True)"
    first = daemon.repo.release("one", f"for _ in range(20): {noisy}")
    daemon.start().live(first)
    small.fill()
    pid = daemon.get().headers["x-pid"]
    second = daemon.repo.release("two")
    answer = daemon.deploy(second)
    assert answer.status_code in (404, 409, 422, 507), answer.text
    assert daemon.get().headers["x-pid"] == pid
    assert daemon.status()["quarantine"] == []
    small.free()
    daemon.live(second, within=45)
    assert daemon.get().text == "two"


def test_full_disk_of_the_slots_alone(daemon: Daemon) -> None:
    small = on_small_disk(daemon, daemon.data / "apps")
    first = daemon.repo.release("one")
    daemon.start().live(first)
    small.fill()
    second = daemon.repo.release("two")
    until(
        lambda: any(one["reason"] == "disk-pressure" for one in daemon.status()["recent"]),
        what=f"it is told: {daemon.status()['recent'][:2]}",
    )
    answer = daemon.deploy(second)
    assert (answer.status_code, answer.json()["type"]) == (507, "disk-pressure"), answer.text
    assert daemon.get().text == "one"
    assert stalled_for_space(daemon)
    small.free()
    daemon.live(second, within=45)
    assert daemon.status()["quarantine"] == []
    assert processes(daemon.data)
