"""The application: one table of routes with what each asks of its caller, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from reconciler.config import Settings
from reconciler.engine.commands import Commands
from reconciler.model.errors import RefusedError
from reconciler.model.principals import Principal, Scope
from reconciler.web import deploys, events, openapi, page, status
from reconciler.web.call import Call, Handler
from reconciler.web.door import Door
from reconciler.web.metrics import CONTENT_TYPE, Metrics
from reconciler.web.principal import Access
from reconciler.web.problems import problem_of


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route and the scope it needs. What a body asks beyond that its handler checks."""

    method: str
    path: str
    scope: Scope
    handler: Handler


async def get_openapi(_call: Call) -> Response:
    return JSONResponse(openapi.document())


async def get_metrics(call: Call) -> Response:
    return Response(await call.metrics.scrape(call.commands), media_type=CONTENT_TYPE)


ENDPOINTS = (
    Endpoint("POST", "/deploy", Scope.DEPLOY, deploys.post_deploy),
    Endpoint("POST", "/rollback", Scope.DEPLOY, deploys.post_rollback),
    Endpoint("GET", "/status", Scope.READ, status.get_status),
    Endpoint("GET", "/apps", Scope.READ, status.get_apps),
    Endpoint("GET", "/deploys", Scope.READ, deploys.get_deploys),
    Endpoint("GET", "/deploys/{deploy_id}", Scope.READ, deploys.get_deploy),
    Endpoint("GET", "/deploys/{deploy_id}/log", Scope.READ, deploys.get_log),
    Endpoint("POST", "/deploys/{deploy_id}/cancel", Scope.DEPLOY, deploys.post_cancel),
    Endpoint("GET", "/plan", Scope.READ, status.get_plan),
    Endpoint("GET", "/events", Scope.READ, events.get_events),
    Endpoint("GET", "/", Scope.READ, page.get_page),
    Endpoint("GET", "/healthz", Scope.READ, status.get_healthz),
    Endpoint("GET", "/readyz", Scope.READ, status.get_readyz),
    Endpoint("GET", "/metrics", Scope.READ, get_metrics),
    Endpoint("GET", "/openapi.json", Scope.READ, get_openapi),
)


def create_app(commands: Commands, settings: Settings, access: Access) -> Starlette:
    """Returns the API. `app.state.closing` ends streams and waiting answers once it is set."""
    metrics = Metrics()
    closing = asyncio.Event()

    def route(endpoint: Endpoint) -> Route:
        async def answer(request: Request) -> Response:
            request.scope["state"]["route"] = endpoint.path
            principal: Principal = request.state.principal
            if not principal.may(endpoint.scope):
                raise RefusedError(
                    "forbidden", f"{principal.actor} may not {endpoint.method} {endpoint.path}"
                )
            call = Call(request, principal, commands, settings, metrics, closing)
            return await endpoint.handler(call)

        return Route(endpoint.path, answer, methods=[endpoint.method])

    app = Starlette(
        routes=[route(endpoint) for endpoint in ENDPOINTS],
        middleware=[Middleware(Door, access=access, metrics=metrics)],
        exception_handlers={HTTPException: _http_problem},
    )
    app.router.redirect_slashes = False
    app.state.closing = closing
    return app


async def _http_problem(_request: Request, error: Exception) -> Response:
    return problem_of(error)
