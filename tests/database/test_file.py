from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolUsageError, SQLiteDatabase

from ..support.databases import add, held_writer, insert, texts, texts_now
from ..support.files import make_database, notes
from ..support.other import other_process
from ..support.storm import nothing_left_behind

# -- where it is


async def test_a_path_may_be_a_string_a_path_or_a_uri(database: Path) -> None:
    for path in (str(database), database, f"file:{database}", f"file://{database}?mode=rw"):
        async with SQLiteDatabase(path) as db:
            assert db.name == "app.db"
            await db.run_write(add, "x")
            assert db.writer.stats().wal_bytes
    assert notes(database) == ["x"] * 4


async def test_a_uri_may_escape_what_is_in_the_name(tmp_path: Path) -> None:
    make_database(tmp_path / "my notes?.db")
    async with SQLiteDatabase(f"file:{tmp_path}/my%20notes%3F.db") as db:
        await db.run_write(add, "x")
        assert db.name == "my notes?.db"
        assert db.writer.stats().wal_bytes


async def test_the_wal_of_a_linked_file_is_found_where_sqlite_keeps_it(database: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere.db"
    link.symlink_to(database)
    async with SQLiteDatabase(link) as db:
        await db.run_write(add, "x")
        assert db.writer.stats().wal_bytes == os.stat(f"{database}-wal").st_size


@pytest.mark.parametrize("uri", ["{}", "file:{}", "file://localhost{}?mode=rw"])
async def test_all_connections_have_the_file_to_which_a_link_led_when_the_database_was_made(
    database: Path, tmp_path: Path, uri: str
) -> None:
    link, other = tmp_path / "current.db", tmp_path / "other.db"
    make_database(other)
    link.symlink_to(database)
    async with SQLiteDatabase(uri.format(link)) as db:
        await db.run_write(add, "x")
        link.unlink()
        link.symlink_to(other)
        async with db.read() as first, db.read() as second:
            for connection in (first, second):
                assert await texts_now(connection) == ["x"]


async def test_a_relative_path_is_that_of_the_directory_where_it_was_made(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(database.parent)
    async with SQLiteDatabase("app.db") as db:
        monkeypatch.chdir("/")
        await db.run_write(add, "x")
        assert await db.run_read(texts) == ["x"]


@pytest.mark.parametrize("uri", ["file:app.db", "file:app.db?mode=rw", "file:./%61pp%2Edb?mode=rwc&cache=private#x"])
async def test_a_relative_uri_is_that_of_the_directory_where_it_was_made(
    database: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.chdir(database.parent)
    async with SQLiteDatabase(uri) as db:
        monkeypatch.chdir("/")
        await db.run_write(add, "x")
        assert await db.run_read(texts) == ["x"]
        assert db.writer.stats().wal_bytes
    assert notes(database) == ["x"]


@pytest.mark.parametrize(
    "uri", ["file:a?mode=memory&cache=shared", "file::memory:?cache=shared", "file:?mode=rw", "file:a?vfs=memdb"]
)
def test_a_uri_without_a_file_is_left_as_it_is(uri: str) -> None:
    assert SQLiteDatabase(uri)._file._target == uri


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (7, TypeError, r"path must be a str or a path, not 7 \(int\)"),
        (b"app.db", TypeError, "path must be a str or a path"),
        ("", ValueError, "path must not be empty"),
    ],
)
def test_what_is_no_path_is_refused(path: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SQLiteDatabase(path)


async def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    unable = pytest.raises(sqlite3.OperationalError, match="unable to open database file")
    with nothing_left_behind(), unable as failed:
        async with SQLiteDatabase(tmp_path / "missing" / "app.db"):
            pass
    assert failed.value.__notes__ == [
        f"database: {tmp_path}/missing/app.db, whose directory does not exist",
        "while pool 'app.db/write' opened a connection",
    ]


async def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="file is not a database"):
        async with SQLiteDatabase(path):
            pass


async def test_what_may_only_be_read_is_refused_in_sqlites_words(database: Path) -> None:
    async with SQLiteDatabase(f"file:{database}?mode=ro", pragmas={"synchronous": 1}) as db:
        assert await db.run_read(texts) == []
        with pytest.raises(sqlite3.OperationalError, match="readonly database"):
            await db.run_write(add, "never")


# -- connecting


async def test_on_connect_is_awaited_with_each_connection(database: Path) -> None:
    async def rows_by_name(connection: aiosqlite.Connection) -> None:
        connection.row_factory = aiosqlite.Row

    async with SQLiteDatabase(database, on_connect=rows_by_name) as db:
        for block in (db.read(), db.write()):
            async with block as connection:
                (row,) = await connection.execute_fetchall("SELECT 1 AS one")
                assert row["one"] == 1


async def test_an_on_connect_that_fails_fails_the_opening_and_leaves_nothing(database: Path) -> None:
    class RefusedError(Exception):
        def __init__(self, *, reason: str) -> None:
            super().__init__(reason)

    async def refuse(connection: aiosqlite.Connection) -> None:
        raise RefusedError(reason="not today")

    with nothing_left_behind(), pytest.raises(RefusedError, match="not today"):
        async with SQLiteDatabase(database, on_connect=refuse):
            pass


async def test_an_on_connect_that_fails_later_reaches_each_caller(database: Path) -> None:
    refusing = False

    async def refuse(connection: aiosqlite.Connection) -> None:
        if refusing:
            raise LookupError("not any more")

    async with SQLiteDatabase(database, on_connect=refuse) as db:
        refusing = True
        with pytest.raises(LookupError):
            await db.run_read(texts)
        async with db.write() as connection:
            await insert(connection, "a")
        with pytest.raises(sqlite3.ProgrammingError):
            await db.run_write(lambda native: native.close())
        writing = [asyncio.create_task(db.run_write(add, text)) for text in "ab"]
        errors = await asyncio.gather(*writing, return_exceptions=True)
        assert [type(error) for error in errors] == [LookupError, LookupError]
        refusing = False
        assert await db.run_write(add, "b") == 2


async def test_an_on_connect_that_returns_nothing_to_await_is_told_so(database: Path) -> None:
    db = SQLiteDatabase(database, on_connect=lambda connection: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="on_connect must return an awaitable, not None"):
        await db.open()


def test_an_on_connect_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="on_connect must be callable or None, not 7"):
        SQLiteDatabase("app.db", on_connect=7)  # type: ignore[arg-type]


