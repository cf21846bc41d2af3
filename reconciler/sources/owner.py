"""Fetches with the `git` program, reading the repository as the user who owns it.

Git itself separates the two: the serving half runs as the owner, the receiving half as us, and a
pipe is all they share. Nothing of the owner's configuration runs with our rights.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from reconciler import command
from reconciler.model.errors import (
    CommandFailedError,
    CommandTimeoutError,
    DiskPressureError,
    NotOwnerError,
    SourceError,
)
from reconciler.sources.checkout import NO_SPACE, git_environment
from reconciler.sources.mirror import Wanted
from reconciler.sources.refs import Layout

DEADLINE = timedelta(minutes=10)
_NOT_OURS = re.compile(r"not our ref ([0-9a-f]{40})")
# Gives up every right of ours for good, then becomes the program.
_BECOME = (
    "import os, sys; user, group = int(sys.argv[1]), int(sys.argv[2]); "
    "os.setgroups([]); os.setresgid(group, group, group); os.setresuid(user, user, user); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)


def other_owner(layout: Layout) -> int | None:
    """Returns who owns the repository or a part of it, None when all of it is ours."""
    for entry in layout.entries:
        with suppress(OSError):
            owner = entry.lstat().st_uid
            if owner != os.geteuid():
                return owner
    return None


async def fetch_with_git(
    git: str, layout: Layout, into: Path, wanted: Wanted, owner: int | None
) -> None:
    """Fetches into the bare repository `into`, shallow roots as well. References that name no
    object are left out. Raises SourceError, NotOwnerError, DiskPressureError."""
    argv = [
        git,
        *("-c", "fetch.unpackLimit=1", "-c", "core.hooksPath=/dev/null"),
        *(f"--git-dir={into}", "fetch", "--quiet", "--no-tags", "--update-shallow"),
        *("--no-auto-gc", "--no-write-fetch-head", "--no-recurse-submodules"),
        *([f"--upload-pack={_served_by(git, owner)}"] if owner is not None else []),
        *("--stdin", "--", str(layout.path.absolute())),
    ]
    refspecs = wanted.refspecs()
    while refspecs:
        broken = await _run(argv, "\n".join(refspecs).encode(), layout.path)
        left = wanted.without(broken) if broken else Wanted({}, detached=False)
        # One reference to nothing fails the whole fetch, and all that a pattern matches.
        before, refspecs = refspecs, left.refspecs(one_by_one=True)
        if before == refspecs:
            raise SourceError(f"{layout.path} could not be fetched: it lacks {broken}")
        wanted = left


async def _run(argv: Sequence[str], refspecs: bytes, path: Path) -> str | None:
    """Returns None when all is fetched, else the id that some reference names and nobody has."""
    environment = git_environment(argv[0], "/")
    try:
        await command.run(argv, env=environment, stdin=refspecs, timeout=DEADLINE, cwd=Path("/"))
    except CommandFailedError as error:
        if broken := _NOT_OURS.search(error.output):
            return broken[1]
        if any(sign in error.output for sign in NO_SPACE):
            raise DiskPressureError(f"no space left while fetching {path}") from error
        if "dubious ownership" in error.output:
            raise not_owner(path, error.output) from error
        raise SourceError(f"{path} could not be fetched: {error.output}") from error
    except (CommandTimeoutError, OSError) as error:
        raise SourceError(f"{path} could not be fetched: {error}") from error
    return None


def not_owner(path: Path, detail: str) -> NotOwnerError:
    return NotOwnerError(
        f"{path} belongs to another user and is not read as {_user_name(os.geteuid())}: "
        f"run autopilot as its owner or as root, or give it one owner with chown -R ({detail})"
    )


def _served_by(git: str, owner: int) -> str:
    try:
        group = pwd.getpwuid(owner).pw_gid
    except KeyError:
        group = owner
    # Whole, as that user may not be able to search where our Python keeps its modules.
    program = shutil.which(git) or git
    identity = (str(owner), str(group))
    return shlex.join(
        [sys.executable, "-I", "-S", "-c", _BECOME, *identity, program, "upload-pack"]
    )


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"uid {user}"
