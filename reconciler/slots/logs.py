"""Logs: what setup and processes wrote. Read from the end, trimmed by holes, never renamed.

A process keeps its descriptor, so a file that is renamed away goes on growing unseen. A hole gives
the space back, works on every file system of ours, and no offset changes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from reconciler.model.names import SETUP, DeployId

KEPT_BYTES = 10 << 20
KEPT_DEPLOYS = 20
_TAIL_BYTES = 256 << 10
_BLOCK = 4096
_PUNCH_HOLE = 0x02
_KEEP_SIZE = 0x01

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate64.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def tail(directory: Path, deploy_id: DeployId, lines: int) -> str:
    """Returns the last lines of the deploy's logs: of setup first, last written last."""
    setup = f"{deploy_id}.{SETUP}.log"
    files = sorted(
        directory.glob(f"{deploy_id}.*.log"),
        key=lambda path: (path.name != setup, path.stat().st_mtime_ns, path.name),
    )
    found = [line for path in files for line in _last_lines(path, lines)]
    return "\n".join(found[-lines:]) if lines > 0 else ""


def _last_lines(path: Path, lines: int) -> list[str]:
    with path.open("rb") as log:
        size = os.fstat(log.fileno()).st_size
        log.seek(max(0, size - _TAIL_BYTES))
        content = log.read(_TAIL_BYTES)
    text = content.replace(b"\0", b"").decode("utf-8", "replace")
    return text.splitlines()[-lines:]


def trim(directory: Path, named: Collection[str], keep: int = KEPT_BYTES) -> None:
    """Trims the logs of one app, and deletes those of old deploys that no slot names."""
    logs = sorted(directory.glob("*.log"))
    # UUIDv7: the order of ids is the order of deploys.
    deploys = sorted({_deploy(path) for path in logs}, reverse=True)
    kept = {*named, *deploys[:KEPT_DEPLOYS]}
    for path in logs:
        if _deploy(path) in kept:
            with suppress(FileNotFoundError):
                punch(path, keep)
        else:
            path.unlink(missing_ok=True)


def _deploy(path: Path) -> str:
    return path.name.partition(".")[0]


def punch(path: Path, keep: int) -> None:
    """Gives back all but the last `keep` bytes; the size of the file stays what it was."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        end = (status.st_size - keep) // _BLOCK * _BLOCK
        if end <= 0 or status.st_blocks * 512 <= keep + _BLOCK:
            return
        if _libc.fallocate64(descriptor, _PUNCH_HOLE | _KEEP_SIZE, 0, end) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(descriptor)


def app_directories(logs_dir: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from (path for path in sorted(logs_dir.iterdir()) if path.is_dir())
