from __future__ import annotations

import json

import httpx
import pytest

from tests.fakes import FakeCommands

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


async def refused(client: httpx.AsyncClient, commands: FakeCommands, content: bytes) -> str:
    answer = await client.post("/deploy", content=content, headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (400, "invalid-request")
    assert commands.asked == []
    detail: str = answer.json()["detail"]
    return detail


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("commit", 7), ("commit", ""), ("commit", "x" * 256), ("commit", "a\0b"), ("app", []),
        ("app", {}), ("wait", "yes"), ("wait", 1), ("queue", "true"), ("message", 1.5),
        ("message", "x" * 1001), ("force", "false"), ("skip_probes", "health"),
        ("skip_probes", ["schema"]), ("skip_probes", [1]), ("skip_probes", [["health"]]),
        ("reason", False), ("surprise", 1), ("override", ["size"]), ("Commit", "main"),
    ],
)  # fmt: skip
async def test_wrong_or_unknown_field_is_named(
    client: httpx.AsyncClient, commands: FakeCommands, field: str, value: object
) -> None:
    content = json.dumps({"commit": "main", field: value}).encode()

    assert (await refused(client, commands, content)).startswith(f"{field}: ")


async def test_missing_commit_is_named(client: httpx.AsyncClient, commands: FakeCommands) -> None:
    assert (await refused(client, commands, b"{}")).startswith("commit: missing")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b'"x"', b"null", b"1", b'{"commit": "a", "commit": "b"}',
        b'{"commit": NaN}', b"\xff\xfe{}", b'{"commit": "\\ud800"}', b"[" * 100_000,
        b'{"commit": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
async def test_what_is_not_a_json_object_is_refused(
    client: httpx.AsyncClient, commands: FakeCommands, content: bytes
) -> None:
    assert await refused(client, commands, content)


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "text/json", ""],
)
async def test_other_content_types_are_refused(
    client: httpx.AsyncClient, commands: FakeCommands, content_type: str
) -> None:
    for path in ("/deploy", "/rollback", "/deploys/d-1/cancel"):
        answer = await client.post(
            path, content=b'{"commit": "main"}', headers={"Content-Type": content_type}
        )
        assert (answer.status_code, answer.json()["type"]) == (400, "invalid-request")
    assert commands.asked == []


async def test_content_type_may_carry_a_charset(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/deploy",
        content=b'{"commit": "main"}',
        headers={"Content-Type": "Application/JSON; charset=utf-8"},
    )
    assert answer.status_code == 200


async def test_body_over_a_mebibyte_is_refused(
    client: httpx.AsyncClient, commands: FakeCommands
) -> None:
    content = json.dumps({"commit": "main", "message": "x" * (1 << 20)}).encode()

    answer = await client.post("/deploy", content=content, headers=JSON)

    assert (answer.status_code, answer.json()["type"]) == (413, "too-large")
    assert commands.asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/deploys?limit=0", "/deploys?limit=201", "/deploys?limit=two", "/deploys?limit=-1",
        "/deploys?before=x", "/deploys?limit=1&limit=2", "/deploys?page=1", "/status?ap=web",
        "/status?app=", "/plan?app=", "/events?after=-1", "/events?limit=1001", "/apps?app=web",
        "/deploys?limit=%D9%A1",
    ],
)  # fmt: skip
async def test_wrong_query_is_refused(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    assert (answer.status_code, answer.json()["type"]) == (400, "invalid-request")


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é"])
async def test_wrong_idempotency_key_is_refused(
    client: httpx.AsyncClient, commands: FakeCommands, key: str
) -> None:
    answer = await client.post(
        "/deploy", json={"commit": "main"}, headers={b"Idempotency-Key": key.encode()}
    )

    assert (answer.status_code, answer.json()["type"]) == (400, "invalid-request")
    assert commands.asked == []
