from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError, PoolFullError, PoolUsageError, SQLiteDatabase
from aiosqlitepool.database.transaction import Transaction, execute
from aiosqlitepool.events import AcquireRejected, AcquireTimedOut, BusyRetried, RolledBackOnReturn, TransactionEnded
from aiosqlitepool.testing import Recorder

from ..support.databases import Hold, add, held_writer, insert, never_writes, texts, texts_now, until_waiting
from ..support.files import notes
from ..support.stub import settle


def outcomes(recorder: Recorder) -> list[str]:
    return [event.outcome for event in recorder.of(TransactionEnded)]


# -- blocks


async def test_a_block_is_committed_when_it_ends(db: SQLiteDatabase, database: Path, recorder: Recorder) -> None:
    async with db.write(label="POST /notes") as connection:
        await insert(connection, "kept")
        assert notes(database) == []
    assert notes(database) == ["kept"]
    (event,) = recorder.of(TransactionEnded)
    assert (event.pool, event.outcome, event.retries, event.label) == ("app.db/write", "committed", 0, "POST /notes")
    assert event.wait_time >= 0
    assert event.duration > 0


@pytest.mark.parametrize("end", [Transaction.commit, Transaction.roll_back])
async def test_a_transaction_took_no_longer_because_the_event_loop_heard_of_its_end_late(
    db: SQLiteDatabase, recorder: Recorder, end: Callable[[Transaction, sqlite3.Connection], None]
) -> None:
    transaction = Transaction(db.writer, "POST /notes", math.inf)
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as native:
        before = time.monotonic()
        transaction.begin(native)
        end(transaction, native)
        took = time.monotonic() - before
    with transaction:
        while time.monotonic() - before <= 2 * took:
            time.sleep(0.001)
    (event,) = recorder.of(TransactionEnded)
    assert 0 < event.duration <= took


