"""Problems: every refusal and failure as `application/problem+json` (RFC 9457), by one table.

Says what happened and what to do; never what the inside looks like.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from reconciler.model.canonical import Json
from reconciler.model.deploys import Deploy, Phase, Reason
from reconciler.model.errors import (
    ConfigError,
    DiskPressureError,
    RefusedError,
    SourceError,
    StoreError,
)
from reconciler.planning.status import deploy_record

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """A problem type: its HTTP status and its title."""

    status: int
    title: str


KINDS: Mapping[str, Kind] = {
    "ambiguous-app": Kind(400, "Several apps, and none was named"),
    "invalid-request": Kind(400, "The request cannot be understood"),
    "unauthenticated": Kind(401, "The credential is missing or not valid"),
    "forbidden": Kind(403, "Not allowed"),
    "not-found": Kind(404, "No such page"),
    "unknown-app": Kind(404, "No such app"),
    "unknown-deploy": Kind(404, "No such deploy"),
    "unknown-revision": Kind(404, "No such commit, branch or tag"),
    "method-not-allowed": Kind(405, "Not a method of this page"),
    "cancelled": Kind(409, "The deploy was cancelled"),
    "deploy-in-progress": Kind(409, "Another deploy of this app is running"),
    "frozen": Kind(409, "Deploys are frozen now"),
    "no-previous": Kind(409, "There is nothing to go back to"),
    "non-fast-forward": Kind(409, "The branch was rewritten"),
    "pointer-unknown": Kind(409, "What is live is not known"),
    "quarantined": Kind(409, "This revision is quarantined"),
    "schema-incompatible": Kind(409, "The database schema does not fit"),
    "stale-base": Kind(409, "The base is out of date"),
    "stale-lease": Kind(409, "The lease has been lost"),
    "superseded": Kind(409, "Another wish took the place of this deploy"),
    "suspended": Kind(409, "Deploys are suspended"),
    "too-large": Kind(413, "The body is too large"),
    "candidate-unhealthy": Kind(422, "The candidate did not prove itself"),
    "denied": Kind(422, "A person denied this deploy"),
    "gate-failed": Kind(422, "A gate rejected this revision"),
    "setup-failed": Kind(422, "The slot could not be set up"),
    "internal-error": Kind(500, "A defect in the daemon"),
    "interrupted": Kind(503, "The daemon is stopping"),
    "store-busy": Kind(503, "The store cannot be used now"),
    "disk-pressure": Kind(507, "The disk is full"),
}

_SLUG_OF_REASON: Mapping[str, str] = {
    Reason.SETUP_EXIT: "setup-failed",
    Reason.SETUP_TIMEOUT: "setup-failed",
    Reason.CHECKOUT_FAILED: "setup-failed",
    Reason.SHARED_DIR_TRACKED: "setup-failed",
    Reason.DISK_PRESSURE: "disk-pressure",
    Reason.POINTER_UNKNOWN: "pointer-unknown",
    Reason.QUARANTINED: "quarantined",
    Reason.ROLLED_BACK_BY_REQUEST: "superseded",
}
_SLUG_OF_PHASE: Mapping[Phase, str] = {
    Phase.REJECTED: "gate-failed",
    Phase.SUPERSEDED: "superseded",
    Phase.CANCELLED: "cancelled",
    Phase.INTERRUPTED: "interrupted",
}


def kind_of(slug: str) -> Kind:
    """Returns the kind of a slug; one that is not in the table is a conflict with what is."""
    return KINDS.get(slug) or Kind(409, slug.replace("-", " ").capitalize())


def problem(
    slug: str,
    detail: str,
    *,
    fields: Mapping[str, Json] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Returns the answer for a problem; `fields` are those of the deploy it is about."""
    kind = kind_of(slug)
    body = {
        **(fields or {}),
        "type": slug,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
    }
    extra = dict(headers or {})
    match kind.status:
        case 401:
            extra["WWW-Authenticate"] = "Bearer"
        case 503:
            extra["Retry-After"] = "1"
        case _:
            pass
    return JSONResponse(body, kind.status, headers=extra, media_type=MEDIA_TYPE)


def problem_of(error: Exception) -> JSONResponse:
    """Returns the answer for an exception that came out of a handler."""
    match error:
        case RefusedError():
            about: dict[str, Json] = {"deploy_id": error.deploy_id} if error.deploy_id else {}
            answer = problem(error.slug, error.detail, fields=about)
        case DiskPressureError():
            answer = problem("disk-pressure", f"{error}; free some space and ask again")
        case StoreError():
            answer = problem("store-busy", f"{error}; nothing was changed, ask again")
        case SourceError() | ConfigError():
            answer = problem("store-busy", f"{error}; nothing was changed, ask again")
        case HTTPException():
            answer = _http_problem(error)
        case _:
            answer = problem(
                "internal-error",
                "The daemon failed to answer, and what is live was not touched by that. "
                "Its log has the traceback; please report it",
            )
    return answer


def _http_problem(error: HTTPException) -> JSONResponse:
    match error.status_code:
        case 404:
            return problem("not-found", "There is nothing here; /openapi.json lists every page")
        case 405:
            allowed = (error.headers or {}).get("Allow", "")
            detail = f"This page answers {allowed} only"
            return problem("method-not-allowed", detail, headers=error.headers)
        case _:
            return problem("invalid-request", str(error.detail))


def failure_slug(deploy: Deploy) -> str:
    """Returns the problem type of a deploy that ended without being live.

    Everything that is neither a gate, the setup, the disk nor somebody's decision counts as the
    candidate's failure (a missing secret too); `reason` tells them apart.
    """
    return (
        _SLUG_OF_REASON.get(deploy.reason)
        or _SLUG_OF_PHASE.get(deploy.phase)
        or "candidate-unhealthy"
    )


def failed_deploy(deploy: Deploy, log_tail: str) -> JSONResponse:
    """Returns the problem of a deploy that failed, with its record and the end of its log."""
    record = deploy_record(deploy)
    said = cast("str | None", record["detail"])
    detail = f"{deploy.request.app} at {deploy.target.revision[:12]} ended {deploy.phase}"
    detail += f" ({deploy.reason})" if deploy.reason else ""
    detail += f": {said}" if said else ""
    return problem(failure_slug(deploy), detail, fields={**record, "log_tail": log_tail})
