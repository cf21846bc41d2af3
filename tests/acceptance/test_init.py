"""`autopilot init`, from a project to its first deploy, and `autopilot doctor` on this host."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.harness import Daemon, scene

SERVER = """\
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from pip")
    def log_message(self, *args):
        pass
HEALTH = "/healthz"
address = (os.environ["HOST"], int(os.environ["PORT"]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""
PACKAGE = {"name": "shop", "scripts": {"start": "node server.js", "build": "tsc"}}
PROJECTS = {
    "npm": {"package.json": json.dumps(PACKAGE), "server.js": 'app.get("/health")'},
    "uv": {"pyproject.toml": '[project]\nname = "shop"\n', "uv.lock": "", "main.py": SERVER},
    "pip": {"requirements.txt": "", "app.py": SERVER},
    "static": {"index.html": "<h1>static</h1>\n"},
}  # fmt: skip


@pytest.fixture
def fresh() -> Iterator[Daemon]:
    with scene(verb=("start",)) as daemon:
        shutil.rmtree(daemon.repo.path / ".autopilot")
        yield daemon


def project(daemon: Daemon, kind: str) -> None:
    for name, content in PROJECTS[kind].items():
        daemon.repo.write(name, content)


@pytest.mark.parametrize("kind", PROJECTS)
def test_init_writes_a_manifest_that_is_valid_and_never_overwrites_it(
    fresh: Daemon, kind: str
) -> None:
    project(fresh, kind)
    done = fresh.cli("init")
    assert done.returncode == 0, done.stderr
    assert f"found a project for {kind}" in done.stdout
    (file,) = (fresh.repo.path / ".autopilot/apps").iterdir()
    checked = fresh.cli("validate")
    assert checked.returncode == 0, checked.stdout
    assert "valid: repo" in checked.stdout
    file.write_text(file.read_text() + "# mine\n")
    again = fresh.cli("init")
    assert again.returncode == 0
    assert "nothing was written" in again.stdout
    assert file.read_text().endswith("# mine\n")


@pytest.mark.parametrize(("kind", "answer"), [("pip", "from pip"), ("static", "<h1>static</h1>\n")])
def test_what_init_wrote_deploys(fresh: Daemon, kind: str, answer: str) -> None:
    if kind == "pip" and not can_make_environments():
        pytest.skip("needs python3 with venv and ensurepip on PATH")
    project(fresh, kind)
    assert fresh.cli("init").returncode == 0
    first = fresh.repo.commit("deploy with autopilot")
    fresh.start().live(first, within=60)
    assert fresh.get().text == answer


def can_make_environments() -> bool:
    tried = ["python3", "-c", "import ensurepip, venv"]
    return subprocess.run(tried, check=False, capture_output=True).returncode == 0


def test_init_without_a_known_project_shows_what_to_write(fresh: Daemon) -> None:
    done = fresh.cli("init")
    assert done.returncode == 1
    assert "nothing was written" in done.stderr
    assert "start_command:" in done.stdout
    assert not (fresh.repo.path / ".autopilot").exists()


def test_doctor_checks_this_host_one_line_each(fresh: Daemon) -> None:
    done = fresh.cli("doctor", AUTOPILOT_CADDY="")
    lines = done.stdout.splitlines()
    names = {line[6:].partition(":")[0] for line in lines}
    assert {"python", "git", "caddy", "daemon", "data directory", "rights", "systemd"} <= names
    for line in lines:
        assert line.startswith(("ok    ", "warn  ", "fail  ")), line
        assert line.startswith("ok") or " -> " in line, f"{line!r} does not say what to do"
    assert done.returncode == int(any(line.startswith("fail") for line in lines))
    assert "Traceback" not in done.stderr


def test_doctor_tells_of_a_caddy_that_cannot_be_used(fresh: Daemon, tmp_path: Path) -> None:
    fake = tmp_path / "caddy"
    fake.write_text("#!/bin/sh\necho v2.7.6\n")
    fake.chmod(0o755)
    done = fresh.cli("doctor", AUTOPILOT_CADDY=str(fake))
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if "caddy:" in line]
    assert "v2.7.6, needed is 2.11.1 or newer" in line


def test_doctor_finds_the_running_daemon(fresh: Daemon) -> None:
    project(fresh, "static")
    fresh.cli("init")
    fresh.repo.commit("first")
    fresh.start()
    done = fresh.cli("doctor", "--json")
    checks = {one["name"]: one for one in json.loads(done.stdout)}
    assert checks["daemon"]["grade"] == "ok"
    assert "answers at" in checks["daemon"]["found"]
