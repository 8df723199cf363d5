from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import ConnectionBrokenError, SQLiteConnectionPool
from aiosqlitepool.driver import AiosqliteAdapter
from aiosqlitepool.driver.worker import INTERRUPT_PATIENCE, Interrupts, interrupt_until_exit

from ..support.stub import settle
from ..support.worker import ENDLESS, adapter_of, began, busy_worker, end_worker, until_workers_are, workers

# For waits that must end; only a hang reaches it.
PATIENCE = 60

INTERRUPTER = "aiosqlitepool-exit"


def threads() -> set[str]:
    return {each.name for each in threading.enumerate()}


@pytest.fixture
async def connection(database: Path) -> AsyncIterator[aiosqlite.Connection]:
    """A handle of a pool that has lent its only connection."""
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool, pool.connection() as lent:
        yield lent


@pytest.fixture
def worker(connection: aiosqlite.Connection) -> AiosqliteAdapter:
    return adapter_of(connection)


# -- jobs


async def test_a_job_returns_what_its_function_does_and_raises_what_it_raises(worker: AiosqliteAdapter) -> None:
    def fail() -> None:
        raise KeyError("k")

    assert await worker.post(lambda: threading.current_thread()) is worker._thread
    with pytest.raises(KeyError, match="k"):
        await worker.post(fail)


