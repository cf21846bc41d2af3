"""Detaching: starts a program that outlives the slot it is started from. Decides nothing else.

It leaves behind what the slot's processes are told by: session, group, cgroup and cookie.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from reconciler.host.processes import own_cgroup
from reconciler.model.errors import LaunchError

# What names the slot, or is of no use once the slot is gone.
_LEFT_BEHIND = frozenset({
    "AUTOPILOT_DEPLOY_ID", "AUTOPILOT_PROCESS", "AUTOPILOT_SLOT", "AUTOPILOT_COMMIT",
    "INTERNAL_PORT", "OLDPWD", "PORT", "TMPDIR",
})  # fmt: skip


def detach(argv: Sequence[str]) -> int:
    """Starts the program in HOME, in a session of its own, and returns its process id.

    Output goes where it was redirected to if that is a file, else nowhere: a terminal or a pipe
    would tie it to its caller. Raises LaunchError when it cannot be executed.
    """
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        _become_orphan(argv, writer)
    os.close(writer)
    os.waitpid(middle, 0)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        pid, _, failure = pipe.read().partition(" ")
    if failure or not pid:
        raise LaunchError(f"{argv[0]} could not be started: {failure or 'no process was left'}")
    return int(pid)


def detached_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment without the slot, and with the mark that it was left on purpose."""
    kept = {name: value for name, value in environment.items() if name not in _LEFT_BEHIND}
    home = kept.get("HOME") or "/"
    mark = environment.get("AUTOPILOT_DEPLOY_ID") or environment.get("AUTOPILOT_DETACHED", "")
    return {**kept, "HOME": home, "PWD": home, "AUTOPILOT_DETACHED": mark}


def _become_orphan(argv: Sequence[str], writer: int) -> NoReturn:
    """Never returns: a second copy of the caller must not go on with the caller's work."""
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        os.write(writer, f"{os.getpid()} ".encode())
        environment = detached_environment(os.environ)
        _leave_cgroup()
        os.chdir(environment["HOME"])
        _redirect()
        # Python ignores it, and what is executed would inherit that.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvpe(argv[0], list(argv), environment)  # noqa: S606 (this is what it is for)
    except OSError as error:
        os.write(writer, str(error).encode())
    finally:
        os._exit(127)


def _redirect() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for descriptor in (1, 2):
        if not _is_file(descriptor):
            os.dup2(null, descriptor)


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _leave_cgroup() -> None:
    """Moves out of the groups that a daemon made. Only root may; the mark in the environment does
    for everybody else."""
    own = own_cgroup()
    if own is None:
        return
    outermost = next((one for one in own.parents if one.name.startswith("autopilot-")), None)
    if outermost is not None:
        with suppress(OSError):
            Path(outermost.parent / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
