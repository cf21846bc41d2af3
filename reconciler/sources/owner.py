"""Fetches with the `git` program, reading the repository as the user who owns it.

Git itself separates the two: the serving half runs as the owner, the receiving half as us, and a
pipe is all they share. Nothing of the owner's configuration runs with our rights.
"""

from __future__ import annotations

import os
import pwd
import shlex
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
from reconciler.sources.refs import Layout

DEADLINE = timedelta(minutes=10)
# Gives up every right of ours for good, then becomes the program.
_BECOME = (
    "import os, sys; user, group = int(sys.argv[1]), int(sys.argv[2]); "
    "os.setgroups([]); os.setresgid(group, group, group); os.setresuid(user, user, user); "
    "os.execvp(sys.argv[3], sys.argv[3:])"
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
    git: str, layout: Layout, into: Path, refspecs: Sequence[str], owner: int | None
) -> None:
    """Fetches what the refspecs name into the bare repository `into`, shallow roots as well.

    Raises SourceError, NotOwnerError when git finds a part that is another user's still.
    """
    argv = [
        git,
        *("-c", "fetch.unpackLimit=1", "-c", "core.hooksPath=/dev/null"),
        *(f"--git-dir={into}", "fetch", "--quiet", "--no-tags", "--update-shallow"),
        *("--no-auto-gc", "--no-write-fetch-head", "--no-recurse-submodules"),
        *([f"--upload-pack={_served_by(owner)}"] if owner is not None else []),
        *("--", str(layout.path.absolute()), *refspecs),
    ]
    try:
        await command.run(argv, env=git_environment(git, "/"), timeout=DEADLINE, cwd=Path("/"))
    except CommandFailedError as error:
        if any(sign in error.output for sign in NO_SPACE):
            raise DiskPressureError(f"no space left while fetching into {into}") from error
        if "dubious ownership" in error.output:
            raise not_owner(layout.path, error.output) from error
        raise SourceError(f"{layout.path} could not be fetched: {error.output}") from error
    except (CommandTimeoutError, OSError) as error:
        raise SourceError(f"{layout.path} could not be fetched: {error}") from error


def not_owner(path: Path, detail: str) -> NotOwnerError:
    return NotOwnerError(
        f"{path} belongs to another user and is not read as {_user_name(os.geteuid())}: "
        f"run autopilot as its owner or as root, or give it one owner with chown -R ({detail})"
    )


def _served_by(owner: int) -> str:
    try:
        group = pwd.getpwuid(owner).pw_gid
    except KeyError:
        group = owner
    words = [sys.executable, "-I", "-S", "-c", _BECOME, str(owner), str(group), "git-upload-pack"]
    return shlex.join(words)


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"uid {user}"
