"""Secrets: given by name, taken up by a running daemon, and seen nowhere but where granted."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.harness import Daemon, processes, until

FIRST, SECOND = "correct-horse-4711", "battery-staple-0815"


def set_secret(daemon: Daemon, name: str, value: str, app: str = "web") -> str:
    """Pipes the value in, as people do; returns what was said."""
    done = daemon.cli("secrets", "set", name, "--app", app, given=f"{value}\n")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def granted(daemon: Daemon, name: str = "DATABASE_URL") -> str | None:
    answer = daemon.get("/env")
    assert answer.status_code == 200
    found: str | None = answer.json().get(name)
    return found


def places_that_hold(daemon: Daemon, value: str) -> list[str]:
    """Returns every file of the data directory, but the secrets', with the value in it."""
    return [
        str(path.relative_to(daemon.data))
        for path in daemon.data.rglob("*")
        if path.is_file() and not path.is_symlink() and value.encode() in path.read_bytes()
        if path.relative_to(daemon.data).parts[0] != "secrets"
    ]


def argv_and_environments(daemon: Daemon, value: str) -> dict[int, str]:
    """Returns the processes, but the app that was granted it, that show the value."""
    assert daemon.process is not None
    shown: dict[int, str] = {}
    for pid in {daemon.process.pid, *processes(daemon.data)}:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        if value.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            shown[pid] = "cmdline"
        if value.encode() in environ and b"AUTOPILOT_APP=web\0" not in environ:
            shown[pid] = "environ"
    return shown


def test_secret_reaches_the_app_and_nothing_else(daemon: Daemon) -> None:
    daemon.repo.manifest(secrets_inject=["DATABASE_URL"])
    first = daemon.repo.release("one")
    assert FIRST not in set_secret(daemon, "DATABASE_URL", FIRST)
    daemon.start().live(first)
    assert granted(daemon) == FIRST

    assert "rolls the app" in set_secret(daemon, "DATABASE_URL", SECOND)
    until(lambda: granted(daemon) == SECOND, what="the new value is taken up")
    status = daemon.live(first)
    assert status["recent"][0]["trigger"] == "secret"

    failing = "print('gone', file=sys.stderr); sys.exit(4)"
    bad = daemon.repo.release("bad", failing)
    until(lambda: daemon.status()["recent"][0]["commit"] == bad)
    until(lambda: daemon.status()["deploy"] is None)
    for value in (FIRST, SECOND):
        assert places_that_hold(daemon, value) == []
        assert argv_and_environments(daemon, value) == {}
        for path in ("/status", "/events?after=0&limit=200", "/deploys", "/plan", "/metrics", "/"):
            assert value not in daemon.api("GET", path).text, path
        assert value not in daemon.said()

    listed = daemon.cli("secrets", "list", "--app", "web")
    assert listed.stdout == "DATABASE_URL\n"
    file = daemon.data / "secrets/web.env"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_missing_secret_refuses_the_deploy_by_name_and_setting_it_deploys(daemon: Daemon) -> None:
    daemon.repo.manifest(secrets_inject=["API_KEY", "DATABASE_URL"])
    first = daemon.repo.release("one")
    set_secret(daemon, "API_KEY", FIRST)
    daemon.start()
    until(lambda: daemon.condition("Stalled")["status"], what="it is stalled")
    record = daemon.status()["recent"][0]
    assert (record["phase"], record["reason"]) == ("failed", "missing-secret")
    answer = daemon.deploy("main")
    assert answer.status_code == 422
    assert "DATABASE_URL" in answer.json()["detail"]
    assert "API_KEY" not in answer.json()["detail"]
    assert "autopilot secrets set NAME --app web" in answer.json()["detail"]
    set_secret(daemon, "DATABASE_URL", SECOND)
    daemon.live(first)
    assert granted(daemon) == SECOND


def test_unset_secret_leaves_live_alone_and_refuses_the_next_deploy(daemon: Daemon) -> None:
    daemon.repo.manifest(secrets_inject=["DATABASE_URL"])
    first = daemon.repo.release("one")
    set_secret(daemon, "DATABASE_URL", FIRST)
    daemon.start().live(first)
    pid = daemon.get().headers["x-pid"]
    gone = daemon.cli("secrets", "unset", "DATABASE_URL", "--app", "web")
    assert gone.returncode == 0, gone.stderr
    second = daemon.repo.release("two")
    until(
        lambda: any(one["commit"] == second for one in daemon.status()["recent"]),
        what="the next commit was tried",
    )
    until(lambda: daemon.status()["deploy"] is None)
    tried = next(one for one in daemon.status()["recent"] if one["commit"] == second)
    assert (tried["phase"], tried["reason"]) == ("failed", "missing-secret")
    assert daemon.get().headers["x-pid"] == pid
    assert granted(daemon) == FIRST
    again = daemon.cli("secrets", "unset", "DATABASE_URL", "--app", "web")
    assert again.returncode == 1
    assert "has no secret DATABASE_URL" in again.stderr


def test_an_app_sees_neither_the_daemons_environment_nor_the_secrets_of_another(
    daemon: Daemon,
) -> None:
    daemon.repo.manifest(secrets_inject=["DATABASE_URL"])
    daemon.repo.manifest("other", routes=[{"path": "/other"}], secrets_inject=["API_KEY"])
    first = daemon.repo.release("one")
    set_secret(daemon, "DATABASE_URL", FIRST)
    set_secret(daemon, "API_KEY", SECOND, app="other")
    daemon.start(DAEMON_ONLY="not-for-apps")
    daemon.live(first, "web")
    daemon.live(first, "other")
    web = daemon.get("/env").json()
    assert "DAEMON_ONLY" not in web
    assert "API_KEY" not in web
    assert set(web) <= ALLOWED | {"DATABASE_URL"}, set(web) - ALLOWED


# What the contract promises an app, beside what the shell sets.
ALLOWED = {
    "PWD", "PATH", "HOME", "LANG", "TZ", "TMPDIR", "HOST", "PORT",
    "AUTOPILOT", "AUTOPILOT_APP", "AUTOPILOT_SLOT", "AUTOPILOT_COMMIT", "AUTOPILOT_DEPLOY_ID",
    "AUTOPILOT_PROCESS", "AUTOPILOT_HOST_ID", "ORCHESTRATOR_URL",
}  # fmt: skip
