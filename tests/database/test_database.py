from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolClosedError, PoolUsageError, SQLiteDatabase
from aiosqlitepool.events import TransactionEnded
from aiosqlitepool.testing import Recorder

from ..support.children import run_program
from ..support.databases import Hold, add, first, held_writer, insert, texts
from ..support.files import notes
from ..support.storm import nothing_left_behind
from ..support.worker import jobs

# -- what it is


async def test_it_is_two_pools_named_after_it(db: SQLiteDatabase) -> None:
    assert (db.name, db.writer.name, db.readers.name) == ("app.db", "app.db/write", "app.db/read")
    assert (db.writer.stats().max_size, db.readers.stats().max_size) == (1, 4)
    assert repr(db) == f"<SQLiteDatabase 'app.db': {db.writer!r}, {db.readers!r}>"
    assert "'app.db/write' open: 0 used, 1 idle of 1, 0 waiting" in repr(db)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"readers": 0}, ValueError, "readers must be at least 1, not 0"),
        ({"readers": 1_000_000}, ValueError, "readers must be at most"),
        ({"readers": "4"}, TypeError, "readers must be an int, not '4'"),
        ({"name": 7}, TypeError, "name must be a str or None, not 7"),
        ({"name": " "}, ValueError, "name must have at least one visible character"),
        ({"acquisition_timeout": -1}, ValueError, "acquisition_timeout must be 0 or more seconds, not -1"),
        ({"operation_timeout": 0}, ValueError, "operation_timeout must be greater than 0 seconds, not 0"),
        ({"max_waiting": -1}, ValueError, "max_waiting must be at least 0, not -1"),
        ({"read_ahead": -1}, ValueError, "read_ahead must be at least 0, not -1"),
        ({"read_ahead": None}, TypeError, "read_ahead must be an int, not None"),
        ({"reader_warn_after": 0}, ValueError, "reader_warn_after must be greater than 0 seconds, not 0"),
        ({"writer_warn_after": "60"}, TypeError, "writer_warn_after must be a number of seconds or None, not '60'"),
        ({"reader_max_age": "1"}, TypeError, "reader_max_age must be a number of seconds or None, not '1'"),
        ({"checkpoint_above": -1}, ValueError, "checkpoint_above must be at least 0, not -1"),
        ({"subscribers": 7}, TypeError, "subscribers must be an iterable of subscribers, such as a list, not 7"),
        ({"subscribers": [7]}, TypeError, r"subscriber must have an attach\(pool\) method; 7 has none"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SQLiteDatabase("app.db", **settings)


@pytest.mark.parametrize(("settings", "trips"), [({}, 1), ({"read_ahead": 1}, 1), ({"read_ahead": 0}, 2)])
async def test_statements_of_both_roles_read_ahead_as_the_database_says(
    database: Path, settings: dict[str, int], trips: int
) -> None:
    async with SQLiteDatabase(database, **settings) as db:  # type: ignore[arg-type]
        for block in (db.read(), db.write()):
            async with block as connection:
                before = jobs(connection)
                cursor = await connection.execute("SELECT 1 UNION ALL SELECT 2")
                assert await cursor.fetchone() == (1,)
                assert jobs(connection) - before == trips


# -- functions


async def test_arguments_are_passed_on(db: SQLiteDatabase) -> None:
    assert await db.run_read(lambda native, a, b: (a, b), 1, 2) == (1, 2)
    assert await db.run_write(lambda native, a, b: (a, b), 1, 2) == (1, 2)


async def test_a_function_that_would_go_on_after_its_transaction_is_refused_and_rolled_back(
    db: SQLiteDatabase, database: Path
) -> None:
    async def asynchronous(native: sqlite3.Connection) -> None: ...

    def generator(native: sqlite3.Connection) -> Any:
        yield add(native, "never")

    def cursor(native: sqlite3.Connection) -> Any:
        add(native, "never")
        return native.execute("SELECT * FROM note")

    def lazily(native: sqlite3.Connection) -> Any:
        return map(str, native.execute("SELECT * FROM note"))

    for run in (db.run_read, db.run_write):
        with pytest.raises(TypeError, match="fn must be callable, not 7"):
            await run(7)  # type: ignore[operator]
        with pytest.raises(TypeError, match=r"fn must be a plain function .* returned a coroutine, which would use"):
            await run(asynchronous)
    for fn, kind in ((generator, "generator"), (cursor, "Cursor"), (lazily, "map")):
        with pytest.raises(TypeError, match=f"returned a {kind}, which would use"):
            await db.run_write(fn)
    assert notes(database) == []


async def test_a_function_goes_by_its_own_name_or_by_the_label_it_is_given(
    db: SQLiteDatabase, recorder: Recorder
) -> None:
    await db.run_read(texts)
    await db.run_write(add, "a", label="POST /notes")
    await db.run_write(functools.partial(add, text="b"))
    assert [event.label for event in recorder.of(TransactionEnded)] == ["texts", "POST /notes", None]
    with pytest.raises(TypeError, match="label must be a str or None, not 7"):
        await db.run_write(add, "c", label=7)  # type: ignore[arg-type]


# -- its life


async def test_before_it_is_open_and_after_it_was_closed_nothing_is_lent(database: Path) -> None:
    db = SQLiteDatabase(database)
    for use in (db.read, db.write):
        with pytest.raises(PoolUsageError, match=r"database 'app.db' is not open: use `async with database:`"):
            use()
    await db.open()
    await db.close()
    for use in (db.read, db.write):
        with pytest.raises(PoolClosedError, match=r"database 'app\.db' is closed"):
            use()
    with pytest.raises(PoolClosedError):
        await db.run_write(add, "never")
    with pytest.raises(PoolClosedError):
        await db.open()


async def test_opening_twice_is_harmless_also_at_once(database: Path) -> None:
    with nothing_left_behind():
        for path in (database, ":memory:"):
            db = SQLiteDatabase(path)
            await asyncio.gather(db.open(), db.open())
            await db.open()
            assert sum(task.get_name().endswith(":maintenance") for task in asyncio.all_tasks()) == 1
            await db.close()


async def test_closing_twice_is_harmless_also_at_once_and_before_opening(database: Path) -> None:
    with nothing_left_behind():
        db = SQLiteDatabase(database)
        await db.open()
        await asyncio.gather(db.close(), db.close())
        await db.close()
        unopened = SQLiteDatabase(database)
        await unopened.close()


async def test_a_wrong_timeout_closes_nothing(db: SQLiteDatabase) -> None:
    with pytest.raises(ValueError, match="timeout must be 0 or more seconds"):
        await db.close(-1)
    assert await db.run_write(add, "a") == 1


async def test_a_close_that_is_cancelled_goes_on(database: Path) -> None:
    with nothing_left_behind():
        db = SQLiteDatabase(database)
        await db.open()
        async with held_writer(db) as let_go:
            closing = asyncio.create_task(db.close())
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            let_go()
        await db.close()
        assert (db.writer.stats().state, db.readers.stats().state) == ("closed", "closed")


async def test_closing_while_it_opens_ends_both(database: Path) -> None:
    reached = asyncio.Event()

    async def hang(connection: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    with nothing_left_behind():
        db = SQLiteDatabase(database, on_connect=hang, operation_timeout=0.1)
        opening = asyncio.create_task(db.open())
        await reached.wait()
        await db.close()
        with pytest.raises(PoolClosedError):
            await opening


async def test_closing_waits_for_a_transaction_and_lets_it_commit(database: Path) -> None:
    db = SQLiteDatabase(database)
    await db.open()
    async with db.write() as connection:
        closing = asyncio.create_task(db.close())
        while db.writer.stats().state == "open":
            await asyncio.sleep(0.001)
        await insert(connection, "kept")
    await closing
    assert notes(database) == ["kept"]


async def test_closing_ends_a_transaction_that_takes_too_long(database: Path) -> None:
    db = SQLiteDatabase(database)
    await db.open()
    with (
        pytest.warns(ResourceWarning, match="closed connections under their holders"),
        pytest.raises((PoolUsageError, ValueError)),
    ):
        async with db.write() as connection:
            await insert(connection, "never")
            await db.close(timeout=0.01)
    assert notes(database) == []


async def test_closing_ends_a_function_that_takes_too_long(database: Path) -> None:
    db = SQLiteDatabase(database, operation_timeout=0.2)
    await db.open()
    with Hold() as hold:
        running = asyncio.create_task(db.run_write(hold))
        await hold.reached.wait()
        with pytest.warns(ResourceWarning, match="closed connections under their holders"):
            await db.close(timeout=0.01)
        hold.let_go()
        await asyncio.gather(running, return_exceptions=True)
    assert running.done()


async def test_closing_ends_a_function_that_waits_for_a_lock(database: Path) -> None:
    """Bug: its caller was told to acquire the connection again, which had gone back to the pool."""
    db = SQLiteDatabase(database)
    await db.open()
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(db.run_write(add, "never"))
        await first(db.writer)
        with pytest.warns(ResourceWarning, match="closed connections under their holders"):
            await db.close(timeout=0)
        with pytest.raises(PoolClosedError):
            await waiting
    assert notes(database) == []


async def test_the_last_connection_to_close_removes_the_wal(database: Path) -> None:
    async with SQLiteDatabase(database) as db:
        await db.run_write(add, "a")
        await db.run_read(texts)
        assert Path(f"{database}-wal").exists()
    assert not Path(f"{database}-wal").exists()


# -- other loops and other ends


def test_another_loop_is_told_so_at_once(database: Path) -> None:
    db = SQLiteDatabase(database)

    async def use_it_elsewhere() -> None:
        for use in (db.open, db.close):
            with pytest.raises(PoolUsageError, match="belongs to another event loop"):
                await use()
        for run in (db.run_read, db.run_write):
            with pytest.raises(PoolUsageError, match="belongs to another event loop"):
                await run(texts)
        with pytest.raises(PoolUsageError, match="belongs to another event loop"):
            async with db.write():
                pass

    async def main() -> None:
        async with db:
            await db.run_write(add, "a")
            await asyncio.to_thread(lambda: asyncio.run(use_it_elsewhere()))
            await db.run_write(add, "b")

    asyncio.run(main())
    assert notes(database) == ["a", "b"]


def test_a_database_whose_loop_has_gone_can_still_be_closed(database: Path) -> None:
    db = SQLiteDatabase(database)
    asyncio.run(db.open())

    async def close_it_here() -> None:
        with pytest.raises(PoolUsageError, match="another event loop"):
            await db.open()
        await db.close()

    asyncio.run(close_it_here())
    assert db.writer.stats().state == "closed"


@pytest.mark.parametrize("where", ["SQLiteDatabase('other.db')", "async with SQLiteDatabase('app.db') as other: pass"])
def test_a_program_that_forgets_to_close_it_ends_and_says_so(where: str, tmp_path: Path) -> None:
    ended = run_program(
        f"""
import asyncio
import contextlib
from aiosqlitepool import SQLiteDatabase
async def main():
    {where}
    db = SQLiteDatabase("app.db")
    await db.open()
    await db.run_write(lambda native: native.execute("CREATE TABLE note (id)").close())
    print("done")
asyncio.run(main())
""",
        tmp_path,
    )
    assert (ended.code, ended.out) == (0, "done\n"), ended.err
    assert "ResourceWarning: <WriterPool 'app.db/write'" in ended.err
    assert not ended.untidy(), ended.err


def test_a_loop_that_is_closed_by_hand_leaves_no_mess(tmp_path: Path) -> None:
    ended = run_program(
        """
import asyncio
import contextlib
from aiosqlitepool import SQLiteDatabase
db = SQLiteDatabase("app.db")
loop = asyncio.new_event_loop()
loop.run_until_complete(db.open())
loop.close()
asyncio.run(db.close())
print(db.writer.stats().state)
""",
        tmp_path,
    )
    assert (ended.code, ended.out) == (0, "closed\n"), ended.err
    assert not ended.untidy(), ended.err


@pytest.mark.parametrize("kind", ["read", "write"])
async def test_a_task_that_had_a_function_run_may_work_for_the_block_of_another(db: SQLiteDatabase, kind: str) -> None:
    run, block = (db.run_read, db.read) if kind == "read" else (db.run_write, db.write)
    had_it_run = asyncio.Event()
    work: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()

    async def worker() -> Any:
        await run(texts)
        had_it_run.set()
        return await (await work.get()).execute_fetchall("SELECT 1")

    working = asyncio.create_task(worker())
    await had_it_run.wait()
    async with block() as connection:
        await work.put(connection)
        assert list(await working) == [(1,)]


async def test_a_short_acquisition_timeout_does_not_keep_a_slow_machine_from_opening(database: Path) -> None:
    async def connect_slowly(_: aiosqlite.Connection) -> None:
        await asyncio.sleep(0.1)

    async with SQLiteDatabase(database, acquisition_timeout=0.05, on_connect=connect_slowly) as db:
        assert db.writer.stats().idle == 1
