from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from reconciler.model.deploys import Phase
from reconciler.model.names import DeployId
from tests.fakes import BAD, GOOD, End, FakeCommands
from tests.web.conftest import Connect

pytestmark = pytest.mark.anyio


async def test_status_of_the_only_app_is_flat(client: httpx.AsyncClient) -> None:
    await client.post("/deploy", json={"commit": "main"})

    status = (await client.get("/status")).json()

    assert (status["live_commit"], status["healthy"]) == (GOOD, True)
    assert status == (await client.get("/status", params={"app": "web"})).json()


async def test_status_of_several_apps_is_by_name(connect: Connect) -> None:
    client = connect(FakeCommands("api", "web"))

    status = (await client.get("/status")).json()

    assert status["live_commit"] is None
    assert set(status["apps"]) == {"api", "web"}
    assert (await client.get("/status?app=nope")).json()["type"] == "unknown-app"
    ambiguous = await client.post("/deploy", json={"commit": "main"})
    assert (ambiguous.status_code, ambiguous.json()["type"]) == (400, "ambiguous-app")


async def test_apps_and_plan(client: httpx.AsyncClient, commands: FakeCommands) -> None:
    commands.pending.append("deploy a to web")

    apps, plan = await client.get("/apps"), await client.get("/plan")

    assert [one["name"] for one in apps.json()["items"]] == ["web"]
    assert apps.json()["next"] is None
    assert plan.json()["converged"] is False
    assert plan.json()["apps"]["web"]["pending"] == ["deploy a to web"]


async def test_ready_after_the_first_pass_only(
    client: httpx.AsyncClient, commands: FakeCommands
) -> None:
    commands.is_ready = False

    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get("/readyz")).status_code == 503
    commands.is_ready = True
    assert (await client.get("/readyz")).status_code == 200


async def samples(client: httpx.AsyncClient) -> dict[tuple[str, frozenset[str]], float]:
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_metrics_count_each_deploy_once(connect: Connect) -> None:
    commands = FakeCommands(ends={BAD: End(Phase.FAILED, "exited")})
    client = connect(commands)
    await client.post("/deploy", json={"commit": "main"})
    await client.post("/deploy", json={"commit": "bad"})
    commands.held = True
    held = (await client.post("/deploy", json={"commit": "main", "wait": False})).json()
    await client.post("/deploy", json={"commit": "main", "wait": False, "queue": True})

    first = await samples(client)
    for key in ("live", "failed"):
        assert first["autopilot_deploys_total", frozenset({"web", key})] == 1
    assert first["autopilot_deploys_open", frozenset({"web", "queued"})] == 2
    assert first["autopilot_app_healthy", frozenset({"web"})] == 1

    commands.finish(DeployId(held["deploy_id"]))
    second, third = await samples(client), await samples(client)
    for seen in (second, third):
        assert seen["autopilot_deploys_total", frozenset({"web", "live"})] == 2
        assert seen["autopilot_deploys_total", frozenset({"web", "failed"})] == 1
        assert seen["autopilot_deploys_open", frozenset({"web", "queued"})] == 1
    assert third["autopilot_deploy_duration_seconds_count", frozenset({"web"})] == 2


async def test_metrics_time_requests_by_route_not_by_path(client: httpx.AsyncClient) -> None:
    for path in ("/deploys/a", "/deploys/b", "/nothing", "/nothing/else"):
        await client.get(path)
    await client.request("ODD", "/status")

    seen = await samples(client)

    name = "autopilot_http_request_duration_seconds_count"
    assert seen[name, frozenset({"GET", "/deploys/{deploy_id}", "404"})] == 2
    assert seen[name, frozenset({"other", "none", "404"})] == 2
    assert seen[name, frozenset({"other", "none", "405"})] == 1
