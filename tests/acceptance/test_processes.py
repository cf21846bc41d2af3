"""Scenario 13: processes beside `web`, apps without one, and the ports that lead to an app."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.harness import PYTHON, Daemon, free_port, until

WEB = f"exec {PYTHON} -S -E app.py"
WORKER = f"exec {PYTHON} -S -E worker.py"
# Tells when it starts and each time it is told to stop, and goes on as long as it may.
WORKER_PY = """\
import os, signal, time
def tell(what):
    with open({journal!r}, "a") as journal:
        journal.write({version!r} + " " + what + "\\n")
signal.signal(signal.SIGTERM, lambda *_: tell("term"))
tell("start")
while True:
    time.sleep(0.05)
"""


def journal(daemon: Daemon) -> Path:
    return daemon.data.parent / "journal"


def told(daemon: Daemon) -> list[str]:
    path = journal(daemon)
    return path.read_text().splitlines() if path.exists() else []


def release(daemon: Daemon, version: str, behaviour: str = "") -> str:
    text = WORKER_PY.format(journal=str(journal(daemon)), version=version)
    daemon.repo.write("worker.py", text)
    return daemon.repo.release(version, behaviour)


def instances(daemon: Daemon, role: str, process: str) -> list[dict[str, Any]]:
    return [
        one
        for slot in daemon.status()["slots"]
        if slot["role"] == role
        for one in slot["instances"]
        if one["process"] == process and one["up"]
    ]


def listens(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get(port: int, path: str = "/", **options: Any) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=10) as client:
        return client.get(f"http://127.0.0.1:{port}{path}", **options)


def test_workers_start_after_the_switch_and_the_old_ones_stop_at_it(daemon: Daemon) -> None:
    daemon.repo.manifest(
        start_command=None,
        processes={"web": WEB, "worker": WORKER},
        bake_ms=30000,
        drain_timeout_ms=1000,
    )
    first = release(daemon, "one")
    daemon.start().live(first)
    until(lambda: told(daemon) == ["one start"], what="the worker runs")
    gate = daemon.data.parent / "gate"
    second = release(daemon, "two", f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)")
    until(
        lambda: (found := daemon.status()["deploy"]) and found["phase"] == "proving",
        what="two is being proved",
    )
    assert told(daemon) == ["one start"]
    gate.touch()
    daemon.live(second)
    until(lambda: "two start" in told(daemon), what="the new worker runs")
    until(lambda: not instances(daemon, "previous", "worker"), what="the old worker is stopped")
    assert sorted(told(daemon)) == ["one start", "one term", "two start"]
    assert instances(daemon, "previous", "web"), "previous stays warm while it bakes"


def test_workers_come_back_once_when_a_rollback_is_quick(daemon: Daemon) -> None:
    daemon.repo.manifest(
        start_command=None,
        processes={"web": WEB, "worker": WORKER},
        bake_ms=30000,
        drain_timeout_ms=1000,
    )
    first = release(daemon, "one")
    daemon.start().live(first)
    second = release(daemon, "two")
    daemon.live(second)
    assert daemon.rollback().status_code == 200
    until(lambda: not instances(daemon, "none", "worker"), what="two's worker is stopped")
    (worker,) = until(
        lambda: told(daemon).count("one start") == 2 and instances(daemon, "live", "worker"),
        what="one's worker runs again",
    )
    until(
        lambda: [one["role"] for one in daemon.status()["slots"]].count("draining") == 0,
        what="nothing drains",
    )
    assert instances(daemon, "live", "worker")[0]["pid"] == worker["pid"]
    assert told(daemon).count("one start") == 2
    daemon.live(first)


def test_app_without_web_is_proved_by_living_and_the_old_one_stops_at_the_switch(
    daemon: Daemon,
) -> None:
    daemon.repo.manifest(
        start_command=None,
        processes={"worker": WORKER},
        routes=None,
        bake_ms=30000,
        drain_timeout_ms=1000,
    )
    first = release(daemon, "one")
    daemon.start().live(first)
    second = release(daemon, "two")
    daemon.live(second)
    until(lambda: not instances(daemon, "previous", "worker"), what="the old worker is stopped")
    assert told(daemon) == ["one start", "two start", "one term"]
    assert daemon.rollback().status_code == 200
    daemon.live(first)
    assert told(daemon).count("one start") == 2


def test_app_without_web_that_ends_at_once_fails(daemon: Daemon) -> None:
    daemon.repo.manifest(
        start_command=None, processes={"worker": WORKER}, routes=None, deploy_on="request"
    )
    first = release(daemon, "one")
    daemon.start()
    assert daemon.deploy(first).status_code == 200
    daemon.repo.write("worker.py", "raise SystemExit(3)")
    answer = daemon.deploy(daemon.repo.commit("bad"))
    assert (answer.status_code, answer.json()["reason"]) == (422, "exited")
    assert daemon.status()["live_commit"] == first


def test_process_that_starts_before_the_switch_must_live(daemon: Daemon) -> None:
    side = {"command": "sleep 0.1; exit 4", "start": "before"}
    daemon.repo.manifest(start_command=None, processes={"web": WEB}, deploy_on="request")
    first = daemon.repo.release("one")
    daemon.start()
    assert daemon.deploy(first).status_code == 200
    daemon.repo.manifest(
        start_command=None, processes={"web": WEB, "side": side}, deploy_on="request"
    )
    answer = daemon.deploy(daemon.repo.release("two", "time.sleep(0.5)"))
    assert (answer.status_code, answer.json()["reason"]) == (422, "exited")
    assert daemon.get().text == "one"


def test_port_of_the_app_listens_from_its_first_promotion_on(daemon: Daemon) -> None:
    port = free_port()
    daemon.repo.manifest(port=port, routes=None, deploy_on="request")
    bad = daemon.repo.release("bad", "sys.exit(3)")
    daemon.start()
    assert daemon.deploy(bad).status_code == 422
    assert not listens(port)
    good = daemon.repo.release("one")
    assert daemon.deploy(good).status_code == 200
    assert get(port).text == "one"


INTERNAL = """
class Internal(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"internal " + VERSION.encode())
    def log_message(self, *args): pass
