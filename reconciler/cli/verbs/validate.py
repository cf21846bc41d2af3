"""`autopilot validate`: every problem in the manifests of a work tree, at once."""

from __future__ import annotations

import json
from pathlib import Path

import click

from reconciler.cli.render import Paint
from reconciler.cli.session import Session, pass_session, repository_above, with_session
from reconciler.model.desired import Desired, Problem
from reconciler.model.errors import ReconcilerError
from reconciler.model.names import Revision

MAX_FILE = 1 << 20


@click.command("validate")
@click.argument("path", required=False, default=".")
@with_session
@pass_session
def command(session: Session, path: str) -> int:
    """Check every manifest of the work tree at PATH.

    Committed or not; all problems at once, as file:line: message.
    """
    from reconciler.manifests.desired import load_desired  # noqa: PLC0415 (jsonschema takes a while)

    desired = load_desired(read_manifests(manifest_root(Path(path))), Revision(""))
    if session.json:
        click.echo(json.dumps(_document(desired), indent=2))
    else:
        click.echo("\n".join(_lines(desired, Paint(session.color))))
    return 0 if desired.valid else 1


def manifest_root(path: Path) -> Path:
    """Returns the directory that holds `.autopilot/`; ReconcilerError says how to begin."""
    start = path.resolve()
    for root in (start, repository_above(start)):
        if root is not None and (root / ".autopilot").is_dir():
            return root
    raise ReconcilerError(f"there is no .autopilot/ in {start}; write one with `autopilot init`")


def read_manifests(root: Path) -> dict[str, bytes]:
    """Reads what the daemon would read of a commit: no links, nothing over 1 MiB."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted((root / ".autopilot").rglob("*"))
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_FILE
    }


def _lines(desired: Desired, paint: Paint) -> list[str]:
    lines = [str(problem) for problem in desired.problems]
    lines += [_warning(one, paint) for one in desired.warnings]
    if desired.problems:
        count = len(desired.problems)
        lines.append(
            paint(f"{count} problem{'s' if count > 1 else ''}; nothing is deployed", "bad")
        )
    elif desired.apps:
        lines.append(paint(f"valid: {', '.join(sorted(desired.apps))}", "ok"))
    else:
        lines.append(paint("valid, but there is no app in .autopilot/apps/", "warn"))
    return lines


def _warning(one: Problem, paint: Paint) -> str:
    return f"{one.file}:{one.line}: {paint('warning', 'warn')}: {one.message}"


def _document(desired: Desired) -> dict[str, object]:
    return {
        "valid": desired.valid,
        "apps": sorted(desired.apps),
        "problems": [_record(one) for one in desired.problems],
        "warnings": [_record(one) for one in desired.warnings],
    }


def _record(one: Problem) -> dict[str, object]:
    return {"file": one.file, "line": one.line, "message": one.message}
