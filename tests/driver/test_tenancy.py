from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolUsageError, SQLiteConnectionPool
from aiosqlitepool.driver.tenancy import MOST_FORMER, MOST_MARKS, Tenancy, marks_here

from ..support.files import notes

Pool = SQLiteConnectionPool[aiosqlite.Connection]

# For waits that must end; only a hang reaches it.
PATIENCE = 60


def pool_on(database: Path, size: int = 1, **settings: Any) -> Pool:
    return SQLiteConnectionPool(lambda: aiosqlite.connect(database), size, idle_timeout=None, **settings)


async def insert(connection: aiosqlite.Connection, text: str) -> None:
    await connection.execute("INSERT INTO note (text) VALUES (?)", (text,))


async def once(pool: Pool, connections: int = 1) -> list[aiosqlite.Connection]:
    """So many connections that the running task has had at once and gave back."""
    async with contextlib.AsyncExitStack() as stack:
        return [await stack.enter_async_context(pool.connection()) for _ in range(connections)]


@contextlib.asynccontextmanager
async def lent_to_another_task(pool: Pool) -> AsyncIterator[aiosqlite.Connection]:
    """Another task has it, in the middle of a transaction that it commits at the end."""
    lent: asyncio.Future[aiosqlite.Connection] = asyncio.get_running_loop().create_future()
    finish = asyncio.Event()

    async def hold() -> None:
        async with pool.connection(label="the other") as connection:
            await insert(connection, "the other's")
            lent.set_result(connection)
            await finish.wait()
            await connection.commit()

    holder = asyncio.create_task(hold())
    try:
        yield await asyncio.wait_for(lent, PATIENCE)
    finally:
        finish.set()
        await holder


# -- evidence


async def test_a_task_that_gave_its_connection_back_is_refused_though_it_has_borrowed_another_since(
    database: Path,
) -> None:
    async with pool_on(database, 2) as pool:
        first, second = await once(pool, 2)
        async with lent_to_another_task(pool) as taken, pool.connection() as own:
            assert {first, second} == {taken, own}
            for attempt in (taken.commit, taken.rollback, lambda: taken.execute_fetchall("SELECT 1")):
                with pytest.raises(PoolUsageError, match="lent it to another task"):
                    await attempt()
            await own.execute_fetchall("SELECT 1")
    assert notes(database) == ["the other's"]


async def test_a_task_created_inside_a_block_that_has_ended_is_refused(database: Path) -> None:
    ended = asyncio.Event()

    async def too_late(connection: aiosqlite.Connection) -> None:
        await ended.wait()
        await connection.commit()

    async with pool_on(database) as pool:
        async with pool.connection() as connection:
            late = asyncio.create_task(too_late(connection))
        async with lent_to_another_task(pool):
            ended.set()
            with pytest.raises(PoolUsageError, match="created inside a block that has ended"):
                await late
    assert notes(database) == ["the other's"]


async def test_a_second_release_does_not_take_the_connection_from_its_next_holder(database: Path) -> None:
    async with pool_on(database) as pool:
        connection = await pool.acquire()
        await pool.release(connection)
        async with lent_to_another_task(pool):
            with pytest.raises(PoolUsageError, match="lent it to another task"):
                await pool.release(connection)
            assert [holder.label for holder in pool.holders()] == ["the other"]
    assert notes(database) == ["the other's"]


