"""Repositories on this host, read through a bare mirror of our own. The only user of pygit2.

Objects are copied into the mirror, never borrowed: a gc in the repository cannot take a revision
from under a slot. pygit2 reads and fetches here; it never writes a slot.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Concatenate, ParamSpec, TypeVar

import anyio
import pygit2
from pygit2.enums import ConfigLevel, FileMode

from reconciler import command
from reconciler.host.files import (
    disk_pressure,
    sync_directory,
    write_atomic,
)
from reconciler.model.errors import (
    CommandFailedError,
    CommandTimeoutError,
    DiskPressureError,
    ExportError,
    SourceError,
    UnknownHistoryError,
    UnknownRevisionError,
)
from reconciler.model.names import Revision
from reconciler.ports import SlotTree
from reconciler.sources.checkout import DEADLINE, NO_SPACE, Checkout, git_environment
from reconciler.sources.globs import matches
from reconciler.sources.mirror import (
    OURS,
    REMOTE_HEADS,
    Wanted,
    adopt_packs,
    make_beside,
    mirror_refs,
    mirrored_branch,
    mirrored_heads,
    mirrored_refs,
    protect,
    reference_names,
)
from reconciler.sources.owner import fetch_with_git, not_owner, other_owner
from reconciler.sources.refs import (
    FULL_ID,
    HEADS,
    Layout,
    Refs,
    is_ref_name,
    locate,
    read_refs,
)
from reconciler.sources.watch import moves

P = ParamSpec("P")
T = TypeVar("T")

MANIFESTS = ".autopilot"
MANIFEST_LIMIT = 1 << 20
SUBJECT_LIMIT = 200
REVISION_LIMIT = 250
PACKS = 50
PLAIN_TREES = 100_000
THREADS = 2
_SHORT_ID = re.compile(r"[0-9a-fA-F]{4,40}")
_SERVER_TIMEOUT_MS = 30_000

# libgit2 waits for ever by default. Its check of who owns a repository stays on.
pygit2.settings.server_connect_timeout = _SERVER_TIMEOUT_MS
pygit2.settings.server_timeout = _SERVER_TIMEOUT_MS
# A reference must never be on disk before its objects are.
pygit2.settings.enable_fsync_gitdir(True)  # noqa: FBT003 (its only parameter)
# What the daemon's user has configured (another transport, trusted directories) is not for us.
for _level in (ConfigLevel.SYSTEM, ConfigLevel.GLOBAL, ConfigLevel.XDG):
    pygit2.settings.search_path[_level] = ""


class GitSource:
    """The Source of one local repository. `mirror` is `<data>/repos/<name>/git`."""

    def __init__(self, name: str, path: Path, mirror: Path, *, git: str = "git") -> None:
        self._name = name
        self._path = path.absolute()
        self._mirror = mirror.absolute()
        self._git = git
        self._threads = anyio.CapacityLimiter(THREADS)
        self._refreshing = anyio.Lock()
        self._seen: Refs | None = None
        self._plain_trees: set[str] = set()

    @property
    def name(self) -> str:
        return self._name

    async def refresh(self) -> None:
        async with self._refreshing:
            with _translated(f"{self._path} could not be fetched"):
                await self._refresh()

    async def _refresh(self) -> None:
        layout = await self._thread(locate, self._path)
        theirs = await self._thread(read_refs, layout)
        if theirs == self._seen and self._mirror.exists():
            return
        ours = await self._thread(_open_mirror, self._mirror)
        if ours.named and not theirs.named and not theirs.detached:
            raise SourceError(
                f"{self._path} has no commits any more; what was fetched before stays in force"
            )
        if ours.shallow - theirs.shallow:
            await self._fetch_history(layout, theirs)
        if await self._thread(_lacks, self._mirror, ours, theirs):
            await self._thread(_prune, self._mirror, ours, theirs)
            await self._fetch(layout, Wanted.of(theirs, ours), self._mirror)
        await self._thread(_settle, self._mirror, theirs)
        await self._merge_packs()
        self._seen = theirs

    async def _fetch(self, layout: Layout, wanted: Wanted, into: Path) -> None:
        """Fetches in the way of this kind of repository; another kind is another branch here."""
        owner = other_owner(layout)
        if owner is None and await self._thread(_fetch_here, layout.path, into, wanted):
            return
        if owner is not None and os.geteuid() != 0:
            raise not_owner(layout.path, f"its owner is uid {owner}")
        await fetch_with_git(self._git, layout, into, wanted, owner)

    async def _fetch_history(self, layout: Layout, theirs: Refs) -> None:
        """Fetches anew what a shallow repository has since been deepened by: a plain fetch takes
        the commits that the mirror has as proof that it has their parents too."""
        beside = await self._thread(_new_repository, self._mirror)
        await self._fetch(layout, Wanted.of(theirs), beside)
        await self._thread(adopt_packs, self._mirror, beside)

    async def _merge_packs(self) -> None:
        """Merges small packs, as each fetch leaves one; every object stays, reachable or not."""
        if len(list((self._mirror / "objects/pack").glob("*.pack"))) <= PACKS:
            return
        # With all threads held nothing of ours has a pack open that is about to go.
        async with AsyncExitStack() as stack:
            for _ in range(THREADS):
                holder = object()
                await self._threads.acquire_on_behalf_of(holder)
                stack.callback(self._threads.release_on_behalf_of, holder)
            # Apps' users may be reading: the new packs are readable from the start.
            readable = ("-c", "core.sharedRepository=0644", f"--git-dir={self._mirror}")
            await command.run(
                [self._git, *readable, "repack", "-dq", "--geometric=2"],
                env=git_environment(self._git, "/"),
                timeout=DEADLINE,
                cwd=self._mirror,
                # A git older than 2.32 cannot: many packs are slower, never wrong.
                check=False,
            )
        await self._thread(protect, self._mirror)

    async def heads(self) -> Mapping[str, Revision]:
        refs = await self._thread(mirror_refs, self._mirror)
        heads = mirrored_heads(refs)
        return heads | {"HEAD": Revision(refs.detached)} if refs.detached else heads

    async def default_branch(self) -> str | None:
        refs = await self._thread(mirror_refs, self._mirror)
        heads = mirrored_heads(refs)
        return next((name for name in ("main", mirrored_branch(refs)) if name in heads), None)

    async def checked_out(self) -> str | None:
        return mirrored_branch(await self._thread(mirror_refs, self._mirror))

    async def resolve(self, text: str) -> Revision:
        if len(text) > REVISION_LIMIT or not is_ref_name(text):
            raise UnknownRevisionError(
                f"{text[:REVISION_LIMIT]!r} is not a revision: name a commit id, a branch or a tag"
            )
        return await self._in_mirror(_resolve, text)

    async def manifests(self, revision: Revision) -> Mapping[str, bytes]:
        return await self._in_mirror(_manifests, revision)

    async def descends(self, revision: Revision, ancestor: Revision) -> bool:
        refs = await self._thread(mirror_refs, self._mirror)
        return await self._in_mirror(_descends, revision, ancestor, refs.shallow)

    async def touches(
        self, base: Revision, head: Revision, path: str, globs: Sequence[str]
    ) -> bool:
        return await self._in_mirror(_touches, base, head, path, globs)

    async def tracks(self, revision: Revision, path: str) -> bool:
        return await self._in_mirror(_tracks, revision, path)

    async def subject(self, revision: Revision) -> str:
        return await self._in_mirror(_subject, revision)

    async def export(self, revision: Revision, tree: SlotTree) -> None:
        try:
            submodules = await self._in_mirror(_submodules, revision, self._plain_trees)
        except (SourceError, UnknownRevisionError) as error:
            raise ExportError(f"{tree.worktree} could not be written: {error}") from error
        await Checkout(self._git, self._mirror / "objects", revision, submodules, tree).run()

    async def keep(self, refs: Mapping[str, Revision]) -> None:
        await self._in_mirror(_keep, refs)

    def watch(self) -> AsyncIterator[None]:
        return moves(self._path)

    async def _thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await anyio.to_thread.run_sync(
            partial(function, *args, **kwargs), limiter=self._threads
        )

    async def _in_mirror(
        self,
        function: Callable[Concatenate[pygit2.Repository, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Runs a function on the mirror, opened for this call only: objects of libgit2 must not
        be shared between threads."""

        def work() -> T:
            with _opened(self._mirror) as repository:
                return function(repository, *args, **kwargs)

        with _translated(f"{self._mirror} could not be read"):
            return await self._thread(work)


