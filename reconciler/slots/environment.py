"""The environment an app gets: constructed, never inherited, and never seen in an argument list."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.model.errors import LaunchError
from reconciler.model.names import AppName, DeployId, HostId, ProcessName, Revision, SlotName

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COOKIE = "AUTOPILOT_DEPLOY_ID"
DETACHED = "AUTOPILOT_DETACHED"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The cookie finds a slot's processes again, and the route leads to the port: an app's own value
# (a PORT in its .env file is common) must not hide ours.
_OURS = frozenset({"AUTOPILOT", "PORT", "INTERNAL_PORT"})


@dataclass(frozen=True, slots=True)
class Identity:
    """Which process of what an environment is for; ports are 0 when it has none."""

    app: AppName
    slot: SlotName
    deploy_id: DeployId
    revision: Revision
    process: ProcessName
    port: int = 0
    internal_port: int = 0


class Environments:
    """Makes environments; what is the same for all apps of this daemon is told once."""

    def __init__(self, host_id: HostId, orchestrator_url: str, *, inherit_path: bool) -> None:
        self._host_id = host_id
        self._orchestrator_url = orchestrator_url
        self._path = os.environ.get("PATH", SYSTEM_PATH) if inherit_path else SYSTEM_PATH
        self._zone = time_zone()

    def standard(self, identity: Identity, home: str, tmp: Path) -> dict[str, str]:
        """Returns what every process gets; nothing in it comes from the app."""
        values = {
            "PATH": self._path,
            "HOME": home,
            "LANG": "C.UTF-8",
            "TZ": self._zone,
            "TMPDIR": str(tmp),
            "HOST": "127.0.0.1",
            "AUTOPILOT": "1",
            "AUTOPILOT_APP": identity.app,
            "AUTOPILOT_SLOT": identity.slot,
            "AUTOPILOT_COMMIT": identity.revision,
            COOKIE: identity.deploy_id,
            "AUTOPILOT_PROCESS": identity.process,
            "AUTOPILOT_HOST_ID": self._host_id,
            "ORCHESTRATOR_URL": self._orchestrator_url,
        }
        if identity.port:
            values["PORT"] = str(identity.port)
        if identity.internal_port:
            values["INTERNAL_PORT"] = str(identity.internal_port)
        return values


def export_script(environment: Mapping[str, str]) -> bytes:
    """Returns shell text that exports the app's own values over the standard ones.

    Raises LaunchError, which names the variable and never its value.
    """
    lines = []
    for name, value in environment.items():
        if name in _OURS or name.startswith("AUTOPILOT_"):
            continue
        if not _NAME.fullmatch(name):
            raise LaunchError(
                f"the environment variable {name!r} cannot be exported: a name has letters, "
                "digits and underscores only, and no digit first"
            )
        if "\0" in value:
            raise LaunchError(f"the environment variable {name} holds a NUL, which none can")
        lines.append(f"export {name}={shlex.quote(value)}\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def time_zone() -> str:
    """Returns the host's zone: the daemon's own TZ, else what /etc/localtime leads to."""
    if zone := os.environ.get("TZ"):
        return zone
    _, found, zone = os.path.realpath("/etc/localtime").partition("zoneinfo/")
    return zone if found else "UTC"
