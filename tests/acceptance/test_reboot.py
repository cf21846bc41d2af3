"""Scenario 21: a reboot. Live comes back from its own slot, and a stranger gets no request."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from tests.acceptance.harness import Daemon, app_processes, end, load, until

BEFORE, AFTER = "11111111-before", "22222222-after"


def test_live_comes_back_and_a_stranger_on_its_port_gets_nothing(daemon: Daemon) -> None:
    daemon.env["AUTOPILOT_BOOT_ID"] = BEFORE
    commit = daemon.repo.release("one")
    before = daemon.start().live(commit)
    port = live_port(before)
    power_off(daemon)
    with stranger(port) as connections, asking(daemon):
        daemon.env["AUTOPILOT_BOOT_ID"] = AFTER
        after = daemon.start().live(commit)
        daemon.serves("one")
        with load(daemon, clients=4) as tally:
            assert daemon.deploy(commit).status_code == 200
    assert connections == []
    assert tally.failures == []
    assert live_port(after) != port
    assert after["live_slot"] == before["live_slot"]


def test_reboot_deploys_nothing(daemon: Daemon) -> None:
    daemon.env["AUTOPILOT_BOOT_ID"] = BEFORE
    first = daemon.repo.release("one")
    daemon.start().live(first)
    second = daemon.repo.release("two")
    daemon.live(second)
    assert daemon.rollback().status_code == 200
    deploys = daemon.api("GET", "/deploys").json()["items"]
    power_off(daemon)
    daemon.env["AUTOPILOT_BOOT_ID"] = AFTER
    daemon.start().live(first)
    assert daemon.get().text == "one"
    assert len(daemon.api("GET", "/deploys").json()["items"]) == len(deploys)
    assert len(app_processes(daemon.data)) == 1
    assert daemon.cli("plan").returncode == 0


def test_rollback_after_a_reboot_checks_the_files_and_starts_cold(daemon: Daemon) -> None:
    daemon.env["AUTOPILOT_BOOT_ID"] = BEFORE
    first = daemon.repo.release("one")
    daemon.start().live(first)
    second = daemon.repo.release("two")
    status = daemon.live(second)
    power_off(daemon)
    # What a power cut can do to files that were not on disk yet.
    previous = daemon.data / "apps" / "web" / status["previous_slot"]
    (previous / "app.py").write_bytes(bytes(100))
    daemon.env["AUTOPILOT_BOOT_ID"] = AFTER
    daemon.start().live(second)
    answer = daemon.rollback()
    assert answer.status_code == 200, answer.text
    assert daemon.get().text == "one"


def test_reboot_in_mid_deploy_ends_with_the_wish_met(daemon: Daemon) -> None:
    daemon.env["AUTOPILOT_BOOT_ID"] = BEFORE
    first = daemon.repo.release("one")
    daemon.start().live(first)
    second = daemon.repo.release("two", "time.sleep(1)")
    until(lambda: len(app_processes(daemon.data)) == 2, what="the candidate boots")
    power_off(daemon)
    daemon.env["AUTOPILOT_BOOT_ID"] = AFTER
    daemon.start()
    daemon.live(second)
    assert daemon.get().text == "two"
    assert daemon.status()["quarantine"] == []


def live_port(status: dict[str, object]) -> int:
    slots = status["slots"]
    assert isinstance(slots, list)
    (live,) = (slot for slot in slots if slot["role"] == "live")
    return int(urlsplit(f"//{live['instances'][0]['address']}").port or 0)


def power_off(daemon: Daemon) -> None:
    """Everything ends at once and nothing is told."""
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    for pid in app_processes(daemon.data):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    daemon.kill()
    end(daemon)


@contextmanager
def stranger(port: int) -> Iterator[list[str]]:
    """Somebody else's server on the port; returns who connected."""
    seen: list[str] = []
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        server.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, address = server.accept()
                    seen.append(str(address))
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@contextmanager
def asking(daemon: Daemon) -> Iterator[None]:
    """Clients that ask from the first moment the public port is there; they may be refused."""
    with load(daemon, clients=2):
        yield
