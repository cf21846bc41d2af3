"""The store in SQLite: one file, one thread that writes and one that reads.

This is the Store port and the order of threads and transactions; what a verb does to the tables
stands in the modules beside it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from sqlite_utils import Database

from reconciler.host.boot import SystemClock
from reconciler.model.conditions import Condition
from reconciler.model.deploys import (
    Deploy,
    DeployRequest,
    Phase,
    Progress,
    Quarantined,
    SeenHead,
    SeenInputs,
    Verdict,
    WishStatus,
)
from reconciler.model.desired import Target
from reconciler.model.events import Event
from reconciler.model.instants import Instant
from reconciler.model.names import AppName, DeployId, HostId, Revision, SlotName, WishId
from reconciler.model.observed import AppRecords
from reconciler.ports import Clock, IdempotencyKey
from reconciler.stores import deploys, notices, queries, wishes
from reconciler.stores.connections import Lane, connect, immediate, snapshot
from reconciler.stores.migrations import MIGRATIONS
from reconciler.stores.queries import Reading
from reconciler.stores.schema import open_file
from reconciler.stores.writing import Writing

T = TypeVar("T")

BUSY_TIMEOUT = timedelta(seconds=5)


async def open_sqlite(
    path: Path,
    host: HostId,
    *,
    have_slots: bool,
    adopt: bool = False,
    clock: Clock | None = None,
    busy_timeout: timedelta = BUSY_TIMEOUT,
) -> SqliteStore:
    """Opens the store of a host, creating or migrating its file; to be called on the event loop.

    Raises StoreMissingError when there are slots but no store and `adopt` is not given,
    StoreNewerError for a store of a newer version, StoreError for one that cannot be used, and
    DiskPressureError. In none of these cases the file has been changed.
    """
    writer, reader = Lane(path, "writer"), Lane(path, "reader")
    try:
        database = await writer.run(
            lambda: open_file(
                path, MIGRATIONS, have_slots=have_slots, adopt=adopt, busy_timeout=busy_timeout
            )
        )
        connection = await reader.run(lambda: _for_reading(path, busy_timeout))
    except BaseException:
        writer.end()
        reader.end()
        raise
    return SqliteStore(
        host,
        clock or SystemClock(),
        writer=writer,
        database=database,
        reader=reader,
        connection=connection,
    )


def _for_reading(path: Path, busy_timeout: timedelta) -> sqlite3.Connection:
    connection = connect(path, busy_timeout)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


class SqliteStore:
    """The Store port. Reads never wait for a commit: they have a connection of their own."""

    def __init__(
        self,
        host: HostId,
        clock: Clock,
        *,
        writer: Lane,
        database: Database,
        reader: Lane,
        connection: sqlite3.Connection,
    ) -> None:
        self._host = host
        self._clock = clock
        self._writer = writer
        self._database = database
        self._reader = reader
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._listeners: list[Callable[[], None]] = []
        self._closed = False

    async def _read(self, question: Callable[[Reading], T]) -> T:
        def answer() -> T:
            with snapshot(self._connection):
                return question(Reading(self._connection, self._host))

        return await self._reader.run(answer)

    async def _write(self, verb: Callable[[Writing], T]) -> T:
        def commit() -> T:
            writing = Writing(self._database.conn, self._host, self._clock)
            with immediate(self._database.conn):
                result = verb(writing)
            # From here and not from the caller, who may have been cancelled meanwhile.
            if writing.told:
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._announce)
            return result

        return await self._writer.run(commit)

    def _announce(self) -> None:
        for listener in self._listeners:
            listener()

    def on_event(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    async def records(self, app: AppName) -> AppRecords:
        return await self._read(lambda tx: queries.records(tx, app))

    async def answered(self, key: IdempotencyKey) -> Deploy | None:
        return await self._write(lambda tx: wishes.answered(tx, key))

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
        return await self._write(
            lambda tx: wishes.record_wish(
                tx,
                request,
                at,
                head=head,
                inputs=inputs,
                quarantine=quarantine,
                lift=lift,
                pre_empt=pre_empt,
                only_if_idle=only_if_idle,
                key=key,
            )
        )

    async def retry(self, wish_id: WishId, request: DeployRequest, at: Progress) -> Deploy:
        return await self._write(lambda tx: wishes.retry(tx, wish_id, request, at))

    async def advance(self, deploy_id: DeployId, steps: Sequence[Progress]) -> None:
        await self._write(lambda tx: deploys.advance(tx, deploy_id, steps))

    async def record_verdict(self, deploy_id: DeployId, verdict: Verdict, at: datetime) -> None:
        await self._write(lambda tx: deploys.record_verdict(tx, deploy_id, verdict, at))

    async def promote(self, request: DeployRequest, slot: SlotName, at: Progress) -> None:
        await self._write(lambda tx: deploys.promote(tx, request, slot, at))

    async def close_deploy(
        self,
        deploy_id: DeployId,
        at: Progress,
        *,
        wish_status: WishStatus,
        retry_at: Instant | None = None,
        quarantine: Sequence[Quarantined] = (),
    ) -> None:
        await self._write(
            lambda tx: deploys.close(
                tx,
                deploy_id,
                at,
                wish_status=wish_status,
                retry_at=retry_at,
                quarantine=quarantine,
            )
        )

    async def set_wish(self, wish_id: WishId, status: WishStatus) -> None:
        await self._write(lambda tx: wishes.set_wish(tx, wish_id, status, tx.wall()))

    async def interrupt_open(self, at: Progress, phases: Sequence[Phase]) -> tuple[DeployId, ...]:
        return await self._write(lambda tx: deploys.interrupt(tx, at, phases))

    async def note_seen(
        self, app: AppName, head: SeenHead | None, inputs: SeenInputs | None
    ) -> None:
        await self._write(lambda tx: notices.note_seen(tx, app, head, inputs, tx.wall()))

    async def note_absence(self, app: AppName, passes: int) -> None:
        await self._write(lambda tx: notices.note_absence(tx, app, passes))

    async def note_conditions(self, app: AppName, conditions: Sequence[Condition]) -> None:
        await self._write(lambda tx: notices.note_conditions(tx, app, conditions))

    async def conditions(self, app: AppName) -> tuple[tuple[Condition, datetime], ...]:
        return await self._read(lambda tx: queries.conditions(tx, app))

    async def deploy(self, deploy_id: DeployId) -> Deploy | None:
        return await self._read(lambda tx: queries.deploy_by_id(tx, deploy_id))

    async def deploys(
        self, app: AppName | None, limit: int, before: int | None
    ) -> tuple[Deploy, ...]:
        return await self._read(lambda tx: queries.deploys(tx, app, limit, before))

    async def known_deploys(self, ids: Sequence[str]) -> frozenset[str]:
        return await self._read(lambda tx: queries.known_deploys(tx, ids))

    async def events(self, after: int, limit: int) -> tuple[Event, ...]:
        return await self._read(lambda tx: queries.events(tx, after, limit))

    async def last_event(self) -> int:
        return await self._read(queries.last_event)

    async def tell(self, kind: str, payload: Mapping[str, str]) -> None:
        await self._write(lambda tx: tx.tell(kind, tx.wall(), payload))

    async def good_manifests(self, source: str) -> Revision | None:
        return await self._read(lambda tx: queries.good_manifests(tx, source))

    async def note_good_manifests(self, source: str, revision: Revision) -> None:
        await self._write(lambda tx: notices.note_good_manifests(tx, source, revision))

    async def close(self) -> None:
        """Ends after what was asked before. Idempotent; every later call raises StoreError."""
        if self._closed:
            return
        self._closed = True
        # The writer's connection closes last: the last one folds the log into the database.
        await self._reader.run(self._connection.close)
        self._reader.end()
        await self._writer.run(self._database.close)
        self._writer.end()
