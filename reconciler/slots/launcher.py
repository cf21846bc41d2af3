"""Launching: what is spawned for one process of a slot, with which limits and environment."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler import command
from reconciler.host.files import disk_pressure, ensure_directory
from reconciler.host.processes import read_stat
from reconciler.model.desired import AppContract
from reconciler.model.errors import DiskPressureError, LaunchError
from reconciler.slots import cgroups, notes
from reconciler.slots.background import Background
from reconciler.slots.cgroups import Cgroups
from reconciler.slots.environment import Environments, Identity, export_script
from reconciler.slots.layout import DAEMON_ONLY, Layout
from reconciler.slots.membership import Leader
from reconciler.slots.users import AppUser

_LAUNCHER = Path(__file__).with_name("launcher.sh")
_ROOT = Path("/")
_LOG_SPACE = 1 << 20


# Seconds.
AFTER_BOOT = 2.0


@dataclass(frozen=True, slots=True)
class Order:
    """One process to start. `values` is the app's own environment, secrets included."""

    identity: Identity
    index: int
    command: str
    contract: AppContract
    user: AppUser
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Launched:
    spawned: command.Spawned
    leader: Leader


class Launcher:
    def __init__(
        self,
        layout: Layout,
        environments: Environments,
        groups: Cgroups,
        background: Background,
        boot_id: str,
    ) -> None:
        self._layout = layout
        self._background = background
        self._environments = environments
        self._cgroups = groups
        self._boot_id = boot_id

    def launch(self, order: Order) -> Launched:
        """Spawns the process. It records itself in the slot's run directory within milliseconds.

        Raises LaunchError, DiskPressureError.
        """
        identity = order.identity
        paths = self._layout.slot(identity.app, identity.slot)
        script = export_script(order.values)
        group = self._group(order)
        if group is not None:
            notes.write_group(paths, group)
        binding = self._cgroups.binding(order.contract.limits)
        argv = [
            "/bin/sh",
            str(_LAUNCHER),
            str(paths.note(identity.process, order.index)),
            self._boot_id,
            str(group) if group and binding else "",
            str(order.contract.limits.open_files or ""),
            self._process_limit(order),
            os.path.normpath(paths.worktree / order.contract.path),
            order.command,
            *_drop(order.user),
        ]
        log = self._layout.log(identity.app, identity.deploy_id, identity.process)
        ensure_directory(self._layout.logs_dir, DAEMON_ONLY)
        ensure_directory(log.parent, DAEMON_ONLY)
        env = self._environments.standard(identity, order.user.home, paths.tmp)
        with disk_pressure(str(log)):
            try:
                spawned = command.spawn(argv, env=env, cwd=_ROOT, output=log, stdin=script)
            except OSError as error:
                raise LaunchError(
                    f"{identity.process} of {identity.app} could not be started: {error}"
                ) from error
        stat = read_stat(spawned.pid)
        leader = Leader(
            identity.process, order.index, spawned.pid, stat.started if stat is not None else 0
        )
        if group is not None and not binding:
            self._background.begin(("move", spawned.pid), _move_later(group, leader))
        return Launched(spawned, leader)

    def require_space(self) -> None:
        """Raises DiskPressureError where a program could not even write its log: it would fail,
        and be judged, for what is not its fault."""
        ensure_directory(self._layout.logs_dir, DAEMON_ONLY)
        status = os.statvfs(self._layout.logs_dir)
        if status.f_bavail * status.f_frsize < _LOG_SPACE:
            raise DiskPressureError(f"no space left for logs in {self._layout.logs_dir}")

    def unenforced(self, contract: AppContract, user: AppUser | None) -> tuple[str, ...]:
        """Names the limits of the contract that do not hold on this host; `user` is None when
        the app cannot be run at all."""
        limits, controllers = contract.limits, self._cgroups.controllers
        found = []
        if limits.memory_mb is not None and "memory" not in controllers:
            found.append("limits.memory_mb")
        if limits.cpu is not None and "cpu" not in controllers:
            found.append("limits.cpu")
        counted = "pids" in controllers or _has_own_user(contract, user)
        if limits.processes is not None and not counted:
            found.append("limits.processes")
        if limits.open_files is not None and not _may_open(limits.open_files):
            found.append("limits.open_files")
        return tuple(found)

    def _process_limit(self, order: Order) -> str:
        """Returns what RLIMIT_NPROC is set to, where no control group counts processes."""
        if "pids" in self._cgroups.controllers or not _has_own_user(order.contract, order.user):
            return ""
        return str(order.contract.limits.processes or "")

    def _group(self, order: Order) -> Path | None:
        identity = order.identity
        name = f"{identity.app}.{identity.slot}.{identity.deploy_id[-12:]}"
        return self._cgroups.create(name, order.contract.limits)


def _has_own_user(contract: AppContract, user: AppUser | None) -> bool:
    """RLIMIT_NPROC counts all processes of a user: it says something only of an app that has a
    user of its own. Root is exempt from it."""
    return bool(contract.user) and user is not None and user.other and user.uid != 0


def _drop(user: AppUser) -> tuple[str, ...]:
    if not user.other:
        return ()
    return (
        "setpriv",
        f"--reuid={user.uid}",
        f"--regid={user.gid}",
        "--init-groups",
        "--inh-caps=-all",
        "--",
    )


def _may_open(files: int) -> bool:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return os.geteuid() == 0 or hard == resource.RLIM_INFINITY or files <= hard


async def _move_later(group: Path, leader: Leader) -> None:
    """While a process joins a group the kernel lets nobody fork, so the boot goes first; until
    then the cookie and the session tell whose it is."""
    await asyncio.sleep(AFTER_BOOT)
    await asyncio.to_thread(cgroups.move, group, leader)
