from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.cli.detect import detect
from reconciler.cli.verbs.init import app_name, manifest
from reconciler.manifests.desired import load_desired
from reconciler.model.names import APP_NAME, Revision
from tests.cli.conftest import Shell

pytestmark = pytest.mark.anyio

FASTAPI = "from fastapi import FastAPI\napi: FastAPI = FastAPI()\n@api.get('/health')\n"
PROJECT = '[project]\nname = "x"\nversion = "1"\n'

PROJECTS = {
    "npm": (
        {"package.json": json.dumps({"scripts": {"start": "node s.js", "build": "tsc"}}),
         "package-lock.json": "{}", "s.js": 'app.get("/healthz", ok)'},
        ("npm", "npm ci && npm run build", "npm start", "/healthz"),
    ),
    "npm without a lock": (
        {"package.json": json.dumps({"scripts": {"start": "node s.js"}})},
        ("npm", "npm install", "npm start", None),
    ),
    "uv": (
        {"pyproject.toml": PROJECT, "uv.lock": "", "src/app.py": FASTAPI},
        ("uv", "uv sync --frozen",
         'exec uv run --no-sync uvicorn src.app:api --host "$HOST" --port "$PORT"', "/health"),
    ),
    "uv without a lock": (
        {"pyproject.toml": PROJECT, "main.py": "print()"},
        ("uv", "uv sync", "exec uv run --no-sync python main.py", None),
    ),
    "pip with Flask": (
        {"requirements.txt": "flask", "app.py": "import flask\nweb = flask.Flask(__name__)\n"},
        ("pip", "python3 -m venv .venv && .venv/bin/pip install --quiet -r requirements.txt",
         'exec .venv/bin/flask --app app:web run --host "$HOST" --port "$PORT"', None),
    ),
    "pip with Django": (
        {"requirements.txt": "django", "manage.py": "", "package.json": "{}"},
        ("pip", "python3 -m venv .venv && .venv/bin/pip install --quiet -r requirements.txt",
         'exec .venv/bin/python manage.py runserver --noreload "$HOST:$PORT"', None),
    ),
    "static": (
        {"public/index.html": "<p>"},
        ("static", None,
         'exec python3 -m http.server "$PORT" --bind "$HOST" --directory public', "/"),
    ),
}  # fmt: skip


def fill(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return root


@pytest.mark.parametrize("name", PROJECTS)
def test_project_is_detected_and_its_manifest_is_valid(tmp_path: Path, name: str) -> None:
    files, expected = PROJECTS[name]

    project = detect(fill(tmp_path, files))

    assert project is not None
    assert (project.kind, project.setup, project.start, project.health) == expected
    text = manifest("shop", project)
    desired = load_desired({".autopilot/apps/shop.yaml": text.encode()}, Revision(""))
    assert (desired.problems, desired.warnings) == ((), ())
    contract = next(iter(desired.apps.values()))
    assert contract.processes[0].command == project.start
    assert contract.health_endpoint == project.health


@pytest.mark.parametrize(
    "files",
    [
        {}, {"package.json": "{"}, {"package.json": "[]"}, {"package.json": '{"scripts": 1}'},
        {"pyproject.toml": "["}, {"pyproject.toml": "[tool.x]"}, {"requirements.txt": "x"},
        {"README.md": "x"},
    ],
)  # fmt: skip
def test_nothing_is_guessed(tmp_path: Path, files: dict[str, str]) -> None:
    assert detect(fill(tmp_path, files)) is None


@pytest.mark.parametrize(
    ("directory", "name"),
    [("My Shop", "my-shop"), ("2048", "app-2048"), ("___", "app"), ("été", "t"),
     ("x" * 60, "x" * 40)],
)  # fmt: skip
def test_name_of_the_app_follows_the_directory(directory: str, name: str) -> None:
    assert app_name(directory) == name
    assert APP_NAME.fullmatch(name)


async def test_init_writes_once_and_says_what_is_next(shell: Shell, tmp_path: Path) -> None:
    root = fill(tmp_path / "shop", PROJECTS["npm"][0])

    ran = await shell("init", cwd=root)
    written = (root / ".autopilot/apps/shop.yaml").read_text(encoding="utf-8")
    (root / "package.json").write_text("{}", encoding="utf-8")
    again = await shell("init", str(root))

    assert ran.code == 0
    for said in ("wrote .autopilot/apps/shop.yaml", "git init", "git commit", "autopilot start"):
        assert said in ran.out
    assert (again.code, "nothing was written" in again.out) == (0, True)
    assert (root / ".autopilot/apps/shop.yaml").read_text(encoding="utf-8") == written
    assert (await shell("validate", str(root))).code == 0


async def test_init_of_something_unknown_writes_nothing(shell: Shell, tmp_path: Path) -> None:
    ran = await shell("init", cwd=tmp_path)

    assert ran.code == 1
    assert "start_command:" in ran.out
    assert not (tmp_path / ".autopilot").exists()
    assert (await shell("init", str(tmp_path / "missing"))).code == 1


async def test_validate_tells_every_problem_with_file_and_line(
    shell: Shell, tmp_path: Path
) -> None:
    fill(tmp_path, {
        ".autopilot/apps/a.yaml": "start_command: x\nhealth_timeout_ms: soon\ncolour: red\n",
        ".autopilot/apps/b.yaml": "start_command: x\nalert_webhook: http://127.0.0.1/\n",
    })  # fmt: skip

    ran = await shell("validate", str(tmp_path))
    as_json = await shell("validate", "--json", cwd=tmp_path)

    assert (ran.code, as_json.code) == (1, 1)
    assert ".autopilot/apps/a.yaml:2: " in ran.out
    assert ".autopilot/apps/a.yaml:3: " in ran.out
    assert ".autopilot/apps/b.yaml:2: warning: " in ran.out
    assert "2 problems; nothing is deployed" in ran.out
    document = json.loads(as_json.out)
    assert (document["valid"], len(document["problems"])) == (False, 2)


async def test_validate_of_a_good_work_tree(shell: Shell, tmp_path: Path) -> None:
    fill(tmp_path, {".autopilot/apps/web.yaml": "start_command: x\n"})
    (tmp_path / ".git").mkdir()
    (tmp_path / "deep").mkdir()

    ran = await shell("validate", cwd=tmp_path / "deep")

    assert (ran.code, ran.out) == (0, "valid: web\n")


async def test_validate_without_manifests_says_how_to_begin(shell: Shell) -> None:
    ran = await shell("validate")

    assert (ran.code, "autopilot init" in ran.err) == (1, True)
