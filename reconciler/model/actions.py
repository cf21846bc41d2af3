"""Actions: every effect the planner can ask for, as data; `apply` handles all of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from reconciler.model.conditions import Condition
from reconciler.model.deploys import (
    DeployRequest,
    Phase,
    SeenHead,
    SeenInputs,
    Trigger,
    Verdict,
    Wish,
    WishKind,
)
from reconciler.model.desired import AppContract, Target
from reconciler.model.instants import Instant
from reconciler.model.names import DeployId, ProcessName, Revision, SlotName
from reconciler.model.observed import RoutingTable, SlotRecord


@dataclass(frozen=True, slots=True)
class NoteSeen:
    """Take notice of a head, of inputs, or both, without wishing anything."""

    head: SeenHead | None = None
    inputs: SeenInputs | None = None


@dataclass(frozen=True, slots=True)
class NoteAbsence:
    """Count a pass in which a valid `.autopilot/` did not name the app; 0 starts over."""

    passes: int


@dataclass(frozen=True, slots=True)
class MakeWish:
    """Record a wish with its first deploy, and what it took notice of, in one transaction."""

    kind: WishKind
    target: Target
    contract: str
    trigger: Trigger
    branch: str | None = None
    message: str = ""
    head: SeenHead | None = None
    inputs: SeenInputs | None = None
    rolls_back_to: DeployId | None = None
    quarantine: Target | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AdoptLive:
    """Record the slot that serves as wished and live, for a store that knows nothing of it."""

    slot: SlotName
    record: SlotRecord
    head: SeenHead
    inputs: SeenInputs


@dataclass(frozen=True, slots=True)
class RetryWish:
    """Start a new deploy for a wish whose last one ended for a reason that may pass."""

    wish: Wish
    last: DeployRequest


@dataclass(frozen=True, slots=True)
class StallWish:
    """Stop retrying a wish; a person or a new wish goes on."""

    wish: Wish


@dataclass(frozen=True, slots=True)
class Advance:
    """Append a phase to a deploy."""

    deploy_id: DeployId
    phase: Phase
    slot: SlotName | None = None
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class FetchRevision:
    """Make sure that the mirror holds the revision."""

    deploy_id: DeployId
    revision: Revision


@dataclass(frozen=True, slots=True)
class PrepareSlot:
    """Bring a vacant slot to a revision and run its setup. Long: observed by later passes.

    `intact`: the files are already at the target, so only the record is made new.
    """

    slot: SlotName
    deploy: DeployRequest
    contract: AppContract
    intact: bool = False


@dataclass(frozen=True, slots=True)
class StartInstances:
    """Start processes of a prepared slot. `deploy_id` becomes the cookie of the slot."""

    slot: SlotName
    deploy_id: DeployId
    revision: Revision
    contract: AppContract
    processes: tuple[ProcessName, ...]
    restart: bool = False


@dataclass(frozen=True, slots=True)
class RunProbe:
    """Prove a candidate. Long: its verdict, under that name, is observed by later passes."""

    slot: SlotName
    deploy_id: DeployId
    probe: str
    contract: AppContract
    verdict: str


@dataclass(frozen=True, slots=True)
class RecordVerdict:
    deploy_id: DeployId
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Ask the live slot once. `boot` while it starts: keep asking until it answers or times out."""

    slot: SlotName
    contract: AppContract
    boot: bool = False


@dataclass(frozen=True, slots=True)
class PublishAddress:
    """Write the slot's real addresses where the pointer leads."""

    slot: SlotName


@dataclass(frozen=True, slots=True)
class BlankAddress:
    """Empty the slot's addresses, so that its port can never lead to a stranger."""

    slot: SlotName


@dataclass(frozen=True, slots=True)
class SwitchRoute:
    """Rename the pointer to the slot; the switch itself."""

    slot: SlotName


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    """Take the pointer away: nothing is live."""


@dataclass(frozen=True, slots=True)
class ConfirmRoute:
    """Ask our proxy whether it dials the slot now; the verdict `confirm` is recorded."""

    slot: SlotName
    deploy_id: DeployId
    contract: AppContract


@dataclass(frozen=True, slots=True)
class Promote:
    """Record that the deploy is live: progress, promotion and wish in one transaction."""

    deploy: DeployRequest
    slot: SlotName


@dataclass(frozen=True, slots=True)
class DrainSlot:
    """Start, or go on, counting down the slot's connections."""

    slot: SlotName
    since: Instant
    quiet_since: Instant | None = None
    drained: bool = False


@dataclass(frozen=True, slots=True)
class WarmSlot:
    """Take back a drain: the slot serves again."""

    slot: SlotName


@dataclass(frozen=True, slots=True)
class StopProcesses:
    """SIGTERM to some processes of a slot, then SIGKILL after `grace`; the slot stays warm."""

    slot: SlotName
    processes: tuple[ProcessName, ...]
    grace: timedelta


@dataclass(frozen=True, slots=True)
class StopSlot:
    """Signal everything that belongs to a slot: SIGTERM, or SIGKILL with `kill`."""

    slot: SlotName
    kill: bool = False


@dataclass(frozen=True, slots=True)
class RetireSlot:
    """Record that the slot was found vacant, and let go of its ports."""

    slot: SlotName


@dataclass(frozen=True, slots=True)
class CloseDeploy:
    """End a deploy that did not go live: rejected, failed, superseded, cancelled or interrupted.

    `quarantine` is what never comes back by itself; `retry` leaves the wish open until then.
    """

    deploy: DeployRequest
    phase: Phase
    reason: str
    detail: str = ""
    quarantine: Target | None = None
    retry_at: Instant | None = None
    log_slot: SlotName | None = None


@dataclass(frozen=True, slots=True)
class EmptyTrash:
    """Delete what was renamed away; never just before a checkout."""


@dataclass(frozen=True, slots=True)
class NoteConditions:
    """Record the conditions and tell of every change once."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class StartProxy:
    """Start the proxy, or adopt the one that runs."""


@dataclass(frozen=True, slots=True)
class ConfigureProxy:
    table: RoutingTable


Action: TypeAlias = (
    NoteSeen
    | NoteAbsence
    | MakeWish
    | AdoptLive
    | RetryWish
    | StallWish
    | Advance
    | FetchRevision
    | PrepareSlot
    | StartInstances
    | RunProbe
    | RecordVerdict
    | CheckHealth
    | PublishAddress
    | BlankAddress
    | SwitchRoute
    | RemoveRoute
    | ConfirmRoute
    | Promote
    | DrainSlot
    | WarmSlot
    | StopProcesses
    | StopSlot
    | RetireSlot
    | CloseDeploy
    | EmptyTrash
    | NoteConditions
    | StartProxy
    | ConfigureProxy
)


@dataclass(frozen=True, slots=True)
class Step:
    """An action and why it comes next; the same text serves plan, page and log."""

    action: Action
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The next safe steps, when to look again at the latest, and how things stand meanwhile.

    `pending` lists, for people, what is still to be done; empty means converged.
    """

    steps: tuple[Step, ...] = ()
    wake_at: Instant | None = None
    pending: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an action: `failed` ends the pass, and the next one looks again."""

    failed: bool = False
    reason: str = ""
    detail: str = ""
