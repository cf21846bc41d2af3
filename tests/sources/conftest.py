"""A temporary directory that other users may reach: pytest's own is closed to them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="autopilot-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
