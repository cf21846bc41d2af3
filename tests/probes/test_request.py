"""The deep check on real apps: what was asked, and what came."""

from __future__ import annotations

from datetime import timedelta

import pytest

from reconciler.model.deploys import Verdict, VerdictResult
from reconciler.model.desired import HealthTest
from reconciler.ports import Probe
from reconciler.probes import PROBES
from tests.probes.behaviours import app, command
from tests.slots.scene import APP, SLEEP, A, Scene, contract, until_listening

pytestmark = pytest.mark.anyio

DEADLINE = timedelta(seconds=10)


@pytest.fixture
def probe() -> Probe:
    return PROBES["request"]()


async def ask(
    scene: Scene,
    probe: Probe,
    test: HealthTest | None,
    answers: str = "200",
    deadline: timedelta = DEADLINE,
) -> Verdict:
    job = scene.job(made=contract(command(answers), health_test=test), export=app())
    await scene.prepare(job)
    await scene.start(job)
    await until_listening(scene.instance())
    return await probe.run(scene.instance(), job.contract, deadline)


async def test_the_request_is_sent_as_the_contract_says(scene: Scene, probe: Probe) -> None:
    test = HealthTest("POST", "/deep?x=1", {"X-Key": "value"}, '{"ok": "grün"}', 201, "is well")
    verdict = await ask(scene, probe, test, "201")
    assert (verdict.name, verdict.result) == ("request", VerdictResult.PASSED)
    sent = (scene.worktree() / "requests").read_bytes().decode()
    assert sent.startswith("POST /deep?x=1 HTTP/1.1\r\n")
    assert "x-key: value" in sent.lower()
    assert '{"ok": "grün"}' in sent


@pytest.mark.parametrize("status", ["200", "204", "299"])
async def test_any_2xx_is_good_unless_the_contract_names_one(
    scene: Scene, probe: Probe, status: str
) -> None:
    assert (await ask(scene, probe, HealthTest(), status)).passed


@pytest.mark.parametrize(
    ("test", "answers", "told"),
    [
        (HealthTest(), "500", "status 500: \\x1b[31mbroken"),
        (HealthTest(), "302", "wanted any 2xx"),
        (HealthTest(expect_status=201), "200", "wanted status 201"),
        (HealthTest(expect_body="absent"), "200", "'absent'"),
        (HealthTest(), "close", "RemoteProtocolError"),
    ],
)
async def test_another_answer_fails_and_is_told(
    scene: Scene, probe: Probe, test: HealthTest, answers: str, told: str
) -> None:
    verdict = await ask(scene, probe, test, answers)
    assert verdict.result is VerdictResult.FAILED
    assert verdict.reason == "request-failed"
    assert told in verdict.detail
    assert "\x1b" not in verdict.detail


async def test_an_expected_status_may_be_no_2xx(scene: Scene, probe: Probe) -> None:
    assert (await ask(scene, probe, HealthTest(expect_status=401), "401")).passed


async def test_no_answer_within_the_deadline_fails(scene: Scene, probe: Probe) -> None:
    verdict = await ask(scene, probe, HealthTest(), "hang", timedelta(milliseconds=200))
    assert verdict.reason == "request-failed"
    assert "no answer within 0.2 s" in verdict.detail


async def test_a_contract_without_a_deep_check_skips_it(scene: Scene, probe: Probe) -> None:
    verdict = await ask(scene, probe, None)
    assert verdict.result is VerdictResult.SKIPPED
    assert verdict.passed


async def test_an_app_that_ended_is_told_as_ended(scene: Scene, probe: Probe) -> None:
    job = scene.job(made=contract(SLEEP, health_test=HealthTest()))
    await scene.run(job)
    await scene.slots.kill(APP, A)
    verdict = await probe.run(scene.instance(), job.contract, DEADLINE)
    assert (verdict.reason, verdict.detail) == ("exited", "killed by SIGKILL")


async def test_an_app_that_ends_during_the_request_is_told_as_ended(
    scene: Scene, probe: Probe
) -> None:
    verdict = await ask(scene, probe, HealthTest(), "exit")
    assert verdict.reason in ("exited", "request-failed")
    assert "GET /" in verdict.detail


async def test_nobody_is_asked_where_the_app_does_not_listen(scene: Scene, probe: Probe) -> None:
    job = scene.job(made=contract(SLEEP, health_test=HealthTest()))
    await scene.run(job)
    verdict = await probe.run(scene.instance(), job.contract, DEADLINE)
    assert verdict.reason == "request-failed"
    assert scene.instance().address in verdict.detail
