from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import Any

import pytest

from aiosqlitepool import PoolUsageError, SQLiteConnectionPool
from aiosqlitepool.events import ConnectionAcquired, ConnectionClosed, ConnectionReleased
from aiosqlitepool.testing import Recorder

from ..support.pools import immediately, pool_of, queued, runs
from ..support.stub import StubConnection, StubDriver, fails, hangs, settle, waits_for
from ..support.timeless import about, takes, timeless


@timeless
async def test_a_connection_is_rolled_back_on_every_return(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        for count in (1, 2, 3):
            async with pool.connection() as connection:
                pass
            assert connection.rollbacks == count


@pytest.mark.usefixtures("clean_releases")
@timeless
async def test_a_return_with_nothing_to_wait_for_does_not_wait(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        connection = await pool.acquire()
        immediately(pool.release(connection))
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_a_connection_is_lent_again_only_when_it_has_been_rolled_back(driver: StubDriver) -> None:
    reset = asyncio.Event()
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        held.on_rollback = waits_for(reset)
        release = asyncio.create_task(pool.release(held))
        waiter = await queued(pool)
        assert await runs(release)
        assert await runs(waiter)
        reset.set()
        await release
        assert await waiter is held
        await pool.release(held)


# -- what cannot be reset


@timeless
async def test_a_connection_whose_rollback_fails_is_closed_and_its_place_can_be_lent(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, 1, subscribers=[recorder]) as pool:
        held = await pool.acquire()
        await asyncio.sleep(4)
        held.on_rollback = fails(OSError("disk I/O error"))
        await pool.release(held)
        await settle()
        assert (pool.stats().used, pool.stats().idle, held.closed) == (0, 0, 1)
        (event,) = recorder.of(ConnectionClosed)
        assert (event.connection, event.reason, event.age) == (1, "reset_failed", about(4))
        async with pool.connection() as connection:
            assert connection is driver.connections[1]


@timeless
async def test_a_rollback_that_fails_later_counts_as_well(driver: StubDriver, recorder: Recorder) -> None:
    async def fail(connection: StubConnection) -> None:
        await asyncio.sleep(1)
        raise OSError("disk I/O error")

    async with pool_of(driver, 1, subscribers=[recorder]) as pool:
        held = await pool.acquire()
        held.on_rollback = fail
        await pool.release(held)
        await settle()
        assert (held.closed, pool.stats().used) == (1, 0)
        assert [event.reason for event in recorder.of(ConnectionClosed)] == ["reset_failed"]


@timeless
async def test_an_error_of_the_rollback_is_not_the_callers_problem_but_is_logged(
    driver: StubDriver, caplog: pytest.LogCaptureFixture
) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        held.on_rollback = fails(OSError("disk I/O error"))
        await pool.release(held)
    assert "could not be reset and is replaced" in caplog.text
    assert "disk I/O error" in caplog.text


@timeless
async def test_a_rollback_that_hangs_is_given_up_after_the_operation_timeout(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, 1, operation_timeout=3, subscribers=[recorder]) as pool:
        held = await pool.acquire()
        held.on_rollback = hangs
        with takes(3):
            await pool.release(held)
        await settle()
        assert (held.closed, pool.stats().used) == (1, 0)
        assert [event.reason for event in recorder.of(ConnectionClosed)] == ["reset_failed"]


@timeless
async def test_a_waiter_opens_a_new_connection_in_the_place_of_one_that_cannot_be_reset(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        waiter = await queued(pool)
        held.on_rollback = fails(OSError("broken"))
        await pool.release(held)
        assert await waiter is driver.connections[1]
        await pool.release(driver.connections[1])


@timeless
async def test_a_slow_close_delays_nobody(driver: StubDriver) -> None:
    closed = asyncio.Event()
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        held.on_rollback, held.on_close = fails(OSError("broken")), waits_for(closed)
        await pool.release(held)
        async with pool.connection() as connection:
            assert connection is driver.connections[1]
        closed.set()


# -- cancellation


@timeless
async def test_a_release_that_is_cancelled_still_gives_the_connection_back(driver: StubDriver) -> None:
    reset = asyncio.Event()
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        held.on_rollback = waits_for(reset)
        release = asyncio.create_task(pool.release(held))
        await settle()
        release.cancel()
        await settle()
        assert release.cancelled()
        assert pool.stats().used == 1
        reset.set()
        await settle()
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_a_block_that_is_cancelled_twice_still_gives_the_connection_back(driver: StubDriver) -> None:
    reset = asyncio.Event()

    async def work() -> None:
        async with pool.connection() as connection:
            connection.on_rollback = waits_for(reset)
            await asyncio.Event().wait()

    async with pool_of(driver, 1) as pool:
        task = asyncio.create_task(work())
        await settle()
        task.cancel()
        await settle()
        task.cancel()
        await settle()
        assert task.cancelled()
        reset.set()
        async with pool.connection() as connection:
            assert connection is driver.connections[0]


@pytest.mark.parametrize("factory", {None, getattr(asyncio, "eager_task_factory", None)})  # from Python 3.12
def test_ctrl_c_in_a_rollback_ends_the_loop_and_still_gives_the_slot_back(driver: StubDriver, factory: Any) -> None:
    """asyncio raises a KeyboardInterrupt of any task from `run_forever()`; a program may run the loop again."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(factory)
    pool = SQLiteConnectionPool(driver, 1, name="app.db")
    held = loop.run_until_complete(pool.acquire())
    held.on_rollback = fails(KeyboardInterrupt())
    release = loop.create_task(pool.release(held))
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(release)
    loop.run_until_complete(release)
    assert (pool.stats().used, pool.stats().idle) == (0, 0)
    loop.run_until_complete(pool.close())
    loop.close()
    assert driver.open == 0


@timeless
async def test_a_reset_that_hangs_after_its_release_was_cancelled_is_bounded_too(driver: StubDriver) -> None:
    async with pool_of(driver, 1, operation_timeout=3) as pool:
        held = await pool.acquire()
        held.on_rollback = hangs
        release = asyncio.create_task(pool.release(held))
        await settle()
        release.cancel()
        await asyncio.sleep(4)
        assert (pool.stats().used, held.closed) == (0, 1)


@timeless
async def test_a_driver_whose_rollback_cancels_itself_costs_the_connection_and_does_not_cancel_the_release(
    driver: StubDriver,
) -> None:
    async with pool_of(driver, 1) as pool:
        async with pool.connection() as connection:
            connection.on_rollback = fails(asyncio.CancelledError())
        await settle()
        assert (pool.stats().used, pool.stats().idle, connection.closed) == (0, 0, 1)


def test_a_loop_that_closes_around_a_rollback_leaves_no_mess_and_a_pool_that_can_be_closed(
    driver: StubDriver, recorder: Recorder
) -> None:
    async def work() -> None:
        async with pool.connection() as connection:
            connection.on_rollback = hangs

    pool = SQLiteConnectionPool(driver, 1, name="app.db", subscribers=[recorder])
    loop = asyncio.new_event_loop()
    loop.set_task_factory(None)  # it counts the turns of the loop
    task = loop.create_task(work())
    loop.run_until_complete(settle())
    loop.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # that the test left its task is not the pool's doing
    del task
    gc.collect()  # whatever it leaves behind, an unawaited coroutine or an exception nobody sees, fails the test
    asyncio.run(pool.close())
    assert [event.reason for event in recorder.of(ConnectionClosed)] == ["pool_closed"]
    assert recorder.names[-1] == "pool_close"


# -- misuse


@timeless
async def test_releasing_twice_is_an_error_that_takes_nothing_from_anybody(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        await pool.release(held)
        with pytest.raises(PoolUsageError, match="released twice, or not its own"):
            await pool.release(held)
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_releasing_a_connection_of_another_pool_is_an_error(driver: StubDriver) -> None:
    async with pool_of(driver, name="one") as one, pool_of(driver, name="two") as two, one.connection() as connection:
        with pytest.raises(PoolUsageError, match="'two'"):
            await two.release(connection)
        assert one.stats().used == 1


@timeless
async def test_releasing_something_else_is_an_error(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        with pytest.raises(PoolUsageError, match="None"):
            await pool.release(None)  # type: ignore[arg-type]


@timeless
async def test_another_task_may_release(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        await asyncio.create_task(pool.release(await pool.acquire()))
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


# -- what it tells


@pytest.mark.usefixtures("clean_releases")
@timeless
async def test_a_release_is_told_with_the_time_of_use(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, subscribers=[recorder]) as pool:
        async with pool.connection(label="GET /users"):
            await asyncio.sleep(2)
        (event,) = recorder.of(ConnectionReleased)
        assert (event.connection, event.label, event.needs_reset) == (1, "GET /users", False)
        assert event.use_time == about(2)


@timeless
async def test_a_release_is_told_with_the_context_of_its_acquire(driver: StubDriver, recorder: Recorder) -> None:
    span: contextvars.ContextVar[str] = contextvars.ContextVar("span")

    async def acquire() -> Any:
        span.set("the acquiring span")
        return await pool.acquire()

    async with pool_of(driver, subscribers=[recorder]) as pool:
        connection = await asyncio.create_task(acquire())
        await pool.release(connection)
        (event,) = recorder.of(ConnectionReleased)
        assert event.context is not None
        assert event.context[span] == "the acquiring span"


@pytest.mark.usefixtures("clean_releases")
@timeless
async def test_a_release_is_told_after_the_connection_is_back_and_before_the_next_acquire(driver: StubDriver) -> None:
    told: list[tuple[str, int, int]] = []

    def look(event: ConnectionAcquired | ConnectionReleased) -> None:
        told.append((event.name, pool.stats().used, pool.stats().idle))

    async with pool_of(driver, 1) as pool:
        pool.events.subscribe(ConnectionAcquired, look)
        pool.events.subscribe(ConnectionReleased, look)
        held = await pool.acquire()
        waiter = await queued(pool)
        await pool.release(held)
        await pool.release(await waiter)
    assert told == [("acquire_wait", 1, 0), ("release", 1, 0), ("acquire_wait", 1, 0), ("release", 0, 1)]


@timeless
async def test_a_release_that_waits_is_told_as_one_that_needed_a_reset(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            connection.on_rollback = lambda _: asyncio.sleep(1)
        assert [event.needs_reset for event in recorder.of(ConnectionReleased)] == [True]
