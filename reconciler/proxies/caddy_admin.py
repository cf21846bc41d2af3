"""What we say to a running Caddy, over sockets that only this user can open."""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx

from reconciler.model.canonical import Json, canonical
from reconciler.model.errors import ProxyError
from reconciler.model.names import AppName
from reconciler.proxies.caddy_config import (
    APP_HEADER,
    DIALLED_HEADER,
    SECRET_HEADER,
    TRIED_HEADER,
)

_LOAD_TIMEOUT_S = 30.0


def _client(socket: Path) -> httpx.AsyncClient:
    # Caddy closes its connections when a configuration is loaded, so none is kept. TLS is never
    # spoken here, and a bare context spares reading every certificate authority.
    transport = httpx.AsyncHTTPTransport(
        uds=str(socket),
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        limits=httpx.Limits(max_keepalive_connections=0),
        trust_env=False,
    )
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", trust_env=False)


class CaddyAdmin:
    """Caddy's admin API: read the configuration, replace it whole."""

    def __init__(self, socket: Path) -> None:
        self._client = _client(socket)

    async def loaded(self) -> Json:
        """Returns the configuration in force, None when there is none yet.

        Waits for a load that is under way. Raises ProxyError when nobody answers.
        """
        try:
            answer = await self._client.get("/config/", timeout=_LOAD_TIMEOUT_S)
            answer.raise_for_status()
            configuration: Json = json.loads(answer.content)
        except (httpx.HTTPError, ValueError) as error:
            raise ProxyError(f"caddy does not tell its configuration: {error!r}") from error
        return configuration

    async def load(self, configuration: Json) -> None:
        """Puts the configuration in force; when Caddy refuses it, the one before stays.

        Raises ProxyError with what Caddy said.
        """
        try:
            answer = await self._client.post(
                "/load",
                content=canonical(configuration).encode(),
                headers={"Content-Type": "application/json"},
                timeout=_LOAD_TIMEOUT_S,
            )
        except httpx.HTTPError as error:
            raise ProxyError(f"caddy did not answer to a new configuration: {error!r}") from error
        if answer.status_code != httpx.codes.OK:
            raise ProxyError(f"caddy refuses the configuration: {_message(answer)}")

    async def close(self) -> None:
        await self._client.aclose()


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}: {answer.text[:500]}"


@dataclass(frozen=True, slots=True)
class Dialled:
    """What the proxy dialled for an app, empty when it got no answer; `detail` says why not."""

    address: str
    detail: str = ""


class ConfirmDoor:
    """The confirm listener: public traffic's own map, and an answer that says what was dialled."""

    def __init__(self, socket: Path, secret: str) -> None:
        self._client = _client(socket)
        self._secret = secret

    async def ask(self, app: AppName, path: str, timeout: timedelta) -> Dialled:
        """Sends one GET through the proxy; the app's status does not matter."""
        request = self._client.build_request(
            "GET",
            path if path.startswith("/") else f"/{path}",
            headers={SECRET_HEADER: self._secret, APP_HEADER: app},
            timeout=timeout.total_seconds(),
        )
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                # Only the head is waited for: an app may answer with a stream without end.
                answer = await self._client.send(request, stream=True)
                await answer.aclose()
        except TimeoutError:
            return Dialled("", "no answer in time")
        except httpx.HTTPError as error:
            return Dialled("", f"the proxy did not answer ({error!r})")
        if address := answer.headers.get(DIALLED_HEADER):
            return Dialled(address)
        tried = answer.headers.get(TRIED_HEADER, "")
        if tried in ("", ":0"):
            return Dialled("", "no address")
        return Dialled("", f"{tried}, which did not answer")

    async def close(self) -> None:
        await self._client.aclose()
