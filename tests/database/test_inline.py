"""Short reads of a database run in the thread of its event loop, and give what the worker threads give."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiosqlitepool import PoolClosedError, PoolUsageError, SQLiteDatabase
from aiosqlitepool.driver import InlineReads
from aiosqlitepool.driver.loop_turn import LoopTurn
from aiosqlitepool.events import ConnectionAcquired, ConnectionReleased, PoolTimings
from aiosqlitepool.pool.connection import PooledConnection
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock
from ..support.databases import Hold, add

LONG = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT max(i) FROM n"


async def name_thread(connection: aiosqlite.Connection) -> None:
    """Let SQL say which thread runs it."""
    await connection.create_function("thread", 0, lambda: threading.current_thread() is threading.main_thread())


@pytest.fixture
async def db(database: Path) -> AsyncIterator[SQLiteDatabase]:
    async with SQLiteDatabase(database, inline_reads=True, on_connect=name_thread) as db:
        reads(db)._clock = Clock()  # no read is slow by the clock because the machine is busy
        for text in "abc":
            await db.run_write(add, text)
        yield db


def reads(db: SQLiteDatabase) -> InlineReads:
    inline = db.readers.inline
    assert inline is not None
    return inline


def places(db: SQLiteDatabase) -> dict[str, int]:
    """How many reads ran in the loop and in worker threads, and how many of these began in the loop."""
    table = db.readers.statements()
    places = Counter(inline=sum(row.inline for row in table), retried=sum(row.retried for row in table))
    places["thread"] = sum(row.calls for row in table) - places["inline"]
    return dict(+places)


async def warm(db: SQLiteDatabase) -> None:
    """Have a reader open."""
    async with db.read():
        pass


async def test_a_short_read_runs_in_the_thread_of_the_loop(db: SQLiteDatabase) -> None:
    await warm(db)
    assert await db.fetch_val("SELECT thread()") == 1
    assert await db.fetch_all("SELECT text FROM note ORDER BY id") == [("a",), ("b",), ("c",)]
    async with db.read() as connection:
        cursor = await connection.execute("SELECT thread()")
        assert await cursor.fetchone() == (1,)
        assert await connection.execute_fetchall("SELECT thread()") == [(1,)]


async def test_a_function_runs_in_a_worker(db: SQLiteDatabase) -> None:
    assert await db.run_read(lambda native: native.execute("SELECT thread()").fetchone()) == (0,)


async def test_without_inline_reads_every_statement_runs_in_a_worker(database: Path) -> None:
    async with SQLiteDatabase(database, on_connect=name_thread) as db:
        await warm(db)
        assert await db.fetch_val("SELECT thread()") == 0
        assert db.readers.inline is None


async def test_inline_reads_is_true_or_false(database: Path) -> None:
    with pytest.raises(TypeError, match="inline_reads must be True or False, not 'yes'"):
        SQLiteDatabase(database, inline_reads="yes")  # type: ignore[arg-type]


async def test_a_long_read_is_run_again_in_a_worker_and_gives_the_same(db: SQLiteDatabase) -> None:
    await warm(db)
    for _ in range(3):
        assert await db.fetch_val(LONG) == 100_000
    async with db.read() as connection:
        assert await connection.execute_fetchall(LONG.replace("max", "min")) == [(1,)]
    assert places(db) == {"retried": 2, "thread": 4}
    # What runs in the worker is not interrupted by the budget, and waits for locks again.
    async with db.read() as connection:
        assert await connection.execute_fetchall(LONG) == [(100_000,)]


async def test_a_statement_that_goes_to_a_worker_is_counted_once(db: SQLiteDatabase) -> None:
    await warm(db)
    await db.fetch_val(LONG)
    await reads(db).turn.next()
    for _ in range(2):
        await db.fetch_val(LONG)
    assert places(db) == {"retried": 1, "thread": 3}


async def test_a_worker_waits_for_locks_after_a_read_in_the_loop_which_does_not(db: SQLiteDatabase) -> None:
    async with db.read() as connection:
        await connection.execute_fetchall("SELECT 1")
        assert await connection.execute_fetchall("PRAGMA busy_timeout") == [(30_000,)]


async def test_a_read_behind_a_statement_of_the_same_connection_waits_for_it(db: SQLiteDatabase) -> None:
    async with db.read() as connection:
        long = asyncio.ensure_future(connection.execute_fetchall(LONG + " WHERE 1"))
        await asyncio.sleep(0)
        assert await connection.execute_fetchall("SELECT thread()") == [(0,)] or long.done()
        assert await long == [(100_000,)]


async def test_a_snapshot_is_kept(db: SQLiteDatabase) -> None:
    async with db.read(snapshot=True) as connection:
        await db.run_write(add, "d")
        assert await connection.execute_fetchall("SELECT count(*), thread() FROM note") == [(3, 1)]
    assert await db.fetch_val("SELECT count(*) FROM note") == 4


async def test_a_change_of_the_schema_is_seen(db: SQLiteDatabase) -> None:
    await warm(db)
    assert await db.fetch_one("SELECT * FROM note") == (1, "a")
    await db.execute("ALTER TABLE note ADD COLUMN author TEXT")
    assert await db.fetch_one("SELECT * FROM note") == (1, "a", None)


async def test_an_error_is_that_of_sqlite_and_costs_no_connection(db: SQLiteDatabase) -> None:
    await warm(db)
    for _ in range(3):
        with pytest.raises(sqlite3.OperationalError, match="no such table: absent"):
            await db.fetch_all("SELECT * FROM absent")
        async with db.read() as connection:
            with pytest.raises(sqlite3.OperationalError, match="no such table: absent"):
                await connection.execute("SELECT * FROM absent")
    stats = db.readers.stats()
    assert (stats.used, stats.idle) == (0, 1)


async def test_a_cancelled_read_has_not_begun(db: SQLiteDatabase) -> None:
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    await warm(db)
    reading = asyncio.create_task(db.fetch_val("SELECT 1"))
    in_block = asyncio.create_task(in_a_block(db, "SELECT 1"))
    reads(db).turn.spend(1.0)
    await asyncio.sleep(0)
    before = places(db)
    for task in (reading, in_block):
        task.cancel()
    assert [type(each) for each in await asyncio.gather(reading, in_block, return_exceptions=True)] == [
        asyncio.CancelledError,
        asyncio.CancelledError,
    ]
    assert places(db) == before
    assert db.readers.stats().used == 0


async def in_a_block(db: SQLiteDatabase, sql: str, timeout: float | None = None) -> Any:
    async with db.read(timeout=timeout) as connection:
        return await connection.execute_fetchall(sql)


async def test_a_read_waits_for_the_next_turn_and_a_later_statement_of_a_block_goes_to_its_worker(
    db: SQLiteDatabase,
) -> None:
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    async with db.read() as connection:
        reading = asyncio.gather(db.fetch_val("SELECT thread()"), connection.execute_fetchall("SELECT thread()"))
        reads(db).turn.spend(1.0)
        assert await reading == [1, [(0,)]]


async def test_a_block_waits_for_the_next_turn_before_it_takes_a_connection(db: SQLiteDatabase) -> None:
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    await warm(db)
    reading = asyncio.ensure_future(in_a_block(db, "SELECT thread()"))
    reads(db).turn.spend(1.0)
    await asyncio.sleep(0)
    assert db.readers.stats().used == 0
    assert await reading == [(1,)]


async def test_blocks_of_more_tasks_than_readers_leave_a_queue_that_ends(
    db: SQLiteDatabase, recorder: Recorder
) -> None:
    """Each released connection went on to the next in the queue, and each of 20 tasks queued anew for each block."""

    async def work() -> None:
        for _ in range(50):
            await in_a_block(db, "SELECT 1")

    db.readers.subscribe(recorder)
    async with AsyncExitStack() as held:
        for _ in range(4):
            await held.enter_async_context(db.read())
        working = asyncio.gather(*(work() for _ in range(20)))
        while db.readers.stats().waiting < 20:
            await asyncio.sleep(0)
    await working
    paths = Counter(event.path for event in recorder.of(ConnectionAcquired))
    assert paths["queued"] == 20
    assert paths["idle"] >= 20 * 49


READS: list[Callable[[SQLiteDatabase], Coroutine[Any, Any, Any]]] = [
    lambda db: db.fetch_all("SELECT thread()", timeout=0.01),
    lambda db: in_a_block(db, "SELECT thread()", timeout=0.01),
]


@pytest.mark.parametrize("read", READS, ids=["alone", "in a block"])
async def test_a_read_that_is_late_for_a_turn_of_the_loop_takes_a_connection_and_its_thread(
    db: SQLiteDatabase, read: Callable[[SQLiteDatabase], Coroutine[Any, Any, Any]]
) -> None:
    """The wait for a turn was limited by no timeout."""
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    await warm(db)
    loop, turn, calls = asyncio.get_running_loop(), reads(db).turn, itertools.count()

    def take_each_turn() -> None:
        turn.spend(1.0)
        if not reading.done() and next(calls) < 10_000_000:
            loop.call_soon(take_each_turn)

    reading = asyncio.ensure_future(read(db))
    take_each_turn()
    assert await asyncio.wait_for(reading, 20) == [(0,)]
    assert not turn._waiting


@pytest.mark.parametrize("read", READS, ids=["alone", "in a block"])
async def test_no_more_reads_than_max_waiting_wait_for_a_turn_of_the_loop(
    database: Path, read: Callable[[SQLiteDatabase], Coroutine[Any, Any, Any]]
) -> None:
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    async with SQLiteDatabase(database, inline_reads=True, max_waiting=1, readers=2, on_connect=name_thread) as db:
        reads(db)._clock = Clock()
        async with db.read(), db.read():
            pass
        reading = asyncio.gather(*(read(db) for _ in range(3)))
        reads(db).turn.spend(1.0)
        assert await reading == [[(1,)], [(0,)], [(0,)]]


@pytest.mark.parametrize("read", READS, ids=["alone", "in a block"])
async def test_a_read_in_a_wrong_loop_leaves_the_turns_to_the_loop_of_the_database(
    db: SQLiteDatabase, read: Callable[[SQLiteDatabase], Coroutine[Any, Any, Any]]
) -> None:
    """The first read tied the turns to its loop, before it was found to be the wrong one."""

    def read_elsewhere() -> None:
        with pytest.raises(PoolUsageError, match="belongs to another event loop"):
            asyncio.run(read(db))

    await warm(db)
    await asyncio.to_thread(read_elsewhere)
    assert await db.fetch_val("SELECT thread()") == 1
    assert reads(db).turn is LoopTurn.of(asyncio.get_running_loop())


async def test_statements_of_one_block_keep_their_order(db: SQLiteDatabase) -> None:
    async with db.read() as connection:
        await connection.execute("BEGIN")
        await connection.execute_fetchall("SELECT count(*) FROM note")
        await db.run_write(add, "d")
        reads(db).turn.spend(1.0)
        counting = connection.execute_fetchall("SELECT count(*) FROM note")
        found, _ = await asyncio.gather(counting, connection.execute("COMMIT"))
        assert found == [(3,)]


@pytest.mark.parametrize("factory", [lambda _, row: {"only": row}, lambda _, row: row[0], sqlite3.Row])
async def test_a_row_factory_of_the_program_makes_the_rows_and_nothing_else(database: Path, factory: Any) -> None:
    async def on_connect(connection: aiosqlite.Connection) -> None:
        connection.row_factory = factory

    async with SQLiteDatabase(database, inline_reads=True, on_connect=on_connect) as db:
        await warm(db)
        await db.fetch_all("SELECT 1")
        assert places(db) == {"inline": 1}
        (value,) = await db.run_read(raw_busy_timeout)
        assert value == 30_000


def raw_busy_timeout(native: sqlite3.Connection) -> tuple[int]:
    native.row_factory = None
    found: tuple[int] = native.execute("PRAGMA busy_timeout").fetchone()
    return found


async def test_a_busy_timeout_of_a_block_ends_with_the_block(db: SQLiteDatabase) -> None:
    async with db.read() as connection:
        await connection.execute("PRAGMA busy_timeout = 7000")
        await connection.execute_fetchall("SELECT 1")
    async with db.read() as connection:
        assert await connection.execute_fetchall("PRAGMA busy_timeout") == [(30_000,)]


async def test_sql_that_is_no_string_is_refused_as_ever(db: SQLiteDatabase) -> None:
    async with db.read() as connection:
        with pytest.raises(TypeError, match="must be str"):
            await connection.execute(["SELECT 1"])  # type: ignore[arg-type]


async def test_a_reader_with_a_progress_handler_of_the_program_runs_in_its_worker(db: SQLiteDatabase) -> None:
    async with db.read() as connection:
        await connection.set_progress_handler(lambda: None, 1000)
        assert await connection.execute_fetchall("SELECT thread()") == [(0,)]


async def test_what_ran_in_the_loop_is_recorded_like_all_statements(db: SQLiteDatabase) -> None:
    await warm(db)
    for _ in range(3):
        await db.fetch_all("SELECT text FROM note", label="GET /notes")
    (row,) = [row for row in db.readers.statements() if row.statement == "SELECT text FROM note"]
    assert (row.calls, row.rows, row.labels) == (3, 9, ("GET /notes",))


async def test_a_subscriber_to_each_lease_gets_each_lease(database: Path, recorder: Recorder) -> None:
    async with SQLiteDatabase(database, inline_reads=True, on_connect=name_thread, subscribers=[recorder]) as db:
        await warm(db)
        recorder.clear()
        assert await db.fetch_val("SELECT thread()", label="mine") == 1
    leases = [event for event in recorder if isinstance(event, ConnectionAcquired | ConnectionReleased)]
    assert [type(event) for event in leases if event.label == "mine"] == [ConnectionAcquired, ConnectionReleased]


async def test_the_times_of_reads_in_the_loop_are_counted_with_those_of_all_leases(db: SQLiteDatabase) -> None:
    await warm(db)
    batches: list[PoolTimings] = []
    db.readers.events.subscribe(PoolTimings, batches.append)
    for _ in range(3):
        await db.fetch_val("SELECT 1")
    db.readers.events.flush_timings()
    assert sum(len(batch.uses) for batch in batches) == 3


async def test_an_expired_reader_is_replaced_and_not_read_with(db: SQLiteDatabase) -> None:
    await warm(db)
    db.readers.expire_connections()
    assert await db.fetch_val("SELECT 1") == 1
    assert db.readers.stats().idle == 1


async def long_idle(db: SQLiteDatabase) -> PooledConnection[aiosqlite.Connection]:
    """Have a reader that was idle for so long that its next lease would begin with a check."""
    await warm(db)
    (slot,) = db.readers._inventory.slots.idle_slots()
    assert slot.connection is not None
    slot.connection.idle_since -= 60
    slot.connection.checked(slot.connection.idle_since)
    return slot.connection


async def test_a_reader_that_was_idle_for_long_is_read_with_at_once(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To check it in its worker made all of a burst queue for leases, behind each other, for as long as it went on."""
    reader = await long_idle(db)
    long_ago = reader.idle_since
    monkeypatch.delattr(db._reader.__class__, "_lease")
    rows = await asyncio.gather(*(db.fetch_val("SELECT thread()") for _ in range(20)))
    assert rows == [1] * 20
    assert reader.idle_since >= long_ago + 60


