"""Instants: moments on the boot-time clock, which no NTP step moves and no reboot continues."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment: the boot it belongs to and microseconds of CLOCK_BOOTTIME since that boot."""

    boot_id: str
    micros: int

    def __add__(self, span: timedelta) -> Instant:
        return Instant(self.boot_id, self.micros + span // timedelta(microseconds=1))

    def since(self, earlier: Instant) -> timedelta:
        """Time from `earlier` to this; zero across boots (durations restart)."""
        if earlier.boot_id != self.boot_id:
            return timedelta(0)
        return timedelta(microseconds=self.micros - earlier.micros)

    def until(self, later: Instant) -> timedelta:
        return later.since(self)

    def reached(self, deadline: Instant) -> bool:
        """Whether `deadline` lies at or before this; never for a deadline of another boot."""
        return self.boot_id == deadline.boot_id and self.micros >= deadline.micros

    def text(self) -> str:
        return f"{self.boot_id}@{self.micros}"

    @staticmethod
    def parse(text: str) -> Instant:
        """Reads what `text` wrote; raises ValueError on anything else."""
        boot_id, at, micros = text.rpartition("@")
        if not at or not boot_id:
            raise ValueError(f"not an instant: {text!r}")
        return Instant(boot_id, int(micros))


def earliest(*moments: Instant | None) -> Instant | None:
    known = [moment for moment in moments if moment is not None]
    return min(known, key=lambda moment: moment.micros) if known else None
