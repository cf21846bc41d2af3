"""The deep check: one request of the contract's own, and what its answer must be."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx

from reconciler.host.processes import describe_exit
from reconciler.model.deploys import Reason, Verdict, VerdictKind, VerdictResult
from reconciler.model.desired import AppContract, HealthTest
from reconciler.ports import Instance
from reconciler.probes.asking import Answer, ask, excerpt, make_client

NAME = "request"
LONGEST = timedelta(seconds=10)


class RequestProbe:
    """Implements the Probe port. A contract without health_test_payload has nothing to ask."""

    def __init__(self) -> None:
        self._client = make_client()

    async def run(self, instance: Instance, contract: AppContract, deadline: timedelta) -> Verdict:
        test = contract.health_test
        if test is None:
            return Verdict(
                NAME, VerdictKind.PROBE, VerdictResult.SKIPPED, detail="no health_test_payload"
            )
        listener = await instance.listener()
        if await instance.exited():
            return _failed(Reason.EXITED, describe_exit(instance.exit_status))
        if not listener.ours:
            told = listener.detail or "nobody listens there"
            return _failed(Reason.REQUEST_FAILED, f"{instance.address} is not the app's: {told}")
        seconds = min(deadline, LONGEST).total_seconds()
        asked = f"{test.method} {test.path} on {listener.address}"
        try:
            async with asyncio.timeout(seconds):
                answer = await ask(
                    self._client,
                    f"http://{listener.address}{test.path}",
                    method=test.method,
                    headers=test.headers,
                    body=test.body,
                )
        except TimeoutError:
            return _failed(Reason.REQUEST_FAILED, f"{asked}: no answer within {seconds:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return await _no_answer(instance, asked, error)
        return _judge(test, asked, answer)


async def _no_answer(instance: Instance, asked: str, error: Exception) -> Verdict:
    if await instance.exited():
        return _failed(Reason.EXITED, f"{asked}: {describe_exit(instance.exit_status)}")
    return _failed(Reason.REQUEST_FAILED, f"{asked}: {type(error).__name__} {error}".rstrip())


def _judge(test: HealthTest, asked: str, answer: Answer) -> Verdict:
    came = f"{asked} answered {answer.describe()}"
    if test.expect_status is None and not answer.successful:
        return _failed(Reason.REQUEST_FAILED, f"{came}; wanted any 2xx")
    if test.expect_status is not None and answer.status != test.expect_status:
        return _failed(Reason.REQUEST_FAILED, f"{came}; wanted status {test.expect_status}")
    if test.expect_body is not None and test.expect_body.encode() not in answer.body:
        wanted = excerpt(test.expect_body.encode())
        return _failed(Reason.REQUEST_FAILED, f"{came}; wanted a body that holds {wanted!r}")
    return Verdict(
        NAME, VerdictKind.PROBE, VerdictResult.PASSED, detail=f"{asked}: status {answer.status}"
    )


def _failed(reason: Reason, detail: str) -> Verdict:
    return Verdict(NAME, VerdictKind.PROBE, VerdictResult.FAILED, reason, detail)
