"""References of a repository as its files tell them, without opening it.

Reading files runs nothing and needs no trust in the repository's owner; it is also what makes
"did anything move?" cost microseconds. Must not write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from reconciler.model.errors import SourceError

HEADS = "refs/heads/"
TAGS = "refs/tags/"
FULL_ID = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LOOSE_LIMIT = 4096
_SYMBOLIC_DEPTH = 5
# What `git check-ref-format` refuses; see gitrevisions(7) for what each would mean instead.
_NOT_A_NAME = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|(^|/)\.|\.lock(/|$)|[./]$|^[-/]|^$")


def is_ref_name(text: str) -> bool:
    """Whether a branch or tag can have that name; anything else could be an option or a range."""
    return not _NOT_A_NAME.search(text) and _encodes(text)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a repository keeps things: HEAD in `git_dir`, references and objects in `common_dir`.

    The two differ in a linked worktree only. `entries` are the paths whose owner git checks.
    """

    path: Path
    git_dir: Path
    common_dir: Path
    entries: tuple[Path, ...]


def locate(path: Path) -> Layout:
    """Finds the git directory of a worktree, linked worktree or bare repository.

    Raises SourceError when there is none.
    """
    try:
        dot = path / ".git"
        if dot.is_file():
            return _layout(path, path / _pointed_to(dot), (path, dot))
        if dot.is_dir():
            return _layout(path, dot, (path,))
        return _layout(path, path, ())
    except OSError as error:
        raise SourceError(f"{path} cannot be read as a Git repository: {error}") from error


def _pointed_to(dot: Path) -> str:
    content = os.fsdecode(_read(dot, _LOOSE_LIMIT)).rstrip("\n")
    return content.removeprefix("gitdir: ")


def _layout(path: Path, git_dir: Path, entries: tuple[Path, ...]) -> Layout:
    common_dir = git_dir
    with suppress(FileNotFoundError):
        named = os.fsdecode(_read(git_dir / "commondir", _LOOSE_LIMIT)).rstrip("\n")
        common_dir = git_dir / named
    if not (git_dir / "HEAD").exists() or not (common_dir / "objects").is_dir():
        raise SourceError(f"{path} is not a Git repository: run `git init` there, or name another")
    if (common_dir / "reftable").is_dir():
        raise SourceError(
            f"{path} keeps its references as a reftable, which autopilot cannot read: "
            "run `git refs migrate --ref-format=files` there"
        )
    return Layout(path, git_dir, common_dir, (*entries, git_dir, common_dir))


@dataclass(frozen=True, slots=True)
class Refs:
    """Everything of a repository that moves.

    `branch` is what HEAD names, born or not; `detached` the commit it holds instead. `shallow`
    holds the commits whose parents were never fetched.
    """

    branch: str | None = None
    detached: str | None = None
    named: Mapping[str, str] = field(default_factory=dict)
    shallow: frozenset[str] = frozenset()


def read_refs(layout: Layout, prefixes: Sequence[str] = (HEADS, TAGS)) -> Refs:
    """Reads HEAD, the references below the prefixes and the shallow roots.

    What cannot be a reference (empty after a power cut, a name no one can type) is left out.
    Raises SourceError when HEAD cannot be read or ids are not SHA-1.
    """
    try:
        head = _text(layout.git_dir / "HEAD")
        # Loose before packed: packing writes the packed one before it removes the loose one.
        loose = dict(_loose(layout.common_dir, prefixes))
        packed = _packed(layout.common_dir)
        shallow = _optional(layout.common_dir / "shallow", 1 << 24).decode("ascii", "replace")
    except OSError as error:
        raise SourceError(f"the references of {layout.path} cannot be read: {error}") from error
    everything = {name: text for name, text in packed.items() if name.startswith(tuple(prefixes))}
    everything |= loose
    _refuse_sha256(layout, [head, *everything.values()])
    resolved = {name: _resolved(name, everything) for name in everything if is_ref_name(name)}
    symbolic = head.startswith("ref: ")
    return Refs(
        branch=head.removeprefix("ref: ").strip() if symbolic else None,
        detached=head if FULL_ID.fullmatch(head) else None,
        named={name: commit for name, commit in sorted(resolved.items()) if commit is not None},
        shallow=frozenset(line for line in shallow.split() if FULL_ID.fullmatch(line)),
    )


def reference_folders(layout: Layout) -> dict[str, tuple[int, int]]:
    """Returns the directories in which git renames a file when HEAD or a reference moves, each
    with its inode and modification time."""
    folders: dict[str, tuple[int, int]] = {}
    pending = [str(layout.git_dir), str(layout.common_dir)]
    pending += [str(layout.common_dir / prefix) for prefix in ("refs", HEADS, TAGS)]
    while pending:
        folder = pending.pop()
        with suppress(FileNotFoundError, NotADirectoryError):
            stat = os.stat(folder)
            folders[folder] = (stat.st_ino, stat.st_mtime_ns)
            if folder.startswith(f"{layout.common_dir / 'refs'}/"):
                pending += [entry.path for entry in os.scandir(folder) if _is_folder(entry)]
    return folders


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _refuse_sha256(layout: Layout, values: Sequence[str]) -> None:
    if any(_SHA256.fullmatch(value) for value in values):
        raise SourceError(f"{layout.path} uses SHA-256 ids, which autopilot cannot read yet")


def _resolved(name: str, named: Mapping[str, str]) -> str | None:
    value = named.get(name, "")
    for _ in range(_SYMBOLIC_DEPTH):
        if not value.startswith("ref: "):
            break
        value = named.get(value.removeprefix("ref: ").strip(), "")
    return value if FULL_ID.fullmatch(value) else None


def _loose(common_dir: Path, prefixes: Sequence[str]) -> Iterator[tuple[str, str]]:
    pending = [prefix.rstrip("/") for prefix in prefixes]
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(common_dir / folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            name = f"{folder}/{entry.name}"
            if _is_folder(entry):
                pending.append(name)
            elif not name.endswith(".lock"):
                with suppress(FileNotFoundError):
                    yield name, _text(Path(entry.path))


def _packed(common_dir: Path) -> Mapping[str, str]:
    return _parse_packed(_optional(common_dir / "packed-refs", 1 << 28))


@lru_cache(maxsize=4)
def _parse_packed(content: bytes) -> Mapping[str, str]:
    """Parses `<id> <name>` lines; comments and the peeled `^<id>` lines are skipped."""
    pairs = (line.partition(" ") for line in os.fsdecode(content).split("\n"))
    return {name: value for value, _, name in pairs if name and value != "#"}


def _text(path: Path) -> str:
    return os.fsdecode(_read(path, _LOOSE_LIMIT)).strip()


def _optional(path: Path, limit: int) -> bytes:
    try:
        return _read(path, limit)
    except FileNotFoundError:
        return b""


def _read(path: Path, limit: int) -> bytes:
    """Reads at most `limit` bytes. A FIFO in a stranger's repository must not block us."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read(limit)
