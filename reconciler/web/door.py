"""The door that every request passes: who asks, how long it took, and how failures are told.

Pure ASGI, because a wrapper that copies the body would cost more than the answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reconciler.web.metrics import Metrics
from reconciler.web.principal import Access, identify
from reconciler.web.problems import problem_of

log: structlog.stdlib.BoundLogger = structlog.get_logger("reconciler.web")

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


@dataclass(frozen=True, slots=True)
class Door:
    """Middleware: identifies, times, and turns every exception into a problem."""

    app: ASGIApp
    access: Access
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(scope, send, self.metrics)
        state = scope.setdefault("state", {})
        try:
            state["principal"] = identify(scope, self.access)
            await self.app(scope, receive, answer.send)
        except Exception as error:
            response = problem_of(error)
            if response.status_code == 500:
                log.exception("a request failed", method=scope["method"], path=scope["path"])
            if answer.started:
                raise
            await response(scope, receive, answer.send)


class _Answer:
    """Passes an answer on, with our headers, and takes its time at the first byte."""

    def __init__(self, scope: Scope, send: Send, metrics: Metrics) -> None:
        self.started = False
        self._scope = scope
        self._send = send
        self._metrics = metrics
        self._since = time.perf_counter()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = [*message["headers"], *HEADERS]
            route = self._scope["state"].get("route", "none")
            seconds = time.perf_counter() - self._since
            method = self._scope["method"] if route != "none" else "other"
            self._metrics.observe_request(method, route, message["status"], seconds)
        await self._send(message)
