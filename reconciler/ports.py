"""Ports: the seams behind which every effect lives; their docstrings bind implementations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from reconciler.model.conditions import Condition
from reconciler.model.deploys import (
    Deploy,
    DeployRequest,
    Phase,
    Progress,
    Quarantined,
    ResolvedSecrets,
    SeenHead,
    SeenInputs,
    Verdict,
    WishStatus,
)
from reconciler.model.desired import AppContract, Target
from reconciler.model.events import Event
from reconciler.model.instants import Instant
from reconciler.model.names import AppName, DeployId, ProcessName, Revision, SlotName, WishId
from reconciler.model.observed import (
    AppRecords,
    Health,
    ObservedProxy,
    ObservedSlot,
    Pointer,
    RoutingTable,
)


class Clock(Protocol):
    """Time, and what must be unpredictable."""

    def now(self) -> Instant:
        """Returns the boot-time clock, for deadlines."""
        ...

    def wall(self) -> datetime:
        """Returns aware UTC wall time, for people only."""
        ...

    def new_id(self) -> str:
        """Returns a fresh UUIDv7 as text."""
        ...

    async def sleep(self, span: timedelta) -> None: ...


@dataclass(frozen=True, slots=True)
class SlotTree:
    """Where a revision is exported to, and as whom. `keep` names untracked directories to leave.

    `full` asks for every file to be compared by content (the slot was dirty or is of another boot).
    `owner` is (uid, gid) of the app's user, or None for the daemon's own; `home` is that user's.
    `trash` is a directory on the same file system into which large trees are renamed.
    `cookie` is the deploy's id, `app` its app: what writes in the slot carries both in its
    environment, so that it is found again when we die in the middle.
    """

    worktree: Path
    git_dir: Path
    trash: Path
    keep: tuple[str, ...] = ()
    full: bool = False
    owner: tuple[int, int] | None = None
    home: str = "/"
    cookie: str = ""
    app: str = ""


class Source(Protocol):
    """One repository, read through our own mirror. Knows revisions, no Git types."""

    @property
    def name(self) -> str: ...

    async def refresh(self) -> None:
        """Fetches what moved. Raises SourceError (NotOwnerError, ...); the mirror stays usable."""
        ...

    async def heads(self) -> Mapping[str, Revision]:
        """Returns branch -> head of the mirror as last refreshed; `HEAD` is among the keys only
        when the repository is on a detached HEAD."""
        ...

    async def default_branch(self) -> str | None:
        """Returns the human branch when none is named: `main` if it exists, else the one HEAD
        names; None on a detached HEAD or in an empty repository."""
        ...

    async def checked_out(self) -> str | None:
        """Returns the branch checked out in the repository here, None when HEAD is detached."""
        ...

    async def resolve(self, text: str) -> Revision:
        """Resolves a full or short id (4 digits at least), a branch or a tag to a commit.

        A text that looks like an option or holds `..`, NUL or a newline is unknown.
        Raises UnknownRevisionError, also when a short id is ambiguous.
        """
        ...

    async def manifests(self, revision: Revision) -> Mapping[str, bytes]:
        """Returns the files below `.autopilot/` at that revision, by path from the root.

        Links, submodules and files over 1 MiB are left out. Raises UnknownRevisionError.
        """
        ...

    async def descends(self, revision: Revision, ancestor: Revision) -> bool:
        """Whether `ancestor` is `revision` or reachable from it. Raises UnknownHistoryError."""
        ...

    async def touches(
        self, base: Revision, head: Revision, path: str, globs: Sequence[str]
    ) -> bool:
        """Whether the tree at `path` (`.` is all) or a file matching a glob (from the root, `**`
        allowed) differs: added, removed, renamed, mode and content all count."""
        ...

    async def tracks(self, revision: Revision, path: str) -> bool:
        """Whether the revision has anything at or below that path."""
        ...

    async def subject(self, revision: Revision) -> str:
        """Returns the first line of the commit message, at most 200 characters."""
        ...

    async def export(self, revision: Revision, tree: SlotTree) -> None:
        """Makes the worktree equal the revision's tree, byte by byte, but for `keep`.

        Whatever the slot holds (tampered files, nested repositories, links that lead out) ends up
        right, and nothing outside the slot is touched. Idempotent; after a failure call again.
        Raises ExportError, DiskPressureError.
        """
        ...

    async def keep(self, refs: Mapping[str, Revision]) -> None:
        """Points `refs/autopilot/<name>` at the revisions, adding to what is there."""
        ...

    def watch(self) -> AsyncIterator[None]:
        """Yields whenever something may have moved: a hint, possibly wrong, never needed."""
        ...


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a slot is brought to. `environment` holds env_file, env and secrets, already merged.

    `export` is the source's, bound to its revision. With `export` None the files stay and only
    the record is made new (a cold start of a slot that is already at the target).
    """

    app: AppName
    slot: SlotName
    deploy_id: DeployId
    target: Target
    contract: AppContract
    environment: Mapping[str, str]
    export: Callable[[SlotTree], Awaitable[None]] | None


