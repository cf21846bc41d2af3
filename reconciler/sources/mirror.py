"""The mirror's directory: what its references are called, who may read what of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.host.files import ensure_directory
from reconciler.model.names import Revision
from reconciler.sources.refs import HEADS, TAGS, Layout, Refs, read_refs

OURS = "refs/autopilot/"
REMOTE_HEADS = "refs/remotes/origin/"
MANY = 100


def make_beside(mirror: Path) -> Path:
    """Makes an empty directory beside the mirror, to become or to feed it; removes what a crash
    left of others."""
    for folder in reversed([folder for folder in mirror.parents if not folder.exists()]):
        ensure_directory(folder, 0o711)
    for leftover in mirror.parent.glob(f".{mirror.name}.*"):
        shutil.rmtree(leftover)
    return Path(tempfile.mkdtemp(prefix=f".{mirror.name}.", dir=mirror.parent))


def protect(mirror: Path) -> None:
    """Lets the apps' users read objects through the slots' git directories, and nothing else."""
    _set_mode(mirror, 0o711)
    for entry in mirror.iterdir():
        if entry.name != "objects":
            _set_mode(entry, 0o700 if entry.is_dir() else 0o600)
    for folder, _, files in os.walk(mirror / "objects"):
        _set_mode(Path(folder), 0o755)
        for file in files:
            _set_mode(Path(folder, file), 0o444)


def _set_mode(path: Path, mode: int) -> None:
    with suppress(FileNotFoundError):
        if path.stat().st_mode & 0o7777 != mode:
            path.chmod(mode)


def adopt_packs(mirror: Path, beside: Path) -> None:
    # An index names its pack, so the packs come first.
    files = sorted((beside / "objects/pack").iterdir(), key=lambda file: file.suffix != ".pack")
    for file in files:
        file.rename(mirror / "objects/pack" / file.name)
    shutil.rmtree(beside)


def mirror_refs(mirror: Path) -> Refs:
    if not (mirror / "HEAD").exists():
        return Refs()
    return read_refs(Layout(mirror, mirror, mirror, ()), (REMOTE_HEADS, TAGS))


def mirrored_name(name: str) -> str:
    """Returns what a branch or tag of theirs is called in the mirror."""
    return REMOTE_HEADS + name.removeprefix(HEADS) if name.startswith(HEADS) else name


def mirrored_refs(theirs: Refs) -> dict[str, str]:
    return {mirrored_name(name): commit for name, commit in theirs.named.items()}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a fetch is to bring: references of theirs with their ids, and a detached HEAD."""

    named: Mapping[str, str]
    detached: bool

    @classmethod
    def of(cls, theirs: Refs, ours: Refs | None = None) -> Wanted:
        """Returns what theirs has and ours has not."""
        have = ours.named if ours is not None else {}
        moved = {
            name: commit
            for name, commit in theirs.named.items()
            if have.get(mirrored_name(name)) != commit
        }
        return cls(moved, theirs.detached is not None)

    def without(self, commit: str) -> Wanted:
        named = {name: wanted for name, wanted in self.named.items() if wanted != commit}
        return Wanted(named, self.detached)

    def refspecs(self, *, one_by_one: bool = False) -> list[str]:
        """Spells it for git; many at once as patterns, since each refspec is matched with each
        reference."""
        specs = [f"+{name}:{mirrored_name(name)}" for name in self.named]
        if len(specs) > MANY and not one_by_one:
            specs = [f"+{HEADS}*:{REMOTE_HEADS}*", f"+{TAGS}*:{TAGS}*"]
        return [*specs, "HEAD"] if self.detached else specs


def mirrored_heads(refs: Refs) -> dict[str, Revision]:
    named = {
        name.removeprefix(REMOTE_HEADS): Revision(commit)
        for name, commit in refs.named.items()
        if name.startswith(REMOTE_HEADS)
    }
    # A branch of that name could not be told from a detached HEAD.
    named.pop("HEAD", None)
    return named


def mirrored_branch(refs: Refs) -> str | None:
    if refs.branch is None or not refs.branch.startswith(REMOTE_HEADS):
        return None
    return refs.branch.removeprefix(REMOTE_HEADS)


def reference_names(text: str) -> Iterator[str]:
    """Yields what the text could name, in order: branches hide tags."""
    yield REMOTE_HEADS + text
    yield TAGS + text
    for prefix, meant in (
        ("origin/", REMOTE_HEADS),
        (HEADS, REMOTE_HEADS),
        (REMOTE_HEADS, REMOTE_HEADS),
        (TAGS, TAGS),
    ):
        if text.startswith(prefix):
            yield meant + text.removeprefix(prefix)
    if text == "HEAD":
        yield text
