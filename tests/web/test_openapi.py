from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator

from reconciler.config import Settings
from reconciler.model.deploys import Phase
from reconciler.web.app import ENDPOINTS, create_app
from reconciler.web.openapi import document
from reconciler.web.principal import Access
from reconciler.web.problems import KINDS
from tests.fakes import BAD, End, FakeCommands
from tests.web.conftest import BEARER, TOKEN

pytestmark = pytest.mark.anyio


def described() -> dict[str, Any]:
    whole: dict[str, Any] = document()
    return whole


def test_document_has_every_route_and_no_other() -> None:
    paths = described()["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert routes == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}


def test_every_problem_of_the_table_is_described_for_some_route() -> None:
    told = str(described()["components"]["schemas"]["Problem"]["description"])
    assert [slug for slug in KINDS if slug not in told] == []


def validator(name: str) -> Draft202012Validator:
    schemas = described()["components"]["schemas"]
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}",
                                 "components": {"schemas": schemas}})  # fmt: skip


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/status", "Status"), ("/apps", "Apps"), ("/deploys", "Deploys"), ("/plan", "Plan"),
        ("/events", "Events"), ("/nothing", "Problem"), ("/status?app=no", "Problem"),
    ],
)  # fmt: skip
async def test_answers_are_as_described(client: httpx.AsyncClient, path: str, schema: str) -> None:
    await client.post("/deploy", json={"commit": "main"})
    await client.post("/deploy", json={"commit": "better"})
    await client.post("/rollback")

    answer = await client.get(path)

    validator(schema).validate(answer.json())


def app_for_fuzzing() -> Any:
    commands = FakeCommands(ends={BAD: End(Phase.FAILED, "exited")})
    return create_app(commands, Settings(repo=None, data_dir=None), Access(TOKEN, 0))  # type: ignore[arg-type]


api = schemathesis.openapi.from_asgi("/openapi.json", app_for_fuzzing(), headers=BEARER)


@api.parametrize()
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_the_answer_is_as_described(case: Any) -> None:
    case.call_and_validate(headers=BEARER)