@dataclass(frozen=True, slots=True)
class Launch:
    """Which processes of a prepared slot to start, with what beside the standard environment."""

    app: AppName
    slot: SlotName
    deploy_id: DeployId
    revision: Revision
    contract: AppContract
    processes: tuple[ProcessName, ...]
    environment: Mapping[str, str]
    restart: bool = False


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens on an instance's port. `address` is where to dial it, e.g. `[::1]:20001`.

    ours: a process of the slot. stranger: somebody else (described in `detail`).
    elsewhere: nobody on the port, but the slot listens at the address in `detail`.
    exposed: ours, but reachable from other hosts.
    """

    ours: bool = False
    stranger: bool = False
    elsewhere: bool = False
    exposed: bool = False
    address: str = ""
    detail: str = ""


class Instance(Protocol):
    """A started `web` instance, as a probe sees it."""

    @property
    def address(self) -> str:
        """host:port it was given as `$HOST:$PORT`."""
        ...

    @property
    def internal_address(self) -> str:
        """The same for `$INTERNAL_PORT`; empty when it has none."""
        ...

    async def listener(self, *, internal: bool = False) -> Listener: ...

    async def exited(self) -> bool:
        """Whether its process has ended (cheap, asked before and after each request)."""
        ...

    async def wait_exit(self) -> None:
        """Returns when its process has ended; cancel freely."""
        ...

    @property
    def exit_status(self) -> int | None:
        """Its exit status (negative: signal), None while up or when nobody could reap it."""
        ...


class Slots(Protocol):
    """Slots of all apps on this host: their files, processes, ports and records.

    Every verb is idempotent. What a verb starts and does not wait for is told by `observe`.
    Raises DiskPressureError wherever a file is written.
    """

    async def observe(self, app: AppName, names: Sequence[SlotName]) -> tuple[ObservedSlot, ...]:
        """Returns the slots named, in that order. Cheap while instances are up; counts
        connections only of slots whose record has `drain_since` and no `term_at`."""
        ...

    def unenforced(self, contract: AppContract) -> tuple[str, ...]:
        """Returns the limits of the contract that this host cannot enforce, e.g.
        `limits.memory_mb`."""
        ...

    async def apps(self) -> tuple[AppName, ...]:
        """Returns the apps that have a slot record on this host."""
        ...

    async def prepare(self, job: Preparation) -> None:
        """Begins to bring a slot to its target: dirty mark (fsynced), links of shared_dirs away,
        export, links back, setup_command as the app's user under its deadline, mark prepared.
        Returns once begun; `busy` holds `prepare` until the record says PREPARED or FAILED with
        a reason (checkout-failed, setup-exit, setup-timeout, disk-pressure, user-refused) and a
        detail. A failed or killed setup drops keep_dirs. Raises SlotBusyError unless the slot is
        vacant, UserRefusedError."""
        ...

    async def start(self, launch: Launch) -> None:
        """Chooses ports (a restart keeps its own when free), makes the intent durable, spawns
        each process through the launcher and returns. With `restart` a process that is still up
        is left alone. Raises PortsExhaustedError, LaunchError, SlotBusyError."""
        ...

    def instance(self, app: AppName, slot: SlotName) -> Instance:
        """Returns the slot's `web` instance. Raises LaunchError when none was started."""
        ...

    async def publish(self, app: AppName, slot: SlotName) -> str:
        """Writes `.addr/web` and `.addr/internal` from the real listeners; returns the web one.
        An address whose listener is not ours is written empty."""
        ...

    async def blank(self, app: AppName, slot: SlotName) -> None:
        """Empties `.addr/web` and `.addr/internal`."""
        ...

    async def note_drain(
        self,
        app: AppName,
        slot: SlotName,
        *,
        since: Instant | None,
        quiet_since: Instant | None,
        drained: bool,
    ) -> None:
        """Records the drain of a slot; all None and False takes it back."""
        ...

    async def note_health(self, app: AppName, slot: SlotName, health: Health) -> None:
        """Records what the watch found; not durable."""
        ...

    async def terminate(
        self, app: AppName, slot: SlotName, processes: Sequence[ProcessName] | None = None
    ) -> None:
        """Records `term_at` (durable, whole slot only), then SIGTERM to the group of every
        process of the slot and to what its session, cgroup and cookie hold besides. Also stops a
        running preparation. With `processes`: only to those, and nothing is recorded."""
        ...

    async def kill(
        self, app: AppName, slot: SlotName, processes: Sequence[ProcessName] | None = None
    ) -> None:
        """SIGKILL to everything that belongs to the slot, until a scan finds nothing new."""
        ...

    async def retire(self, app: AppName, slot: SlotName) -> None:
        """Records that the slot is vacant and lets go of its port locks, which then rest.
        Raises SlotBusyError when a process is left."""
        ...

    async def show_roles(self, app: AppName, live: SlotName, previous: SlotName | None) -> None:
        """Points `apps/<app>/live` and `prev` at slots, for people; nothing reads them."""
        ...

    async def sweep(self, known: Callable[[Sequence[str]], Awaitable[frozenset[str]]]) -> int:
        """Kills processes whose cookie is a deploy of ours (`known` picks those out) that no
        slot record names any more; returns how many."""
        ...

    async def empty_trash(self, app: AppName) -> None: ...

    async def log_tail(self, app: AppName, deploy_id: DeployId, lines: int) -> str:
        """Returns the last lines of setup and process output of that deploy, NULs skipped."""
        ...

    async def trim_logs(self) -> None:
        """Punches holes into logs over their size (offsets stay valid); deletes old ones."""
        ...

    async def free_bytes(self) -> int:
        """Returns the free bytes of the file system that holds the slots."""
        ...

    def on_change(self, wake: Callable[[AppName], None]) -> None:
        """Registers what is called when an instance ends or long work is done."""
        ...

    async def settle(self) -> None:
        """Waits for all long work that was begun; for tests that end a process after each pass."""
        ...

    async def close(self) -> None:
        """Stops watching; leaves every process running."""
        ...


