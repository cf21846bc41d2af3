"""Files that survive a power cut: written beside, synced, renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reconciler.model.errors import DiskPressureError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def disk_pressure(what: str) -> Iterator[None]:
    """Turns "no space left" of the body into DiskPressureError that names `what`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskPressureError(f"no space left while writing {what}") from error
        raise


def write_atomic(path: Path, content: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Replaces `path` in one rename: a reader sees the old content or the new, never a part.

    With `durable` the content and its name are on disk when this returns. A full disk raises
    DiskPressureError and leaves the old content.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_pressure(str(path)):
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            try:
                os.fchmod(descriptor, mode)
                _write_all(descriptor, content)
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            beside.rename(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        if durable:
            sync_directory(path.parent)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def replace_link(link: Path, target: str, *, durable: bool = True) -> None:
    """Points the symbolic link at `target` in one rename."""
    beside = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    with disk_pressure(str(link)):
        beside.unlink(missing_ok=True)
        beside.symlink_to(target)
        beside.rename(link)
        if durable:
            sync_directory(link.parent)


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ensure_directory(path: Path, mode: int) -> None:
    """Creates the directory with its parents; its mode is set whatever the umask says."""
    with disk_pressure(str(path)):
        path.mkdir(parents=True, exist_ok=True)
        if path.stat().st_mode & 0o7777 != mode:
            path.chmod(mode)
