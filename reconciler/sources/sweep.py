"""Takes what does not belong out of a slot, without ever leaving it.

The app owns the slot and may have planted links anywhere, while we may be root: every step goes
through directory descriptors that refuse links. Directories are renamed into a trash directory,
never deleted here, since deleting a large tree makes the next checkout many times slower.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

Parts = tuple[bytes, ...]
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def keep_parts(keep: Iterable[str]) -> frozenset[Parts]:
    """Returns the kept directories as segments. Raises ValueError for what cannot be one."""
    kept = set()
    for name in keep:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\n" in name:
            raise ValueError(f"{name!r} is not a directory below the slot")
        kept.add(tuple(os.fsencode(part) for part in path.parts))
    return frozenset(kept)


class Sweep:
    """One cleaning of one slot. Kept directories stay, and with them what they are in.

    `taken` counts what went; `moved` says that directories or links were among it.
    """

    def __init__(self, worktree: Path, keep: Iterable[Parts], trash: Path) -> None:
        self.taken = 0
        self.moved = False
        self._worktree = worktree
        self._trash = trash
        self._bin: str | None = None
        # A link with the name of a kept directory is none.
        self._kept = frozenset(parts for parts in keep if self._is_folder(parts))

    def paths(self, listed: Iterable[bytes]) -> None:
        """Takes out the paths, as git and find list them; those gone already are skipped."""
        for path in listed:
            parts = tuple(part for part in path.split(b"/") if part not in {b"", b"."})
            if parts:
                self._take(parts)

    def contents(self, folder: Sequence[bytes] = ()) -> None:
        """Empties a directory; nothing when there is none."""
        with suppress(FileNotFoundError, NotADirectoryError):
            with _descend(self._worktree, folder) as descriptor:
                names = os.listdir(descriptor)
            for name in names:
                self._take((*folder, os.fsencode(name)))

    def _take(self, parts: Parts) -> None:
        if any(parts[: len(kept)] == kept for kept in self._kept):
            return
        if any(kept[: len(parts)] == parts for kept in self._kept):
            self.contents(parts)
            return
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            _descend(self._worktree, parts[:-1]) as parent,
        ):
            mode = os.lstat(parts[-1], dir_fd=parent).st_mode
            if stat.S_ISDIR(mode):
                os.rename(parts[-1], self._free_name(), src_dir_fd=parent)
            else:
                os.unlink(parts[-1], dir_fd=parent)
            self.taken += 1
            self.moved |= stat.S_ISDIR(mode) or stat.S_ISLNK(mode)

    def _is_folder(self, parts: Parts) -> bool:
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            _descend(self._worktree, parts[:-1]) as parent,
        ):
            return stat.S_ISDIR(os.lstat(parts[-1], dir_fd=parent).st_mode)
        return False

    def _free_name(self) -> bytes:
        if self._bin is None:
            self._bin = new_bin(self._trash)
        return os.fsencode(f"{self._bin}/{self.taken}")


def new_bin(trash: Path) -> str:
    """Makes a directory of its own below the trash; only the daemon may look into it."""
    trash.mkdir(parents=True, exist_ok=True)
    return tempfile.mkdtemp(prefix="swept-", dir=trash)


@contextmanager
def _descend(worktree: Path, folders: Sequence[bytes]) -> Iterator[int]:
    """Opens a directory of the slot; a link on the way raises NotADirectoryError."""
    descriptor = os.open(worktree, _FOLDER)
    try:
        for folder in folders:
            below = _open_folder(folder, descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _open_folder(name: bytes, parent: int) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, "a link", os.fsdecode(name)) from error
        raise
