"""Frozen data that every floor shares; standard library only, no clocks, no files."""
