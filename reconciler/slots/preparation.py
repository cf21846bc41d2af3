"""Preparation: bringing a vacant slot to its target in the background, dirty until it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import structlog

from reconciler.host.files import disk_pressure
from reconciler.model.deploys import Reason
from reconciler.model.errors import (
    DiskPressureError,
    LaunchError,
    NotOwnerError,
    ReconcilerError,
    UnknownHistoryError,
    UnknownRevisionError,
    UserRefusedError,
)
from reconciler.model.names import SETUP, AppName, SlotName
from reconciler.model.observed import SlotRecord, Stage
from reconciler.ports import Preparation, SlotTree
from reconciler.slots import links, notes, rooms, trash
from reconciler.slots.confined import parts_of
from reconciler.slots.environment import Identity
from reconciler.slots.launcher import Launcher, Order
from reconciler.slots.layout import Layout, SlotPaths
from reconciler.slots.records import Records
from reconciler.slots.setup import SetupFailedError, run_setup
from reconciler.slots.users import AppUser

_log = structlog.get_logger(__name__)

Reap = Callable[[AppName, SlotName], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Task:
    """One preparation: the job, as whom, whether every file must be compared, and a fresh name."""

    job: Preparation
    user: AppUser
    full: bool
    name: str


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None] | None = None
    in_setup: bool = False
    stopped: bool = False


class Preparations:
    """All preparations under way. `reap_setup` kills what belongs to a slot's setup; `done` is
    called when a record says how it ended."""

    def __init__(
        self,
        layout: Layout,
        records: Records,
        launcher: Launcher,
        reap_setup: Reap,
        done: Callable[[AppName], None],
    ) -> None:
        self._layout = layout
        self._records = records
        self._launcher = launcher
        self._reap_setup = reap_setup
        self._done = done
        self._running: dict[tuple[AppName, SlotName], _Running] = {}
        self._closing = False

    def busy(self, app: AppName, slot: SlotName) -> bool:
        return (app, slot) in self._running

    def begin(self, task: Task) -> None:
        """Starts the work; the record already says PREPARING."""
        key = (task.job.app, task.job.slot)
        running = _Running()
        self._running[key] = running
        running.task = asyncio.get_running_loop().create_task(self._run(task, running))

    def stop(self, app: AppName, slot: SlotName) -> None:
        """Ends a checkout; a setup is signalled by whoever signals the slot's processes."""
        running = self._running.get((app, slot))
        if running is None or running.task is None:
            return
        running.stopped = True
        if not running.in_setup:
            running.task.cancel()

    async def settle(self) -> None:
        while tasks := [one.task for one in self._running.values() if one.task]:
            await asyncio.wait(tasks)

    async def close(self) -> None:
        """Ends the work and leaves its records dirty: a deadline cannot be kept without us."""
        self._closing = True
        tasks = [one.task for one in self._running.values() if one.task]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, task: Task, running: _Running) -> None:
        job = task.job
        paths = self._layout.slot(job.app, job.slot)
        try:
            reason, detail = await self._outcome(task, paths, running)
            stage = Stage.FAILED if reason else Stage.PREPARED
            await asyncio.to_thread(self._finish, job, stage, reason, detail)
        except DiskPressureError:
            # The record cannot be written: it stays PREPARING, which is dirty and not busy.
            _log.warning("no space to record a preparation", app=job.app, slot=job.slot)
        finally:
            del self._running[job.app, job.slot]
            if not self._closing:
                self._done(job.app)

    async def _outcome(
        self, task: Task, paths: SlotPaths, running: _Running
    ) -> tuple[Reason | None, str]:
        try:
            with disk_pressure(str(paths.worktree)):
                await self._bring(task, paths, running)
        except asyncio.CancelledError:
            if self._closing:
                raise
            return Reason.CANCELLED_BY_REQUEST, "the preparation was stopped"
        except ReconcilerError as error:
            if running.stopped:
                return Reason.CANCELLED_BY_REQUEST, "the preparation was stopped"
            return _reason_of(error), str(error)
        except Exception as error:  # noqa: BLE001 (unrecorded, the slot would wait for ever)
            _log.exception("a preparation failed", app=task.job.app, slot=task.job.slot)
            return Reason.CHECKOUT_FAILED, f"{type(error).__name__}: {error}"
        return None, ""

    async def _bring(self, task: Task, paths: SlotPaths, running: _Running) -> None:
        job, owner = task.job, task.user.owner
        keep = tuple("/".join(parts_of(job.contract.path, one)) for one in job.contract.keep_dirs)
        full = await asyncio.to_thread(_clear, paths, task)
        if job.export is not None:
            await job.export(
                SlotTree(
                    worktree=paths.worktree,
                    git_dir=paths.git_dir,
                    trash=paths.trash,
                    keep=keep,
                    full=full,
                    owner=owner,
                    home=task.user.home,
                    cookie=job.deploy_id,
                    app=job.app,
                )
            )
        await asyncio.to_thread(links.make_links, paths.worktree, paths.shared, job.contract, owner)
        if job.contract.setup_command is not None:
            await self._set_up(task, paths, running, job.contract.setup_command)

    async def _set_up(self, task: Task, paths: SlotPaths, running: _Running, command: str) -> None:
        job = task.job
        identity = Identity(job.app, job.slot, job.deploy_id, job.target.revision, SETUP)
        order = Order(identity, 0, command, job.contract, task.user, job.environment)
        self._launcher.require_space()
        running.in_setup = True

        async def reap() -> None:
            await self._reap_setup(job.app, job.slot)

        try:
            await run_setup(self._launcher, order, reap)
        except BaseException:
            _drop_kept(paths, task)
            raise

    def _finish(self, job: Preparation, stage: Stage, reason: Reason | None, detail: str) -> None:
        def end(record: SlotRecord) -> SlotRecord:
            if record.deploy_id != job.deploy_id:
                return record
            return replace(record, stage=stage, reason=reason or "", detail=detail)

        self._records.change(job.app, job.slot, end)


def _clear(paths: SlotPaths, task: Task) -> bool:
    """Makes the directories and takes the links away; returns whether the export must be full."""
    new = rooms.make_theirs(paths, task.user, task.name)
    notes.forget(paths, SETUP, 0)
    links.remove_links(paths.worktree, task.job.contract)
    return task.full and not new


def _drop_kept(paths: SlotPaths, task: Task) -> None:
    """Half of a node_modules looks like a whole one to the next setup."""
    contract = task.job.contract
    for number, directory in enumerate(contract.keep_dirs):
        parts = parts_of(contract.path, directory)
        trash.discard_inside(paths.worktree, parts, paths.trash, f"{task.name}.keep{number}")


_REASONS: tuple[tuple[type[ReconcilerError], Reason], ...] = (
    (DiskPressureError, Reason.DISK_PRESSURE),
    (LaunchError, Reason.LAUNCH_FAILED),
    (UserRefusedError, Reason.USER_REFUSED),
    (links.SharedDirTrackedError, Reason.SHARED_DIR_TRACKED),
    (UnknownHistoryError, Reason.UNKNOWN_HISTORY),
    (UnknownRevisionError, Reason.UNKNOWN_HISTORY),
    (NotOwnerError, Reason.NOT_OWNER),
)


def _reason_of(error: ReconcilerError) -> Reason:
    if isinstance(error, SetupFailedError):
        return error.reason
    return next(
        (reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.CHECKOUT_FAILED
    )
