"""A task is cancelled at every await of the pool. Each test is one moment; afterwards nothing is lost.

Nothing here waits for time to pass. Where a moment is "some turns of the loop after the giver acted", it is every
number of turns in turn; where it is "while the statement runs", the statement itself says that it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolClosedError, PoolConnectionAcquireTimeoutError, PoolUsageError, SQLiteConnectionPool
from aiosqlitepool.events import (
    AcquireCancelled,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionCreated,
    ConnectionCreateFailed,
    ConnectionReleased,
    HealthCheckFailed,
    PoolClosed,
    RolledBackOnReturn,
)
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock
from ..support.slots import check_slots
from ..support.storm import assert_whole, factory, make_database, nothing_left_behind
from ..support.stub import StubConnection, StubDriver, hangs, settle, waits_for
from ..support.timeless import timeless

# For waits that must end, in seconds; what they must not wait for takes a minute.
PATIENCE = 30

# More turns of the loop than any hand-over takes.
TURNS = range(9)

# Runs until it is interrupted, and says so when it starts; `began()` is put in by `Database`.
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT began() UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
ENDLESS_WRITE = (
    "INSERT INTO entries SELECT -i, 0, 'abandoned' FROM "
    "(WITH RECURSIVE n(i) AS (SELECT began() UNION ALL SELECT i + 1 FROM n) SELECT i FROM n)"
)
INSERT = "INSERT INTO entries VALUES (?, 0, 'kept')"


_made: list[SQLiteConnectionPool[Any]] = []


@pytest.fixture(autouse=True)
async def no_debris() -> AsyncIterator[None]:
    """A test that fails before it closes its pool fails alone."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for pool in _made:
            await pool.close(timeout=0)
    _made.clear()


def pool_of(
    driver: StubDriver, size: int = 1, **settings: Any
) -> tuple[SQLiteConnectionPool[StubConnection], Recorder]:
    events = Recorder()
    _made.append(SQLiteConnectionPool(driver, size, name="fire", subscribers=[events], **settings))
    return _made[-1], events


