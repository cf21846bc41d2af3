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
from tests.fakes import BAD, End, FakeCommands
from tests.web.conftest import BEARER, TOKEN

pytestmark = pytest.mark.anyio


def test_document_has_every_route_and_no_other():
    described = {
        (method.upper(), path)
        for path, methods in document()["paths"].items()  # type: ignore[union-attr]
        for method in methods  # type: ignore[union-attr]
    }
    assert described == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}


def validator(name: str) -> Draft202012Validator:
    schemas = document()["components"]["schemas"]  # type: ignore[index, call-overload]
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}",
                                 "components": {"schemas": schemas}})  # fmt: skip


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/status", "Status"), ("/apps", "Apps"), ("/deploys", "Deploys"), ("/plan", "Plan"),
        ("/events", "Events"), ("/nothing", "Problem"), ("/status?app=no", "Problem"),
    ],
)  # fmt: skip
async def test_answers_are_as_described(client: httpx.AsyncClient, path: str, schema: str):
    await client.post("/deploy", json={"commit": "main"})
    await client.post("/deploy", json={"commit": "better"})

    answer = await client.get(path)

    validator(schema).validate(answer.json())


def app_for_fuzzing() -> Any:
    commands = FakeCommands(ends={BAD: End(Phase.FAILED, "exited")})
    return create_app(commands, Settings(repo=None, data_dir=None), Access(TOKEN, 0))  # type: ignore[arg-type]


api = schemathesis.openapi.from_asgi("/openapi.json", app_for_fuzzing(), headers=BEARER)


@api.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_the_answer_is_as_described(case: Any):
    case.call_and_validate(headers=BEARER)
