"""Conditions: what stands in an app's way, with a reason that a person can act on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ConditionType(StrEnum):
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    NOT_ENFORCED = "NotEnforced"


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition; `reason` is a slug in CamelCase, `message` a sentence that says what to do."""

    type: ConditionType
    status: bool
    reason: str = ""
    message: str = ""
