from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
from pathlib import Path

import pytest

from reconciler.cli.main import SYNONYMS, VERBS
from reconciler.model.principals import ADMIN, LOCAL
from tests.cli.conftest import RUN, Daemon, Serve, Shell
from tests.fakes import FakeCommands

pytestmark = pytest.mark.anyio

# What only a daemon or another verb needs, and what takes long to load.
HEAVY = {
    "apscheduler", "asyncio", "httpx", "jsonschema", "prometheus_client", "pygit2", "rich",
    "sqlite3", "sqlite_utils", "starlette", "structlog", "subprocess", "uvicorn", "watchfiles",
    "yaml",
}  # fmt: skip


@pytest.mark.parametrize("verb", ["status", "deploy", "rollback", "plan", "history", "cancel"])
async def test_verbs_of_the_api_load_nothing_heavy(shell: Shell, daemon: Daemon, verb: str) -> None:
    words = {"deploy": ["main"], "cancel": ["nope"]}.get(verb, [])
    code = (
        "import sys; from reconciler.cli.main import run; run(sys.argv[1:]); "
        "sys.stderr.write(chr(10) + ' '.join(sys.modules))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-c", code, verb, *words,
        cwd=shell.home, env=shell.env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()

    loaded = set(err.decode().splitlines()[-1].split())
    assert "reconciler.cli.client" in loaded
    assert loaded & HEAVY == set()


async def test_status_costs_less_than_200_ms(shell: Shell, daemon: Daemon) -> None:
    spans = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert (await shell("status")).code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spans.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # Time on the processor: the wall clock of a busy machine proves nothing about what it costs.
    assert min(spans) < 0.2


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"], ["status", "--nonsense"], ["status", "extra"], ["deploy", "a", "b"],
        ["cancel"], ["deploy", "--force"], ["deploy", "--skip-probe", "nope"],
        ["deploy", "--override", "size"], ["history", "--limit", "x"], ["history", "--verify"],
        ["start", "--port", "0"], ["server", "start", "--on-exit", "no"],
        ["server", "start", "--port-range", "9-1"], ["server", "start", "--https-port", "1"],
        ["secrets", "set"], ["detach"], [],
    ],
    ids=" ".join,
)  # fmt: skip
async def test_wrong_usage_exits_64(shell: Shell, words: list[str]) -> None:
    ran = await shell(*words)

    assert ran.code == 64
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "words", [["status"], ["deploy", "x"], ["rollback"], ["plan"], ["logs"], ["events"],
              ["history"], ["cancel", "x"]], ids=" ".join,
)  # fmt: skip
async def test_unreachable_daemon_exits_69_with_the_command_that_starts_it(
    shell: Shell, words: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ran = await shell("--url", f"http://127.0.0.1:{port}", *words)

    assert (ran.code, ran.out) == (69, "")
    assert f"no answer at http://127.0.0.1:{port}" in ran.err
    assert "autopilot start" in ran.err


@pytest.mark.parametrize("left", ["socket", "lock"])
async def test_daemon_of_another_repository_is_never_asked_instead(shell: Shell, left: str) -> None:
    (shell.home / ".data").mkdir()
    if left == "socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(shell.home / ".data/api.sock"))
    else:
        holder = {"pid": 1 << 30, "api": "http://127.0.0.1:7778"}
        (shell.home / ".data/lock").write_text(json.dumps(holder), encoding="ascii")

    ran = await shell("status")

    assert ran.code == 69
    assert "api.sock" in ran.err


async def test_daemon_with_its_socket_elsewhere_is_found_by_its_lock(
    shell: Shell, daemon: Daemon
) -> None:
    (daemon.data_dir / "api.sock").unlink()
    holder = {"pid": os.getpid(), "api": daemon.url}
    (daemon.data_dir / "lock").write_text(json.dumps(holder), encoding="ascii")

    assert (await shell("deploy", "main")).code == 0
    assert [principal for principal, _ in daemon.commands.asked] == [ADMIN]


async def test_what_is_not_autopilot_is_unreachable(shell: Shell) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
        writer.close()

    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with other:
        port = other.sockets[0].getsockname()[1]
        ran = await shell("status", ORCHESTRATOR_URL=f"http://127.0.0.1:{port}")

    assert (ran.code, "is not autopilot" in ran.err) == (69, True)


@pytest.mark.parametrize("place", ["before", "after", "environment", "socket"])
async def test_url_may_stand_anywhere(shell: Shell, daemon: Daemon, place: str) -> None:
    empty = shell.home / "elsewhere"
    empty.mkdir()
    match place:
        case "before":
            ran = await shell("--url", daemon.url, "--json", "status", cwd=empty)
        case "after":
            ran = await shell("status", "--json", "--url", daemon.url, cwd=empty)
        case "environment":
            ran = await shell("status", "--json", cwd=empty, ORCHESTRATOR_URL=daemon.url)
        case _:
            url = f"unix:{daemon.data_dir}/api.sock"
            ran = await shell("status", "--json", "--url", url, cwd=empty)

    assert ran.code == 0, ran.err
    assert "web" in json.loads(ran.out)["apps"]


async def test_flag_wins_over_the_environment(shell: Shell, daemon: Daemon) -> None:
    ran = await shell("--url", daemon.url, "status", ORCHESTRATOR_URL="http://127.0.0.1:1")

    assert ran.code == 0


async def test_socket_of_the_data_directory_gives_admin(shell: Shell, daemon: Daemon) -> None:
    inside = shell.home / "src"
    inside.mkdir()
    (shell.home / ".git").mkdir()

    await shell("deploy", "main", cwd=inside)
    await shell("--data-dir", str(daemon.data_dir), "deploy", "main", cwd=Path("/"))
    await shell("deploy", "main", cwd=Path("/"), AUTOPILOT_DATA_DIR=str(daemon.data_dir))

    assert [principal for principal, _ in daemon.commands.asked] == [ADMIN] * 3


async def test_token_over_tcp(shell: Shell, daemon: Daemon) -> None:
    there = {"cwd": Path("/"), "ORCHESTRATOR_URL": daemon.url}
    token = (daemon.data_dir / "admin.token").read_text(encoding="ascii").strip()
    wrong = await shell("deploy", "main", "--token", "wrong", **there)  # type: ignore[arg-type]
    await shell("deploy", "main", **there)  # type: ignore[arg-type]
    await shell("deploy", "main", AUTOPILOT_TOKEN=token, **there)  # type: ignore[arg-type]
    await shell("deploy", "main", ORCHESTRATOR_URL=daemon.url)

    assert (wrong.code, "credential is not valid" in wrong.err) == (1, True)
    assert [principal for principal, _ in daemon.commands.asked] == [LOCAL, ADMIN, ADMIN]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="a listener of another user takes root")
