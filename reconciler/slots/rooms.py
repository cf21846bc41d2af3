"""The directories of a slot: made with owner and mode before anything is written in them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from reconciler.host.files import disk_pressure, ensure_directory
from reconciler.slots import trash
from reconciler.slots.layout import DAEMON_ONLY, PASSAGE, PRIVATE, PUBLISHED, SLOT, SlotPaths
from reconciler.slots.users import AppUser


def make_own(paths: SlotPaths) -> None:
    """Makes the directories that stay the daemon's."""
    data_dir = paths.app_dir.parent.parent
    for directory in (data_dir, paths.app_dir.parent, paths.app_dir, paths.record.parent):
        ensure_directory(directory, PASSAGE)
    ensure_directory(paths.shared, PASSAGE)
    ensure_directory(paths.tmp.parent, PASSAGE)
    ensure_directory(paths.addr, PUBLISHED)
    ensure_directory(paths.run, DAEMON_ONLY)


def make_theirs(paths: SlotPaths, user: AppUser, discard_as: str) -> bool:
    """Makes the directories of the app's user; returns whether the slot's tree is a new one.

    A tree that belongs to another user (the contract's `user` changed) goes into the trash: the
    new user could not bring it to a commit. So do the temporary files of the deploy before.
    """
    _own_trash(paths.trash)
    if os.path.lexists(paths.worktree) and not _is_of(paths.worktree, user):
        trash.discard(paths.worktree, paths.trash, f"{discard_as}.tree")
        trash.discard(paths.git_dir, paths.trash, f"{discard_as}.git")
    if trash.has_trash(paths.tmp) or not _is_of(paths.tmp, user):
        trash.discard(paths.tmp, paths.trash, f"{discard_as}.tmp")
    new = not paths.worktree.exists()
    _own_directory(paths.worktree, SLOT, user)
    _own_directory(paths.git_dir, PRIVATE, user)
    _own_directory(paths.tmp, PRIVATE, user)
    return new


def _is_of(path: Path, user: AppUser) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == user.uid


def _own_trash(trash: Path) -> None:
    """Only the daemon renames into the trash and deletes there, perhaps as root: in a directory
    of the app's user, that user could swap what is on its way."""
    ensure_directory(trash, DAEMON_ONLY)
    us = (os.geteuid(), os.getegid())
    status = trash.lstat()
    if (status.st_uid, status.st_gid) != us:
        os.chown(trash, *us, follow_symlinks=False)


def _own_directory(path: Path, mode: int, user: AppUser) -> None:
    with disk_pressure(str(path)):
        path.mkdir(exist_ok=True)
        status = path.lstat()
        if status.st_mode & 0o7777 != mode:
            path.chmod(mode)
        if user.owner is not None and (status.st_uid, status.st_gid) != user.owner:
            os.chown(path, *user.owner, follow_symlinks=False)
