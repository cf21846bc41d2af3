"""Connections: each lives in a thread of its own, and every use of it is one transaction.

Nothing here knows a table. Errors of SQLite become ours at this door and nowhere else.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from reconciler.model.errors import DiskPressureError, StoreError

T = TypeVar("T")

# A full quota is told as a failed write, and growing the shared memory file of the log fails in
# ways of its own; all of them pass once there is space.
_NO_SPACE = frozenset({
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_DIR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMMAP,
})  # fmt: skip
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_HELD = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
WAL_LIMIT = 16 << 20


def connect(path: Path, busy_timeout: timedelta) -> sqlite3.Connection:
    """Opens an existing database for use from the present thread only."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=busy_timeout.total_seconds(),
        isolation_level=None,
    )
    connection.row_factory = sqlite3.Row
    return connection


def make_durable(connection: sqlite3.Connection) -> None:
    """Sets what a commit promises: with FULL it survives a power cut, not only a crash."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    # Without a limit the log keeps the size of its largest burst for ever.
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")


@contextmanager
def immediate(connection: sqlite3.Connection) -> Iterator[None]:
    """One write transaction. A deferred one would fail at its first write beside another writer."""
    with _transaction(connection, "BEGIN IMMEDIATE"):
        yield


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """One read transaction: every query in it sees the same moment."""
    with _transaction(connection, "BEGIN"):
        yield


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled back already, or may fail the rollback too; the error that
        # explains it is the first one.
        with suppress(sqlite3.Error):
            connection.rollback()
        raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns errors of SQLite into DiskPressureError and StoreError that name the store."""
    try:
        yield
    except sqlite3.Error as error:
        raise _ours(path, error) from error
    except UnicodeEncodeError as error:
        raise StoreError(f"the store {path} cannot hold a text that is not Unicode") from error


def _ours(path: Path, error: sqlite3.Error) -> StoreError | DiskPressureError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code in _NO_SPACE:
        return DiskPressureError(f"no space left while writing the store {path}")
    if code & 0xFF in _HELD:
        return StoreError(
            f"the store {path} is held by another process; end it (`fuser {path}` names it)"
        )
    if code & 0xFF in _DAMAGED:
        return damaged(path, str(error))
    return StoreError(f"the store {path} cannot be used: {error}")


def damaged(path: Path, finding: str) -> StoreError:
    return StoreError(
        f"the store {path} is damaged ({finding}); put a backup in its place, or move "
        f"{path.name}, {path.name}-wal and {path.name}-shm away and start once with --adopt"
    )


class Lane:
    """A connection and the one thread that may use it; calls are served in order."""

    def __init__(self, path: Path, role: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"store-{role}")

    async def run(self, work: Callable[[], T]) -> T:
        """Runs `work` in the lane's thread; a cancelled caller leaves it whole or not begun."""
        loop = asyncio.get_running_loop()
        try:
            done = loop.run_in_executor(self._thread, self._guarded, work)
        except RuntimeError as error:
            raise StoreError(f"the store {self._path} is closed") from error
        return await done

    def _guarded(self, work: Callable[[], T]) -> T:
        with translated(self._path):
            return work()

    def end(self) -> None:
        self._thread.shutdown(wait=True)
