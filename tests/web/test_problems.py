from __future__ import annotations

import httpx
import pytest
import structlog

from reconciler.model.errors import DiskPressureError, RefusedError, StoreError
from reconciler.web.problems import KINDS
from tests.fakes import FakeCommands

pytestmark = pytest.mark.anyio

# The table of the contract.
PROMISED = {
    "deploy-in-progress": 409, "no-previous": 409, "quarantined": 409, "schema-incompatible": 409,
    "suspended": 409, "frozen": 409, "stale-base": 409, "non-fast-forward": 409,
    "stale-lease": 409, "pointer-unknown": 409, "unknown-revision": 404, "unknown-app": 404,
    "ambiguous-app": 400, "invalid-request": 400, "gate-failed": 422, "candidate-unhealthy": 422,
    "setup-failed": 422, "denied": 422, "unauthenticated": 401, "forbidden": 403,
    "interrupted": 503, "store-busy": 503, "disk-pressure": 507,
}  # fmt: skip


@pytest.mark.parametrize(("slug", "status"), PROMISED.items())
async def test_refusal_has_the_promised_status(
    client: httpx.AsyncClient, commands: FakeCommands, slug: str, status: int
) -> None:
    commands.failure = RefusedError(slug, "what to do")

    answer = await client.get("/status")

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": slug, "title": KINDS[slug].title, "status": status, "detail": "what to do",
    }  # fmt: skip


async def test_slug_nobody_knows_is_a_conflict(
    client: httpx.AsyncClient, commands: FakeCommands
) -> None:
    commands.failure = RefusedError("not-yet", "later", "d-1")

    answer = await client.get("/status")

    assert (answer.status_code, answer.json()["title"]) == (409, "Not yet")
    assert answer.json()["deploy_id"] == "d-1"


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (StoreError("the store is locked"), 503, "store-busy"),
        (DiskPressureError("no space left while writing x"), 507, "disk-pressure"),
    ],
)
async def test_known_failures_are_told(
    client: httpx.AsyncClient, commands: FakeCommands, error: Exception, status: int, slug: str
) -> None:
    commands.failure = error

    answer = await client.post("/deploy", json={"commit": "main"})

    assert (answer.status_code, answer.json()["type"]) == (status, slug)
    assert str(error) in answer.json()["detail"]


async def test_defect_tells_no_internals_but_the_log_has_them(
    client: httpx.AsyncClient, commands: FakeCommands
) -> None:
    commands.failure = ValueError("password=hunter2")

    with structlog.testing.capture_logs() as logged:
        answer = await client.get("/status")

    assert (answer.status_code, answer.json()["type"]) == (500, "internal-error")
    assert "hunter2" not in answer.text
    assert [(one["log_level"], one["path"]) for one in logged] == [("error", "/status")]


async def test_unknown_page_and_method_are_problems(client: httpx.AsyncClient) -> None:
    missing = await client.get("/nothing")
    wrong = await client.get("/deploy")
    slashed = await client.get("/status/")

    assert (missing.status_code, missing.json()["type"]) == (404, "not-found")
    assert (wrong.status_code, wrong.json()["type"]) == (405, "method-not-allowed")
    assert wrong.headers["allow"] == "POST"
    assert slashed.status_code == 404


async def test_no_answer_invites_another_site(client: httpx.AsyncClient) -> None:
    for path in ("/", "/status", "/nothing", "/metrics"):
        answer = await client.get(path)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    assert (await client.options("/status")).status_code == 405
