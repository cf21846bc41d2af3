"""Brings a slot to a revision with the `git` program, run as the app's user.

The slot has a git directory of its own, with its own index: an index shared between slots leaves
wrong files and reports success. Root runs nothing here over files that the app could have planted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from anyio import to_thread

from reconciler import command
from reconciler.host.files import disk_pressure
from reconciler.model.errors import (
    CommandFailedError,
    CommandTimeoutError,
    DiskPressureError,
    ExportError,
)
from reconciler.model.names import Revision
from reconciler.ports import SlotTree
from reconciler.sources.sweep import Parts, Sweep, keep_parts, new_bin

Kept = frozenset[Parts]

DEADLINE = timedelta(minutes=10)
NO_SPACE = ("No space left on device", "Disk quota exceeded")
# What git says when a write fails half-way, without the reason: hardly ever another one.
_WRITE_FAILED = ("unable to write file", "unable to write new index file")

# Every byte is the blob's, whatever a `.gitattributes` of the tree asks for: this file wins.
_ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding"
_CONFIG = """[core]
	repositoryformatversion = 0
	bare = false
	filemode = true
	symlinks = true
	ignorecase = false
	autocrlf = false
	safecrlf = false
	trustctime = true
	checkStat = default
	fsmonitor = false
	untrackedCache = false
	splitIndex = false
	sparseCheckout = false
	hooksPath = /dev/null
	attributesFile = /dev/null
	excludesFile = /dev/null
[checkout]
	workers = 0
[submodule]
	recurse = false
[gc]
	auto = 0
