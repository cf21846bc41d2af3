"""Deploys over HTTP: ask for one, go back, watch, list and cancel. The engine decides."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.responses import JSONResponse, PlainTextResponse, Response

from reconciler.engine.commands import DeployAsk, RollbackAsk
from reconciler.model.canonical import Json
from reconciler.model.deploys import Deploy
from reconciler.model.errors import RefusedError
from reconciler.model.names import DeployId
from reconciler.model.principals import Scope
from reconciler.planning.status import deploy_record
from reconciler.web.call import Call, unless_closing
from reconciler.web.fields import Fields, idempotency_key, invalid, read_body, read_query
from reconciler.web.problems import failed_deploy, problem

PROBES = ("health", "request")
DEPLOY_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
PAGE = 20
MAX_PAGE = 200


async def post_deploy(call: Call) -> Response:
    fields = await read_body(call.request)
    ask, wait = _deploy_ask(fields, idempotency_key(call.request))
    _check_privileges(call, ask)
    try:
        deploy = await call.commands.deploy(call.principal, ask)
    except RefusedError as error:
        return await _refused(call, error)
    return await _promised(call, deploy, wait=wait)


async def post_rollback(call: Call) -> Response:
    fields = await read_body(call.request, optional=True)
    wait = fields.flag("wait", default=True)
    ask = RollbackAsk(
        app=fields.text("app"),
        to=fields.text("to"),
        reason=fields.text("reason") or "",
        idempotency_key=idempotency_key(call.request),
    )
    fields.done()
    try:
        deploy = await call.commands.rollback(call.principal, ask)
    except RefusedError as error:
        return await _refused(call, error)
    return await _promised(call, deploy, wait=wait)


async def post_cancel(call: Call) -> Response:
    (await read_body(call.request, optional=True)).done()
    try:
        deploy = await call.commands.cancel(call.principal, _deploy_id(call))
    except RefusedError as error:
        return await _refused(call, error)
    return JSONResponse(deploy_record(deploy))


async def get_deploys(call: Call) -> Response:
    query = read_query(call.request)
    app = query.text("app")
    limit = query.number("limit", minimum=1, maximum=MAX_PAGE) or PAGE
    before = query.number("before", minimum=0, maximum=1 << 53)
    query.done()
    # One more than asked for tells whether there is another page.
    found = await call.commands.deploys(app, limit + 1, before)
    items = found[:limit]
    following = items[-1].seq if len(found) > limit else None
    return JSONResponse({"items": [deploy_record(one) for one in items], "next": following})


async def get_deploy(call: Call) -> Response:
    read_query(call.request).done()
    deploy = await call.commands.record(_deploy_id(call))
    tail = await call.commands.log_tail(deploy) if deploy.phase.unsuccessful else None
    return JSONResponse({**deploy_record(deploy), "log_tail": tail})


async def get_log(call: Call) -> Response:
    read_query(call.request).done()
    return PlainTextResponse(await call.commands.log(_deploy_id(call)))


def _deploy_ask(fields: Fields, key: str | None) -> tuple[DeployAsk, bool]:
    fields.required(
        "commit", "name a commit, a branch or a tag, or null for the head of the app's branch"
    )
    wait = fields.flag("wait", default=True)
    ask = DeployAsk(
        commit=fields.text("commit", limit=255),
        app=fields.text("app"),
        queue=fields.flag("queue", default=False),
        message=fields.text("message") or "",
        force=fields.flag("force", default=False),
        skip_probes=fields.choices("skip_probes", PROBES),
        reason=fields.text("reason") or "",
        idempotency_key=key,
    )
    fields.done()
    return ask, wait


def _check_privileges(call: Call, ask: DeployAsk) -> None:
    """The engine checks again: this door only says it sooner, before a revision is looked up."""
    asked = [*(["force"] if ask.force else []), *(["skip_probes"] if ask.skip_probes else [])]
    if not asked:
        return
    if not call.principal.may(Scope.ADMIN):
        raise RefusedError(
            "forbidden",
            f"{' and '.join(asked)}: needs the admin credential; send the content of admin.token "
            "as `Authorization: Bearer ...`, or call the daemon's socket as its own user or root",
        )
    if not ask.reason:
        raise invalid(f"reason: missing; say why {' and '.join(asked)} is needed, for the log")


def _deploy_id(call: Call) -> DeployId:
    text = call.request.path_params["deploy_id"]
    if DEPLOY_ID.fullmatch(text) is None:
        raise RefusedError("unknown-deploy", f"{text[:64]!r} is not the id of a deploy")
    return DeployId(text)


async def _refused(call: Call, error: RefusedError) -> Response:
    """A refusal because of another deploy carries that deploy's record."""
    if error.deploy_id is None:
        raise error
    other = await call.commands.record(DeployId(error.deploy_id))
    return problem(error.slug, error.detail, fields=deploy_record(other))


async def _promised(call: Call, deploy: Deploy, *, wait: bool) -> Response:
    """Answers at once with 202, or with what became of the deploy.

    The wish is recorded, so a client that goes away while it waits changes nothing.
    """
    if not wait:
        return _accepted(deploy)
    ended = await unless_closing(call, call.commands.outcome(deploy.id))
    if ended is None:
        return problem(
            "interrupted",
            "The daemon is stopping; the deploy is taken up again when it is back. "
            f"Ask GET /deploys/{deploy.id}",
            fields=_with_tail(await call.commands.record(deploy.id), ""),
        )
    if ended.phase.unsuccessful:
        return failed_deploy(ended, await call.commands.log_tail(ended))
    if ended.promoted is None:
        return _accepted(ended)
    return JSONResponse(deploy_record(ended))


def _with_tail(deploy: Deploy, tail: str) -> Mapping[str, Json]:
    return {**deploy_record(deploy), "log_tail": tail}


def _accepted(deploy: Deploy) -> Response:
    return JSONResponse(deploy_record(deploy), 202, headers={"Location": f"/deploys/{deploy.id}"})
