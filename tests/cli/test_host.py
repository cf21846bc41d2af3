"""The verbs that look at this host themselves, without the API."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from pathlib import Path

import pytest

from reconciler.cli import checks
from reconciler.cli.checks import Grade, run_checks
from reconciler.cli.session import Session
from tests.cli.conftest import RUN, Daemon, Shell

pytestmark = pytest.mark.anyio

SECRET = "correct horse battery staple"


def app(home: Path, *names: str) -> None:
    (home / ".autopilot/apps").mkdir(parents=True)
    for name in names:
        (home / f".autopilot/apps/{name}.yaml").write_text("start_command: x\n", encoding="ascii")


async def test_secret_comes_from_stdin_and_only_its_name_is_told(shell: Shell) -> None:
    app(shell.home, "web")

    ran = await shell("secrets", "set", "API_KEY", stdin=f"{SECRET}\n")
    listed = await shell("secret", "list")
    as_json = await shell("secrets", "list", "--app", "web", "--json")

    assert (ran.code, listed.out) == (0, "API_KEY\n")
    assert json.loads(as_json.out)["items"] == ["API_KEY"]
    assert "the daemon rolls the app" in ran.out
    assert SECRET not in ran.out + ran.err + listed.out + as_json.out
    file = shell.home / ".data/secrets/web.env"
    assert SECRET in file.read_text(encoding="utf-8")
    assert file.stat().st_mode & 0o777 == 0o600
    assert (shell.home / ".data/.gitignore").read_text(encoding="ascii") == "*\n"


async def test_secret_is_unset(shell: Shell) -> None:
    app(shell.home, "web")
    await shell("secrets", "set", "A", stdin="1")

    assert (await shell("secrets", "unset", "A")).code == 0
    missing = await shell("secrets", "unset", "A")

    assert (missing.code, "has no secret A" in missing.err) == (1, True)
    assert "no secrets yet" in (await shell("secrets", "list")).out


async def test_secret_of_several_apps_needs_a_name(shell: Shell) -> None:
    app(shell.home, "api", "web")

    ran = await shell("secrets", "set", "A", stdin="1")

    assert (ran.code, "api, web" in ran.err) == (64, True)
    assert (await shell("secrets", "set", "A", "--app", "api", stdin="1")).code == 0
    assert (await shell("secrets", "set", "A", "--app", "../x", stdin="1")).code == 64


async def test_bad_name_of_a_secret_is_refused(shell: Shell) -> None:
    app(shell.home, "web")

    ran = await shell("secrets", "set", "A-B", stdin=SECRET)

    assert ran.code == 1
    assert SECRET not in ran.err


async def test_secret_is_asked_for_on_a_terminal_without_showing_it(shell: Shell) -> None:
    app(shell.home, "web")
    terminal, own = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", RUN, "secrets", "set", "API_KEY", start_new_session=True,
        cwd=shell.home, env=shell.env, stdin=own, stdout=own, stderr=own,
    )  # fmt: skip
    os.close(own)
    shown = b""
    async with asyncio.timeout(10):
        while b"Value of API_KEY" not in shown:
            shown += await asyncio.to_thread(os.read, terminal, 4096)
        os.write(terminal, f"{SECRET}\n".encode())
        while b"is set for web" not in shown:
            shown += await asyncio.to_thread(os.read, terminal, 4096)
        assert await process.wait() == 0
    os.close(terminal)

    assert SECRET.encode() not in shown
    assert SECRET in (shell.home / ".data/secrets/web.env").read_text(encoding="utf-8")


async def test_doctor_has_one_line_for_each_check(shell: Shell, daemon: Daemon) -> None:
    ran = await shell("doctor", "--url", daemon.url)
    as_json = await shell("doctor", "--json", "--url", daemon.url)

    lines = ran.out.splitlines()
    assert len(lines) == len(checks.CHECKS)
    assert all(line.split()[0] in ("ok", "warn", "fail") for line in lines)
    assert any(line.startswith("ok    daemon: answers at") for line in lines)
    found = json.loads(as_json.out)
    assert ran.code == as_json.code == int(any(one["grade"] == "fail" for one in found))
    assert all(one["fix"] for one in found if one["grade"] != "ok")


async def test_doctor_fails_on_what_cannot_work(shell: Shell) -> None:
    ran = await shell("doctor", "--data-dir", "/proc/nowhere", PATH="/nonexistent")

    assert ran.code == 1
    assert "fail  git: not found -> install it" in ran.out
    assert "fail  data directory: " in ran.out


def test_service_whose_apps_share_the_daemons_user_fails(tmp_path: Path) -> None:
    slot = tmp_path / "apps/web/deploy-a"
    slot.mkdir(parents=True)
    session = Session(data_dir=str(tmp_path))
    assert checks.check_users(session).grade is Grade.OK

    shared = checks.check_users(session, service=tmp_path)
    assert (shared.grade, "web" in shared.found) == (Grade.FAIL, True)
    if os.geteuid() == 0:
        os.chown(slot, 65534, 65534)
        assert checks.check_users(session, service=tmp_path).grade is Grade.OK


def test_check_that_breaks_stops_none_of_the_others() -> None:
    def check_nothing(_session: Session) -> checks.Check:
        raise OSError(5, "input/output error")

    found = list(run_checks(Session(), (check_nothing, checks.check_python)))

    assert [(one.name, one.grade) for one in found] == [
        ("nothing", Grade.WARN),
        ("python", Grade.OK),
    ]


def test_port_range_within_the_ephemeral_one_fails() -> None:
    assert checks.check_port_range(Session(), range(1024, 65536)).grade is Grade.FAIL
    assert checks.check_port_range(Session(), range(32768, 61000)).grade is Grade.OK


async def test_start_without_a_repository_says_how_to_begin(shell: Shell) -> None:
    for words in (["start"], ["server", "start", "--data-dir", str(shell.home / "d")]):
        ran = await shell(*words)
        assert ran.code == 1
        assert "no Git repository" in ran.err
        assert "git init" in ran.err
    assert not (shell.home / ".data").exists()


async def test_host_that_is_not_loopback_is_refused(shell: Shell) -> None:
    (shell.home / ".git").mkdir()

    ran = await shell("server", "start", "--host", "0.0.0.0", "--data-dir", str(shell.home / "d"))

    assert (ran.code, "loopback" in ran.err) == (64, True)


async def test_detached_program_goes_on_without_its_caller(shell: Shell) -> None:
    told = shell.home / "told"
    os.mkfifo(told)

    ran = await shell("detach", "--", "sh", "-c", "echo $PWD > told")

    assert (ran.code, ran.out.startswith("started sh as process ")) == (0, True)
    # A pipe's reader waits for its writer, which is the detached program.
    said = await asyncio.wait_for(asyncio.to_thread(told.read_text, "utf-8"), 10)
    assert said.strip() == str(shell.home)
    assert (await shell("detach", "--", "/nonexistent")).code == 1
