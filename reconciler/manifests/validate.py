"""What one manifest may not say although each value by itself is fine."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from reconciler.manifests.contract import contract_of, not_enforced, relative_path
from reconciler.manifests.parse import Document, KeyPath
from reconciler.manifests.schema import dotted, schema_errors
from reconciler.model.canonical import Json
from reconciler.model.desired import AppContract, Problem
from reconciler.model.names import APP_NAME, SETUP, WEB, AppName

# What the daemon sets for every process. PATH, HOME, LANG and the like may be overridden.
RESERVED_VARIABLES = frozenset(
    {"HOST", "INTERNAL_PORT", "INTERNAL_SOCKET", "ORCHESTRATOR_URL", "PORT"}
)
RESERVED_PREFIX = "AUTOPILOT"

# What only a process that gets traffic can answer.
NEEDS_WEB = (
    "bind",
    "health_endpoint",
    "health_test_payload",
    "internal_port",
    "internal_socket",
    "port",
    "routes",
    "schema_status_endpoint",
)

Finding: TypeAlias = tuple[KeyPath, str]


@dataclass(frozen=True, slots=True)
class Checked:
    """One manifest after its checks.

    `contract` holds whatever is sound even beside problems, for the checks between apps; it is None
    only if the app has no usable name.
    """

    document: Document
    contract: AppContract | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def check(document: Document) -> Checked:
    """Finds every problem of one manifest: the schema's first, then what only code can tell.

    A key with a problem of form is set aside, so that the rest is still checked.
    """
    if not isinstance(document.value, Mapping):
        problems = tuple(document.problem(*finding) for finding in schema_errors(document))
        return Checked(document, None, problems, ())
    findings = list(schema_errors(document))
    faulty = {path[0] for path, _ in findings if path} | {path[0] for path in document.unread}
    sound = {key: value for key, value in document.value.items() if key not in faulty}
    findings += _findings(sound, document.value)
    name = _name(sound.get("name", "" if "name" in document.value else _stem(document.file)))
    if name is None and "name" not in document.value:
        findings.append((("name",), _unnamed(document.file)))
    rejected = {path[0] for path, _ in findings if path}
    usable = {key: value for key, value in sound.items() if key not in rejected}
    return Checked(
        document,
        contract_of(name, usable) if name else None,
        tuple(document.problem(*finding) for finding in findings),
        tuple(_warnings(document, sound)),
    )


def _name(name: Json) -> AppName | None:
    return AppName(name) if isinstance(name, str) and APP_NAME.fullmatch(name) else None


def _stem(file: str) -> str:
    return PurePosixPath(file).name.partition(".")[0]


def _unnamed(file: str) -> str:
    return f"the file name gives the app the name `{_stem(file)}`, which is not one: set `name`"


def _warnings(document: Document, sound: Mapping[str, Json]) -> Iterator[Problem]:
    for key in not_enforced(sound):
        yield document.problem(
            (key,), f"`{key}` is not enforced by this version: it is checked but does nothing"
        )


def _findings(sound: Mapping[str, Any], authored: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _process_findings(sound)
    if "processes" in sound and WEB not in sound["processes"] and "start_command" not in authored:
        yield from _no_web_findings(sound)
    yield from _address_findings(sound)
    yield from _directory_findings(sound)
    yield from _variable_findings(sound)


def _process_findings(sound: Mapping[str, Any]) -> Iterator[Finding]:
    for name, value in sound.get("processes", {}).items():
        path = ("processes", name)
        if name == SETUP:
            yield path, f"{dotted(path)}: the name is reserved for `setup_command`"
        if name != WEB:
            continue
        if "start_command" in sound:
            yield path, f"{dotted(path)}: `start_command` is the command of `web` already"
        if isinstance(value, Mapping) and value.get("start") == "after":
            yield (*path, "start"), f"{dotted(path)}: `web` starts before the switch"
        if isinstance(value, Mapping) and value.get("count", 1) > 1:
            yield (*path, "count"), f"{dotted(path)}: `web` runs once, its `count` must be 1"


def _no_web_findings(sound: Mapping[str, Any]) -> Iterator[Finding]:
    for key in NEEDS_WEB:
        if sound.get(key):
            yield (key,), f"{key}: needs a process named `web`, and there is none"
    for name, value in sound["processes"].items():
        if isinstance(value, Mapping) and value.get("start") == "after":
            path = ("processes", name, "start")
            yield path, f"{dotted(path)}: without `web` every process starts before the switch"


def _address_findings(sound: Mapping[str, Any]) -> Iterator[Finding]:
    if "bind" in sound and not _is_address(sound["bind"]):
        yield ("bind",), "bind: must be an IP address, e.g. 127.0.0.1 or ::1"
    if sound.get("internal_socket") and "internal_port" in sound:
        yield ("internal_socket",), "internal_socket: replaces `internal_port`: give one of the two"


def _is_address(value: str) -> bool:
    try:
        return not getattr(ipaddress.ip_address(value), "scope_id", None)
    except ValueError:
        return False


def _directory_findings(sound: Mapping[str, Any]) -> Iterator[Finding]:
    given = [
        ((key, index), PurePosixPath(relative_path(value)))
        for key in ("shared_dirs", "keep_dirs")
        for index, value in enumerate(sound.get(key, ()))
    ]
    whole = PurePosixPath()
    for path, directory in given:
        if directory == whole:
            yield path, f"{dotted(path)}: must be a directory below the app's own"
    for (first, outer), (second, inner) in combinations(given, 2):
        if whole in (outer, inner):
            continue
        if outer.is_relative_to(inner) or inner.is_relative_to(outer):
            yield second, f"{dotted(second)}: `{inner}` overlaps with `{outer}` of {dotted(first)}"


def _variable_findings(sound: Mapping[str, Any]) -> Iterator[Finding]:
    names: list[tuple[KeyPath, str]] = [(("env", name), name) for name in sound.get("env", ())]
    for index, name in enumerate(sound.get("secrets_inject", ())):
        names.append((("secrets_inject", index), name))
    for path, name in names:
        if name in RESERVED_VARIABLES or name.startswith(RESERVED_PREFIX):
            yield path, f"{dotted(path)}: `{name}` is set by autopilot itself"