async def test_the_error_of_a_job_whose_caller_was_cancelled_is_not_logged(
    worker: AiosqliteAdapter, connection: aiosqlite.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise KeyError("k")

    with busy_worker(connection) as wake_up:
        done = worker.post(fail)
        wake_up()
        await asyncio.wait({done})
    del done
    assert caplog.text == ""


# -- the end of the thread


async def test_closing_waits_until_the_thread_has_ended(worker: AiosqliteAdapter) -> None:
    await worker.close()
    assert not worker._thread.is_alive()
    with pytest.raises(ConnectionBrokenError, match="closed or its worker thread is dead"):
        worker.check_alive()


async def test_closing_what_a_holder_has_stopped_interrupts_it_and_waits_too(
    worker: AiosqliteAdapter, connection: aiosqlite.Connection
) -> None:
    running = await began(connection)
    endless = asyncio.create_task(connection.execute(ENDLESS))
    await asyncio.wait_for(running.wait(), PATIENCE)
    connection.stop()
    await asyncio.wait_for(worker.close(), PATIENCE)
    assert not worker._thread.is_alive()
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await endless


async def test_closing_a_worker_that_is_dead_ends_at_once(
    worker: AiosqliteAdapter, connection: aiosqlite.Connection
) -> None:
    end_worker(connection)
    await asyncio.wait_for(worker.close(), PATIENCE)
    assert not worker.is_alive


async def test_an_abandoned_worker_ends_by_itself(worker: AiosqliteAdapter) -> None:
    worker.abandon()
    await until_workers_are(0)
    assert INTERRUPTER not in threads()


async def test_an_abandoned_worker_is_interrupted_until_it_ends(
    worker: AiosqliteAdapter, connection: aiosqlite.Connection
) -> None:
    running = await began(connection)
    endless = asyncio.create_task(connection.execute(ENDLESS))
    await asyncio.wait_for(running.wait(), PATIENCE)
    worker.abandon()
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await asyncio.wait_for(endless, PATIENCE)
    await until_workers_are(0)


async def test_a_worker_can_be_abandoned_in_any_thread(worker: AiosqliteAdapter) -> None:
    collector = threading.Thread(target=worker.abandon)
    collector.start()
    collector.join(PATIENCE)
    await until_workers_are(0)


def test_a_worker_can_be_abandoned_after_its_loop_was_closed(database: Path) -> None:
    adapters: list[AiosqliteAdapter] = []
    statements: list[asyncio.Future[Any]] = []

    async def leave_open() -> None:
        pool = SQLiteConnectionPool(lambda: aiosqlite.connect(database))
        connection = await pool.acquire()
        running = await began(connection)
        # Cancelled by the end of the loop; the worker goes on.
        adapters.append(adapter_of(connection))
        statements.append(asyncio.ensure_future(connection.execute(ENDLESS)))
        await running.wait()
        pools.append(pool)

    pools: list[SQLiteConnectionPool] = []
    asyncio.run(leave_open())
    adapters[0].abandon()
    adapters[0]._thread.join(PATIENCE)
    assert workers() == 0
    asyncio.run(pools[0].close())


async def test_a_worker_that_has_ended_is_not_interrupted(
    worker: AiosqliteAdapter, connection: aiosqlite.Connection
) -> None:
    await connection.close()
    worker._thread.join(PATIENCE)  # from Python 3.13, a thread leaves the list of threads before it is no longer alive
    interrupt_until_exit(worker._thread, worker.interrupts)
    assert INTERRUPTER not in threads()


async def test_interrupting_until_the_exit_returns_at_once_and_ends_with_the_worker(
    worker: AiosqliteAdapter, connection: aiosqlite.Connection
) -> None:
    with busy_worker(connection):
        before = time.monotonic()
        interrupt_until_exit(worker._thread, worker.interrupts)
        assert time.monotonic() - before < PATIENCE / 2
        assert INTERRUPTER in threads()
    await worker.close()
    async with asyncio.timeout(PATIENCE):
        while INTERRUPTER in threads():
            await asyncio.sleep(0.001)


# -- interrupts beside the closing


class Native(sqlite3.Connection):
    """Notes when it is interrupted and closed; `while_interrupted` runs inside an interrupt."""

    def __init__(self) -> None:
        super().__init__(":memory:", check_same_thread=False)
        self.log: list[str] = []
        self.while_interrupted: Callable[[], object] = lambda: None

    def interrupt(self) -> None:
        self.log.append("interrupt begins")
        self.while_interrupted()
        super().interrupt()
        self.log.append("interrupt ends")

    def close(self) -> None:
        self.log.append("close")
        super().close()


def test_a_connection_is_closed_only_after_an_interrupt_that_is_being_sent() -> None:
    native = Native()
    interrupts = Interrupts(native)
    closer = threading.Thread(target=interrupts.close_connection)

    def close_meanwhile() -> None:
        closer.start()
        closer.join(0.05)  # time enough for a close that does not wait

    native.while_interrupted = close_meanwhile
    interrupts.send()
    closer.join(PATIENCE)
    assert native.log == ["interrupt begins", "interrupt ends", "close"]


def test_a_connection_that_closes_is_not_interrupted() -> None:
    native = Native()
    interrupts = Interrupts(native)
    interrupts.close_connection()
    interrupts.send()
    assert native.log == ["close"]


def test_an_interrupt_inside_an_interrupt_of_the_same_thread_is_sent() -> None:
    """As from a signal's handler, or when the garbage collector runs there."""
    native = Native()
    interrupts = Interrupts(native)

    def interrupt_once_more() -> None:
        native.while_interrupted = lambda: None
        interrupts.send()

    native.while_interrupted = interrupt_once_more
    interrupts.send()
    assert native.log == 2 * ["interrupt begins"] + 2 * ["interrupt ends"]
    interrupts.close_connection()


def test_a_connection_that_was_closed_behind_the_pools_back_can_be_interrupted() -> None:
    native = sqlite3.connect(":memory:")
    interrupts = Interrupts(native)
    native.close()
    interrupts.send()
    with pytest.raises(sqlite3.ProgrammingError):
        native.interrupt()


async def test_closing_beside_interrupts_from_another_thread_crashes_nothing(database: Path) -> None:
    """Without the GIL, plain sqlite3 crashes here."""
    ended = threading.Event()
    current: list[Interrupts] = []

    def interrupt() -> None:
        while not ended.is_set():
            for each in current[:]:
                each.send()

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        for _ in range(200):
            async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool:
                async with pool.connection() as lent:
                    current[:] = [adapter_of(lent).interrupts]
    finally:
        ended.set()
        interrupter.join(PATIENCE)
    assert not interrupter.is_alive()


def test_an_interrupted_statement_has_time_to_stop_on_a_busy_machine() -> None:
    """5 ms, for which one thread alone may keep the interpreter lock, replaced one healthy connection in five."""
    assert 10 * sys.getswitchinterval() <= INTERRUPT_PATIENCE


# -- counting


async def test_an_operation_that_was_sent_and_not_counted_costs_one_reset_only(database: Path) -> None:
    """As when a KeyboardInterrupt falls between the two: every later release would find something in flight."""
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool:
        async with pool.connection() as connection:
            await connection.execute_fetchall("SELECT 1")
            adapter_of(connection)._sent -= 1
        lease = pool.connection()
        await lease.__aenter__()
        await settle()
        leaving = lease.__aexit__(None, None, None)
        with pytest.raises(StopIteration):  # clean: it does not wait
            leaving.send(None)