"""

# One shell, since each program that Python starts costs more than the two git commands on a small
# repository. It rewrites the settings first: they are the app's to tamper with. A lock that is
# there is a dead process's: nobody else uses this git directory. `git` never lists what is named
# `.git`, nor sockets and pipes, so `find` does, at the same time; "$@" is what it leaves out.
_SCRIPT = r"""
set -eu
umask 022
revision=$1 anew=$2 listing=$3 config=$4 attributes=$5 alternates=$6 kept=$7
shift 7
remove() { if [ -e "$1" ] || [ -L "$1" ]; then rm -rf "$1"; fi; }
put() {
  if [ -L "$1" ] || [ ! -f "$1" ]; then remove "$1"; fi
  printf '%s\n' "$2" >"$1"
}
cd "$GIT_DIR"
[ -d refs ] && [ -d info ] && [ -d objects/info ] || mkdir -p refs info objects/info
put HEAD "$revision"
put config "$config"
put info/attributes "$attributes"
put objects/info/alternates "$alternates"
put kept "$kept"
put odd ''
remove index.lock
if [ "$anew" = yes ] || [ -L index ] || [ ! -f index ]; then remove index; fi
cd "$GIT_WORK_TREE"
git read-tree --reset -u "$revision"
[ "$listing" = yes ] || exit 0
find . "$@" \( -name .git -prune -o ! -type f ! -type d ! -type l \) -print0 >"$GIT_DIR/odd" &
git ls-files -z --others --directory --exclude-from="$GIT_DIR/kept"
wait $!
cat "$GIT_DIR/odd"
"""

# Each directory is mended before find descends into it.
_MEND = r'chmod u+rwx "$1" && exec find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \;'


@dataclass(frozen=True, slots=True)
class Checkout:
    """One revision for one slot. `submodules` are paths that the tree leaves to other repositories:
    they end as empty directories. `objects` is the mirror's object directory."""

    git: str
    objects: Path
    revision: Revision
    submodules: Sequence[bytes]
    tree: SlotTree

    async def run(self) -> None:
        """Makes the worktree equal the revision's tree, but for what is kept.

        What goes wrong once (a read-only directory, a corrupt index, files of another user) is
        mended by setting everything aside and checking out afresh. Raises ExportError,
        DiskPressureError.
        """
        try:
            with disk_pressure(str(self.tree.worktree)):
                await self._bring_or_mend(keep_parts(self.tree.keep))
        except CommandFailedError as error:
            raise ExportError(self._failure(error.output)) from error
        except (CommandTimeoutError, OSError, ValueError) as error:
            raise ExportError(self._failure(str(error))) from error

    async def _bring_or_mend(self, kept: Kept) -> None:
        try:
            self._make_room()
            await self._bring(kept, anew=self.tree.full)
        except (CommandFailedError, PermissionError) as error:
            _raise_if_full(error)
            try:
                await self._run(["/bin/sh", "-c", _MEND, "sh", str(self.tree.worktree.absolute())])
                self._set_aside(self.tree.git_dir)
                self._make_room()
                await self._bring(kept, anew=True)
            except CommandFailedError as again:
                _raise_if_full(again)
                raise

    async def _bring(self, kept: Kept, *, anew: bool) -> None:
        if anew:
            # Writing new files beats writing over old ones, which deletes each of them first.
            await to_thread.run_sync(Sweep(self.tree.worktree, kept, self.tree.trash).contents)
        sweep = Sweep(self.tree.worktree, kept, self.tree.trash)
        while True:
            taken = sweep.taken
            listed = await self._git(anew=anew)
            anew = False
            await to_thread.run_sync(self._clean, sweep, listed)
            if len(listed) < command.MAX_OUTPUT:
                break
            if sweep.taken == taken:
                raise ExportError(self._failure("what does not belong there does not go away"))
        # A tracked directory that was moved and linked to looks unchanged through the link.
        if sweep.moved:
            await self._git(listing=False)

    def _clean(self, sweep: Sweep, listed: bytes) -> None:
        # Of a listing that was cut only the end is there, and its first path is a part of one.
        cut = len(listed) >= command.MAX_OUTPUT
        sweep.paths(listed.split(b"\0")[1 if cut else 0 :])
        for submodule in self.submodules:
            sweep.contents(submodule.split(b"/"))

    async def _git(self, *, anew: bool = False, listing: bool = True) -> bytes:
        """Runs the script; returns the paths that do not belong, each ended by NUL."""
        kept = sorted(keep_parts(self.tree.keep))
        arguments = [
            self.revision,
            "yes" if anew else "no",
            "yes" if listing else "no",
            _CONFIG,
            _ATTRIBUTES,
            str(self.objects),
            "\n".join(f"{_literal(parts, '/')}/" for parts in kept),
            *_prune(kept),
        ]
        return await self._run(["/bin/sh", "-c", _SCRIPT, "sh", *arguments])

    async def _run(self, argv: Sequence[str]) -> bytes:
        completed = await command.run(
            argv, env=self._environment(), timeout=DEADLINE, cwd=Path("/"), owner=self._other_user()
        )
        return completed.stdout

    def _environment(self) -> Mapping[str, str]:
        return git_environment(self.git, self.tree.home) | {
            "GIT_DIR": str(self.tree.git_dir.absolute()),
            "GIT_WORK_TREE": str(self.tree.worktree.absolute()),
            # Not through alternates, which the app's user could point elsewhere.
            "GIT_OBJECT_DIRECTORY": str(self.objects),
            # Should we die, git works on: this tells whose slot it is still writing in.
            **({"AUTOPILOT_DEPLOY_ID": self.tree.cookie} if self.tree.cookie else {}),
            **({"AUTOPILOT_APP": self.tree.app} if self.tree.app else {}),
        }

    def _other_user(self) -> tuple[int, int] | None:
        us = (os.geteuid(), os.getegid())
        return None if self.tree.owner in {None, us} else self.tree.owner

    def _make_room(self) -> None:
        """Makes slot and git directory where they are missing or not the app's user's own."""
        for folder in (self.tree.worktree, self.tree.git_dir):
            if os.path.lexists(folder) and not self._is_ours(folder):
                self._set_aside(folder)
            if not folder.exists():
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.mkdir(mode=0o750)
                if owner := self._other_user():
                    os.chown(folder, *owner)

    def _is_ours(self, folder: Path) -> bool:
        owner = self.tree.owner[0] if self.tree.owner else os.geteuid()
        return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == owner

    def _set_aside(self, folder: Path) -> None:
        folder.rename(Path(new_bin(self.tree.trash)) / folder.name)

    def _failure(self, detail: str) -> str:
        owner = self._other_user()
        reader = f" by uid {owner[0]}, who has to reach it and {self.objects}" if owner else ""
        return (
            f"{self.tree.worktree} could not be brought to {self.revision}{reader}: "
            f"{detail.strip() or 'git said nothing'}"
        )


def git_environment(git: str, home: str) -> dict[str, str]:
    """Returns what a `git` of ours gets: no configuration but the repository's own, no prompts."""
    found = shutil.which(git)
    path = [str(Path(found).parent)] if found else []
    return {
        "PATH": ":".join([*path, "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": home,
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CEILING_DIRECTORIES": "/",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        # A planted `refs/replace` would swap contents.
        "GIT_NO_REPLACE_OBJECTS": "1",
    }


def _prune(kept: Sequence[Parts]) -> list[str]:
    """Returns the words that make `find` skip the kept directories."""
    words = [word for parts in kept for word in ("-o", "-path", _literal(parts, "./"))]
    return ["(", *words[1:], ")", "-type", "d", "-prune", "-o"] if words else []


def _literal(parts: Parts, anchor: str) -> str:
    """Returns a pattern, for git and find alike, that means just this path."""
    path = os.fsdecode(b"/".join(parts))
    return anchor + "".join(f"\\{letter}" if letter in "\\*?[" else letter for letter in path)


def _raise_if_full(error: Exception) -> None:
    text = error.output if isinstance(error, CommandFailedError) else str(error)
    if any(sign in text for sign in (*NO_SPACE, *_WRITE_FAILED)):
        raise DiskPressureError(f"no space left while checking out: {text.strip()}") from error
