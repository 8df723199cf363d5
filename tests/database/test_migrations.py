from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolUsageError, SQLiteDatabase
from aiosqlitepool.events import RolledBackOnReturn, TransactionEnded
from aiosqlitepool.testing import Recorder

from ..support.databases import Hold, add, first, held_writer, insert, texts, until_waiting
from ..support.files import notes

FAMILY = """
    CREATE TABLE parent (id INTEGER PRIMARY KEY, name);
    CREATE TABLE child (id INTEGER PRIMARY KEY, parent REFERENCES parent (id) ON DELETE CASCADE);
    INSERT INTO parent VALUES (1, 'one');
    INSERT INTO child VALUES (1, 1);
"""
# sqlite.org/lang_altertable.html, "Making Other Kinds Of Table Schema Changes".
REBUILD = """
    CREATE TABLE new_parent (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    INSERT INTO new_parent SELECT id, name FROM parent;
    DROP TABLE parent;
    ALTER TABLE new_parent RENAME TO parent;
"""


def version(native: sqlite3.Connection) -> int:
    (number,) = native.execute("PRAGMA user_version").fetchone()
    return int(number)


def rows(table: str) -> Any:
    return lambda native: native.execute(f"SELECT * FROM {table}").fetchall()


def tables(native: sqlite3.Connection) -> set[str]:
    return {name for (name,) in native.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def notes_of(error: BaseException) -> str:
    return "\n".join(error.__notes__)


async def foreign_keys(db: SQLiteDatabase) -> bool:
    async with db.write() as connection:
        return await connection.execute_fetchall("PRAGMA foreign_keys") == [(1,)]


# -- steps


async def test_each_step_is_applied_once_and_counted(
    db: SQLiteDatabase, tmp_path: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "aiosqlitepool")
    (tmp_path / "three.sql").write_text("\ufeffINSERT INTO note (text) VALUES ('3');\n", "utf-8")
    steps = [
        "INSERT INTO note (text) VALUES ('1')",
        "",
        tmp_path / "three.sql",
        ["INSERT INTO note (text) VALUES ('4a'); SELECT 1", "INSERT INTO note (text) VALUES ('4b')"],
        lambda native: add(native, "5"),
        lambda native: native.execute("INSERT INTO note (text) VALUES ('6')"),
    ]
    assert await db.migrate(steps[:2], label="deploy") == 2
    assert [(event.outcome, event.label) for event in recorder.of(TransactionEnded)] == [("committed", "deploy")] * 2
    assert await db.migrate(steps) == 4
    assert await db.migrate(steps) == 0
    assert await db.run_read(texts) == ["1", "3", "4a", "4b", "5", "6"]
    assert await db.run_read(version) == 6
    assert [record.getMessage().partition(", after")[0] for record in caplog.records] == [
        f"database 'app.db': version {number} of {total}" for number, total in enumerate((2, 2, 6, 6, 6, 6), 1)
    ]


async def test_no_steps_change_nothing(db: SQLiteDatabase, recorder: Recorder) -> None:
    assert await db.migrate([]) == 0
    assert recorder.of(TransactionEnded) == []


async def test_a_script_is_split_where_sqlite_would_split_it(db: SQLiteDatabase) -> None:
    script = """
        ; -- nothing; nothing
        CREATE TRIGGER loud AFTER INSERT ON note WHEN new.text <> upper(new.text) BEGIN
            UPDATE note SET text = CASE WHEN 1 THEN upper(text) END WHERE id = new.id;
            SELECT 1;
        END;
        /* not this; END; */
        INSERT INTO note (text) VALUES ('a;b'), ('c' || ';--');
        INSERT INTO note (text) VALUES ('last') -- without a semicolon
    """
    await db.migrate([script])
    assert await db.run_read(texts) == ["A;B", "C;--", "LAST"]


async def test_a_table_that_others_refer_to_is_rebuilt_and_keeps_their_rows(db: SQLiteDatabase) -> None:
    assert await db.migrate([FAMILY, REBUILD]) == 2
    assert await db.run_read(rows("child")) == [(1, 1)]
    with pytest.raises(sqlite3.IntegrityError):
        await db.run_write(lambda native: native.execute("INSERT INTO parent (name) VALUES (NULL)").close())
    assert await foreign_keys(db)


async def test_a_database_in_memory_is_migrated_too(memory: SQLiteDatabase) -> None:
    assert await memory.migrate([FAMILY, REBUILD]) == 2
    assert await memory.run_read(rows("child")) == [(1, 1)]
    assert await foreign_keys(memory)


async def test_the_row_factory_of_the_program_is_that_of_its_steps_and_of_nothing_else(database: Path) -> None:
    async def set_up(connection: aiosqlite.Connection) -> None:
        connection.row_factory = lambda cursor, row: {"first": row[0]}

    def step(native: sqlite3.Connection) -> None:
        add(native, native.execute("SELECT 'a'").fetchone()["first"])

    async with SQLiteDatabase(database, on_connect=set_up) as db:
        assert await db.migrate([step]) == 1
    assert notes(database) == ["a"]


# -- what goes wrong


async def test_a_step_that_fails_leaves_the_file_as_it_was_before_it(db: SQLiteDatabase, recorder: Recorder) -> None:
    failing = "CREATE TABLE a (x); CREATE TABLE b (y); CREATE TABLE\n  note (z); CREATE TABLE c (x)"
    with pytest.raises(sqlite3.OperationalError, match="table note already exists") as failed:
        await db.migrate([FAMILY, failing, "CREATE TABLE d (x)"])
    assert notes_of(failed.value) == (
        "statement 3 of 4: CREATE TABLE note (z);\nmigration step 2 of 3 failed: 'app.db' stays at version 1"
    )
    assert await db.run_read(tables) == {"note", "parent", "child"}
    assert await db.run_read(version) == 1
    assert await foreign_keys(db)
    assert [event.outcome for event in recorder.of(TransactionEnded)][:2] == ["committed", "rolled_back"]
    assert await db.migrate([FAMILY, REBUILD]) == 1


async def test_a_function_that_fails_is_rolled_back_too(db: SQLiteDatabase) -> None:
    def fails(native: sqlite3.Connection) -> None:
        add(native, "never")
        raise KeyError("mine")

    with pytest.raises(KeyError) as failed:
        await db.migrate([fails])
    assert notes_of(failed.value) == "migration step 1 of 1 failed: 'app.db' stays at version 0"
    assert await db.run_read(texts) == []


async def test_a_row_without_its_parent_fails_the_step(db: SQLiteDatabase, database: Path) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="row 7 of table 'child' refers to a row of 'parent'") as failed:
        await db.migrate([FAMILY, "INSERT INTO child VALUES (7, 99)"])
    assert "step 2 of 2" in notes_of(failed.value)
    assert await db.run_read(rows("child")) == [(1, 1)]


