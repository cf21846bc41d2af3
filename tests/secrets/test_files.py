"""Secrets in files: who may read them, what is refused, and what a digest tells."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import shutil
from contextlib import aclosing
from pathlib import Path
from threading import Barrier, Thread

import pytest

from reconciler.model.desired import AppContract
from reconciler.model.errors import ConfigError
from reconciler.model.names import AppName
from reconciler.secrets import files as secret_files
from reconciler.secrets.files import FileSecrets

pytestmark = pytest.mark.anyio

SHOP = AppName("shop")
PEM = '-----BEGIN KEY-----\nAb3+/=\n"$x" \\ #\n-----END KEY-----\n'


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    return data / "secrets"


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    path = tmp_path / "credentials"
    path.mkdir()
    return path


@pytest.fixture
def files(directory: Path, credentials: Path) -> FileSecrets:
    return FileSecrets(directory, credentials)


def asks(*names: str, env_file: Path | str | None = None, **env: str) -> AppContract:
    return AppContract(
        SHOP, {}, (), secrets_inject=names, env_file=str(env_file) if env_file else None, env=env
    )


def written(directory: Path, text: str, mode: int = 0o600) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / "shop.env"
    path.write_text(text)
    path.chmod(mode)
    return path


async def test_app_without_secrets_needs_no_directory(files: FileSecrets, directory: Path) -> None:
    resolved = await files.resolve(SHOP, asks(PORT_NAME="web"))
    assert (dict(resolved.values), resolved.digest, resolved.missing) == (
        {"PORT_NAME": "web"},
        "",
        (),
    )
    assert not directory.exists()


async def test_only_names_that_were_asked_for_are_granted(
    files: FileSecrets, directory: Path
) -> None:
    written(directory, "A=1\nB=2\n")
    assert (await files.resolve(SHOP, asks("A"))).values == {"A": "1"}


async def test_env_file_env_and_secrets_are_merged_in_that_order(
    files: FileSecrets, directory: Path, tmp_path: Path
) -> None:
    env_file = tmp_path / "app.env"
    env_file.write_text("A=file\nB=file\nC=file\n")
    written(directory, "C=secret\n")
    resolved = await files.resolve(SHOP, asks("C", env_file=env_file, B="env", C="env"))
    assert resolved.values == {"A": "file", "B": "env", "C": "secret"}


async def test_app_file_wins_over_credentials(
    files: FileSecrets, directory: Path, credentials: Path
) -> None:
    (credentials / "A").write_text("for all\n")
    (credentials / "shop.A").write_text("for shop\n")
    (credentials / "B").write_text("two\nlines\n\n")
    assert (await files.resolve(SHOP, asks("A", "B"))).values == {
        "A": "for shop",
        "B": "two\nlines\n",
    }
    written(directory, "A=own\n")
    assert (await files.resolve(SHOP, asks("A"))).values == {"A": "own"}


async def test_missing_names_are_told_and_nothing_is_raised(files: FileSecrets) -> None:
    resolved = await files.resolve(SHOP, asks("A", "B", "../etc/passwd"))
    assert resolved.values == {}
    assert resolved.missing == ("A", "B", "../etc/passwd")
    assert files.problems(SHOP) == ()


async def test_file_that_others_can_read_is_refused_whole(
    files: FileSecrets, directory: Path, credentials: Path
) -> None:
    (credentials / "A").write_text("older")
    path = written(directory, "A=1\n", mode=0o640)
    resolved = await files.resolve(SHOP, asks("A"))
    assert (resolved.values, resolved.missing) == ({}, ("A",))
    assert files.problems(SHOP) == (f"{path} can be read by others (mode 0640); chmod 600 {path}",)


async def test_problem_names_file_and_line_and_never_the_value(
    files: FileSecrets, directory: Path
) -> None:
    path = written(directory, "A=1\nhunter2\n")
    assert (await files.resolve(SHOP, asks("A"))).missing == ("A",)
    assert files.problems(SHOP) == (f"{path}:2: expected NAME=value",)
    path.write_bytes(b"A=hunter2\xff\n")
    assert files.problems(SHOP) == (f"{path} cannot be read: it is not UTF-8",)


@pytest.mark.parametrize(
    "broken", ["relative.env", "/no/such/file.env", "/dev/null", "pipe", "bad"]
)
async def test_env_file_that_cannot_be_used_is_missing_by_its_path(
    files: FileSecrets, tmp_path: Path, broken: str
) -> None:
    pipe, bad = tmp_path / "pipe", tmp_path / "bad"
    os.mkfifo(pipe)
    bad.write_text("hunter2\n")
    path = {"pipe": str(pipe), "bad": str(bad)}.get(broken, broken)
    resolved = await files.resolve(SHOP, asks(env_file=path))
    assert resolved.missing == (f"env_file:{path}",)
    [problem] = files.problems(SHOP, path)
    assert path in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize("linked", [False, True])
async def test_env_file_never_is_another_apps_secrets(
    files: FileSecrets, directory: Path, tmp_path: Path, *, linked: bool
) -> None:
    files.set_secret(AppName("bank"), "VAULT", "hunter2")
    named = directory / "bank.env"
    if linked:
        named = tmp_path / "innocent.env"
        named.symlink_to(directory / "bank.env")
    resolved = await files.resolve(SHOP, asks(env_file=named))
    assert (dict(resolved.values), resolved.missing) == ({}, (f"env_file:{named}",))
    [problem] = files.problems(SHOP, str(named))
    assert "data directory" in problem


async def test_digest_follows_values_and_nothing_else(
    files: FileSecrets, directory: Path, tmp_path: Path
) -> None:
    env_file = tmp_path / "app.env"
    env_file.write_text("X=1\n")
    path = written(directory, "A=1\nB=2\n")
    contract = asks("A", env_file=env_file)
    first = (await files.resolve(SHOP, contract)).digest
    path.write_text("# B is not granted\nB=3\nA='1'\n")
    assert (await files.resolve(SHOP, contract)).digest == first
    again = FileSecrets(directory)
    assert (await again.resolve(SHOP, asks("A", env_file=env_file, LEVEL="debug"))).digest == first
    path.write_text("A=2\n")
    second = (await files.resolve(SHOP, contract)).digest
    env_file.write_text("X=2\n")
    third = (await files.resolve(SHOP, contract)).digest
    assert len({first, second, third}) == 3


async def test_digest_tells_values_apart_that_read_alike(
    files: FileSecrets, directory: Path
) -> None:
    written(directory, "A=1\nB=23\n")
    first = (await files.resolve(SHOP, asks("A", "B"))).digest
    written(directory, "A=12\nB=3\n")
    assert (await files.resolve(SHOP, asks("A", "B"))).digest != first


async def test_digest_of_another_host_is_another(tmp_path: Path) -> None:
    digests = set()
    for host in ("one", "other"):
        written(tmp_path / host, "A=1\n")
        resolved = await FileSecrets(tmp_path / host).resolve(SHOP, asks("A"))
        digests.add(resolved.digest)
    assert len(digests) == 2
    key = tmp_path / "one" / ".key"
    assert (key.stat().st_mode & 0o777, key.stat().st_size) == (0o600, 32)
    assert {path.name for path in key.parent.iterdir()} == {".key", "shop.env"}


async def test_key_is_made_once_by_many_at_once(directory: Path) -> None:
    resolved = await asyncio.gather(
        *(FileSecrets(directory).resolve(SHOP, asks("A")) for _ in range(8))
    )
    assert len({one.digest for one in resolved}) == 1


async def test_damaged_key_is_never_replaced(files: FileSecrets, directory: Path) -> None:
    directory.mkdir()
    (directory / ".key").write_bytes(b"short")
    with pytest.raises(ConfigError, match="damaged"):
        await files.resolve(SHOP, asks("A"))
    assert (directory / ".key").read_bytes() == b"short"


async def test_printed_secrets_show_names_only(files: FileSecrets, directory: Path) -> None:
    written(directory, "A=hunter2\n")
    assert "hunter2" not in repr(await files.resolve(SHOP, asks("A")))


async def test_secret_that_was_set_is_granted(files: FileSecrets, directory: Path) -> None:
    files.set_secret(SHOP, "KEY", PEM)
    files.set_secret(SHOP, "A", "first")
    files.set_secret(SHOP, "A", "second")
    assert (await files.resolve(SHOP, asks("A", "KEY"))).values == {"A": "second", "KEY": PEM}
    assert files.list_secrets(SHOP) == ("A", "KEY")
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "shop.env").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in directory.iterdir()} == {".key", "shop.env"}


def test_setting_keeps_what_a_person_wrote(files: FileSecrets, directory: Path) -> None:
    path = written(directory, "# the bank\nA=1\n")
    files.set_secret(SHOP, "B", "2")
    assert path.read_text() == "# the bank\nA=1\nB=2\n"


def test_unset_says_whether_it_was_there(files: FileSecrets) -> None:
    files.set_secret(SHOP, "A", "1")
    assert files.unset_secret(SHOP, "A")
    assert not files.unset_secret(SHOP, "A")
    assert files.list_secrets(SHOP) == ()
    assert files.list_secrets(AppName("other")) == ()


@pytest.mark.parametrize(
    ("app", "name", "value"),
    [
        ("shop", "1A", "x"),
        ("shop", "A-B", "x"),
        ("shop", "", "x"),
        ("../shop", "A", "x"),
        ("shop", "A", "nul\0"),
        ("shop", "A", "half \ud800"),
        ("shop", "A", "x" * (64 * 1024 + 1)),
    ],
)
def test_what_no_process_can_get_is_refused(
    files: FileSecrets, directory: Path, app: str, name: str, value: str
) -> None:
    with pytest.raises(ConfigError):
        files.set_secret(AppName(app), name, value)
    assert not list(directory.glob("*"))


def test_largest_value_is_accepted(files: FileSecrets) -> None:
    files.set_secret(SHOP, "A", "\n" * (64 * 1024))
    assert files.list_secrets(SHOP) == ("A",)


def test_file_that_is_not_understood_is_not_rewritten(files: FileSecrets, directory: Path) -> None:
    path = written(directory, "hunter2\n")
    with pytest.raises(ConfigError, match=r"shop\.env:1: expected"):
        files.set_secret(SHOP, "A", "1")
    assert path.read_text() == "hunter2\n"


def test_setting_makes_a_file_private_again(files: FileSecrets, directory: Path) -> None:
    path = written(directory, "A=1\n", mode=0o644)
    with pytest.raises(ConfigError, match="chmod"):
        files.list_secrets(SHOP)
    files.set_secret(SHOP, "A", "2")
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_programs_do_not_write_at_once(files: FileSecrets, directory: Path) -> None:
    files.set_secret(SHOP, "A", "1")
    other = os.open(directory, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match="another program"):
        files.set_secret(SHOP, "A", "2")
    os.close(other)
    files.set_secret(SHOP, "A", "2")


def test_no_secret_is_lost_between_writers(directory: Path) -> None:
    barrier = Barrier(4)

    def write(number: int) -> None:
        barrier.wait(10)
        while True:
            try:
                FileSecrets(directory).set_secret(SHOP, f"S{number}", "x")
            except ConfigError:
                continue
            return

    writers = [Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert FileSecrets(directory).list_secrets(SHOP) == ("S0", "S1", "S2", "S3")


async def test_watch_makes_its_directory_and_tells_of_changes(
    files: FileSecrets, directory: Path, credentials: Path
) -> None:
    async with asyncio.timeout(30), aclosing(files.watch()) as hints:
        hint = asyncio.ensure_future(anext(hints))
        await until_watched(hint, directory, "one")
        assert directory.stat().st_mode & 0o777 == 0o700
        hint = asyncio.ensure_future(anext(hints))
        await until_watched(hint, credentials, "A")


async def test_watch_outlives_its_directory(files: FileSecrets, directory: Path) -> None:
    async with asyncio.timeout(30), aclosing(files.watch()) as hints:
        hint = asyncio.ensure_future(anext(hints))
        await until_watched(hint, directory, "one")
        hint = asyncio.ensure_future(anext(hints))
        shutil.rmtree(directory)
        await hint
        hint = asyncio.ensure_future(anext(hints))
        await until_watched(hint, directory, "two")


async def test_watch_without_watches_to_be_had_tells_now_and_then(
    files: FileSecrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """watchfiles raises a RuntimeError when there are too many inotify instances."""
    monkeypatch.setattr(secret_files, "RETRY_SECONDS", 0.01)
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with asyncio.timeout(30), aclosing(files.watch()) as hints:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, usual[1]))
        try:
            await anext(hints)
            await anext(hints)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)


async def until_watched(hint: asyncio.Future[None], directory: Path, name: str) -> None:
    """Changes a file again and again until it is noticed: a watch takes a moment to begin."""
    number = 0
    while not hint.done():
        number += 1
        if directory.is_dir():
            (directory / name).write_text(str(number))
        await asyncio.wait([hint], timeout=0.3)
    await hint
