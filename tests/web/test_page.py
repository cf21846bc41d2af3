from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import httpx
import pytest

from reconciler.model.deploys import Phase
from reconciler.model.names import AppName
from tests.fakes import BAD, GOOD, End, FakeCommands
from tests.web.conftest import Connect

pytestmark = pytest.mark.anyio

EVIL = "</code><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Tags(HTMLParser):
    """Collects what a browser would make elements of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


async def test_page_shows_how_things_stand(
    client: httpx.AsyncClient, commands: FakeCommands
) -> None:
    await client.post("/deploy", json={"commit": "main", "message": "the first"})
    commands.conditions.append(
        {"type": "Stalled", "status": True, "reason": "PointerUnknown", "message": "look at it"}
    )

    page = await client.get("/")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for shown in ("web", GOOD[:12], "healthy", "the first", "PointerUnknown", "look at it", "/log"):
        assert shown in page.text


async def test_page_escapes_everything_that_others_wrote(connect: Connect) -> None:
    commands = FakeCommands(
        ends={BAD: End(Phase.FAILED, EVIL, EVIL)}, revisions={EVIL: BAD, "odd": EVIL}
    )
    commands.names = [AppName(EVIL)]
    commands.conditions.append({"type": EVIL, "status": True, "reason": EVIL, "message": EVIL})
    client = connect(commands)
    await client.post("/deploy", json={"commit": "odd", "message": EVIL})
    await client.post("/deploy", json={"commit": "bad", "message": EVIL})

    for path in ("/", str(httpx.URL("/", params={"app": EVIL}))):
        page = await client.get(path)
        assert page.status_code == 200
        tags = Tags(page.text)
        assert tags.tags.count("script") == 1
        assert "img" not in tags.tags
        assert not [name for name, _ in tags.attributes if name.startswith("on")]
        assert "&lt;script&gt;" in page.text


async def test_policy_admits_the_pages_own_script_and_style_alone(
    client: httpx.AsyncClient,
) -> None:
    page = await client.get("/")

    policy = page.headers["content-security-policy"]
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in re.sub(r"https?-equiv", "", page.text), "self-contained"


async def test_page_is_for_phones_and_for_the_night(client: httpx.AsyncClient) -> None:
    page = await client.get("/")

    assert 'name="viewport" content="width=device-width' in page.text
    assert "prefers-color-scheme:dark" in page.text


async def test_page_with_many_apps_shows_one_at_a_time(connect: Connect) -> None:
    commands = FakeCommands(*(f"app-{number}" for number in range(30)))
    client = connect(commands)
    await client.post("/deploy", json={"commit": "main", "app": "app-7"})

    overview, one = await client.get("/"), await client.get("/?app=app-7")

    assert "deploy-a" not in overview.text
    assert "deploy-a" in one.text
    assert (await client.get("/?app=nope")).status_code == 404


async def test_page_without_apps_says_how_to_begin(connect: Connect) -> None:
    commands = FakeCommands()
    commands.names = []

    assert "autopilot init" in (await connect(commands).get("/")).text
