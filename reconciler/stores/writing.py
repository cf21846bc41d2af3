"""A write in progress: rows go in, and each change leaves its event in the same transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from functools import cache

from reconciler.model.canonical import Json, canonical
from reconciler.model.events import SCHEMA_VERSION
from reconciler.model.names import HostId
from reconciler.ports import Clock
from reconciler.stores.queries import Reading
from reconciler.stores.rows import Value, Values, clean, time_text


@cache
def _insertion(verb: str, table: str, columns: tuple[str, ...]) -> str:
    """Returns one text for one shape of row, so that SQLite compiles it once: sqlite-utils' own
    insert writes a fresh savepoint name each time and costs ten times as much."""
    names, places = ", ".join(columns), ", ".join(f":{column}" for column in columns)
    return f"{verb} INTO {table} ({names}) VALUES ({places})"


class Writing(Reading):
    """A transaction in which the store of one host is changed. `told`: an event was appended."""

    def __init__(self, connection: sqlite3.Connection, host: HostId, clock: Clock) -> None:
        super().__init__(connection, host)
        self._clock = clock
        self.told = False

    def wall(self) -> datetime:
        return self._clock.wall()

    def insert(self, table: str, values: Values) -> int:
        """Inserts a row and returns its rowid, which is the `seq` of tables that have one."""
        cursor = self._connection.execute(_insertion("INSERT", table, tuple(values)), values)
        return int(cursor.lastrowid or 0)

    def put(self, table: str, values: Values) -> None:
        """Inserts a row, or replaces the one with its key. Never for append-only tables."""
        self._connection.execute(_insertion("REPLACE", table, tuple(values)), values)

    def change(self, sql: str, **parameters: Value) -> int:
        """Runs an UPDATE, DELETE or INSERT and returns how many rows it changed."""
        return self._connection.execute(sql, {"host": self.host, **parameters}).rowcount

    def tell(self, kind: str, occurred_at: datetime, payload: Mapping[str, Json]) -> None:
        self.insert(
            "events",
            {
                "event_id": self._clock.new_id(),
                "host_id": self.host,
                "kind": kind,
                "schema_version": SCHEMA_VERSION,
                "occurred_at": time_text(occurred_at),
                "received_at": time_text(self.wall()),
                "payload": clean(canonical(payload)),
            },
        )
        self.told = True
