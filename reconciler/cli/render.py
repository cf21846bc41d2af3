"""Rendering for terminals and pipes: tables, times and colours, without a library's start-up."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

Cell: TypeAlias = "str | tuple[str, str]"

COLORS = {"ok": "32", "bad": "31", "warn": "33", "dim": "2", "bold": "1"}
SHORT = 10


@dataclass(frozen=True, slots=True)
class Paint:
    """Colours text by what it means, or leaves it as it is."""

    on: bool

    def __call__(self, text: str, style: str) -> str:
        return f"\x1b[{COLORS[style]}m{text}\x1b[0m" if self.on and style else text

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Cell]]) -> list[str]:
        """Returns lines with aligned columns; a cell is a text, or a text with its style."""
        cells = [[_cell(cell) for cell in row] for row in rows]
        widths = [
            max(len(name), *(len(row[index][0]) for row in cells), 0)
            for index, name in enumerate(head)
        ]
        title = "  ".join(name.ljust(width) for name, width in zip(head, widths, strict=True))
        lines = [self(title.rstrip(), "dim")]
        for row in cells:
            parts = []
            for (text, style), width in zip(row, widths, strict=True):
                parts.append(self(text, style) + " " * (width - len(text)))
            lines.append("  ".join(parts).rstrip())
        return lines


def _cell(cell: Cell) -> tuple[str, str]:
    text, style = cell if isinstance(cell, tuple) else (cell, "")
    return clean(text), style


def clean(text: str) -> str:
    """Returns one line without control characters: what others wrote must not drive a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


def short(commit: str | None) -> str:
    return commit[:SHORT] if commit else "-"


def age(timestamp: str | None, now: float | None = None) -> str:
    """Returns how long ago a time of the API was, e.g. `3m`."""
    if not timestamp:
        return "-"
    seconds = (time.time() if now is None else now) - datetime.fromisoformat(timestamp).timestamp()
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def local_time(timestamp: str | None) -> str:
    """Returns a time of the API in the zone of this terminal."""
    if not timestamp:
        return "-"
    return datetime.fromisoformat(timestamp).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"
