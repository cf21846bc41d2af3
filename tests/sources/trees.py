"""Real repositories for tests, made by the real git, and the comparison of a slot with a tree."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.model.names import Revision

AUTHOR = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "A U Thor"), ("EMAIL", "author@example.org"))
}
NOBODY = 65534


@dataclass(frozen=True)
class Link:
    target: bytes


@dataclass(frozen=True)
class Program:
    content: bytes


@dataclass(frozen=True)
class Submodule:
    commit: str = "1" * 40


Content = bytes | Link | Program | Submodule
Tree = Mapping[str, Content]


def run_git(*arguments: str, cwd: Path, stdin: bytes = b"", owner: int | None = None) -> bytes:
    """Runs git with nothing of this host's configuration, as another user if one is named."""
    environment = AUTHOR | {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CEILING_DIRECTORIES": str(cwd.parent),
        "GIT_ALLOW_PROTOCOL": "file",
    }
    return subprocess.run(
        ["git", "-c", "gc.auto=0", *arguments],
        cwd=cwd,
        env=environment,
        input=stdin,
        capture_output=True,
        check=True,
        user=owner,
        group=owner,
        extra_groups=[] if owner is not None else None,
    ).stdout


@dataclass(frozen=True)
class Repository:
    path: Path

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        return os.fsdecode(run_git(*arguments, cwd=self.path, stdin=stdin)).strip()

    def commit(self, tree: Tree, message: str = "change", branch: str = "main") -> Revision:
        """Commits exactly this tree on top of the branch, through objects only: any name goes."""
        self.git("fast-import", "--quiet", "--force", stdin=self._stream(tree, message, branch))
        return self.head(branch)

    def head(self, name: str = "HEAD") -> Revision:
        return Revision(self.git("rev-parse", "--verify", f"{name}^{{commit}}"))

    def save(self, name: str, content: str, message: str = "change") -> Revision:
        """Commits one file the way people do, through worktree and index."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.head()

    def _stream(self, tree: Tree, message: str, branch: str) -> bytes:
        text = message.encode()
        lines = [f"commit refs/heads/{branch}".encode(), b"committer A <a@b> 1700000000 +0000"]
        lines += [b"data %d" % len(text), text]
        if branch in self.git("for-each-ref", "--format=%(refname:short)").split("\n"):
            lines.append(f"from refs/heads/{branch}^0".encode())
        lines.append(b"deleteall")
        for path, content in tree.items():
            mode, data = _mode_and_data(content)
            if isinstance(content, Submodule):
                lines.append(b"M 160000 %s %s" % (content.commit.encode(), _quoted(path)))
            else:
                lines += [b"M %s inline %s" % (mode, _quoted(path)), b"data %d" % len(data), data]
        return b"\n".join([*lines, b""])


def _mode_and_data(content: Content) -> tuple[bytes, bytes]:
    match content:
        case Link(target):
            return b"120000", target
        case Program(data):
            return b"100755", data
        case Submodule():
            return b"160000", b""
        case bytes():
            return b"100644", content


def _quoted(path: str) -> bytes:
    escaped = os.fsencode(path).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"' + escaped.replace(b"\n", b"\\n") + b'"'


def make_repository(path: Path, *, bare: bool = False) -> Repository:
    path.mkdir(parents=True)
    bareness = ["--bare"] if bare else []
    run_git("init", "--quiet", "--initial-branch=main", *bareness, cwd=path)
    return Repository(path)


def tree_of(repository: Repository, revision: str) -> dict[str, Content]:
    """Returns the tree as git's own plumbing tells it."""
    listing = run_git("ls-tree", "-rz", "--full-tree", revision, cwd=repository.path)
    tree: dict[str, Content] = {}
    for entry in listing.split(b"\0")[:-1]:
        (mode, kind, object_id), path = entry.partition(b"\t")[0].split(), entry.partition(b"\t")[2]
        data = b""
        if kind == b"blob":
            data = run_git("cat-file", "blob", object_id.decode(), cwd=repository.path)
        kinds: dict[bytes, Content] = {b"120000": Link(data), b"100755": Program(data)}
        kinds |= {b"100644": data, b"160000": Submodule(object_id.decode())}
        tree[os.fsdecode(path)] = kinds[mode]
    return tree


def files_of(worktree: Path) -> dict[str, Content]:
    """Returns what a directory holds, following no link; an empty directory is a submodule."""
    found: dict[str, Content] = {}
    for folder, folders, files in os.walk(worktree):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in [*files, *links]:
            path = Path(folder, name)
            found[str(path.relative_to(worktree))] = _content(path)
        if not folders and not files and Path(folder) != worktree:
            found[str(Path(folder).relative_to(worktree))] = Submodule()
    return found


def _content(path: Path) -> Content:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return Link(os.fsencode(path.readlink()))
    assert stat.S_ISREG(mode), f"{path} is neither a file nor a link"
    return Program(path.read_bytes()) if mode & 0o100 else path.read_bytes()


def assert_equals_tree(
    worktree: Path, repository: Repository, revision: str, kept: tuple[str, ...] = ()
) -> None:
    """Compares every file: name, content, mode, link target. Nothing more may be there."""
    found = {
        path: content
        for path, content in files_of(worktree).items()
        if not any(path == name or path.startswith(f"{name}/") for name in kept)
    }
    expected = {
        path: Submodule() if isinstance(content, Submodule) else content
        for path, content in tree_of(repository, revision).items()
    }
    assert found == expected


def give_to(path: Path, user: int) -> None:
    """Makes everything below a path another user's."""
    for folder, folders, files in os.walk(path):
        os.chown(folder, user, user)
        for name in [*folders, *files]:
            os.chown(Path(folder, name), user, user, follow_symlinks=False)
