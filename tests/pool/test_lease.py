from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import (
    PoolClosedError,
    PoolConnectionAcquireTimeoutError,
    PoolFullError,
    PoolUsageError,
    SQLiteConnectionPool,
)
from aiosqlitepool.driver import StatementLog
from aiosqlitepool.events import AcquireTimedOut, ConnectionAcquired, ConnectionReleased, LeakSuspected
from aiosqlitepool.pool.lease import SharedLease
from aiosqlitepool.testing import Recorder

from ..support.databases import Hold, add, rows
from ..support.pools import pool_of, queued
from ..support.stub import StubDriver, settle
from ..support.timeless import takes, timeless


@timeless
async def test_a_driver_that_the_pool_does_not_know_is_lent_as_the_object_that_the_factory_returned(
    driver: StubDriver,
) -> None:
    async with pool_of(driver) as pool, pool.connection() as connection:
        assert connection is driver.connections[0]


@timeless
async def test_leaving_a_block_releases_the_connection(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        async with pool.connection():
            assert pool.stats().used == 1
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_an_error_in_a_block_passes_through_and_releases_the_connection(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.connection():
                raise ZeroDivisionError
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_a_cancellation_in_a_block_passes_through_and_releases_the_connection(driver: StubDriver) -> None:
    async def work() -> None:
        async with pool.connection():
            await asyncio.Event().wait()

    async with pool_of(driver) as pool:
        task = asyncio.create_task(work())
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_no_connection_is_acquired_before_the_block_is_entered(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        pool.connection()
        assert pool.stats().used == 0


@timeless
async def test_a_lease_cannot_be_entered_while_it_is_in_use(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        lease = pool.connection()
        async with lease:
            with pytest.raises(PoolUsageError, match="one block only"):
                await lease.__aenter__()
            assert pool.stats().used == 1
        assert pool.stats().used == 0


@timeless
async def test_a_lease_cannot_be_entered_while_it_waits(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        lease = pool.connection()
        waiting = asyncio.create_task(lease.__aenter__())
        await settle()
        second = asyncio.create_task(lease.__aenter__())
        await settle()
        await pool.release(held)
        await waiting
        with pytest.raises(PoolUsageError):
            await second
        await lease.__aexit__(None, None, None)
        assert pool.stats().used == 0


@timeless
async def test_a_lease_that_was_never_entered_cannot_be_left(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        with pytest.raises(PoolUsageError, match="holds no connection"):
            await pool.connection().__aexit__(None, None, None)


@timeless
async def test_a_lease_cannot_be_left_twice(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        lease = pool.connection()
        async with lease:
            pass
        with pytest.raises(PoolUsageError, match="holds no connection"):
            await lease.__aexit__(None, None, None)
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_a_block_whose_connection_was_released_early_raises_and_takes_nothing_from_the_next_holder(
    driver: StubDriver,
) -> None:
    async with pool_of(driver, 1) as pool:
        lease = pool.connection()
        await pool.release(await lease.__aenter__())
        other = (await queued(pool)).result()
        with pytest.raises(PoolUsageError, match="holds no connection"):
            await lease.__aexit__(None, None, None)
        assert (pool.stats().used, driver.connections[0].rollbacks) == (1, 1)
        await pool.release(other)


@timeless
async def test_one_task_may_hold_several_connections(driver: StubDriver) -> None:
    async with pool_of(driver, 2) as pool, pool.connection() as first, pool.connection() as second:
        assert first is not second
        assert pool.stats().used == 2


@timeless
async def test_another_task_may_leave_the_block(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        lease = pool.connection()
        await lease.__aenter__()
        await asyncio.create_task(lease.__aexit__(None, None, None))
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_a_lease_waits_as_long_as_it_was_asked_to(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=30) as pool:
        held = await pool.acquire()
        with takes(2), pytest.raises(PoolConnectionAcquireTimeoutError):
            async with pool.connection(timeout=2):
                pass
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire(timeout=0)
        await pool.release(held)


@timeless
@pytest.mark.parametrize("timeout", [-1, "5", True, float("nan")])
async def test_the_timeout_of_a_lease_must_be_a_number_of_seconds(driver: StubDriver, timeout: Any) -> None:
    async with pool_of(driver) as pool:
        with pytest.raises((TypeError, ValueError), match="timeout"):
            pool.connection(timeout=timeout)


# -- shared leases

Pool = SQLiteConnectionPool[aiosqlite.Connection]


@pytest.fixture(name="pool")
async def pool_of_one(database: Path, recorder: Recorder) -> AsyncIterator[Pool]:
    """A pool of one real connection."""
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, subscribers=[recorder]) as pool:
        yield pool


def shared(pool: Pool, label: str | None = None, timeout: float | None = None) -> SharedLease:
    return SharedLease(pool._acquirer, pool._releaser, label, timeout, StatementLog())


def function(
    pool: Pool, fn: Callable[[sqlite3.Connection], Any], label: str | None = None, timeout: float | None = None
) -> asyncio.Task[Any]:
    """Run a function with a shared lease, in a task of its own."""

    async def run() -> Any:
        async with shared(pool, label, timeout) as lease:
            return await lease.run(fn)

    return asyncio.create_task(run(), name=label)


def adds(text: str) -> Callable[[sqlite3.Connection], Any]:
    """A function that adds a note and commits it."""

    def fn(native: sqlite3.Connection) -> str:
        add(native, text)
        native.commit()
        return text

    return fn


@contextlib.asynccontextmanager
async def working(pool: Pool) -> AsyncIterator[Hold]:
    """The worker thread is in a function of a shared lease until it is let go."""
    with Hold() as hold:
        task = function(pool, hold, "working")
        await hold.reached.wait()
        yield hold
        hold.let_go()
        await task


async def test_functions_share_one_connection_and_run_in_the_order_of_their_callers(pool: Pool, database: Path) -> None:
    async with working(pool) as hold:
        tasks = [function(pool, adds(f"note {number}")) for number in range(5)]
        await settle()
        (slot,) = pool._inventory.slots.all
        assert (len(slot.sharing.requests), pool._inventory.slots.waiting) == (6, 0)
        hold.let_go()
        assert await asyncio.gather(*tasks) == rows(database)
    assert (pool.stats().used, pool.stats().idle, slot.sharing.requests) == (0, 1, {})


async def test_a_function_may_follow_another_of_the_same_lease(pool: Pool, database: Path) -> None:
    async with shared(pool) as lease:
        await lease.run(adds("first"))
        await lease.run(adds("second"))
    assert rows(database) == ["first", "second"]


async def test_functions_whose_connection_is_found_dead_keep_their_order(
    pool: Pool, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await pool.acquire()
    tasks = [function(pool, adds(str(number))) for number in range(3)]
    await settle()
    (slot,) = pool._inventory.slots.all
    assert slot.connection is not None
    adapter = slot.connection.adapter
    began, refusals = type(adapter).begin_lease, iter(tasks)

    def begin_lease(self: Any, lease: Any) -> Any:
        # As if the worker thread had ended, for the first three.
        return began(self, lease) if next(refusals, None) is None else None

    monkeypatch.setattr(type(adapter), "begin_lease", begin_lease)
    await pool.release(held)
    await asyncio.gather(*tasks)
    assert rows(database) == ["0", "1", "2"]


async def test_a_block_is_not_overtaken_by_functions_that_come_later(pool: Pool, database: Path) -> None:
    async with working(pool) as hold:
        before = function(pool, adds("before"))
        await settle()
        block = await queued(pool, "block")
        behind = [function(pool, adds("behind")), function(pool, adds("behind"))]
        await settle()
        hold.let_go()
        connection = await block
        assert before.done()
        assert rows(database) == ["before"]
        await connection.execute("INSERT INTO note (text) VALUES ('block')")
        await connection.commit()
        await pool.release(connection)
        await asyncio.gather(*behind)
        assert rows(database) == ["before", "block", "behind", "behind"]


async def test_a_function_that_fails_raises_in_its_own_caller_only(pool: Pool, database: Path) -> None:
    def fails_at_once(native: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    async with working(pool) as hold:
        first, second, third = (
            function(pool, adds("first")),
            function(pool, fails_at_once),
            function(pool, adds("third")),
        )
        await settle()
        hold.let_go()
        with pytest.raises(ZeroDivisionError):
            await second
        await asyncio.gather(first, third)
    assert rows(database) == ["first", "third"]
    assert (pool.stats().used, pool.stats().idle) == (0, 1)


async def test_after_a_function_that_failed_others_wait_until_the_connection_was_reset(
    pool: Pool, database: Path
) -> None:
    def leaves_a_transaction_open(native: sqlite3.Connection) -> None:
        add(native, "lost")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await function(pool, leaves_a_transaction_open)
    await function(pool, adds("kept"))
    assert rows(database) == ["kept"]


async def test_a_cancelled_function_that_has_not_begun_never_runs(pool: Pool, database: Path) -> None:
    async with working(pool) as hold:
        first, second = function(pool, adds("first")), function(pool, adds("second"))
        await settle()
        first.cancel()
        await asyncio.wait({first}, timeout=60)
        assert first.cancelled()
        hold.let_go()
        await second
    assert rows(database) == ["second"]
    assert (pool.stats().used, pool.stats().idle) == (0, 1)


async def test_a_cancelled_function_that_runs_is_waited_for(pool: Pool) -> None:
    with Hold() as hold:
        task = function(pool, hold)
        await hold.reached.wait()
        task.cancel()
        await settle()
        assert not task.done()
        hold.let_go()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with pool.connection():
        assert pool.stats().used == 1


@pytest.mark.parametrize("join", [True, False], ids=["joined", "queued"])
async def test_a_function_that_has_not_begun_times_out(
    pool: Pool, database: Path, recorder: Recorder, join: bool
) -> None:
    async with working(pool) as hold:
        others = [] if join else [function(pool, adds("other")) for _ in range(8)]
        await settle()
        late = function(pool, adds("late"), "late", timeout=0.05)
        await asyncio.wait({late}, timeout=60)
        assert late.done(), "no timer was set for its deadline"
        error = late.exception()
        assert isinstance(error, PoolConnectionAcquireTimeoutError)
        assert "Working [working] has held connection 1" in str(error)
        (event,) = recorder.of(AcquireTimedOut)
        assert event.label == "late"
        hold.let_go()
        await asyncio.gather(*others)
    assert rows(database) == ["other"] * len(others)
    async with pool.connection():  # comes back in a task if the worker has not passed over the late function yet
        assert pool.stats().used == 1
    assert (pool.stats().used, pool.stats().idle) == (0, 1)


async def test_each_shared_lease_emits_its_acquire_and_its_release(pool: Pool, recorder: Recorder) -> None:
    async with working(pool) as hold:
        tasks = [function(pool, adds(label), label) for label in ("one", "two")]
        await settle()
        assert recorder.of(ConnectionAcquired) == []
        hold.let_go()
        await asyncio.gather(*tasks)
    assert sorted(str(event.label) for event in recorder.of(ConnectionAcquired)) == ["one", "two", "working"]
    assert sorted(str(event.label) for event in recorder.of(ConnectionReleased)) == ["one", "two", "working"]
    assert all(event.queue_time >= 0 for event in recorder.of(ConnectionAcquired))


async def test_functions_that_wait_for_the_worker_thread_are_waiters_and_the_one_that_runs_is_the_holder(
    pool: Pool,
) -> None:
    async with working(pool) as hold:
        tasks = [function(pool, adds(label), label) for label in ("one", "two")]
        await settle()
        assert [holder.label for holder in pool.holders()] == ["working"]
        assert [(waiter.task, waiter.label) for waiter in pool.waiters()] == [("one", "one"), ("two", "two")]
        assert pool.stats().waiting == 2
        hold.let_go()
        await asyncio.gather(*tasks)
    assert (pool.holders(), pool.waiters(), pool.stats().waiting) == ((), (), 0)


async def test_functions_that_have_not_begun_are_refused_when_the_pool_closes(
    database: Path, recorder: Recorder
) -> None:
    pool = SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, subscribers=[recorder])
    with Hold() as hold:
        running = function(pool, hold)
        await hold.reached.wait()
        behind = function(pool, adds("behind"))
        await settle()
        with pytest.warns(ResourceWarning, match="under their holders"):
            closing = asyncio.create_task(pool.close(timeout=0.05))
            await asyncio.wait({behind}, timeout=60)
            hold.let_go()
            await closing
        with pytest.raises(PoolClosedError):
            await behind
        await asyncio.wait({running}, timeout=60)
    assert rows(database) == []
    with pytest.raises(PoolClosedError):
        await function(pool, adds("too late"))


async def test_a_shared_lease_may_end_without_a_function(pool: Pool, recorder: Recorder) -> None:
    async with shared(pool):
        pass
    assert pool.stats().idle == 1
    assert not recorder.of(ConnectionReleased)


async def test_a_lease_that_runs_no_function_does_not_outlive_its_pool(pool: Pool) -> None:
    async with shared(pool):
        await pool.close(timeout=0)
        assert pool.stats().state == "closed"
    assert pool.stats().used == 0


def finds_it_locked(native: sqlite3.Connection) -> None:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    raise error


async def test_no_function_runs_before_one_that_has_to_run_again(pool: Pool, database: Path) -> None:
    async with shared(pool) as second:
        async with shared(pool) as first:
            with pytest.raises(sqlite3.OperationalError):
                await first.run(finds_it_locked)
            behind = [asyncio.create_task(second.run(adds("second"))), function(pool, adds("third"))]
            async with asyncio.timeout(60):
                while pool.stats().waiting < 2:
                    await asyncio.sleep(0)
            await first.run(adds("first"))
        await behind[0]
    await behind[1]
    assert rows(database) == ["first", "second", "third"]


async def test_a_function_that_fails_for_another_reason_holds_up_no_other(pool: Pool, database: Path) -> None:
    def breaks_a_rule(native: sqlite3.Connection) -> None:
        raise sqlite3.IntegrityError

    async with shared(pool) as first, shared(pool) as second:
        with pytest.raises(sqlite3.IntegrityError):
            await first.run(breaks_a_rule)
        await second.run(adds("second"))
    assert rows(database) == ["second"]


async def test_a_function_behind_one_that_has_to_run_again_is_refused_when_the_pool_closes(
    pool: Pool, database: Path
) -> None:
    async with shared(pool) as first, shared(pool) as second:
        with pytest.raises(sqlite3.OperationalError):
            await first.run(finds_it_locked)
        closing = asyncio.create_task(pool.close())
        await asyncio.sleep(0)
        with pytest.raises(PoolClosedError):
            await second.run(adds("never"))
    await closing
    assert rows(database) == []


async def test_a_function_has_its_idle_connection_checked_like_any_other_caller(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, health_check_after=0) as pool:
        for text in ("one", "two"):
            await function(pool, adds(text))
    assert rows(database) == ["one", "two"]


async def test_a_function_is_rejected_if_too_many_wait_already(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, max_waiting=1) as pool:
        async with working(pool) as hold:
            patient = function(pool, adds("patient"))
            await settle()
            with pytest.raises(PoolFullError):
                await function(pool, adds("rejected"))
            hold.let_go()
            await patient
    assert rows(database) == ["patient"]


async def test_a_lease_that_has_ended_is_not_reclaimed(pool: Pool, recorder: Recorder) -> None:
    lease = pool.connection()
    async with lease:
        pass
    pool._releaser._reclaim(lease)
    assert pool.stats().idle == 1
    assert not recorder.of(LeakSuspected)
