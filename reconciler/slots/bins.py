"""Bins: each app's trash, whether it is worth emptying, and the emptying in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from reconciler.model.instants import Instant
from reconciler.model.names import AppName
from reconciler.ports import Clock
from reconciler.slots import trash
from reconciler.slots.background import Background
from reconciler.slots.layout import Layout

REST = timedelta(minutes=1)


class Bins:
    """Whoever sees trash asks to have it emptied, so none is shown while that is under way, nor
    for a minute after something resisted. `done` is called after each emptying."""

    def __init__(
        self,
        layout: Layout,
        background: Background,
        clock: Clock,
        done: Callable[[AppName], None],
    ) -> None:
        self._layout = layout
        self._background = background
        self._clock = clock
        self._done = done
        self._emptying: set[AppName] = set()
        self._rests_until: dict[AppName, Instant] = {}

    def full(self, app: AppName) -> bool:
        """Whether there is trash that emptying now may take away."""
        if app in self._emptying:
            return False
        rest = self._rests_until.get(app)
        if rest is not None and not self._clock.now().reached(rest):
            return False
        return trash.has_trash(self._layout.app_dir(app) / "trash")

    def empty(self, app: AppName) -> None:
        """Begins to; nothing while it is under way."""
        if self._background.begin(("trash", app), self._empty(app)):
            self._emptying.add(app)

    async def _empty(self, app: AppName) -> None:
        emptied = False
        try:
            emptied = await asyncio.to_thread(trash.empty, self._layout.app_dir(app) / "trash")
        finally:
            self._emptying.discard(app)
            if emptied:
                self._rests_until.pop(app, None)
            else:
                self._rests_until[app] = self._clock.now() + REST
        self._done(app)
