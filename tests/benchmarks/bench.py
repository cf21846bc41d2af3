"""What autopilot costs: `make bench` prints a table beside the targets and writes it as JSON.

Every figure comes from a real daemon, real Caddy and real processes on this machine; figures that
share it with other work are worth nothing. Run one part with its name, e.g. `bench.py deploy`.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

ROOT = Path(__file__).resolve().parents[2]
HAMMER = ROOT / "tests/benchmarks/hammer.py"
sys.path.insert(0, str(ROOT))

from tests.acceptance.harness import (  # noqa: E402 (the path is set just above)
    PYTHON,
    Daemon,
    free_port,
    load,
    scene,
    until,
)

TRIVIAL = f"exec {os.path.realpath(sys.executable)} -S -E -I app.py"
APP = """\
import os, socket, signal, sys
VERSION = {version!r}
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server = socket.create_server((os.environ["HOST"], int(os.environ["PORT"])), backlog=256)
import threading
HEAD = "HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n"
ANSWER = (HEAD % len(VERSION) + VERSION).encode()
def serve(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    kept = b""
    while True:
        data = connection.recv(65536)
        if not data:
            return connection.close()
        kept += data
        while b"\\r\\n\\r\\n" in kept:
            head, _, kept = kept.partition(b"\\r\\n\\r\\n")
            lower = head.lower()
            if b"content-length: 1" in lower:
                while len(kept) < 1:
                    kept += connection.recv(65536)
                kept = kept[1:]
            connection.sendall(ANSWER)
while True:
    connection, _ = server.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure beside its target; `how` says what was measured and how often."""

    name: str
    value: float
    unit: str
    target: float | None
    how: str

    @property
    def kept(self) -> bool:
        return self.target is None or self.value <= self.target


FIGURES: list[Figure] = []


def note(name: str, value: float, unit: str, target: float | None, how: str) -> None:
    figure = Figure(name, round(value, 3), unit, target, how)
    FIGURES.append(figure)
    mark = "" if figure.target is None else "ok  " if figure.kept else "MISS"
    aim = "" if figure.target is None else f"<= {figure.target:g}"
    print(f"{mark:4} {name:44} {figure.value:>10g} {unit:6} {aim:>10}  {how}", flush=True)


@contextmanager
def running(**keys: Any) -> Iterator[Daemon]:
    with scene() as daemon:
        daemon.repo.manifest(**{"start_command": TRIVIAL, "deploy_on": "request", **keys})
        write_app(daemon, "v0")
        daemon.repo.commit("v0")
        daemon.start()
        deploy(daemon)
        yield daemon


def write_app(daemon: Daemon, version: str, path: str = ".") -> None:
    daemon.repo.write(f"{path}/app.py", APP.format(version=version))


def deploy(daemon: Daemon) -> dict[str, Any]:
    return post(daemon, "/deploy", {"commit": None})


def rollback(daemon: Daemon) -> dict[str, Any]:
    return post(daemon, "/rollback", {})


def post(daemon: Daemon, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Asks with the plain client: what a comfortable one costs is no cost of ours."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    assert answer.status == 200, text
    record: dict[str, Any] = json.loads(text)
    return record


def timed(act: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    act()
    return (time.perf_counter() - begun) * 1000


def boot_ms(daemon: Daemon, times: int) -> float:
    """The app's own boot: from the spawn through /bin/sh to its first answer."""
    spans = []
    for _ in range(times):
        port = free_port()
        begun = time.perf_counter()
        process = subprocess.Popen(
            ["/bin/sh", "-c", TRIVIAL],
            cwd=daemon.repo.path,
            env={"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": str(port)},
        )
        while not answers(port):
            pass
        spans.append((time.perf_counter() - begun) * 1000)
        process.kill()
        process.wait()
    return statistics.median(spans)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def bench_deploy(times: int = 20) -> None:
    with running(bake_ms=0, drain_timeout_ms=200) as daemon:
        boot = boot_ms(daemon, times)
        spans, switches = [], []
        for number in range(times):
            write_app(daemon, f"v{number + 1}")
            daemon.repo.commit("next")
            spans.append(timed(lambda: deploy(daemon)))
            settle(daemon)
            record = daemon.status()["recent"][0]
            phases = {one["phase"]: one["duration_ms"] for one in record["phases"]}
            switches.append(phases["switching"])
        how = f"POST /deploy to its answer, median of {times}, minus the app's own boot"
        note("app's own boot", boot, "ms", None, f"spawn to first 200, median of {times}")
        note("deploy of a trivial app adds", statistics.median(spans) - boot, "ms", 40, how)
        note(
            "switch with confirmation", statistics.median(switches), "ms", 15,
            f"phase switching, median of {times}",
        )  # fmt: skip


RESTING = {"healthy", "stopped", "empty"}


def settle(daemon: Daemon) -> None:
    """Until nothing drains or stops: the next figure starts from rest."""
    until(
        lambda: {slot["condition"] for slot in daemon.status()["slots"]} <= RESTING,
        what="the slots are at rest",
    )


def bench_rollback(times: int = 20) -> None:
    with running(bake_ms=600_000, drain_timeout_ms=200) as daemon:
        boot = boot_ms(daemon, times)
        warm, cold = [], []
        for number in range(times):
            write_app(daemon, f"v{number + 1}")
            daemon.repo.commit("next")
            deploy(daemon)
            settle(daemon)
            warm.append(timed(lambda: rollback(daemon)))
            settle(daemon)
        note("warm rollback", statistics.median(warm), "ms", 30, f"median of {times}")
    with running(bake_ms=0, drain_timeout_ms=200) as daemon:
        for number in range(times):
            write_app(daemon, f"v{number + 1}")
            daemon.repo.commit("next")
            deploy(daemon)
            settle(daemon)
            until(
                lambda: all(
                    slot["role"] == "live" or not any(one["up"] for one in slot["instances"])
                    for slot in daemon.status()["slots"]
                )
            )
            cold.append(timed(lambda: rollback(daemon)))
            settle(daemon)
        note(
            "cold rollback adds", statistics.median(cold) - boot, "ms", 40,
            f"median of {times}, minus the app's own boot",
        )  # fmt: skip


def bench_large(files: int = 20_000, changed: int = 50, times: int = 7) -> None:
    with running(bake_ms=0, drain_timeout_ms=200) as daemon:
        for number in range(files):
            daemon.repo.write(f"lib/{number % 200}/{number}.txt", f"{number}\n" * 200)
        daemon.repo.commit("many files")
        for _ in range(3):
            deploy(daemon)
            settle(daemon)
        boot = boot_ms(daemon, times)
        spans = []
        for turn in range(times):
            for number in range(changed):
                name = f"lib/{number % 200}/{number}.txt"
                daemon.repo.write(name, f"{turn} {number}\n" * 200)
            daemon.repo.commit(f"turn {turn}")
            spans.append(timed(lambda: deploy(daemon)))
            settle(daemon)
        note(
            f"deploy of {changed} changed of {files} files adds",
            statistics.median(spans) - boot, "ms", 150,
            f"median of {times}, minus the app's own boot",
        )  # fmt: skip


def bench_switches(times: int = 200) -> None:
    with running(bake_ms=600_000, drain_timeout_ms=500) as daemon:
        write_app(daemon, "v1")
        daemon.repo.commit("next")
        deploy(daemon)
        with load(daemon, clients=8) as tally:
            for number in range(times):
                # To and fro between two warm slots would be rollbacks: these are deploys.
                write_app(daemon, f"v{number + 2}")
                daemon.repo.commit("next")
                deploy(daemon)
        note(
            f"requests failed in {times} switches", len(tally.failures), "", 0,
            f"of {tally.answers} by 8 keep-alive clients that never retry",
        )  # fmt: skip
        if tally.failures:
            print(tally.failures[:5])


def bench_status(times: int = 400) -> None:
    with running(bake_ms=0, drain_timeout_ms=200) as daemon:
        stop = threading.Event()

        def keep_deploying() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                write_app(daemon, f"v{number}")
                daemon.repo.commit("next")
                daemon.deploy(queue=True)

        thread = threading.Thread(target=keep_deploying)
        thread.start()
        spans = []
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
        for _ in range(times):
            begun = time.perf_counter()
            connection.request("GET", "/status")
            connection.getresponse().read()
            spans.append((time.perf_counter() - begun) * 1000)
            time.sleep(0.01)
        stop.set()
        thread.join()
        note(
            "GET /status during deploys, p99", statistics.quantiles(spans, n=100)[98], "ms", 10,
            f"{times} asked, one kept connection",
        )  # fmt: skip
        note("GET /status during deploys, median", statistics.median(spans), "ms", None, "the same")
        binary = ROOT / ".venv/bin/autopilot"
        spans = [
            timed(
                lambda: subprocess.run(
                    [str(binary), "--url", f"http://127.0.0.1:{daemon.port}", "status"],
                    check=True, capture_output=True,
                )
            )
            for _ in range(11)
        ]  # fmt: skip
        note("autopilot status", statistics.median(spans), "ms", 200, "wall, median of 11")


def bench_idle(apps: int = 100) -> None:
    with running(bake_ms=0) as daemon:
        settle(daemon)
        time.sleep(3)
        note("RSS idle", rss_mb(daemon), "MB", 70, "VmRSS of the daemon, one app, at rest")
        note("idle CPU", cpu_percent(daemon, 20), "%", 0.5, "of one core, over 20 s, one app")
    with scene() as daemon:
        for number in range(apps):
            daemon.repo.manifest(
                f"app{number}", start_command="exec sleep 100000", processes=None,
                routes=[{"host": f"app{number}.test"}], health_endpoint=None, path=f"app{number}",
                deploy_on="request",
            )  # fmt: skip
            write_app(daemon, "v1", f"app{number}")
        (daemon.repo.path / ".autopilot/apps/web.json").unlink()
        daemon.repo.commit("many apps")
        daemon.start()
        time.sleep(5)
        note(f"RSS with {apps} apps", rss_mb(daemon), "MB", 90, "VmRSS, apps known, at rest")
        note(f"idle CPU with {apps} apps", cpu_percent(daemon, 20), "%", None, "over 20 s")


def rss_mb(daemon: Daemon) -> float:
    assert daemon.process is not None
    text = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", text)
    assert found is not None
    return int(found[1]) / 1024


def cpu_percent(daemon: Daemon, seconds: float) -> float:
    assert daemon.process is not None

    def ticks() -> int:
        assert daemon.process is not None
        fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(seconds)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds * 100


def bench_passes() -> None:
    from tests.benchmarks.passes import measure  # noqa: PLC0415 (only this part needs it)

    for apps, simulated in ((1, False), (10, False), (100, True), (1000, True)):
        span = asyncio.run(measure(apps, simulated=simulated)) * 1000
        kind = "simulated observers" if simulated else "real observers"
        note(
            f"no-op pass over {apps} apps", span, "ms", 1000 if apps == 1000 else None,
            f"{kind}, best of 5",
        )  # fmt: skip


def bench_throughput(seconds: float = 4) -> None:
    with running(bake_ms=0) as daemon:
        settle(daemon)
        upstream = daemon.status()["slots"]
        address = next(
            slot["instances"][0]["address"] for slot in upstream if slot["role"] == "live"
        )
        port = free_port()
        bare = bare_caddy(daemon, address, port)
        try:
            until(lambda: answers(port))
            ratios = []
            for _ in range(3):
                ours = rate(daemon.http_port, seconds)
                theirs = rate(port, seconds)
                ratios.append(ours / theirs)
        finally:
            bare.terminate()
            bare.wait()
        note(
            "throughput beside a bare proxy", statistics.median(ratios), "ratio", None,
            "requests a second through ours / Caddy with a fixed upstream, 16 connections, 3 turns",
        )  # fmt: skip


def bare_caddy(daemon: Daemon, upstream: str, port: int) -> subprocess.Popen[bytes]:
    config = {
        "admin": {"disabled": True},
        "apps": {
            "http": {
                "servers": {
                    "bare": {
                        "listen": [f"127.0.0.1:{port}"],
                        "automatic_https": {"disable": True},
                        "routes": [
                            {
                                "handle": [
                                    {"handler": "reverse_proxy", "upstreams": [{"dial": upstream}]}
                                ]
                            }
                        ],
                    }
                }
            }
        },
    }
    path = daemon.data.parent / "bare.json"
    path.write_text(json.dumps(config))
    return subprocess.Popen(
        [str(ROOT / ".venv/bin/caddy"), "run", "--config", str(path)],
        env={"PATH": os.environ["PATH"], "HOME": str(path.parent)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def rate(port: int, seconds: float, connections: int = 16) -> float:
    """Answers a second over kept connections, by a client in a process of its own."""
    done = subprocess.run(
        [PYTHON, str(HAMMER), str(port), str(seconds), str(connections)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(done.stdout)


PARTS: dict[str, Callable[[], None]] = {
    "deploy": bench_deploy,
    "rollback": bench_rollback,
    "large": bench_large,
    "switches": bench_switches,
    "status": bench_status,
    "idle": bench_idle,
    "passes": bench_passes,
    "throughput": bench_throughput,
}


def main() -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    chosen = sys.argv[1:] or list(PARTS)
    for name in chosen:
        PARTS[name]()
    out = ROOT / "build" / "bench.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps([asdict(figure) for figure in FIGURES], indent=1) + "\n")
    missed = [figure.name for figure in FIGURES if not figure.kept]
    print(f"\nwritten to {out.relative_to(ROOT)}; missed: {', '.join(missed) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
