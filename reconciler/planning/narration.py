"""Narration: what an event means to the person at the terminal, in one line or a few."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.model.canonical import Json
from reconciler.model.deploys import Deploy, Phase, Trigger, WishKind

ORIGIN = {
    Trigger.PUSH: "new commit",
    Trigger.MANUAL: "asked for",
    Trigger.CONTRACT: "its contract changed",
    Trigger.SECRET: "a secret changed",
    Trigger.ROLLBACK: "rollback",
    Trigger.BAKE: "automatic return",
    Trigger.RETRY: "another attempt",
    Trigger.ADOPT: "found live",
}


def narrate_deploy(deploy: Deploy, phase: Phase, url: str, *, serving: bool) -> str:
    """Returns what to tell of a deploy that entered the phase, empty for what need not be told."""
    request = deploy.request
    short = request.target.revision[:10]
    match phase:
        case Phase.QUEUED:
            about = f" {request.message.splitlines()[0]}" if request.message else ""
            return f"{request.app}: deploying {short} ({ORIGIN[request.trigger]}){about}"
        case Phase.LIVE:
            verb = "is live" if request.kind is WishKind.DEPLOY else "is live again"
            return f"{request.app}: {short} {verb} after {_took(deploy)}{url and f' at {url}'}"
        case Phase.FAILED | Phase.REJECTED:
            return _failure(deploy, short, serving=serving)
        case Phase.SUPERSEDED | Phase.CANCELLED | Phase.INTERRUPTED | Phase.ROLLED_BACK:
            told = deploy.reason.replace("-", " ")
            return f"{request.app}: {short} {phase.replace('_', ' ')} ({told})"
        case _:
            return ""


def _took(deploy: Deploy) -> str:
    promoted = deploy.promoted
    if promoted is None:
        return "an unknown time"
    span = promoted.instant.since(deploy.progress[0].instant)
    return f"{span.total_seconds() * 1000:.0f} ms"


def _failure(deploy: Deploy, short: str, *, serving: bool) -> str:
    last = deploy.progress[-1]
    lines = [f"{deploy.request.app}: {short} FAILED: {last.reason}"]
    if last.detail:
        lines.append(f"  {last.detail}")
    lines.extend(f"  | {line}" for line in last.log_tail.splitlines()[-20:])
    kept = "the old version keeps serving" if serving else "nothing is live"
    lines.append(f"  {kept}; whole output: autopilot logs --deploy {deploy.id}")
    return "\n".join(lines)


def narrate_condition(payload: Mapping[str, Json], stalled: set[str]) -> str:
    """Returns what to tell of a changed condition: only of a stall, and of its end.

    `stalled` holds the apps that were told to be stalled, and is kept so.
    """
    app = str(payload.get("app"))
    # How a deploy failed was told when it did, and with more words.
    if payload.get("type") != "Stalled" or payload.get("reason") == "DeployFailed":
        return ""
    if payload.get("status") is True:
        stalled.add(app)
        return f"{app}: STALLED {payload.get('reason')}: {payload.get('message')}"
    if app not in stalled:
        return ""
    stalled.discard(app)
    return f"{app}: not stalled any more"
