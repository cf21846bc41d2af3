"""Probes: checks on a running candidate. One line here for each probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from reconciler.ports import Probe
from reconciler.probes.health import HealthProbe
from reconciler.probes.request import RequestProbe

PROBES: Mapping[str, Callable[[], Probe]] = MappingProxyType(
    {
        "health": HealthProbe,
        "request": RequestProbe,
    }
)
