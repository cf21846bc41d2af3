"""Globs of `watch_paths`: which changed files concern an app. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

_WILD = frozenset("*?[")


def matches(path: str, glob: str) -> bool:
    """Whether a path from the root matches; `*` and `?` stay within a segment, `**` spans any.

    A glob without wildcards, or with a slash at its end, also names everything below it.
    """
    wanted = _segments(glob)
    states = _skip_spans({0}, wanted)
    for part in path.split("/"):
        states = _skip_spans(_step(states, wanted, part), wanted)
    return len(wanted) in states


def _segments(glob: str) -> tuple[str, ...]:
    segments = tuple(segment for segment in glob.split("/") if segment not in {"", "."})
    if glob.endswith("/") or not _WILD & set(glob):
        return (*segments, "**")
    return segments


def _step(states: Iterable[int], wanted: tuple[str, ...], part: str) -> set[int]:
    """Follows each state over one segment: a set of states needs no backtracking."""
    live = [state for state in states if state < len(wanted)]
    spanning = {state for state in live if wanted[state] == "**"}
    return spanning | {
        state + 1 for state in live if state not in spanning and fnmatchcase(part, wanted[state])
    }


def _skip_spans(states: set[int], wanted: tuple[str, ...]) -> set[int]:
    """Adds the states reached when a `**` stands for no segment at all."""
    reached = set(states)
    for index, segment in enumerate(wanted):
        if segment == "**" and index in reached:
            reached.add(index + 1)
    return reached
