"""Secrets in files: `<directory>/<app>.env`, then systemd's credentials; and an app's `env_file`.

A file that cannot be trusted (readable by others, or half understood) is not used at all: its
names are missing, and `problems` says why. No value is ever logged, raised or told.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import secrets
import stat
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from watchfiles import awatch

from reconciler.host.files import ensure_directory, sync_directory, write_atomic
from reconciler.model.canonical import canonical
from reconciler.model.deploys import ResolvedSecrets
from reconciler.model.desired import AppContract
from reconciler.model.errors import ConfigError
from reconciler.model.names import APP_NAME, AppName
from reconciler.secrets import dotenv

MAX_VALUE = 64 << 10
MAX_FILE = 1 << 20
KEY_BYTES = 32
# How long a change may gather, how often a watched directory is looked for, and how long to wait
# for one that cannot be made.
GATHER_MS = 200
LOOK_AGAIN_MS = 5_000
RETRY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Reading:
    """A dotenv file as found: its values, or why none of them is used."""

    values: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    def __repr__(self) -> str:
        return f"_Reading(names={sorted(self.values)}, problem={self.problem!r})"


class FileSecrets:
    """The Secrets port on files of this host, and what `autopilot secrets` does to them.

    A name is looked up in `<directory>/<app>.env`, then as the systemd credential `<app>.<NAME>`,
    then as `<NAME>`. The digest is keyed with a random key of this host, so that it tells nobody
    which of a few likely values a secret has.
    """

    def __init__(self, directory: Path, credentials_directory: Path | None = None) -> None:
        self._directory = directory
        self._data_dir = directory.parent
        self._credentials = credentials_directory
        self._key = directory / ".key"

    async def resolve(self, app: AppName, contract: AppContract) -> ResolvedSecrets:
        if contract.env_file is None and not contract.secrets_inject:
            return ResolvedSecrets(dict(contract.env), "")
        return await asyncio.to_thread(self._resolve, app, contract)

    def _resolve(self, app: AppName, contract: AppContract) -> ResolvedSecrets:
        from_file, missing_file = self._from_env_file(contract.env_file)
        granted, missing = self._granted(app, contract.secrets_inject)
        return ResolvedSecrets(
            {**from_file, **contract.env, **granted},
            self._digest(from_file, granted),
            (*missing_file, *missing),
        )

    def _from_env_file(self, env_file: str | None) -> tuple[Mapping[str, str], tuple[str, ...]]:
        if env_file is None:
            return {}, ()
        reading = _read_env_file(env_file, self._data_dir)
        return reading.values, (f"env_file:{env_file}",) if reading.problem else ()

    def _granted(
        self, app: AppName, names: tuple[str, ...]
    ) -> tuple[Mapping[str, str], tuple[str, ...]]:
        own = self._own(app)
        if own.problem:
            # A credential of the same name may be the older value: better none than the wrong one.
            return {}, names
        found = {name: own.values.get(name) for name in names}
        found |= {
            name: self._credential(app, name) for name, value in found.items() if value is None
        }
        granted = {name: value for name, value in found.items() if value is not None}
        return granted, tuple(name for name in names if name not in granted)

    def _own(self, app: AppName) -> _Reading:
        return _read_private(self._path(app))

    def _path(self, app: AppName) -> Path:
        return self._directory / f"{app}.env"

    def _credential(self, app: AppName, name: str) -> str | None:
        """Returns a systemd credential without the newline that its file may end in."""
        if self._credentials is None or not dotenv.NAME.fullmatch(name):
            return None
        for path in (self._credentials / f"{app}.{name}", self._credentials / name):
            try:
                value = _text(path).removesuffix("\n")
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError):
                return None
            return None if "\0" in value else value
        return None

    def problems(self, app: AppName, env_file: str | None = None) -> tuple[str, ...]:
        """Returns why files of an app are not used, as sentences for a person; none when fine.

        A missing `<app>.env` is no problem: the app may have no secrets of its own.
        """
        found = [self._own(app)]
        if env_file is not None:
            found.append(_read_env_file(env_file, self._data_dir))
        return tuple(reading.problem for reading in found if reading.problem)

    def _digest(self, from_file: Mapping[str, str], granted: Mapping[str, str]) -> str:
        pairs = canonical([sorted(from_file.items()), sorted(granted.items())])
        return hashlib.blake2b(pairs.encode(), key=self._host_key(), digest_size=32).hexdigest()

    def _host_key(self) -> bytes:
        """Returns the key, made once: another one would change every digest, and so every app."""
        try:
            with suppress(FileNotFoundError):
                return self._checked_key()
            self._make_key()
            return self._checked_key()
        except OSError as error:
            raise ConfigError(f"{self._key} cannot be used: {error.strerror}") from error

    def _make_key(self) -> None:
        ensure_directory(self._directory, 0o700)
        fresh = self._directory / f".key.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            write_atomic(fresh, secrets.token_bytes(KEY_BYTES), mode=0o600)
            # A link, unlike a rename, lets the first of two at once win.
            with suppress(FileExistsError):
                self._key.hardlink_to(fresh)
        finally:
            fresh.unlink(missing_ok=True)
        sync_directory(self._directory)

    def _checked_key(self) -> bytes:
        key = self._key.read_bytes()
        if len(key) != KEY_BYTES:
            raise ConfigError(
                f"{self._key} is damaged; put a backup in its place, or delete it: "
                "every app that has secrets is then deployed once more"
            )
        return key

    def set_secret(self, app: AppName, name: str, value: str) -> None:
        """Writes one secret, durably; other lines of the file stay as they are.

        Raises ConfigError for a name or value that cannot be an environment variable, for a value
        over 64 KiB and for a file that is not understood; DiskPressureError.
        """
        if "\0" in value:
            raise ConfigError(f"the value of {name} holds a NUL character, which no process gets")
        if len(_encoded(name, value)) > MAX_VALUE:
            raise ConfigError(f"the value of {name} is over {MAX_VALUE >> 10} KiB")
        self._rewrite(app, name, value)

    def unset_secret(self, app: AppName, name: str) -> bool:
        """Removes one secret; whether it was there."""
        if name not in self.list_secrets(app):
            return False
        self._rewrite(app, name, None)
        return True

    def list_secrets(self, app: AppName) -> tuple[str, ...]:
        """Returns the names in the app's own file, sorted; ConfigError when it is refused."""
        _require_app(app)
        reading = self._own(app)
        if reading.problem:
            raise ConfigError(reading.problem)
        return tuple(sorted(reading.values))

    def _rewrite(self, app: AppName, name: str, value: str | None) -> None:
        _require_app(app)
        if not dotenv.NAME.fullmatch(name):
            raise ConfigError(f"{name!r} is no name for a secret: letters, digits and _ only")
        path = self._path(app)
        ensure_directory(self._directory, 0o700)
        with _locked(self._directory):
            text = _text_or_empty(path)
            fault = dotenv.parse(text)
            if isinstance(fault, dotenv.Fault):
                raise ConfigError(f"{path}:{fault.line}: {fault.message}")
            changed = dotenv.replaced(text, name, value).encode()
            if len(changed) > MAX_FILE:
                raise ConfigError(f"{path} would be over {MAX_FILE >> 20} MiB")
            write_atomic(path, changed, mode=0o600)

    async def watch(self) -> AsyncGenerator[None, None]:
        """Yields after changes in the directories, and after one of them was replaced. An
        `env_file` may lie anywhere and is not watched: the next pass finds what changed in it."""
        while True:
            try:
                ensure_directory(self._directory, 0o700)
                async with aclosing(self._changes()) as changes:
                    async for _ in changes:
                        yield
            except (OSError, RuntimeError):
                # No directory or no watches to be had: watchfiles tells the limit of inotify
                # instances as a RuntimeError. Whoever listens looks now and then instead.
                await asyncio.sleep(RETRY_SECONDS)
                yield
            else:
                # A directory was removed, and its watch with it: begin anew.
                yield

    async def _changes(self) -> AsyncGenerator[None, None]:
        """Yields for each change until a watched directory is another one than at the start."""
        watched = [path for path in (self._directory, self._credentials) if path and path.is_dir()]
        begun = _identities(watched)
        async for changes in awatch(
            *watched,
            watch_filter=None,
            recursive=False,
            debounce=GATHER_MS,
            rust_timeout=LOOK_AGAIN_MS,
            yield_on_timeout=True,
        ):
            if _identities(watched) != begun:
                return
            if changes:
                yield