async def test_rows_without_parents_are_no_error_where_foreign_keys_are_off(database: Path) -> None:
    async with SQLiteDatabase(database, pragmas={"foreign_keys": False}) as db:
        assert await db.migrate([FAMILY, "INSERT INTO child VALUES (7, 99)"]) == 2
        assert not await foreign_keys(db)


async def test_a_file_that_is_newer_than_the_steps_is_left_alone(db: SQLiteDatabase) -> None:
    await db.migrate(["", "", ""])
    with pytest.raises(PoolUsageError, match=r"has version 3 \(PRAGMA user_version\), and only 1 steps were given"):
        await db.migrate(["CREATE TABLE never (x)"])
    assert await db.run_read(version) == 3


@pytest.mark.parametrize("word", ["BEGIN", "COMMIT", "END", "ROLLBACK", "VACUUM"])
async def test_sql_that_would_end_its_transaction_is_refused_before_any_step_runs(
    db: SQLiteDatabase, word: str
) -> None:
    with pytest.raises(PoolUsageError, match=f"migration step 2 of 2 contains {word}: each step is one transaction"):
        await db.migrate(["CREATE TABLE never (x)", f"SELECT 1; -- done\n {word.lower()};"])
    assert await db.run_read(version) == 0
    assert await db.run_read(tables) == {"note"}


