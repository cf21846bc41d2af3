"""Trash: trees are renamed away at once and deleted later, because deleting is what takes time."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from reconciler.slots.confined import opened, opened_at

_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def has_trash(trash: Path) -> bool:
    try:
        with os.scandir(trash) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def discard(path: Path, trash: Path, name: str) -> None:
    """Renames a tree of ours into the trash; nothing when there is none."""
    discard_inside(path.parent, (path.name,), trash, name)


def discard_inside(root: Path, relative: tuple[str, ...], trash: Path, name: str) -> None:
    """Renames a tree below `root` into the trash without following links; nothing when there is
    none, or a link or file on the way to it."""
    *parents, last = relative
    try:
        with opened(root, parents) as parent:
            _rename(parent, last, trash / name)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise


def _rename(parent: int, name: str, target: Path) -> None:
    try:
        os.rename(name, target, src_dir_fd=parent)
    except PermissionError:
        # A directory that is read-only cannot be given another parent, but by root.
        with opened_at(parent, name) as descriptor:
            os.fchmod(descriptor, 0o700)
        os.rename(name, target, src_dir_fd=parent)


def empty(trash: Path) -> bool:
    """Deletes everything in the trash; returns whether all of it went. Blocks: call it in a
    thread. What resists stays."""
    try:
        entries = sorted(trash.iterdir())
    except FileNotFoundError:
        return True
    for entry in entries:
        _delete(entry)
    return not any(os.path.lexists(entry) for entry in entries)


def _delete(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, onerror=_mend)
    else:
        with suppress(OSError):
            entry.unlink()


def _mend(function: Callable[..., Any], path: str, _: object) -> None:
    """Opens up a read-only directory and tries again. Root needs no such mending, and following
    a path that an app can swap would be its way to change the mode of anything."""
    if os.geteuid() == 0:
        return
    with suppress(OSError):
        for directory in (Path(path).parent, Path(path)):
            if stat.S_ISDIR(directory.lstat().st_mode):
                directory.chmod(0o700)
        if function in (os.rmdir, os.unlink):
            function(path)
        else:
            shutil.rmtree(path, ignore_errors=True)
