"""The store's file: created, checked and migrated before anything trusts what is in it."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

from sqlite_utils import Database, Migrations

import reconciler
from reconciler.host.files import disk_pressure, sync_directory
from reconciler.model.errors import StoreError, StoreMissingError, StoreNewerError
from reconciler.stores.connections import connect, damaged, immediate, make_durable

NEW = 0


def open_file(
    path: Path,
    migrations: Migrations,
    *,
    have_slots: bool,
    adopt: bool,
    busy_timeout: timedelta,
) -> Database:
    """Returns the store's database with every table in place, created or migrated as needed.

    Raises StoreMissingError for a missing or empty file while there are slots and no `adopt`,
    StoreNewerError, and StoreError for a file that is not ours, not readable or damaged.
    """
    with _reachable(path):
        if not path.exists() or path.stat().st_size == 0:
            _require_consent(path, have_slots=have_slots, adopt=adopt)
            _create(path)
        _make_private(path)
    connection = connect(path, busy_timeout)
    try:
        _check(path, connection)
        # Plugins of the host's Python have no business in our transactions.
        database = Database(connection, execute_plugins=False)
        version = _version(path, database)
        if version == NEW:
            _require_consent(path, have_slots=have_slots, adopt=adopt)
        _refuse_newer(path, database, migrations, version)
        make_durable(connection)
        _migrate(path, database, migrations, version)
    except BaseException:
        connection.close()
        raise
    return database


def _require_consent(path: Path, *, have_slots: bool, adopt: bool) -> None:
    if have_slots and not adopt:
        raise StoreMissingError(
            f"there are slots but no store at {path}: an empty one would forget every rollback. "
            "Put a backup in its place, or start once with --adopt to begin anew from what is live"
        )


@contextmanager
def _reachable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the store {path} cannot be opened: {error.strerror}; it must be a file of the user "
            "that the daemon runs as"
        ) from error


def _create(path: Path) -> None:
    with disk_pressure(str(path)):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sync_directory(path.parent)


def _make_private(path: Path) -> None:
    """SQLite gives its log and shared memory files the mode of the database itself."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if status.st_mode & 0o777 != 0o600:
        path.chmod(0o600)


def _check(path: Path, connection: sqlite3.Connection) -> None:
    finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise damaged(path, finding)


def _version(path: Path, database: Database) -> int:
    tables = set(database.table_names())
    if not tables:
        return NEW
    if "meta" not in tables:
        raise StoreError(
            f"{path} is not a store of autopilot; choose another --data-dir, or move it away"
        )
    return int(_meta(database, "schema_version"))


def _meta(database: Database, key: str) -> str:
    row = database.execute("SELECT value FROM meta WHERE key = ?", [key]).fetchone()
    if row is None:
        raise StoreError(f"the store does not say its {key}; put a backup in its place")
    return str(row[0])


def _refuse_newer(path: Path, database: Database, migrations: Migrations, version: int) -> None:
    if version > _latest(migrations):
        writer = _meta(database, "product_version")
        raise StoreNewerError(
            f"the store {path} was written by autopilot {writer}, and this is "
            f"{reconciler.__version__}: run {writer} or newer, or put the copy that was made "
            f"before the upgrade ({path.name}.before-*) in its place"
        )


def _latest(migrations: Migrations) -> int:
    """The schema version is the number of migrations, so that it can only grow."""
    with Database(memory=True, execute_plugins=False) as empty:
        return len(migrations.pending(empty))


def _migrate(path: Path, database: Database, migrations: Migrations, version: int) -> None:
    latest = _latest(migrations)
    if version == latest:
        return
    if version != NEW:
        _copy(database, path.with_name(f"{path.name}.before-{latest}"))
    with immediate(database.conn):
        migrations.apply(database)
        database.table("meta").insert_all(
            [
                {"key": "schema_version", "value": str(latest)},
                {"key": "product_version", "value": reconciler.__version__},
            ],
            pk="key",
            replace=True,
        )


def _copy(database: Database, copy: Path) -> None:
    """Writes the database as it is, its log included, durably beside it."""
    beside = copy.with_name(f"{copy.name}.tmp")
    with _reachable(beside), disk_pressure(str(copy)):
        beside.unlink(missing_ok=True)
        _create(beside)
        with closing(sqlite3.connect(beside)) as target:
            database.conn.backup(target)
        descriptor = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.rename(copy)
        sync_directory(copy.parent)
