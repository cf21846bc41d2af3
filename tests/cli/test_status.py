from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys

import pytest

from reconciler.cli.render import Paint, age, clean, span
from reconciler.cli.verbs.logs import added
from reconciler.engine.commands import DeployAsk
from reconciler.model.principals import ADMIN
from tests.cli.conftest import RUN, Daemon, Serve, Shell
from tests.fakes import BETTER, GOOD, FakeCommands

pytestmark = pytest.mark.anyio


async def test_status_shows_slots_conditions_and_what_goes_on(shell: Shell, serve: Serve) -> None:
    commands = FakeCommands()
    await commands.deploy(ADMIN, DeployAsk("main"))
    await commands.deploy(ADMIN, DeployAsk("better"))
    commands.held = True
    await commands.deploy(ADMIN, DeployAsk("main"))
    await commands.deploy(ADMIN, DeployAsk("bad", queue=True))
    commands.conditions.append(
        {"type": "Stalled", "status": True, "reason": "PointerUnknown", "message": "look\x1b[2J",
         "since": None}
    )  # fmt: skip
    await serve(commands)

    ran = await shell("status")

    lines = ran.out.splitlines()
    assert lines[0] == "web  live bbbbbbbbbb  previous aaaaaaaaaa  healthy"
    assert lines[1].split() == ["SLOT", "ROLE", "COMMIT", "CONDITION", "ADDRESS", "SINCE"]
    live = next(line for line in lines if "deploy-a" in line).split()
    assert live[:5] == ["deploy-a", "live", "bbbbbbbbbb", "healthy", "127.0.0.1:20001"]
    assert "  Stalled  PointerUnknown: look [2J" in lines
    assert any(line.startswith("  deploying aaaaaaaaaa: queued") for line in lines)
    assert any(line.startswith("  queued cccccccccc: queued") for line in lines)


async def test_status_in_json_is_the_answer_of_the_api(shell: Shell, daemon: Daemon) -> None:
    await shell("deploy", "main")

    status = json.loads((await shell("status", "--json")).out)

    assert status == await daemon.commands.status(None)


@pytest.mark.parametrize(("count", "detailed"), [(3, True), (20, False)])
async def test_status_of_several_apps(
    shell: Shell, serve: Serve, count: int, detailed: bool
) -> None:
    commands = FakeCommands(*(f"app-{number}" for number in range(count)))
    await serve(commands)

    ran, one = await shell("status"), await shell("status", "--app", "app-1")
    missing = await shell("status", "--app", "nope")

    assert ("deploy-a" in ran.out) is detailed
    assert all(f"app-{number}" in ran.out for number in range(count))
    assert one.out.count("deploy-a") == 1
    assert (missing.code, "no app 'nope'" in missing.err) == (1, True)


async def test_watch_in_a_pipe_prints_what_changed(shell: Shell, daemon: Daemon) -> None:
    process = await shell.start("status", "--watch")
    assert process.stdout is not None
    assert b"never been live" in await asyncio.wait_for(process.stdout.readline(), 10)

    await daemon.commands.deploy(ADMIN, DeployAsk("main"))
    async with asyncio.timeout(10):
        while b"live aaaaaaaaaa" not in await process.stdout.readline():
            pass
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.wait(), 10)

    assert process.returncode == 0


async def test_watch_redraws_in_place_and_leaves_the_screen_as_it_was(
    shell: Shell, daemon: Daemon
) -> None:
    terminal, own = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", RUN, "status", "--watch",
        cwd=shell.home, env={**shell.env, "TERM": "xterm"}, stdin=own, stdout=own, stderr=own,
    )  # fmt: skip
    os.close(own)
    shown = b""
    async with asyncio.timeout(10):
        while b"never been live" not in shown:
            shown += await asyncio.to_thread(os.read, terminal, 65536)
        await daemon.commands.deploy(ADMIN, DeployAsk("main"))
        while b"live aaaaaaaaaa" not in shown:
            shown += await asyncio.to_thread(os.read, terminal, 65536)
        process.send_signal(signal.SIGINT)
        await process.wait()
        shown += os.read(terminal, 65536)
    os.close(terminal)

    assert process.returncode == 0
    assert shown.startswith(b"\x1b[?1049h")
    assert shown.endswith(b"\x1b[?25h\x1b[?1049l")
    assert b"\x1b[2J" not in shown, "clearing the whole screen is what flickers"


async def test_plan_tells_by_its_exit_code(shell: Shell, daemon: Daemon) -> None:
    converged = await shell("plan")
    daemon.commands.pending.append("deploy bbbbbbb to web")
    pending = await shell("plan")
    as_json = await shell("plan", "--json", "--app", "web")
    failed = await shell("plan", "--app", "nope")

    assert (converged.code, pending.code, as_json.code, failed.code) == (0, 2, 2, 1)
    assert "web: converged" in converged.out
    assert "deploy bbbbbbb to web" in pending.out
    assert json.loads(as_json.out)["converged"] is False


