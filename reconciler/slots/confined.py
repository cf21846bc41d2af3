"""Walking below a directory that an app's user may write in, without ever following its links.

Every step opens the next name relative to the directory before, so a path that is swapped
under way leads to an error and never out of the slot.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from reconciler.model.errors import ExportError

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def parts_of(*relative: str) -> tuple[str, ...]:
    """Returns the names of a relative path; raises ExportError for one that leads upwards."""
    parts = tuple(part for text in relative for part in PurePosixPath(text).parts if part != ".")
    if any(part in ("..", "/") or "\0" in part for part in parts):
        raise ExportError(f"the path {'/'.join(relative)} leads out of the slot")
    return parts


@contextmanager
def opened(
    root: Path,
    parts: Sequence[str],
    *,
    create: bool = False,
    owner: tuple[int, int] | None = None,
) -> Iterator[int]:
    """Yields a descriptor of the directory at `parts` below `root`.

    With `create` missing directories are made, for `owner`. Raises OSError where a name is
    missing, or is anything but a directory (ELOOP, ENOTDIR).
    """
    descriptor = os.open(root, _OPEN)
    try:
        for part in parts:
            following = _step(descriptor, part, create=create, owner=owner)
            os.close(descriptor)
            descriptor = following
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_at(parent: int, name: str) -> Iterator[int]:
    """Yields a descriptor of the directory `name` in an opened one; raises OSError for a link."""
    descriptor = os.open(name, _OPEN, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _step(parent: int, name: str, *, create: bool, owner: tuple[int, int] | None) -> int:
    made = False
    if create:
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
            made = True
    descriptor = os.open(name, _OPEN, dir_fd=parent)
    if made and owner is not None:
        os.fchown(descriptor, *owner)
    return descriptor
