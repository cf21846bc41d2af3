"""SQLite's own promises: its file, its migrations, its durability, its queries."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event

import pytest
from sqlite_utils import Database, Migrations

import reconciler
from reconciler.model.deploys import Phase, WishStatus
from reconciler.model.errors import StoreError, StoreMissingError, StoreNewerError
from reconciler.stores import STORES, queries
from reconciler.stores.migrations import MIGRATIONS
from reconciler.stores.migrations.m0001_first import APPEND_ONLY, first
from reconciler.stores.schema import open_file
from reconciler.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.samples import (
    HOST,
    PROVED,
    SHOP,
    SLOT_A,
    SLOT_B,
    HandClock,
    quarantined,
    request,
    step,
)

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
V1 = ROOT / "fixtures" / "stores" / "v1.sql"
SHORT = timedelta(milliseconds=10)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "autopilot.db"


@pytest.fixture
def v1(path: Path) -> Path:
    """A store as the first release left it."""
    with closing(sqlite3.connect(path)) as old:
        old.executescript(V1.read_text())
    return path


async def opened(path: Path, busy_timeout: timedelta = timedelta(seconds=5)) -> SqliteStore:
    return await open_sqlite(path, HOST, have_slots=False, busy_timeout=busy_timeout)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def schema(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
        return sorted(row[0] for row in rows)


def scalar(path: Path, sql: str) -> object:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchone()[0]


def next_release(second: Callable[[Database], None]) -> Migrations:
    """The migrations of a release after this one."""
    migrations = Migrations(MIGRATIONS.name)
    migrations(name="0001_first")(first)
    migrations(name="0002_second")(second)
    return migrations


def add_column(db: Database) -> None:
    db.execute("ALTER TABLE deploys ADD COLUMN policy_hash TEXT")


def migrated(path: Path, migrations: Migrations) -> None:
    open_file(
        path, migrations, have_slots=True, adopt=False, busy_timeout=timedelta(seconds=1)
    ).close()


def test_registry_names_the_store() -> None:
    assert STORES["sqlite"] is open_sqlite


async def test_new_store_is_private_and_says_who_made_it(path: Path) -> None:
    store = await opened(path)
    await store.tell("proxy.started", {})
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    await store.close()
    assert modes == {"autopilot.db": 0o600, "autopilot.db-wal": 0o600, "autopilot.db-shm": 0o600}
    assert scalar(path, "SELECT value FROM meta WHERE key = 'schema_version'") == "1"
    version = scalar(path, "SELECT value FROM meta WHERE key = 'product_version'")
    assert version == reconciler.__version__


async def test_store_that_others_can_read_is_made_private(path: Path) -> None:
    await (await opened(path)).close()
    path.chmod(0o644)
    await (await opened(path)).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_commits_are_durable_and_references_are_checked(path: Path) -> None:
    database = open_file(path, MIGRATIONS, have_slots=False, adopt=False, busy_timeout=SHORT)
    pragmas = {
        name: database.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys")
    }
    database.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


async def test_close_folds_the_log_into_the_file(path: Path) -> None:
    store = await opened(path)
    await store.tell("proxy.started", {})
    await store.close()
    assert [file.name for file in path.parent.iterdir()] == ["autopilot.db"]


async def test_store_of_the_first_release_opens(v1: Path) -> None:
    store = await opened(v1)
    seen = await store.records(SHOP)
    assert seen.running is not None
    assert seen.running.id == request(4).id
    assert [one.deploy_id for one in seen.promotions] == [request(n).id for n in (1, 2, 3)]
    assert [one.slot for one in seen.promotions] == [SLOT_A, SLOT_B, SLOT_A]
    assert seen.quarantine == (quarantined(2),)
    proved = await store.deploy(request(1).id)
    assert proved is not None
    assert proved.verdicts == (PROVED,)
    assert proved.request.message == "it's the first"
    await store.close_deploy(request(4).id, step(Phase.FAILED), wish_status=WishStatus.FAILED)
    await store.close()


async def test_schema_of_the_first_release_never_changes(path: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    with closing(sqlite3.connect(old)) as database:
        database.executescript(V1.read_text())
    await (await opened(path)).close()
    assert schema(path) == schema(old)


def test_older_store_is_migrated_and_copied_first(v1: Path) -> None:
    before = dump(v1)
    migrated(v1, next_release(add_column))
    assert scalar(v1, "SELECT value FROM meta WHERE key = 'schema_version'") == "2"
    assert scalar(v1, "SELECT count(*) FROM deploys WHERE policy_hash IS NULL") == 4
    copy = v1.with_name("autopilot.db.before-2")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert dump(copy) == before
    assert {file.name for file in v1.parent.iterdir()} == {v1.name, copy.name}


def test_copy_holds_what_was_only_in_the_log(path: Path) -> None:
    database = open_file(path, MIGRATIONS, have_slots=False, adopt=False, busy_timeout=SHORT)
    database.execute("INSERT INTO meta VALUES ('note', 'in the log')")
    migrated(path, next_release(add_column))
    database.close()
    copy = path.with_name("autopilot.db.before-2")
    assert scalar(copy, "SELECT value FROM meta WHERE key = 'note'") == "in the log"


async def test_failed_migration_leaves_the_old_store(v1: Path) -> None:
    def half(db: Database) -> None:
        add_column(db)
        db.execute("DROP TABLE absences")
        raise RuntimeError("half way")

    before = dump(v1)
    with pytest.raises(RuntimeError, match="half way"):
        migrated(v1, next_release(half))
    assert dump(v1) == before
    store = await opened(v1)
    assert (await store.records(SHOP)).live_deploy is not None
    await store.close()


async def test_newer_store_is_refused_by_name_and_left_alone(v1: Path) -> None:
    migrated(v1, next_release(add_column))
    with closing(sqlite3.connect(v1)) as database, database:
        database.execute("UPDATE meta SET value = '9.8.7' WHERE key = 'product_version'")
    before = dump(v1)
    with pytest.raises(StoreNewerError, match=r"9\.8\.7"):
        await open_sqlite(v1, HOST, have_slots=True, adopt=True)
    assert dump(v1) == before


async def test_missing_store_with_slots_is_refused_and_not_created(path: Path) -> None:
    with pytest.raises(StoreMissingError, match="--adopt"):
        await open_sqlite(path, HOST, have_slots=True)
    assert not path.exists()


async def test_empty_store_with_slots_counts_as_missing(path: Path) -> None:
    path.touch()
    with pytest.raises(StoreMissingError):
        await open_sqlite(path, HOST, have_slots=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 1")
    assert path.stat().st_size > 0
    with pytest.raises(StoreMissingError):
        await open_sqlite(path, HOST, have_slots=True)


async def test_adopt_begins_a_new_store_beside_slots(path: Path) -> None:
    store = await open_sqlite(path, HOST, have_slots=True, adopt=True)
    await store.record_wish(request(1), step())
    await store.close()
    again = await open_sqlite(path, HOST, have_slots=True)
    assert (await again.records(SHOP)).running is not None
    await again.close()


async def test_file_that_is_no_database_is_refused_and_kept(path: Path) -> None:
    path.write_bytes(b"not a database" * 1_000)
    with pytest.raises(StoreError, match="backup"):
        await open_sqlite(path, HOST, have_slots=True, adopt=True)
    assert path.read_bytes() == b"not a database" * 1_000


async def test_damaged_store_is_refused(path: Path) -> None:
    store = await opened(path)
    for number in range(50):
        await store.record_wish(request(number), step())
    await store.close()
    content = bytearray(path.read_bytes())
    for page in range(8, len(content) // 4096):
        content[page * 4096 : page * 4096 + 512] = b"\xa5" * 512
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        await opened(path)


async def test_database_of_another_program_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE photos (id INTEGER)")
    with pytest.raises(StoreError, match="not a store of autopilot"):
        await opened(path)


@pytest.mark.parametrize("name", [".", "no-such-directory/autopilot.db"])
async def test_path_that_cannot_be_a_store_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        await opened(tmp_path / name)
    assert tmp_path.stat().st_mode & 0o100


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_history_cannot_be_rewritten(v1: Path, table: str) -> None:
    with closing(sqlite3.connect(v1)) as database:
        for statement in (f"UPDATE {table} SET host_id = 'x'", f"DELETE FROM {table}"):  # noqa: S608
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                database.execute(statement)


def test_every_table_of_records_is_strict_and_names_its_host(v1: Path) -> None:
    with closing(sqlite3.connect(v1)) as database:
        tables = database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 1) <> '_'"
        ).fetchall()
        for (table,) in tables:
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            strict = database.execute(f"PRAGMA table_list({table})").fetchone()[5]
            assert strict == 1, table
            assert table == "meta" or "host_id" in columns, table


class Anything(dict[str, object]):
    def __missing__(self, name: str) -> object:
        return None


QUERIES = {
    name: sql for name, sql in vars(queries).items() if name.isupper() and "SELECT" in str(sql)
}


@pytest.mark.parametrize("name", sorted(QUERIES))
def test_no_question_reads_a_whole_table_or_sorts(v1: Path, name: str) -> None:
    """What 10,000 deploys cost is then what 10 cost."""
    with closing(sqlite3.connect(v1)) as database:
        rows = database.execute(f"EXPLAIN QUERY PLAN {QUERIES[name]}", Anything()).fetchall()
    plan = [row[3] for row in rows]
    if name == "LAST_EVENT":
        # The end of the table's own tree: one row, whatever its size.
        assert plan == ["SCAN events"]
        return
    scans = [line for line in plan if line.startswith("SCAN") and "VIRTUAL TABLE" not in line]
    assert not scans, plan
    sorts = [line for line in plan if "TEMP B-TREE" in line]
    assert not sorts or name == "DEPLOYS", plan


@contextmanager
def held(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program in the middle of a write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


async def test_store_held_by_another_program_is_an_error_that_passes(path: Path) -> None:
    store = await opened(path, SHORT)
    with held(path), pytest.raises(StoreError, match="another process"):
        await store.tell("proxy.started", {})
    await store.tell("proxy.started", {})
    assert await store.last_event() == 1
    await store.close()


async def test_reads_do_not_wait_for_a_slow_write(path: Path) -> None:
    store = await opened(path, timedelta(minutes=1))
    await store.record_wish(request(1), step())
    with held(path) as other:
        writing = asyncio.ensure_future(store.tell("proxy.started", {}))
        assert (await store.records(SHOP)).running is not None
        assert not writing.done()
        other.execute("ROLLBACK")
        await writing
    await store.close()


class HaltingClock(HandClock):
    """A clock that a write asks in the middle of its transaction, and that lets it wait there."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = Event(), Event()

    def wall(self) -> datetime:
        self.asked.set()
        self.go_on.wait(30)
        return super().wall()


