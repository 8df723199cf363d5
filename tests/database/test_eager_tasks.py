"""Eager tasks, which run up to their first wait inside `create_task()`, in the middle of what their creator does."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase

from ..support.databases import Hold, add, insert, texts
from ..support.files import notes
from ..support.storm import assert_whole, nothing_left_behind, quiet


def run_eagerly(main: Callable[[], Awaitable[None]]) -> None:
    def loop_factory() -> asyncio.AbstractEventLoop:
        loop: Any = asyncio.new_event_loop()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        return loop  # type: ignore[no-any-return]

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await main()

    with nothing_left_behind(), asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(bounded())


def test_eager_tasks_acquire_at_once_and_in_order(database: Path) -> None:
    served: list[int] = []

    async def serve(pool: SQLiteConnectionPool[aiosqlite.Connection], number: int) -> None:
        async with pool.connection() as connection:
            served.append(number)
            await connection.execute_fetchall("SELECT 1")

    async def main() -> None:
        async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool:
            await serve(pool, 0)
            tasks = [asyncio.create_task(serve(pool, number)) for number in range(1, 50)]
            assert served == [0, 1]  # the first has the idle connection before create_task() returns
            await asyncio.gather(*tasks)
            await assert_whole(pool)

    run_eagerly(main)
    assert served == list(range(50))


def test_an_eager_task_inside_a_block_is_a_caller_of_its_own(database: Path) -> None:
    async def main() -> None:
        async with SQLiteDatabase(database) as db:
            async with db.write() as connection:
                await insert(connection, "block")
                behind = asyncio.create_task(db.run_write(add, "behind"))
                assert await asyncio.create_task(db.run_read(texts)) == []
                async with db.write():
                    await insert(connection, "within")
            await behind

    run_eagerly(main)
    assert notes(database) == ["block", "within", "behind"]


def test_eager_tasks_that_are_cancelled_at_any_moment_cost_no_connection(database: Path) -> None:
    async def write(db: SQLiteDatabase, text: str) -> None:
        async with db.write() as connection:
            await insert(connection, text)
            async with db.write():
                await insert(connection, text)

    async def main() -> None:
        async with SQLiteDatabase(database, readers=2, reader_max_age=60) as db:
            for turns in range(12):
                tasks = [
                    asyncio.create_task(write(db, f"block {turns}")),
                    asyncio.create_task(db.run_write(add, f"function {turns}")),
                    asyncio.create_task(db.run_read(texts)),
                ]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            for pool in (db.writer, db.readers):
                await quiet(pool)
                await assert_whole(pool)

    run_eagerly(main)
    found = notes(database)
    assert all(found.count(text) == (2 if text.startswith("block") else 1) for text in found)


def test_a_task_group_waits_for_a_function_of_an_eager_task_beside_one_that_fails(database: Path) -> None:
    async def main() -> None:
        hold = Hold()

        async def fail() -> None:
            await hold.reached.wait()
            asyncio.get_running_loop().call_later(0.01, hold.let_go)
            raise KeyError("k")

        def hold_and_add(native: sqlite3.Connection) -> None:
            hold(native)
            add(native, "a")

        async with SQLiteDatabase(database) as db:
            with pytest.RaisesGroup(KeyError):
                async with asyncio.TaskGroup() as group:
                    group.create_task(db.run_write(hold_and_add))
                    group.create_task(fail())
            assert db.writer.stats().used == 0

    run_eagerly(main)
    assert notes(database) == ["a"]
