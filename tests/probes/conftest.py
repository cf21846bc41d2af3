"""What every test of the probes room has: a scene that proves afterwards that nothing is left."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.slots.scene import Scene, staged


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with staged() as made:
        yield made
