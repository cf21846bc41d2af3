"""The systemd unit, and the daemon's side of it: readiness, watchdog, stopping."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.harness import ROOT, Daemon, processes, until

UNIT = ROOT / "systemd/autopilot.service"


@contextmanager
def systemd(address: str) -> Iterator[list[str]]:
    """A socket as systemd gives one; the list grows by what was told when it is read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address.replace("@", "\0", 1))
        channel.setblocking(False)  # noqa: FBT003 (its only parameter)
        yield Told(channel)


class Told(list[str]):
    def __init__(self, channel: socket.socket) -> None:
        super().__init__()
        self._channel = channel

    def __contains__(self, line: object) -> bool:
        self.read()
        return super().__contains__(line)

    def read(self) -> None:
        while True:
            try:
                self.extend(self._channel.recv(4096).decode().splitlines())
            except BlockingIOError:
                return


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_is_told_of_readiness_life_and_end(daemon: Daemon, kind: str) -> None:
    path = str(daemon.data.parent / "notify")
    address = path if kind == "path" else f"@{path}"
    first = daemon.repo.release("one")
    with systemd(address) as told:
        daemon.start(NOTIFY_SOCKET=address, WATCHDOG_USEC="200000", ready=False)
        until(lambda: "READY=1" in told)
        assert daemon.api("GET", "/readyz").status_code == 200
        until(lambda: "WATCHDOG=1" in told)
        told.clear()
        until(lambda: "WATCHDOG=1" in told, what="it goes on")
        daemon.live(first)
        assert "NOTIFY_SOCKET" not in daemon.get("/env").json()
        assert "WATCHDOG_USEC" not in daemon.get("/env").json()
        assert "STOPPING=1" not in told
        assert daemon.stop() == 0
        assert "STOPPING=1" in told
    assert daemon.get().text == "one"


def test_a_daemon_that_hangs_stops_telling_of_life(daemon: Daemon) -> None:
    address = str(daemon.data.parent / "notify")
    with systemd(address) as told:
        daemon.start(NOTIFY_SOCKET=address, WATCHDOG_USEC="200000")
        until(lambda: "WATCHDOG=1" in told)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{daemon.process.pid}/stat")
        until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")
        assert "WATCHDOG=1" in told
        told.clear()
        assert "WATCHDOG=1" not in told
        daemon.process.send_signal(signal.SIGCONT)
        until(lambda: "WATCHDOG=1" in told)


def test_only_the_daemon_ends_at_a_stop_and_the_next_one_adopts(daemon: Daemon) -> None:
    """What KillMode=process does: SIGTERM to the main process alone."""
    first = daemon.repo.release("one")
    daemon.start().live(first)
    kept = set(processes(daemon.data)) - {daemon.process.pid if daemon.process else 0}
    assert daemon.stop() == 0
    assert kept <= set(processes(daemon.data))
    daemon.start().live(first)
    assert kept <= set(processes(daemon.data))


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_lets_apps_and_proxy_outlive_the_daemon() -> None:
    unit = settings()
    for key, value in {
        "Type": "notify", "KillMode": "process", "OOMPolicy": "continue", "Delegate": "yes",
        "Restart": "always", "RuntimeDirectoryPreserve": "yes", "After": "network-online.target",
        "StateDirectory": "autopilot", "RuntimeDirectory": "autopilot",
    }.items():  # fmt: skip
        assert unit[key] == [value], key
    assert int(unit["WatchdogSec"][0]) > 0
    assert unit["ExecStart"][0].startswith("/usr/local/bin/autopilot server start ")


def test_the_unit_sets_nothing_that_apps_would_inherit_to_their_harm() -> None:
    harmful = ("Private", "Protect", "MemoryDeny", "Memory", "Tasks", "CPU", "Limit", "Restrict",
               "SystemCall", "ReadOnly", "Inaccessible", "NoNewPrivileges", "DynamicUser", "User",
               "RootDirectory", "LockPersonality")  # fmt: skip
    assert [key for key in settings() if key.startswith(harmful)] == []


def test_the_unit_keeps_every_capability_that_the_daemon_needs() -> None:
    from reconciler.slots.users import NEEDED  # noqa: PLC0415 (the daemon's own list)

    kept = {name for line in settings()["CapabilityBoundingSet"] for name in line.split()}
    assert set(NEEDED.values()) <= kept
    assert "CAP_NET_BIND_SERVICE" in kept
    assert "CAP_SYS_ADMIN" not in kept


def test_systemd_itself_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    # The program need not be installed on this host, so another one stands for it.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/autopilot", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        check=False, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert complaints == []
