"""What the store's tests put into it: requests, steps and a clock that a test moves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from reconciler.model.deploys import (
    DeployRequest,
    Phase,
    Progress,
    Quarantined,
    Trigger,
    Verdict,
    VerdictKind,
    VerdictResult,
    WishKind,
)
from reconciler.model.desired import Target
from reconciler.model.instants import Instant
from reconciler.model.names import AppName, DeployId, HostId, Revision, SlotName, WishId, uuid7

HOST = HostId("host-1")
SHOP = AppName("shop")
BLOG = AppName("blog")
SLOT_A = SlotName("deploy-a")
SLOT_B = SlotName("deploy-b")
BOOT = "11111111-2222-3333-4444-555555555555"
NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
PROVED = Verdict("health", VerdictKind.PROBE, VerdictResult.PASSED)


class HandClock:
    """The Clock port, moved by hand."""

    def __init__(self) -> None:
        self.time = NOON
        self._ids = 0

    def now(self) -> Instant:
        return Instant(BOOT, (self.time - NOON) // timedelta(microseconds=1))

    def wall(self) -> datetime:
        return self.time

    def new_id(self) -> str:
        self._ids += 1
        return uuid7(1_795_000_000_000, self._ids)

    async def sleep(self, span: timedelta) -> None:
        self.time += span


def revision(number: int) -> Revision:
    return Revision(f"{number:040x}")


def target(number: int, secrets: str = "") -> Target:
    return Target(revision(number), "c" * 64, secrets)


def request(number: int, app: AppName = SHOP, **changes: object) -> DeployRequest:
    """Returns the request of deploy and wish `number`, which also makes its revision."""
    made = DeployRequest(
        id=DeployId(f"{app}-deploy-{number}"),
        wish_id=WishId(f"{app}-wish-{number}"),
        host=HOST,
        app=app,
        kind=WishKind.DEPLOY,
        target=target(number),
        contract='{"name":"shop","start_command":"./serve"}',
        actor="human:ada",
        trigger=Trigger.MANUAL,
        requested_at=NOON,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def step(phase: Phase = Phase.QUEUED, micros: int = 0, **fields: object) -> Progress:
    at = NOON + timedelta(microseconds=micros)
    return replace(Progress(phase, at, Instant(BOOT, micros)), **fields)  # type: ignore[arg-type]


def quarantined(number: int, app: AppName = SHOP, **changes: object) -> Quarantined:
    made = Quarantined(app, revision(number), "", "", "rolled back", "human:ada", NOON)
    return replace(made, **changes)  # type: ignore[arg-type]