async def test_listeners_hear_of_a_commit_whose_caller_has_gone(path: Path) -> None:
    clock = HaltingClock()
    store = await open_sqlite(path, HOST, have_slots=False, clock=clock)
    heard = asyncio.Event()
    store.on_event(heard.set)
    writing = asyncio.ensure_future(store.tell("proxy.started", {}))
    assert await asyncio.to_thread(clock.asked.wait, 30)
    writing.cancel()
    clock.go_on.set()
    await asyncio.wait_for(heard.wait(), 30)
    assert await store.last_event() == 1
    assert writing.cancelled()
    await store.close()


async def acknowledged_until_killed(path: Path, begin: int, count: int) -> list[int]:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stores.endless", str(path), str(begin)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    heard = [await program.stdout.readline() for _ in range(count)]
    program.kill()
    rest = (await program.stdout.read()).splitlines(keepends=True)
    await program.wait()
    return [int(line) for line in [*heard, *rest] if line.endswith(b"\n")]


async def test_kill_9_loses_nothing_that_was_acknowledged(path: Path) -> None:
    acknowledged: list[int] = []
    for round_ in range(4):
        acknowledged += await acknowledged_until_killed(path, round_ * 10_000, 5 + round_ * 13)
        store = await open_sqlite(path, HOST, have_slots=True)
        for number in acknowledged:
            deploy = await store.deploy(request(number).id)
            assert deploy is not None
            assert deploy.phase is Phase.LIVE
        seen = await store.records(SHOP)
        assert seen.live_deploy is not None
        events = await store.events(0, 1_000_000)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        await store.close()