async def give_up(task: asyncio.Task[Any]) -> None:
    """Cancel a task and see that it ends cancelled."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def close_whole(pool: SQLiteConnectionPool[Any]) -> None:
    """See that the pool has lost nothing, and close it."""
    await assert_whole(pool)
    await pool.close()


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def borrow(pool: SQLiteConnectionPool[Any], until: asyncio.Event | None = None) -> None:
    async with pool.connection():
        if until is not None:
            await until.wait()


async def first_gives_up(pool: SQLiteConnectionPool[Any], ready: asyncio.Event, after: int) -> None:
    """Cancel the first of two callers so many turns after its connection was ready; the second gets one."""
    first = asyncio.create_task(borrow(pool, asyncio.Event()))
    await settle()
    second = asyncio.create_task(borrow(pool))
    await settle()
    ready.set()
    await turns(after)
    await give_up(first)
    await second


# -- acquire: queued


async def test_a_caller_cancelled_in_the_queue_leaves_it_at_once() -> None:
    pool, events = pool_of(StubDriver())
    held = await pool.acquire()
    caller = asyncio.create_task(pool.acquire())
    await settle()
    assert pool.stats().waiting == 1

    await give_up(caller)

    assert pool.stats().waiting == 0
    assert [event.pending for event in events.of(AcquireCancelled)] == [0]
    await pool.release(held)
    await close_whole(pool)


async def test_of_a_caller_cancelled_in_the_middle_of_the_queue_nothing_is_kept_alive() -> None:
    pool, _ = pool_of(StubDriver())
    held = await pool.acquire()
    callers = [asyncio.create_task(pool.acquire()) for _ in range(3)]
    await settle()
    callers[1].cancel()
    middle = weakref.ref(callers.pop(1))
    await settle()
    gc.collect()
    assert middle() is None

    for caller in callers:
        await give_up(caller)
    await pool.release(held)
    await pool.close()


async def test_a_caller_cancelled_before_it_ever_ran_leaves_no_trace() -> None:
    asyncio.get_running_loop().set_task_factory(None)  # an eager task runs at once
    pool, events = pool_of(StubDriver())
    caller = asyncio.create_task(pool.acquire())

    await give_up(caller)

    assert list(events) == []
    await close_whole(pool)


async def test_those_behind_a_cancelled_caller_keep_their_order() -> None:
    pool, _ = pool_of(StubDriver())
    held, served = await pool.acquire(), []

    async def caller(number: int) -> None:
        async with pool.connection():
            served.append(number)

    callers = [asyncio.create_task(caller(number)) for number in range(6)]
    await settle()
    for number in (0, 3):
        await give_up(callers[number])
    await pool.release(held)
    await asyncio.gather(*callers, return_exceptions=True)

    assert served == [1, 2, 4, 5]
    await close_whole(pool)


async def test_a_connection_given_back_after_all_who_waited_were_cancelled_becomes_idle() -> None:
    pool, events = pool_of(StubDriver())
    held = await pool.acquire()
    callers = [asyncio.create_task(pool.acquire()) for _ in range(5)]
    await settle()
    for caller in callers:
        caller.cancel()

    await pool.release(held)  # they are cancelled, but none of them has run yet

    assert pool.stats().idle == 1
    await asyncio.wait(callers)
    assert all(caller.cancelled() for caller in callers)
    assert len(events.of(AcquireCancelled)) == 5
    await close_whole(pool)


# -- acquire: the slot was handed over, and the caller has not run since


@pytest.mark.parametrize("after", TURNS)
async def test_a_slot_handed_to_a_cancelled_caller_goes_on_to_the_next(after: int) -> None:
    pool, _ = pool_of(StubDriver())
    held = await pool.acquire()
    first = asyncio.create_task(borrow(pool, asyncio.Event()))
    second = asyncio.create_task(borrow(pool))
    await settle()

    await pool.release(held)
    await turns(after)
    await give_up(first)

    await second
    await close_whole(pool)


@pytest.mark.usefixtures("clean_releases")
async def test_a_slot_handed_to_a_caller_cancelled_in_the_same_turn_is_seen_as_its_own_and_given_back() -> None:
    pool, events = pool_of(StubDriver())
    held = await pool.acquire()
    caller = asyncio.create_task(pool.acquire())
    await settle()
    await pool.release(held)
    assert (pool.stats().used, pool.stats().waiting) == (1, 0)  # handed over: in the queue no more, and taken

    await give_up(caller)

    assert (pool.stats().used, pool.stats().idle) == (0, 1)
    assert len(events.of(AcquireCancelled)) == 1
    assert len(events.of(ConnectionAcquired)) == 1
    await close_whole(pool)


async def test_an_empty_slot_handed_to_a_cancelled_caller_is_filled_by_the_next() -> None:
    clock = Clock()
    driver = StubDriver()
    pool, events = pool_of(driver, max_lifetime=10, clock=clock)
    held = await pool.acquire()
    first, second = asyncio.create_task(borrow(pool, asyncio.Event())), asyncio.create_task(borrow(pool))
    await settle()
    clock.advance(20)

    await pool.release(held)
    await give_up(first)

    await second
    assert [event.reason for event in events.of(ConnectionClosed)] == ["lifetime"]
    assert (driver.attempts, driver.open) == (2, 1)
    await close_whole(pool)


async def test_a_caller_cancelled_just_after_it_was_told_that_it_is_late_leaves_as_cancelled() -> None:
    clock = Clock()
    pool, events = pool_of(StubDriver(), acquisition_timeout=5, clock=clock)
    held = await pool.acquire()
    caller = asyncio.create_task(pool.acquire())
    await settle()
    clock.advance(6)
    pool._housekeeper.sweep()

    await give_up(caller)

    assert events.names.count("acquire_cancel") == 1
    assert "acquire_timeout" not in events.names
    await pool.release(held)
    await close_whole(pool)


async def test_a_caller_cancelled_just_before_it_is_told_that_it_is_late_leaves_as_cancelled() -> None:
    clock = Clock()
    pool, events = pool_of(StubDriver(), acquisition_timeout=5, clock=clock)
    held = await pool.acquire()
    caller, late = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.acquire())
    await settle()
    clock.advance(6)
    caller.cancel()  # it has not run since, and is still in the queue
    pool._housekeeper.sweep()

    await asyncio.wait({caller, late})

    assert caller.cancelled()
    assert isinstance(late.exception(), PoolConnectionAcquireTimeoutError)
    assert (events.names.count("acquire_cancel"), events.names.count("acquire_timeout")) == (1, 1)
    await pool.release(held)
    await close_whole(pool)


async def test_a_caller_cancelled_just_after_it_was_told_that_the_pool_closed_leaves_as_cancelled() -> None:
    asyncio.get_running_loop().set_task_factory(None)  # it counts the turns of the loop
    pool, events = pool_of(StubDriver())
    held = await pool.acquire()
    caller = asyncio.create_task(pool.acquire())
    await settle()
    closing = asyncio.create_task(pool.close())
    await turns(1)

    await give_up(caller)

    await pool.release(held)
    await closing
    assert events.names.count("acquire_cancel") == 1
    assert [event.abandoned for event in events.of(PoolClosed)] == [0]


# -- acquire: connecting


async def test_a_connection_whose_caller_left_while_it_opened_becomes_idle() -> None:
    connected = asyncio.Event()
    driver = StubDriver()
    driver.on_connect = waits_for(connected)
    pool, events = pool_of(driver)
    caller = asyncio.create_task(pool.acquire())
    await settle()

    await give_up(caller)
    assert (pool.stats().used, pool.stats().idle) == (1, 0)  # still opening
    connected.set()
    await settle()

    assert (pool.stats().used, pool.stats().idle) == (0, 1)
    assert len(events.of(ConnectionCreated)) == len(events.of(AcquireCancelled)) == 1
    await assert_whole(pool)
    assert driver.attempts == 1
    await pool.close()


async def test_a_connection_whose_caller_left_while_it_opened_goes_to_the_next_waiter() -> None:
    connected = asyncio.Event()
    driver = StubDriver()
    driver.on_connect = waits_for(connected)
    pool, events = pool_of(driver)
    first = asyncio.create_task(pool.acquire())
    await settle()
    second = asyncio.create_task(borrow(pool))
    await settle()

    await give_up(first)
    connected.set()
    await second

    assert driver.attempts == 1
    assert [event.path for event in events.of(ConnectionAcquired)] == ["queued"]
    await close_whole(pool)


@pytest.mark.parametrize("after", TURNS)
async def test_a_caller_cancelled_around_the_moment_its_connection_has_opened_loses_nothing(after: int) -> None:
    connected = asyncio.Event()
    driver = StubDriver()
    driver.on_connect = waits_for(connected)
    pool, _ = pool_of(driver)
    await first_gives_up(pool, connected, after)
    assert (driver.attempts, driver.open) == (1, 1)
    await close_whole(pool)


def refused_once(driver: StubDriver) -> asyncio.Event:
    """Let the first attempt to connect fail as soon as the event is set."""
    refuse = asyncio.Event()

    async def connect() -> None:
        if driver.attempts == 1:
            await refuse.wait()
            raise OSError("no such host")

    driver.on_connect = connect
    return refuse


async def test_a_failure_to_connect_whose_caller_has_left_goes_to_the_oldest_waiter() -> None:
    driver = StubDriver()
    refuse = refused_once(driver)
    pool, events = pool_of(driver)
    first = asyncio.create_task(pool.acquire())
    await settle()
    second, third = asyncio.create_task(borrow(pool)), asyncio.create_task(borrow(pool))
    await settle()

    await give_up(first)
    refuse.set()
    with pytest.raises(OSError, match="no such host"):
        await second
    await third

    assert driver.attempts == 2
    assert [event.error.type for event in events.of(ConnectionCreateFailed)] == ["OSError"]
    await close_whole(pool)


@pytest.mark.parametrize("after", TURNS)
async def test_a_caller_cancelled_around_the_moment_its_connect_fails_holds_up_no_other_caller(after: int) -> None:
    driver = StubDriver()
    refuse = refused_once(driver)
    pool, events = pool_of(driver)
    first = asyncio.create_task(pool.acquire())
    await settle()
    second = asyncio.create_task(borrow(pool))
    await settle()

    refuse.set()
    await turns(after)
    first.cancel()
    await asyncio.wait({first, second})

    assert first.cancelled() or isinstance(first.exception(), OSError)
    if second.exception() is None:
        assert driver.attempts == 2
    else:  # the first had left before the failure was known
        assert (first.cancelled(), type(second.exception()), driver.attempts) == (True, OSError, 1)
    assert [event.error.type for event in events.of(ConnectionCreateFailed)] == ["OSError"]
    await close_whole(pool)


@timeless
async def test_a_connect_that_hangs_after_its_caller_left_gives_its_place_back() -> None:
    driver = StubDriver()
    driver.on_connect = hangs
    pool, events = pool_of(driver, operation_timeout=3, clock=asyncio.get_running_loop().time)
    first = asyncio.create_task(pool.acquire())
    await settle()
    second = asyncio.create_task(borrow(pool))
    await settle()

    driver.on_connect = None
    await give_up(first)
    await second  # ends only if the hanging connect is given up

    assert [event.error.type for event in events.of(ConnectionCreateFailed)] == ["asyncio.exceptions.CancelledError"]
    assert driver.open == 1
    await close_whole(pool)


async def test_a_caller_cancelled_while_aiosqlite_connects_leaves_a_good_connection(tmp_path: Path) -> None:
    database = Database(tmp_path)
    with nothing_left_behind():
        pool, _ = database.pool()
        caller = asyncio.create_task(pool.acquire())
        await turns(2)
        assert pool.stats().used == 1

        await give_up(caller)

        async with pool.connection() as connection:
            assert await connection.execute_fetchall("SELECT 1") == [(1,)]
        await close_whole(pool)


# -- open


async def test_a_cancelled_open_leaves_the_pool_filling_itself() -> None:
    connected = asyncio.Event()
    driver = StubDriver()
    driver.on_connect = waits_for(connected)
    pool, _ = pool_of(driver, 3, min_size=2)
    opener = asyncio.create_task(pool.open())
    await settle()

    await give_up(opener)
    connected.set()
    await settle()

    assert (pool.stats().idle, driver.attempts) == (2, 2)
    await close_whole(pool)


async def test_a_cancelled_open_does_not_cancel_another_one_that_waits_for_the_same_connections() -> None:
    connected = asyncio.Event()
    driver = StubDriver()
    driver.on_connect = waits_for(connected)
    pool, _ = pool_of(driver, 3, min_size=2)
    first, second = asyncio.create_task(pool.open()), asyncio.create_task(pool.open())
    await settle()

    await give_up(first)
    connected.set()

    await second
    assert pool.stats().idle == 2
    await close_whole(pool)


async def test_a_pool_cancelled_on_entering_its_block_is_closed() -> None:
    connected = asyncio.Event()
    driver = StubDriver()
    driver.on_connect = waits_for(connected)
    pool, events = pool_of(driver, 3, min_size=2)

    async def program() -> None:
        async with pool:
            raise AssertionError("never entered")

    task = asyncio.create_task(program())
    await settle()
    task.cancel()
    await settle()
    connected.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert pool.stats().state == "closed"
    assert driver.open == 0
    assert [event.abandoned for event in events.of(PoolClosed)] == [0]


# -- acquire: checking


async def stale(driver: StubDriver, **settings: Any) -> tuple[SQLiteConnectionPool[StubConnection], Recorder]:
    """A pool of one idle connection that must be checked before it is lent."""
    clock = Clock()
    pool, events = pool_of(driver, clock=clock, health_check_after=1, **settings)
    await borrow(pool)
    clock.advance(5)
    return pool, events


async def test_a_connection_whose_caller_left_during_its_check_becomes_idle() -> None:
    answered = asyncio.Event()
    driver = StubDriver(on_execute=waits_for(answered))
    pool, events = await stale(driver)
    caller = asyncio.create_task(pool.acquire())
    await settle()
    assert driver.connections[0].executed == ["SELECT 1"]

    await give_up(caller)
    answered.set()
    await settle()

    assert (pool.stats().used, pool.stats().idle) == (0, 1)
    assert events.of(ConnectionClosed) == []
    assert len(events.of(AcquireCancelled)) == 1
    await close_whole(pool)


@pytest.mark.parametrize("after", TURNS)
async def test_a_connection_whose_caller_left_around_its_check_goes_to_the_next_waiter(after: int) -> None:
    answered = asyncio.Event()
    driver = StubDriver(on_execute=waits_for(answered))
    pool, _ = await stale(driver)
    await first_gives_up(pool, answered, after)
    assert (driver.attempts, driver.open) == (1, 1)
    await close_whole(pool)


async def test_a_connection_that_fails_its_check_after_its_caller_left_is_replaced_for_the_next() -> None:
    answered = asyncio.Event()

    async def dies(_: StubConnection) -> None:
        await answered.wait()
        raise OSError("the server went away")

    driver = StubDriver(on_execute=dies)
    pool, events = await stale(driver)
    first = asyncio.create_task(pool.acquire())
    await settle()
    second = asyncio.create_task(borrow(pool))
    await settle()

    await give_up(first)
    answered.set()
    await second
    await settle()

    assert [event.error.type for event in events.of(HealthCheckFailed)] == ["OSError"]
    assert [event.reason for event in events.of(ConnectionClosed)] == ["unhealthy"]
    assert (driver.attempts, driver.open) == (2, 1)
    await close_whole(pool)


@timeless
async def test_a_check_that_hangs_after_its_caller_left_gives_its_place_back() -> None:
    driver = StubDriver(on_execute=hangs)
    pool, events = await stale(driver, operation_timeout=3)
    first = asyncio.create_task(pool.acquire())
    await settle()
    second = asyncio.create_task(borrow(pool))
    await settle()

    await give_up(first)
    await second  # ends only if the hanging check is given up
    await settle()

    assert len(events.of(ConnectionClosed)) == 1
    assert driver.open == 1
    await close_whole(pool)


async def test_a_caller_cancelled_while_the_replacement_of_an_old_connection_opens_loses_nothing() -> None:
    connected, clock, driver = asyncio.Event(), Clock(), StubDriver()
    pool, events = pool_of(driver, clock=clock, max_lifetime=10)
    await borrow(pool)
    clock.advance(20)
    driver.on_connect = waits_for(connected)
    caller = asyncio.create_task(pool.acquire())
    await settle()

    await give_up(caller)
    connected.set()
    await settle()

    assert [event.reason for event in events.of(ConnectionClosed)] == ["lifetime"]
    assert (pool.stats().idle, driver.attempts, driver.open) == (1, 2, 1)
    await close_whole(pool)


# -- use, on a real database


class Database:
    """A file, pools on it, and statements that tell when they run and end when they are let.

    `began()` in SQL tells that a statement runs; `gate()` does so and then holds its worker until `open_gate()`.
    """

    def __init__(self, tmp_path: Path) -> None:
        self.path = make_database(tmp_path / "fire.db")
        self.running = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._gate = threading.Event()

    def open_gate(self) -> None:
        self._gate.set()

    def tell(self) -> None:
        self._loop.call_soon_threadsafe(self.running.set)

    def hold(self) -> None:
        self.tell()
        assert self._gate.wait(60), "nobody opened the gate"

    def began(self) -> int:
        self.tell()
        return 1

    def gate(self, *_: Any) -> int:
        self.hold()
        return 1

    async def connect(self) -> aiosqlite.Connection:
        connection: aiosqlite.Connection = await factory(self.path)()
        await connection.create_function("began", 0, self.began)
        await connection.create_function("gate", -1, self.gate)
        return connection

    def pool(self, size: int = 1, **settings: Any) -> tuple[SQLiteConnectionPool[Any], Recorder]:
        events = Recorder()
        _made.append(SQLiteConnectionPool(self.connect, size, name="fire", subscribers=[events], **settings))
        return _made[-1], events


async def kept(pool: SQLiteConnectionPool[aiosqlite.Connection]) -> list[int]:
    async with pool.connection() as connection:
        assert not connection.in_transaction
        rows = await connection.execute_fetchall("SELECT owner FROM entries ORDER BY owner")
    return [row[0] for row in rows]


async def start(database: Database, work: Awaitable[Any]) -> asyncio.Task[Any]:
    """Run `work` in a task until its statement says that it runs."""
    database.running.clear()
    task = asyncio.ensure_future(work)
    await database.running.wait()
    assert isinstance(task, asyncio.Task)
    return task


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("statement", [ENDLESS, ENDLESS_WRITE], ids=["select", "insert"])
async def test_a_task_cancelled_in_a_running_statement_leaves_a_clean_connection(
    statement: str, tmp_path: Path
) -> None:
    database = Database(tmp_path)
    with nothing_left_behind():
        pool, events = database.pool()

        async def caller() -> None:
            async with pool.connection() as connection:
                await connection.execute(statement)

        await give_up(await start(database, caller()))

        assert await kept(pool) == []
        assert events.of(ConnectionClosed) == []
        assert len(events.of(ConnectionAcquired)) == len(events.of(ConnectionReleased)) == 2
        await close_whole(pool)


@pytest.mark.usefixtures("patient")
async def test_a_task_cancelled_in_the_middle_of_a_transaction_leaves_none_of_it(tmp_path: Path) -> None:
    database = Database(tmp_path)
    pool, events = database.pool()

    async def caller() -> None:
        async with pool.connection() as connection:
            await connection.execute(INSERT, (1,))
            await connection.execute(ENDLESS)

    await give_up(await start(database, caller()))

    assert await kept(pool) == []
    assert [event.cause for event in events.of(RolledBackOnReturn)] == ["in_flight"]
    await close_whole(pool)


async def test_a_task_cancelled_between_two_statements_of_a_transaction_leaves_none_of_it(tmp_path: Path) -> None:
    database = Database(tmp_path)
    pool, events = database.pool()
    written = asyncio.Event()

    async def caller() -> None:
        async with pool.connection() as connection:
            await connection.execute(INSERT, (1,))
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(caller())
    await written.wait()
    await give_up(task)

    assert await kept(pool) == []
    assert [event.cause for event in events.of(RolledBackOnReturn)] == ["transaction"]
    assert events.of(ConnectionClosed) == []
    await close_whole(pool)


async def test_a_statement_cancelled_while_it_was_queued_never_runs(tmp_path: Path) -> None:
    database = Database(tmp_path)
    pool, _ = database.pool()
    async with pool.connection() as connection:
        running = await start(database, connection.execute_fetchall("SELECT gate()").__aenter__())
        queued = asyncio.create_task(connection.execute(INSERT, (1,)).__aenter__())
        await settle()

        await give_up(queued)
        database.open_gate()

        assert await running == [(1,)]
        assert await connection.execute_fetchall("SELECT * FROM entries") == []
        await connection.commit()
    assert await kept(pool) == []
    await close_whole(pool)


@pytest.mark.parametrize("statement", [ENDLESS, ENDLESS_WRITE], ids=["select", "insert"])
async def test_a_block_that_swallows_the_cancellation_of_its_statement_goes_on_at_once(
    statement: str, tmp_path: Path
) -> None:
    database = Database(tmp_path)
    pool, events = database.pool()
    async with pool.connection() as connection:
        await give_up(await start(database, connection.execute(statement).__aenter__()))

        await connection.execute(INSERT, (1,))  # behind an endless statement, if that was not stopped
        await connection.commit()

    assert await kept(pool) == [1]
    assert events.of(RolledBackOnReturn) == []
    assert events.of(ConnectionClosed) == []
    await close_whole(pool)


async def test_a_statement_cancelled_inside_a_transaction_does_not_lose_what_was_written_before(
    tmp_path: Path,
) -> None:
    database = Database(tmp_path)
    pool, _ = database.pool()
    async with pool.connection() as connection:
        await connection.execute(INSERT, (1,))
        await give_up(
            await start(database, connection.execute("INSERT INTO entries VALUES (2, gate(), 'kept')").__aenter__())
        )
        database.open_gate()
        await connection.execute(INSERT, (3,))
        await connection.commit()

    assert {1, 3} <= set(await kept(pool))
    await close_whole(pool)


async def test_a_commit_cancelled_while_it_was_queued_does_not_happen(tmp_path: Path) -> None:
    database = Database(tmp_path)
    pool, _ = database.pool()
    async with pool.connection() as connection:
        await connection.execute(INSERT, (1,))
        running = await start(database, connection.execute_fetchall("SELECT gate()").__aenter__())
        commit = asyncio.create_task(connection.commit())
        await settle()
        await give_up(commit)
        database.open_gate()
        await running

    assert await kept(pool) == []
    await close_whole(pool)


@pytest.mark.usefixtures("patient")
async def test_a_commit_cancelled_while_it_ran_is_whole_or_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path)
    pool, _ = database.pool()

    def trace(sql: str) -> None:
        if sql.startswith("COMMIT"):
            database.hold()

    async def caller() -> None:
        async with pool.connection() as connection:
            await connection.set_trace_callback(trace)
            await connection.execute(INSERT, (1,))
            await connection.execute(INSERT, (2,))
            await connection.commit()

    task = await start(database, caller())
    task.cancel()
    await settle()
    database.open_gate()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await kept(pool) in ([], [1, 2])
    await close_whole(pool)


async def test_a_cancelled_fetch_does_not_fail_the_next_innocent_statement(tmp_path: Path) -> None:
    """The interrupt comes when SQLite looks at it no more, while the cursor keeps its statement half-read."""
    database = Database(tmp_path)
    pool, _ = database.pool(read_ahead=0)
    async with pool.connection() as connection:
        cursor = await connection.execute("SELECT 1 UNION ALL SELECT gate() UNION ALL SELECT 3")
        await give_up(await start(database, cursor.fetchone()))
        database.open_gate()

        assert await connection.execute_fetchall("SELECT 'innocent'") == [("innocent",)]
    await close_whole(pool)


async def test_two_cancelled_statements_do_not_fail_the_next_innocent_one(tmp_path: Path) -> None:
    database = Database(tmp_path)
    pool, _ = database.pool()
    async with pool.connection() as connection:
        running = await start(database, connection.execute("SELECT gate() UNION ALL SELECT 2").__aenter__())
        await give_up(running)
        queued = asyncio.create_task(connection.execute("SELECT 2").__aenter__())
        await settle()
        await give_up(queued)
        database.open_gate()

        assert await connection.execute_fetchall("SELECT 'innocent'") == [("innocent",)]
    await close_whole(pool)


@pytest.mark.parametrize("in_transaction", [False, True], ids=["alone", "in a transaction"])
async def test_a_cursor_can_be_used_again_after_a_statement_of_it_was_cancelled(
    in_transaction: bool, tmp_path: Path
) -> None:
    database = Database(tmp_path)
    pool, _ = database.pool()
    async with pool.connection() as connection:
        cursor = await connection.cursor()
        if in_transaction:
            await cursor.execute("BEGIN")
        await give_up(await start(database, cursor.execute("SELECT gate() UNION ALL SELECT 2")))
        database.open_gate()

        await cursor.execute("SELECT 'again'")
        assert await cursor.fetchall() == [("again",)]
    await close_whole(pool)


@pytest.mark.usefixtures("patient")
async def test_a_cancellation_that_meets_a_connection_just_closed_by_its_borrower_stays_a_cancellation(
    tmp_path: Path,
) -> None:
    database = Database(tmp_path)
    pool, events = database.pool()

    async def caller() -> None:
        async with pool.connection() as connection:
            native = connection._conn

            def close() -> None:  # as `connection.close()` does, held between its end and the worker's next step
                native.close()
                database.hold()

            await connection._execute(close)

    task = await start(database, caller())
    task.cancel()
    await settle()
    database.open_gate()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await kept(pool) == []
    async with asyncio.timeout(PATIENCE):
        while not events.of(ConnectionClosed):  # which closes in the background
            await asyncio.sleep(0.001)
    await close_whole(pool)


async def test_a_reset_that_fails_when_nobody_waits_for_it_any_more_is_not_complained_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="aiosqlitepool")  # captured, the error would keep all that it saw alive
    database, complaints = Database(tmp_path), list[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    pool, events = database.pool()

    async def caller() -> None:
        async with pool.connection() as connection:
            native = connection._conn

            def close() -> None:
                native.close()
                database.hold()

            await connection._execute(close)

    await give_up(await start(database, caller()))
    database.open_gate()
    while len(pool._inventory.background):
        await asyncio.sleep(0.001)

    assert [event.reason for event in events.of(ConnectionClosed)] == ["reset_failed"]
    gc.collect()
    assert complaints == []
    await close_whole(pool)


async def test_the_snapshot_of_a_task_cancelled_while_it_read_row_by_row_is_gone(tmp_path: Path) -> None:
    database = Database(tmp_path)
    pool, events = database.pool(2)
    reading = asyncio.Event()

    async def reader() -> None:
        async with pool.connection() as connection, connection.execute("SELECT * FROM big") as cursor:
            async for _ in cursor:
                reading.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(reader())
    await reading.wait()
    await give_up(task)

    async with pool.connection() as first, pool.connection() as second:
        await second.execute(INSERT, (1,))
        await second.commit()
        assert await first.execute_fetchall("SELECT owner FROM entries") == [(1,)]
    assert events.of(ConnectionClosed) == []
    await close_whole(pool)


async def test_the_snapshot_of_rows_that_could_not_be_read_is_gone(tmp_path: Path) -> None:
    """Not a cancellation but its twin: a statement left in the middle, by an error that somebody keeps."""
    database = Database(tmp_path)
    pool, _ = database.pool(2)
    async with pool.connection() as connection:
        with pytest.raises(aiosqlite.OperationalError, match="decode") as raised:
            await connection.execute_fetchall("SELECT CAST(x'ff' AS TEXT) FROM big")
    assert raised.value.__traceback__ is not None

    async with pool.connection() as first, pool.connection() as second:
        await first.execute_fetchall("SELECT owner FROM entries")
        await second.execute(INSERT, (1,))
        await second.commit()
        assert await first.execute_fetchall("SELECT owner FROM entries") == [(1,)]
    await close_whole(pool)


async def test_a_statement_started_in_the_block_and_run_after_it_is_refused(tmp_path: Path) -> None:
    database = Database(tmp_path)
    pool, _ = database.pool()
    async with pool.connection() as connection:
        stray = asyncio.create_task(connection.execute(INSERT, (1,)).__aenter__())

    with pytest.raises(PoolUsageError):
        await stray
    assert await kept(pool) == []
    await close_whole(pool)


async def test_a_statement_started_in_the_block_does_not_run_in_the_next_borrowers(tmp_path: Path) -> None:
    database = Database(tmp_path)
    pool, _ = database.pool()
    await kept(pool)
    go = asyncio.Event()
    strays: list[asyncio.Task[Any]] = []

    async def next_borrower() -> None:
        await go.wait()
        async with pool.connection() as connection:
            await connection.execute(INSERT, (2,))
            await connection.commit()

    following = asyncio.create_task(next_borrower())
    await settle()
    async with pool.connection() as connection:
        go.set()  # the next borrower runs before the stray statement does, and finds the connection idle
        strays.append(asyncio.create_task(connection.execute(INSERT, (1,)).__aenter__()))
    await following
    await asyncio.wait(strays)

    assert await kept(pool) == [2]
    assert isinstance(strays[0].exception(), PoolUsageError)
    await close_whole(pool)


# -- the next borrower


async def in_a_busy_wait(database: Database, connection: aiosqlite.Connection) -> None:
    await connection.set_trace_callback(lambda sql: database.tell() if "INSERT" in sql else None)
    await connection.execute(INSERT, (1,))


async def in_a_select(database: Database, connection: aiosqlite.Connection) -> None:
    await connection.execute(ENDLESS)


async def in_an_insert(database: Database, connection: aiosqlite.Connection) -> None:
    await connection.execute(ENDLESS_WRITE)


async def in_a_transaction(database: Database, connection: aiosqlite.Connection) -> None:
    await connection.execute(INSERT, (1,))
    await connection.execute(ENDLESS)


async def in_a_half_read_cursor(database: Database, connection: aiosqlite.Connection) -> None:
    cursor = await connection.execute("SELECT * FROM big")
    await cursor.fetchmany(3)
    await connection.execute(ENDLESS)


async def in_a_python_function(database: Database, connection: aiosqlite.Connection) -> None:
    await connection.execute("SELECT gate()")


@pytest.mark.parametrize(
    "where",
    [in_a_select, in_an_insert, in_a_transaction, in_a_half_read_cursor, in_a_python_function, in_a_busy_wait],
)
async def test_the_next_borrower_neither_waits_for_a_cancelled_statement_nor_sees_anything_of_it(
    where: Callable[[Database, aiosqlite.Connection], Awaitable[None]], tmp_path: Path
) -> None:
    database = Database(tmp_path)
    with nothing_left_behind():
        pool, _ = database.pool()
        other = await factory(database.path)()
        await other.execute(INSERT, (7,))
        if where is in_a_busy_wait:
            await other.execute("SELECT * FROM entries")  # the write lock stays taken
        else:
            await other.commit()

        async def caller() -> None:
            async with pool.connection() as connection:
                await where(database, connection)

        # Were they waited for, all of them would take a minute.
        async with asyncio.timeout(PATIENCE):
            await give_up(await start(database, caller()))
            async with pool.connection() as connection:
                assert not connection.in_transaction
                await other.commit()
                assert await connection.execute_fetchall("SELECT owner FROM entries") == [(7,)]
                await connection.execute(INSERT, (8,))
                await connection.commit()
        database.open_gate()
        await other.close()
        assert await kept(pool) == [7, 8]
        await close_whole(pool)


# -- reset


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_release_cancelled_while_its_reset_runs_loses_nothing(times: int, tmp_path: Path) -> None:
    database = Database(tmp_path)
    pool, events = database.pool()
    connection = await pool.acquire()
    await connection.execute(INSERT, (1,))
    statement = await start(database, connection.execute("SELECT gate()").__aenter__())
    release = asyncio.create_task(pool.release(connection))
    await settle()
    for _ in range(times):
        release.cancel()
        await turns(1)
    assert release.cancelled()
    assert (pool.stats().used, pool.holders()) == (1, ())  # being reset, and nobody's
    following = asyncio.create_task(kept(pool))
    await settle()

    database.open_gate()

    assert await following == []
    await asyncio.wait({statement})
    assert [event.cause for event in events.of(RolledBackOnReturn)] == ["in_flight"]
    assert events.of(ConnectionClosed) == []
    await close_whole(pool)


@pytest.mark.usefixtures("patient")
async def test_a_task_cancelled_in_its_statement_and_again_in_the_reset_that_follows_loses_nothing(
    tmp_path: Path,
) -> None:
    database = Database(tmp_path)
    pool, events = database.pool()

    async def caller() -> None:
        async with pool.connection() as connection:
            await connection.execute(INSERT, (1,))
            await connection.execute("SELECT gate()")

    task = await start(database, caller())
    task.cancel()
    await settle()
    assert not task.done()  # it waits for the reset
    await give_up(task)
    database.open_gate()

    assert await kept(pool) == []
    assert events.of(ConnectionClosed) == []
    await close_whole(pool)


async def test_a_connection_that_cannot_be_reset_after_a_cancelled_release_is_replaced(tmp_path: Path) -> None:
    database = Database(tmp_path)
    with nothing_left_behind():
        pool, events = database.pool()
        connection = await pool.acquire()
        statement = await start(database, connection.execute("SELECT gate()").__aenter__())
        release = asyncio.create_task(pool.release(connection))
        await turns(2)  # the reset has begun, and can have ended in none of them
        await give_up(release)

        assert await kept(pool) == []  # of a connection that is not held up in the gate

        database.open_gate()
        await asyncio.wait({statement})
        await close_whole(pool)
        assert [event.reason for event in events.of(ConnectionClosed)] == ["reset_failed", "pool_closed"]


# -- release of a driver of which nothing is known


async def test_a_rollback_goes_on_when_its_release_is_cancelled_and_is_not_begun_again() -> None:
    rolled_back = asyncio.Event()
    interrupted: list[BaseException] = []

    async def rolls_back(_: StubConnection) -> None:
        try:
            await rolled_back.wait()
        except asyncio.CancelledError as error:
            interrupted.append(error)

    driver = StubDriver(on_rollback=rolls_back)
    pool, events = pool_of(driver)
    connection = await pool.acquire()
    release = asyncio.create_task(pool.release(connection))
    await settle()
    release.cancel()
    await turns(1)
    assert release.cancelled()  # at once: it does not wait for the rollback
    following = asyncio.create_task(borrow(pool))
    await settle()
    assert (pool.stats().used, pool.stats().idle, pool.stats().waiting) == (1, 0, 1)

    rolled_back.set()
    await following

    assert connection.rollbacks == 2  # one for each lease
    assert (pool.stats().idle, interrupted, events.of(ConnectionClosed)) == (1, [], [])
    await close_whole(pool)


@pytest.mark.parametrize("after", TURNS)
async def test_a_release_cancelled_around_the_end_of_its_rollback_serves_the_next(after: int) -> None:
    rolled_back = asyncio.Event()
    driver = StubDriver(on_rollback=waits_for(rolled_back))
    pool, events = pool_of(driver)
    connection = await pool.acquire()
    release = asyncio.create_task(pool.release(connection))
    following = asyncio.create_task(borrow(pool))
    await settle()

    rolled_back.set()
    await turns(after)
    release.cancel()
    await asyncio.wait({release, following})

    assert following.exception() is None
    assert len(events.of(ConnectionAcquired)) == len(events.of(ConnectionReleased)) == 2
    assert driver.open == 1
    await close_whole(pool)


async def test_a_block_cancelled_and_cancelled_again_while_it_rolls_back_loses_nothing() -> None:
    rolled_back = asyncio.Event()
    driver = StubDriver(on_rollback=waits_for(rolled_back))
    pool, _ = pool_of(driver)
    task = asyncio.create_task(borrow(pool, asyncio.Event()))
    await settle()
    task.cancel()
    await settle()
    assert not task.done()  # it rolls back

    await give_up(task)
    rolled_back.set()
    await settle()

    assert (pool.stats().used, pool.stats().idle) == (0, 1)
    await close_whole(pool)


async def test_a_rollback_that_fails_after_its_release_was_cancelled_costs_the_connection_only() -> None:
    rolled_back = asyncio.Event()

    async def fails_once(connection: StubConnection) -> None:
        await rolled_back.wait()
        if connection.number == 1:
            raise OSError("gone")

    driver = StubDriver(on_rollback=fails_once)
    pool, events = pool_of(driver)
    connection = await pool.acquire()
    release = asyncio.create_task(pool.release(connection))
    await settle()

    await give_up(release)
    rolled_back.set()
    await settle()

    assert [event.reason for event in events.of(ConnectionClosed)] == ["reset_failed"]
    await assert_whole(pool)
    assert (driver.attempts, driver.open) == (2, 1)
    await pool.close()


@timeless
async def test_a_rollback_that_hangs_after_its_release_was_cancelled_gives_its_place_back() -> None:
    async def hangs_once(connection: StubConnection) -> None:
        if connection.number == 1:
            await hangs()

    driver = StubDriver(on_rollback=hangs_once)
    pool, events = pool_of(driver, operation_timeout=3, clock=asyncio.get_running_loop().time)
    connection = await pool.acquire()
    release = asyncio.create_task(pool.release(connection))
    await settle()

    await give_up(release)
    await borrow(pool)  # ends only if the hanging rollback is given up
    await settle()

    assert [event.reason for event in events.of(ConnectionClosed)] == ["reset_failed"]
    await close_whole(pool)


async def test_a_driver_whose_rollback_raises_a_cancellation_by_itself_costs_the_connection_only() -> None:
    """As one does that awaits an inner future which was cancelled with the statement before."""

    async def cancelled_once(connection: StubConnection) -> None:
        if connection.number == 1:
            raise asyncio.CancelledError

    driver = StubDriver(on_rollback=cancelled_once)
    pool, events = pool_of(driver)
    connection = await pool.acquire()

    with contextlib.suppress(asyncio.CancelledError):
        await pool.release(connection)
    await settle()

    assert pool.stats().used == 0
    assert len(events.of(ConnectionReleased)) == 1
    await close_whole(pool)


# -- close


async def test_a_cancelled_close_goes_on_until_the_last_connection_is_back() -> None:
    driver = StubDriver()
    pool, events = pool_of(driver, 2)
    held = await pool.acquire()
    closing = asyncio.create_task(pool.close())
    await settle()

    await give_up(closing)
    assert pool.stats().state == "closing"
    with pytest.raises(PoolClosedError):
        await pool.acquire()
    await pool.release(held)
    await settle()

    assert (pool.stats().state, driver.open) == ("closed", 0)
    assert [event.abandoned for event in events.of(PoolClosed)] == [0]
    assert [event.reason for event in events.of(ConnectionClosed)] == ["pool_closed"]
    check_slots(pool._inventory.slots)


async def test_a_close_awaits_the_end_of_one_that_was_cancelled() -> None:
    driver = StubDriver()
    pool, events = pool_of(driver)
    held = await pool.acquire()
    first = asyncio.create_task(pool.close())
    await settle()
    await give_up(first)
    second = asyncio.create_task(pool.close())
    await settle()
    assert not second.done()

    await pool.release(held)
    await second

    assert (pool.stats().state, driver.open) == ("closed", 0)
    assert len(events.of(PoolClosed)) == 1


async def test_a_close_cancelled_while_a_connection_closes_goes_on() -> None:
    closed = asyncio.Event()
    driver = StubDriver(on_close=waits_for(closed))
    pool, events = pool_of(driver)
    await borrow(pool)
    closing = asyncio.create_task(pool.close())
    await settle()
    assert driver.connections[0].closed == 1

    await give_up(closing)
    assert events.of(PoolClosed) == []
    closed.set()
    await settle()

    assert pool.stats().state == "closed"
    assert [event.reason for event in events.of(ConnectionClosed)] == ["pool_closed"]


@pytest.mark.parametrize("after", TURNS)
async def test_a_close_cancelled_at_any_turn_of_the_loop_closes(after: int) -> None:
    driver = StubDriver()
    pool, events = pool_of(driver, 2)
    await borrow(pool)
    closing = asyncio.create_task(pool.close())
    await turns(after)
    closing.cancel()
    await asyncio.wait({closing})

    await pool.close()

    assert (pool.stats().state, driver.open) == ("closed", 0)
    assert len(events.of(PoolClosed)) == (1 if driver.attempts and "pool_close" in events.names else 0)


async def test_a_caller_cancelled_while_its_connection_opens_into_a_closing_pool_leaves_nothing_open() -> None:
    connected = asyncio.Event()
    driver = StubDriver()
    driver.on_connect = waits_for(connected)
    pool, events = pool_of(driver)
    caller = asyncio.create_task(pool.acquire())
    await settle()
    await give_up(caller)
    closing = asyncio.create_task(pool.close())
    await settle()
    connected.set()
    await closing

    assert driver.open == 0
    assert [event.reason for event in events.of(ConnectionClosed)] == ["pool_closed"]
    check_slots(pool._inventory.slots)


async def test_a_holder_that_gives_back_what_close_took_from_under_it_is_not_blamed() -> None:
    closed = asyncio.Event()
    driver = StubDriver(on_close=waits_for(closed))
    pool, events = pool_of(driver)
    held = await pool.acquire()
    # The task is made inside: filters of warnings may belong to a context.
    with pytest.warns(ResourceWarning, match="under their holders"):
        closing = asyncio.create_task(pool.close(timeout=0))
        while not held.closed:
            await asyncio.sleep(0)

        await pool.release(held)

        closed.set()
        await closing
    assert [event.abandoned for event in events.of(PoolClosed)] == [1]


async def test_close_does_not_wait_for_a_statement_longer_than_it_was_told_to(tmp_path: Path) -> None:
    database = Database(tmp_path)
    with nothing_left_behind():
        pool, events = database.pool()

        async def caller() -> None:
            async with pool.connection() as connection:
                await connection.execute(ENDLESS)

        task = await start(database, caller())
        with pytest.warns(ResourceWarning, match="under their holders"):
            async with asyncio.timeout(PATIENCE):
                await pool.close(timeout=0.1)

        with pytest.raises(aiosqlite.OperationalError, match="interrupted"):
            await task
        assert [event.abandoned for event in events.of(PoolClosed)] == [1]
        assert [event.reason for event in events.of(ConnectionClosed)] == ["pool_closed"]
        check_slots(pool._inventory.slots)
