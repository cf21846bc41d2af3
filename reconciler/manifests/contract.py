"""From a checked document to an app's contract: the defaults of the contract's table filled in."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any

from reconciler.model.canonical import Json, canonical
from reconciler.model.desired import AppContract, HealthTest, Limits, ProcessSpec, Route, When
from reconciler.model.errors import ReconcilerError
from reconciler.model.names import WEB, AppName, ProcessName

# Keys of later versions: checked, recorded, and without effect.
UNENFORCED = frozenset(
    {
        "agent_branch",
        "alert_webhook",
        "approval_timeout_ms",
        "max_deploy_size_mb",
        "max_diff_lines",
        "protected_paths",
        "schema_status_endpoint",
        "smoke_command",
        "smoke_timeout_ms",
    }
)
# Keys of which some values have no effect yet.
UNENFORCED_VALUES: Mapping[str, tuple[Json, ...]] = {
    "approval": ("machine", "all"),
    "driver": ("systemd",),
    "internal_socket": (True,),
}


def contract_of(name: AppName, document: Mapping[str, Json]) -> AppContract:
    """Returns the contract that a checked document asks for. Unknown keys are passed over."""
    authored = {**document, "name": name}
    fields = {
        field: read(document[key]) for key, (field, read) in _FIELDS.items() if key in document
    }
    return AppContract(
        name=name,
        document=authored,
        processes=_processes(document),
        not_enforced=not_enforced(document),
        **fields,
    )


def contract_from_text(text: str) -> AppContract:
    """Returns the contract that was recorded as `AppContract.text`, by this version or another one.

    Keys that this version does not know are kept in the document and have no effect.
    Raises ReconcilerError if the text is no contract at all.
    """
    try:
        document = json.loads(text)
        return contract_of(AppName(document["name"]), document)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ReconcilerError(
            f"the recorded contract cannot be read ({error}): deploy a commit to record a new one"
        ) from error


def not_enforced(document: Mapping[str, Json]) -> tuple[str, ...]:
    """Returns the keys of the document that this version checks and then does nothing about."""
    return tuple(
        sorted(
            key
            for key, value in document.items()
            if key in UNENFORCED or value in UNENFORCED_VALUES.get(key, ())
        )
    )


def relative_path(value: str) -> str:
    """Returns the shortest spelling of a relative path: `./web/` is `web`."""
    return str(PurePosixPath(value))


def route_path(value: str) -> str:
    """Returns a route's path without a slash at its end, but for `/` itself."""
    return value.rstrip("/") or "/"


def _processes(document: Mapping[str, Json]) -> tuple[ProcessSpec, ...]:
    """Returns `web` first and the others by name: the recorded document has its keys sorted."""
    given: Any = document.get("processes", {})
    commands = {WEB: document["start_command"]} if "start_command" in document else {}
    authored = {**commands, **given}
    other = When.AFTER if WEB in authored else When.BEFORE
    specs = [
        _process(ProcessName(name), value, When.BEFORE if name == WEB else other)
        for name, value in authored.items()
    ]
    return tuple(sorted(specs, key=lambda spec: (spec.name != WEB, spec.name)))


def _process(name: ProcessName, value: Any, start: When) -> ProcessSpec:
    if isinstance(value, str):
        return ProcessSpec(name, value, start)
    return ProcessSpec(
        name, value["command"], When(value.get("start", start)), value.get("count", 1)
    )


def _milliseconds(value: Any) -> timedelta:
    return timedelta(milliseconds=value)


def _relative_paths(values: Any) -> tuple[str, ...]:
    return tuple(relative_path(value) for value in values)


def _routes(values: Any) -> tuple[Route, ...]:
    return tuple(
        Route(
            host=value["host"].lower() if "host" in value else None,
            path=route_path(value.get("path", "/")),
        )
        for value in values
    )


def _health_test(value: Any) -> HealthTest:
    headers: dict[str, str] = dict(value.get("headers", {}))
    body = value.get("body")
    if body is not None and not isinstance(body, str):
        body = canonical(body)
        if not any(header.lower() == "content-type" for header in headers):
            headers["content-type"] = "application/json"
    return HealthTest(
        method=value["method"],
        path=value["path"],
        headers=headers,
        body=body,
        expect_status=value.get("expect_status"),
        expect_body=value.get("expect_body"),
    )


def _limits(value: Any) -> Limits:
    cpu = value.get("cpu")
    return Limits(
        memory_mb=value.get("memory_mb"),
        cpu=None if cpu is None else float(cpu),
        processes=value.get("processes"),
        open_files=value.get("open_files"),
    )


def _same(value: Any) -> Any:
    return value


# Key of the document -> field of the contract, and how its value is read.
_FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "setup_command": ("setup_command", _same),
    "setup_timeout_ms": ("setup_timeout", _milliseconds),
    "path": ("path", relative_path),
    "watch_paths": ("watch_paths", _relative_paths),
    "port": ("port", _same),
    "bind": ("bind", lambda value: str(ipaddress.ip_address(value))),
    "internal_port": ("internal_port", _same),
    "routes": ("routes", _routes),
    "health_endpoint": ("health_endpoint", _same),
    "health_timeout_ms": ("health_timeout", _milliseconds),
    "health_interval_ms": ("health_interval", _milliseconds),
    "health_failures": ("health_failures", _same),
    "on_unhealthy": ("on_unhealthy", _same),
    "health_test_payload": ("health_test", _health_test),
    "drain_timeout_ms": ("drain_timeout", _milliseconds),
    "bake_ms": ("bake", _milliseconds),
    "standby_ms": ("standby", _milliseconds),
    "restart": ("restart", _same),
    "branch": ("branch", _same),
    "deploy_on": ("deploy_on", _same),
    "env": ("env", dict),
    "env_file": ("env_file", _same),
    "secrets_inject": ("secrets_inject", tuple),
    "shared_dirs": ("shared_dirs", _relative_paths),
    "keep_dirs": ("keep_dirs", _relative_paths),
    "limits": ("limits", _limits),
    "user": ("user", _same),
    "slots": ("slots", _same),
    "driver": ("driver", _same),
    "upstream_keep_alive": ("upstream_keep_alive", _same),
}
