"""Asking a candidate over HTTP: one request, a bounded answer, never through a proxy."""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

BODY_BYTES = 1 << 20
EXCERPT = 200
CONNECT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; at most 1 MiB of the body is read."""

    status: int
    body: bytes

    @property
    def successful(self) -> bool:
        return 200 <= self.status < 300

    def describe(self) -> str:
        """Returns the status and the start of the body as one printable line."""
        return f"status {self.status}: {excerpt(self.body)}" if self.body else self.bare

    @property
    def bare(self) -> str:
        return f"status {self.status}, no body"


def make_client() -> httpx.AsyncClient:
    """Returns a client that opens a connection for each request, as a check must: one that is
    kept alive would go on talking to a process that no longer listens."""
    # Loaded by the first request otherwise, which would make the first deploy 20 ms slower.
    importlib.import_module("anyio._backends._asyncio")
    return httpx.AsyncClient(
        trust_env=False,
        verify=False,  # noqa: S501 (plain HTTP on this host; a TLS context would cost 20 ms)
        follow_redirects=False,
        # Every caller has a deadline around the whole request.
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        limits=httpx.Limits(max_keepalive_connections=0),
        headers={"user-agent": "autopilot-probe", "accept": "*/*"},
    )


async def ask(
    client: httpx.AsyncClient,
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
) -> Answer:
    """Sends one request and reads the answer; cancel freely. Raises httpx.HTTPError,
    httpx.InvalidURL."""
    connected = asyncio.Event()

    async def trace(event: str, _: object) -> None:
        if event in ("connection.connect_tcp.complete", "connection.connect_tcp.failed"):
            connected.set()

    content = body.encode() if body is not None else None
    request = client.build_request(
        method, url, headers=headers, content=content, extensions={"trace": trace}
    )
    sending = asyncio.create_task(_send(client, request))
    try:
        return await asyncio.shield(sending)
    finally:
        await _give_up(sending, connected)


async def _give_up(sending: asyncio.Task[Answer], connected: asyncio.Event) -> None:
    """Cancels a request, but never while it connects: the socket would be lost without being
    closed, and count as a connection to the app until it is collected."""
    if sending.done():
        return
    connecting = asyncio.create_task(connected.wait())
    await asyncio.wait((sending, connecting), return_when=asyncio.FIRST_COMPLETED)
    for task in (sending, connecting):
        task.cancel()
    await asyncio.wait((sending, connecting))


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> Answer:
    response = await client.send(request, stream=True)
    try:
        received = b""
        async for chunk in response.aiter_bytes():
            received += chunk
            if len(received) >= BODY_BYTES:
                break
    finally:
        await response.aclose()
    return Answer(response.status_code, received[:BODY_BYTES])


def excerpt(body: bytes) -> str:
    """Returns the first 200 characters with control characters escaped: what an app answers must
    not move the cursor of whoever reads the log."""
    text = body[: EXCERPT * 4].decode("utf-8", "replace")[:EXCERPT]
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def host_and_port(address: str) -> tuple[str, int]:
    """Splits `127.0.0.1:20001` or `[::1]:20001`."""
    host, _, port = address.rpartition(":")
    return str(ipaddress.ip_address(host.strip("[]"))), int(port)
