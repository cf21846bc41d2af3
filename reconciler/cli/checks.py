"""Checks of this host: one small function each, with what to do when it fails."""

from __future__ import annotations

import asyncio
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from reconciler import command
from reconciler.cli.client import ProblemError, UnreachableError
from reconciler.cli.session import Session
from reconciler.config import DEFAULT_PORTS
from reconciler.host.processes import describe, own_cgroup, owner_of_inodes
from reconciler.host.sockets import ephemeral_range, is_free, listeners
from reconciler.model.errors import ReconcilerError

SERVICE_DIRECTORY = Path("/var/lib/autopilot")
MIN_GIT = (2, 25)
MIN_PYTHON = (3, 11)
MIN_PORTS = 100
LOW_SPACE = 2 << 30
CAP_SYS_PTRACE = 19
_TIMEOUT = timedelta(seconds=10)


class Grade(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `fix` says what to do, and is empty when all is well."""

    name: str
    grade: Grade
    found: str
    fix: str = ""


def ok(name: str, found: str) -> Check:
    return Check(name, Grade.OK, found)


def warn(name: str, found: str, fix: str) -> Check:
    return Check(name, Grade.WARN, found, fix)


def fail(name: str, found: str, fix: str) -> Check:
    return Check(name, Grade.FAIL, found, fix)


def check_python(_session: Session) -> Check:
    version = sys.version_info
    if version[:2] < MIN_PYTHON:
        return fail("python", platform.python_version(), "use Python 3.11 or newer")
    return ok("python", platform.python_version())


def check_git(_session: Session) -> Check:
    path = shutil.which("git")
    if path is None:
        return fail("git", "not found", "install it: sudo apt-get install -y git")
    text = _ask(path, "--version")
    found = re.search(r"(\d+)\.(\d+)", text)
    if found is None or (int(found[1]), int(found[2])) < MIN_GIT:
        return fail("git", text or "no version", "install Git 2.25 or newer")
    return ok("git", text.removeprefix("git version "))


def check_caddy(_session: Session) -> Check:
    from reconciler.proxies.caddy_binary import find_caddy  # noqa: PLC0415 (the adapter's)

    with tempfile.TemporaryDirectory() as scratch:
        try:
            path = asyncio.run(find_caddy(os.environ, Path(scratch) / "vetted"))
        except ReconcilerError as error:
            return fail("caddy", str(error), "or run the daemon with --proxy none")
    return ok("caddy", str(path))


def check_daemon(session: Session) -> Check:
    client = session.client()
    try:
        client.text("/healthz")
    except UnreachableError:
        return _ports_free(session)
    except ProblemError as error:
        return warn("daemon", f"answers at {client.address}: {error}", "see the message")
    return ok("daemon", f"answers at {client.address}")


def _ports_free(session: Session) -> Check:
    for port, flag in ((7778, "--port"), (8080, "--http-port")):
        if not is_free(port):
            holder = owner_of_inodes(one.inode for one in listeners(port))
            who = "another process" if holder is None else describe(holder)
            return warn("daemon", f"not running; {port} is held by {who}", f"choose a {flag}")
    return ok("daemon", f"not running, its ports are free; start it: {session.start_command()}")


def check_data_directory(session: Session) -> Check:
    directory = session.directory()
    nearest = next(path for path in (directory, *directory.parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        told = f"{nearest} cannot be written: {error.strerror}"
        return fail("data directory", told, "run as its owner, or choose another --data-dir")
    free = shutil.disk_usage(nearest).free
    found = f"{directory}, {free / (1 << 30):.1f} GiB free"
    if free < LOW_SPACE:
        return warn("data directory", found, "free some space: a full disk refuses deploys")
    return ok("data directory", found)


def check_port_range(_session: Session, taken: range | None = None) -> Check:
    ephemeral = taken or ephemeral_range()
    usable = [port for port in DEFAULT_PORTS if port not in ephemeral]
    found = f"{len(usable)} ports of {DEFAULT_PORTS[0]}-{DEFAULT_PORTS[-1]}"
    if len(usable) < MIN_PORTS:
        return fail(
            "port range",
            f"{found} lie outside of {ephemeral[0]}-{ephemeral[-1]}, which connections take",
            "choose another --port-range, or narrow net.ipv4.ip_local_port_range",
        )
    return ok("port range", f"{found} are not used by outgoing connections")


def check_rights(_session: Session) -> Check:
    if os.geteuid() != 0:
        return ok("rights", f"uid {os.geteuid()}: apps run as the same user")
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if found is None or not int(found[1], 16) >> CAP_SYS_PTRACE & 1:
        return warn(
            "rights",
            "root without CAP_SYS_PTRACE cannot see whose listener it is: no `user` in a manifest",
            "in a container: --cap-add SYS_PTRACE",
        )
    return ok("rights", "root, with CAP_SYS_PTRACE")


def check_cgroup(_session: Session) -> Check:
    group = own_cgroup()
    if group is None or not os.access(group, os.W_OK):
        return warn(
            "cgroup v2",
            "none can be written: limits on memory and cpu are not enforced",
            "run as root, or as a systemd service with Delegate=yes",
        )
    return ok("cgroup v2", str(group))


def check_systemd(_session: Session) -> Check:
    if Path("/run/systemd/system").is_dir():
        return ok("systemd", "present")
    return warn("systemd", "not running here", "start the daemon after a boot by other means")


def check_users(session: Session, service: Path = SERVICE_DIRECTORY) -> Check:
    """A service whose apps share its uid gives every app its secrets and its credential."""
    directory = session.directory()
    slots = [path for path in directory.glob("apps/*/deploy-*") if path.is_dir()]
    if directory != service:
        return ok("app users", "development: apps run as you")
    daemon = directory.stat().st_uid
    shared = sorted({path.parent.name for path in slots if path.stat().st_uid == daemon})
    if shared:
        return fail(
            "app users",
            f"{', '.join(shared)} run as the daemon's own user (uid {daemon})",
            "create one: useradd --system autopilot-apps, restart the daemon, deploy again",
        )
    return ok("app users", f"{len(slots)} slots, none of the daemon's own user")


def check_clock(_session: Session) -> Check:
    # Certificates and the order of the deploy log depend on a clock that was set once.
    year = time.gmtime().tm_year
    if year < 2025:
        return fail("clock", f"it is {year} here", "set the clock: timedatectl set-ntp true")
    return ok("clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


CHECKS: tuple[Callable[[Session], Check], ...] = (
    check_python, check_git, check_caddy, check_daemon, check_data_directory, check_port_range,
    check_rights, check_cgroup, check_systemd, check_users, check_clock,
)  # fmt: skip


def run_checks(
    session: Session, chosen: Sequence[Callable[[Session], Check]] = CHECKS
) -> Iterator[Check]:
    """Yields every check; one that cannot be made is a warning and stops none of the others."""
    for check in chosen:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            yield check(session)
        except (OSError, ReconcilerError) as error:
            yield warn(name, f"could not be checked: {error}", "see the message")


def _ask(path: str, *words: str) -> str:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
    done = asyncio.run(command.run([path, *words], env=environment, timeout=_TIMEOUT))
    return done.stdout.decode("utf-8", "replace").strip()
