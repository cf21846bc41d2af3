from __future__ import annotations

import asyncio

import httpx
import pytest

from reconciler.engine.commands import DeployAsk, RollbackAsk
from reconciler.model.deploys import Phase
from reconciler.model.names import DeployId
from reconciler.model.principals import ADMIN, LOCAL
from reconciler.web.principal import Access
from tests.fakes import BAD, BETTER, GOOD, End, FakeCommands
from tests.web.conftest import BEARER, Connect

pytestmark = pytest.mark.anyio


async def test_deploy_answers_with_the_record_once_live(
    client: httpx.AsyncClient, commands: FakeCommands
) -> None:
    answer = await client.post("/deploy", json={"commit": "main", "message": "first"})

    assert answer.status_code == 200
    record = answer.json()
    assert record["success"] is True
    assert (record["app"], record["commit"], record["phase"]) == ("web", GOOD, "live")
    assert (record["actor"], record["message"]) == ("human:local", "first")
    assert [step["phase"] for step in record["phases"]][-2:] == ["switching", "live"]
    assert commands.asked == [(LOCAL, DeployAsk(commit="main", message="first"))]


async def test_without_waiting_the_answer_says_where_to_ask(connect: Connect) -> None:
    client = connect(FakeCommands(held=True))

    answer = await client.post("/deploy", json={"commit": "main", "wait": False})

    assert answer.status_code == 202
    record = answer.json()
    assert answer.headers["location"] == f"/deploys/{record['deploy_id']}"
    assert record["phase"] == "queued"
    assert (await client.get(answer.headers["location"])).json()["phase"] == "queued"


async def test_null_stands_for_the_head_of_the_branch(client: httpx.AsyncClient) -> None:
    answer = await client.post("/deploy", json={"commit": None})

    assert answer.json()["commit"] == GOOD


@pytest.mark.parametrize(
    ("end", "status", "slug"),
    [
        (End(Phase.FAILED, "setup-exit", "npm ci ended with 1"), 422, "setup-failed"),
        (End(Phase.FAILED, "setup-timeout"), 422, "setup-failed"),
        (End(Phase.FAILED, "checkout-failed"), 422, "setup-failed"),
        (End(Phase.FAILED, "bad-status"), 422, "candidate-unhealthy"),
        (End(Phase.FAILED, "not-confirmed"), 422, "candidate-unhealthy"),
        (End(Phase.FAILED, "missing-secret"), 422, "candidate-unhealthy"),
        (End(Phase.REJECTED, "invalid-manifest"), 422, "gate-failed"),
        (End(Phase.FAILED, "disk-pressure"), 507, "disk-pressure"),
        (End(Phase.FAILED, "pointer-unknown"), 409, "pointer-unknown"),
        (End(Phase.REJECTED, "quarantined"), 409, "quarantined"),
        (End(Phase.SUPERSEDED, "superseded-by-rollback"), 409, "superseded"),
        (End(Phase.CANCELLED, "cancelled-by-request"), 409, "cancelled"),
        (End(Phase.INTERRUPTED, "daemon-stopped"), 503, "interrupted"),
        (End(Phase.ROLLED_BACK, "bake-failed"), 422, "candidate-unhealthy"),
        (End(Phase.ROLLED_BACK, "rolled-back-by-request"), 409, "superseded"),
    ],
)
async def test_failed_deploy_is_a_problem_with_record_and_log(
    connect: Connect, end: End, status: int, slug: str
) -> None:
    commands = FakeCommands(ends={BAD: end}, held=True)
    client = connect(commands)
    asking = asyncio.create_task(client.post("/deploy", json={"commit": "bad"}))
    await commands.next_event(0, 5)
    deploy = (await commands.deploys(None, 1, None))[0]
    commands.logs[deploy.id] = "one\ntwo\n"

    commands.finish(deploy.id)
    answer = await asking

    body = answer.json()
    assert (answer.status_code, body["status"], body["type"]) == (status, status, slug)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (body["success"], body["deploy_id"], body["commit"]) == (False, deploy.id, BAD)
    assert (body["phase"], body["reason"]) == (end.phase.value, end.reason)
    assert body["log_tail"] == "one\ntwo"
    assert end.detail in body["detail"]


async def test_client_that_goes_away_does_not_cancel_the_deploy(connect: Connect) -> None:
    commands = FakeCommands(held=True)
    client = connect(commands)
    asking = asyncio.create_task(client.post("/deploy", json={"commit": "main"}))
    await commands.next_event(0, 5)

    asking.cancel()
    await asyncio.wait([asking])

    deploy = (await commands.deploys(None, 1, None))[0]
    assert deploy.phase is Phase.QUEUED
    assert commands.finish(deploy.id).promoted is not None


async def test_refusal_for_a_running_deploy_carries_its_record(connect: Connect) -> None:
    commands = FakeCommands(held=True)
    client = connect(commands)
    first = (await client.post("/deploy", json={"commit": "main", "wait": False})).json()

    answer = await client.post("/deploy", json={"commit": "better"})

    body = answer.json()
    assert (answer.status_code, body["type"]) == (409, "deploy-in-progress")
    assert (body["deploy_id"], body["commit"]) == (first["deploy_id"], GOOD)
    queued = await client.post("/deploy", json={"commit": "better", "queue": True, "wait": False})
    assert queued.status_code == 202


