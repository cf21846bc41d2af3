"""`autopilot init`: a first manifest for the project here. Never overwrites."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

from reconciler.cli.detect import Project, detect
from reconciler.cli.session import Session, pass_session, repository_above, with_session
from reconciler.model.errors import ReconcilerError

MAX_NAME = 40

EXAMPLE = """\
# .autopilot/apps/web.yaml
start_command: exec ./server --listen "$HOST:$PORT"   # the app must listen there
health_endpoint: /healthz                             # a page that answers 2xx
routes:
  - path: /
"""


@click.command("init")
@click.argument("path", required=False, default=".")
@with_session
@pass_session
def command(session: Session, path: str) -> int:
    """Write .autopilot/ for the project at PATH.

    Detects npm, uv, pip and static sites. Never overwrites.
    """
    root = Path(path).resolve()
    if not root.is_dir():
        raise ReconcilerError(f"{root} is not a directory; name the one that holds the project")
    if present := sorted((root / ".autopilot/apps").glob("*.*")):
        names = ", ".join(one.name for one in present)
        click.echo(f".autopilot/apps/ has {names} already; nothing was written.")
        click.echo("Check it with: autopilot validate")
        return 0
    project = detect(root)
    if project is None:
        click.echo(
            f"autopilot: no npm start script, uv or pip project, nor index.html in {root}; nothing "
            "was written. Write a file like this one by hand:\n",
            err=True,
        )
        click.echo(EXAMPLE)
        return 1
    file = _write(root, project)
    if session.json:
        click.echo(json.dumps({"kind": project.kind, "file": str(file)}))
    else:
        click.echo(_next_steps(root, file, project))
    return 0


def _write(root: Path, project: Project) -> Path:
    name = app_name(root.name)
    file = root / ".autopilot/apps" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    # Exclusive: between looking and writing somebody may have written one.
    with file.open("x", encoding="utf-8") as out:
        out.write(manifest(name, project))
    return file


def app_name(text: str) -> str:
    """Returns a name of an app that is as close to the text as the rules allow."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    name = name if name[:1].isalpha() else f"app-{name}".strip("-")
    return name[:MAX_NAME].strip("-")


def manifest(name: str, project: Project) -> str:
    """Returns the manifest, commented for somebody who sees one for the first time."""
    lines = [
        f"# How autopilot runs {name} (found: {project.kind}). Change it, commit it, done.",
        "# Every key is described in docs/manifest.md; `autopilot validate` checks this file.",
        "",
    ]
    if project.setup is not None:
        lines += [
            "# Runs once in every new checkout, before the app starts.",
            f"setup_command: {json.dumps(project.setup)}",
            "",
        ]
    lines += [
        "# Must keep running and listen on $HOST:$PORT. Both are set for it, and differ at each",
        "# deploy, so that the new revision can be proved while the old one serves.",
        f"start_command: {json.dumps(project.start)}",
        "",
        *_health_lines(project),
        "",
        "# What leads here, through http://127.0.0.1:8080. Add `host:` to tell apps apart by name.",
        "routes:",
        "  - path: /",
    ]
    if project.keep_dirs:
        lines += [
            "",
            "# Untracked directories that stay when a slot moves on, so that setup is quick.",
            f"keep_dirs: {json.dumps(list(project.keep_dirs))}",
        ]
    return "\n".join(lines) + "\n"


def _health_lines(project: Project) -> list[str]:
    if project.health is None:
        return [
            "# No health page was found, so an open port counts as healthy. Better: let the app",
            "# answer 2xx at /healthz once it can serve, and write that path here.",
            "health_endpoint: null",
        ]
    return [
        "# Must answer 2xx before the app gets traffic, and as long as it is live.",
        f"health_endpoint: {project.health}",
    ]


def _next_steps(root: Path, file: Path, project: Project) -> str:
    steps = [
        f"found a project for {project.kind}; wrote {file.relative_to(root)}",
        "autopilot keeps its own files in .data/, which Git does not see.",
        "Next:",
    ]
    if repository_above(root) is None:
        steps.append("  git init")
    steps += ["  git add --all && git commit -m 'Deploy with autopilot'", "  autopilot start"]
    return "\n".join(steps)
