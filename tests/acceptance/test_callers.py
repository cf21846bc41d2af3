"""Scenario 26: who may do what, asked over real sockets."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.acceptance.harness import Daemon

PRIVILEGED: tuple[dict[str, Any], ...] = (
    {"force": True, "reason": "I want to"},
    {"skip_probes": ["health"], "reason": "I want to"},
)
STRANGERS = {
    "web page": {"Origin": "https://evil.example"},
    "web page of another port": {"Origin": "http://127.0.0.1:1"},
    "sandboxed page": {"Origin": "null"},
    "cross-site fetch": {"Sec-Fetch-Site": "cross-site"},
    "foreign host": {"Host": "evil.example"},
    "rebound name": {"Host": "evil.example:7778"},
    "forwarded": {"X-Forwarded-For": "10.0.0.1"},
    "forwarded as RFC 7239": {"Forwarded": "for=10.0.0.1"},
    "wrong token": {"Authorization": "Bearer nonsense"},
    "no token": {"Authorization": "Bearer"},
}


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    """One live app, asked by many; nobody of them may change it."""
    from tests.acceptance.harness import scene  # noqa: PLC0415 (a daemon for the whole file)

    with scene() as daemon:
        first = daemon.repo.release("one")
        daemon.start().live(first)
        yield daemon


@pytest.mark.parametrize("headers", STRANGERS.values(), ids=STRANGERS.keys())
@pytest.mark.parametrize("body", [{}, *PRIVILEGED], ids=["plain", "force", "skip_probes"])
def test_stranger_may_not_deploy(
    served: Daemon, headers: dict[str, str], body: dict[str, Any]
) -> None:
    before = deploys(served)
    answer = served.api("POST", "/deploy", {"commit": "main", **body}, headers=headers)
    assert answer.status_code in (401, 403), answer.text
    assert answer.json()["type"] in ("unauthenticated", "forbidden")
    assert deploys(served) == before


@pytest.mark.parametrize("headers", STRANGERS.values(), ids=STRANGERS.keys())
def test_stranger_may_neither_roll_back_nor_cancel(served: Daemon, headers: dict[str, str]) -> None:
    before = deploys(served)
    for path in ("/rollback", f"/deploys/{before[0]}/cancel"):
        answer = served.api("POST", path, {}, headers=headers)
        assert answer.status_code in (401, 403), answer.text
    assert deploys(served) == before


@pytest.mark.parametrize("body", PRIVILEGED, ids=["force", "skip_probes"])
def test_caller_without_credential_may_not_loosen_anything(
    served: Daemon, body: dict[str, Any]
) -> None:
    before = deploys(served)
    answer = served.deploy("main", **body)
    assert (answer.status_code, answer.json()["type"]) == (403, "forbidden")
    assert deploys(served) == before


def test_body_that_is_not_json_is_refused(served: Daemon) -> None:
    """A form of a web page needs no leave of anybody to be sent."""
    before = deploys(served)
    with httpx.Client(trust_env=False) as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            answer = client.post(
                f"http://127.0.0.1:{served.port}/deploy",
                content=json.dumps({"commit": "main"}),
                headers={"Content-Type": kind},
            )
            assert answer.status_code == 400, answer.text
    assert deploys(served) == before


def test_api_is_not_reachable_through_the_proxy(served: Daemon) -> None:
    """What the proxy leads to is the app, whatever the path and the host."""
    for headers in ({}, {"Host": f"127.0.0.1:{served.port}"}):
        assert served.get("/deploys", headers=headers).text == "one"


def test_socket_gives_its_own_user_everything(served: Daemon) -> None:
    transport = httpx.HTTPTransport(uds=str(served.data / "api.sock"))
    with httpx.Client(transport=transport, timeout=60) as client:
        body = {"commit": "main", "skip_probes": ["request"], "reason": "no test payload"}
        answer = client.post("http://localhost/deploy", json=body)
    assert answer.status_code == 200, answer.text


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_socket_gives_another_user_what_needs_no_credential(served: Daemon) -> None:
    path = str(served.data / "api.sock")
    plain = ask_as(65534, path, {"commit": "main", "wait": False, "queue": True})
    forced = ask_as(65534, path, {"commit": "main", "force": True, "reason": "I want to"})
    assert plain == 202
    assert forced == 403


def test_caller_without_credential_deploys_and_goes_back_under_all_gates(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    daemon.repo.manifest(deploy_on="request")
    second = daemon.repo.release("two")
    assert daemon.deploy(second).status_code == 200
    assert daemon.get().text == "two"
    assert daemon.rollback().status_code == 200
    assert daemon.get().text == "one"
    bad = daemon.repo.release("bad", "sys.exit(3)")
    assert daemon.deploy(bad).status_code == 422
    assert daemon.get().text == "one"


def test_admin_token_is_for_the_daemon_s_user_only(daemon: Daemon) -> None:
    first = daemon.repo.release("one")
    daemon.start().live(first)
    token = daemon.data / "admin.token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert daemon.deploy(first, admin=True, force=True, reason="again").status_code == 200
    environment = daemon.get("/env").json()
    assert token.read_text().strip() not in json.dumps(environment)


def deploys(daemon: Daemon) -> list[str]:
    return [one["deploy_id"] for one in daemon.api("GET", "/deploys").json()["items"]]


def ask_as(uid: int, path: str, body: dict[str, Any]) -> int:
    """Posts a deploy over the socket as another user; returns the status of the answer."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 0
        try:
            os.setgid(uid)
            os.setuid(uid)
            status = _post(path, body)
        finally:
            os.write(writer, str(status).encode())
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return int(pipe.read())


def _post(path: str, body: dict[str, Any]) -> int:
    content = json.dumps(body).encode()
    head = (
        "POST /deploy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(path)
        connection.sendall(head.encode() + content)
        answer = connection.recv(4096)
    return int(answer.split()[1])