async def test_idempotency_key_answers_with_the_same_deploy(client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = await client.post("/deploy", json={"commit": "main"}, headers=headers)

    again = await client.post("/deploy", json={"commit": "main"}, headers=headers)
    other = await client.post("/deploy", json={"commit": "better"}, headers=headers)

    assert again.json()["deploy_id"] == first.json()["deploy_id"]
    assert (other.status_code, other.json()["type"]) == (409, "idempotency-conflict")


async def test_rollback_goes_back_and_passes_on_what_was_asked(
    client: httpx.AsyncClient, commands: FakeCommands
) -> None:
    await client.post("/deploy", json={"commit": "main"})
    await client.post("/deploy", json={"commit": "better"})

    answer = await client.post("/rollback", json={"app": "web", "reason": "slow", "to": GOOD})

    assert (answer.status_code, answer.json()["commit"]) == (200, GOOD)
    assert answer.json()["previous_commit"] == BETTER
    assert commands.asked[-1] == (LOCAL, RollbackAsk(app="web", to=GOOD, reason="slow"))


async def test_rollback_needs_no_body(client: httpx.AsyncClient) -> None:
    answer = await client.post("/rollback")

    assert (answer.status_code, answer.json()["type"]) == (409, "no-previous")


async def test_rollback_ends_a_running_deploy_as_superseded(connect: Connect) -> None:
    commands = FakeCommands()
    client = connect(commands)
    await client.post("/deploy", json={"commit": "main"})
    await client.post("/deploy", json={"commit": "better"})
    commands.held = True
    seen = await commands.last_event()
    asking = asyncio.create_task(client.post("/deploy", json={"commit": "main"}))
    await commands.next_event(seen, 5)

    back = await client.post("/rollback", json={"wait": False})

    assert back.status_code == 202
    assert (await asking).json()["type"] == "superseded"


async def test_force_needs_the_admin_credential_and_a_reason(
    client: httpx.AsyncClient, commands: FakeCommands
) -> None:
    commands.quarantined.add(BAD)
    forced = {"commit": "bad", "force": True, "reason": "checked by hand"}

    assert (await client.post("/deploy", json={"commit": "bad"})).json()["type"] == "quarantined"
    assert (await client.post("/deploy", json=forced)).status_code == 403
    silent = await client.post("/deploy", json={**forced, "reason": None}, headers=BEARER)
    assert (silent.status_code, silent.json()["detail"].partition(":")[0]) == (400, "reason")
    assert (await client.post("/deploy", json=forced, headers=BEARER)).status_code == 200
    assert commands.asked[-1][0] is ADMIN


async def test_cancel_ends_an_open_deploy(connect: Connect) -> None:
    commands = FakeCommands(held=True)
    client = connect(commands)
    record = (await client.post("/deploy", json={"commit": "main", "wait": False})).json()
    path = f"/deploys/{record['deploy_id']}/cancel"

    answer = await client.post(path)
    again = await client.post(path, json={})

    assert (answer.status_code, answer.json()["phase"]) == (200, "cancelled")
    assert (again.status_code, again.json()["deploy_id"]) == (400, record["deploy_id"])
    assert again.json()["phase"] == "cancelled"


async def test_deploys_are_paged_newest_first(client: httpx.AsyncClient) -> None:
    for commit in ("main", "better", "main"):
        await client.post("/deploy", json={"commit": commit})

    first = (await client.get("/deploys", params={"limit": 2})).json()
    rest = (await client.get("/deploys", params={"limit": 2, "before": first["next"]})).json()

    commits = [record["commit"] for record in first["items"] + rest["items"]]
    assert commits == [GOOD, BETTER, GOOD]
    assert (first["next"], rest["next"]) == (2, None)


async def test_deploy_shows_the_end_of_its_log_when_it_failed(connect: Connect) -> None:
    commands = FakeCommands(ends={BAD: End(Phase.FAILED, "exited")})
    client = connect(commands)
    good = (await client.post("/deploy", json={"commit": "main"})).json()["deploy_id"]
    bad = (await client.post("/deploy", json={"commit": "bad"})).json()["deploy_id"]
    commands.logs[DeployId(bad)] = "\n".join(str(number) for number in range(60))

    assert (await client.get(f"/deploys/{good}")).json()["log_tail"] is None
    tail = (await client.get(f"/deploys/{bad}")).json()["log_tail"]
    assert (tail.splitlines()[0], tail.count("\n")) == ("10", 49)
    whole = await client.get(f"/deploys/{bad}/log")
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.text.startswith("0\n1\n")


@pytest.mark.parametrize("bad_id", ["nope", "a%2F..%2Fb", "%00", "x" * 65])
@pytest.mark.parametrize("suffix", ["", "/log"])
async def test_unknown_or_malformed_id_is_not_found(
    client: httpx.AsyncClient, bad_id: str, suffix: str
) -> None:
    answer = await client.get(f"/deploys/{bad_id}{suffix}")

    assert answer.status_code == 404
    assert answer.json()["type"] in ("unknown-deploy", "not-found")


async def test_waiting_answer_ends_when_the_server_stops(
    commands: FakeCommands, settings: object, access: Access, connect: Connect
) -> None:
    commands.held = True
    client = connect(commands)
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    asking = asyncio.create_task(client.post("/deploy", json={"commit": "main"}))
    await commands.next_event(0, 5)

    transport.app.state.closing.set()  # type: ignore[attr-defined]

    body = (await asking).json()
    assert (body["status"], body["type"], body["phase"]) == (503, "interrupted", "queued")
    assert body["deploy_id"] in body["detail"]
