"""A block that waits for a task which waits for the connection of that block: refused at once, named at the timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError, PoolUsageError, SQLiteConnectionPool, SQLiteDatabase

from ..support.databases import add, insert, texts, until_waiting

Child = Callable[[SQLiteDatabase], Coroutine[Any, Any, Any]]


async def write(db: SQLiteDatabase) -> None:
    async with db.write() as connection:
        await insert(connection, "child")


async def run_write(db: SQLiteDatabase) -> None:
    await db.run_write(add, "child")


async def in_a_grandchild(db: SQLiteDatabase) -> None:
    await asyncio.create_task(run_write(db))


async def checkpoint(db: SQLiteDatabase) -> None:
    await db.checkpoint()


async def refused(block: Coroutine[Any, Any, None]) -> str:
    """Return why it is refused, long before its timeout."""
    async with asyncio.timeout(10):
        with pytest.raises(PoolConnectionAcquireTimeoutError) as caught:
            await block
    return str(caught.value)


@pytest.mark.parametrize("child", [write, run_write, in_a_grandchild, checkpoint])
async def test_a_write_block_cannot_wait_for_another_task_that_writes(db: SQLiteDatabase, child: Child) -> None:
    async def block() -> None:
        async with db.write(label="outer"):
            await asyncio.gather(child(db))

    message = await refused(block())
    assert "[outer] has held connection 1" in message
    assert "The holder of connection 1 waits for this task to end" in message
    assert await db.run_read(texts) == []


async def test_a_write_block_in_memory_cannot_wait_for_another_task_that_writes(memory: SQLiteDatabase) -> None:
    async def block() -> None:
        async with memory.write(label="outer"):
            await asyncio.gather(run_write(memory))

    assert "[outer] has held connection 1" in await refused(block())


async def test_a_task_begun_before_the_block_cannot_be_awaited_in_it_either(db: SQLiteDatabase) -> None:
    entered = asyncio.Event()

    async def child() -> None:
        await entered.wait()
        await write(db)

    async def block() -> None:
        early = asyncio.create_task(child())
        async with db.write(label="outer"):
            entered.set()
            await early

    assert "[outer] has held connection 1" in await refused(block())


async def test_a_task_begun_in_a_write_block_that_does_not_wait_for_it_writes_after_the_block(
    db: SQLiteDatabase,
) -> None:
    async with db.write() as connection:
        later = asyncio.create_task(write(db))
        await until_waiting(db, 1)
        await asyncio.wait({later}, timeout=0.6)  # longer than until the database looks
        await insert(connection, "block")
    await later
    assert await db.run_read(texts) == ["block", "child"]


async def test_a_write_block_may_wait_for_a_task_that_reads(db: SQLiteDatabase) -> None:
    async with db.write():
        assert await asyncio.gather(db.run_read(texts)) == [[]]


async def test_in_memory_a_task_that_a_write_block_awaits_cannot_read(memory: SQLiteDatabase) -> None:
    asyncio.get_running_loop().set_task_factory(None)  # an eager task reads before the block awaits it

    async def read() -> None:
        async with memory.read():
            pass

    with pytest.raises(PoolUsageError, match=r"no WAL: .*, and in tasks that it awaits, .* \[outer\] has held"):
        async with memory.write(label="outer"):
            await asyncio.gather(read(), read())


async def test_a_block_that_holds_the_last_reader_cannot_wait_for_a_task_that_reads(database: Path) -> None:
    async with SQLiteDatabase(database, readers=1) as db:

        async def block() -> None:
            async with db.read(label="outer"):
                await asyncio.gather(db.run_read(texts))

        assert "[outer] has held connection 1" in await refused(block())


async def test_a_task_that_holds_every_reader_cannot_have_one_more(database: Path) -> None:
    async with SQLiteDatabase(database, readers=2) as db:

        async def block() -> None:
            async with db.read(label="one"), db.read(label="two"), db.read():
                raise AssertionError("there were two readers only")

        assert "The waiting task itself holds connections 1, 2: " in await refused(block())


async def crosswise(one: Any, other: Any, label: str, both: asyncio.Barrier) -> None:
    async with one(label=label):
        await both.wait()
        async with other():
            pass


async def errors_of(*crossing: Coroutine[Any, Any, None]) -> str:
    ended = await asyncio.gather(*crossing, return_exceptions=True)
    errors = [each for each in ended if each is not None]
    assert errors
    assert all(isinstance(each, PoolConnectionAcquireTimeoutError) for each in errors)
    return "\n".join(map(str, errors))


async def test_the_timeout_of_a_reader_and_the_writer_crosswise_names_both(database: Path) -> None:
    async with SQLiteDatabase(database, readers=1, acquisition_timeout=0.5, name="app") as db:
        await db.run_read(texts)  # opened before the timeout counts
        both = asyncio.Barrier(2)
        told = await errors_of(crosswise(db.read, db.write, "auth", both), crosswise(db.write, db.read, "order", both))
    assert "has waited for app/" in told
    assert "[auth]" in told
    assert "[order]" in told


async def test_the_timeout_of_two_databases_crosswise_names_both(database: Path) -> None:
    async with (
        SQLiteDatabase(database, acquisition_timeout=0.5, name="file") as one,
        SQLiteDatabase(":memory:", acquisition_timeout=0.5, name="memory") as other,
    ):
        both = asyncio.Barrier(2)
        told = await errors_of(
            crosswise(one.write, other.write, "first", both), crosswise(other.write, one.write, "second", both)
        )
    assert "has waited for file/write for" in told or "has waited for memory/write for" in told
    assert "[first]" in told
    assert "[second]" in told


async def test_the_timeout_of_a_pool_and_a_database_crosswise_names_both(database: Path) -> None:
    async with (
        SQLiteDatabase(database, acquisition_timeout=0.5, name="app") as db,
        SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, acquisition_timeout=0.5, name="plain") as pool,
    ):
        async with pool.connection():
            pass  # opened before the timeout counts
        both = asyncio.Barrier(2)
        told = await errors_of(
            crosswise(db.write, pool.connection, "first", both), crosswise(pool.connection, db.write, "second", both)
        )
    assert "has waited for app/write for" in told or "has waited for plain for" in told
    assert "[first]" in told
    assert "[second]" in told


async def test_a_writer_that_is_held_for_long_logs_a_warning(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with SQLiteDatabase(database, writer_warn_after=0.05) as db:
        async with db.write(label="import"), asyncio.timeout(10):
            while not caplog.records:
                await asyncio.sleep(0.01)
    assert "[import] has held connection 1" in caplog.records[0].getMessage()