async def test_a_reader_whose_file_was_replaced_meanwhile_is_replaced(db: SQLiteDatabase, database: Path) -> None:
    await long_idle(db)
    await db.checkpoint()
    other = database.with_name("other.db")
    await db.backup(other)
    with closing(sqlite3.connect(other)) as native:
        native.execute("INSERT INTO note (text) VALUES ('replaced')")
        native.commit()
    other.replace(database)
    assert await db.fetch_val("SELECT max(text) FROM note") == "replaced"


async def test_where_all_readers_are_lent_a_read_queues(database: Path) -> None:
    async with SQLiteDatabase(database, readers=1, inline_reads=True) as db:
        async with db.read():
            reading = asyncio.create_task(db.fetch_val("SELECT 1"))
            async with asyncio.timeout(60):
                while db.readers.stats().waiting != 1:
                    await asyncio.sleep(0)
        assert await reading == 1


async def test_a_closed_database_says_so(db: SQLiteDatabase) -> None:
    await warm(db)
    await db.close()
    with pytest.raises(PoolClosedError):
        await db.fetch_val("SELECT 1")


async def test_the_loop_rests_between_reads_while_a_reader_is_busy_for_long(db: SQLiteDatabase) -> None:
    def is_busy() -> bool:
        return reads(db).is_busy()

    await warm(db)
    assert not is_busy()
    with Hold() as hold:
        holding = asyncio.create_task(db.run_read(hold))
        await hold.reached.wait()
        while not is_busy():
            await asyncio.sleep(0.001)
    await holding
    assert not is_busy()