async def test_a_block_that_raises_is_rolled_back_without_a_reset(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    with pytest.raises(KeyError):
        async with db.write() as connection:
            await insert(connection, "never")
            raise KeyError
    assert notes(database) == []
    assert outcomes(recorder) == ["rolled_back"]
    assert recorder.of(RolledBackOnReturn) == []


@pytest.mark.parametrize("error", [None, KeyError()])
async def test_a_statement_behind_the_end_of_its_block_never_runs(
    db: SQLiteDatabase, database: Path, error: KeyError | None
) -> None:
    """It would be committed on its own: behind a COMMIT, and all the more behind a ROLLBACK."""
    loop = asyncio.get_running_loop()
    late: list[asyncio.Task[None]] = []
    with Hold() as hold:
        with contextlib.suppress(KeyError):
            async with db.write() as connection:
                running = asyncio.ensure_future(connection._execute(hold, None))  # type: ignore[no-untyped-call]
                await hold.reached.wait()
                # When the end of the block has been sent.
                loop.call_soon(lambda: late.append(loop.create_task(insert(connection, "late"))))
                loop.call_later(0.02, hold.let_go)
                if error is not None:
                    raise error
        await running
    (refused,) = await asyncio.gather(*late, return_exceptions=True)
    assert isinstance(refused, PoolUsageError)
    assert notes(database) == []


async def test_a_block_holds_the_write_lock_from_its_beginning(db: SQLiteDatabase) -> None:
    async with db.write() as connection:
        assert connection.in_transaction


async def test_a_read_sees_the_write_that_this_task_has_just_made(db: SQLiteDatabase) -> None:
    await db.run_write(add, "first")
    assert await db.run_read(texts) == ["first"]
    async with db.write() as connection:
        await insert(connection, "second")
        assert await db.run_read(texts) == ["first"]
    async with db.read() as reading:
        assert await texts_now(reading) == ["first", "second"]


async def test_deferred_foreign_keys_fail_at_the_commit_and_roll_back(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    async with db.write() as connection:
        await connection.execute("CREATE TABLE tag (note INTEGER REFERENCES note DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        async with db.write() as connection:
            await insert(connection, "never")
            await connection.execute("INSERT INTO tag VALUES (99)")
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        await db.run_write(lambda native: native.execute("INSERT INTO tag VALUES (99)").close())
    await db.run_write(add, "kept")
    assert notes(database) == ["kept"]
    assert outcomes(recorder) == ["committed", "failed", "failed", "committed"]


async def test_a_rollback_of_sqlites_own_is_told_of_at_the_end_if_not_before(
    db: SQLiteDatabase, database: Path
) -> None:
    await db.run_write(lambda native: native.execute("CREATE UNIQUE INDEX one ON note (text)").close())
    clash = "INSERT OR ROLLBACK INTO note (text) VALUES ('a'), ('a')"
    with pytest.raises(sqlite3.IntegrityError):
        async with db.write() as connection:
            await insert(connection, "never")
            await connection.execute(clash)
    with pytest.raises(PoolUsageError, match="SQLite itself rolls back on some errors"):
        async with db.write() as connection:
            await insert(connection, "never")
            with pytest.raises(sqlite3.IntegrityError):
                await connection.execute(clash)
    assert notes(database) == []


async def test_a_block_whose_connection_was_closed_raises_what_the_block_raised(db: SQLiteDatabase) -> None:
    with pytest.raises(KeyError):
        async with db.write() as connection:
            await connection.close()
            raise KeyError
    assert await db.run_write(add, "another connection") == 1


# -- blocks within blocks


async def test_a_block_within_a_block_is_part_of_it(db: SQLiteDatabase, database: Path, recorder: Recorder) -> None:
    async with db.write() as outer:
        async with db.write() as inner:
            assert inner is outer
            await insert(inner, "inner")
            assert await db.run_write(add, "function") == 2
        assert notes(database) == []
    assert notes(database) == ["inner", "function"]
    assert outcomes(recorder) == ["committed"]


async def test_a_failing_block_within_a_block_takes_back_only_itself(db: SQLiteDatabase, database: Path) -> None:
    def fails(native: sqlite3.Connection) -> None:
        add(native, "never, by a function")
        raise KeyError

    async with db.write() as connection:
        await insert(connection, "before")
        with pytest.raises(KeyError):
            async with db.write():
                await insert(connection, "never")
                async with db.write():
                    await insert(connection, "never, deeper")
                raise KeyError
        with pytest.raises(KeyError):
            await db.run_write(fails)
        await insert(connection, "after")
    assert notes(database) == ["before", "after"]


async def test_a_block_within_a_block_that_loses_its_transaction_raises_what_it_raised(
    db: SQLiteDatabase, database: Path
) -> None:
    await db.run_write(lambda native: native.execute("CREATE UNIQUE INDEX one ON note (text)").close())
    clash = "INSERT OR ROLLBACK INTO note (text) VALUES ('a'), ('a')"
    with pytest.raises(PoolUsageError, match="the transaction ended inside its block"):
        async with db.write() as connection:
            with pytest.raises(sqlite3.IntegrityError):
                async with db.write():
                    await connection.execute(clash)
    with pytest.raises(PoolUsageError, match="RELEASE block_1: there is no transaction"):
        async with db.write() as connection:
            await insert(connection, "never")
            async with db.write():
                with contextlib.suppress(sqlite3.IntegrityError):
                    await connection.execute(clash)
    assert notes(database) == []


@pytest.mark.parametrize("end", ["at once", "later", "never"])
async def test_a_block_in_a_generator_that_was_left_undoes_nothing_in_silence(
    db: SQLiteDatabase, database: Path, end: str
) -> None:
    async def adding() -> AsyncIterator[None]:
        async with db.write() as inner:
            await insert(inner, "of the generator")
            yield

    generators = [adding()]
    with pytest.raises(PoolUsageError, match="aclosing"):
        async with db.write() as connection:
            async for _ in generators[0]:
                break
            if end != "never":
                generators.clear()  # the loop closes it, in a task of its own
            if end == "later":
                await asyncio.sleep(0)
            await insert(connection, "after it")
    assert notes(database) == []
    generators.clear()
    await settle()
    async with db.write() as connection, db.write():
        await insert(connection, "next")
    assert notes(database) == ["next"]


async def test_a_block_that_an_exception_of_its_task_has_lost_ends_although_the_task_keeps_that(
    db: SQLiteDatabase, database: Path
) -> None:
    async def adding() -> AsyncIterator[None]:
        async with db.write() as connection:
            await insert(connection, "never")
            yield

    async def fail() -> None:
        generator = adding()  # a variable, which the traceback keeps
        async for _ in generator:
            raise KeyError

    # The generator of the block is closed twice: by the loop, and by the generator around it.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    with contextlib.suppress(KeyError):
        await asyncio.create_task(fail())
    await settle()  # the loop keeps the task until this one waits again
    db.writer._housekeeper.sweep()  # when a caller has waited for long, or the block has lasted for long
    gc.collect()
    async with db.write() as connection:
        await insert(connection, "next")
    assert notes(database) == ["next"]


async def test_what_cannot_be_taken_back_alone_is_taken_back_with_all_the_rest(
    db: SQLiteDatabase, database: Path
) -> None:
    with pytest.raises(PoolUsageError, match="the transaction ended inside its block"):
        async with db.write() as connection:
            await insert(connection, "before")
            with pytest.raises(KeyError):
                async with db.write():
                    await insert(connection, "never")
                    await connection.execute("RELEASE block_1")
                    raise KeyError
    assert notes(database) == []


async def test_a_task_started_inside_a_block_has_its_own_turn(db: SQLiteDatabase, database: Path) -> None:
    async with db.write() as connection:
        other = asyncio.create_task(db.run_write(add, "child"))
        await until_waiting(db, 1)
        await insert(connection, "parent")
    await other
    assert notes(database) == ["parent", "child"]


async def test_a_checkpoint_inside_a_block_is_refused_at_once(db: SQLiteDatabase) -> None:
    async with db.write():
        with pytest.raises(PoolUsageError, match=r"checkpoint: not possible inside a write\(\) block"):
            await db.checkpoint()


# -- functions


async def test_a_function_is_committed_and_its_result_returned(
    db: SQLiteDatabase, database: Path, recorder: Recorder
) -> None:
    assert await db.run_write(add, "kept") == 1
    assert notes(database) == ["kept"]
    (event,) = recorder.of(TransactionEnded)
    assert (event.outcome, event.label) == ("committed", "add")


@pytest.mark.parametrize("error", [KeyError("k"), SystemError(), BaseException("base")])
async def test_what_a_function_raises_rolls_back(db: SQLiteDatabase, database: Path, error: BaseException) -> None:
    def fails(native: sqlite3.Connection) -> None:
        add(native, "never")
        raise error

    with pytest.raises(type(error)):
        await db.run_write(fails)
    assert await db.run_write(add, "kept") == 1
    assert notes(database) == ["kept"]


async def test_a_function_that_ends_its_transaction_in_sql_gets_an_error_at_its_end(db: SQLiteDatabase) -> None:
    with pytest.raises(PoolUsageError, match="the transaction ended inside its block"):
        await db.run_write(lambda native: native.execute("COMMIT").close())


async def test_a_function_that_closes_the_connection_harms_nobody_else(db: SQLiteDatabase, database: Path) -> None:
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        await db.run_write(lambda native: native.close())
    await db.run_write(add, "kept")
    assert notes(database) == ["kept"]


# -- the queue


async def test_blocks_and_functions_are_served_in_the_order_in_which_they_came(
    db: SQLiteDatabase, database: Path
) -> None:
    async def block(text: str) -> None:
        async with db.write() as connection:
            await insert(connection, text)

    expected = [f"{kind} {number}" for number in range(20) for kind in ("function", "block", "block", "function")]
    jobs = [db.run_write(add, text) if text.startswith("function") else block(text) for text in expected]
    await asyncio.gather(*jobs)
    assert notes(database) == expected


async def test_a_function_that_comes_when_the_connection_does_overtakes_none_that_waited(
    db: SQLiteDatabase, database: Path
) -> None:
    expected = [str(number) for number in range(10)]
    async with held_writer(db) as let_go:
        functions = [asyncio.create_task(db.run_write(add, text)) for text in expected[:3]]
        await until_waiting(db, 3)
        let_go()
        for text in expected[3:]:  # one in each of the turns of the loop in which those who waited wake
            functions.append(asyncio.create_task(db.run_write(add, text)))
            await asyncio.sleep(0)
        await asyncio.gather(*functions)
    assert notes(database) == expected


async def test_whoever_borrows_the_connection_itself_has_its_turn_too(db: SQLiteDatabase) -> None:
    stop = False

    async def write_for_ever() -> None:
        while not stop:
            await db.run_write(add, "again")

    writers = [asyncio.create_task(write_for_ever()) for _ in range(10)]
    await db.run_write(add, "first")
    async with asyncio.timeout(60), db.writer.connection() as connection:
        assert not connection.in_transaction
    stop = True
    await asyncio.gather(*writers)


async def test_a_block_cancelled_before_it_is_in_the_queue_leaves_no_trace(db: SQLiteDatabase) -> None:
    function = asyncio.create_task(db.run_write(add, "a"))
    blocked = asyncio.create_task(never_writes(db))
    await asyncio.sleep(0)
    blocked.cancel()
    await asyncio.gather(function, blocked, return_exceptions=True)
    assert blocked.cancelled()
    assert await db.run_write(add, "b") == 2


async def test_functions_that_wait_count_as_waiting_each(db: SQLiteDatabase) -> None:
    async with held_writer(db) as let_go:
        waiting = [asyncio.create_task(db.run_write(add, str(number))) for number in range(5)]
        await until_waiting(db, 5)
        let_go()
        await asyncio.gather(*waiting)
    assert db.writer.stats().waiting == 0


async def test_max_waiting_counts_functions_and_blocks(database: Path, recorder: Recorder) -> None:
    async with SQLiteDatabase(database, max_waiting=2, subscribers=[recorder]) as db, held_writer(db) as let_go:
        waiting = [asyncio.create_task(db.run_write(add, text)) for text in "ab"]
        await until_waiting(db, 2)
        with pytest.raises(PoolFullError, match="max_waiting=2 lets no more callers wait"):
            await db.run_write(add, "one too many")
        with pytest.raises(PoolFullError):
            async with db.write():
                pass
        assert len(recorder.of(AcquireRejected)) == 2
        let_go()
        assert await asyncio.gather(*waiting) == [1, 2]


async def test_max_waiting_counts_those_who_come_at_once(database: Path, recorder: Recorder) -> None:
    async def block(text: str) -> None:
        async with db.write() as connection:
            await insert(connection, text)

    async with SQLiteDatabase(database, max_waiting=2, subscribers=[recorder]) as db, held_writer(db) as let_go:
        jobs = [*(db.run_write(add, text) for text in "abc"), block("d"), db.run_write(add, "e")]
        waiting = [asyncio.create_task(job) for job in jobs]
        await until_waiting(db, 2)
        let_go()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ends] == [int, int, PoolFullError, PoolFullError, PoolFullError]
    assert [event.pending for event in recorder.of(AcquireRejected)] == [2, 2, 2]


async def test_max_waiting_counts_those_who_come_while_there_is_no_connection_yet(database: Path) -> None:
    async def block(text: str) -> None:
        async with db.write() as connection:
            await insert(connection, text)

    async with SQLiteDatabase(database, max_waiting=1) as db:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            await db.run_write(lambda native: native.close())
        db.writer._timer.stop()  # else it is being opened already, for nobody
        assert db.writer.stats().used == db.writer.stats().idle == 0
        ends = await asyncio.gather(db.run_write(add, "a"), db.run_write(add, "b"), block("c"), return_exceptions=True)
    assert [type(end) for end in ends] == [int, int, PoolFullError]


async def test_with_max_waiting_0_a_function_needs_an_idle_connection(database: Path) -> None:
    async with SQLiteDatabase(database, max_waiting=0) as db:
        assert await db.run_write(add, "a") == 1
        async with held_writer(db):
            with pytest.raises(PoolFullError):
                await db.run_write(add, "b")


async def test_with_acquisition_timeout_0_an_idle_connection_writes(database: Path) -> None:
    async with SQLiteDatabase(database, acquisition_timeout=0) as db:
        assert await db.run_write(add, "a") == 1
        async with held_writer(db):
            with pytest.raises(PoolConnectionAcquireTimeoutError):
                await db.run_write(add, "b")


async def test_functions_that_waited_too_long_are_told_of_once_each(database: Path, recorder: Recorder) -> None:
    async with SQLiteDatabase(database, acquisition_timeout=0.05, subscribers=[recorder]) as db, held_writer(db):
        late = [asyncio.create_task(db.run_write(add, str(number))) for number in range(3)]
        errors = await asyncio.gather(*late, return_exceptions=True)
        assert [type(error) for error in errors] == [PoolConnectionAcquireTimeoutError] * 3
        assert all("older [holder] has held connection 1" in str(error) for error in errors)
        assert len(recorder.of(AcquireTimedOut)) == 3
        assert db.writer.stats().waiting == 0


async def test_closing_tells_functions_that_wait(database: Path) -> None:
    async with SQLiteDatabase(database) as db, held_writer(db) as let_go:
        waiting = [asyncio.create_task(db.run_write(add, text)) for text in "ab"]
        await until_waiting(db, 2)
        closing = asyncio.create_task(db.close())
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(error).__name__ for error in errors] == ["PoolClosedError"] * 2
        let_go()
        await closing


async def test_a_function_that_runs_has_its_connection_to_itself(db: SQLiteDatabase) -> None:
    with Hold() as hold:
        running = asyncio.create_task(db.run_write(hold))
        await hold.reached.wait()
        second = asyncio.create_task(db.run_write(add, "second"))
        await until_waiting(db, 1)
        hold.let_go()
        assert await running == "held"
        assert await second == 1


# -- cursors that were not read to their end

RETURNING = "INSERT INTO note (text) VALUES ('a'), ('b') RETURNING id"


@pytest.mark.parametrize("statement", [RETURNING, f"WITH x AS (SELECT 1) {RETURNING}", "SELECT 1 UNION SELECT 2"])
async def test_an_unread_cursor_does_not_keep_a_block_from_its_commit(
    db: SQLiteDatabase, database: Path, recorder: Recorder, statement: str
) -> None:
    async with db.write() as connection:
        await insert(connection, "first")
        kept = await connection.execute(statement)
    assert notes(database) == ["first"] + ["a", "b"] * ("RETURNING" in statement)
    assert recorder.of(BusyRetried) == []
    assert outcomes(recorder) == ["committed"]
    with pytest.raises(PoolUsageError):
        await kept.fetchone()


async def test_an_unread_cursor_that_writes_is_closed_by_a_block_within_its_block(
    db: SQLiteDatabase, database: Path
) -> None:
    # More rows than are read ahead.
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200) SELECT i FROM n"
    async with db.write() as connection:
        outer = await connection.execute(f"INSERT INTO note (text) {numbers} RETURNING id")
        async with db.write():
            with pytest.raises(sqlite3.ProgrammingError, match="closed cursor"):
                await outer.fetchall()
            await connection.execute(RETURNING)
        with pytest.raises(KeyError):
            async with db.write():
                await connection.execute(RETURNING)
                raise KeyError
        await insert(connection, "last")
    assert notes(database)[200:] == ["a", "b", "last"]


