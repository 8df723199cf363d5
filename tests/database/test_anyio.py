"""Scopes of anyio, which cancel a task again at each turn of the loop: FastAPI and Starlette run requests in them."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.events import TransactionEnded
from aiosqlitepool.testing import Recorder

from ..support.databases import Hold, add, insert, texts, texts_now
from ..support.files import notes
from ..support.scopes import LONG_ENOUGH, at_rest, cancelled_scope
from ..support.storm import assert_whole, quiet


@pytest.fixture(autouse=True)
async def nothing_is_left(db: SQLiteDatabase) -> AsyncIterator[None]:
    yield
    for pool in (db.writer, db.readers):
        await quiet(pool)
        await assert_whole(pool)


def adding_slowly(scope: anyio.CancelScope) -> Callable[[sqlite3.Connection, str], None]:
    """A function for `run_write` that has the scope cancelled when it begins, takes long, and then adds a row."""
    loop = asyncio.get_running_loop()

    def add_slowly(native: sqlite3.Connection, text: str) -> None:
        loop.call_soon_threadsafe(scope.cancel)
        time.sleep(LONG_ENOUGH)
        add(native, text)

    return add_slowly


async def test_a_function_is_waited_for_without_keeping_the_loop_busy(db: SQLiteDatabase, database: Path) -> None:
    with at_rest(), anyio.CancelScope() as scope:
        await db.run_write(adding_slowly(scope), "kept")
    assert scope.cancelled_caught
    assert notes(database) == ["kept"]
    assert db.writer.stats().used == 0


async def test_a_function_in_a_shielded_scope_returns(db: SQLiteDatabase, database: Path) -> None:
    with at_rest(), anyio.CancelScope() as scope, anyio.CancelScope(shield=True):
        assert await db.run_write(adding_slowly(scope), "kept") is None
    assert notes(database) == ["kept"]


async def test_a_function_of_a_cancelled_scope_runs_whole_or_never(db: SQLiteDatabase, recorder: Recorder) -> None:
    with cancelled_scope() as scope:
        await db.run_write(add, "kept or never")
    assert scope.cancelled_caught
    committed = [event.outcome for event in recorder.of(TransactionEnded)].count("committed")
    assert len(await db.run_read(texts)) == committed


async def test_functions_of_a_task_group_that_fails_run_whole_or_never(db: SQLiteDatabase, database: Path) -> None:
    with Hold() as hold:

        async def fail() -> None:
            await hold.reached.wait()
            asyncio.get_running_loop().call_later(LONG_ENOUGH, hold.let_go)
            raise KeyError("k")

        def hold_and_add(native: sqlite3.Connection) -> None:
            hold(native)
            add(native, "kept")

        with at_rest(), pytest.RaisesGroup(KeyError):
            async with anyio.create_task_group() as group:
                group.start_soon(db.run_write, hold_and_add)
                group.start_soon(db.run_write, add, "never")
                group.start_soon(fail)
    assert notes(database) == ["kept"]


async def test_a_block_has_rolled_back_when_its_scope_ends(db: SQLiteDatabase, database: Path) -> None:
    with at_rest(), anyio.CancelScope() as scope:
        async with db.write() as connection:
            await insert(connection, "never")
            async with db.write():
                await insert(connection, "never")
                scope.cancel()
                await asyncio.Event().wait()
    assert scope.cancelled_caught
    assert db.writer.stats().used == 0
    assert notes(database) == []


async def test_a_block_within_a_block_has_rolled_back_before_the_outer_one_goes_on(
    db: SQLiteDatabase, database: Path
) -> None:
    async with db.write() as connection:
        await insert(connection, "before")
        with at_rest(), anyio.CancelScope() as scope:
            async with db.write():
                await insert(connection, "never")
                scope.cancel()
                await asyncio.Event().wait()
        assert scope.cancelled_caught
        assert await texts_now(connection) == ["before"]
        await insert(connection, "after")
    assert notes(database) == ["before", "after"]


async def test_a_function_within_a_block_is_waited_for_and_rolled_back(db: SQLiteDatabase, database: Path) -> None:
    async with db.write() as connection:
        await insert(connection, "before")
        with at_rest(), anyio.CancelScope() as scope:
            await db.run_write(adding_slowly(scope), "never")
        assert scope.cancelled_caught
        assert await texts_now(connection) == ["before"]
    assert notes(database) == ["before"]


async def test_a_block_and_a_function_that_read_end_with_their_scope(db: SQLiteDatabase) -> None:
    for snapshot in (False, True):
        with at_rest(), anyio.CancelScope() as scope:
            async with db.read(snapshot=snapshot):
                scope.cancel()
                await asyncio.Event().wait()
        assert scope.cancelled_caught
        assert db.readers.stats().used == 0
    with cancelled_scope():
        await db.run_read(texts)


async def test_a_backup_is_waited_for_and_removed(db: SQLiteDatabase, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    target.mkdir()
    with anyio.CancelScope() as scope:
        await db.run_write(lambda native: native.execute("UPDATE note SET text = zeroblob(1000000)").close())
        await db.run_write(lambda native: native.execute("INSERT INTO note (text) VALUES (zeroblob(100000))").close())
        await db.backup(target / "copy.db", pages=1, progress=lambda *_: scope.cancel())
    assert scope.cancelled_caught
    assert list(target.iterdir()) == []


async def test_a_database_whose_block_is_cancelled_has_closed_when_the_scope_ends(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with at_rest(), anyio.CancelScope() as scope:
        async with SQLiteDatabase(path) as other:
            await other.run_write(lambda native: native.execute("CREATE TABLE t (n)").close())
            scope.cancel()
            await asyncio.Event().wait()
    assert scope.cancelled_caught
    assert (other.writer.stats().state, other.readers.stats().state) == ("closed", "closed")
    assert not path.with_name("other.db-wal").exists()


async def test_a_database_that_is_opened_in_a_cancelled_scope_has_closed_when_the_scope_ends(tmp_path: Path) -> None:
    other = SQLiteDatabase(tmp_path / "other.db")
    with at_rest(), cancelled_scope() as scope:
        await other.open()
    assert scope.cancelled_caught
    assert other.writer.stats().state == "closed"
