"""Deploys and wishes: what was asked, what was tried, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from reconciler.model.desired import NO_VALUES, Target
from reconciler.model.instants import Instant
from reconciler.model.names import AppName, DeployId, HostId, Revision, SlotName, WishId


class Phase(StrEnum):
    """Phases of a deploy, in order; those after DRAINING are terminal and did not go live."""

    QUEUED = "queued"
    FETCHING = "fetching"
    GATING = "gating"
    PREPARING = "preparing"
    STARTING = "starting"
    PROVING = "proving"
    APPROVING = "approving"
    SWITCHING = "switching"
    LIVE = "live"
    BAKING = "baking"
    DRAINING = "draining"
    REJECTED = "rejected"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    ROLLED_BACK = "rolled_back"

    @property
    def unsuccessful(self) -> bool:
        return self in _UNSUCCESSFUL

    @property
    def open(self) -> bool:
        """Whether the deploy still holds its app: neither live nor ended."""
        return self in _OPEN


_OPEN = frozenset({
    Phase.QUEUED, Phase.FETCHING, Phase.GATING, Phase.PREPARING, Phase.STARTING, Phase.PROVING,
    Phase.APPROVING, Phase.SWITCHING,
})  # fmt: skip
_UNSUCCESSFUL = frozenset({
    Phase.REJECTED, Phase.FAILED, Phase.SUPERSEDED, Phase.CANCELLED, Phase.INTERRUPTED,
    Phase.ROLLED_BACK,
})  # fmt: skip


class Reason(StrEnum):
    """Why a step did not succeed; each is explained in docs/reasons.md."""

    EXITED = "exited"
    NEVER_BOUND = "never-bound"
    WRONG_ADDRESS = "wrong-address"
    PORT_TAKEN = "port-taken"
    BAD_STATUS = "bad-status"
    PROBE_TIMEOUT = "probe-timeout"
    REQUEST_FAILED = "request-failed"
    SETUP_EXIT = "setup-exit"
    SETUP_TIMEOUT = "setup-timeout"
    MISSING_SECRET = "missing-secret"  # noqa: S105 (a reason, not a secret)
    DISK_PRESSURE = "disk-pressure"
    WAITING_FOR_DRAIN = "waiting-for-drain"
    NOT_CONFIRMED = "not-confirmed"
    CRASH_LOOP = "crash-loop"
    BAKE_FAILED = "bake-failed"
    INVALID_MANIFEST = "invalid-manifest"
    POINTER_UNKNOWN = "pointer-unknown"
    UNKNOWN_HISTORY = "unknown-history"
    NOT_OWNER = "not-owner"
    FETCH_FAILED = "fetch-failed"
    CHECKOUT_FAILED = "checkout-failed"
    SHARED_DIR_TRACKED = "shared-dir-tracked"
    USER_REFUSED = "user-refused"
    LAUNCH_FAILED = "launch-failed"
    QUARANTINED = "quarantined"
    SUPERSEDED_BY_NEWER = "superseded-by-newer"
    SUPERSEDED_BY_ROLLBACK = "superseded-by-rollback"
    CANCELLED_BY_REQUEST = "cancelled-by-request"
    DAEMON_STOPPED = "daemon-stopped"
    ROLLED_BACK_BY_REQUEST = "rolled-back-by-request"
    PROXY_DOWN = "proxy-down"


# Failures that say nothing about the revision: retried, and nothing is quarantined.
TRANSIENT = frozenset({
    Reason.DISK_PRESSURE, Reason.PORT_TAKEN, Reason.FETCH_FAILED, Reason.DAEMON_STOPPED,
    Reason.UNKNOWN_HISTORY, Reason.NOT_OWNER, Reason.PROXY_DOWN, Reason.NOT_CONFIRMED,
})  # fmt: skip


class Trigger(StrEnum):
    """What made the wish."""

    PUSH = "push"
    MANUAL = "manual"
    CONTRACT = "contract"
    SECRET = "secret"  # noqa: S105 (a trigger, not a secret)
    ROLLBACK = "rollback"
    BAKE = "bake"
    RETRY = "retry"
    ADOPT = "adopt"


class WishKind(StrEnum):
    """DEPLOY follows the contract of the human branch; the others hold the recorded one."""

    DEPLOY = "deploy"
    ROLLBACK = "rollback"
    RETURN = "return"


class WishStatus(StrEnum):
    OPEN = "open"
    MET = "met"
    FAILED = "failed"
    STALLED = "stalled"
    SUPERSEDED = "superseded"
    CANCELLED = "cancelled"


# The verdict of a step that could not even be taken (fetch, preparation, start).
STEP = "step"


class VerdictKind(StrEnum):
    GATE = "gate"
    PROBE = "probe"
    BAKE = "bake"


class VerdictResult(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate, a probe or the bake found; `reason` is a slug or empty, `detail` prose."""

    name: str
    kind: VerdictKind
    result: VerdictResult
    reason: str = ""
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.result in (VerdictResult.PASSED, VerdictResult.SKIPPED)


