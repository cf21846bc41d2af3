from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys

import pytest

from reconciler.engine.commands import DeployAsk
from reconciler.model.deploys import Phase
from reconciler.model.names import DeployId
from reconciler.model.principals import ADMIN
from tests.cli.conftest import RUN, Daemon, Serve, Shell
from tests.fakes import BAD, BETTER, GOOD, STEPS, End, FakeCommands

pytestmark = pytest.mark.anyio


async def first_deploy(commands: FakeCommands) -> DeployId:
    """Waits until a deploy was asked for."""
    async with asyncio.timeout(10):
        while not (found := await commands.deploys(None, 1, None)):
            await commands.next_event(0, 1)
    return found[0].id


async def test_deploy_shows_phases_and_exits_0_once_promoted(shell: Shell, daemon: Daemon) -> None:
    ran = await shell("deploy", "main", "-m", "first")

    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "web aaaaaaaaaa: queued"
    assert lines[-2:] == [
        "web aaaaaaaaaa: live",
        "web: aaaaaaaaaa is live in deploy-b after 140 ms",
    ]
    assert daemon.commands.asked == [(ADMIN, DeployAsk(commit="main", message="first"))]


async def test_without_a_ref_the_head_of_the_branch_is_asked_for(
    shell: Shell, daemon: Daemon
) -> None:
    assert (await shell("deploy")).code == 0
    assert daemon.commands.asked == [(ADMIN, DeployAsk())]


async def test_failed_deploy_says_why_and_what_to_do(shell: Shell, serve: Serve) -> None:
    end = End(Phase.FAILED, "setup-exit", "setup_command ended with status 1")
    daemon = await serve(FakeCommands(ends={BAD: end}, held=True))
    await daemon.commands.deploy(ADMIN, DeployAsk("main"))
    daemon.commands.finish(await first_deploy(daemon.commands))

    asking = asyncio.create_task(shell("deploy", "bad"))
    async with asyncio.timeout(10):
        while (deploy := (await daemon.commands.deploys(None, 1, None))[0]).seq < 2:
            await daemon.commands.next_event(await daemon.commands.last_event(), 1)
    daemon.commands.logs[deploy.id] = "npm ERR! \x1b[31mno such file\x07\nnpm ERR! giving up\n"
    daemon.commands.finish(deploy.id)
    ran = await asking

    assert ran.code == 1
    for said in (
        "web: cccccccccc was not promoted: failed (setup-exit)",
        "setup_command ended with status 1",
        "| npm ERR! giving up",
        "Nothing was touched: aaaaaaaaaa is still live.",
        "What to do: ",
        f"autopilot logs --deploy {deploy.id}",
    ):
        assert said in ran.out
    assert "\x1b" not in ran.out
    assert "\x07" not in ran.out


async def test_json_prints_the_record_alone(shell: Shell, daemon: Daemon) -> None:
    ran = await shell("--json", "deploy", "better")

    assert ran.code == 0
    record = json.loads(ran.out)
    assert (record["commit"], record["success"]) == (BETTER, True)


