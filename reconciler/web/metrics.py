"""Metrics in Prometheus' text format, in a registry of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from reconciler.engine.commands import Commands
from reconciler.model.canonical import Json
from reconciler.model.deploys import Deploy
from reconciler.model.names import DeployId

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PAGE = 200
MAX_PAGES = 10


class Metrics:
    """What is counted: requests as they are answered, deploys as a scrape finds them decided."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Histogram(
            "autopilot_http_request_duration_seconds",
            "Time to the first byte of an answer of the API.",
            ("method", "route", "status"),
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30, 120),
        )
        self._decided = Counter(
            "autopilot_deploys_total",
            "Deploys that went live or ended without, by how.",
            ("app", "outcome"),
            registry=self.registry,
        )
        self._durations = Histogram(
            "autopilot_deploy_duration_seconds",
            "Time from the wish to being live.",
            ("app",),
            registry=self.registry,
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600),
        )
        self._open = Gauge(
            "autopilot_deploys_open",
            "Deploys that hold or wait for their app now, by phase.",
            ("app", "phase"),
            registry=self.registry,
        )
        self._app_ready = Gauge(
            "autopilot_app_ready", "Whether the app is converged.", ("app",), registry=self.registry
        )
        self._app_healthy = Gauge(
            "autopilot_app_healthy",
            "Whether what is live answers its health check.",
            ("app",),
            registry=self.registry,
        )
        self._ready = Gauge(
            "autopilot_ready",
            "Whether the first pass over every app is done.",
            registry=self.registry,
        )
        self._settled = 0
        self._counted: set[DeployId] = set()

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).observe(seconds)

    async def scrape(self, commands: Commands) -> bytes:
        """Looks at the engine once and returns the exposition."""
        self._ready.set(commands.ready)
        await self._look_at_apps(commands)
        await self._look_at_deploys(commands)
        return generate_latest(self.registry)

    async def _look_at_apps(self, commands: Commands) -> None:
        status = await commands.status(None)
        self._app_ready.clear()
        self._app_healthy.clear()
        for name, app in cast("Mapping[str, Mapping[str, Json]]", status["apps"]).items():
            self._app_ready.labels(name).set(bool(app["ready"]))
            self._app_healthy.labels(name).set(bool(app["healthy"]))

    async def _look_at_deploys(self, commands: Commands) -> None:
        self._open.clear()
        recent = await self._unsettled(commands)
        for deploy in recent:
            if deploy.phase.open:
                self._open.labels(deploy.request.app, deploy.phase.value).inc()
            elif deploy.id not in self._counted:
                self._count(deploy)
        self._settle(recent)

    async def _unsettled(self, commands: Commands) -> list[Deploy]:
        """Newest first, back to where every older one is counted; bounded at the first scrape."""
        found: list[Deploy] = []
        before: int | None = None
        for _ in range(MAX_PAGES):
            page = [
                one for one in await commands.deploys(None, PAGE, before) if one.seq > self._settled
            ]
            found += page
            if len(page) < PAGE:
                break
            before = page[-1].seq
        return found

    def _count(self, deploy: Deploy) -> None:
        live = deploy.promoted
        outcome = "live" if live else deploy.phase.value
        self._decided.labels(deploy.request.app, outcome).inc()
        if live:
            span = live.instant.since(deploy.progress[0].instant)
            self._durations.labels(deploy.request.app).observe(span.total_seconds())
        self._counted.add(deploy.id)

    def _settle(self, recent: list[Deploy]) -> None:
        """Moves the mark up to the oldest open deploy, and forgets what lies below it."""
        still_open = [one.seq for one in recent if one.phase.open]
        newest = max((one.seq for one in recent), default=self._settled)
        self._settled = max(self._settled, min(still_open) - 1 if still_open else newest)
        self._counted = {one.id for one in recent if one.seq > self._settled} & self._counted
