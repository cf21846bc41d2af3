"""What every test of the slots room has: a scene that proves afterwards that nothing is left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.host.boot import SystemClock
from tests.slots.scene import Scene, make_slots, staged


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with staged() as made:
        yield made


@pytest.fixture
def scene_sync(tmp_path: Path) -> Scene:
    """A scene for tests that start nothing."""
    return Scene(tmp_path, make_slots(tmp_path), SystemClock())