async def test_a_connecting_that_is_cancelled_leaves_nothing(database: Path) -> None:
    reached = asyncio.Event()

    async def hang(connection: aiosqlite.Connection) -> None:
        reached.set()
        await asyncio.Event().wait()

    with nothing_left_behind():
        opening = asyncio.create_task(SQLiteDatabase(database, on_connect=hang, operation_timeout=0.1).open())
        await reached.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening


async def test_arguments_of_sqlite3_reach_each_connection(database: Path) -> None:
    class Connection(sqlite3.Connection):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self.row_factory = lambda cursor, row: {"row": row}
            self.text_factory = bytes

    sqlite3.register_converter("in_words", lambda value: datetime.date.fromisoformat(value.decode()))
    args = {"factory": Connection, "detect_types": sqlite3.PARSE_COLNAMES, "cached_statements": 7}
    async with SQLiteDatabase(database, connect_args=args) as db:
        for run in (db.run_read, db.run_write):
            assert await run(lambda native: isinstance(native, Connection))
            rows = await run(lambda native: native.execute("SELECT '2026-01-02' AS 'day [in_words]', 'x'").fetchall())
            assert [str(row) for row in rows] == ["{'row': (datetime.date(2026, 1, 2), b'x')}"]
        assert (await db.checkpoint()).result == "complete"


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ([("timeout", 1)], TypeError, r"connect_args must be a mapping of names to values, not .* \(list\)"),
        ({"timeout": 1}, ValueError, "connect_args: 'timeout' cannot be set: acquisition_timeout is"),
        *(
            ({name: None}, ValueError, f"connect_args: '{name}' cannot be set")
            for name in ("isolation_level", "uri", "check_same_thread", "autocommit", "database")
        ),
        ({"timeouts": 1}, TypeError, r"connect_args: sqlite3.connect\(\) does not take {'timeouts': 1}"),
        ({"cached_statements": "x"}, TypeError, "connect_args: sqlite3.connect"),
        ({"detect_types": 1 << 80}, ValueError, "connect_args: sqlite3.connect"),
    ],
)
def test_arguments_that_sqlite3_or_the_database_does_not_take_are_refused(
    args: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        SQLiteDatabase("app.db", connect_args=args)


# -- opening while others use the file


async def test_opening_waits_for_a_process_that_holds_a_file_without_wal(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    async with other_process(path, "CREATE TABLE note (id INTEGER PRIMARY KEY, text)", "BEGIN IMMEDIATE") as other:
        await other.does("INSERT INTO note (text) VALUES ('theirs')")
        db = SQLiteDatabase(path)
        opening = asyncio.create_task(db.open())
        await asyncio.sleep(0.05)
        assert not opening.done()
        await other.does("COMMIT")
        await opening
    async with db:
        assert await db.run_read(texts) == ["theirs"]


async def test_opening_waits_for_a_process_that_has_the_file_for_itself(database: Path) -> None:
    db = SQLiteDatabase(database)
    async with other_process(database) as other:
        await other.does("PRAGMA locking_mode = EXCLUSIVE")
        await other.does("INSERT INTO note (text) VALUES ('theirs')")
        opening = asyncio.create_task(db.open())
        await asyncio.sleep(0.05)
        assert not opening.done()
    await opening
    async with db:
        assert await db.run_read(texts) == ["theirs"]


@pytest.mark.parametrize("operation_timeout", [1, 10])
async def test_opening_waits_for_other_processes_until_the_acquisition_timeout(
    database: Path, operation_timeout: float
) -> None:
    async with other_process(database) as other:
        await other.does("PRAGMA locking_mode = EXCLUSIVE")
        await other.does("INSERT INTO note (text) VALUES ('theirs')")
        locked = pytest.raises(sqlite3.OperationalError, match="locked")
        for timeout in (0, 1.5):
            with nothing_left_behind(), locked as failed:
                await SQLiteDatabase(database, acquisition_timeout=timeout, operation_timeout=operation_timeout).open()
            assert f"database: {database}" in failed.value.__notes__


async def test_a_reader_waits_for_the_locks_of_others_where_it_can_be_cancelled(database: Path) -> None:
    file = SQLiteDatabase(database, acquisition_timeout=None)._file
    async with other_process(database) as other:
        await other.does("PRAGMA locking_mode = EXCLUSIVE")
        await other.does("INSERT INTO note (text) VALUES ('theirs')")
        with nothing_left_behind():
            opening = asyncio.ensure_future(file.factory("read")())
            await asyncio.sleep(0.05)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening


async def test_processes_that_start_at_once_on_a_new_file_all_come_up(tmp_path: Path) -> None:
    program = f"""
import asyncio
from aiosqlitepool import SQLiteDatabase

async def main():
    async with SQLiteDatabase({str(tmp_path / "new.db")!r}) as db:
        await db.run_write(lambda native: native.execute("CREATE TABLE IF NOT EXISTS note (text)").close())
        await db.run_write(lambda native: native.execute("INSERT INTO note VALUES ('x')").close())
        await db.run_read(lambda native: native.execute("SELECT text FROM note").fetchall())

asyncio.run(main())
"""
    start = asyncio.create_subprocess_exec
    processes = [await start(sys.executable, "-c", program) for _ in range(8)]
    assert [await process.wait() for process in processes] == [0] * 8
    with contextlib.closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        assert connection.execute("SELECT count(*) FROM note").fetchone() == (8,)


# -- in memory


async def test_a_database_in_memory_is_one_for_all_its_connections_and_for_nobody_else(memory: SQLiteDatabase) -> None:
    await memory.run_write(add, "a")
    assert await asyncio.gather(*(memory.run_read(texts) for _ in range(8))) == [["a"]] * 8
    async with SQLiteDatabase(":memory:") as other:
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            await other.run_read(texts)
    assert (memory.name, memory.writer.stats().wal_bytes) == (":memory:", 0)


async def test_a_database_in_memory_ends_when_it_is_closed() -> None:
    with nothing_left_behind():
        async with SQLiteDatabase(":memory:") as db:
            target = db._file._target
            await db.run_write(lambda native: native.execute("CREATE TABLE note (id)").close())
            await db.readers.close()
        outsider = sqlite3.connect(target, uri=True)
        assert outsider.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
        outsider.close()


async def test_many_readers_and_writers_in_memory_never_find_it_locked(memory: SQLiteDatabase) -> None:
    async def read() -> None:
        for _ in range(20):
            before = len(await memory.run_read(texts))
            async with memory.read(snapshot=True) as connection:
                assert len(await texts_now(connection)) >= before
            async with memory.read() as connection:
                assert len(await texts_now(connection)) >= before

    async def write(name: str) -> None:
        for number in range(20):
            await memory.run_write(add, f"{name} {number}", retry=number % 2 == 0)
            async with memory.write() as connection:
                await insert(connection, f"{name} {number} block")

    await asyncio.gather(*(read() for _ in range(20)), write("a"), write("b"))
    assert len(await memory.run_read(texts)) == 80


async def test_a_block_that_writes_in_memory_keeps_readers_waiting_until_it_ends(memory: SQLiteDatabase) -> None:
    async with held_writer(memory) as let_go:
        reading = asyncio.create_task(memory.run_read(texts))
        await asyncio.sleep(0.01)
        assert not reading.done()
        let_go()
        assert await reading == []


async def test_reading_inside_ones_own_block_in_memory_is_refused_at_once(memory: SQLiteDatabase) -> None:
    async with memory.write() as connection:
        await insert(connection, "a")
        with pytest.raises(PoolUsageError, match="an in-memory database has no WAL"):
            memory.read()
        with pytest.raises(PoolUsageError, match="an in-memory database has no WAL"):
            await memory.run_read(texts)
    assert await memory.run_read(texts) == ["a"]


async def test_the_default_name_of_a_database_is_cut_at_the_longest_that_a_name_may_be(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / ("a" * 250))
    assert repr("a" * 200)[1:-1] in repr(database)
    assert "a" * 201 not in repr(database)
