"""From the files of `.autopilot/` to desired state, with the checks between apps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from reconciler.manifests.parse import KeyPath, parse_document
from reconciler.manifests.validate import Checked, check
from reconciler.model.desired import AppContract, Desired, Problem, Route
from reconciler.model.names import Revision

APPS = PurePosixPath(".autopilot/apps")
SUFFIXES = (".json", ".yaml", ".yml")

NO_FILES: Mapping[str, bytes] = {}


def load_desired(
    files: Mapping[str, bytes], revision: Revision, contracts: Mapping[str, bytes] = NO_FILES
) -> Desired:
    """Returns what the files ask for, with every problem at once; with problems there are no apps.

    `files` maps paths from the root of the repository to contents; only `.autopilot/apps/` is read.
    `contracts` are files from outside the repository, by name: apps like the others.
    """
    manifests = {file: content for file, content in files.items() if _is_manifest(file)}
    problems: list[Problem] = []
    warnings = list(_ignored(files))
    checked: list[Checked] = []
    for file, content in sorted({**manifests, **contracts}.items()):
        document, unreadable = parse_document(file, content)
        problems += unreadable
        if document:
            checked.append(check(document))
    for one in checked:
        problems += one.problems
        warnings += one.warnings
    problems += _clashes(checked)
    apps = {} if problems else {one.contract.name: one.contract for one in checked if one.contract}
    return Desired(revision, apps, _sorted(problems), _sorted(warnings))


def load_contract(
    file_name: str, content: bytes
) -> tuple[AppContract | None, tuple[Problem, ...], tuple[Problem, ...]]:
    """Returns the contract in a file outside the repository, its problems and its warnings.

    The contract is None exactly if there are problems.
    """
    desired = load_desired(NO_FILES, Revision(""), {file_name: content})
    contract = next(iter(desired.apps.values()), None)
    return contract, desired.problems, desired.warnings


def _is_manifest(file: str) -> bool:
    path = PurePosixPath(file)
    return path.parent == APPS and path.suffix in SUFFIXES


def _ignored(files: Iterable[str]) -> Iterator[Problem]:
    for file in files:
        path = PurePosixPath(file)
        # A hidden file such as .gitkeep is nobody's mistake.
        if not path.is_relative_to(APPS) or path.name.startswith("."):
            continue
        if path.parent == APPS and path.suffix not in SUFFIXES:
            yield Problem(file, 1, f"is ignored: an app is a file named *{', *'.join(SUFFIXES)}")
        elif path.parent != APPS and path.suffix in SUFFIXES:
            yield Problem(file, 1, f"is ignored: an app is a file in {APPS}/ itself")


def _clashes(checked: Iterable[Checked]) -> Iterator[Problem]:
    """Finds what two apps, or one app twice, may not claim."""
    taken: dict[str | int | Route, tuple[Checked, KeyPath]] = {}
    for one in checked:
        for claim, path, words in _claims(one):
            if claim not in taken:
                taken[claim] = one, path
                continue
            first, at = taken[claim]
            where = f"{first.document.file}:{first.document.line(at)}"
            yield one.document.problem(path, f"{words} is taken already, by {where}")


def _claims(one: Checked) -> Iterator[tuple[str | int | Route, KeyPath, str]]:
    contract = one.contract
    if not contract:
        return
    yield contract.name, ("name",), f"name: `{contract.name}`"
    if contract.port:
        yield contract.port, ("port",), f"port: {contract.port}"
    if contract.internal_port:
        yield contract.internal_port, ("internal_port",), f"internal_port: {contract.internal_port}"
    for index, route in enumerate(contract.routes):
        address = f"{route.host or 'any host'} with path {route.path}"
        yield route, ("routes", index), f"routes[{index}]: {address}"


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(set(problems), key=lambda one: (one.file, one.line, one.message)))
