"""One call for one statement: where it runs, what it returns, and what becomes of its transaction."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import aclosing
from typing import Any, assert_type

import pytest

from aiosqlitepool import Executed, PoolConnectionAcquireTimeoutError, PoolUsageError, SQLiteDatabase
from aiosqlitepool.events import ConnectionReleased, TransactionEnded
from aiosqlitepool.testing import Recorder

INSERT = "INSERT INTO note (text) VALUES (?)"


async def fill(db: SQLiteDatabase, *texts: str) -> None:
    await db.execute_many(INSERT, [(text,) for text in texts])


def text_of(_: sqlite3.Cursor, row: tuple[Any, ...]) -> str:
    return f"<{row[0]}>"


# -- reading


async def test_fetch_all_returns_all_rows(db: SQLiteDatabase) -> None:
    await fill(db, "a", "b")
    assert await db.fetch_all("SELECT id, text FROM note ORDER BY id") == [(1, "a"), (2, "b")]
    assert await db.fetch_all("SELECT text FROM note WHERE id = :id", {"id": 2}) == [("b",)]
    assert await db.fetch_all("SELECT text FROM note WHERE id = 9") == []


async def test_fetch_one_returns_the_first_row_or_none(db: SQLiteDatabase) -> None:
    await fill(db, "a", "b")
    assert await db.fetch_one("SELECT text FROM note ORDER BY id DESC") == ("b",)
    assert await db.fetch_one("SELECT text FROM note WHERE id = ?", [9]) is None


async def test_fetch_val_returns_one_value_or_none(db: SQLiteDatabase) -> None:
    await fill(db, "a", "b")
    assert await db.fetch_val("SELECT count(*) FROM note") == 2
    assert await db.fetch_val("SELECT text FROM note WHERE id = ?", (9,)) is None


async def test_a_row_factory_makes_the_rows_of_its_call_only(db: SQLiteDatabase) -> None:
    await fill(db, "a")
    rows = await db.fetch_all("SELECT text FROM note", row_factory=text_of)
    assert_type(rows, list[str])
    row = await db.fetch_one("SELECT text FROM note", row_factory=sqlite3.Row)
    assert row is not None
    assert (rows, row["text"]) == (["<a>"], "a")
    assert [each async for each in db.iterate("SELECT text FROM note", row_factory=text_of)] == ["<a>"]
    assert await db.fetch_all("SELECT text FROM note") == [("a",)]


async def test_fetch_val_is_not_made_by_the_row_factory_of_the_connection(database: Any) -> None:
    async def by_name(connection: Any) -> None:
        connection.row_factory = lambda cursor, row: {cursor.description[0][0]: row[0]}

    async with SQLiteDatabase(database, on_connect=by_name) as db:
        assert await db.fetch_one("SELECT 1 AS one") == {"one": 1}
        assert await db.fetch_val("SELECT 1 AS one") == 1


async def test_a_statement_that_reads_holds_a_reader_for_one_call(db: SQLiteDatabase, recorder: Recorder) -> None:
    await db.fetch_all("SELECT 1")
    await db.fetch_one("-- a comment\n /* another */ WITH one AS (SELECT 1) SELECT * FROM one", label="GET /one")
    released = [(event.pool, event.label) for event in recorder.of(ConnectionReleased)]
    assert released == [("app.db/read", "fetch_all"), ("app.db/read", "GET /one")]
    assert recorder.of(TransactionEnded) == []


async def test_iterate_yields_all_rows_in_order_while_others_write(db: SQLiteDatabase) -> None:
    await fill(db, *map(str, range(500)))
    seen = []
    async for (text,) in db.iterate("SELECT text FROM note ORDER BY id"):
        if len(seen) == 250:
            await fill(db, "late")
            assert [holder.label for holder in db.readers.holders()] == ["iterate"]
        seen.append(text)
    assert seen == [*map(str, range(500))]
    assert db.readers.holders() == ()


async def test_an_iterator_that_is_closed_early_releases_its_reader(db: SQLiteDatabase) -> None:
    await fill(db, *map(str, range(500)))
    async with aclosing(db.iterate("SELECT text FROM note", label="export")) as rows:
        async for _ in rows:
            assert [holder.label for holder in db.readers.holders()] == ["export"]
            break
    assert db.readers.holders() == ()


# -- writing


async def test_execute_is_one_transaction_and_says_what_it_did(db: SQLiteDatabase, recorder: Recorder) -> None:
    assert await db.execute(INSERT, ("a",)) == Executed(rows=1, last_row_id=1)
    assert await db.execute(INSERT, ("b",), label="POST /notes") == (1, 2)
    assert (await db.execute("UPDATE note SET text = 'c'")).rows == 2
    assert [(event.outcome, event.label) for event in recorder.of(TransactionEnded)] == [
        ("committed", "execute"), ("committed", "POST /notes"), ("committed", "execute")
    ]  # fmt: skip


@pytest.mark.parametrize("parameters", [["ab"], [("a",), 1]])
async def test_parameters_of_execute_many_are_checked_one_by_one(db: SQLiteDatabase, parameters: Any) -> None:
    with pytest.raises(TypeError, match="parameters must be a tuple, a list or a mapping, not"):
        await db.execute_many(INSERT, parameters)


@pytest.mark.parametrize("sql", ["COMMIT", "VACUUM", "BEGIN"])
async def test_fetch_refuses_what_cannot_be_the_only_statement_of_a_transaction(db: SQLiteDatabase, sql: str) -> None:
    with pytest.raises(PoolUsageError, match=f"{sql} inside a transaction of the database"):
        await db.fetch_all(sql)


async def test_a_statement_changes_only_its_own_rows(db: SQLiteDatabase) -> None:
    """What functions had changed before was counted as changed by the next statement of a block."""
    await fill(db, *"abcdefg")
    await db.execute("UPDATE note SET text = 'x'")
    async with db.write() as connection:
        await connection.execute("UPDATE note SET text = 'a' WHERE id = 1")
    (row,) = (row for row in db.writer.statements() if "WHERE" in row.statement)
    assert row.rows_changed == 1


async def test_execute_many_returns_the_number_of_rows_and_is_all_or_nothing(db: SQLiteDatabase) -> None:
    assert await db.execute_many("INSERT INTO note (id, text) VALUES (?, ?)", iter([(1, "a"), (2, "b")])) == 2
    with pytest.raises(sqlite3.IntegrityError):
        await db.execute_many("INSERT INTO note (id, text) VALUES (?, ?)", [(3, "c"), (1, "again")])
    assert await db.fetch_val("SELECT count(*) FROM note") == 2


@pytest.mark.parametrize("sql", ["INSERT", " -- why\n insert", "/* a */REPLACE"])
async def test_a_returning_clause_is_fetched_from_the_writer(db: SQLiteDatabase, sql: str) -> None:
    assert await db.fetch_one(f"{sql} INTO note (text) VALUES ('a'), ('b') RETURNING id") == (1,)
    assert await db.fetch_all("UPDATE note SET text = 'c' RETURNING id, text") == [(1, "c"), (2, "c")]
    assert await db.fetch_val("DELETE FROM note WHERE id = 2 RETURNING text") == "c"
    assert await db.fetch_all("SELECT text FROM note") == [("c",)]


async def test_execute_in_a_block_of_the_same_task_ends_with_the_block(db: SQLiteDatabase) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.write():
            await db.execute(INSERT, ("a",))
            raise ZeroDivisionError
    assert await db.fetch_all("SELECT text FROM note") == []


async def test_a_statement_that_fails_raises_what_sqlite_says_and_leaves_nothing(db: SQLiteDatabase) -> None:
    for call in (db.fetch_all, db.fetch_one, db.fetch_val, db.execute):
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await call("SELECT * FROM missing")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        async for _ in db.iterate("SELECT * FROM missing"):
            pass
    with pytest.raises(sqlite3.OperationalError, match="readonly") as refused:
        await db.fetch_all("CREATE TABLE other (id)")
    assert refused.value.__notes__ == ["a connection that reads cannot write: use write(), run_write() or execute()"]
    assert db.readers.stats().used == db.writer.stats().used == 0


async def test_a_timeout_of_a_call_overrides_that_of_the_database(database: Any) -> None:
    async with SQLiteDatabase(database, readers=1) as db, db.read(), db.write():
        outside = asyncio.create_task(_time_out_all(db))
        await outside


async def _time_out_all(db: SQLiteDatabase) -> None:
    for call in (db.fetch_all, db.fetch_one, db.fetch_val, db.execute):
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await call("SELECT 1", timeout=0.01)
    with pytest.raises(PoolConnectionAcquireTimeoutError):
        await db.execute_many("SELECT 1", [], timeout=0.01)
    with pytest.raises(PoolConnectionAcquireTimeoutError):
        await anext(db.iterate("SELECT 1", timeout=0.01))


async def test_what_is_no_statement_is_named(db: SQLiteDatabase) -> None:
    with pytest.raises(TypeError, match=r"sql must be a str, not 7 \(int\)"):
        await db.fetch_all(7)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"sql must be a str, not 7 \(int\)"):
        await db.execute(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="label must be a str or None, not 7"):
        await db.fetch_all("SELECT 1", label=7)  # type: ignore[call-overload]


@pytest.mark.parametrize("value", ["Ada", b"Ada", 7])
async def test_parameters_that_are_one_value_are_named(db: SQLiteDatabase, value: Any) -> None:
    named = pytest.raises(TypeError, match="parameters must be a tuple, a list or a mapping, not b?'?(Ada|7)")
    for call in (db.fetch_all, db.fetch_one, db.fetch_val, db.execute):
        with named:
            await call("SELECT ?", value)
    with named:
        await anext(db.iterate("SELECT ?", value))


@pytest.mark.parametrize("sql", ["COMMIT", "BEGIN", "VACUUM", "PRAGMA foreign_keys = OFF"])
async def test_a_statement_that_cannot_be_a_transaction_is_refused(db: SQLiteDatabase, sql: str) -> None:
    with pytest.raises(PoolUsageError, match="inside a transaction of the database"):
        await db.execute(sql)
    with pytest.raises(TypeError):
        await db.execute(7)  # type: ignore[arg-type]


async def test_a_closed_database_runs_no_statement(database: Any) -> None:
    db = SQLiteDatabase(database)
    with pytest.raises(PoolUsageError, match="is not open"):
        await db.fetch_all("SELECT 1")
    with pytest.raises(PoolUsageError, match="is not open"):
        await db.execute("SELECT 1")


@pytest.mark.parametrize("sql", ["COMMIT", "/* now */ ROLLBACK", "END", "PRAGMA foreign_keys = OFF"])
async def test_a_statement_cannot_end_a_transaction_of_the_database(db: SQLiteDatabase, sql: str) -> None:
    with pytest.raises(PoolUsageError, match="inside a transaction of the database"):
        await db.execute(sql)
    with pytest.raises(PoolUsageError, match="inside a transaction of the database"):
        async with db.write() as connection:
            await connection.execute(INSERT, ("not stored",))
            await db.execute(sql)
    assert await db.fetch_all("SELECT * FROM note") == []


async def test_a_pragma_of_one_read_is_not_left_to_the_next(database: Any) -> None:
    async with SQLiteDatabase(database, readers=1) as db:
        await db.fetch_all("PRAGMA query_only = OFF")
        assert await db.fetch_val("PRAGMA query_only") == 1


async def test_many_comments_before_a_statement_are_skipped_at_once(db: SQLiteDatabase) -> None:
    comments = "/* a */ -- b\n" * 1_000  # with a pattern that backtracks, this would take longer than the universe
    assert await db.fetch_val(f"{comments} SELECT '*/ INSERT'") == "*/ INSERT"
    assert await db.fetch_val(f"{comments} INSERT INTO note (text) VALUES ('a') RETURNING text") == "a"


class Text(str):
    """Statements of a program's own kind."""

    __slots__ = ()

    def __getitem__(self, _: object) -> str:
        raise AssertionError("the program's own method is called")

    __len__ = __getitem__  # type: ignore[assignment]


async def test_statements_of_a_class_derived_from_str_are_recorded(db: SQLiteDatabase) -> None:
    await db.execute(Text("DELETE FROM note"))
    async with db.read() as connection:
        await connection.execute_fetchall(Text("SELECT 1"))
        assert db.readers.holders()[0].statement == "SELECT ?"
    assert [row.statement for row in (*db.writer.statements(), *db.readers.statements())] == [
        "DELETE FROM note",
        "SELECT ?",
    ]
