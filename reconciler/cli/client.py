"""The client of the API, on the standard library alone: a verb must answer within 200 ms."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode, urlsplit

from reconciler.model.errors import ConfigError, ReconcilerError

# Values as JSON has them; each verb knows the shape that the contract promises.
Record: TypeAlias = dict[str, Any]

TIMEOUT_S = 30.0
# The server sends a heartbeat at least every 15 s.
STREAM_TIMEOUT_S = 60.0
_SUN_PATH = 107


class UnreachableError(ReconcilerError):
    """Nobody answers at the address of the API."""


class ProblemError(ReconcilerError):
    """The API refused or failed; `body` is the problem as it came."""

    def __init__(self, body: Record) -> None:
        title, detail = str(body.get("title", "")), str(body.get("detail", ""))
        super().__init__(f"{title}: {detail}" if detail else title)
        self.body = body
        self.type = str(body.get("type", ""))


@dataclass(frozen=True, slots=True)
class Address:
    """Where the API is: a Unix socket, or a host and port."""

    socket: Path | None = None
    host: str = "127.0.0.1"
    port: int = 7778
    tls: bool = False

    @staticmethod
    def parse(url: str) -> Address:
        """Reads `http://host:port`, `https://host:port` or `unix:/path`. Raises ConfigError."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme == "unix" and parts.path:
            return Address(socket=Path(parts.path))
        if parts.scheme in ("http", "https") and parts.hostname and port != 0:
            tls = parts.scheme == "https"
            return Address(host=parts.hostname, port=port or (443 if tls else 80), tls=tls)
        raise ConfigError(f"--url {url}: write it as http://127.0.0.1:7778 or unix:/path/api.sock")

    @property
    def loopback(self) -> bool:
        return self.host in ("localhost", "127.0.0.1", "::1")

    def __str__(self) -> str:
        if self.socket is not None:
            return str(self.socket)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Client:
    """Asks the API. Raises ProblemError for its refusals and UnreachableError without an answer."""

    address: Address
    token: str | None = None

    def get(self, path: str, query: Mapping[str, object] | None = None) -> Record:
        return self._json("GET", _with_query(path, query))

    def post(self, path: str, body: Record) -> Record:
        return self._json("POST", path, json.dumps(body).encode())

    def text(self, path: str) -> str:
        return self._answer("GET", path, None)[1].decode("utf-8", "replace")

    def events(self, after: int | None = None) -> Iterator[Record]:
        """Yields events as they come, until the server ends the stream."""
        for line in self.stream(after):
            if line.startswith(b"data: "):
                yield json.loads(line[6:])

    def stream(self, after: int | None = None) -> Iterator[bytes]:
        """Yields the lines of the event stream; the first one as soon as it is open."""
        headers = {**self._headers(), "Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        with self._asking(), closing(self._connection(STREAM_TIMEOUT_S)) as connection:
            connection.request("GET", "/events", headers=headers)
            response = connection.getresponse()
            if response.status != HTTPStatus.OK:
                raise ProblemError(_problem(response.status, response.read()))
            while line := response.readline():
                yield line

    def _json(self, method: str, path: str, body: bytes | None = None) -> Record:
        _, content = self._answer(method, path, body)
        try:
            value: Record = json.loads(content)
        except ValueError:
            raise UnreachableError(f"what answers at {self.address} is not autopilot") from None
        return value

    def _answer(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        headers = self._headers()
        if body is not None:
            headers["Content-Type"] = "application/json"
        with self._asking(), closing(self._connection(TIMEOUT_S)) as connection:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            content = response.read()
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise ProblemError(_problem(response.status, content))
        return response.status, content

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        address = self.address
        if address.socket is not None:
            return _UnixConnection(address.socket, timeout)
        if address.tls:
            return http.client.HTTPSConnection(address.host, address.port, timeout=timeout)
        return http.client.HTTPConnection(address.host, address.port, timeout=timeout)

    def _asking(self) -> _Asking:
        return _Asking(self.address)


@dataclass(frozen=True, slots=True)
class _Asking:
    """Tells every way in which a connection can fail as one error."""

    address: Address

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError | http.client.HTTPException):
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnreachableError(f"no answer at {self.address}: {why}") from error


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = connect_unix(self._path, self.timeout or TIMEOUT_S)


def connect_unix(path: Path, timeout: float) -> socket.socket:
    """Connects to a socket however long its path is; raises OSError."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(timeout)
    try:
        if len(os.fsencode(path)) <= _SUN_PATH:
            client.connect(str(path))
            return client
        # A socket's address holds 107 bytes; through a descriptor any directory fits.
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            client.connect(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
    except OSError:
        client.close()
        raise
    return client


class Wakes:
    """Says when something has happened, so that a verb asks again at once and not by the clock."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._happened = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> None:
        """Returns at the next event, or after `timeout` seconds."""
        self._happened.wait(timeout)
        self._happened.clear()

    def _listen(self) -> None:
        # A hint only: without the stream the caller still looks at every timeout. What happened
        # before the stream was open is told by its first line.
        with suppress(ReconcilerError):
            for _ in self._client.stream():
                self._happened.set()


def _with_query(path: str, query: Mapping[str, object] | None) -> str:
    values = {name: value for name, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(values)}" if values else path


def _problem(status: int, content: bytes) -> Record:
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if isinstance(body, dict) and "type" in body:
        return body
    text = content.decode("utf-8", "replace").strip()[:200]
    return {"type": "unexpected", "title": f"HTTP {status}", "detail": text, "status": status}