async def test_no_wait_only_asks(shell: Shell, serve: Serve) -> None:
    daemon = await serve(FakeCommands(held=True))

    ran = await shell("deploy", "main", "--no-wait")

    deploy_id = await first_deploy(daemon.commands)
    assert ran.code == 0
    assert f"autopilot cancel {deploy_id}" in ran.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nope"], "no commit, branch or tag is 'nope'"),
        (["main", "--app", "other"], "there is no app 'other'"),
    ],
)
async def test_refusal_is_a_sentence_and_exit_1(
    shell: Shell, daemon: Daemon, words: list[str], said: str
) -> None:
    ran = await shell("deploy", *words)

    assert (ran.code, ran.out) == (1, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


async def test_refusal_in_json_is_the_problem(shell: Shell, daemon: Daemon) -> None:
    ran = await shell("deploy", "nope", "--json")

    assert (ran.code, json.loads(ran.out)["type"]) == (1, "unknown-revision")


async def test_force_needs_a_reason_and_the_credential(shell: Shell, daemon: Daemon) -> None:
    daemon.commands.quarantined.add(BAD)

    unreasoned = await shell("deploy", "bad", "--force")
    forced = await shell("deploy", "bad", "--force", "--reason", "checked")
    over_tcp = await shell("--url", daemon.url, "deploy", "bad", "--force", "--reason", "checked")
    (daemon.data_dir / "admin.token").unlink()
    bare = await shell("--url", daemon.url, "deploy", "bad", "--force", "--reason", "checked")

    assert (unreasoned.code, forced.code, over_tcp.code, bare.code) == (64, 0, 0, 1)
    assert "admin" in bare.err


async def test_skip_probe_and_queue_are_passed_on(shell: Shell, daemon: Daemon) -> None:
    words = ("--skip-probe", "health", "--skip-probe", "request", "--queue", "--reason", "r")
    assert (await shell("deploy", "main", *words)).code == 0

    _, ask = daemon.commands.asked[0]
    assert ask == DeployAsk("main", queue=True, skip_probes=("health", "request"), reason="r")


async def test_rollback_goes_back(shell: Shell, daemon: Daemon) -> None:
    nothing = await shell("rollback")
    await shell("deploy", "main")
    await shell("deploy", "better")
    back = await shell("rollback", "--to", GOOD, "--reason", "slow")

    assert (nothing.code, back.code) == (1, 0)
    assert "nothing to go back to" in nothing.err
    assert "aaaaaaaaaa is live" in back.out


async def test_ctrl_c_says_that_the_deploy_goes_on(shell: Shell, serve: Serve) -> None:
    daemon = await serve(FakeCommands(held=True))
    process = await shell.start("deploy", "main")
    assert process.stdout is not None
    deploy_id = await first_deploy(daemon.commands)
    assert await process.stdout.readline() == b"web aaaaaaaaaa: queued\n"

    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 10)

    assert process.returncode == 1
    assert "goes on without you" in err.decode()
    assert f"autopilot cancel {deploy_id}" in err.decode()
    assert (await daemon.commands.record(deploy_id)).phase is Phase.QUEUED


async def test_daemon_that_goes_away_is_waited_for(shell: Shell, serve: Serve) -> None:
    daemon = await serve(FakeCommands(held=True))
    process = await shell.start("--url", daemon.url, "deploy", "main")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"web aaaaaaaaaa: queued\n"

    await daemon.server.stop()
    assert b"does not answer" in await asyncio.wait_for(process.stdout.readline(), 10)
    process.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(process.communicate(), 10)

    assert b"goes on without you" in err


async def test_terminal_shows_each_phase_once_with_its_time(shell: Shell, serve: Serve) -> None:
    daemon = await serve(FakeCommands(held=True))
    terminal, own = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", RUN, "deploy", "main",
        cwd=shell.home, env={**shell.env, "TERM": "xterm"}, stdin=own, stdout=own, stderr=own,
    )  # fmt: skip
    os.close(own)
    reading = asyncio.create_task(asyncio.to_thread(_read_all, terminal))

    deploy_id = await first_deploy(daemon.commands)
    for phase in (*STEPS, Phase.LIVE):
        daemon.commands.advance(deploy_id, phase)
    code = await asyncio.wait_for(process.wait(), 10)
    shown = await reading

    assert code == 0
    for phase in (Phase.QUEUED, *STEPS):
        assert shown.count(f" {phase} ") - shown.count(f"… {phase} ") == 1
    assert "✓" in shown
    assert "… queued" in shown
    assert "\x1b[32mweb: aaaaaaaaaa is live" in shown
    assert shown.endswith("\r\n")


def _read_all(terminal: int) -> str:
    """Reads until the last process has closed the other end (EIO, on Linux)."""
    content = b""
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            break
        if not chunk:
            break
        content += chunk
    os.close(terminal)
    return content.decode()
