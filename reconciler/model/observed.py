"""Observed state: what a pass found on the host and in the store; always looked up anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from reconciler.model.conditions import Condition
from reconciler.model.deploys import (
    Deploy,
    Promotion,
    Quarantined,
    SeenHead,
    SeenInputs,
    Wish,
)
from reconciler.model.desired import AppContract, Route, Target
from reconciler.model.instants import Instant
from reconciler.model.names import AppKey, AppName, DeployId, ProcessName, Revision, SlotName


class Stage(StrEnum):
    """How far the files of a slot are. PREPARING and FAILED are dirty."""

    PREPARING = "preparing"
    PREPARED = "prepared"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Intent:
    """An instance that was meant to start: durable before the spawn. Ports are 0 when unused."""

    process: ProcessName
    index: int
    port: int
    internal_port: int
    at: Instant


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a process in this slot; several close together are a crash loop."""

    process: ProcessName
    at: Instant


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """What `slots/<slot>.json` says. `deploy_id` is the cookie of every process of the slot."""

    deploy_id: DeployId
    target: Target
    contract: str
    boot_id: str
    stage: Stage
    reason: str = ""
    detail: str = ""
    intents: tuple[Intent, ...] = ()
    starts: tuple[Start, ...] = ()
    drain_since: Instant | None = None
    quiet_since: Instant | None = None
    drained: bool = False
    term_at: Instant | None = None
    kill_at: Instant | None = None
    vacated: bool = False

    @property
    def cold(self) -> bool:
        """Once SIGTERM was sent a slot is cold, whatever its pids say."""
        return self.term_at is not None or not self.intents

    def started(self, process: ProcessName) -> Instant | None:
        """When that process was last started in this slot."""
        return next((start.at for start in reversed(self.starts) if start.process == process), None)


@dataclass(frozen=True, slots=True)
class ObservedInstance:
    """One process of a slot. `exit_status` is None while up and when nobody could reap it."""

    process: ProcessName
    index: int
    address: str
    internal_address: str
    up: bool
    since: Instant | None = None
    exit_status: int | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """What the watch last found; `failures` are consecutive, `ok` None is unknown."""

    ok: bool | None
    failures: int
    checked_at: Instant | None
    reason: str = ""


UNKNOWN_HEALTH = Health(ok=None, failures=0, checked_at=None)


@dataclass(frozen=True, slots=True)
class ObservedSlot:
    """A slot as found. `vacant`: no process of it is left. `busy`: work of ours goes on in it."""

    name: SlotName
    record: SlotRecord | None = None
    instances: tuple[ObservedInstance, ...] = ()
    vacant: bool = True
    busy: frozenset[str] = frozenset()
    published: str = ""
    connections: int | None = None
    health: Health = UNKNOWN_HEALTH
    has_trash: bool = False

    def instance(self, process: ProcessName) -> ObservedInstance | None:
        return next((one for one in self.instances if one.process == process), None)


@dataclass(frozen=True, slots=True)
class NoPointer:
    """The app has never been live, or was removed."""


@dataclass(frozen=True, slots=True)
class PointsTo:
    slot: SlotName


@dataclass(frozen=True, slots=True)
class UnknownPointer:
    """The pointer matches no slot: stop nothing, deploy nothing."""

    text: str


Pointer: TypeAlias = NoPointer | PointsTo | UnknownPointer


@dataclass(frozen=True, slots=True)
class ObservedHead:
    """The head of an app's branch, compared with the one last seen."""

    branch: str
    revision: Revision
    descends: bool = True
    touches_app: bool = True
    subject: str = ""


@dataclass(frozen=True, slots=True)
class AppRecords:
    """Everything the store knows that a pass over one app needs, read in one transaction.

    `promotions` oldest first, bounded to the newest 50; `running` is the one open deploy that
    holds the app, `queued` the newest that waits for it; `live_deploy` the last promotion's,
    `last_deploy` the newest of the newest wish.
    """

    wish: Wish | None = None
    running: Deploy | None = None
    queued: Deploy | None = None
    live_deploy: Deploy | None = None
    last_deploy: Deploy | None = None
    promotions: tuple[Promotion, ...] = ()
    quarantine: tuple[Quarantined, ...] = ()
    seen_head: SeenHead | None = None
    seen_inputs: SeenInputs | None = None
    conditions: tuple[Condition, ...] = ()
    absent_passes: int = 0


@dataclass(frozen=True, slots=True)
class ObservedApp:
    """One app on one host, as a pass found it.

    `routed`: the proxy is up and configured for the app. `live_contract` is the one recorded with
    the live slot, `running_contract` with the running deploy; `unenforced` names limits this host
    cannot enforce; `source_problem`, `disk_problem` and `proxy_problem` say why the repository
    cannot be read, nothing can be fetched from it, or the proxy does not serve now.
    """

    key: AppKey
    pointer: Pointer
    slots: tuple[ObservedSlot, ...]
    records: AppRecords = field(default_factory=AppRecords)
    head: ObservedHead | None = None
    routed: bool = True
    live_contract: AppContract | None = None
    running_contract: AppContract | None = None
    unenforced: tuple[str, ...] = ()
    source_problem: str = ""
    disk_problem: str = ""
    proxy_problem: str = ""

    def slot(self, name: SlotName | None) -> ObservedSlot | None:
        return next((slot for slot in self.slots if slot.name == name), None)

    @property
    def live(self) -> ObservedSlot | None:
        return self.slot(self.pointer.slot) if isinstance(self.pointer, PointsTo) else None


@dataclass(frozen=True, slots=True)
class AppRouting:
    """How the proxy leads to one app. `live`: it has been promoted, so its own port may listen."""

    app: AppName
    routes: tuple[Route, ...]
    port: int | None
    bind: str
    internal_port: int | None
    keep_alive: bool
    live: bool


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Everything the proxy is configured with; equal tables are never loaded twice."""

    apps: tuple[AppRouting, ...]

    def routing(self, app: AppName) -> AppRouting | None:
        return next((one for one in self.apps if one.app == app), None)


@dataclass(frozen=True, slots=True)
class ObservedProxy:
    """The proxy as found; `table` is what it serves now, None when it is down or was never told.

    `pointer_only`: it needs no table, the pointer alone leads to an app.
    """

    up: bool
    table: RoutingTable | None = None
    problem: str = ""
    pointer_only: bool = False
