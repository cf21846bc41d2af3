"""Stores: what cannot be observed, kept where a power cut does not lose it."""

from __future__ import annotations

from typing import Final

from reconciler.stores.sqlite import open_sqlite

STORES: Final = {"sqlite": open_sqlite}