class Proxy(Protocol):
    """The proxy and the pointers it follows. Configured per set of apps, never at a switch."""

    async def pointer(self, app: AppName) -> Pointer: ...

    async def switch(self, app: AppName, slot: SlotName) -> None:
        """Makes the slot live by one rename, durable when this returns."""
        ...

    async def unroute(self, app: AppName) -> None:
        """Removes the pointer; nothing when there is none."""
        ...

    async def confirm(self, app: AppName, address: str, path: str, timeout: timedelta) -> str:
        """Asks the proxy itself, through the same map as public traffic, until it dials `address`.
        Returns an empty text when it does, else what was seen instead. `none` confirms at once."""
        ...

    async def observe(self) -> ObservedProxy:
        """Returns whether it is up (ours by pid, start time and boot id) and what it serves."""
        ...

    async def ensure(self, table: RoutingTable) -> None:
        """Starts or adopts the proxy and makes it serve the table; an equal configuration is never
        loaded. Verifies that every listener is ours. Raises ProxyError, PortHeldError."""
        ...

    def on_change(self, wake: Callable[[], None]) -> None:
        """Registers what is called when the proxy ends."""
        ...

    async def stop(self) -> None:
        """Stops the proxy itself, for `--on-exit stop`."""
        ...

    async def close(self) -> None:
        """Lets go of it; a running proxy goes on."""
        ...


class Probe(Protocol):
    """A check on a running candidate."""

    async def run(self, instance: Instance, contract: AppContract, deadline: timedelta) -> Verdict:
        """Proves the instance within `deadline` from now. Never raises for what the app does:
        the verdict says why it failed. Cancelling stops it at once."""
        ...