@pytest.mark.parametrize("end", ["BEGIN", "COMMIT", "ROLLBACK"])
async def test_a_function_that_would_end_its_transaction_fails(db: SQLiteDatabase, end: str) -> None:
    def step(native: sqlite3.Connection) -> None:
        add(native, "never")
        native.execute(end)

    with pytest.raises(sqlite3.DatabaseError, match="not authorized") as failed:
        await db.migrate([step])
    assert "a step is one transaction, which migrate() begins and ends" in notes_of(failed.value)
    assert await db.run_read(texts) == []
    assert await db.run_read(version) == 0
    with pytest.raises(PoolUsageError, match=r"db\.migrate\(\[script\]\)"):
        await db.migrate([lambda native: native.executescript("SELECT 1")])


async def test_a_coroutine_function_fails_as_a_step(db: SQLiteDatabase) -> None:
    async def step(native: sqlite3.Connection) -> None: ...

    with pytest.raises(TypeError, match="must be a plain function"):
        await db.migrate([step])
    assert await db.run_read(version) == 0


@pytest.mark.parametrize("steps", ["SELECT 1", Path("a.sql"), b"SELECT 1", None, 5])
async def test_steps_that_are_no_list_are_refused(db: SQLiteDatabase, steps: Any) -> None:
    with pytest.raises(TypeError, match="steps must be a list of steps, not "):
        await db.migrate(steps)


@pytest.mark.parametrize("step", [5, None, b"SELECT 1", ["SELECT 1", 5]])
async def test_a_step_of_a_wrong_type_is_named_before_any_step_runs(db: SQLiteDatabase, step: Any) -> None:
    with pytest.raises(
        TypeError, match=r"steps\[1\] must be a str of SQL, a path, a list of str or a function"
    ) as error:
        await db.migrate(["CREATE TABLE never (x)", step])
    assert repr(step) in str(error.value)
    assert await db.run_read(tables) == {"note"}


async def test_a_file_of_sql_that_is_missing_is_named_before_any_step_runs(db: SQLiteDatabase) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.sql"):
        await db.migrate(["CREATE TABLE never (x)", Path("missing.sql")])
    assert await db.run_read(tables) == {"note"}


# -- others


async def test_of_those_that_migrate_at_once_one_applies_each_step(database: Path) -> None:
    async with SQLiteDatabase(database) as one, SQLiteDatabase(database) as other:
        steps = [f"INSERT INTO note (text) VALUES ('{number}')" for number in range(20)]
        assert sum(await asyncio.gather(one.migrate(steps), other.migrate(steps), one.migrate(steps))) == 20
    assert notes(database) == [str(number) for number in range(20)]


async def test_a_migration_that_finds_itself_overtaken_applies_nothing(database: Path) -> None:
    async with SQLiteDatabase(database) as one, SQLiteDatabase(database) as other:
        async with one.writer.connection() as connection:
            await connection.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(other.migrate(["CREATE TABLE twice (x)"]))
            await first(other.writer)  # it has read the version, and waits for the lock
            await connection.execute("CREATE TABLE twice (x)")
            await connection.execute("PRAGMA user_version = 1")
            await connection.commit()
        assert await waiting == 0


async def test_another_process_is_waited_for_until_the_timeout(database: Path, db: SQLiteDatabase) -> None:
    async with SQLiteDatabase(database) as other, other.write():
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await db.migrate(["CREATE TABLE never (x)"], timeout=0.05)


async def test_a_migration_waits_for_its_turn_and_is_refused_inside_a_block(db: SQLiteDatabase) -> None:
    async with db.write() as connection:
        migrating = asyncio.create_task(db.migrate(["INSERT INTO note (text) VALUES ('second')"]))
        await until_waiting(db, 1)
        await insert(connection, "first")
        with pytest.raises(PoolUsageError, match=r"migrate: not possible inside a write\(\) block"):
            await db.migrate([])
    await migrating
    assert await db.run_read(texts) == ["first", "second"]


