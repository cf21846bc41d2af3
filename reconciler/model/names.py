"""Names and ids: what each string of the domain means, so that two of them cannot be swapped."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

HostId = NewType("HostId", str)
AppName = NewType("AppName", str)
SlotName = NewType("SlotName", str)
ProcessName = NewType("ProcessName", str)
Revision = NewType("Revision", str)
DeployId = NewType("DeployId", str)
WishId = NewType("WishId", str)

APP_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
SLOT_NAMES: tuple[SlotName, ...] = tuple(SlotName(f"deploy-{letter}") for letter in "abcdefgh")
WEB = ProcessName("web")
SETUP = ProcessName("setup")


@dataclass(frozen=True, order=True, slots=True)
class AppKey:
    """The unit of reconciliation: one app on one host."""

    host: HostId
    app: AppName


def uuid7(unix_ms: int, random_bits: int) -> str:
    """Returns a UUIDv7 as text (RFC 9562, section 5.7); `random_bits` supplies 74 random bits."""
    rand_a = random_bits >> 62 & 0xFFF
    rand_b = random_bits & (1 << 62) - 1
    value = unix_ms << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
