"""A program that fills the small file system of its store, makes room again, and says what held."""

from __future__ import annotations

import asyncio
import errno
import sys
from collections.abc import Iterable
from pathlib import Path

from reconciler.model.errors import DiskPressureError
from reconciler.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.samples import HOST, SHOP, SLOT_A, request, step


def fill(balloon: Path) -> None:
    with balloon.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


async def write_until_full(store: SqliteStore, numbers: Iterable[int]) -> int:
    """Returns the number of the first wish that was refused."""
    for number in numbers:
        try:
            await store.record_wish(request(number, message="m" * 4_000), step())
        except DiskPressureError:
            return number
    raise AssertionError("the file system never became full")


async def main(directory: Path) -> None:
    store = await open_sqlite(directory / "autopilot.db", HOST, have_slots=False)
    await store.record_wish(request(0), step())
    await store.promote(request(0), SLOT_A, step())
    balloon = directory / "balloon"
    for first in (1_000, 2_000, 3_000):
        fill(balloon)
        refused = await write_until_full(store, range(first, first + 900))
        assert await store.deploy(request(refused).id) is None
        seen = await store.records(SHOP)
        assert seen.live_deploy is not None
        assert seen.live_deploy.id == request(0).id
        balloon.unlink()
        await store.record_wish(request(refused), step())
        assert await store.deploy(request(refused).id) is not None
    await store.close()
    sys.stdout.write("held\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