async def test_admin_token_is_not_sent_to_a_stranger_on_the_port(shell: Shell) -> None:
    data_dir = shell.home / ".data"
    data_dir.mkdir()
    (data_dir / "admin.token").write_text("the-secret-token\n", encoding="ascii")
    listen = (
        "import os,socket;os.setgroups([]);os.setgid(65534);os.setuid(65534);"
        "s=socket.create_server(('127.0.0.1',0));print(s.getsockname()[1],flush=True);"
        "c,_=s.accept();print(c.recv(65536),flush=True);"
        "c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}')"
    )
    stranger = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", listen, stdout=asyncio.subprocess.PIPE
    )
    assert stranger.stdout is not None
    port = int(await stranger.stdout.readline())

    await shell("--url", f"http://127.0.0.1:{port}", "plan", "--json")
    heard, _ = await asyncio.wait_for(stranger.communicate(), 10)

    assert b"GET /plan" in heard
    assert b"the-secret-token" not in heard


@pytest.mark.parametrize("word", sorted(SYNONYMS))
async def test_singular_and_plural_name_the_same_verb(shell: Shell, word: str) -> None:
    one, other = await shell(word, "--help"), await shell(SYNONYMS[word], "--help")

    assert one.code == 0
    assert one.out.partition("\n")[2] == other.out.partition("\n")[2]


async def test_help_and_version(shell: Shell) -> None:
    overview = await shell("--help")
    assert overview.code == 0
    for verb in VERBS:
        assert f"  {verb}" in overview.out
        assert (await shell(verb, "--help")).code == 0
    for words in (["version"], ["--version"]):
        assert (await shell(*words)).out.startswith("autopilot 0.")
    assert json.loads((await shell("version", "--json")).out)["version"]


async def test_reader_that_goes_away_is_no_error_to_talk_about(shell: Shell, serve: Serve) -> None:
    commands = FakeCommands()
    commands.seed(1000)
    await serve(commands)
    process = await shell.start("events", "--limit", "1000")
    assert process.stdout is not None
    process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]

    assert process.stderr is not None
    err = await asyncio.wait_for(process.stderr.read(), 10)
    await process.wait()

    assert err == b""


async def test_colours_only_for_a_terminal(shell: Shell, daemon: Daemon) -> None:
    assert "\x1b" not in (await shell("status")).out
    assert (await shell("--no-color", "status")).code == 0


def test_entry_is_what_the_package_names() -> None:
    assert RUN.startswith("from reconciler.cli.main import main")
