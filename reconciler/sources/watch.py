"""Notices that a repository moved: file events for speed, a slow look at directories behind them.

Events are never interpreted (packing shows every branch as deleted); they only make us compare.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path

from anyio import to_thread
from watchfiles import awatch

from reconciler.model.errors import SourceError
from reconciler.sources.refs import Layout, Refs, locate, read_refs, reference_folders

POLL_MS = 2_000
# The watcher's thread wakes once a step: 75 ms is 0.08 % of a core, 20 ms twice that.
STEP_MS = 75
DEBOUNCE_MS = 150

_Folders = dict[str, tuple[int, int]]


async def moves(path: Path) -> AsyncGenerator[None, None]:
    """Yields when HEAD, a branch, a tag or the shallow roots changed, within about 0.2 s; once at
    the start, as what came before is unknown. Goes on when the repository vanishes and returns."""
    seen = await to_thread.run_sync(_refs, path)
    yield
    while True:
        folders = await to_thread.run_sync(_folders, path)
        async with aclosing(_wakes(folders)) as wakes:
            async for eventful in wakes:
                now = await to_thread.run_sync(_folders, path)
                if eventful or now != folders:
                    refs = await to_thread.run_sync(_refs, path)
                    if refs is not None and refs != seen:
                        seen = refs
                        yield
                # A directory made anew at the same path sends no more events.
                if _identities(now) != _identities(folders):
                    break
                folders = now


async def _wakes(folders: _Folders) -> AsyncGenerator[bool, None]:
    """Yields True at the start and at events, False at each poll; ends when it cannot watch."""
    yield True
    with suppress(OSError, RuntimeError):
        watcher = awatch(
            *folders,
            # The default filter hides everything below `.git`.
            watch_filter=None,
            step=STEP_MS,
            debounce=DEBOUNCE_MS,
            rust_timeout=POLL_MS,
            yield_on_timeout=True,
            recursive=False,
            ignore_permission_denied=True,
        )
        async with aclosing(watcher) as changes:
            async for change in changes:
                yield bool(change)
    # A directory that is gone, or no watches left on this host: the poll alone goes on.
    await asyncio.sleep(POLL_MS / 1000)


def _identities(folders: _Folders) -> dict[str, int]:
    return {folder: inode for folder, (inode, _) in folders.items()}


def _layout(path: Path) -> Layout | None:
    with suppress(SourceError):
        return locate(path)
    return None


def _folders(path: Path) -> _Folders:
    layout = _layout(path)
    return reference_folders(layout) if layout is not None else {}


def _refs(path: Path) -> Refs | None:
    layout = _layout(path)
    with suppress(SourceError):
        return read_refs(layout) if layout is not None else None
    return None