async def test_a_cancelled_migration_ends_after_the_step_that_runs(db: SQLiteDatabase) -> None:
    with Hold() as hold:
        await hold.cancel_inside(asyncio.create_task(db.migrate([hold, "CREATE TABLE never (x)"])))
    assert await db.run_read(version) == 1
    assert await foreign_keys(db)


async def test_the_path_of_a_file_as_a_str_is_refused(db: SQLiteDatabase) -> None:
    with pytest.raises(ValueError, match=r"steps\[1\] is '001.sql', and a str is SQL: .* pathlib.Path"):
        await db.migrate(["CREATE TABLE a (x)", "001.sql"])


# -- maintenance


async def test_maintenance_lends_the_writer_outside_a_transaction(db: SQLiteDatabase, recorder: Recorder) -> None:
    kept: list[sqlite3.Cursor] = []
    await db.run_write(lambda native: kept.append(native.execute("SELECT 1 UNION SELECT 2")))
    assert await db.run_read(texts) == []  # a reader is open, and the file in WAL mode
    async with db.maintenance(label="nightly") as connection:
        assert not connection.in_transaction
        assert [holder.label for holder in db.writer.holders()] == ["nightly"]
        assert await connection.execute_fetchall("PRAGMA journal_mode = DELETE") == [("delete",)]
        await connection.execute("PRAGMA page_size = 8192")
        await connection.execute("VACUUM")
        await connection.execute("REINDEX")
        assert await db.run_read(texts) == []
    assert [event.pool for event in recorder.of(TransactionEnded)] == ["app.db/write", "app.db/read", "app.db/read"]
    async with db.read() as connection:
        assert await connection.execute_fetchall("SELECT count(*) FROM note") == [(0,)]  # SQLite looks at the mode
        assert await connection.execute_fetchall("PRAGMA page_size") == [(8192,)]
        assert await connection.execute_fetchall("PRAGMA journal_mode") == [("wal",)]


async def test_a_transaction_that_maintenance_leaves_open_is_rolled_back(
    db: SQLiteDatabase, recorder: Recorder
) -> None:
    async with db.maintenance() as connection:
        await connection.execute("BEGIN")
        await insert(connection, "never")
    assert await db.run_read(texts) == []
    assert [event.pool for event in recorder.of(RolledBackOnReturn)] == ["app.db/write"]


async def test_what_maintenance_sets_on_its_connection_ends_with_it(db: SQLiteDatabase, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        async with db.maintenance() as connection:
            await connection.execute("PRAGMA foreign_keys = OFF")
            await connection.execute("PRAGMA recursive_triggers = ON")
            await connection.execute("ATTACH ? AS other", (str(tmp_path / "other.db"),))
            await connection.execute("CREATE TEMP TABLE mine (x)")
            raise KeyError
    async with db.write() as connection:
        assert await connection.execute_fetchall("PRAGMA foreign_keys") == [(1,)]
        assert await connection.execute_fetchall("PRAGMA recursive_triggers") == [(0,)]
        assert [name for _, name, _ in await connection.execute_fetchall("PRAGMA database_list")] == ["main"]
        assert await connection.execute_fetchall("SELECT * FROM sqlite_temp_schema") == []


async def test_maintenance_waits_for_its_turn_and_is_refused_inside_a_block(db: SQLiteDatabase) -> None:
    async with db.write():
        with pytest.raises(PoolUsageError, match=r"maintenance: not possible inside a write\(\) block"):
            async with db.maintenance():
                pass
    async with held_writer(db):
        with pytest.raises(TimeoutError):
            async with db.maintenance(timeout=0):
                pass


async def test_a_step_that_sqlite_rolled_back_is_not_counted(db: SQLiteDatabase) -> None:
    def step(native: sqlite3.Connection) -> None:
        native.execute("CREATE TABLE one (a UNIQUE)").close()
        native.execute("INSERT INTO one VALUES (1)").close()
        with contextlib.suppress(sqlite3.IntegrityError):
            native.execute("INSERT OR ROLLBACK INTO one VALUES (1)").close()

    with pytest.raises(PoolUsageError, match="SQLite itself rolls back"):
        await db.migrate([step])
    assert await db.run_read(version) == 0
    assert "one" not in await db.run_read(tables)
