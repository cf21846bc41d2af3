"""Locks that the kernel lets go of when their holder dies: flock on files of their own."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from reconciler.host.files import ensure_directory


def runtime_directory() -> Path:
    """Returns where port and listener locks lie: /run/autopilot for root, else the user's own."""
    if os.geteuid() == 0:
        directory = Path("/run/autopilot")
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        directory = Path(runtime) / "autopilot"
    else:
        directory = Path(tempfile.gettempdir()) / f"autopilot-{os.geteuid()}"
    ensure_directory(directory, 0o700)
    if directory.stat().st_uid != os.geteuid():
        raise PermissionError(
            errno.EPERM, "the lock directory belongs to another user", str(directory)
        )
    return directory


class FileLock:
    """An exclusive lock. Its content says who holds it, and is true only while it is held.

    Never put it on a file that anything else opens: flock is tied to the open file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    def acquire(self, content: str | None = "") -> bool:
        """Takes the lock without waiting; False when another holds it. Idempotent.

        With None what the last holder wrote stays, to be looked at by `read`.
        """
        if self._descriptor is not None:
            return True
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        if content is not None:
            self.write(content)
        return True

    def read(self) -> str:
        """Returns what is written in it, by us or by the holder before; empty when not held."""
        if self._descriptor is None:
            return ""
        return os.pread(self._descriptor, 4096, 0).decode("utf-8", "replace")

    def write(self, content: str) -> None:
        """Replaces what the lock says of its holder."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, content.encode(), 0)

    def holder(self) -> str:
        """Returns what the present holder wrote; empty when nobody holds it."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return ""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(descriptor, 4096, 0).decode("utf-8", "replace")
        else:
            return ""
        finally:
            os.close(descriptor)

    def release(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