@contextmanager
def _opened(path: Path) -> Iterator[pygit2.Repository]:
    repository = pygit2.Repository(str(path))
    try:
        yield repository
    finally:
        repository.free()


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turns what libgit2, git and the file system raise into SourceError and DiskPressureError."""
    try:
        with disk_pressure(what):
            yield
    except (pygit2.GitError, CommandFailedError, CommandTimeoutError, OSError) as error:
        _raise_if_full(error)
        raise SourceError(f"{what}: {error}") from error


def _raise_if_full(error: Exception) -> None:
    if any(sign in str(error) for sign in NO_SPACE):
        raise DiskPressureError(f"no space left for the mirror: {error}") from error


def _open_mirror(mirror: Path) -> Refs:
    """Makes the mirror when there is none, in one rename; returns what it has."""
    if not (mirror / "HEAD").exists():
        _new_repository(mirror).rename(mirror)
        sync_directory(mirror.parent)
    return mirror_refs(mirror)


def _new_repository(mirror: Path) -> Path:
    """Makes an empty bare repository beside the mirror."""
    beside = make_beside(mirror)
    repository = pygit2.init_repository(str(beside), bare=True)
    repository.config["gc.auto"] = 0
    repository.free()
    protect(beside)
    return beside


def _lacks(mirror: Path, ours: Refs, theirs: Refs) -> bool:
    if ours.named != mirrored_refs(theirs):
        return True
    with _opened(mirror) as repository:
        return theirs.detached is not None and theirs.detached not in repository


def _prune(mirror: Path, ours: Refs, theirs: Refs) -> None:
    """Deletes what is gone, before fetching: a branch `a` stands in the way of a branch `a/b`."""
    with _opened(mirror) as repository:
        for name in ours.named.keys() - mirrored_refs(theirs).keys():
            repository.references.delete(name)


def _fetch_here(path: Path, into: Path, wanted: Wanted) -> bool:
    """Fetches through libgit2, in a fifth of git's time; False when git has to try: one broken
    reference is enough to make libgit2 give up on all."""
    with _opened(into) as repository:
        try:
            # A plain path with a colon in it would be a host name.
            repository.remotes.create_anonymous(path.as_uri()).fetch(wanted.refspecs())
        except pygit2.GitError as error:
            _raise_if_full(error)
            return False
    return True


def _settle(mirror: Path, theirs: Refs) -> None:
    """Writes what no fetch does: HEAD and the shallow roots; then the modes."""
    ours = mirror_refs(mirror)
    if theirs.detached or theirs.branch:
        branch = (theirs.branch or "").removeprefix(HEADS)
        head = theirs.detached or f"ref: {REMOTE_HEADS}{branch}"
        if head != (ours.detached or f"ref: {ours.branch}"):
            write_atomic(mirror / "HEAD", f"{head}\n".encode(), mode=0o600)
    with _opened(mirror) as repository:
        roots = [root for root in ours.shallow | theirs.shallow if _lacks_parents(repository, root)]
    if roots and ours.shallow != frozenset(roots):
        content = "".join(f"{root}\n" for root in sorted(roots)).encode()
        write_atomic(mirror / "shallow", content, mode=0o600)
    if not roots:
        (mirror / "shallow").unlink(missing_ok=True)
    protect(mirror)


def _lacks_parents(repository: pygit2.Repository, commit: str) -> bool:
    """Whether the mirror has the commit but not all its parents, by the object itself: a commit
    that is marked shallow pretends to have none."""
    if commit not in repository:
        return False
    header = repository.odb.read(pygit2.Oid(hex=commit))[1].partition(b"\n\n")[0]
    parents = [line[7:].decode() for line in header.split(b"\n") if line.startswith(b"parent ")]
    return any(parent not in repository for parent in parents)


def _commit(repository: pygit2.Repository, revision: str) -> pygit2.Commit:
    found = _peeled(repository, revision) if FULL_ID.fullmatch(revision) else None
    if found is None:
        raise UnknownRevisionError(f"the repository has no commit {revision}")
    return found


def _peeled(repository: pygit2.Repository, object_id: pygit2.Oid | str) -> pygit2.Commit | None:
    found = repository.get(object_id)
    if found is None:
        return None
    try:
        return found.peel(pygit2.Commit)
    except (pygit2.GitError, ValueError):
        return None


def _resolve(repository: pygit2.Repository, text: str) -> Revision:
    if FULL_ID.fullmatch(text):
        return Revision(str(_commit(repository, text).id))
    for name in reference_names(text):
        with suppress(KeyError):
            if found := _peeled(repository, repository.references[name].resolve().target):
                return Revision(str(found.id))
    if _SHORT_ID.fullmatch(text):
        return Revision(_expand(repository, text.lower()))
    raise UnknownRevisionError(f"no commit, branch or tag is called {text!r}")


def _expand(repository: pygit2.Repository, short: str) -> str:
    try:
        candidates = [repository.expand_id(short)]
    except pygit2.NotFoundError:
        candidates = []
    except pygit2.AmbiguousError:
        # Only commits count, as for git.
        candidates = [oid for oid in repository.odb if str(oid).startswith(short)]
    commits = {str(found.id) for oid in candidates if (found := _peeled(repository, oid))}
    if len(commits) > 1:
        raise UnknownRevisionError(f"{short!r} is short for several commits: give more digits")
    if not commits:
        raise UnknownRevisionError(f"no commit, branch or tag is called {short!r}")
    return commits.pop()


def _manifests(repository: pygit2.Repository, revision: Revision) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    root = _entry(_commit(repository, revision).tree, MANIFESTS)
    pending: list[tuple[str, pygit2.Object]] = []
    if isinstance(root, pygit2.Tree):
        pending.append((MANIFESTS, root))
    while pending:
        path, entry = pending.pop()
        if isinstance(entry, pygit2.Tree):
            pending += [(f"{path}/{os.fsdecode(below.raw_name or b'')}", below) for below in entry]
        elif isinstance(entry, pygit2.Blob) and _is_small_file(repository, entry):
            found[path] = entry.data
    return dict(sorted(found.items()))


def _is_small_file(repository: pygit2.Repository, blob: pygit2.Blob) -> bool:
    is_file = blob.filemode != FileMode.LINK
    return is_file and repository.odb.read_header(blob.id)[1] <= MANIFEST_LIMIT


def _descends(
    repository: pygit2.Repository, revision: Revision, ancestor: Revision, shallow: frozenset[str]
) -> bool:
    _commit(repository, revision)
    if revision == ancestor:
        return True
    known = ancestor in repository
    if known and repository.descendant_of(revision, ancestor):
        return True
    for root in shallow:
        reached = root == revision or repository.descendant_of(revision, root)
        # What descends from a root cannot be among the commits that are missing above it.
        if reached and not (known and repository.descendant_of(ancestor, root)):
            raise UnknownHistoryError(
                f"whether {revision} descends from {ancestor} lies in commits that this shallow "
                "clone lacks: run `git fetch --unshallow` there"
            )
    return False


def _touches(
    repository: pygit2.Repository,
    base: Revision,
    head: Revision,
    path: str,
    globs: Sequence[str],
) -> bool:
    before, after = _commit(repository, base).tree, _commit(repository, head).tree
    if before.id == after.id:
        return False
    if _identity(_entry(before, path)) != _identity(_entry(after, path)):
        return True
    return bool(globs) and any(
        matches(changed, glob) for changed in _changed_paths(before, after) for glob in globs
    )


def _identity(entry: pygit2.Object | None) -> tuple[pygit2.Oid, int | None] | None:
    return (entry.id, entry.filemode) if entry is not None else None


def _changed_paths(before: pygit2.Tree, after: pygit2.Tree) -> Iterator[str]:
    """Yields files that were added, removed or changed; a rename is one of each. Only trees that
    differ are read."""
    pending: list[tuple[bytes, pygit2.Tree | None, pygit2.Tree | None]] = [(b"", before, after)]
    while pending:
        prefix, old_tree, new_tree = pending.pop()
        old, new = _entries(old_tree), _entries(new_tree)
        for name in old.keys() | new.keys():
            pair = (old.get(name), new.get(name))
            if _identity(pair[0]) == _identity(pair[1]):
                continue
            old_below, new_below = (
                entry if isinstance(entry, pygit2.Tree) else None for entry in pair
            )
            if old_below is not None or new_below is not None:
                pending.append((prefix + name + b"/", old_below, new_below))
            if pair != (old_below, new_below):
                yield os.fsdecode(prefix + name)


def _entries(tree: pygit2.Tree | None) -> dict[bytes, pygit2.Object]:
    return {entry.raw_name or b"": entry for entry in tree} if tree is not None else {}


def _entry(tree: pygit2.Tree, path: str) -> pygit2.Object | None:
    """Returns what is at a path, None when there is nothing."""
    found: pygit2.Object = tree
    for part in PurePosixPath(path).parts:
        if not isinstance(found, pygit2.Tree):
            return None
        try:
            found = found[part]
        except (KeyError, UnicodeEncodeError):
            return None
    return found


def _tracks(repository: pygit2.Repository, revision: Revision, path: str) -> bool:
    found = _entry(_commit(repository, revision).tree, path)
    return len(found) > 0 if isinstance(found, pygit2.Tree) else found is not None


def _subject(repository: pygit2.Repository, revision: Revision) -> str:
    message = _commit(repository, revision).raw_message.decode("utf-8", "replace")
    first = message.strip().partition("\n")[0]
    # Colours and cursor movements of a terminal are not for a log.
    return "".join(letter for letter in first if letter.isprintable())[:SUBJECT_LIMIT].strip()


def _submodules(
    repository: pygit2.Repository, revision: Revision, plain_trees: set[str]
) -> list[bytes]:
    """Returns the paths of submodules. `plain_trees` remembers trees without any, so that the
    cost follows the change."""
    found: list[bytes] = []
    walked: set[str] = set()
    pending: list[tuple[bytes, pygit2.Tree]] = [(b"", _commit(repository, revision).tree)]
    while pending:
        prefix, tree = pending.pop()
        if (tree_id := str(tree.id)) in plain_trees:
            continue
        walked.add(tree_id)
        for entry in tree:
            path = prefix + (entry.raw_name or b"")
            if isinstance(entry, pygit2.Tree):
                pending.append((path + b"/", entry))
            elif entry.filemode == FileMode.COMMIT:
                found.append(path)
    if not found:
        if len(plain_trees) > PLAIN_TREES:
            plain_trees.clear()
        plain_trees |= walked
    return found


def _keep(repository: pygit2.Repository, refs: Mapping[str, Revision]) -> None:
    for name, revision in refs.items():
        reference = OURS + name
        current = repository.references.get(reference)
        if current is None or str(current.target) != revision:
            commit = _commit(repository, revision)
            repository.references.create(reference, commit.id, force=True)
