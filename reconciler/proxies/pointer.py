"""The pointer: a symbolic link `routes/<app>` that names the live slot's address directory.

It is the truth of what is live, so it is read each time and never remembered. Any proxy, and any
person with `ln` and `mv`, can follow or move it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from reconciler.host.files import ensure_directory, replace_link, sync_directory
from reconciler.model.errors import ProxyError
from reconciler.model.names import SLOT_NAMES, AppName, SlotName
from reconciler.model.observed import NoPointer, Pointer, PointsTo, UnknownPointer

_TARGET = re.compile(r"\.\./apps/(?P<app>[^/]+)/slots/(?P<slot>[^/]+)\.addr")


class Pointers:
    """The pointers of all apps of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.directory = data_dir / "routes"

    def read(self, app: AppName) -> Pointer:
        """Returns the slot named, or UnknownPointer for anything that is not a link of that exact
        form to a slot that exists."""
        link = self.directory / app
        try:
            target = os.readlink(link)
        except FileNotFoundError:
            return NoPointer()
        except OSError:
            return UnknownPointer(f"{link} is not a symbolic link")
        found = _TARGET.fullmatch(target)
        if found is None or found["app"] != app or found["slot"] not in SLOT_NAMES:
            return UnknownPointer(target)
        if not link.is_dir():
            return UnknownPointer(f"{target} (there is no such slot)")
        return PointsTo(SlotName(found["slot"]))

    def switch(self, app: AppName, slot: SlotName) -> None:
        """Makes the slot live in one rename, durable when this returns.

        Raises ProxyError for a slot without an address directory: the pointer would be unknown.
        """
        target = f"../apps/{app}/slots/{slot}.addr"
        ensure_directory(self.directory, 0o755)
        if not (self.directory / target).is_dir():
            raise ProxyError(f"cannot make {slot} of {app} live: it has no address directory")
        try:
            replace_link(self.directory / app, target)
        except OSError as error:
            raise ProxyError(f"cannot point {self.directory / app} at {slot}: {error}") from error

    def remove(self, app: AppName) -> None:
        """Removes the pointer; nothing when there is none."""
        try:
            (self.directory / app).unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ProxyError(f"cannot remove {self.directory / app}: {error}") from error
        sync_directory(self.directory)