SELECTS = st.sampled_from(
    [
        "SELECT id, text FROM note ORDER BY id",
        "SELECT count(*) FROM note",
        "SELECT text FROM note WHERE id = 2",
        "SELECT a.id, b.text FROM note a, note b ORDER BY a.id, b.id",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 30000) SELECT i FROM n "
        "WHERE i % 777 = 0",
        "SELECT * FROM absent",
        "SELECT 'a' || text FROM note",
    ]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(SELECTS, st.just("INSERT INTO note (text) VALUES ('x')")), max_size=12))
def test_a_mix_of_both_gives_what_sqlite_gives(tmp_path_factory: pytest.TempPathFactory, statements: list[str]) -> None:
    path = tmp_path_factory.mktemp("mixed") / "app.db"
    plain = sqlite3.connect(":memory:", isolation_level=None)
    schema = "CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)"
    plain.execute(schema)

    async def run() -> None:
        async with SQLiteDatabase(path, inline_reads=True) as db:
            await db.execute(schema)
            for number, statement in enumerate(statements):
                try:
                    expected: Any = plain.execute(statement).fetchall()
                except sqlite3.Error as error:
                    expected = str(error)
                try:
                    found: Any = await fetch(db, statement, number)
                except sqlite3.Error as error:
                    found = str(error)
                assert found == expected

    asyncio.run(run())
    plain.close()


async def fetch(db: SQLiteDatabase, statement: str, number: int) -> Any:
    if statement.startswith("INSERT"):
        await db.execute(statement)
        return []
    if number % 3 == 0:
        return await db.fetch_all(statement)
    async with db.read(snapshot=number % 3 == 1) as connection:
        async with connection.execute(statement) as cursor:
            return [row async for row in cursor]
