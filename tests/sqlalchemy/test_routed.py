"""Over a database: which connection a transaction gets, and for how long."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, exc, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from aiosqlitepool import PoolUsageError, SQLiteDatabase
from aiosqlitepool.events import TransactionEnded
from aiosqlitepool.sqlalchemy import create_async_engine
from aiosqlitepool.testing import Recorder

from .models import Note, make_tables

WRITE = insert(Note).values(text="a")


def used(db: SQLiteDatabase) -> tuple[int, int]:
    """How many readers are in use, and whether the writer is."""
    return db.readers.stats().used, db.writer.stats().used


async def test_a_connection_holds_nothing_until_its_first_statement(over_db: AsyncEngine, db: SQLiteDatabase) -> None:
    async with over_db.connect() as connection:
        assert used(db) == (0, 0)
        assert (await connection.get_raw_connection()).driver_connection is None


async def test_a_transaction_that_reads_uses_a_reader_until_its_end(over_db: AsyncEngine, db: SQLiteDatabase) -> None:
    async with over_db.connect() as connection:
        await connection.execute(select(Note))
        assert used(db) == (1, 0)
        await connection.rollback()
        assert used(db) == (0, 0)
        await connection.execute(select(Note))
        await connection.commit()
        assert used(db) == (0, 0)


async def test_a_transaction_that_writes_has_the_writer_until_its_end(over_db: AsyncEngine, db: SQLiteDatabase) -> None:
    async with over_db.connect() as connection:
        await connection.execute(WRITE)
        assert used(db) == (0, 1)
        assert len((await connection.execute(select(Note))).all()) == 1
        assert used(db) == (0, 1)
        await connection.commit()
        assert used(db) == (0, 0)


async def test_a_transaction_that_writes_begins_immediately_and_is_reported(
    over_db: AsyncEngine, db: SQLiteDatabase
) -> None:
    events = Recorder()
    db.subscribe(events)
    async with over_db.execution_options(label="POST").begin() as connection:
        await connection.execute(WRITE)
    async with over_db.connect() as connection:
        await connection.execute(WRITE)
    outcomes = [(ended.outcome, ended.label) for ended in events.of(TransactionEnded)]
    assert outcomes == [("committed", "POST"), ("rolled_back", None)]


async def test_writers_stand_in_one_queue(over_db: AsyncEngine) -> None:
    async def add(number: int) -> None:
        async with AsyncSession(over_db) as session:
            session.add(Note(text=str(number)))
            await session.commit()

    await asyncio.gather(*(add(number) for number in range(50)))
    async with AsyncSession(over_db) as session:
        assert list(await session.scalars(select(Note.text).order_by(Note.id))) == [str(each) for each in range(50)]


async def test_a_transaction_that_began_with_a_read_cannot_write_and_is_told_what_to_do(
    over_db: AsyncEngine, db: SQLiteDatabase
) -> None:
    async with AsyncSession(over_db) as session:
        await session.execute(select(Note))
        session.add(Note(text="a"))
        with pytest.raises(PoolUsageError) as caught:
            await session.commit()
    assert "began with a read, on a connection that only reads, and now writes: INSERT INTO note" in str(caught.value)
    assert 'session.connection(execution_options={"sqlite_role": "write"})' in str(caught.value)
    assert used(db) == (0, 0)


async def test_what_the_error_says_to_do_works(over_db: AsyncEngine, db: SQLiteDatabase) -> None:
    async with AsyncSession(over_db) as session:
        await session.connection(execution_options={"sqlite_role": "write"})
        assert (await session.scalars(select(Note))).all() == []
        assert used(db) == (0, 1)
        session.add(Note(text="a"))
        await session.commit()
    writing = over_db.execution_options(sqlite_role="write")
    async with AsyncSession(writing) as session:
        note = await session.get_one(Note, 1)
        note.text = "b"
        await session.commit()
    async with AsyncSession(over_db) as session:
        assert (await session.get_one(Note, 1)).text == "b"


async def test_a_statement_may_say_that_it_needs_the_writer(over_db: AsyncEngine, db: SQLiteDatabase) -> None:
    async with AsyncSession(over_db) as session:
        await session.execute(select(Note), execution_options={"sqlite_role": "write"})
        assert used(db) == (0, 1)


async def test_a_transaction_may_be_allowed_to_turn_to_writing(db: SQLiteDatabase) -> None:
    engine = create_async_engine(db, execution_options={"sqlite_role": "upgrade"})
    await make_tables(engine)
    async with AsyncSession(engine) as session:
        await session.execute(select(Note))
        assert used(db) == (1, 0)
        session.add(Note(text="a"))
        await session.flush()
        assert used(db) == (0, 1)
        await session.commit()
    async with AsyncSession(engine) as session:
        assert (await session.get_one(Note, 1)).text == "a"


async def test_a_transaction_that_only_reads_is_held_to_it(over_db: AsyncEngine, db: SQLiteDatabase) -> None:
    async with over_db.execution_options(sqlite_role="read").connect() as connection:
        with pytest.raises(PoolUsageError, match='with sqlite_role="read" cannot write: INSERT INTO note'):
            await connection.execute(WRITE)
    assert used(db) == (0, 0)


async def test_a_statement_whose_text_hides_that_it_writes_is_told_the_same(over_db: AsyncEngine) -> None:
    hidden = "WITH a AS (SELECT 1), b AS (SELECT '" + "x" * 10_000 + "') INSERT INTO note (text) SELECT 'a'"
    async with over_db.connect() as connection:
        with pytest.raises(PoolUsageError, match="began with a read"):
            await connection.exec_driver_sql(hidden)


async def test_reading_the_schema_decides_nothing(over_db: AsyncEngine, db: SQLiteDatabase) -> None:
    async with over_db.connect() as connection:
        await connection.execute(text("PRAGMA table_info('note')"))
        await connection.execute(text("SELECT name FROM sqlite_master"))
        assert used(db) == (0, 0)
        await connection.execute(WRITE)
        await connection.execute(text("PRAGMA table_info('note')"))
        assert used(db) == (0, 1)


async def test_a_savepoint_begins_a_transaction_that_writes(over_db: AsyncEngine, db: SQLiteDatabase) -> None:
    async with AsyncSession(over_db) as session:
        async with session.begin_nested():
            session.add(Note(text="a"))
        await session.commit()
    assert used(db) == (0, 0)


async def test_a_stream_keeps_its_reader_until_the_transaction_ends(over_db: AsyncEngine, db: SQLiteDatabase) -> None:
    async with over_db.connect() as connection:
        result = await connection.stream(select(Note))
        assert used(db) == (1, 0)
        assert await result.all() == []
    assert used(db) == (0, 0)


async def test_a_second_session_of_a_task_that_would_wait_for_the_first_is_refused(
    over_db: AsyncEngine, db: SQLiteDatabase
) -> None:
    async with AsyncSession(over_db) as session, AsyncSession(over_db) as other:
        await session.execute(WRITE)
        with pytest.raises(PoolUsageError, match="this task has a transaction open that writes"):
            await other.execute(WRITE)
        await session.commit()
        await other.execute(WRITE)
        await other.commit()


async def test_statements_at_the_same_time_share_the_connection_of_their_transaction(
    over_db: AsyncEngine, db: SQLiteDatabase
) -> None:
    async with over_db.connect() as connection:
        await asyncio.gather(*(connection.execute(select(Note)) for _ in range(5)))
        assert used(db) == (1, 0)


async def test_in_autocommit_nothing_is_held_between_statements(over_db: AsyncEngine, db: SQLiteDatabase) -> None:
    async with over_db.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(WRITE)
        assert (await connection.execute(select(Note.text))).scalar_one() == "a"
        assert used(db) == (0, 0)


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "READ UNCOMMITTED", "SERIALIZABLE"])
async def test_the_isolation_level_that_was_set_is_reported(over_db: AsyncEngine, level: Any) -> None:
    async with over_db.execution_options(isolation_level=level).connect() as connection:
        assert await connection.get_isolation_level() == level


async def test_a_listener_may_set_the_isolation_level_as_sqlite3_has_it(db: SQLiteDatabase) -> None:
    """SQLAlchemy's documentation shows that to programs, for the legacy mode of sqlite3."""
    engine, levels = create_async_engine(db), []

    @event.listens_for(engine.sync_engine, "connect")
    def connected(dbapi_connection: Any, _: object) -> None:
        dbapi_connection.isolation_level = None
        levels.append(dbapi_connection.isolation_level)

    async with engine.connect() as connection:
        levels.append(await connection.get_isolation_level())
    assert levels == [None, "AUTOCOMMIT"]


