"""A call: one admitted request with all that a handler needs, and nothing else to reach for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from reconciler.config import Settings
from reconciler.engine.commands import Commands
from reconciler.model.principals import Principal
from reconciler.web.metrics import Metrics

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Call:
    """`closing` is set once the server stops: whoever waits must then come to an end."""

    request: Request
    principal: Principal
    commands: Commands
    settings: Settings
    metrics: Metrics
    closing: asyncio.Event


Handler: TypeAlias = Callable[[Call], Awaitable[Response]]


async def unless_closing(call: Call, work: Coroutine[Any, Any, Answer]) -> Answer | None:
    """Awaits the work; None, and the work cancelled, when the server stops before it is done."""
    working = asyncio.ensure_future(work)
    closing = asyncio.ensure_future(call.closing.wait())
    try:
        await asyncio.wait((working, closing), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, closing):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