inside = ThreadingHTTPServer(({host!r}, int(os.environ["INTERNAL_PORT"])), Internal)
threading.Thread(target=inside.serve_forever, daemon=True).start()
"""


def test_internal_port_leads_to_the_live_slot(daemon: Daemon) -> None:
    port = free_port()
    daemon.repo.manifest(internal_port=port)
    first = daemon.repo.release("one", INTERNAL.format(host="127.0.0.1"))
    daemon.start().live(first)
    until(lambda: get(port).text == "internal one", what="one answers inside")
    second = daemon.repo.release("two", INTERNAL.format(host="127.0.0.1"))
    daemon.live(second)
    assert get(port).text == "internal two"
    assert daemon.get().text == "two"
    assert daemon.get("/healthz").text == "ok"


def test_internal_port_that_other_hosts_can_reach_is_refused(daemon: Daemon) -> None:
    daemon.repo.manifest(internal_port=free_port(), deploy_on="request")
    commit = daemon.repo.release("one", INTERNAL.format(host="0.0.0.0"))
    daemon.start()
    answer = daemon.deploy(commit)
    assert (answer.status_code, answer.json()["reason"]) == (422, "wrong-address")


@pytest.mark.parametrize("key", ["port", "internal_port"])
def test_port_that_is_taken_is_told_and_keeps_no_app_from_being_served(
    daemon: Daemon, key: str
) -> None:
    held = socket.create_server(("127.0.0.1", 0))
    port = held.getsockname()[1]
    daemon.repo.manifest("web", path="web", routes=[{"path": "/web"}], **{key: port})
    daemon.repo.app("web one", INTERNAL.format(host="127.0.0.1") if "in" in key else "", path="web")
    with held:
        daemon.repo.commit("web")
        daemon.start()
        until(
            lambda: str(port) in daemon.condition("Stalled", "web")["message"],
            what="who holds the port is told",
        )
        daemon.repo.manifest("api", path="api", routes=[{"path": "/api"}])
        daemon.repo.app("api one", path="api")
        daemon.repo.commit("api")
        until(lambda: daemon.get("/api").text == "api one", what="the other app is served")
        until(lambda: daemon.get("/web").text == "web one", what="it is served by its route")
    until(lambda: listens(port) and "one" in get(port).text, what="its port is served")
    until(lambda: not daemon.condition("Stalled", "web")["status"], what="it is not stalled")
