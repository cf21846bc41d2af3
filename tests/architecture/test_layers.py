"""Floors, rooms, names and what is shipped: the shape that the design promises."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "reconciler"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
MODULES = sorted(PACKAGE.rglob("*.py"))

# A name that says nothing attracts everything.
EMPTY_NAMES = {
    "base", "common", "helper", "helpers", "lib", "manager", "managers", "misc", "util", "utils",
}  # fmt: skip
# Of these no import is seen: who names them takes them by another way.
NOT_IMPORTED = {
    "httptools": "uvicorn's protocol, which is built on it",
}


def rooms() -> list[str]:
    """The rooms of the floors contract, from the top down."""
    contracts = PROJECT["tool"]["importlinter"]["contracts"]
    (floors,) = (one for one in contracts if one["type"] == "layers")
    return [room.strip() for layer in floors["layers"] for room in layer.split("|")]


def imports(path: Path) -> Iterator[str]:
    """The top-level names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def foreign(path: Path) -> set[str]:
    tops = {name.partition(".")[0] for name in imports(path)}
    return tops - set(sys.stdlib_module_names) - {"reconciler"}


def declared() -> set[str]:
    """The distributions that the project depends on at run time, extras left out."""
    return {normal(re.split(r"[<>=!~\[; ]", one)[0]) for one in PROJECT["project"]["dependencies"]}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_import_contract_is_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(linter), "--no-cache", "--no-logo"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_room_is_on_a_floor_and_none_is_empty() -> None:
    entries = {path.stem for path in PACKAGE.glob("[!_]*") if path.suffix in ("", ".py")}
    assert entries == set(rooms())
    for room in (path for path in PACKAGE.glob("[!_]*") if path.is_dir()):
        assert [path for path in room.glob("*.py") if path.name != "__init__.py"], room


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]
    assert not [name_of(path) for path in silent]


def test_no_name_is_empty_of_meaning() -> None:
    sources = [*MODULES, *(ROOT / "tests").rglob("*.py")]
    parts = {
        (name_of(path), word)
        for path in sources
        for part in path.relative_to(ROOT).with_suffix("").parts
        for word in part.split("_")
    }
    assert not sorted(pair for pair in parts if pair[1] in EMPTY_NAMES)


def test_model_needs_the_standard_library_only() -> None:
    for path in (PACKAGE / "model").glob("*.py"):
        assert not foreign(path), path
        ours = {name for name in imports(path) if name.startswith("reconciler")}
        assert all(name.startswith("reconciler.model") for name in ours), path


def test_only_declared_dependencies_are_imported() -> None:
    distributions = packages_distributions()
    used = {name for path in MODULES for name in foreign(path)}
    needed = {normal(one) for name in used for one in distributions.get(name, [name])}
    assert needed <= declared()
    assert declared() - needed == NOT_IMPORTED.keys()


def test_locks_hold_every_dependency_with_hashes_and_name_no_index() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text("utf-8")
        assert not re.findall("https?:|index-url", text), lock
        pinned = {normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)}
        assert declared() <= pinned, lock
        entries = re.split(r"^(?=[A-Za-z0-9._-]+==)", text, flags=re.MULTILINE)[1:]
        assert all("--hash=sha256:" in entry for entry in entries), lock


def test_wheel_holds_the_package_with_its_data_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, capture_output=True, check=True, timeout=100,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    shipped = {name for name in names if ".dist-info/" not in name}
    wanted = {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"reconciler/slots/launcher.sh", "reconciler/manifests/schemas/app.schema.json"} < wanted
    assert shipped == wanted
    assert any(name.endswith("licenses/LICENSE") for name in names)
