"""The daemon of the acceptance tests, for those that end it without a word."""

from __future__ import annotations

from tests.acceptance.conftest import daemon

__all__ = ["daemon"]
