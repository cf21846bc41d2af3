"""Events: the envelope in which everything that happens is told, once, to whoever listens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from reconciler.model.canonical import Json
from reconciler.model.names import HostId

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Event:
    """`event_id` is unique and duplicates are ignored; `seq` orders the events of one store."""

    seq: int
    event_id: str
    host_id: HostId
    kind: str
    schema_version: int
    occurred_at: datetime
    received_at: datetime
    payload: Mapping[str, Json]
