"""Desired state: what a repository says should run, parsed once and trusted from then on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

from reconciler.model.canonical import Json, canonical, digest
from reconciler.model.names import WEB, AppKey, AppName, ProcessName, Revision

NO_VALUES: Mapping[str, str] = MappingProxyType({})

# The keys whose change rolls blue-green. Every other key applies in place.
RESTART_KEYS = (
    "driver", "env", "env_file", "health_endpoint", "health_test_payload", "health_timeout_ms",
    "internal_port", "internal_socket", "keep_dirs", "limits", "path", "processes",
    "schema_status_endpoint", "secrets_inject", "setup_command", "setup_timeout_ms", "shared_dirs",
    "smoke_command", "smoke_timeout_ms", "start_command", "user",
)  # fmt: skip


class When(StrEnum):
    """When a process starts, in relation to the switch."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    name: ProcessName
    command: str
    start: When
    count: int = 1


@dataclass(frozen=True, order=True, slots=True)
class Route:
    """A public address; no host means any, the path is a prefix on segment boundaries."""

    host: str | None = None
    path: str = "/"


@dataclass(frozen=True, slots=True)
class HealthTest:
    """The deep check: one request against `$PORT` and what its answer must be."""

    method: str = "GET"
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=lambda: NO_VALUES)
    body: str | None = None
    expect_status: int | None = None
    expect_body: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    memory_mb: int | None = None
    cpu: float | None = None
    processes: int | None = None
    open_files: int | None = None


@dataclass(frozen=True, slots=True)
class AppContract:
    """An app's contract: the keys of `.autopilot/apps/<name>.yaml`, parsed, defaults filled in.

    `document` is the authored document with `name` filled in: what is recorded with a deploy, so
    that a rollback can bring the same contract back.
    """

    name: AppName
    document: Mapping[str, Json]
    processes: tuple[ProcessSpec, ...]
    setup_command: str | None = None
    setup_timeout: timedelta = timedelta(minutes=10)
    path: str = "."
    watch_paths: tuple[str, ...] = ()
    port: int | None = None
    bind: str = "127.0.0.1"
    internal_port: int | None = None
    routes: tuple[Route, ...] = ()
    health_endpoint: str | None = "/healthz"
    health_timeout: timedelta = timedelta(seconds=10)
    health_interval: timedelta = timedelta(seconds=10)
    health_failures: int = 3
    on_unhealthy: str = "restart"
    health_test: HealthTest | None = None
    drain_timeout: timedelta = timedelta(seconds=10)
    bake: timedelta = timedelta(seconds=30)
    standby: timedelta = timedelta(0)
    restart: str = "always"
    branch: str | None = None
    deploy_on: str = "push"
    env: Mapping[str, str] = field(default_factory=lambda: NO_VALUES)
    env_file: str | None = None
    secrets_inject: tuple[str, ...] = ()
    shared_dirs: tuple[str, ...] = ()
    keep_dirs: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    user: str | None = None
    slots: int = 3
    driver: str = "auto"
    upstream_keep_alive: bool = True
    not_enforced: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of the keys whose change needs a restart; equal digests need no new deploy."""
        return digest({key: self.document[key] for key in RESTART_KEYS if key in self.document})

    @property
    def text(self) -> str:
        return canonical(self.document)

    @property
    def has_web(self) -> bool:
        return any(process.name == WEB for process in self.processes)

    @property
    def warm_for(self) -> timedelta:
        """How long previous stays warm after a switch."""
        return max(self.bake, self.standby)

    def started(self, when: When) -> tuple[ProcessSpec, ...]:
        return tuple(process for process in self.processes if process.start is when)


@dataclass(frozen=True, order=True, slots=True)
class Target:
    """What is deployed and what is quarantined: a revision under a contract with its secrets."""

    revision: Revision
    contract_digest: str
    secrets_digest: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a manifest; `line` counts from 1."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything one revision of one repository asks for; with problems nothing of it holds."""

    revision: Revision
    apps: Mapping[AppName, AppContract]
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    @property
    def valid(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class DesiredApp:
    """What is wanted of one app now.

    `contract` is None when a valid, non-empty `.autopilot/` does not name the app (`removed`), or
    when no valid one was ever read. `problems` are those of the newest head, while the last good
    manifests stay in force. `follows_rewrites`: a rewritten head is a new wish (development).
    """

    key: AppKey
    contract: AppContract | None
    secrets_digest: str = ""
    missing_secrets: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    removed: bool = False
    follows_rewrites: bool = False
