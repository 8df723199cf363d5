"""In which context the worker thread runs what its callers send, and what the pool sends for itself."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sqlite3
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.driver import call, call_anyway, call_to_the_end

from ..support.databases import Hold

CALLS: list[Callable[..., Any]] = [call, call_to_the_end, call_anyway]

caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="nobody")


async def as_caller(name: str, work: Callable[[], Awaitable[Any]]) -> Any:
    """Run it in a task in whose context `caller` has this name."""

    async def serve() -> Any:
        caller.set(name)
        return await work()

    return await asyncio.create_task(serve())


def pool_on(database: Path, **settings: Any) -> SQLiteConnectionPool[aiosqlite.Connection]:
    return SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, **settings)


async def test_a_function_in_a_statement_sees_the_context_of_each_caller(database: Path) -> None:
    async with pool_on(database) as pool:

        async def ask() -> Any:
            async with pool.connection() as connection:
                await connection.create_function("caller", 0, caller.get)
                ((name,),) = await connection.execute_fetchall("SELECT caller()")
                return name

        assert [await as_caller(name, ask) for name in ("alice", "bob")] == ["alice", "bob"]


async def test_a_row_is_computed_in_the_context_of_the_task_whose_call_computes_it(database: Path) -> None:
    async with pool_on(database, read_ahead=0) as pool, pool.connection() as connection:
        await connection.create_function("caller", 0, caller.get)
        cursor = await as_caller("alice", lambda: connection.execute("SELECT caller() FROM (VALUES (1), (2), (3))"))
        # sqlite3 is one row ahead of its caller.
        assert await as_caller("bob", cursor.fetchone) == ("alice",)
        assert await as_caller("carol", cursor.fetchall) == [("bob",), ("carol",)]


@pytest.mark.parametrize("how", CALLS)
async def test_a_function_for_the_worker_sees_the_context_of_its_caller(
    database: Path, how: Callable[..., Any]
) -> None:
    async with pool_on(database) as pool, pool.connection() as connection:
        assert await as_caller("alice", lambda: how(connection, lambda native: caller.get())) == "alice"
    async with aiosqlite.connect(database) as connection:
        expected = "nobody" if how is call else "alice"  # aiosqlite's own, which knows no contexts
        assert await as_caller("alice", lambda: how(connection, lambda native: caller.get())) == expected


async def test_functions_of_a_database_see_the_context_of_their_caller_also_one_behind_another(
    database: Path,
) -> None:
    async with SQLiteDatabase(database, readers=1) as db:

        async def ask(name: str) -> tuple[str, str, str]:
            caller.set(name)
            read, written = await db.run_read(lambda _: caller.get()), await db.run_write(lambda _: caller.get())
            async with db.write():
                return read, written, await db.run_write(lambda _: caller.get())

        with Hold() as hold:
            held = asyncio.create_task(db.run_write(hold))
            await hold.reached.wait()
            asking = [asyncio.create_task(ask(name)) for name in ("alice", "bob", "carol")]
            await asyncio.sleep(0.01)
            hold.let_go()
            await held
            assert await asyncio.gather(*asking) == [(name,) * 3 for name in ("alice", "bob", "carol")]


async def test_what_a_function_sets_is_not_seen_by_its_caller_nor_by_the_next_function(database: Path) -> None:
    def set_and_get(_: sqlite3.Connection) -> str:
        before = caller.get()
        caller.set("the function")
        return before

    async with SQLiteDatabase(database) as db:
        assert [await db.run_write(set_and_get) for _ in range(2)] == ["nobody", "nobody"]
    assert caller.get() == "nobody"


# -- threads that keep the context in which they are started


@pytest.fixture
def inheriting_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads do what those of Python 3.14 may do: keep a copy of the context in which they are started."""
    if getattr(sys.flags, "thread_inherit_context", False):  # free-threaded Pythons do by default
        return
    start = threading.Thread.start

    def start_here(thread: threading.Thread) -> None:
        context, run = contextvars.copy_context(), thread.run
        thread.run = lambda: context.run(run)  # type: ignore[method-assign]
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_here)


class Request:
    """What a program has in the context of a task while it serves."""


request_variable: contextvars.ContextVar[Request] = contextvars.ContextVar("request")


async def connected(database: Path) -> aiosqlite.Connection:
    return await aiosqlite.connect(database)


@pytest.mark.usefixtures("inheriting_threads")
@pytest.mark.parametrize("factory", [aiosqlite.connect, connected])
async def test_a_connection_does_not_keep_the_context_of_the_request_that_opened_it(
    database: Path, factory: Callable[[Path], Any]
) -> None:
    async def serve() -> weakref.ref[Request]:
        request = Request()
        request_variable.set(request)
        async with pool.connection() as connection:
            await connection.execute_fetchall("SELECT 1")
        return weakref.ref(request)

    async with SQLiteConnectionPool(lambda: factory(database), 1) as pool:
        request = await asyncio.create_task(serve())
        async with asyncio.timeout(60):
            while request() is not None:  # the worker is about to leave its last job
                await asyncio.sleep(0.001)
                gc.collect()


@pytest.mark.usefixtures("inheriting_threads")
@pytest.mark.parametrize("factory", [aiosqlite.connect, connected])
async def test_what_the_pool_runs_for_itself_sees_no_request(database: Path, factory: Callable[[Path], Any]) -> None:
    seen: list[str] = []

    def authorize(action: int, *_: object) -> int:
        seen.append(caller.get())
        return sqlite3.SQLITE_OK

    async def dirty() -> None:
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('never')")
            await call(connection, lambda native: native.set_authorizer(authorize))

    async with SQLiteConnectionPool(lambda: factory(database), 1) as pool:
        await as_caller("alice", dirty)  # whose connection it opens, and whose transaction it rolls back
    assert set(seen) == {"nobody"}
