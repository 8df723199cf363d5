from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import weakref
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError, SQLiteDatabase
from aiosqlitepool.database.busy import locked
from aiosqlitepool.events import AcquireCancelled, ConnectionAcquired, ConnectionReleased
from aiosqlitepool.testing import Recorder

from ..support.databases import Hold, add, first, held_writer, insert, texts_now, until_waiting
from ..support.files import notes
from ..support.stub import settle
from ..support.worker import busy_worker


async def waiting_functions(db: SQLiteDatabase, count: int) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(db.run_write(add, str(number))) for number in range(count)]
    await until_waiting(db, count)
    return tasks


async def test_each_function_acquires_and_releases_the_connection(db: SQLiteDatabase, recorder: Recorder) -> None:
    async with held_writer(db) as let_go:
        waiting = await waiting_functions(db, 10)
        let_go()
        await asyncio.gather(*waiting)
    acquired = recorder.of(ConnectionAcquired)
    assert [event.label for event in acquired] == ["holder", *["add"] * 10]
    assert len(recorder.of(ConnectionReleased)) == len(acquired)


async def test_functions_and_blocks_are_served_in_the_order_in_which_they_came(
    db: SQLiteDatabase, database: Path
) -> None:
    async def block(text: str) -> None:
        async with db.write() as connection:
            await insert(connection, text)

    async with held_writer(db) as let_go:
        tasks = []
        for number in range(30):
            work = block(str(number)) if number % 7 == 3 else db.run_write(add, str(number))
            tasks.append(asyncio.create_task(work))
            await until_waiting(db, number + 1)
        let_go()
        await asyncio.gather(*tasks)
    assert notes(database) == [str(number) for number in range(30)]


async def test_each_function_has_its_own_deadline(db: SQLiteDatabase) -> None:
    with Hold() as hold:
        working = asyncio.create_task(db.run_write(hold))
        await hold.reached.wait()
        patient = asyncio.create_task(db.run_write(add, "patient", timeout=60))
        with pytest.raises(PoolConnectionAcquireTimeoutError, match="app.db/write"):
            await db.run_write(add, "hasty", timeout=0.05)
        async with db.read() as connection:
            assert await texts_now(connection) == []
        hold.let_go()
        await asyncio.gather(working, patient)


async def test_a_block_has_its_own_deadline(db: SQLiteDatabase) -> None:
    async with held_writer(db):
        with pytest.raises(PoolConnectionAcquireTimeoutError, match="holder"):
            async with db.write(timeout=0.05):
                raise AssertionError("the writer is held")


async def test_what_a_function_sets_on_its_connection_ends_with_it(db: SQLiteDatabase) -> None:
    def sets(native: sqlite3.Connection) -> None:
        native.row_factory, native.text_factory = sqlite3.Row, bytes

    def reads(native: sqlite3.Connection) -> tuple[Any, Any]:
        return native.row_factory, native.text_factory

    await asyncio.gather(db.run_write(sets), db.run_write(reads))
    assert await db.run_write(reads) == (None, str)
    await db.run_read(sets)
    assert await db.run_read(reads) == (None, str)


async def test_a_pragma_that_a_block_has_set_ends_with_it(db: SQLiteDatabase) -> None:
    async with db.writer.connection() as connection:
        await connection.execute("PRAGMA foreign_keys = OFF")
    async with db.write() as connection:
        assert await connection.execute_fetchall("PRAGMA foreign_keys") == [(1,)]


async def test_functions_that_wait_are_listed_with_their_age(db: SQLiteDatabase) -> None:
    with Hold() as hold:
        working = asyncio.create_task(db.run_write(hold))
        await hold.reached.wait()
        waiting = [asyncio.create_task(db.run_write(add, name, label=name), name=name) for name in ("one", "two")]
        await until_waiting(db, 2)
        one, two = db.writer.waiters()
        assert [(each.task, each.label) for each in (one, two)] == [("one", "one"), ("two", "two")]
        assert db.writer.stats().oldest_waiter >= one.waited >= two.waited >= 0
        hold.let_go()
        await asyncio.gather(working, *waiting)
    assert db.writer.waiters() == ()
    assert db.writer.stats().oldest_waiter == 0


async def test_each_function_that_waits_is_listed_once(db: SQLiteDatabase) -> None:
    async with held_writer(db) as let_go:
        waiting = await waiting_functions(db, 3)
        assert len(db.writer.waiters()) == 3
        assert db.writer.waiters()[0].waited <= db.writer.stats().oldest_waiter
        let_go()
        await asyncio.gather(*waiting)


@pytest.mark.parametrize("doomed", [0, 1, 2])
async def test_a_cancelled_function_cancels_no_other(db: SQLiteDatabase, database: Path, doomed: int) -> None:
    async with held_writer(db) as let_go:
        waiting = await waiting_functions(db, 3)
        waiting[doomed].cancel()
        await until_waiting(db, 2)
        waiting.append(asyncio.create_task(db.run_write(add, "joined")))
        await until_waiting(db, 3)
        let_go()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert [task.cancelled() for task in waiting] == [number == doomed for number in range(4)]
    assert notes(database) == [text for text in ("0", "1", "2", "joined") if text != str(doomed)]


