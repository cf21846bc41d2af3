"""A program that records wishes until it is killed, and says each one that was acknowledged."""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path

from reconciler.model.deploys import Phase
from reconciler.stores.sqlite import open_sqlite
from tests.stores.samples import HOST, SLOT_A, request, step


async def main(path: Path, first: int) -> None:
    store = await open_sqlite(path, HOST, have_slots=False)
    for number in count(first):
        await store.record_wish(request(number), step())
        await store.promote(request(number), SLOT_A, step(Phase.LIVE))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