class Secrets(Protocol):
    """Values granted to apps. They leave this port only into an environment."""

    async def resolve(self, app: AppName, contract: AppContract) -> ResolvedSecrets:
        """Returns env_file, env and secrets_inject merged (later wins), a digest of the versions
        of env_file and secrets, and the names that are missing. Raises nothing for missing ones."""
        ...

    def watch(self) -> AsyncIterator[None]:
        """Yields when a value may have changed: a hint."""
        ...


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's key with a fingerprint of what was asked; the same key with another fingerprint
    is refused. Kept for a day."""

    key: str
    fingerprint: str


class Store(Protocol):
    """What cannot be observed. Every verb is one transaction, durable when it returns.

    Each change appends its event in the same transaction. Raises DiskPressureError and StoreError.
    """

    async def records(self, app: AppName) -> AppRecords: ...

    async def record_wish(
        self,
        request: DeployRequest,
        at: Progress,
        *,
        head: SeenHead | None = None,
        inputs: SeenInputs | None = None,
        quarantine: Sequence[Quarantined] = (),
        lift: Target | None = None,
        pre_empt: bool = False,
        only_if_idle: bool = False,
        key: IdempotencyKey | None = None,
    ) -> Deploy:
        """Records a wish with its first deploy (`at` is its QUEUED step) and returns the deploy.

        An open wish is superseded, and so is every deploy that still waits; with `pre_empt` the
        running one as well. `only_if_idle` raises RefusedError `deploy-in-progress` naming the
        open deploy instead. `lift` removes quarantine that covers the target. A known `key`
        returns its deploy and changes nothing; with another fingerprint it raises RefusedError
        `invalid-request`.
        """
        ...

    async def answered(self, key: IdempotencyKey) -> Deploy | None:
        """Returns the deploy that the key made, None for a new one. Raises RefusedError
        `invalid-request` when it was used for something else."""
        ...

    async def retry(self, wish_id: WishId, request: DeployRequest, at: Progress) -> Deploy:
        """Adds a further deploy to an open wish and counts the attempt."""
        ...

    async def advance(self, deploy_id: DeployId, steps: Sequence[Progress]) -> None: ...

    async def record_verdict(self, deploy_id: DeployId, verdict: Verdict, at: datetime) -> None: ...

    async def promote(self, request: DeployRequest, slot: SlotName, at: Progress) -> None:
        """Appends LIVE, the promotion, and MET to the wish. For a rollback or return, the deploy
        it left gets ROLLED_BACK. Idempotent for a deploy that is already promoted."""
        ...

    async def close_deploy(
        self,
        deploy_id: DeployId,
        at: Progress,
        *,
        wish_status: WishStatus,
        retry_at: Instant | None = None,
        quarantine: Sequence[Quarantined] = (),
    ) -> None:
        """Ends an open deploy; a deploy that has ended already is left as it is."""
        ...

    async def set_wish(self, wish_id: WishId, status: WishStatus) -> None: ...

    async def interrupt_open(self, at: Progress, phases: Sequence[Phase]) -> tuple[DeployId, ...]:
        """Ends as INTERRUPTED every deploy that is in one of the phases; wishes stay open."""
        ...

    async def note_seen(
        self, app: AppName, head: SeenHead | None, inputs: SeenInputs | None
    ) -> None: ...

    async def note_absence(self, app: AppName, passes: int) -> None: ...

    async def note_conditions(self, app: AppName, conditions: Sequence[Condition]) -> None:
        """Replaces the conditions of an app; `since` moves only for those that changed status."""
        ...

    async def conditions(self, app: AppName) -> tuple[tuple[Condition, datetime], ...]: ...

    async def deploy(self, deploy_id: DeployId) -> Deploy | None: ...

    async def deploys(
        self, app: AppName | None, limit: int, before: int | None
    ) -> tuple[Deploy, ...]:
        """Returns the newest first; `before` is the seq after which (going back) to begin."""
        ...

    async def known_deploys(self, ids: Sequence[str]) -> frozenset[str]: ...

    async def events(self, after: int, limit: int) -> tuple[Event, ...]: ...

    async def last_event(self) -> int: ...

    async def tell(self, kind: str, payload: Mapping[str, str]) -> None:
        """Appends an event of its own, for what is in no other verb."""
        ...

    async def good_manifests(self, source: str) -> Revision | None:
        """Returns the last revision of that source whose manifests were valid."""
        ...

    async def note_good_manifests(self, source: str, revision: Revision) -> None: ...

    def on_event(self, listener: Callable[[], None]) -> None:
        """Registers what is called, on the loop, after a transaction that appended events."""
        ...

    async def close(self) -> None: ...