@dataclass(frozen=True, slots=True)
class Wish:
    """Deploy this, because. Committed before anything moves; never inferred from live."""

    id: WishId
    seq: int
    app: AppName
    kind: WishKind
    target: Target
    contract: str
    status: WishStatus
    trigger: Trigger
    actor: str
    attempts: int = 1
    retry_at: Instant | None = None

    @property
    def holds(self) -> bool:
        """Whether the recorded contract is the desired one, whatever the human branch says."""
        return self.kind is not WishKind.DEPLOY


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """The immutable half of a deploy. `contract` is the canonical text of the whole contract."""

    id: DeployId
    wish_id: WishId
    host: HostId
    app: AppName
    kind: WishKind
    target: Target
    contract: str
    actor: str
    trigger: Trigger
    requested_at: datetime
    branch: str | None = None
    message: str = ""
    force: bool = False
    reason: str = ""
    skip_probes: tuple[str, ...] = ()
    retry_of: DeployId | None = None
    attempt: int = 1
    rolls_back_to: DeployId | None = None
    previous_commit: Revision | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """One appended step of a deploy; `at` is wall time for people, `instant` for deadlines."""

    phase: Phase
    at: datetime
    instant: Instant
    slot: SlotName | None = None
    reason: str = ""
    detail: str = ""
    log_tail: str = ""


@dataclass(frozen=True, slots=True)
class Deploy:
    """A deploy as people and planner see it: the request with its progress and verdicts."""

    request: DeployRequest
    seq: int
    progress: tuple[Progress, ...]
    verdicts: tuple[Verdict, ...] = ()

    @property
    def id(self) -> DeployId:
        return self.request.id

    @property
    def target(self) -> Target:
        return self.request.target

    @property
    def phase(self) -> Phase:
        """The last phase that says how the deploy stands; baking and draining leave it live."""
        aside = (Phase.BAKING, Phase.DRAINING)
        return next(step.phase for step in reversed(self.progress) if step.phase not in aside)

    @property
    def attempt(self) -> int:
        return self.request.attempt

    @property
    def slot(self) -> SlotName | None:
        return next((step.slot for step in reversed(self.progress) if step.slot), None)

    @property
    def promoted(self) -> Progress | None:
        return next((step for step in self.progress if step.phase is Phase.LIVE), None)

    @property
    def reason(self) -> str:
        return self.progress[-1].reason

    def entered(self, phase: Phase) -> Progress | None:
        """The first step of that phase, or None while it has not been reached."""
        return next((step for step in self.progress if step.phase is phase), None)

    def verdict(self, name: str) -> Verdict | None:
        return next((one for one in reversed(self.verdicts) if one.name == name), None)


@dataclass(frozen=True, slots=True)
class Promotion:
    """One entry of what has been live: `left` once a rollback or return went away from it."""

    seq: int
    deploy_id: DeployId
    slot: SlotName
    target: Target
    contract: str
    kind: WishKind
    rolls_back_to: DeployId | None
    at: Instant


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What never comes back by itself; an empty digest means "under any contract or secrets"."""

    app: AppName
    revision: Revision
    contract_digest: str
    secrets_digest: str
    reason: str
    by: str
    since: datetime

    def covers(self, target: Target) -> bool:
        return (
            self.revision == target.revision
            and self.contract_digest in ("", target.contract_digest)
            and self.secrets_digest in ("", target.secrets_digest)
        )


@dataclass(frozen=True, slots=True)
class SeenHead:
    """The last head of a branch that an app has taken notice of."""

    branch: str
    revision: Revision


@dataclass(frozen=True, slots=True)
class SeenInputs:
    """The contract and secrets an app last took notice of: a change of either is a wish once."""

    contract_digest: str
    secrets_digest: str


@dataclass(frozen=True, slots=True)
class ResolvedSecrets:
    """What a process is granted. `digest` identifies the versions and reveals no value."""

    values: Mapping[str, str]
    digest: str
    missing: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = ", ".join(sorted(self.values))
        return f"ResolvedSecrets(names=[{names}], missing={list(self.missing)})"


NO_SECRETS = ResolvedSecrets(NO_VALUES, "")
