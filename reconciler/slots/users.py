"""Users that apps run as: who they are, and whether this daemon can answer for them."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from reconciler.model.errors import UserRefusedError

# What it takes to give a slot to another user, to start, watch and stop processes as that user.
# Without CAP_SYS_PTRACE /proc/PID/fd and environ of another user are closed, and a stranger's
# listener could not be told from the app's own.
_CHOWN, _DAC_OVERRIDE, _KILL, _SETGID, _SETUID, _SYS_PTRACE = 0, 1, 5, 6, 7, 19
NEEDED = {
    _CHOWN: "CAP_CHOWN",
    _DAC_OVERRIDE: "CAP_DAC_OVERRIDE",
    _KILL: "CAP_KILL",
    _SETGID: "CAP_SETGID",
    _SETUID: "CAP_SETUID",
    _SYS_PTRACE: "CAP_SYS_PTRACE",
}


@dataclass(frozen=True, slots=True)
class AppUser:
    """A user as an app runs as it. `other`: not the daemon's own, so privileges are dropped."""

    name: str
    uid: int
    gid: int
    home: str
    other: bool

    @property
    def owner(self) -> tuple[int, int] | None:
        return (self.uid, self.gid) if self.other else None


class Users:
    def __init__(self, default_user: str | None) -> None:
        self._default = default_user
        self._missing = _missing_capabilities()

    def resolve(self, name: str | None) -> AppUser:
        """Returns the app's user, the host's default without a name.

        Raises UserRefusedError when there is no such user, or when this daemon cannot run as it.
        """
        wanted = name or self._default
        entry = _find(wanted)
        user = AppUser(
            name=entry.pw_name,
            uid=entry.pw_uid,
            gid=entry.pw_gid,
            home=entry.pw_dir,
            other=entry.pw_uid != os.geteuid(),
        )
        if user.other:
            self._refuse_without_rights(user)
        return user

    def _refuse_without_rights(self, user: AppUser) -> None:
        if os.geteuid() != 0:
            raise UserRefusedError(
                f"an app cannot run as {user.name}: this daemon runs as uid {os.geteuid()} and "
                f"only root can start another user's processes; run it as root, or as {user.name}"
            )
        if self._missing:
            raise UserRefusedError(
                f"an app cannot run as {user.name}: this daemon lacks {', '.join(self._missing)}; "
                "grant it (in a container: --cap-add), or leave `user` out"
            )


def _find(name: str | None) -> pwd.struct_passwd:
    if name is None:
        return _own()
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise UserRefusedError(
            f"an app cannot run as {name}: this host has no such user; create it with "
            f"`useradd --system {name}`"
        ) from None


def _own() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        # A container may run under a uid that its password file does not have.
        uid, gid, home = os.geteuid(), os.getegid(), os.environ.get("HOME", "/")
        return pwd.struct_passwd((str(uid), "x", uid, gid, "", home, "/bin/sh"))


def _missing_capabilities() -> tuple[str, ...]:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    line = next((one for one in status.splitlines() if one.startswith("CapEff:")), "CapEff: 0")
    effective = int(line.split()[1], 16)
    return tuple(name for bit, name in NEEDED.items() if not effective >> bit & 1)
