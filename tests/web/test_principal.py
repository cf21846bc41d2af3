"""Who may do what: every privileged verb, by every way in which a request can arrive."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from reconciler.config import Settings
from reconciler.engine.commands import DeployAsk
from reconciler.model.errors import RefusedError
from reconciler.model.principals import ADMIN, LOCAL, Principal, Scope
from reconciler.web.app import ENDPOINTS, create_app
from reconciler.web.principal import PEER, Access, admin_token, identify
from tests.fakes import FakeCommands
from tests.web.conftest import DAEMON_UID, TOKEN

pytestmark = pytest.mark.anyio

OWN_HOST = ("host", "127.0.0.1:7778")
GOOD_TOKEN = ("authorization", f"Bearer {TOKEN}")


@dataclass(frozen=True)
class Way:
    """How a request arrives, and as whom: a principal, or the status that refuses it."""

    name: str
    headers: tuple[tuple[str, str], ...]
    expected: Principal | int
    extensions: dict[str, Any] = field(default_factory=dict)
    server: tuple[str, int | None] = ("127.0.0.1", 7778)


def over_socket(name: str, uid: int, expected: Principal | int, *headers: tuple[str, str]) -> Way:
    sent = (("host", "anything"), *headers)
    return Way(name, sent, expected, {PEER: {"uid": uid, "pid": 1}}, ("/run/api.sock", None))


WAYS = (
    Way("no credential", (OWN_HOST,), LOCAL),
    Way("localhost", (("host", "localhost:7778"),), LOCAL),
    Way("upper case", (("host", "LOCALHOST:7778"),), LOCAL),
    Way("IPv6", (("host", "[::1]:7778"),), LOCAL),
    Way("bound loopback", (("host", "127.0.0.9:7778"),), LOCAL, server=("127.0.0.9", 7778)),
    Way("port 80", (("host", "localhost"),), LOCAL, server=("127.0.0.1", 80)),
    Way("no host", (), 403),
    Way("two hosts", (OWN_HOST, OWN_HOST), 403),
    Way("foreign host", (("host", "evil.example:7778"),), 403),
    Way("rebound host", (("host", "127.0.0.1.evil.example:7778"),), 403),
    Way("wrong port", (("host", "127.0.0.1:8080"),), 403),
    Way("host without port", (("host", "127.0.0.1"),), 403),
    Way("another address", (("host", "10.0.0.1:7778"),), 403, server=("10.0.0.1", 7778)),
    Way("foreign host, token", (("host", "evil.example"), GOOD_TOKEN), ADMIN),
    Way("foreign origin", (OWN_HOST, ("origin", "https://evil.example")), 403),
    Way("app's origin", (OWN_HOST, ("origin", "http://127.0.0.1:8080")), 403),
    Way("null origin", (OWN_HOST, ("origin", "null")), 403),
    Way("https origin", (OWN_HOST, ("origin", "https://127.0.0.1:7778")), 403),
    Way("foreign origin, token", (OWN_HOST, ("origin", "https://x.example"), GOOD_TOKEN), 403),
    Way("own origin", (OWN_HOST, ("origin", "http://127.0.0.1:7778")), LOCAL),
    Way("own origin, own name", (OWN_HOST, ("origin", "http://localhost:7778")), LOCAL),
    Way("cross-site", (OWN_HOST, ("sec-fetch-site", "cross-site")), 403),
    Way("same-site, another port", (OWN_HOST, ("sec-fetch-site", "same-site")), 403),
    Way("same-origin", (OWN_HOST, ("sec-fetch-site", "same-origin")), LOCAL),
    Way("typed address", (OWN_HOST, ("sec-fetch-site", "none")), LOCAL),
    Way("forwarded", (OWN_HOST, ("x-forwarded-for", "127.0.0.1")), 401),
    Way("forwarded proto", (OWN_HOST, ("x-forwarded-proto", "http")), 401),
    Way("Forwarded", (OWN_HOST, ("forwarded", "for=127.0.0.1")), 401),
    Way("X-Real-IP", (OWN_HOST, ("x-real-ip", "127.0.0.1")), 401),
    Way("Via", (OWN_HOST, ("via", "1.1 caddy")), 401),
    Way("forwarded, token", (OWN_HOST, ("x-forwarded-for", "1.2.3.4"), GOOD_TOKEN), ADMIN),
    Way("admin token", (OWN_HOST, GOOD_TOKEN), ADMIN),
    Way("scheme in lower case", (OWN_HOST, ("authorization", f"bearer {TOKEN}")), ADMIN),
    Way("wrong token", (OWN_HOST, ("authorization", "Bearer wrong")), 401),
    Way("empty token", (OWN_HOST, ("authorization", "Bearer ")), 401),
    Way("half a token", (OWN_HOST, ("authorization", f"Bearer {TOKEN[:-1]}")), 401),
    Way("another scheme", (OWN_HOST, ("authorization", f"Basic {TOKEN}")), 401),
    Way("two tokens", (OWN_HOST, GOOD_TOKEN, GOOD_TOKEN), 401),
    over_socket("socket, daemon's uid", DAEMON_UID, ADMIN),
    over_socket("socket, root", 0, ADMIN),
    over_socket("socket, other uid", 12345, LOCAL),
    over_socket("socket, other uid, token", 12345, ADMIN, GOOD_TOKEN),
    over_socket("socket, root, wrong token", 0, 401, ("authorization", "Bearer x")),
    over_socket("socket, root, forwarded", 0, 401, ("x-forwarded-for", "1.2.3.4")),
    over_socket("socket, root, origin", 0, 403, ("origin", "http://localhost")),
)


@dataclass(frozen=True)
class Verb:
    name: str
    method: str
    path: str
    body: bytes
    needs: Scope


VERBS = (
    Verb("status", "GET", "/status", b"", Scope.READ),
    Verb("page", "GET", "/", b"", Scope.READ),
    Verb("deploy", "POST", "/deploy", b'{"commit": "main"}', Scope.DEPLOY),
    Verb("rollback", "POST", "/rollback", b"{}", Scope.DEPLOY),
    Verb("force", "POST", "/deploy", b'{"commit":"main","force":true,"reason":"r"}', Scope.ADMIN),
    Verb(
        "skip", "POST", "/deploy", b'{"commit":"main","skip_probes":["health"],"reason":"r"}',
        Scope.ADMIN,
    ),
)  # fmt: skip


def scope_of(way: Way, method: str = "GET", path: str = "/status") -> dict[str, Any]:
    headers = [(name.encode(), value.encode()) for name, value in way.headers]
    if method == "POST":
        headers.append((b"content-type", b"application/json"))
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "root_path": "", "scheme": "http", "headers": headers, "client": None,
        "server": way.server, "extensions": way.extensions, "state": {},
    }  # fmt: skip


async def status_of(app: Any, scope: dict[str, Any], body: bytes) -> int:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    status: int = sent[0]["status"]
    return status


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_who_asks(way: Way) -> None:
    if isinstance(way.expected, Principal):
        assert identify(scope_of(way), Access(TOKEN, DAEMON_UID)) is way.expected
        return
    with pytest.raises(RefusedError) as refusal:
        identify(scope_of(way), Access(TOKEN, DAEMON_UID))
    assert refusal.value.slug == {401: "unauthenticated", 403: "forbidden"}[way.expected]


@pytest.mark.parametrize(("way", "verb"), list(product(WAYS, VERBS)), ids=lambda each: each.name)
async def test_every_verb_asks_the_same_principal(
    way: Way, verb: Verb, settings: Settings, access: Access
) -> None:
    commands = FakeCommands()
    await commands.deploy(LOCAL, DeployAsk(commit="main"))
    before = list(commands.asked)
    app = create_app(commands, settings, access)

    status = await status_of(app, scope_of(way, verb.method, verb.path), verb.body)

    if not isinstance(way.expected, Principal):
        assert status == way.expected
    elif not way.expected.may(verb.needs):
        assert status == 403
    else:
        assert status in (200, 409)
        return
    assert commands.asked == before, "a refused request must not reach the engine"


async def test_link_from_another_page_opens_but_a_script_of_it_may_not(
    settings: Settings, access: Access
) -> None:
    app = create_app(FakeCommands(), settings, access)
    link = (("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"))
    followed = Way("", (OWN_HOST, *link, ("sec-fetch-dest", "document")), 200)
    framed = Way("", (OWN_HOST, *link, ("sec-fetch-dest", "iframe")), 403)

    assert await status_of(app, scope_of(followed, path="/"), b"") == 200
    assert await status_of(app, scope_of(framed, path="/"), b"") == 403
    assert await status_of(app, scope_of(followed, "POST", "/rollback"), b"{}") == 403


def test_every_route_that_changes_something_needs_more_than_reading() -> None:
    assert {endpoint.scope for endpoint in ENDPOINTS if endpoint.method == "GET"} == {Scope.READ}
    assert {e.scope for e in ENDPOINTS if e.method == "POST"} == {Scope.DEPLOY}


async def test_unknown_pages_are_guarded_as_well(settings: Settings, access: Access) -> None:
    app = create_app(FakeCommands(), settings, access)
    foreign = Way("", (("host", "evil.example"),), 403)

    assert await status_of(app, scope_of(foreign, path="/nothing"), b"") == 403


def test_admin_token_is_private_and_stays(tmp_path: Path) -> None:
    token = admin_token(tmp_path)

    assert (tmp_path / "admin.token").stat().st_mode & 0o777 == 0o600
    assert len(token) >= 40
    assert admin_token(tmp_path) == token


@pytest.mark.parametrize("damage", ["readable", "empty", "link"])
def test_admin_token_that_others_may_know_is_replaced(tmp_path: Path, damage: str) -> None:
    token = admin_token(tmp_path)
    path = tmp_path / "admin.token"
    match damage:
        case "readable":
            path.chmod(0o640)
        case "empty":
            path.write_bytes(b"")
        case _:
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")

    assert admin_token(tmp_path) != token
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600


def test_access_does_not_show_its_token() -> None:
    assert TOKEN not in repr(Access(TOKEN, 0))


def test_an_empty_admin_token_admits_nobody() -> None:
    way = Way("", (OWN_HOST, ("authorization", "Bearer ")), 401)
    with pytest.raises(RefusedError):
        identify(scope_of(way), Access("", 0))
