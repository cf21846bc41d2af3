"""The store's schema, one migration after the other; a released one never changes.

A new migration is a module here and a line below; its position is the schema version.
"""

from __future__ import annotations

from sqlite_utils import Migrations

from reconciler.stores.migrations.m0001_first import first

MIGRATIONS = Migrations("reconciler")
MIGRATIONS(name="0001_first")(first)