async def test_full_disk_is_told_and_passes_by_itself(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -m tests.stores.crowded "$1"'
    program = await asyncio.create_subprocess_exec(
        *("unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await program.communicate()
    if b"unshare failed" in err or b"Operation not permitted" in err:
        pytest.skip("no user namespaces here")
    assert (program.returncode, out) == (0, b"held\n"), err.decode()


GROWTH = """
    WITH RECURSIVE numbers (n) AS (SELECT :begin UNION ALL SELECT n + 1 FROM numbers WHERE n < :end)
    INSERT INTO {table} SELECT {columns} FROM numbers"""
AT = "'2026-11-21T12:00:00Z'"
GROWN = {
    "wishes": "n, 'w' || n, 'host-1', 'shop', 'deploy', 'r', 'c', '', '{}', 'met', 'push', 'a', 1, "
    "NULL",
    "deploys": "n, 'd' || n, 'w' || n, 'host-1', 'shop', 'deploy', 'r', 'c', '', '{}', 'a', "
    f"'push', {AT}, NULL, '', 0, '', '[]', NULL, 1, NULL, NULL",
    "progress": f"n, 'host-1', 'd' || n, 'live', {AT}, 'boot@' || n, NULL, '', '', ''",
    "promotions": f"n, 'host-1', 'shop', 'd' || n, 'deploy-a', {AT}, 'boot@' || n",
}


def grow(database: sqlite3.Connection, begin: int, end: int) -> None:
    for table, columns in GROWN.items():
        database.execute(GROWTH.format(table=table, columns=columns), {"begin": begin, "end": end})


def effort(database: sqlite3.Connection) -> int:
    """Returns how many instructions SQLite runs for one pass over the app."""
    spent = 0

    def count() -> int:
        nonlocal spent
        spent += 1
        return 0

    database.set_progress_handler(count, 1)
    queries.records(queries.Reading(database, HOST), SHOP)
    database.set_progress_handler(None, 0)
    return spent


def test_ten_thousand_deploys_cost_a_pass_no_more_than_three_hundred(v1: Path) -> None:
    with closing(sqlite3.connect(v1)) as database:
        database.row_factory = sqlite3.Row
        grow(database, 100, 400)
        few = effort(database)
        grow(database, 401, 10_400)
        assert effort(database) == few
