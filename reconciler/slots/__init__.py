"""Slots: drivers that bring a directory to a revision and run it. One line here for each driver."""

from __future__ import annotations

from reconciler.slots.process import ProcessSlots

DRIVERS = {"process": ProcessSlots}

__all__ = ["DRIVERS", "ProcessSlots"]
