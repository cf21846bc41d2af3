"""Links of shared_dirs: from the slot to what all slots of an app share. Away before a checkout,
back after it, so that no checkout ever writes through one."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from reconciler.model.desired import AppContract
from reconciler.model.errors import ReconcilerError
from reconciler.slots.confined import opened, parts_of

_IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTDIR, errno.ELOOP})


class SharedDirTrackedError(ReconcilerError):
    """The commit has something where a link of shared_dirs must be."""


def remove_links(worktree: Path, contract: AppContract) -> None:
    """Removes the links; whatever else is at their places is the checkout's to mend."""
    for directory in contract.shared_dirs:
        *parents, name = parts_of(contract.path, directory)
        with suppress(OSError), opened(worktree, parents) as parent:
            if stat.S_ISLNK(os.lstat(name, dir_fd=parent).st_mode):
                os.unlink(name, dir_fd=parent)


def make_links(
    worktree: Path, shared: Path, contract: AppContract, owner: tuple[int, int] | None
) -> None:
    """Makes the shared directories, once, and the links to them. Raises SharedDirTrackedError."""
    for directory in contract.shared_dirs:
        below = parts_of(directory)
        with opened(shared, below, create=True, owner=owner):
            pass
        _link(worktree, parts_of(contract.path, directory), shared.joinpath(*below), owner)


def _link(
    worktree: Path, parts: tuple[str, ...], target: Path, owner: tuple[int, int] | None
) -> None:
    *parents, name = parts
    try:
        with opened(worktree, parents, create=True, owner=owner) as parent:
            os.symlink(target, name, dir_fd=parent)
            if owner is not None:
                os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        raise SharedDirTrackedError(
            f"shared_dirs: {'/'.join(parts)} is in the commit ({error.strerror}); take it out of "
            "the commit, or out of shared_dirs"
        ) from error