async def test_when_all_functions_are_cancelled_no_caller_waits(db: SQLiteDatabase, recorder: Recorder) -> None:
    async with held_writer(db):
        waiting = await waiting_functions(db, 3)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await until_waiting(db, 0)
        assert len(recorder.of(AcquireCancelled)) == 3
    assert await db.run_write(add, "kept") == 1


async def test_a_function_cancelled_before_it_began_to_wait_leaves_no_trace(db: SQLiteDatabase) -> None:
    async with db.writer.connection() as connection:
        pass
    with busy_worker(connection):  # it could be done before the cancellation
        task = asyncio.create_task(db.run_write(add, "never"))
        await asyncio.sleep(0)
        task.cancel()
        await settle()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert await db.run_write(add, "kept") == 1
    async with db.write():
        pass


async def test_a_function_that_has_ended_keeps_no_context_alive(database: Path) -> None:
    class Request:
        pass

    current = ContextVar[Request]("current")

    async def serve(db: SQLiteDatabase) -> weakref.ref[Request]:
        request = Request()
        current.set(request)
        await db.run_write(add, "a")
        return weakref.ref(request)

    async with SQLiteDatabase(database) as db:  # with no subscriber, who may keep events and their contexts
        async with held_writer(db) as let_go:
            serving = asyncio.create_task(serve(db))
            await until_waiting(db, 1)
            let_go()
            request = await serving
        del serving
        await db.run_write(add, "b")  # the worker has nothing of it any more either
        async with asyncio.timeout(10):
            while request() is not None:
                await asyncio.sleep(0)
                gc.collect()


async def test_functions_keep_their_order_while_another_process_holds_the_lock(
    db: SQLiteDatabase, database: Path
) -> None:
    """Bug: while one function waited to run again, those behind it got the lock first."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        tasks = [asyncio.create_task(db.run_write(add, str(number))) for number in range(20)]
        await first(db.writer)
        await asyncio.sleep(0.05)
        other.execute("COMMIT")
        await asyncio.gather(*tasks)
    assert notes(database) == [str(number) for number in range(20)]


@pytest.mark.parametrize("gives_up", ["at once", "when cancelled"])
async def test_functions_keep_their_order_when_one_that_waits_for_a_lock_gives_up(
    db: SQLiteDatabase, database: Path, gives_up: str
) -> None:
    """Bug: the worker had sent back those right behind it, and ran all others before them; the last one went first."""

    def busy(_: sqlite3.Connection) -> None:
        raise locked()

    for _ in range(5):
        given_up = asyncio.create_task(db.run_write(busy, retry=gives_up != "at once"))
        tasks = [asyncio.create_task(db.run_write(add, f"{number:02}")) for number in range(30)]
        while len(tasks) < 40:
            await asyncio.sleep(0)
            tasks.append(asyncio.create_task(db.run_write(add, str(len(tasks)))))
            if len(tasks) == 35 and gives_up == "when cancelled":
                given_up.cancel()
        await asyncio.gather(*tasks)
        await asyncio.wait((given_up,))
        assert notes(database) == [f"{number:02}" for number in range(40)]
        await db.execute("DELETE FROM note")
        with contextlib.suppress(asyncio.CancelledError, sqlite3.OperationalError):
            given_up.result()


async def test_functions_and_blocks_keep_their_order_while_another_process_holds_the_lock(
    db: SQLiteDatabase, database: Path
) -> None:
    async def block(text: str) -> None:
        async with db.write() as connection:
            await insert(connection, text)

    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        kinds = [db.run_write(add, str(number)) if number % 7 != 3 else block(str(number)) for number in range(20)]
        tasks = [asyncio.create_task(work) for work in kinds]
        await first(db.writer)
        await asyncio.sleep(0.05)
        other.execute("COMMIT")
        await asyncio.gather(*tasks)
    assert notes(database) == [str(number) for number in range(20)]


async def test_a_function_times_out_behind_one_that_waits_for_another_process(
    db: SQLiteDatabase, database: Path
) -> None:
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        patient = asyncio.create_task(db.run_write(add, "patient"))
        await first(db.writer)
        hasty = asyncio.create_task(db.run_write(add, "hasty", timeout=0.05))
        last = asyncio.create_task(db.run_write(add, "last"))
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await hasty
        await asyncio.sleep(0.02)
        other.execute("COMMIT")
        await asyncio.gather(patient, last)
    assert notes(database) == ["patient", "last"]


async def test_a_reader_may_be_acquired_with_a_timeout_of_its_own(db: SQLiteDatabase) -> None:
    async with db.readers.connection(timeout=5) as connection:
        assert await texts_now(connection) == []
