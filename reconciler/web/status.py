"""How things stand: status, apps, plan, and whether the daemon is there and ready."""

from __future__ import annotations

from starlette.responses import JSONResponse, PlainTextResponse, Response

from reconciler.web.call import Call
from reconciler.web.fields import read_query


async def get_status(call: Call) -> Response:
    return JSONResponse(await call.commands.status(_app(call)))


async def get_apps(call: Call) -> Response:
    read_query(call.request).done()
    return JSONResponse({"items": list(await call.commands.apps()), "next": None})


async def get_plan(call: Call) -> Response:
    return JSONResponse(await call.commands.plan(_app(call)))


async def get_healthz(_call: Call) -> Response:
    """Answers as long as the loop turns: a watchdog needs no more."""
    return PlainTextResponse("ok\n")


async def get_readyz(call: Call) -> Response:
    if call.commands.ready:
        return PlainTextResponse("ready\n")
    return PlainTextResponse(
        "the first pass over every app is not done yet\n", 503, headers={"Retry-After": "1"}
    )


def _app(call: Call) -> str | None:
    query = read_query(call.request)
    app = query.text("app")
    query.done()
    return app
