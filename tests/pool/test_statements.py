"""Statements of a pool: what it says of those that ran, and its methods that run one without a block."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sqlite3
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import (
    Executed,
    PoolClosedError,
    PoolConnectionAcquireTimeoutError,
    PoolUsageError,
    SQLiteConnectionPool,
    SQLiteDatabase,
    StatementStats,
)
from aiosqlitepool.events import (
    ConnectionReleased,
    PoolClosed,
    PoolEvent,
    RolledBackOnReturn,
    StatementExecuted,
    StatementSlow,
    StatementTimings,
)
from aiosqlitepool.testing import Recorder

from ..support.children import in_a_forked_child
from ..support.files import make_database, notes
from ..support.stub import StubDriver
from ..support.worker import ENDLESS, Gate, began, jobs

ROWS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT i FROM n"


def pool_on(database: Path, **settings: Any) -> SQLiteConnectionPool[aiosqlite.Connection]:
    return SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, **settings)


def by_statement(pool: SQLiteConnectionPool[aiosqlite.Connection]) -> dict[str, StatementStats]:
    return {row.statement: row for row in pool.statements()}


async def test_each_way_to_run_sql_is_a_call_of_its_statement(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection("GET /notes") as connection:
        await connection.execute("SELECT 1")
        await connection.execute_fetchall("SELECT 2")
        cursor = await connection.cursor()
        await cursor.execute("SELECT 3")
        await cursor.executemany("INSERT INTO note (text) VALUES (?)", [("a",), ("b",)])
        await connection.execute_insert("INSERT INTO note (text) VALUES (?)", ("c",))
        await connection.executescript("-- nothing")
        await connection.commit()
        await cursor.close()
        rows = by_statement(pool)
        assert {statement: row.calls for statement, row in rows.items()} == {
            "SELECT ?": 3,
            "INSERT INTO note (text) VALUES (?)": 2,
            "": 1,
            "COMMIT": 1,
        }
        insert = rows["INSERT INTO note (text) VALUES (?)"]
        assert (insert.operation, insert.rows_changed, insert.labels) == ("INSERT", 3, ("GET /notes",))
        assert insert.run_total > 0
        assert rows["SELECT ?"].rows == 3
        assert rows["COMMIT"].errors == 0


async def test_rows_that_are_fetched_later_belong_to_their_statement(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        cursor = await connection.execute(ROWS)
        assert len(list(await cursor.fetchall())) == 200
        (row,) = pool.statements()
        # What was read ahead is counted by the call; the rest by the fetch.
        assert (row.calls, row.rows) == (1, 200)


@pytest.mark.parametrize("read_ahead", [0, 64])
async def test_a_statement_that_fails_is_an_error_of_its_statement(database: Path, read_ahead: int) -> None:
    async with pool_on(database, read_ahead=read_ahead) as pool, pool.connection() as connection:
        with pytest.raises(sqlite3.OperationalError):
            await connection.execute("SELECT missing")
        (row,) = pool.statements()
        assert (row.statement, row.calls, row.errors) == ("SELECT missing", 1, 1)


async def test_what_is_no_sql_is_no_statement(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        with pytest.raises(TypeError):
            await connection.execute(7)  # type: ignore[arg-type]
        await connection.create_function("f", 0, lambda: 1)
        assert pool.statements() == ()


async def test_a_reset_forgets_what_ran(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        await connection.execute("SELECT 1")
        pool.reset_statements()
        assert (pool.statements(), pool.statements().forgotten) == ((), 0)


async def test_a_table_of_statements_is_a_value(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        await connection.execute("SELECT 1")
        table = pool.statements()
    for again in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert (again, again.forgotten) == (table, 0)


async def test_a_holder_says_which_statement_runs_and_for_how_long(database: Path) -> None:
    with Gate() as gate:
        async with pool_on(database) as pool, pool.connection("GET /report") as connection:
            await gate.install(connection)
            running = asyncio.create_task(connection.execute_fetchall("SELECT gate() WHERE 'secret' = 'secret'"))
            await gate.reached.wait()
            (holder,) = pool.holders()
            assert (holder.statement, holder.statement_runs) == ("SELECT gate() WHERE ? = ?", True)
            assert " s of it in SELECT gate() WHERE ? = ?" in str(holder)

            async def wait() -> str:
                with pytest.raises(PoolConnectionAcquireTimeoutError) as error:
                    await pool.acquire(timeout=0.01)
                return str(error.value)

            assert " s of it in SELECT gate() WHERE ? = ?" in await asyncio.create_task(wait())
            gate.open()
            await running
            (holder,) = pool.holders()
            assert (holder.statement, holder.statement_runs) == ("SELECT gate() WHERE ? = ?", False)
            assert ", last in SELECT gate() WHERE ? = ? for " in str(holder)


async def test_a_long_statement_is_short_in_a_text(database: Path) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        await connection.execute(f"SELECT 1 AS {'x' * 500}")
        (holder,) = pool.holders()
        assert f"{'x' * 100}..." in str(holder)
        assert len(str(holder)) < 400


async def test_a_holder_that_ran_nothing_yet_says_nothing_of_a_statement(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
        async with pool.connection() as connection:
            await connection.create_function("f", 0, lambda: 1)
            (holder,) = pool.holders()
            assert (holder.statement, holder.statement_time) == (None, 0.0)


async def test_single_statements_of_a_database_are_recorded_where_they_ran(database: Path) -> None:
    async with SQLiteDatabase(database) as db:
        await db.execute("INSERT INTO note (text) VALUES ('a')", label="POST /notes")
        await db.fetch_all("SELECT * FROM note")
        with pytest.raises(sqlite3.OperationalError):
            await db.execute("INSERT INTO missing VALUES (1)")
        (read,) = db.readers.statements()
        assert (read.statement, read.calls, read.rows, read.labels) == ("SELECT * FROM note", 1, 1, ("fetch_all",))
        written = by_statement(db.writer)
        insert = written["INSERT INTO note (text) VALUES (?)"]
        assert (insert.calls, insert.errors, insert.rows_changed, insert.labels) == (1, 0, 1, ("POST /notes",))
        assert written["INSERT INTO missing VALUES (?)"].errors == 1


async def test_single_statements_count_the_rows_that_they_return(database: Path) -> None:
    async with SQLiteDatabase(database) as db:
        returning = "INSERT INTO note (text) VALUES ('a'), ('b') RETURNING id"
        assert await db.fetch_all(returning) == [(1,), (2,)]
        assert await db.fetch_one("SELECT text FROM note") == ("a",)
        assert await db.fetch_val("SELECT text FROM note WHERE id = 7") is None
        assert [row.rows for row in db.writer.statements()] == [2]
        assert {row.statement: row.rows for row in db.readers.statements()} == {
            "SELECT text FROM note": 1,
            "SELECT text FROM note WHERE id = ?": 0,
        }


# -- one statement, without a block

INSERT = "INSERT INTO note (text) VALUES (?)"


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    return make_database(tmp_path / "filled.db", "a", "b")


async def jobs_of(pool: SQLiteConnectionPool[aiosqlite.Connection]) -> int:
    """How many jobs the worker of the only connection has got since this was first asked."""
    async with pool.connection() as connection:
        return jobs(connection)


async def test_fetch_all_returns_all_rows(filled: Path) -> None:
    async with pool_on(filled) as pool:
        assert await pool.fetch_all("SELECT id, text FROM note ORDER BY id") == [(1, "a"), (2, "b")]
        assert await pool.fetch_all("SELECT text FROM note WHERE id = :id", {"id": 2}) == [("b",)]
        assert await pool.fetch_all("SELECT text FROM note WHERE id = ?", [9]) == []


async def test_fetch_one_returns_the_first_row_or_none(filled: Path) -> None:
    async with pool_on(filled) as pool:
        assert await pool.fetch_one("SELECT text FROM note ORDER BY id DESC") == ("b",)
        assert await pool.fetch_one("SELECT text FROM note WHERE id = ?", (9,)) is None


async def test_fetch_val_returns_one_value_or_none(filled: Path) -> None:
    async with pool_on(filled) as pool:
        assert await pool.fetch_val("SELECT count(*) FROM note") == 2
        assert await pool.fetch_val("SELECT text FROM note WHERE id = ?", (9,)) is None


async def test_a_row_factory_makes_the_rows_of_its_call_only(filled: Path) -> None:
    async with pool_on(filled) as pool:
        row = await pool.fetch_one("SELECT text FROM note", row_factory=sqlite3.Row)
        assert row is not None
        assert row["text"] == "a"
        assert await pool.fetch_all("SELECT text FROM note", row_factory=lambda _, row: row[0]) == ["a", "b"]
        assert await pool.fetch_all("SELECT text FROM note") == [("a",), ("b",)]


async def test_fetch_val_is_not_made_by_the_row_factory_of_the_connection(filled: Path) -> None:
    async def by_name(connection: aiosqlite.Connection) -> None:
        connection.row_factory = lambda cursor, row: {cursor.description[0][0]: row[0]}  # type: ignore[assignment]

    async with pool_on(filled, on_connect=by_name) as pool:
        assert await pool.fetch_one("SELECT 1 AS one") == {"one": 1}
        assert await pool.fetch_val("SELECT 1 AS one") == 1


async def test_execute_commits_and_says_what_it_changed(filled: Path, recorder: Recorder) -> None:
    async with pool_on(filled, subscribers=[recorder]) as pool:
        assert await pool.execute(INSERT, ("c",)) == Executed(rows=1, last_row_id=3)
        assert (await pool.execute("UPDATE note SET text = text || '!' WHERE id < 3")).rows == 2
        assert (await pool.execute("CREATE TABLE other (id)")).rows == -1
        assert notes(filled) == ["a!", "b!", "c"]
    assert recorder.of(RolledBackOnReturn) == []


@pytest.mark.parametrize("read_ahead", [0, 64])
async def test_one_statement_is_one_trip_with_its_rows_and_its_commit(database: Path, read_ahead: int) -> None:
    async with pool_on(database, read_ahead=read_ahead) as pool:
        before = await jobs_of(pool)
        assert len(await pool.fetch_all(ROWS)) == 200
        assert await jobs_of(pool) - before == 1
        assert await pool.fetch_one(ROWS) == (1,)
        assert await jobs_of(pool) - before == 2
        assert (await pool.execute(INSERT, ("a",))).rows == 1
        assert await jobs_of(pool) - before == 3
    assert notes(database) == ["a"]


@pytest.mark.parametrize("sql", ["INSERT", "WITH one AS (SELECT 1) INSERT"])
async def test_rows_of_a_returning_clause_are_read_before_their_commit(database: Path, sql: str) -> None:
    async with pool_on(database) as pool:
        assert await pool.fetch_all(f"{sql} INTO note (text) VALUES ('a'), ('b') RETURNING id") == [(1,), (2,)]
        assert await pool.fetch_one("UPDATE note SET text = 'c' RETURNING id") == (1,)
        assert await pool.fetch_val("DELETE FROM note WHERE id = 2 RETURNING text") == "c"
        assert await pool.execute("INSERT INTO note (text) VALUES ('d'), ('e') RETURNING id") == (2, 3)
    assert notes(database) == ["c", "d", "e"]


async def test_a_connection_without_implicit_transactions_has_nothing_to_commit(database: Path) -> None:
    ran: list[str] = []

    async def trace(connection: aiosqlite.Connection) -> None:
        await connection.set_trace_callback(ran.append)

    # Never checked, and never asked for a plan: a slow machine would make more than this of a statement.
    async with SQLiteConnectionPool(
        lambda: aiosqlite.connect(database, isolation_level=None), 1, on_connect=trace, health_check_after=None,
        slow_statement=None,
    ) as pool:  # fmt: skip
        assert await pool.fetch_val("SELECT 1") == 1
        ran.clear()
        await pool.execute("INSERT INTO note (text) VALUES ('a')")
    assert (ran, notes(database)) == (["INSERT INTO note (text) VALUES ('a')"], ["a"])


async def test_a_statement_that_fails_half_way_leaves_nothing(filled: Path) -> None:
    half = "INSERT OR FAIL INTO note SELECT 3 - value, 'new' FROM (SELECT 0 AS value UNION ALL SELECT 1)"
    async with pool_on(filled) as pool:
        for call in (pool.execute, pool.fetch_all, pool.fetch_one, pool.fetch_val):
            with pytest.raises(sqlite3.IntegrityError):
                await call(half)
    assert notes(filled) == ["a", "b"]


async def test_a_statement_that_is_cancelled_is_interrupted_and_leaves_nothing(database: Path) -> None:
    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            running = await began(connection)
        task = asyncio.create_task(pool.execute(f"INSERT INTO note (text) {ENDLESS}"))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await pool.fetch_val("SELECT count(*) FROM note") == 0


async def test_a_statement_that_ends_in_spite_of_a_cancellation_is_not_committed(database: Path) -> None:
    with Gate() as gate:
        async with pool_on(database) as pool:
            async with pool.connection() as connection:
                await gate.install(connection)
            task = asyncio.create_task(pool.execute("INSERT INTO note (text) VALUES (gate())"))
            await gate.reached.wait()
            task.cancel()
            gate.open()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await pool.fetch_val("SELECT count(*) FROM note") == 0


async def test_a_call_has_the_label_of_its_name_or_its_own(database: Path, recorder: Recorder) -> None:
    async with pool_on(database, subscribers=[recorder]) as pool:
        for call in (pool.fetch_all, pool.fetch_one, pool.fetch_val, pool.execute):
            await call("SELECT 1")
            await call("SELECT 1", label="GET /one")
    labels = [event.label for event in recorder.of(ConnectionReleased)]
    assert labels[::2] == ["fetch_all", "fetch_one", "fetch_val", "execute"]
    assert set(labels[1::2]) == {"GET /one"}


async def test_a_call_is_recorded_with_its_rows(filled: Path) -> None:
    async with pool_on(filled) as pool:
        await pool.fetch_all("SELECT * FROM note")
        await pool.execute("DELETE FROM note WHERE id = ?", (1,))
        rows = by_statement(pool)
        read, deleted = rows["SELECT * FROM note"], rows["DELETE FROM note WHERE id = ?"]
        assert (read.calls, read.rows, read.labels) == (1, 2, ("fetch_all",))
        assert (deleted.calls, deleted.rows_changed, deleted.labels) == (1, 1, ("execute",))


async def test_a_timeout_of_a_call_overrides_that_of_the_pool(database: Path) -> None:
    async def time_out() -> None:
        for call in (pool.fetch_all, pool.fetch_one, pool.fetch_val, pool.execute):
            with pytest.raises(PoolConnectionAcquireTimeoutError):
                await call("SELECT 1", timeout=0)

    async with pool_on(database) as pool, pool.connection():
        await asyncio.create_task(time_out())


async def test_a_closed_pool_runs_no_statement(database: Path) -> None:
    async with pool_on(database) as pool:
        pass
    for call in (pool.fetch_all, pool.fetch_one, pool.fetch_val, pool.execute):
        with pytest.raises(PoolClosedError):
            await call("SELECT 1")


@pytest.mark.parametrize("name", ["fetch_all", "fetch_one", "fetch_val", "execute"])
@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"sql": 7}, TypeError, r"sql must be a str, not 7 \(int\)"),
        ({"parameters": "Ada"}, TypeError, r"parameters must be a tuple, a list or a mapping, not 'Ada' \(str\)"),
        ({"parameters": {1}}, TypeError, r"parameters must be a tuple, a list or a mapping, not \{1\} \(set\)"),
        ({"label": 7}, TypeError, r"label must be a str or None, not 7 \(int\)"),
        ({"label": 0}, TypeError, r"label must be a str or None, not 0 \(int\)"),
        ({"timeout": "1"}, TypeError, r"timeout must be a number of seconds or None, not '1' \(str\)"),
        ({"timeout": -1}, ValueError, "timeout must be 0 or more seconds, not -1"),
        ({"sql": "-- now\n begin immediate"}, PoolUsageError, "BEGIN cannot run alone"),
        ({"sql": "SAVEPOINT one"}, PoolUsageError, "SAVEPOINT cannot run alone"),
    ],
)
async def test_bad_input_is_named_before_a_connection_is_acquired(
    driver: StubDriver, name: str, given: dict[str, Any], error: type[Exception], says: str
) -> None:
    async with SQLiteConnectionPool(driver) as pool:
        with pytest.raises(error, match=says):
            await getattr(pool, name)(**{"sql": "SELECT 1", **given})
    assert driver.attempts == 0


async def test_what_makes_no_rows_is_named(database: Path) -> None:
    async with pool_on(database) as pool, SQLiteDatabase(database) as db:
        for call in (pool.fetch_all, pool.fetch_one, db.fetch_all, db.fetch_one):
            with pytest.raises(TypeError, match=r"row_factory must be callable or None, not 7 \(int\)"):
                await call("SELECT 1", row_factory=7)  # type: ignore[operator]


async def test_methods_of_the_program_s_own_class_are_used(database: Path) -> None:
    called: list[str] = []

    class Executing(aiosqlite.Connection):
        def execute(self, sql: str, parameters: Any = None) -> Any:
            called.append(sql)
            return super().execute(sql, parameters)

    class Committing(aiosqlite.Connection):
        async def commit(self) -> None:
            called.append("commit")
            await super().commit()

    for kind in (Executing, Committing):
        async with SQLiteConnectionPool(lambda kind=kind: kind(lambda: sqlite3.connect(database), 64), 1) as pool:  # type: ignore[misc]
            await pool.execute("INSERT INTO note (text) VALUES ('a')")
            assert await pool.fetch_all("SELECT 1", row_factory=lambda _, row: row[0]) == [1]
            assert await pool.fetch_one(ROWS, row_factory=lambda _, row: row[0]) == 1
    assert called == ["INSERT INTO note (text) VALUES ('a')", "SELECT 1", ROWS, "commit"]
    assert notes(database) == ["a", "a"]


# -- events

request: ContextVar[str] = ContextVar("request", default="nobody")


class Story(list[Any]):
    """The slow statements of pools, each with the request that it was emitted in, and what a caller adds between."""

    def attach(self, pool: SQLiteConnectionPool[Any]) -> Any:
        return pool.events.subscribe(StatementSlow, self._slow)

    def _slow(self, event: StatementSlow) -> None:
        self.append((event.statement, request.get()))


async def test_a_statement_is_emitted_in_its_callers_context_before_the_caller_continues(database: Path) -> None:
    story = Story()

    async def caller(name: str, pool: SQLiteConnectionPool[aiosqlite.Connection]) -> None:
        request.set(name)
        async with pool.connection() as connection:
            await connection.execute_fetchall(f"SELECT '{name}' AS {name}")
            story.append(name)

    async with pool_on(database, slow_statement=0, subscribers=[story]) as pool:
        await asyncio.gather(caller("first", pool), caller("second", pool))
    assert story == [("SELECT ? AS first", "first"), "first", ("SELECT ? AS second", "second"), "second"]


async def test_each_way_to_run_a_statement_of_a_database_emits_it_before_its_caller_continues(database: Path) -> None:
    story = Story()
    request.set("GET /notes")
    async with SQLiteDatabase(database, slow_statement=0, subscribers=[story]) as db:
        await db.execute("INSERT INTO note (text) VALUES ('a')")
        story.append("execute")
        await db.execute_many("INSERT INTO note (text) VALUES (?)", [("b",), ("c",)])
        story.append("execute_many")
        await db.fetch_all("INSERT INTO note (text) VALUES ('d') RETURNING id")
        story.append("returning")
        await db.fetch_all("SELECT id FROM note")
        story.append("fetch_all")
        await db.fetch_one("SELECT text FROM note")
        story.append("fetch_one")
        async for _ in db.iterate("SELECT * FROM note"):
            story.append("row")
        async with db.write() as connection:
            await connection.execute("DELETE FROM note")
            story.append("write")
        async with db.read() as connection:
            await connection.execute_fetchall("SELECT count(*) FROM note")
            story.append("read")
    assert story == [
        ("INSERT INTO note (text) VALUES (?)", "GET /notes"), "execute",
        ("INSERT INTO note (text) VALUES (?)", "GET /notes"), "execute_many",
        ("INSERT INTO note (text) VALUES (?) RETURNING id", "GET /notes"), "returning",
        ("SELECT id FROM note", "GET /notes"), "fetch_all",
        ("SELECT text FROM note", "GET /notes"), "fetch_one",
        ("SELECT * FROM note", "GET /notes"), "row", "row", "row", "row",
        ("DELETE FROM note", "GET /notes"), "write",
        ("SELECT count(*) FROM note", "GET /notes"), "read",
    ]  # fmt: skip


async def test_a_statement_says_where_it_ran_and_what_for(database: Path, recorder: Recorder) -> None:
    before = time.time()
    async with pool_on(database, name="app.db", slow_statement=0, subscribers=[recorder]) as pool:
        async with pool.connection("POST /notes") as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('secret')")
            await connection.commit()
    insert, commit = recorder.of(StatementSlow)
    assert (insert.pool, insert.connection, insert.label) == ("app.db", 1, "POST /notes")
    assert (insert.statement, insert.operation, insert.summary) == (
        "INSERT INTO note (text) VALUES (?)", "INSERT", "INSERT note"
    )  # fmt: skip
    assert (insert.rows, insert.rows_changed, insert.error, insert.plan) == (0, 1, None, ())
    assert before <= insert.ended_at <= commit.ended_at <= time.time()
    assert insert.run_time > 0 <= insert.wait_time
    assert (commit.statement, commit.summary) == ("COMMIT", "COMMIT")


async def test_the_plan_of_a_slow_statement_is_in_its_row(database: Path) -> None:
    async with pool_on(database, slow_statement=0) as pool, pool.connection() as connection:
        await connection.execute("SELECT * FROM note WHERE text = ?", ("secret",))
        (row,) = pool.statements()
    assert (row.summary, row.plan) == ("SELECT note", ("SCAN note  <-- full scan of note",))
    assert row.plan_warnings == ("full scan of note",)


@pytest.mark.parametrize("slow_statement", [None, 60])
async def test_nothing_is_slow_below_the_threshold_or_without_one(
    database: Path, recorder: Recorder, slow_statement: float | None
) -> None:
    async with pool_on(database, slow_statement=slow_statement, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            await connection.execute("SELECT * FROM note")
            (row,) = pool.statements()
    assert (row.calls, row.plan) == (1, ())
    assert recorder.of(StatementSlow) == []


async def test_rows_fetched_later_are_events_of_their_statement(database: Path, recorder: Recorder) -> None:
    async with pool_on(database, slow_statement=0, subscribers=[recorder]) as pool:
        pool.events.subscribe(StatementExecuted, recorder.append)  # type: ignore[arg-type]
        async with pool.connection() as connection:
            cursor = await connection.execute(ROWS)
            await cursor.fetchall()
    slow = recorder.of(StatementSlow)
    assert [event.summary for event in slow] == ["SELECT n", "SELECT n"]
    assert sum(event.rows for event in slow) == 200
    (executed,) = [event for event in recorder if isinstance(event, StatementExecuted)]
    assert (executed.rows, executed.is_slow) == (slow[0].rows, True)


async def test_a_statement_that_fails_is_an_event_with_the_name_of_its_error(
    database: Path, recorder: Recorder
) -> None:
    async with SQLiteDatabase(database, slow_statement=0, subscribers=[recorder]) as db:
        with pytest.raises(sqlite3.OperationalError):
            await db.fetch_all("SELECT * FROM missing")
        with pytest.raises(sqlite3.IntegrityError):
            await db.execute("INSERT INTO note (id, text) VALUES (1, 'a'), (1, 'b')")
    plans = [(event.summary, event.error, [line[:6] for line in event.plan]) for event in recorder.of(StatementSlow)]
    assert plans == [
        ("SELECT missing", "sqlite3.OperationalError", []),
        ("INSERT note", "sqlite3.IntegrityError", ["SCAN 2"]),  # constant rows, or a VALUES clause
    ]


@pytest.mark.usefixtures("patient")
async def test_a_statement_whose_caller_was_cancelled_says_so(database: Path, recorder: Recorder) -> None:
    async with pool_on(database, slow_statement=0, subscribers=[recorder]) as pool:

        async def caller() -> None:
            async with pool.connection("GET /report") as connection:
                event = await began(connection)
                asyncio.get_running_loop().create_task(cancel(event))
                await connection.execute_fetchall(ENDLESS)

        async def cancel(event: asyncio.Event) -> None:
            await event.wait()
            task.cancel()

        task = asyncio.create_task(caller())
        with pytest.raises(asyncio.CancelledError):
            await task
        async with pool.connection():  # the worker has ended the statement
            (row,) = pool.statements()
    (event,) = recorder.of(StatementSlow)
    assert (event.error, event.label, event.summary) == ("cancelled", "GET /report", "SELECT n")
    assert (row.calls, row.errors) == (1, 1)


async def test_a_statement_that_the_pool_ended_is_emitted_before_the_pool_has_closed(
    database: Path, recorder: Recorder
) -> None:
    pool = pool_on(database, slow_statement=0, subscribers=[recorder])
    async with pool.connection() as connection:
        event = await began(connection)
        running = asyncio.create_task(connection.execute_fetchall(ENDLESS))
        await event.wait()
        with pytest.warns(ResourceWarning, match="closed connections under their holders"):
            await pool.close(timeout=0)
        with pytest.raises(sqlite3.OperationalError):
            await running
    (slow,) = recorder.of(StatementSlow)
    assert slow.error == "sqlite3.OperationalError"
    (closed,) = recorder.of(PoolClosed)
    assert recorder.index(slow) < recorder.index(closed)


async def test_a_handler_that_raises_costs_its_caller_nothing(database: Path) -> None:
    def broken(event: PoolEvent) -> None:
        raise RuntimeError

    async with pool_on(database, slow_statement=0) as pool:
        pool.events.subscribe(StatementSlow, broken)
        async with pool.connection() as connection:
            assert list(await connection.execute_fetchall("SELECT 1")) == [(1,)]
        assert pool.stats().subscriber_errors == 1


async def test_a_slow_statement_is_no_record_of_the_packages_own_log(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    async with SQLiteDatabase(database, slow_statement=0) as db:
        await db.execute("INSERT INTO note (text) VALUES ('a')")
        await db.fetch_all("SELECT * FROM note")
    assert [record for record in caplog.records if record.name == "aiosqlitepool"] == []


async def test_the_last_times_of_a_pool_arrive_before_it_has_closed(database: Path) -> None:
    got: list[Any] = []
    async with pool_on(database) as pool:
        pool.events.subscribe(StatementTimings, got.append)
        pool.events.subscribe(PoolClosed, got.append)
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")
    batch, closed = got
    assert [(kind.summary, len(runs)) for kind, runs in batch.runs.items()] == [("SELECT", 1)]
    assert isinstance(closed, PoolClosed)


# Other tests may have left a thread.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_forked_child_emits_no_times_of_its_parent(database: Path) -> None:
    got: list[StatementTimings] = []
    async with pool_on(database) as pool:
        pool.events.subscribe(StatementTimings, got.append)
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")

        def in_the_child() -> int:
            pool.events.flush_timings()
            return len(got) + 10 * len(pool.statements())

        assert in_a_forked_child(in_the_child) == 0
    assert len(got) == 1
