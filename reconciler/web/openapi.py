"""The OpenAPI 3.1 document: every route, parameter, body, answer and problem, as they are."""

from __future__ import annotations

from typing import cast

import reconciler
from reconciler.model.canonical import Json
from reconciler.model.conditions import ConditionType
from reconciler.model.deploys import Phase, Trigger, VerdictKind, VerdictResult
from reconciler.web import deploys, events
from reconciler.web.fields import IDEMPOTENCY_KEY, MAX_TEXT
from reconciler.web.problems import KINDS, MEDIA_TYPE

Schema = dict[str, Json]

TEXT: Schema = {"type": "string"}
OPTIONAL_TEXT: Schema = {"type": ["string", "null"]}
FLAG: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
OPTIONAL_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
NUMBER: Schema = {"type": ["number", "null"]}
# What a request may say: text without NUL, of a bounded length; null is as good as absent.
INPUT: Schema = {
    "type": ["string", "null"],
    "minLength": 1,
    "maxLength": MAX_TEXT,
    "pattern": "^[^\\u0000]*$",
}


def document() -> Schema:
    """Returns the whole document, fresh."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "autopilot",
            "version": reconciler.__version__,
            "description": (
                "A local caller may read, deploy and roll back. `force` and `skip_probes` need the "
                "admin credential: `Authorization: Bearer <content of admin.token>`, or the Unix "
                "socket as the daemon's own user or root."
            ),
        },
        "security": [{}, {"admin": []}],
        "paths": {
            "/deploy": {"post": _post_deploy()},
            "/rollback": {"post": _post_rollback()},
            "/status": {"get": _get("How the app stands", "Status", app=True)},
            "/apps": {"get": _get("Every app", "Apps")},
            "/deploys": {"get": _get_deploys()},
            "/deploys/{deploy_id}": {"get": _get_deploy()},
            "/deploys/{deploy_id}/log": {"get": _get_log()},
            "/deploys/{deploy_id}/cancel": {"post": _post_cancel()},
            "/plan": {"get": _get("What would change, and why", "Plan", app=True)},
            "/events": {"get": _get_events()},
            "/": {"get": _get_page()},
            "/healthz": {"get": _plain("The loop turns")},
            "/readyz": {"get": _get_readyz()},
            "/metrics": {"get": _plain("Metrics in Prometheus' text format")},
            "/openapi.json": {"get": _get("This document", None)},
        },
        "components": {
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _post_deploy() -> Schema:
    body: Schema = {
        "type": "object",
        "required": ["commit"],
        "additionalProperties": False,
        "properties": {
            "commit": {
                **INPUT,
                "maxLength": 255,
                "description": (
                    "Full or short id, branch or tag; null for the head of the app's branch."
                ),
            },
            **_wish_fields(),
            "queue": _flag("Wait behind a running deploy instead of being refused."),
            "message": {**INPUT, "description": "For the deploy log."},
            "force": _flag("Deploy what is quarantined; needs admin and a reason."),
            "skip_probes": {
                "type": ["array", "null"],
                "items": {"enum": list(deploys.PROBES)},
                "description": "Probes to leave out; needs admin and a reason.",
            },
        },
        "if": {
            "anyOf": [
                _present("force", {"const": True}),
                _present("skip_probes", {"type": "array", "minItems": 1}),
            ]
        },
        "then": _present("reason", {"type": "string"}),
    }
    return {
        "operationId": "deploy",
        "summary": "Deploy a revision",
        "parameters": [_idempotency_key()],
        "requestBody": _json_body(body, required=True),
        "responses": {
            "200": _json("Promoted and confirmed; draining goes on", "Deploy"),
            "202": _accepted(),
            **_problems(400, 401, 403, 404, 409, 413, 422, 500, 503, 507),
        },
    }


def _post_rollback() -> Schema:
    body: Schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **_wish_fields(),
            "to": {**INPUT, "description": "A deploy id or a commit; the previous when absent."},
        },
    }
    return {
        "operationId": "rollback",
        "summary": "Go back to what was live before, and stay there",
        "parameters": [_idempotency_key()],
        "requestBody": _json_body(body, required=False),
        "responses": {
            "200": _json("Promoted and confirmed", "Deploy"),
            "202": _accepted(),
            **_problems(400, 401, 403, 404, 409, 413, 422, 500, 503, 507),
        },
    }


def _wish_fields() -> Schema:
    return {
        "app": {**INPUT, "description": "Required when there are several apps."},
        "wait": _flag("Answer once it is live or has failed (the default), else at once."),
        "reason": {**INPUT, "description": "Why, for the deploy log."},
    }


def _post_cancel() -> Schema:
    nothing: Schema = {"type": "object", "additionalProperties": False}
    return {
        "operationId": "cancel",
        "summary": "Cancel a deploy that is not live yet",
        "parameters": [_deploy_id()],
        "requestBody": _json_body(nothing, required=False),
        "responses": {
            "200": _json("The deploy as it stands now", "Deploy"),
            **_problems(400, 401, 403, 404, 409, 413, 500, 503, 507),
        },
    }


def _get_deploys() -> Schema:
    return _get(
        "The deploy log, newest first",
        "Deploys",
        app=True,
        parameters=[
            _number("limit", 1, deploys.MAX_PAGE, f"How many; {deploys.PAGE} when absent."),
            _number("before", 0, events.MAX_SEQ, "The `next` of the page before."),
        ],
    )


def _get_deploy() -> Schema:
    return _get("One deploy", "DeployWithLog", parameters=[_deploy_id()], missing=True)


def _get_log() -> Schema:
    return {
        "summary": "Output of the setup and the processes of a deploy",
        "parameters": [_deploy_id()],
        "responses": {
            "200": _text("The end of the log"),
            **_problems(400, 401, 403, 404, 500, 503, 507),
        },
    }


def _get_events() -> Schema:
    after = _number(
        "after",
        0,
        events.MAX_SEQ,
        "The seq (or `next`) after which to go on. Without it a list holds the newest, and a "
        "stream starts now.",
    )
    seen: Schema = {
        "name": "Last-Event-ID",
        "in": "header",
        "schema": {"type": "integer", "minimum": 0, "maximum": events.MAX_SEQ},
        "description": "The last seq that a stream received. Wins over `after`.",
    }
    limit = _number("limit", 1, events.MAX_PAGE, f"How many; {events.PAGE} when absent.")
    return {
        "summary": "Events, oldest first; as a stream with `Accept: text/event-stream`",
        "parameters": [after, limit, seen],
        "responses": {
            "200": {
                "description": "A page of events, or the stream",
                "content": {
                    "application/json": {"schema": _ref("Events")},
                    events.STREAM: {"schema": TEXT},
                },
            },
            **_problems(400, 401, 403, 500, 503, 507),
        },
    }


def _get_page() -> Schema:
    return {
        "summary": "How things stand, for a person",
        "parameters": [_app()],
        "responses": {
            "200": {"description": "The page", "content": {"text/html": {"schema": TEXT}}},
            **_problems(400, 401, 403, 404, 500, 503, 507),
        },
    }


def _get_readyz() -> Schema:
    return {
        "summary": "Whether the first pass over every app is done",
        "responses": {
            "200": _text("Ready"),
            "503": _text("Not ready yet"),
            **_problems(401, 403, 500),
        },
    }


def _plain(summary: str) -> Schema:
    return {
        "summary": summary,
        "responses": {"200": _text(summary), **_problems(401, 403, 500, 503, 507)},
    }


def _get(
    summary: str,
    schema: str | None,
    *,
    app: bool = False,
    parameters: list[Json] | None = None,
    missing: bool = False,
) -> Schema:
    statuses = [400, 401, 403, *([404] if app or missing else []), 500, 503, 507]
    return {
        "summary": summary,
        "parameters": [*([_app()] if app else []), *(parameters or [])],
        "responses": {"200": _json(summary, schema), **_problems(*statuses)},
    }


def _app() -> Schema:
    schema: Schema = {**INPUT, "type": "string"}
    return {"name": "app", "in": "query", "schema": schema, "description": "One app only."}


def _number(name: str, minimum: int, maximum: int, description: str) -> Schema:
    schema: Schema = {"type": "integer", "minimum": minimum, "maximum": maximum}
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _deploy_id() -> Schema:
    schema: Schema = {"type": "string", "pattern": f"^{deploys.DEPLOY_ID.pattern}$"}
    return {"name": "deploy_id", "in": "path", "required": True, "schema": schema}


def _idempotency_key() -> Schema:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "schema": {"type": "string", "pattern": f"^{IDEMPOTENCY_KEY.pattern}$"},
        "description": "The same key with the same request answers with the same deploy for a day.",
    }


def _present(name: str, schema: Schema) -> Schema:
    return {"required": [name], "properties": {name: schema}}


def _flag(description: str) -> Schema:
    return {"type": ["boolean", "null"], "description": description}


def _json_body(schema: Schema, *, required: bool) -> Schema:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _json(description: str, schema: str | None) -> Schema:
    shape: Schema = {"type": "object"} if schema is None else _ref(schema)
    return {"description": description, "content": {"application/json": {"schema": shape}}}


def _text(description: str) -> Schema:
    return {"description": description, "content": {"text/plain": {"schema": TEXT}}}


def _accepted() -> Schema:
    location: Schema = {"schema": TEXT, "description": "Where to ask how it goes."}
    return {**_json("Recorded", "Deploy"), "headers": {"Location": location}}


def _problems(*statuses: int) -> Schema:
    return {str(status): _problem(status) for status in statuses}


def _problem(status: int) -> Schema:
    slugs = [slug for slug, kind in KINDS.items() if kind.status == status]
    return {
        "description": "Problem: " + ", ".join(slugs),
        "content": {MEDIA_TYPE: {"schema": _ref("Problem")}},
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _optional(name: str) -> Schema:
    return {"anyOf": [_ref(name), {"type": "null"}]}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _page_of(name: str, following: Schema) -> Schema:
    return _object({"items": _list(_ref(name)), "next": following})


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _schemas() -> Schema:
    deploy = _object(_deploy_fields())
    fields = cast("Schema", deploy["properties"])
    return {
        "Problem": _problem_schema(),
        "Deploy": deploy,
        "DeployWithLog": _object({**fields, "log_tail": OPTIONAL_TEXT}),
        "Deploys": _page_of("Deploy", {"type": ["integer", "null"]}),
        "Status": _status_schema(),
        "App": {"type": "object", "required": ["name"], "properties": {"name": TEXT}},
        "Apps": _page_of("App", {"type": "null"}),
        "Condition": _condition_schema(),
        "Plan": _plan_schema(),
        "Event": _event_schema(),
        "Events": _page_of("Event", {"type": "integer"}),
    }


def _problem_schema() -> Schema:
    schema = _object({"type": TEXT, "title": TEXT, "status": {"type": "integer"}, "detail": TEXT})
    schema["description"] = (
        "RFC 9457. About a deploy it also carries the fields of its record, and `log_tail` when it "
        "failed. `type` is one of: " + ", ".join(KINDS) + "; more may come."
    )
    return schema


def _deploy_fields() -> Schema:
    phase: Schema = {"enum": [phase.value for phase in Phase]}
    verdict = _object(
        {
            "name": TEXT,
            "kind": {"enum": [kind.value for kind in VerdictKind]},
            "result": {"enum": [result.value for result in VerdictResult]},
            "reason": OPTIONAL_TEXT,
            "detail": OPTIONAL_TEXT,
        }
    )
    return {
        "success": FLAG,
        "deploy_id": TEXT,
        "app": TEXT,
        "slot": OPTIONAL_TEXT,
        "commit": TEXT,
        "previous_commit": OPTIONAL_TEXT,
        "phase": phase,
        "reason": OPTIONAL_TEXT,
        "detail": OPTIONAL_TEXT,
        "trigger": {"enum": [trigger.value for trigger in Trigger]},
        "actor": TEXT,
        "branch": OPTIONAL_TEXT,
        "message": OPTIONAL_TEXT,
        "started_at": TIME,
        "finished_at": OPTIONAL_TIME,
        "duration_ms": NUMBER,
        "retry_of": OPTIONAL_TEXT,
        "phases": _list(_object({"phase": phase, "started_at": TIME, "duration_ms": NUMBER})),
        "verdicts": _list(verdict),
    }


def _status_schema() -> Schema:
    instance = _object(
        {
            "process": TEXT,
            "address": OPTIONAL_TEXT,
            "up": FLAG,
            "since": OPTIONAL_TIME,
            "pid": {"type": ["integer", "null"]},
        }
    )
    slot = _object({
        "name": TEXT,
        "role": {"enum": ["live", "previous", "candidate", "draining", "none"]},
        "condition": {
            "enum": [
                "empty", "preparing", "starting", "healthy", "unhealthy", "draining", "stopped",
                "failed", "dirty",
            ]
        },
        "commit": OPTIONAL_TEXT,
        "instances": _list(instance),
    })  # fmt: skip
    quarantined = _object(
        {
            "commit": TEXT,
            "contract_digest": OPTIONAL_TEXT,
            "reason": TEXT,
            "by": TEXT,
            "since": TIME,
        }
    )
    brief = _object(
        {
            "live_commit": OPTIONAL_TEXT,
            "healthy": {"type": ["boolean", "null"]},
            "ready": FLAG,
        }
    )
    schema = _object(
        {
            "live_slot": OPTIONAL_TEXT,
            "live_commit": OPTIONAL_TEXT,
            "previous_slot": OPTIONAL_TEXT,
            "previous_commit": OPTIONAL_TEXT,
            "last_deploy_time": OPTIONAL_TIME,
            "healthy": {"type": ["boolean", "null"]},
            "workspace_dir": OPTIONAL_TEXT,
            "slots": _nullable(_list(slot)),
            "conditions": _nullable(_list(_ref("Condition"))),
            "deploy": _optional("Deploy"),
            "queued": _nullable(_list(_ref("Deploy"))),
            "recent": _nullable(_list(_ref("Deploy"))),
            "quarantine": _nullable(_list(quarantined)),
            "apps": {"type": "object", "additionalProperties": brief},
        }
    )
    schema["description"] = (
        "With several apps and none named, all but `apps` is null or empty (name one with "
        "`?app=`), and `conditions` are those of the host."
    )
    return schema


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _condition_schema() -> Schema:
    return _object(
        {
            "type": {"enum": [kind.value for kind in ConditionType]},
            "status": FLAG,
            "reason": TEXT,
            "message": TEXT,
            "since": OPTIONAL_TIME,
        }
    )


def _plan_schema() -> Schema:
    step = _object({"action": TEXT, "why": TEXT})
    app = _object(
        {
            "converged": FLAG,
            "pending": _list(TEXT),
            "steps": _list(step),
            "conditions": _list({"type": "object"}),
            "held": {**FLAG, "description": "A rollback holds the revision."},
        }
    )
    return _object(
        {
            "converged": FLAG,
            "apps": {"type": "object", "additionalProperties": app},
        }
    )


def _event_schema() -> Schema:
    return _object(
        {
            "seq": {"type": "integer"},
            "event_id": TEXT,
            "host_id": TEXT,
            "kind": TEXT,
            "schema_version": {"type": "integer"},
            "occurred_at": TIME,
            "received_at": TIME,
            "payload": {"type": "object"},
        }
    )
