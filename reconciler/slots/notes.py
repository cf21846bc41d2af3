"""Notes on a slot's processes in `slots/<slot>.run/`, written by the launcher and by us."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from reconciler.host.files import write_atomic
from reconciler.model.errors import DiskPressureError
from reconciler.model.names import ProcessName
from reconciler.slots.layout import SlotPaths
from reconciler.slots.membership import Leader


def read_leader(paths: SlotPaths, process: ProcessName, index: int, boot_id: str) -> Leader | None:
    """Returns what the launcher recorded; None for a record of another boot, where the same id
    and start time may be anybody's."""
    try:
        pid, started, boot = paths.note(process, index).read_text(encoding="ascii").split()
        return Leader(process, index, int(pid), int(started)) if boot == boot_id else None
    except (OSError, ValueError):
        return None


def read_exit(paths: SlotPaths, process: ProcessName, index: int) -> int | None:
    """Returns the exit status of an instance that has ended; None when nobody could reap it."""
    try:
        return int(paths.exit_note(process, index).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def write_exit(paths: SlotPaths, process: ProcessName, index: int, status: int) -> None:
    """Notes an exit status. A full disk loses it: the end itself is seen without it."""
    with suppress(DiskPressureError, OSError):
        write_atomic(
            paths.exit_note(process, index), f"{status}\n".encode(), mode=0o600, durable=False
        )


def forget(paths: SlotPaths, process: ProcessName, index: int) -> None:
    """Removes what is noted of an earlier start."""
    paths.note(process, index).unlink(missing_ok=True)
    paths.exit_note(process, index).unlink(missing_ok=True)


def read_group(paths: SlotPaths) -> Path | None:
    """Returns the control group that the slot's processes were put into, if any."""
    try:
        return Path((paths.run / "cgroup").read_text(encoding="utf-8"))
    except OSError:
        return None


def write_group(paths: SlotPaths, group: Path) -> None:
    write_atomic(paths.run / "cgroup", str(group).encode(), mode=0o600, durable=False)


def forget_group(paths: SlotPaths) -> None:
    (paths.run / "cgroup").unlink(missing_ok=True)
