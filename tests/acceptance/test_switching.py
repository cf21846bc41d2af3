"""Scenario 17: switches under requests that take their time, event streams and WebSockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from tests.acceptance.harness import PYTHON, ROOT, Daemon, Tally, app_processes, load, until

SERVER = ROOT / "fixtures" / "apps" / "streams" / "server.py"
DRAIN = 0.5
VERSIONS = ("one", "two")


@pytest.mark.timeout(400)
def test_30_switches_drop_nothing(daemon: Daemon, tmp_path: Path) -> None:
    switch_under_load(daemon, tmp_path, switches=30)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_1000_switches_drop_nothing(daemon: Daemon, tmp_path: Path) -> None:
    # Each switch takes a port, which then rests for ten minutes.
    daemon.port_range = "20000-29999"
    switch_under_load(daemon, tmp_path, switches=1000)


def switch_under_load(daemon: Daemon, tmp_path: Path, switches: int) -> None:
    journal = tmp_path / "after-sigterm"
    commits = [release(daemon, version, journal) for version in VERSIONS]
    daemon.start().live(commits[1])
    with (
        load(daemon, clients=32, path="/slow") as tally,
        streaming(daemon, events) as sse,
        streaming(daemon, socket_texts) as websocket,
    ):
        for number in range(switches):
            until(lambda: sse.open.is_set() and websocket.open.is_set(), what="both stream")
            answer = daemon.deploy(commits[number % 2])
            assert answer.status_code == 200, answer.text
    assert_nothing_failed(tally)
    assert not journal.exists(), journal.read_text()
    for stream in (sse, websocket):
        assert not stream.failures, stream.failures
        assert len(stream.cuts) >= switches // 4
    drains = drains_of(daemon)
    for cut in (*sse.cuts, *websocket.cuts):
        assert_cut_at_deadline(cut, drains)


def test_stream_outlives_the_switch_by_the_drain(daemon: Daemon, tmp_path: Path) -> None:
    first = release(daemon, "one", tmp_path / "journal")
    daemon.start().live(first)
    with streaming(daemon, events) as sse, streaming(daemon, socket_texts) as websocket:
        until(lambda: sse.open.is_set() and websocket.open.is_set(), what="both stream")
        second = release(daemon, "two", tmp_path / "journal")
        daemon.live(second)
        for stream in (sse, websocket):
            stream.wait_cut()
            assert_cut_at_deadline(stream.cuts[0], drains_of(daemon))
            stream.wait_version("two")
    until(lambda: len(app_processes(daemon.data)) == 1, what="the old one is gone")


def test_request_under_way_ends_in_the_slot_it_began_in(daemon: Daemon, tmp_path: Path) -> None:
    first = release(daemon, "one", tmp_path / "journal")
    daemon.start().live(first)
    second = release(daemon, "two", tmp_path / "journal")
    with httpx.Client(trust_env=False, timeout=10) as client:
        while daemon.status()["live_commit"] != second:
            with client.stream("GET", f"http://127.0.0.1:{daemon.http_port}/late") as answer:
                began = answer.status_code
                text = answer.read().decode()
            assert began == 200
            assert text in VERSIONS


def release(daemon: Daemon, version: str, journal: Path) -> str:
    daemon.repo.manifest(
        start_command=f"exec {PYTHON} -S -E app.py", health_endpoint="/",
        drain_timeout_ms=int(DRAIN * 1000), env={"JOURNAL": str(journal)},
    )  # fmt: skip
    source = SERVER.read_text().replace('VERSION = "one"', f"VERSION = {version!r}")
    daemon.repo.write("app.py", source)
    return daemon.repo.commit(version)


def assert_nothing_failed(tally: Tally) -> None:
    assert tally.answers > 0
    assert tally.failures == [], tally.failures[:5]
    assert tally.versions == set(VERSIONS)


@dataclass(frozen=True, slots=True)
class Cut:
    """A stream that was ended from the other side; times are wall time."""

    opened: float
    ended: float


@dataclass(slots=True)
class Stream:
    """A stream that is opened again whenever it was cut. `last` is the version heard last."""

    open: threading.Event = field(default_factory=threading.Event)
    last: str = ""
    cuts: list[Cut] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def wait_cut(self) -> None:
        until(lambda: self.cuts, what="the drain has ended")

    def wait_version(self, version: str) -> None:
        until(lambda: self.last == version, what=f"it streams from {version}")


def drains_of(daemon: Daemon) -> list[float]:
    """Returns when each drain began, oldest first, by the deploy records."""
    found, before = [], ""
    while True:
        page = daemon.api("GET", f"/deploys?limit=200{before}").json()
        for record in page["items"]:
            phases = [one for one in record["phases"] if one["phase"] == "draining"]
            found += [datetime.fromisoformat(one["started_at"]).timestamp() for one in phases]
        if page["next"] is None:
            return sorted(found)
        before = f"&before={page['next']}"


def assert_cut_at_deadline(cut: Cut, drains: list[float]) -> None:
    """The first drain after it was opened is that of its slot, and gives it the whole time."""
    drain = next((one for one in drains if one > cut.opened), None)
    assert drain is not None, f"cut without any switch: {cut}"
    assert cut.ended >= drain + DRAIN, f"cut {cut.ended - drain:.3f} s after the switch"


def events(daemon: Daemon) -> Iterator[str]:
    url = f"http://127.0.0.1:{daemon.http_port}/events"
    with httpx.Client(trust_env=False, timeout=10) as client, client.stream("GET", url) as answer:
        answer.raise_for_status()
        # A cut stream ends in the middle of its body.
        with suppress(httpx.RemoteProtocolError):
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    yield line.removeprefix("data: ")


def socket_texts(daemon: Daemon) -> Iterator[str]:
    with (
        connect(
            f"ws://127.0.0.1:{daemon.http_port}/socket", proxy=None, close_timeout=0.1
        ) as websocket,
        suppress(ConnectionClosed),
    ):
        while True:
            yield str(websocket.recv(timeout=10))


@contextmanager
def streaming(daemon: Daemon, words: Callable[[Daemon], Iterator[str]]) -> Iterator[Stream]:
    stream, stop = Stream(), threading.Event()

    def follow() -> None:
        while not stop.is_set():
            opened = time.time()
            try:
                for text in words(daemon):
                    stream.last = text.partition(" ")[0]
                    stream.open.set()
                    if stop.is_set():
                        return
            except (httpx.HTTPError, OSError, WebSocketException) as error:
                stream.failures.append(f"{type(error).__name__} {error}")
            stream.open.clear()
            stream.cuts.append(Cut(opened, time.time()))

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield stream
    finally:
        stop.set()
        thread.join(15)