def _identities(paths: list[Path]) -> list[tuple[int, int] | None]:
    return [_identity(path) for path in paths]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _encoded(name: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"the value of {name} is not Unicode text") from None


def _require_app(app: AppName) -> None:
    if not APP_NAME.fullmatch(app):
        raise ConfigError(f"{app!r} is no name of an app")


def _read_env_file(env_file: str, data_dir: Path) -> _Reading:
    """Reads a file that a contract names. None in our data directory: that may be another app's
    secrets, which we can read and the app cannot."""
    path = Path(env_file)
    if not path.is_absolute():
        return _Reading(problem=f"env_file {env_file}: the path must be absolute")
    try:
        return _parsed(path, _text(path, not_below=data_dir))
    except (OSError, UnicodeDecodeError) as error:
        return _Reading(problem=_unreadable(path, error))


def _read_private(path: Path) -> _Reading:
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            return _Reading(
                problem=f"{path} can be read by others (mode {mode & 0o777:04o}); chmod 600 {path}"
            )
        return _parsed(path, _text(path))
    except FileNotFoundError:
        return _Reading()
    except (OSError, UnicodeDecodeError) as error:
        return _Reading(problem=_unreadable(path, error))


def _parsed(path: Path, text: str) -> _Reading:
    found = dotenv.parse(text)
    if isinstance(found, dotenv.Fault):
        return _Reading(problem=f"{path}:{found.line}: {found.message}")
    return _Reading(found)


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> str:
    # The text of a decoding error quotes the bytes, which are the secret.
    why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
    return f"{path} cannot be read: {why}"


def _text_or_empty(path: Path) -> str:
    try:
        return _text(path)
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(_unreadable(path, error)) from None


def _text(path: Path, not_below: Path | None = None) -> str:
    """Reads a regular file of at most 1 MiB; never waits, as a pipe would make it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        # Asked of the opened file: a link on the way to it could be swapped after a look.
        real = Path(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        if not_below is not None and real.is_relative_to(os.path.realpath(not_below)):
            raise OSError(errno.EACCES, "it lies in the data directory", str(path))
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise OSError(errno.EFBIG, "over 1 MiB", str(path))
    return content.decode("utf-8")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lets one program at a time read and rewrite: of two at once, one's change would be lost."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another program is changing {directory}; try again") from None
        yield
    finally:
        os.close(descriptor)
