"""A daemon for each test, with everything it caused ended afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.harness import Daemon, scene


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A service on a repository with a manifest; nothing committed, nothing started."""
    with scene() as made:
        yield made