async def test_a_loop_over_a_select_goes_on_while_blocks_within_it_end(db: SQLiteDatabase, database: Path) -> None:
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200) SELECT i FROM n"
    async with db.write() as connection, connection.execute(numbers) as cursor:
        seen = 0
        async for (number,) in cursor:
            seen += number
            async with db.write():
                await connection.execute("INSERT INTO note (text) VALUES (?) RETURNING id", (str(number),))
    assert seen == sum(range(201))
    assert len(notes(database)) == 200


@pytest.mark.parametrize("nested", [False, True])
async def test_a_cursor_that_a_function_leaves_open_does_not_keep_it_from_its_commit(
    db: SQLiteDatabase, database: Path, recorder: Recorder, nested: bool
) -> None:
    kept: list[sqlite3.Cursor] = []
    async with db.write() if nested else contextlib.nullcontext():
        await db.run_write(lambda native: kept.append(native.execute(RETURNING)))
    assert notes(database) == ["a", "b"]
    assert recorder.of(BusyRetried) == []


class InProgress(sqlite3.Connection):
    """A connection whose statement in progress cannot be found."""

    def execute(self, *_: object) -> sqlite3.Cursor:
        error = sqlite3.OperationalError("cannot commit transaction - SQL statements in progress")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error


def test_a_commit_that_an_unknown_statement_prevents_is_refused() -> None:
    with (
        contextlib.closing(sqlite3.connect(":memory:", factory=InProgress)) as native,
        pytest.raises(sqlite3.OperationalError, match="in progress"),
    ):
        execute(native, "COMMIT")
