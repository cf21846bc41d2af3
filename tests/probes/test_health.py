"""The health probe on real apps: what passes, and under which reason each other one fails."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from datetime import timedelta

import pytest

from reconciler.model.deploys import Verdict, VerdictKind, VerdictResult
from reconciler.model.desired import AppContract
from reconciler.ports import Instance, Probe
from reconciler.probes import PROBES
from tests.probes.behaviours import app, command
from tests.slots.scene import APP, PYTHON, SLEEP, A, Scene, contract, until_listening

pytestmark = pytest.mark.anyio

LONG, SHORT = timedelta(seconds=20), timedelta(milliseconds=400)


@pytest.fixture
def probe() -> Probe:
    return PROBES["health"]()


async def prove(
    scene: Scene, probe: Probe, made: AppContract, deadline: timedelta = LONG
) -> Verdict:
    job = scene.job(made=made, export=app())
    await scene.prepare(job)
    await scene.start(job)
    return await probe.run(scene.instance(), made, deadline)


async def prove_bound(
    scene: Scene, probe: Probe, made: AppContract, deadline: timedelta = LONG
) -> Verdict:
    """Waits for the listener first, so that a short deadline is about the answers alone."""
    job = scene.job(made=made, export=app())
    await scene.prepare(job)
    await scene.start(job)
    await until_listening(scene.instance())
    return await probe.run(scene.instance(), made, deadline)


async def test_two_good_answers_in_a_row_pass(scene: Scene, probe: Probe) -> None:
    verdict = await prove(scene, probe, contract(command()))
    assert (verdict.name, verdict.kind) == ("health", VerdictKind.PROBE)
    assert verdict.result is VerdictResult.PASSED
    assert verdict.reason == ""
    requests = (scene.worktree() / "requests").read_bytes()
    assert requests.count(b"GET /healthz HTTP/1.1") == 2
    times = [float(line) for line in requests.split(b"\n") if line.replace(b".", b"").isdigit()]
    assert times[1] - times[0] >= 0.009


async def test_one_good_answer_between_bad_ones_is_not_enough(scene: Scene, probe: Probe) -> None:
    verdict = await prove(scene, probe, contract(command("500,200,503,204,204")))
    assert verdict.passed
    assert (scene.worktree() / "requests").read_bytes().count(b"GET ") == 5


async def test_a_redirect_is_no_health(scene: Scene, probe: Probe) -> None:
    verdict = await prove_bound(scene, probe, contract(command("302")), SHORT)
    assert verdict.reason == "bad-status"
    assert b"/elsewhere" not in (scene.worktree() / "requests").read_bytes()


async def test_a_bad_status_is_told_with_the_start_of_the_body(scene: Scene, probe: Probe) -> None:
    verdict = await prove_bound(scene, probe, contract(command("500")), SHORT)
    assert verdict.result is VerdictResult.FAILED
    assert verdict.reason == "bad-status"
    assert "status 500: \\x1b[31mbroken\\n" in verdict.detail
    assert "\x1b" not in verdict.detail


async def test_an_app_that_never_answers_times_out(scene: Scene, probe: Probe) -> None:
    deadline = timedelta(seconds=1.3)
    verdict = await prove_bound(scene, probe, contract(command("hang")), deadline)
    assert verdict.reason == "probe-timeout"
    assert "1 s" in verdict.detail


async def test_an_app_that_hangs_up_is_told(scene: Scene, probe: Probe) -> None:
    verdict = await prove_bound(scene, probe, contract(command("close")), SHORT)
    assert verdict.reason == "probe-timeout"
    assert "no answer" in verdict.detail


async def test_a_slow_first_answer_is_forgiven(scene: Scene, probe: Probe) -> None:
    verdict = await prove(scene, probe, contract(command("hang,200")))
    assert verdict.passed


@pytest.mark.parametrize(
    ("app_command", "told"),
    [
        ("exit 3", "exited with status 3"),
        ("exit 0", "exited with status 0"),
        ("kill -KILL $$", "killed by SIGKILL"),
        ("sh -c 'kill -SEGV $$'; exit $?", "exited with status 139 (SIGSEGV)"),
    ],
)
async def test_an_app_that_ends_fails_at_once_with_its_status(
    scene: Scene, probe: Probe, app_command: str, told: str
) -> None:
    async with asyncio.timeout(5):
        verdict = await prove(scene, probe, contract(app_command), timedelta(minutes=1))
    assert verdict.reason == "exited"
    assert verdict.detail == told


async def test_an_app_that_ends_while_it_is_asked_is_told_as_ended(
    scene: Scene, probe: Probe
) -> None:
    async with asyncio.timeout(5):
        verdict = await prove(scene, probe, contract(command("200,exit")), timedelta(minutes=1))
    assert verdict.reason == "exited"
    assert "status 3" in verdict.detail


async def test_the_status_of_an_adopted_app_is_unknown(scene: Scene, probe: Probe) -> None:
    job = scene.job()
    await scene.run(job)
    await scene.slots.close()
    scene.slots = scene.open()
    proving = asyncio.create_task(probe.run(scene.instance(), job.contract, LONG))
    await scene.slots.kill(APP, A)
    verdict = await asyncio.wait_for(proving, 5)
    assert verdict.reason == "exited"
    assert verdict.detail == "exited, status unknown"


async def test_an_app_that_never_listens(scene: Scene, probe: Probe) -> None:
    verdict = await prove(scene, probe, contract(SLEEP), SHORT)
    assert verdict.reason == "never-bound"
    assert scene.instance().address in verdict.detail


async def test_an_app_that_listens_elsewhere_is_told_where(scene: Scene, probe: Probe) -> None:
    code = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen();"
    made = contract(f'exec {PYTHON} -c "{code} time.sleep(300)"')
    verdict = await prove(scene, probe, made, timedelta(seconds=1.5))
    assert verdict.reason == "wrong-address"
    assert "$HOST:$PORT" in verdict.detail


async def test_a_stranger_on_the_port_fails_at_once_and_is_never_asked(
    scene: Scene, probe: Probe
) -> None:
    job = scene.job()
    await scene.run(job)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", int(scene.instance().address.rpartition(":")[2])))
        stranger.listen()
        stranger.setblocking(False)  # noqa: FBT003 (the library's)
        async with asyncio.timeout(5):
            verdict = await probe.run(scene.instance(), job.contract, timedelta(minutes=1))
        assert verdict.reason == "port-taken"
        with pytest.raises(BlockingIOError):
            stranger.accept()


async def test_an_app_that_ends_because_a_stranger_has_its_port_is_not_to_blame(
    scene: Scene, probe: Probe
) -> None:
    job = scene.job(made=contract("sleep 0.05; exit 1"))
    await scene.prepare(job)
    await scene.start(job)
    instance = scene.instance()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", int(instance.address.rpartition(":")[2])))
        stranger.listen()
        await instance.wait_exit()
        verdict = await probe.run(instance, job.contract, LONG)
    assert verdict.reason == "port-taken"


async def test_an_app_on_ipv6_loopback_alone_passes(scene: Scene, probe: Probe) -> None:
    verdict = await prove(scene, probe, contract(command("200", "::1")))
    assert verdict.passed
    assert "[::1]:" in verdict.detail


async def test_an_app_on_all_addresses_passes_with_a_warning(scene: Scene, probe: Probe) -> None:
    verdict = await prove(scene, probe, contract(command("200", "0.0.0.0")))
    assert verdict.passed
    assert "other hosts" in verdict.detail


def _with_internal(answers: str, where: str) -> AppContract:
    web = f"{PYTHON} -S -E app.py 500 127.0.0.1 &"
    return contract(f"{web} {command(answers, where, 'internal')}", internal_port=9000)


async def test_health_is_asked_on_the_internal_listener(scene: Scene, probe: Probe) -> None:
    verdict = await prove(scene, probe, _with_internal("200", "127.0.0.1"))
    assert verdict.passed
    assert scene.instance().internal_address in verdict.detail


async def test_an_internal_listener_that_others_can_reach_fails(scene: Scene, probe: Probe) -> None:
    async with asyncio.timeout(10):
        verdict = await prove(scene, probe, _with_internal("200", "0.0.0.0"))
    assert verdict.reason == "wrong-address"
    assert "INTERNAL_PORT" in verdict.detail


async def test_an_app_without_its_public_listener_does_not_pass(scene: Scene, probe: Probe) -> None:
    """Healthy on $INTERNAL_PORT alone it would go live with no address to lead to."""
    made = contract(command("200", "127.0.0.1", "internal"), internal_port=9000)
    verdict = await prove(scene, probe, made, timedelta(seconds=1))
    assert verdict.reason == "never-bound"
    assert scene.instance().address in verdict.detail


async def test_without_an_endpoint_accepting_twice_is_enough(scene: Scene, probe: Probe) -> None:
    made = contract(command("hang"), health_endpoint=None)
    assert (await prove(scene, probe, made)).passed


async def test_cancelling_stops_it_at_once(scene: Scene, probe: Probe) -> None:
    job = scene.job()
    await scene.run(job)
    proving = asyncio.create_task(probe.run(scene.instance(), job.contract, LONG))
    await asyncio.sleep(0)
    proving.cancel()
    async with asyncio.timeout(1):
        with pytest.raises(asyncio.CancelledError):
            await proving


async def test_an_endpoint_that_no_url_can_hold_is_a_verdict(scene: Scene, probe: Probe) -> None:
    made = replace(contract(command()), health_endpoint="/\x00")
    verdict = await prove_bound(scene, probe, made, SHORT)
    assert verdict.result is VerdictResult.FAILED


async def test_a_body_without_end_is_not_read_for_ever(scene: Scene, probe: Probe) -> None:
    code = (
        "import os, socket\n"
        "s = socket.socket(); s.bind(('127.0.0.1', int(os.environ['PORT']))); s.listen()\n"
        "while True:\n"
        "    c, _ = s.accept(); c.recv(9999)\n"
        "    try:\n"
        "        c.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n')\n"
        "        while True: c.sendall(b'x' * 65536)\n"
        "    except OSError: c.close()\n"
    )
    job = scene.job(made=contract(f"exec {PYTHON} -S endless.py"))
    assert job.export is not None
    job.export.files = {"endless.py": code}  # type: ignore[attr-defined]
    await scene.prepare(job)
    await scene.start(job)
    instance: Instance = scene.instance()
    async with asyncio.timeout(10):
        assert (await probe.run(instance, job.contract, LONG)).passed