METHODS: dict[str, Callable[[aiosqlite.Connection], Awaitable[Any]]] = {
    "interrupt": lambda connection: connection.interrupt(),
    "stop": lambda connection: connection.stop() or asyncio.sleep(0),
    "close": lambda connection: connection.close(),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
async def test_what_would_harm_the_next_holder_is_refused_as_well(
    database: Path, method: Callable[[aiosqlite.Connection], Awaitable[Any]]
) -> None:
    async with pool_on(database) as pool:
        (connection,) = await once(pool)
        with pytest.raises(PoolUsageError, match="went back to the pool"):
            await method(connection)
        async with lent_to_another_task(pool):
            with pytest.raises(PoolUsageError, match="lent it to another task"):
                await method(connection)
    assert notes(database) == ["the other's"]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
async def test_a_holder_may_do_all_of_it(
    database: Path, method: Callable[[aiosqlite.Connection], Awaitable[Any]]
) -> None:
    async with pool_on(database) as pool:
        for _ in range(2):
            async with pool.connection() as connection:
                await method(connection)


# -- no evidence


async def test_tasks_may_share_the_connection_of_another_though_their_parent_had_it_once(database: Path) -> None:
    async with pool_on(database) as pool:
        await once(pool)
        async with lent_to_another_task(pool) as shared:
            requests = [asyncio.create_task(insert(shared, "shared")) for _ in range(3)]
            await asyncio.gather(*requests)
    assert notes(database) == ["the other's", "shared", "shared", "shared"]


async def test_one_task_may_acquire_for_another_again_and_again(database: Path) -> None:
    async with pool_on(database) as pool:
        await once(pool)
        queue: asyncio.Queue[aiosqlite.Connection | None] = asyncio.Queue(1)

        async def provide() -> None:
            for _ in range(4):
                await queue.put(await pool.acquire())
            await queue.put(None)

        async def consume() -> None:
            while (connection := await queue.get()) is not None:
                await insert(connection, "handed over")
                await connection.commit()
                await pool.release(connection)

        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(provide(), consume())
    assert notes(database) == ["handed over"] * 4


@pytest.mark.parametrize("inside", [False, True], ids=["after a block", "created inside a block"])
async def test_a_task_may_use_what_a_task_made_for_the_acquiring_took_on_its_behalf(
    database: Path, inside: bool
) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        await ended.wait()
        # On Python 3.11, wait_for() does this by itself.
        connection = await asyncio.create_task(pool.acquire())
        await insert(connection, "on its behalf")
        await connection.commit()
        await pool.release(connection)

    async with pool_on(database) as pool:
        async with pool.connection():
            task = asyncio.create_task(work()) if inside else None
        ended.set()
        await (task or work())
        connection = await asyncio.wait_for(pool.acquire(), PATIENCE)
        await pool.release(connection)
    assert notes(database) == ["on its behalf"]


async def test_a_lease_that_ended_in_another_task_is_evidence_against_nobody(database: Path) -> None:
    async with pool_on(database) as pool:
        connection = await pool.acquire()
        await asyncio.create_task(pool.release(connection))
        async with lent_to_another_task(pool):
            await insert(connection, "allowed")
    assert notes(database) == ["the other's", "allowed"]


async def test_while_it_is_lent_to_a_task_that_has_ended_those_who_gave_it_back_are_not_refused(
    database: Path,
) -> None:
    async def acquire_and_keep() -> None:
        taken.append(await pool.acquire())

    taken: list[aiosqlite.Connection] = []
    async with pool_on(database) as pool:
        (connection,) = await once(pool)
        await asyncio.create_task(acquire_and_keep())
        await insert(connection, "unnoticed")
        await connection.commit()
        await pool.release(taken[0])
    assert notes(database) == ["unnoticed"]


async def test_a_task_may_borrow_again_what_it_gave_back(database: Path) -> None:
    async with pool_on(database) as pool:
        for _ in range(3):
            async with pool.connection() as connection:
                await insert(connection, "again")
                await connection.commit()
    assert notes(database) == ["again"] * 3


async def test_who_is_refused_may_leave_the_work_to_a_task_that_has_not_had_the_connection(database: Path) -> None:
    async with pool_on(database) as pool:
        await once(pool)
        async with lent_to_another_task(pool) as shared:
            with pytest.raises(PoolUsageError, match="leave the work to a task that has not had this connection"):
                await insert(shared, "refused")
            await asyncio.create_task(insert(shared, "allowed"))
    assert notes(database) == ["the other's", "allowed"]


async def test_those_who_gave_it_back_before_the_newest_few_are_forgotten() -> None:
    tenancy = Tenancy(asyncio.get_running_loop())

    async def borrow() -> None:
        tenancy.begin(asyncio.current_task())
        tenancy.end()

    async def hold() -> None:
        tenancy.begin(asyncio.current_task())
        lent.set()
        await asyncio.Event().wait()

    await borrow()
    others = [asyncio.create_task(borrow()) for _ in range(MOST_FORMER - 1)]
    await asyncio.wait(others)
    lent = asyncio.Event()
    holder = asyncio.create_task(hold())
    await lent.wait()
    with pytest.raises(PoolUsageError):
        tenancy.challenge()
    holder.cancel()
    tenancy.end()
    await asyncio.create_task(borrow())
    lent.clear()
    holder = asyncio.create_task(hold())
    await lent.wait()
    tenancy.challenge()
    holder.cancel()


async def test_marks_older_than_the_newest_few_of_a_context_are_forgotten() -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    tenancies = [Tenancy(loop) for _ in range(MOST_MARKS + 1)]
    for tenancy in tenancies:
        tenancy.begin(task)
    assert marks_here() == tuple(tenancy.mark for tenancy in reversed(tenancies[1:]))
    for tenancy in tenancies:  # in any order
        tenancy.challenge()
        tenancy.end()
    assert marks_here() == ()


async def test_a_task_holds_more_connections_than_its_context_has_marks(database: Path) -> None:
    async with pool_on(database, MOST_MARKS + 1) as pool:
        for _ in range(2):
            for connection in await once(pool, MOST_MARKS + 1):
                assert connection is not None
        async with contextlib.AsyncExitStack() as stack:
            for connection in [await stack.enter_async_context(pool.connection()) for _ in range(MOST_MARKS + 1)]:
                await connection.execute_fetchall("SELECT 1")


async def test_leases_that_end_in_the_order_in_which_they_began_leave_no_evidence(database: Path) -> None:
    async with pool_on(database, 2) as pool:
        for _ in range(2):
            first, second = await pool.acquire(), await pool.acquire()
            await pool.release(first)
            await pool.release(second)
        async with lent_to_another_task(pool) as shared:
            await asyncio.create_task(insert(shared, "shared"))
    assert notes(database) == ["the other's", "shared"]


@pytest.mark.parametrize("leases", [2, MOST_MARKS + 1])
async def test_a_lease_that_ends_before_a_later_one_leaves_the_evidence_of_that(database: Path, leases: int) -> None:
    ended = asyncio.Event()

    async def too_late(connection: aiosqlite.Connection) -> None:
        await ended.wait()
        await connection.commit()

    async with pool_on(database, leases) as pool:
        first, second, *others = [await pool.acquire() for _ in range(leases)]
        for connection in (*reversed(others), first):
            await pool.release(connection)
        late = asyncio.create_task(too_late(second))
        await asyncio.sleep(0)
        await pool.release(second)
        async with contextlib.AsyncExitStack() as stack:
            while await stack.enter_async_context(lent_to_another_task(pool)) is not second:
                pass
            ended.set()
            with pytest.raises(PoolUsageError, match="created inside a block that has ended"):
                await late


class Request:
    """What a program has in the context of a task while it serves."""


async def test_the_worker_keeps_the_context_of_no_statement_that_it_has_run(database: Path) -> None:
    async def serve() -> weakref.ref[Request]:
        request = Request()
        contextvars.ContextVar[Request]("request").set(request)
        async with pool.connection() as connection:
            await connection.execute_fetchall("SELECT 1")
        return weakref.ref(request)

    async with pool_on(database) as pool:
        request = await asyncio.create_task(serve())
        await asyncio.sleep(0)  # the loop holds the task that woke this one
        gc.collect()
        assert request() is None


async def test_a_connection_that_was_closed_under_its_holder_keeps_no_context_alive(database: Path) -> None:
    async def forget_it() -> tuple[aiosqlite.Connection, weakref.ref[Request]]:
        request = Request()
        contextvars.ContextVar[Request]("request").set(request)
        return await pool.acquire(), weakref.ref(request)

    pool = pool_on(database)
    connection, request = await asyncio.create_task(forget_it())
    with pytest.warns(ResourceWarning):
        await pool.close(timeout=0)
    gc.collect()
    assert request() is None
    with pytest.raises(ValueError, match="no active connection"):
        await connection.commit()


@pytest.mark.parametrize("idle_timeout", [None, 1000.0], ids=["no timer", "a timer"])
async def test_an_idle_connection_keeps_no_context_alive(database: Path, idle_timeout: float | None) -> None:
    async def serve() -> weakref.ref[Request]:
        request = Request()
        contextvars.ContextVar[Request]("request").set(request)
        await once(pool)
        return weakref.ref(request)

    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, idle_timeout=idle_timeout) as pool:
        request = await asyncio.create_task(serve())
        await asyncio.sleep(0)  # the loop holds the task that woke this one
        gc.collect()
        assert request() is None


async def test_a_context_that_lives_on_keeps_no_connection_alive(database: Path) -> None:
    stop = asyncio.Event()
    made: list[weakref.ref[aiosqlite.Connection]] = []

    async def connect() -> aiosqlite.Connection:
        connection = await aiosqlite.connect(database)
        made.append(weakref.ref(connection))
        return connection

    async def websocket() -> None:
        async with SQLiteConnectionPool(connect, 1) as pool, pool.connection():
            pass
        await stop.wait()

    tasks = [asyncio.create_task(websocket()) for _ in range(3)]
    async with asyncio.timeout(PATIENCE):
        while len(made) < 3 or any(ref() is not None for ref in made):
            await asyncio.sleep(0.001)
            gc.collect()
    assert not any(task.done() for task in tasks)
    stop.set()
    await asyncio.gather(*tasks)


async def test_a_lease_that_never_began_leaves_no_evidence_when_it_ends() -> None:
    tenancy = Tenancy(asyncio.get_running_loop())
    tenancy.end()
    assert marks_here() == ()
    tenancy.challenge()
