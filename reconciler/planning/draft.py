"""A plan in the making: what the rules of a pass add to, in the order in which they are asked."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.model.actions import Action, Plan, Step
from reconciler.model.conditions import Condition
from reconciler.model.instants import Instant, earliest


@dataclass(slots=True)
class Draft:
    """Collects steps, wake-ups and what is pending; `stalls` are reasons a person must see."""

    now: Instant
    steps: list[Step] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    stalls: list[tuple[str, str]] = field(default_factory=list)
    wake_at: Instant | None = None

    def do(self, action: Action, why: str) -> None:
        self.steps.append(Step(action, why))

    def wait(self, why: str, until: Instant | None = None) -> None:
        """Notes what the next pass waits for, and when to look again at the latest."""
        self.pending.append(why)
        self.look_at(until)

    def look_at(self, moment: Instant | None) -> None:
        if moment is not None:
            self.wake_at = earliest(self.wake_at, moment)

    def stall(self, reason: str, message: str) -> None:
        self.stalls.append((reason, message))

    def plan(self, conditions: tuple[Condition, ...]) -> Plan:
        pending = tuple(dict.fromkeys((*self.pending, *(step.why for step in self.steps))))
        return Plan(tuple(self.steps), self.wake_at, pending, conditions)
