"""The process driver: slots as directories, instances as plain processes. Works on every host.

This class is the port's face: each verb says what is done in which order, and the rooms beside it
know how.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from reconciler.host.files import replace_link, write_atomic
from reconciler.host.processes import describe, own_cgroup
from reconciler.model.desired import AppContract, Limits
from reconciler.model.errors import (
    LaunchError,
    ReconcilerError,
    SlotBusyError,
    UserRefusedError,
)
from reconciler.model.instants import Instant
from reconciler.model.names import SETUP, WEB, AppName, DeployId, HostId, ProcessName, SlotName
from reconciler.model.observed import Health, ObservedSlot, SlotRecord, Stage
from reconciler.ports import Clock, Launch, Listener, Preparation
from reconciler.slots import cgroups, logs, notes, rooms
from reconciler.slots.background import Background
from reconciler.slots.bins import Bins
from reconciler.slots.cgroups import Cgroups
from reconciler.slots.children import Children, Key
from reconciler.slots.environment import Environments
from reconciler.slots.instances import Instances, Look
from reconciler.slots.launcher import Launcher
from reconciler.slots.layout import Layout, SlotPaths
from reconciler.slots.listening import WebInstance
from reconciler.slots.membership import scan
from reconciler.slots.observation import Observer
from reconciler.slots.ports import Ports
from reconciler.slots.preparation import Preparations, Task
from reconciler.slots.reaper import kill_all, signal_all
from reconciler.slots.records import Records, forget_health, write_health
from reconciler.slots.starting import Starter
from reconciler.slots.users import Users

NO_LIMITS = Limits()
Stamp = Callable[[SlotRecord, Instant], SlotRecord]


class ProcessSlots:
    """Implements the Slots port with plain processes below one data directory.

    `default_user` runs apps whose contract names none (None: the daemon's own), `orchestrator_url`
    is what apps are told, `inherit_path` gives them the daemon's PATH (development).
    """

    def __init__(
        self,
        data_dir: Path,
        clock: Clock,
        port_range: range,
        default_user: str | None,
        host_id: HostId,
        orchestrator_url: str,
        *,
        inherit_path: bool,
    ) -> None:
        self._clock = clock
        self._boot_id = clock.now().boot_id
        self._layout = Layout(data_dir.resolve())
        self._records = Records(self._layout)
        self._ports = Ports(port_range, clock, f"pid {os.getpid()} for {data_dir}")
        self._users = Users(default_user)
        self._background = Background()
        self._children = Children(self._ended)
        self._instances = Instances(self._layout, self._children, self._boot_id)
        self._groups = Cgroups(data_dir.resolve(), own_cgroup())
        environments = Environments(host_id, orchestrator_url, inherit_path=inherit_path)
        self._launcher = Launcher(
            self._layout, environments, self._groups, self._background, self._boot_id
        )
        self._preparations = Preparations(
            self._layout, self._records, self._launcher, self._reap_setup, self._changed
        )
        self._starter = Starter(
            self._records,
            self._ports,
            self._launcher,
            self._children,
            self._instances,
            clock,
        )
        self._bins = Bins(self._layout, self._background, clock, self._changed)
        self._observer = Observer(
            self._layout,
            self._records,
            self._instances,
            self._ports,
            self._preparations,
            self._bins,
            self._boot_id,
        )
        self._wakes: list[Callable[[AppName], None]] = []

    async def observe(self, app: AppName, names: Sequence[SlotName]) -> tuple[ObservedSlot, ...]:
        return self._observer.observe(app, names)

    async def apps(self) -> tuple[AppName, ...]:
        return self._layout.apps()

    async def prepare(self, job: Preparation) -> None:
        app, slot = job.app, job.slot
        if self._preparations.busy(app, slot):
            raise SlotBusyError(f"{slot} of {app} is being prepared")
        user = self._users.resolve(job.contract.user)
        old = self._records.read(app, slot)
        if old is not None and not old.vacated:
            self._refuse_left(app, slot, old)
        await asyncio.to_thread(self._mark, job, old)
        self._ports.rest(_ports_of(old))
        if job.export is None:
            self._changed(app)
            return
        full = old is None or old.stage is not Stage.PREPARED or old.boot_id != self._boot_id
        self._preparations.begin(Task(job, user, full, self._clock.new_id()))

    def _mark(self, job: Preparation, old: SlotRecord | None) -> None:
        """Makes the slot's record new: dirty, unless its files stay what they are."""
        paths = self._layout.slot(job.app, job.slot)
        stage = Stage.PREPARING if job.export is not None else Stage.PREPARED
        if stage is Stage.PREPARED and (old is None or old.stage is not Stage.PREPARED):
            raise LaunchError(f"{job.slot} of {job.app} is not prepared, so its files cannot stay")
        rooms.make_own(paths)
        _remove_group(paths)
        same = old is not None and old.deploy_id == job.deploy_id
        record = SlotRecord(
            deploy_id=job.deploy_id,
            target=job.target,
            contract=job.contract.text,
            boot_id=self._boot_id,
            stage=stage,
            starts=old.starts if old is not None and same else (),
        )
        self._records.write(job.app, job.slot, record)
        # Where an earlier deploy listened is nobody's address now, and may soon be a stranger's.
        _write_addresses(paths, "", "")
        forget_health(paths)

    async def start(self, launch: Launch) -> None:
        app, slot = launch.app, launch.slot
        record = self._records.read(app, slot)
        if self._preparations.busy(app, slot):
            raise SlotBusyError(f"{slot} of {app} is being prepared")
        if record is None or record.stage is not Stage.PREPARED:
            raise LaunchError(f"{slot} of {app} is not prepared, so nothing can be started in it")
        if record.deploy_id != launch.deploy_id and not record.vacated:
            self._refuse_left(app, slot, record)
        user = self._users.resolve(launch.contract.user)
        await self._starter.start(launch, self._layout.slot(app, slot), record, user)

    def instance(self, app: AppName, slot: SlotName) -> WebInstance:
        record = self._records.read(app, slot)
        intents = record.intents if record is not None else ()
        intent = next((one for one in intents if one.process == WEB), None)
        if record is None or intent is None:
            raise LaunchError(f"no web process was started in {slot} of {app}")
        paths = self._layout.slot(app, slot)
        return WebInstance(
            intent,
            self._instances.leader(app, slot, record, intent, Look()),
            self._clock,
            slot_pids=lambda: [
                one.pid for one in self._instances.members(app, slot, record, Look())
            ],
            slot_ports=frozenset(_ports_of(record)),
            status=partial(self._exit_status, (app, slot, WEB, intent.index), paths),
        )

    def _exit_status(self, key: Key, paths: SlotPaths) -> int | None:
        self._children.reap(key)
        return notes.read_exit(paths, key[2], key[3])

    async def publish(self, app: AppName, slot: SlotName) -> str:
        instance = self.instance(app, slot)
        web, internal = (_own_address(instance.look(internal=one)) for one in (False, True))
        _write_addresses(self._layout.slot(app, slot), web, internal)
        return web

    async def blank(self, app: AppName, slot: SlotName) -> None:
        paths = self._layout.slot(app, slot)
        if paths.addr.is_dir():
            _write_addresses(paths, "", "")

    async def note_drain(
        self,
        app: AppName,
        slot: SlotName,
        *,
        since: Instant | None,
        quiet_since: Instant | None,
        drained: bool,
    ) -> None:
        change = partial(replace, drain_since=since, quiet_since=quiet_since, drained=drained)
        await asyncio.to_thread(self._records.change, app, slot, change)

    async def note_health(self, app: AppName, slot: SlotName, health: Health) -> None:
        record = self._records.read(app, slot)
        if record is not None:
            write_health(self._layout.slot(app, slot), record, self._boot_id, health)

    async def terminate(
        self, app: AppName, slot: SlotName, processes: Sequence[ProcessName] | None = None
    ) -> None:
        record = self._records.read(app, slot)
        if record is None:
            return
        try:
            if processes is None:
                await self._stamp_and_stop(app, slot, _stamp_term)
        finally:
            # A full disk must not keep alive what may be filling it.
            found = self._instances.members(app, slot, record, Look(), processes)
            signal_all(found, signal.SIGTERM)

    async def kill(
        self, app: AppName, slot: SlotName, processes: Sequence[ProcessName] | None = None
    ) -> None:
        record = self._records.read(app, slot)
        if record is None:
            return
        try:
            if processes is None:
                await self._stamp_and_stop(app, slot, _stamp_kill)
        finally:
            await kill_all(lambda: self._instances.members(app, slot, record, Look(), processes))

    async def _stamp_and_stop(self, app: AppName, slot: SlotName, stamp: Stamp) -> None:
        """Notes that the slot's processes are to end, and ends a checkout even when it cannot."""
        now = self._clock.now()
        try:
            await asyncio.to_thread(self._records.change, app, slot, lambda old: stamp(old, now))
        finally:
            self._preparations.stop(app, slot)

    async def retire(self, app: AppName, slot: SlotName) -> None:
        record = self._records.read(app, slot)
        if record is None or record.vacated:
            return
        if self._preparations.busy(app, slot):
            raise SlotBusyError(f"{slot} of {app} is being prepared")
        self._refuse_left(app, slot, record)
        paths = self._layout.slot(app, slot)
        await asyncio.to_thread(self._records.change, app, slot, partial(replace, vacated=True))
        self._ports.rest(_ports_of(record))
        await asyncio.to_thread(_remove_group, paths)

    def _refuse_left(self, app: AppName, slot: SlotName, record: SlotRecord) -> None:
        if left := self._instances.left(app, slot, record):
            who = ", ".join(describe(one.pid) for one in left[:3])
            raise SlotBusyError(f"{slot} of {app} still has {len(left)} processes: {who}")

    async def show_roles(self, app: AppName, live: SlotName, previous: SlotName | None) -> None:
        await asyncio.to_thread(self._show_roles, app, live, previous)

    def _show_roles(self, app: AppName, live: SlotName, previous: SlotName | None) -> None:
        home = self._layout.app_dir(app)
        replace_link(home / "live", live, durable=False)
        if previous is None:
            (home / "prev").unlink(missing_ok=True)
        else:
            replace_link(home / "prev", previous, durable=False)

    async def sweep(self, known: Callable[[Sequence[str]], Awaitable[frozenset[str]]]) -> int:
        cookies = self._unnamed()
        strays = await known(sorted(cookies)) if cookies else frozenset()
        # Asked again: a slot may have been prepared for one of them meanwhile.
        strays &= self._unnamed()
        found = [one for one in scan() if one.deploy in strays]
        await kill_all(lambda: [one for one in scan() if one.deploy in strays])
        return len(found)

    def _unnamed(self) -> set[str]:
        """Cookies that run and that no slot record names."""
        named, unsure = self._named()
        return {one.deploy for one in scan() if one.deploy and one.app not in unsure} - named

    def _named(self) -> tuple[set[str], set[AppName]]:
        """Deploys that slot records name, and the apps with a record that cannot be understood:
        it may name any deploy of that app."""
        named: set[str] = set()
        unsure: set[AppName] = set()
        for app, slot in self._layout.recorded():
            try:
                record = self._records.read(app, slot)
            except ReconcilerError:
                unsure.add(app)
                continue
            if record is not None:
                named.add(record.deploy_id)
        return named, unsure

    async def empty_trash(self, app: AppName) -> None:
        """Begins to; nothing while it is under way."""
        self._bins.empty(app)

    async def log_tail(self, app: AppName, deploy_id: DeployId, lines: int) -> str:
        return await asyncio.to_thread(logs.tail, self._layout.logs(app), deploy_id, lines)

    async def trim_logs(self) -> None:
        named, unsure = self._named()
        for directory in logs.app_directories(self._layout.logs_dir):
            if directory.name in unsure:
                continue
            await asyncio.to_thread(logs.trim, directory, named)

    async def free_bytes(self) -> int:
        status = os.statvfs(self._layout.data_dir)
        return status.f_bavail * status.f_frsize

    def unenforced(self, contract: AppContract) -> tuple[str, ...]:
        """Names the limits of the contract that do not hold on this host."""
        if contract.limits == NO_LIMITS:
            return ()
        try:
            user = self._users.resolve(contract.user)
        except UserRefusedError:
            user = None
        return self._launcher.unenforced(contract, user)

    def on_change(self, wake: Callable[[AppName], None]) -> None:
        self._wakes.append(wake)

    async def settle(self) -> None:
        await self._preparations.settle()
        await self._background.settle()

    async def close(self) -> None:
        await self._preparations.close()
        await self._background.close()
        self._children.close()
        self._ports.close()
        self._groups.close()

    def _changed(self, app: AppName) -> None:
        for wake in self._wakes:
            wake(app)

    def _ended(self, key: Key, status: int | None) -> None:
        app, slot, process, index = key
        if status is not None:
            notes.write_exit(self._layout.slot(app, slot), process, index, status)
        self._changed(app)

    async def _reap_setup(self, app: AppName, slot: SlotName) -> None:
        record = self._records.read(app, slot)
        if record is not None:
            await kill_all(lambda: self._instances.members(app, slot, record, Look(), (SETUP,)))


def _ports_of(record: SlotRecord | None) -> tuple[int, ...]:
    intents = record.intents if record is not None else ()
    return tuple(port for one in intents for port in (one.port, one.internal_port) if port)


def _stamp_term(record: SlotRecord, now: Instant) -> SlotRecord:
    return record if record.term_at else replace(record, term_at=now)


def _stamp_kill(record: SlotRecord, now: Instant) -> SlotRecord:
    return record if record.kill_at else replace(record, kill_at=now)


def _remove_group(paths: SlotPaths) -> None:
    """Removes the control group of the deploy that was in the slot; the next one has its own."""
    if group := notes.read_group(paths):
        cgroups.remove(group)
        notes.forget_group(paths)


def _own_address(listener: Listener | None) -> str:
    return listener.address if listener is not None and listener.ours else ""


def _write_addresses(paths: SlotPaths, web: str, internal: str) -> None:
    _write_line(paths.addr / "internal", internal)
    _write_line(paths.addr / "web", web)


def _write_line(path: Path, text: str) -> None:
    content = f"{text}\n".encode() if text else b""
    with suppress(FileNotFoundError):
        if path.read_bytes() == content:
            return
    write_atomic(path, content, durable=False)