async def test_a_commit_that_fails_is_an_error_of_sqlalchemy_and_leaves_nothing(
    over_db: AsyncEngine, db: SQLiteDatabase
) -> None:
    async with over_db.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE a (b REFERENCES note DEFERRABLE INITIALLY DEFERRED)")
    async with over_db.connect() as connection:
        await connection.exec_driver_sql("INSERT INTO a VALUES (7)")
        with pytest.raises(exc.IntegrityError, match="FOREIGN KEY"):
            await connection.commit()
    assert used(db) == (0, 0)


async def test_a_begin_of_the_program_is_refused(over_db: AsyncEngine) -> None:
    async with over_db.connect() as connection:
        with pytest.raises(PoolUsageError, match="BEGIN inside a transaction of the database"):
            await connection.exec_driver_sql("BEGIN")


async def test_a_listener_of_connect_that_executes_is_told_where_that_belongs(db: SQLiteDatabase) -> None:
    engine = create_async_engine(db)

    @event.listens_for(engine.sync_engine, "connect")
    def set_pragma(connection: Any, _: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")

    with pytest.raises(PoolUsageError, match=r"executed 'PRAGMA foreign_keys = ON'.*SQLiteDatabase\(pragmas="):
        async with engine.connect():
            pass


async def test_a_listener_of_connect_that_streams_is_told_the_same(db: SQLiteDatabase) -> None:
    engine = create_async_engine(db)

    @event.listens_for(engine.sync_engine, "connect")
    def read(connection: Any, _: object) -> None:
        connection.cursor(server_side=True).execute("SELECT 1")

    with pytest.raises(PoolUsageError, match="executed 'SELECT 1'"):
        async with engine.connect():
            pass


async def test_a_function_that_a_listener_of_connect_creates_is_on_every_connection(db: SQLiteDatabase) -> None:
    engine = create_async_engine(db)

    @event.listens_for(engine.sync_engine, "connect")
    def create(connection: Any, _: object) -> None:
        connection.create_function("twice", 1, lambda number: number * 2)

    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT twice(2)"))).scalar_one() == 4
    async with engine.execution_options(sqlite_role="write").connect() as connection:
        assert await (await connection.stream(text("SELECT twice(3)"))).one() == (6,)


async def test_functions_are_there_on_connections_without_attributes_too(tmp_path: Path) -> None:
    def factory(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        return sqlite3.Connection(*args, **kwargs)

    async with SQLiteDatabase(tmp_path / "a.db", connect_args={"factory": factory}) as db:
        async with create_async_engine(db).connect() as connection:
            for _ in range(2):
                assert (await connection.execute(text("SELECT 'abc' REGEXP 'b'"))).scalar_one() == 1


async def test_a_writer_that_is_wanted_in_vain_is_a_timeout_of_sqlalchemy_with_a_diagnosis(tmp_path: Path) -> None:
    async with SQLiteDatabase(tmp_path / "a.db", acquisition_timeout=0) as db:
        engine = create_async_engine(db)
        await make_tables(engine)
        async with engine.begin() as connection:
            await connection.execute(WRITE, execution_options={"label": "the culprit"})

            async def write() -> None:
                async with engine.begin() as other:
                    await other.execute(WRITE)

            with pytest.raises(exc.TimeoutError, match="the culprit"):
                await asyncio.create_task(write())


async def test_a_database_in_memory_can_be_read_and_written() -> None:
    async with SQLiteDatabase(":memory:") as db:
        engine = create_async_engine(db)
        await make_tables(engine)
        async with engine.begin() as connection:
            await connection.execute(WRITE)
        async with engine.connect() as connection:
            assert (await connection.execute(select(Note.text))).scalar_one() == "a"


async def test_a_read_that_took_too_long_ends_with_its_error_and_its_session_goes_on(tmp_path: Path) -> None:
    async with SQLiteDatabase(tmp_path / "a.db", reader_max_age=3600) as db:
        engine = create_async_engine(db)
        await make_tables(engine)
        async with AsyncSession(engine) as session:
            await session.execute(select(Note))
            raw: Any = (await (await session.connection()).get_raw_connection()).dbapi_connection
            raw._block._take_back()  # as its timer does
            with pytest.raises(TimeoutError, match="reader_max_age"):
                await session.execute(select(Note))
            await session.rollback()
            assert (await session.execute(select(Note))).all() == []