async def test_history_is_paged(shell: Shell, daemon: Daemon) -> None:
    empty = await shell("history")
    for commit in ("main", "better", "main"):
        await daemon.commands.deploy(ADMIN, DeployAsk(commit, message=f"to {commit}"))

    ran = await shell("history", "--limit", "2")
    rest = await shell("history", "--limit", "2", "--before", "2")
    as_json = await shell("history", "--json")

    assert empty.out == "no deploy yet\n"
    assert ran.out.splitlines()[-1] == "older ones: autopilot history --before 2"
    assert [line.split()[3] for line in ran.out.splitlines()[1:3]] == [GOOD[:10], BETTER[:10]]
    assert "to main" in rest.out
    assert len(json.loads(as_json.out)["items"]) == 3


async def test_cancel(shell: Shell, serve: Serve) -> None:
    daemon = await serve(FakeCommands(held=True))
    deploy = await daemon.commands.deploy(ADMIN, DeployAsk("main"))

    ran, again = await shell("cancel", deploy.id), await shell("cancel", deploy.id)

    assert (ran.code, ran.out) == (0, "web: the deploy of aaaaaaaaaa is cancelled\n")
    assert (again.code, "has ended already" in again.err) == (1, True)
    assert (await shell("cancel", "../status")).code == 1


async def test_events_newest_after_and_followed(shell: Shell, daemon: Daemon) -> None:
    daemon.commands.seed(5)
    newest = await shell("events", "--limit", "2")
    after = await shell("event", "--after", "3", "--json")
    process = await shell.start("events", "-f", "--limit", "1")
    assert process.stdout is not None
    first = await asyncio.wait_for(process.stdout.readline(), 10)
    daemon.commands.seed(2)
    following = [await asyncio.wait_for(process.stdout.readline(), 10) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.wait(), 10)

    assert [line.split()[-1] for line in newest.out.splitlines()] == ["number=3", "number=4"]
    assert [event["seq"] for event in json.loads(after.out)["items"]] == [4, 5]
    assert first.endswith(b"number=4\n")
    assert [line.split()[-1] for line in following] == [b"number=0", b"number=1"]
    assert process.returncode == 0


async def test_logs_are_of_what_is_live_unless_one_is_named(shell: Shell, serve: Serve) -> None:
    commands = FakeCommands()
    first = await commands.deploy(ADMIN, DeployAsk("main"))
    second = await commands.deploy(ADMIN, DeployAsk("better"))
    commands.held = True
    third = await commands.deploy(ADMIN, DeployAsk("main"))
    commands.logs = {one.id: f"of {one.seq}\n" for one in (first, second, third)}
    await serve(commands)

    live = await shell("logs")
    assert (live.out, third.id in live.err) == ("of 2\n", True)
    assert (await shell("log", "--deploy", third.id)).out == "of 3\n"
    assert (await shell("logs", "--slot", "b")).out == "of 1\n"
    assert (await shell("logs", "--slot", "deploy-c")).code == 1
    assert (await shell("logs", "--deploy", "nope")).code == 1


async def test_logs_follow_what_is_written(shell: Shell, serve: Serve) -> None:
    commands = FakeCommands()
    deploy = await commands.deploy(ADMIN, DeployAsk("main"))
    commands.logs[deploy.id] = "one\n"
    await serve(commands)
    process = await shell.start("logs", "-f")
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 10) == b"one\n"

    commands.logs[deploy.id] += "two\n"
    assert await asyncio.wait_for(process.stdout.readline(), 10) == b"two\n"
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_logs_of_several_apps_ask_for_one(shell: Shell, serve: Serve) -> None:
    await serve(FakeCommands("api", "web"))

    ran = await shell("logs")

    assert (ran.code, "api, web" in ran.err) == (64, True)


def test_followed_log_whose_beginning_is_gone_is_not_told_twice() -> None:
    assert added("", "a\n") == "a\n"
    assert added("a\nb\n", "a\nb\nc\n") == "c\n"
    before = "".join(f"line {number}\n" for number in range(2000))
    after = before[5000:] + "new\n"
    assert added(before, after) == "new\n"
    assert added("gone\n", "other\n") == "other\n"


def test_rendering_of_times_and_texts() -> None:
    assert age("2026-01-01T00:00:00.000Z", 1767225600 + 90) == "1m"
    assert age("2026-01-01T00:00:00.000Z", 1767225600 - 5) == "0s"
    assert age(None) == "-"
    assert [span(one) for one in (None, 12.3, 1499.0)] == ["-", "12 ms", "1.5 s"]
    assert clean("a\x1b]0;title\x07\nb\u202e") == "a ]0;title  b"
    assert Paint(on=False).table(("A", "B"), [["long", ("x", "ok")]]) == ["A     B", "long  x"]
    assert Paint(on=True).table(("A",), [[("x", "ok")]])[1] == "\x1b[32mx\x1b[0m"
