"""A real daemon on a repository of its own, driven as a person would: git, HTTP, signals."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

PYTHON = sys.executable
GIT_ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
}

# The app of most scenarios: it says which version it is, and misbehaves as told.
APP = """\
import json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = {version!r}
{behaviour}

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self):
        if self.path == "/healthz":
            return self.answer(health() if "health" in globals() else 200, "ok")
        if self.path == "/env":
            return self.answer(200, json.dumps(dict(os.environ)))
        if self.path.startswith("/slow"):
            time.sleep(0.3)
        return self.answer(200, VERSION)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Pid", str(os.getpid()))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 256

server = Server((os.environ["HOST"], int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("version", VERSION, "listens", flush=True)
server.serve_forever()
"""

MANIFEST = {
    "start_command": f"exec {PYTHON} -S -E app.py",
    "routes": [{"path": "/"}],
    "health_timeout_ms": 5000,
    "drain_timeout_ms": 2000,
    "bake_ms": 0,
}


def until(fact: Callable[[], Any], *, within: float = 20, what: str = "") -> Any:
    """Returns the first true value of `fact`; fails when there is none in time (seconds)."""
    deadline = time.monotonic() + within
    while True:
        with suppress(httpx.TransportError):
            if found := fact():
                return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what or fact}")
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Repo:
    """A Git repository that a person works in."""

    path: Path

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.path), *words],
            env=GIT_ENV, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    def write(self, name: str, content: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def manifest(self, app: str = "web", **keys: Any) -> None:
        """Writes the manifest of an app: the usual keys, changed by `keys` (None removes one)."""
        document = {**MANIFEST, **keys}
        kept = {
            key: value
            for key, value in document.items()
            if value is not None or key == "health_endpoint"
        }
        self.write(f".autopilot/apps/{app}.json", json.dumps(kept, indent=1))

    def app(self, version: str, behaviour: str = "", path: str = ".") -> None:
        self.write(f"{path}/app.py", APP.format(version=version, behaviour=behaviour))

    def commit(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def release(self, version: str, behaviour: str = "") -> str:
        """Commits a version of the app; returns the commit id."""
        self.app(version, behaviour)
        return self.commit(version)


def make_repo(path: Path) -> Repo:
    path.mkdir(parents=True)
    repo = Repo(path)
    repo.git("init", "-q", "-b", "main")
    return repo


@dataclass(slots=True)
class Daemon:
    """`autopilot server start` on a repository, with ports and data of its own."""

    repo: Repo
    data: Path
    http_port: int
    port: int
    port_range: str
    flags: tuple[str, ...] = ()
    verb: tuple[str, ...] = ("server", "start")
    env: dict[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    log: Path = Path()

    def start(self, *more: str, ready: bool = True, **env: str) -> Daemon:
        self.log = self.repo.path.parent / "daemon.log"
        argv = [
            *self.wrapper, PYTHON, "-m", "reconciler", *self.verb,
            "--repo", str(self.repo.path),
            "--http-port", str(self.http_port), "--port", str(self.port),
        ]  # fmt: skip
        if self.verb == ("server", "start"):
            argv += [
                "--data-dir", str(self.data), "--http-host", "127.0.0.1",
                "--port-range", self.port_range,
            ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*argv, *self.flags, *more],
                cwd=self.repo.path,
                env={**os.environ, **self.env, **env, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, within: float = 20) -> None:
        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"the daemon ended:\n{self.said()}"
            return self.api("GET", "/readyz").status_code == 200

        until(ready, within=within, what="the daemon is ready")

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def kill(self) -> None:
        """kill -9, as the out-of-memory killer would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM, within: float = 20) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(within)

    @property
    def admin(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {(self.data / 'admin.token').read_text().strip()}"}

    def api(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=options.pop("timeout", 60)) as client:
            return client.request(
                method, f"http://127.0.0.1:{self.port}{path}", json=body, **options
            )

    def deploy(
        self, commit: str | None = None, *, admin: bool = False, **keys: Any
    ) -> httpx.Response:
        body = {"commit": commit, **keys}
        return self.api("POST", "/deploy", body, headers=self.admin if admin else {})

    def rollback(self, **keys: Any) -> httpx.Response:
        return self.api("POST", "/rollback", keys)

    def status(self, app: str | None = None) -> dict[str, Any]:
        answer = self.api("GET", f"/status?app={app}" if app else "/status")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def condition(self, kind: str, app: str | None = None) -> dict[str, Any]:
        found = [one for one in self.status(app)["conditions"] if one["type"] == kind]
        return found[0] if found else {"status": False, "reason": "", "message": ""}

    def get(self, path: str = "/", **options: Any) -> httpx.Response:
        """Asks the app through the proxy."""
        with httpx.Client(trust_env=False, timeout=10) as client:
            return client.get(f"http://127.0.0.1:{self.http_port}{path}", **options)

    def ended(self, deploy_id: str, within: float = 20) -> dict[str, Any]:
        """Waits until the deploy is live or has ended without; returns its record."""

        def record() -> dict[str, Any] | None:
            found: dict[str, Any] = self.api("GET", f"/deploys/{deploy_id}").json()
            return found if found["finished_at"] else None

        found: dict[str, Any] = until(record, within=within, what=f"{deploy_id} is decided")
        return found

    def serves(self, version: str, path: str = "/", within: float = 20) -> None:
        until(
            lambda: (answer := self.get(path)).status_code == 200 and answer.text == version,
            within=within, what=f"{version} is served",
        )  # fmt: skip

    def live(self, commit: str, app: str | None = None, within: float = 20) -> dict[str, Any]:
        """Waits until the commit is live and nothing is under way; returns the status."""

        def settled() -> dict[str, Any] | None:
            status = self.status(app)
            done = status["live_commit"] == commit and status["deploy"] is None
            return status if done and status["healthy"] else None

        found: dict[str, Any] = until(settled, within=within, what=f"{commit[:10]} is live")
        return found

    def cli(self, *words: str, given: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PYTHON, "-m", "reconciler", *words],
            cwd=self.repo.path,
            env={
                **os.environ, "PYTHONPATH": str(ROOT), "AUTOPILOT_DATA_DIR": str(self.data),
                "ORCHESTRATOR_URL": f"http://127.0.0.1:{self.port}", **env,
            },
            capture_output=True, text=True, timeout=60, check=False, input=given,
        )  # fmt: skip


ROOT = Path(__file__).resolve().parents[2]


def processes(data: Path) -> dict[int, str]:
    """Returns what runs because of this data directory: apps by their cookie, proxy by its path."""
    found: dict[int, str] = {}
    cookies = deploy_ids(data)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            stat = (entry / "stat").read_text()
            if stat.rpartition(")")[2].split()[0] in "ZX":
                continue
            command = (
                (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            )
            environ = (entry / "environ").read_bytes()
            pairs = dict(one.partition(b"=")[::2] for one in environ.split(b"\0") if b"=" in one)
            cookie = pairs.get(b"AUTOPILOT_DEPLOY_ID", b"").decode()
            # Where the store lies in another mount namespace, the place for temporary files tells.
            ours = pairs.get(b"TMPDIR", b"").startswith(f"{data}/".encode())
            if cookie in cookies or ours or str(data) in command:
                found[int(entry.name)] = command.strip()
    return found


def app_processes(data: Path) -> dict[int, str]:
    """Returns what runs of the apps: neither proxy nor daemon nor what their work needs."""
    return {pid: words for pid, words in processes(data).items() if "app.py" in words}


def caddy_processes(data: Path) -> list[int]:
    return [pid for pid, words in processes(data).items() if " run --config " in words]


def deploy_ids(data: Path) -> frozenset[str]:
    """Returns the ids of all deploys of a data directory, from the store itself."""
    import sqlite3  # noqa: PLC0415 (tests look at the file, not at our code's view of it)

    path = data / "autopilot.db"
    if not path.exists():
        return frozenset()
    with suppress(sqlite3.Error):
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return frozenset(row[0] for row in connection.execute("SELECT id FROM deploys"))
        finally:
            connection.close()
    return frozenset()


@contextmanager
def scene(*flags: str, verb: tuple[str, ...] = ("server", "start")) -> Iterator[Daemon]:
    """A repository with a manifest and a daemon that is not started yet; ends all it caused."""
    # Short: a Unix socket's path may have 107 bytes.
    base = Path(tempfile.mkdtemp(prefix="ap-", dir="/tmp"))
    base.chmod(0o755)
    # Wide: ports rest for ten minutes after use, over all tests of this host.
    first = random.randrange(20000, 27500)
    daemon = Daemon(
        repo=make_repo(base / "repo"),
        data=base / "data" if verb == ("server", "start") else base / "repo" / ".data",
        http_port=free_port(),
        port=free_port(),
        port_range=f"{first}-{first + 2499}",
        flags=flags,
        verb=verb,
    )
    daemon.repo.manifest()
    try:
        yield daemon
    except BaseException:
        print(daemon.said())
        raise
    finally:
        end(daemon)
        shutil.rmtree(base, ignore_errors=True)


def end(daemon: Daemon) -> None:
    """Ends the daemon and everything that runs because of it."""
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.process.kill()
        daemon.process.wait()
    deadline = time.monotonic() + 5
    while left := processes(daemon.data):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < deadline, f"cannot be killed: {left}"
        time.sleep(0.02)


@dataclass(slots=True)
class Tally:
    """What a load saw: every answer counts, and every failure is kept."""

    answers: int = 0
    failures: list[str] = field(default_factory=list)
    versions: set[str] = field(default_factory=set)


@contextmanager
def load(
    daemon: Daemon, clients: int = 8, path: str = "/", headers: Mapping[str, str] | None = None
) -> Iterator[Tally]:
    """Keep-alive clients that never retry, half of them with POST, until the block ends."""
    tally, stop, guard = Tally(), threading.Event(), threading.Lock()

    def client(number: int) -> None:
        import http.client  # noqa: PLC0415 (plain: it neither retries nor reconnects)

        method = "POST" if number % 2 else "GET"
        connection = http.client.HTTPConnection("127.0.0.1", daemon.http_port, timeout=10)
        while not stop.is_set():
            try:
                connection.request(method, path, body=b"x" if number % 2 else None,
                                   headers=dict(headers or {}))  # fmt: skip
                answer = connection.getresponse()
                text = answer.read().decode()
                with guard:
                    tally.answers += 1
                    tally.versions.add(text)
                    if answer.status != 200:
                        tally.failures.append(f"{method} {answer.status} {text[:80]}")
            except (OSError, http.client.HTTPException) as error:
                with guard:
                    tally.failures.append(f"{method} {type(error).__name__} {error}")
                connection.close()
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield tally
    finally:
        stop.set()
        for thread in threads:
            thread.join(15)
