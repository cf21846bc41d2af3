"""Principals: who asks, and what they may. Computed in one place for every route."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PrincipalKind(StrEnum):
    HUMAN = "human"
    AGENT = "agent"
    RUN = "run"
    WORKER = "worker"
    NODE = "node"
    DAEMON = "daemon"


class Scope(StrEnum):
    """READ looks, DEPLOY deploys and rolls back under all gates, ADMIN may do everything."""

    READ = "read"
    DEPLOY = "deploy"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    kind: PrincipalKind
    name: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def actor(self) -> str:
        """How the deploy log names them, e.g. `human:admin`."""
        return f"{self.kind}:{self.name}"


DAEMON = Principal(PrincipalKind.DAEMON, "autopilot", frozenset(Scope))
LOCAL = Principal(PrincipalKind.HUMAN, "local", frozenset({Scope.READ, Scope.DEPLOY}))
ADMIN = Principal(PrincipalKind.HUMAN, "admin", frozenset(Scope))
NOBODY = Principal(PrincipalKind.HUMAN, "nobody", frozenset())
