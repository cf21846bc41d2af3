"""Scenario 10: an app's environment is that of the contract, and nothing else."""

from __future__ import annotations

import json
import os
import pwd
from typing import Any

from tests.acceptance.harness import PYTHON, Daemon, free_port, until

STANDARD = {
    "PATH", "HOME", "LANG", "TZ", "TMPDIR", "HOST", "PORT", "AUTOPILOT", "AUTOPILOT_APP",
    "AUTOPILOT_SLOT", "AUTOPILOT_COMMIT", "AUTOPILOT_DEPLOY_ID", "AUTOPILOT_PROCESS",
    "AUTOPILOT_HOST_ID", "ORCHESTRATOR_URL", "PWD",
}  # fmt: skip
DUMP = (
    f"{PYTHON} -S -E -c 'import json, os, sys; "
    'open(sys.argv[1] + ".new", "w").write(json.dumps(dict(os.environ))); '
    'os.rename(sys.argv[1] + ".new", sys.argv[1])\' '
)


def environment(daemon: Daemon) -> dict[str, str]:
    """Returns the environment of the live app, as it sees it itself."""
    found: dict[str, str] = daemon.get("/env").json()
    return found


def test_app_gets_the_standard_environment_and_nothing_of_the_daemon(daemon: Daemon) -> None:
    commit = daemon.repo.release("one")
    daemon.start(LEAKED="x", PYTHONPATH_OF_MINE="y", SHLVL="7", OLDPWD="/")
    status = daemon.live(commit)
    found = environment(daemon)
    assert set(found) == STANDARD
    record = status["recent"][0]
    worktree = daemon.data / "apps" / "web" / record["slot"]
    assert found["PWD"] == str(worktree)
    assert found["HOME"] == pwd.getpwuid(os.geteuid()).pw_dir
    assert (found["LANG"], found["HOST"], found["AUTOPILOT"]) == ("C.UTF-8", "127.0.0.1", "1")
    assert (found["AUTOPILOT_APP"], found["AUTOPILOT_PROCESS"]) == ("web", "web")
    assert found["AUTOPILOT_SLOT"] == record["slot"]
    assert (found["AUTOPILOT_COMMIT"], found["AUTOPILOT_DEPLOY_ID"]) == (
        commit,
        record["deploy_id"],
    )
    assert found["ORCHESTRATOR_URL"] == f"http://127.0.0.1:{daemon.port}"
    assert found["PORT"] == status["slots"][0]["instances"][0]["address"].rpartition(":")[2]
    assert found["TMPDIR"].startswith(str(daemon.data / "apps" / "web"))


def test_later_sources_of_values_win_and_the_route_cannot_be_hidden(daemon: Daemon) -> None:
    env_file = daemon.data.parent / "app.env"
    env_file.write_text(
        "A=file\nB=file\nC=file\nQUOTED='a b'\nTZ=Europe/Paris\nPORT=1\nAUTOPILOT_DEPLOY_ID=mine\n"
    )
    daemon.repo.manifest(
        env_file=str(env_file),
        env={"B": "env", "C": "env", "SPECIAL": "$A `'\n"},
        secrets_inject=["C"],
    )
    (daemon.data / "secrets").mkdir(parents=True)
    secret = daemon.data / "secrets" / "web.env"
    secret.write_text("C=hidden-value\nNOT_GRANTED=x\n")
    secret.chmod(0o600)
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    found = environment(daemon)
    assert set(found) == STANDARD | {"A", "B", "C", "QUOTED", "SPECIAL"}
    assert [found[name] for name in "ABC"] == ["file", "env", "hidden-value"]
    assert (found["QUOTED"], found["SPECIAL"], found["TZ"]) == ("a b", "$A `'\n", "Europe/Paris")
    assert found["PORT"] != "1"
    assert found["AUTOPILOT_DEPLOY_ID"] != "mine"
    assert "hidden-value" not in daemon.said()


def test_internal_port_is_given_only_to_an_app_that_asks_for_one(daemon: Daemon) -> None:
    daemon.repo.manifest(internal_port=free_port())
    commit = daemon.repo.release(
        "one",
        "internal = ThreadingHTTPServer(('127.0.0.1', int(os.environ['INTERNAL_PORT'])), "
        "type('H', (BaseHTTPRequestHandler,), {'do_GET': lambda self: Handler.do_GET(self), "
        "'answer': lambda self, *words: Handler.answer(self, *words), 'log_message': "
        "lambda *_: None}))\n"
        "threading.Thread(target=internal.serve_forever, daemon=True).start()",
    )
    daemon.start().live(commit)
    found = environment(daemon)
    assert set(found) == STANDARD | {"INTERNAL_PORT"}
    assert found["INTERNAL_PORT"] != found["PORT"]


def test_every_process_has_a_port_of_its_own(daemon: Daemon) -> None:
    seen = daemon.data.parent / "worker"
    daemon.repo.manifest(
        processes={
            "web": f"exec {PYTHON} -S -E app.py",
            "worker": {"command": f"{DUMP} {seen}.$PORT; exec sleep 600", "count": 2},
        },
        start_command=None,
    )
    commit = daemon.repo.release("one")
    daemon.start().live(commit)
    files = until(
        lambda: len(found := list(seen.parent.glob("worker.[0-9]*[0-9]"))) == 2 and found,
        what="both workers run",
    )
    workers: list[dict[str, Any]] = [json.loads(path.read_text()) for path in files]
    assert [one["AUTOPILOT_PROCESS"] for one in workers] == ["worker", "worker"]
    assert all(set(one) == STANDARD for one in workers)
    ports = {one["PORT"] for one in [*workers, environment(daemon)]}
    assert len(ports) == 3
