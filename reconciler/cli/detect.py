"""Detecting what a directory is: enough of npm, uv, pip and static sites for a first manifest."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HEALTH = re.compile(r"""["'`](/(?:healthz|health|_health|readyz|up|ping))["'`]""")
SOURCES = (".py", ".js", ".ts", ".mjs", ".cjs")
SKIPPED = frozenset({"node_modules", ".venv", "venv", ".git", ".data", "dist", "build"})
MAX_SOURCES = 300
MAX_SOURCE = 256 << 10

ENTRIES = ("main.py", "app.py", "server.py", "asgi.py", "wsgi.py", "src/main.py", "src/app.py")
FRAMEWORK = re.compile(
    r"^(\w+)\s*(?::[^=\n]+)?=\s*(?:\w+\.)?(FastAPI|Starlette|Litestar|Flask)\(", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Project:
    """What was found, and the commands that follow from it. `health` None: no page was found."""

    kind: str
    setup: str | None
    start: str
    health: str | None
    keep_dirs: tuple[str, ...] = ()


def detect(root: Path) -> Project | None:
    """Returns the project in the directory, None when it is none of those known."""
    for look in (_npm, _uv, _pip, _static):
        if project := look(root):
            return project
    return None


def _npm(root: Path) -> Project | None:
    package = _json(root / "package.json")
    scripts = package.get("scripts")
    if not isinstance(scripts, dict) or not isinstance(scripts.get("start"), str):
        return None
    locked = (root / "package-lock.json").is_file()
    setup = "npm ci" if locked else "npm install"
    if isinstance(scripts.get("build"), str):
        setup += " && npm run build"
    # `npm ci` removes node_modules before anything else, so keeping it would gain nothing.
    keep = () if locked else ("node_modules",)
    return Project("npm", setup, "npm start", _health(root), keep)


def _uv(root: Path) -> Project | None:
    document = _toml(root / "pyproject.toml")
    locked = (root / "uv.lock").is_file()
    if not locked and "project" not in document:
        return None
    start = _python_start(root, "uv run --no-sync ")
    setup = "uv sync --frozen" if locked else "uv sync"
    return Project("uv", setup, start, _health(root), (".venv",)) if start else None


def _pip(root: Path) -> Project | None:
    if not (root / "requirements.txt").is_file():
        return None
    start = _python_start(root, ".venv/bin/")
    setup = "python3 -m venv .venv && .venv/bin/pip install --quiet -r requirements.txt"
    return Project("pip", setup, start, _health(root), (".venv",)) if start else None


def _static(root: Path) -> Project | None:
    for directory in (".", "public", "dist", "site"):
        if (root / directory / "index.html").is_file():
            start = 'python3 -m http.server "$PORT" --bind "$HOST"'
            start += "" if directory == "." else f" --directory {directory}"
            return Project("static", None, f"exec {start}", "/")
    return None


def _python_start(root: Path, prefix: str) -> str | None:
    """Returns the command for the framework that an entry file uses, else the file itself."""
    found = [entry for entry in ENTRIES if (root / entry).is_file()]
    for entry in found:
        if match := FRAMEWORK.search(_read(root / entry)):
            module = entry.removesuffix(".py").replace("/", ".")
            return f"exec {prefix}{_serve(match[2], f'{module}:{match[1]}')}"
    if (root / "manage.py").is_file():
        return f'exec {prefix}python manage.py runserver --noreload "$HOST:$PORT"'
    return f"exec {prefix}python {found[0]}" if found else None


def _serve(framework: str, app: str) -> str:
    if framework == "Flask":
        return f'flask --app {app} run --host "$HOST" --port "$PORT"'
    return f'uvicorn {app} --host "$HOST" --port "$PORT"'


def _health(root: Path) -> str | None:
    """Returns the health page that the sources name, None when none is seen."""
    found = {match[1] for path in _sources(root) for match in HEALTH.finditer(_read(path))}
    preferred = ("/healthz", "/health", "/_health", "/readyz", "/up", "/ping")
    return next((page for page in preferred if page in found), None)


def _sources(root: Path) -> Iterator[Path]:
    """Yields source files, the shallow ones first, and not more than a glance is worth."""
    pending, seen = [root], 0
    while pending and seen < MAX_SOURCES:
        with suppress(OSError):
            for path in sorted(pending.pop(0).iterdir()):
                if path.is_symlink() or path.name in SKIPPED:
                    continue
                if path.is_dir():
                    pending.append(path)
                elif path.suffix in SOURCES:
                    seen += 1
                    yield path


def _read(path: Path) -> str:
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        return file.read(MAX_SOURCE)
    return ""


def _json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(_read(path))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError:
        return {}
