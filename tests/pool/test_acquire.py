from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import Any

import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError, PoolFullError, SQLiteConnectionPool
from aiosqlitepool.events import (
    AcquireCancelled,
    AcquireFailed,
    AcquireRejected,
    AcquireSlow,
    AcquireTimedOut,
    ConnectionAcquired,
    ConnectionCreated,
    ErrorInfo,
)
from aiosqlitepool.testing import Recorder

from ..support.pools import immediately, in_turn, pool_of, queued, runs
from ..support.stub import StubDriver, fails, hangs, settle, waits_for
from ..support.timeless import about, takes, timeless

# -- idle connections


@pytest.mark.usefixtures("clean_releases")
@timeless
async def test_an_idle_connection_is_lent_and_taken_back_without_a_single_await(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        await pool.release(await pool.acquire())
        connection = immediately(pool.acquire())
        immediately(pool.release(connection))
        assert len(driver.connections) == 1


@timeless
async def test_the_connection_used_last_is_lent_first_so_that_a_quiet_pool_can_shrink(driver: StubDriver) -> None:
    async with pool_of(driver, 3) as pool:
        first, second, third = [await pool.acquire() for _ in range(3)]
        for connection in (second, first, third):
            await pool.release(connection)
        assert await pool.acquire() is third
        assert await pool.acquire() is first
        assert await pool.acquire() is second
        for connection in (first, second, third):
            await pool.release(connection)


@timeless
async def test_connections_open_on_demand_up_to_pool_size(driver: StubDriver) -> None:
    async with pool_of(driver, 2) as pool:
        assert driver.attempts == 0
        held = [await pool.acquire(), await pool.acquire()]
        waiter = await queued(pool)
        assert await runs(waiter)
        assert driver.attempts == 2
        for connection in held:
            await pool.release(connection)
        await pool.release(await waiter)


@timeless
async def test_an_idle_connection_is_reused_before_another_is_opened(driver: StubDriver) -> None:
    async with pool_of(driver, 5) as pool:
        for _ in range(5):
            async with pool.connection():
                pass
        assert driver.attempts == 1


# -- fairness


@timeless
async def test_waiters_are_served_first_come_first_served(driver: StubDriver) -> None:
    order: list[int] = []

    async def caller(number: int) -> None:
        async with pool.connection():
            order.append(number)

    async with pool_of(driver, 1) as pool:
        async with pool.connection():
            tasks = [asyncio.create_task(caller(number)) for number in range(10)]
            await settle()
        await asyncio.gather(*tasks)
    assert order == list(range(10))


@timeless
async def test_a_newcomer_never_overtakes_a_waiter(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        waiter = await queued(pool)
        await pool.release(held)  # the waiter has been told, but has not run yet
        newcomer = asyncio.create_task(pool.acquire())
        assert await waiter is held
        assert await runs(newcomer)
        await pool.release(held)
        await pool.release(await newcomer)


@timeless
async def test_a_greedy_task_never_overtakes_five_waiters(driver: StubDriver) -> None:
    served: list[str] = []

    async def greedy() -> None:
        for _ in range(20):
            async with pool.connection():
                served.append("greedy")

    async def patient(number: int) -> None:
        async with pool.connection():
            served.append(f"patient {number}")

    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        waiters = [asyncio.create_task(patient(number)) for number in range(5)]
        await settle()
        glutton = asyncio.create_task(greedy())
        await settle()
        await pool.release(held)
        await asyncio.gather(glutton, *waiters)
    assert served == [*(f"patient {number}" for number in range(5)), *["greedy"] * 20]


@timeless
async def test_a_task_that_releases_and_acquires_in_a_loop_queues_behind_those_who_came_meanwhile(
    driver: StubDriver,
) -> None:
    served: list[str] = []

    async def caller(name: str) -> None:
        for _ in range(3):
            async with pool.connection():
                served.append(name)
                await asyncio.sleep(1)

    async with pool_of(driver, 1) as pool:
        await asyncio.gather(caller("a"), caller("b"), caller("c"))
    assert served == ["a", "b", "c"] * 3


@timeless
async def test_a_waiter_that_gave_up_is_passed_over(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        first, second = await in_turn(pool, 2)
        first.cancel()
        await settle()
        assert pool.stats().waiting == 1
        await pool.release(held)
        assert await second is held
        await pool.release(held)


# -- cancellation


@timeless
async def test_a_caller_cancelled_in_the_queue_leaves_it(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        pool.subscribe(recorder)
        waiter = await queued(pool, "GET /users")
        await asyncio.sleep(2)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        (event,) = recorder.of(AcquireCancelled)
        assert (event.wait_time, event.pending, event.label) == (about(2), 0, "GET /users")
        await pool.release(held)
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@pytest.mark.usefixtures("clean_releases")
@timeless
async def test_a_caller_cancelled_after_the_hand_over_passes_the_connection_on_to_the_next_waiter(
    driver: StubDriver,
) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        first, second = await in_turn(pool, 2)
        await pool.release(held)
        first.cancel()  # it owns the slot by now, and does not know
        assert await second is held
        assert first.cancelled()
        await pool.release(held)
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@pytest.mark.usefixtures("clean_releases")
@timeless
async def test_a_caller_cancelled_after_the_hand_over_with_nobody_behind_it_makes_the_connection_idle(
    driver: StubDriver,
) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        (waiter,) = await in_turn(pool, 1)
        await pool.release(held)
        waiter.cancel()
        await settle()
        assert waiter.cancelled()
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_a_caller_cancelled_before_the_hand_over_in_the_same_turn_does_not_get_the_connection(
    driver: StubDriver,
) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        first, second = await in_turn(pool, 2)
        first.cancel()
        await pool.release(held)
        assert await second is held
        assert first.cancelled()
        await pool.release(held)


@timeless
async def test_a_caller_cancelled_while_its_connection_opens_leaves_it_to_the_next_waiter(driver: StubDriver) -> None:
    opened = asyncio.Event()
    driver.on_connect = waits_for(opened)
    async with pool_of(driver, 1) as pool:
        first = await queued(pool)
        second = await queued(pool)
        first.cancel()
        await settle()
        opened.set()
        connection = await second
        assert driver.attempts == 1
        await pool.release(connection)


@timeless
async def test_a_caller_cancelled_while_its_connection_opens_leaves_it_to_the_idle_ones(driver: StubDriver) -> None:
    opened = asyncio.Event()
    driver.on_connect = waits_for(opened)
    async with pool_of(driver, 1) as pool:
        caller = await queued(pool)
        caller.cancel()
        await settle()
        assert (pool.stats().used, pool.stats().idle) == (1, 0)
        opened.set()
        await settle()
        assert (pool.stats().used, pool.stats().idle, driver.open) == (0, 1, 1)
    assert driver.open == 0


@timeless
async def test_a_caller_cancelled_just_as_its_connection_has_opened_does_not_lose_it(driver: StubDriver) -> None:
    opened = asyncio.Event()
    driver.on_connect = waits_for(opened)
    for turns in range(6):
        opened.clear()
        async with pool_of(driver, 1) as pool:
            caller = await queued(pool)
            opened.set()
            await settle(turns)
            caller.cancel()
            await settle()
            if not caller.cancelled():
                await pool.release(caller.result())
            assert (pool.stats().used, pool.stats().idle) == (0, 1)
        assert driver.open == 0


@timeless
async def test_a_caller_cancelled_just_as_its_connect_has_failed_loses_no_place(driver: StubDriver) -> None:
    opened = asyncio.Event()

    async def connect() -> None:
        await opened.wait()
        raise OSError("no")

    driver.on_connect = connect
    for turns in range(6):
        opened.clear()
        async with pool_of(driver, 1) as pool:
            caller = await queued(pool)
            opened.set()
            await settle(turns)
            caller.cancel()
            await settle()
            assert caller.cancelled() or isinstance(caller.exception(), OSError)
            assert (pool.stats().used, pool.stats().idle) == (0, 0)


@timeless
async def test_a_caller_whose_coroutine_is_closed_in_the_queue_leaves_it(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, 1, subscribers=[recorder]) as pool:
        held = await pool.acquire()
        caller = pool.acquire()
        caller.send(None)
        caller.close()
        assert pool.stats().waiting == 0
        assert recorder.names[-1] == "acquire_cancel"
        await pool.release(held)
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_a_caller_whose_coroutine_is_closed_while_its_connection_opens_leaves_it_to_the_idle_ones(
    driver: StubDriver,
) -> None:
    opened = asyncio.Event()
    driver.on_connect = opened.wait
    async with pool_of(driver, 1) as pool:
        caller = pool.acquire()
        caller.send(None)
        caller.close()
        opened.set()
        await settle()
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_a_caller_whose_coroutine_is_closed_after_the_hand_over_passes_the_connection_on(
    driver: StubDriver,
) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        caller = pool.acquire()
        caller.send(None)
        waiter = await queued(pool)
        await pool.release(held)
        caller.close()
        assert await waiter is held
        await pool.release(held)


@timeless
async def test_a_callback_of_the_loop_is_lent_an_idle_connection_like_a_task(driver: StubDriver) -> None:
    lent: list[Any] = []
    async with pool_of(driver, 1) as pool:
        await pool.release(await pool.acquire())
        asyncio.get_running_loop().call_soon(lambda: lent.append(immediately(pool.acquire())))
        await settle()
        assert lent == driver.connections
        assert [holder.task for holder in pool.holders()] == ["a callback"]
        await pool.release(lent[0])


@timeless
async def test_a_caller_cancelled_in_the_health_check_does_not_lose_the_connection(driver: StubDriver) -> None:
    async with pool_of(driver, 1, health_check_after=0) as pool:
        await pool.release(await pool.acquire())
        answered = asyncio.Event()
        driver.connections[0].on_execute = waits_for(answered)
        caller = await queued(pool)
        caller.cancel()
        await settle()
        answered.set()
        await settle()
        assert (pool.stats().used, pool.stats().idle) == (0, 1)
        async with pool.connection() as connection:
            assert connection is driver.connections[0]
        assert driver.attempts == 1


@timeless
async def test_a_connect_that_hangs_and_that_nobody_waits_for_gives_its_place_up_in_the_end(driver: StubDriver) -> None:
    driver.on_connect = hangs
    async with pool_of(driver, 1, operation_timeout=10, acquisition_timeout=None) as pool:
        caller = await queued(pool)
        caller.cancel()
        await asyncio.sleep(9)
        assert pool.stats().used == 1
        await asyncio.sleep(2)
        assert pool.stats().used == 0


# -- deadlines


@timeless
async def test_a_timeout_of_nine_tenths_of_a_second_is_nine_tenths_of_a_second(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, 1, acquisition_timeout=0.9, subscribers=[recorder]) as pool:
        held = await pool.acquire(label="mine")
        with takes(0.9), pytest.raises(PoolConnectionAcquireTimeoutError):
            async with pool.connection(label="GET /users"):
                raise AssertionError("there was none to lend")
        await pool.release(held)
        (event,) = recorder.of(AcquireTimedOut)
        assert event.wait_time == about(0.9)
        assert (event.pending, event.label, [each.label for each in event.holders]) == (0, "GET /users", ["mine"])


@timeless
async def test_without_a_timeout_a_caller_waits_for_ever(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=None) as pool:
        held = await pool.acquire()
        waiter = await queued(pool)
        await asyncio.sleep(10 * 365 * 86400)
        assert not waiter.done()
        await pool.release(held)
        assert await waiter is held
        await pool.release(held)


@timeless
async def test_with_a_timeout_of_zero_a_caller_never_queues(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 1, acquisition_timeout=0, subscribers=[recorder]) as pool:
        held = await pool.acquire()
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            immediately(pool.acquire())
        assert recorder.names[-1] == "acquire_timeout"
        await pool.release(held)


@timeless
async def test_with_a_timeout_of_zero_a_connection_is_still_opened(driver: StubDriver) -> None:
    driver.on_connect = lambda: asyncio.sleep(1)
    async with pool_of(driver, 1, acquisition_timeout=0) as pool, pool.connection() as connection:
        assert connection is driver.connections[0]


@pytest.mark.usefixtures("clean_releases")
@timeless
async def test_with_a_timeout_of_zero_an_idle_connection_is_lent(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=0) as pool:
        await pool.release(await pool.acquire())
        immediately(pool.release(immediately(pool.acquire())))


@timeless
async def test_with_a_timeout_of_zero_a_connect_that_hangs_ends_with_the_operation_timeout(driver: StubDriver) -> None:
    driver.on_connect = hangs
    async with pool_of(driver, 1, acquisition_timeout=0, operation_timeout=3) as pool:
        with takes(3), pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()


@timeless
async def test_the_deadline_covers_the_opening(driver: StubDriver) -> None:
    driver.on_connect = hangs
    async with pool_of(driver, 1, acquisition_timeout=0.9, operation_timeout=10) as pool:
        with takes(0.9), pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()


@timeless
async def test_the_deadline_covers_the_health_check(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=0.9, operation_timeout=10, health_check_after=0) as pool:
        await pool.release(await pool.acquire())
        driver.connections[0].on_execute = hangs
        with takes(0.9), pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()


@timeless
async def test_the_deadline_covers_queueing_and_opening_together(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=5, operation_timeout=10) as pool:
        held = await pool.acquire()
        with takes(5):
            waiter = await queued(pool)
            await asyncio.sleep(3)
            driver.on_connect = hangs
            held.on_rollback = fails(OSError("broken"))
            await pool.release(held)  # the waiter gets the empty place, and has 2 s left to fill it
            with pytest.raises(PoolConnectionAcquireTimeoutError):
                await waiter


@timeless
async def test_each_waiter_has_a_deadline_of_its_own(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=5) as pool, pool.connection():
        first = await queued(pool)
        await asyncio.sleep(3)
        second = await queued(pool)
        await asyncio.sleep(2.5)
        assert isinstance(first.exception(), PoolConnectionAcquireTimeoutError)
        assert not second.done()
        await asyncio.sleep(2.6)
        assert isinstance(second.exception(), PoolConnectionAcquireTimeoutError)


@timeless
async def test_a_connection_opened_too_late_for_its_caller_serves_the_next(driver: StubDriver) -> None:
    driver.on_connect = lambda: asyncio.sleep(3)
    async with pool_of(driver, 1, acquisition_timeout=2) as pool:
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()
        assert await pool.acquire() is driver.connections[0]
        assert driver.attempts == 1
        await pool.release(driver.connections[0])


@timeless
async def test_the_callers_own_timeout_works_too(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(1):
                await pool.acquire()
        assert not isinstance(caught.value, PoolConnectionAcquireTimeoutError)
        await pool.release(held)
        assert pool.stats().idle == 1


# -- max_waiting


@timeless
async def test_beyond_max_waiting_a_caller_is_turned_away_at_once(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 1, max_waiting=2, subscribers=[recorder]) as pool:
        held = await pool.acquire()
        waiters = await in_turn(pool, 2)
        with pytest.raises(PoolFullError):
            immediately(pool.acquire(label="GET /users"))
        assert recorder.of(AcquireRejected) == [AcquireRejected("app.db", 0.0, pending=2, label="GET /users")]
        assert pool.stats().waiting == 2
        await pool.release(held)
        for waiter in waiters:
            await pool.release(await waiter)


@timeless
async def test_with_max_waiting_of_zero_free_places_are_still_lent(driver: StubDriver) -> None:
    async with pool_of(driver, 2, max_waiting=0) as pool, pool.connection(), pool.connection():
        with pytest.raises(PoolFullError):
            await pool.acquire()


@timeless
async def test_a_place_in_the_queue_is_free_again_when_a_waiter_leaves(driver: StubDriver) -> None:
    async with pool_of(driver, 1, max_waiting=1) as pool:
        held = await pool.acquire()
        first = await queued(pool)
        first.cancel()
        await settle()
        second = await queued(pool)
        assert await runs(second)
        await pool.release(held)
        await pool.release(await second)


# -- slow and failing connects


@pytest.mark.usefixtures("clean_releases")
@timeless
async def test_a_slow_connect_delays_no_release_and_no_acquire_that_an_idle_connection_can_serve(
    driver: StubDriver,
) -> None:
    async with pool_of(driver, 3) as pool:
        first, second = await pool.acquire(), await pool.acquire()
        driver.on_connect = hangs
        slow = await queued(pool)
        immediately(pool.release(first))
        assert await slow is first  # it does not wait for its own connect to end
        immediately(pool.release(second))
        assert immediately(pool.acquire()) is second
        immediately(pool.release(second))
        immediately(pool.release(first))


@pytest.mark.usefixtures("clean_releases")
@timeless
async def test_a_connection_released_while_another_opens_serves_the_waiters_in_their_order(driver: StubDriver) -> None:
    async with pool_of(driver, 2) as pool:
        held = await pool.acquire()
        driver.on_connect = hangs
        first = await queued(pool)
        second = await queued(pool)
        await pool.release(held)
        assert await first is held
        assert await runs(second)
        await pool.release(held)
        assert await second is held
        await pool.release(held)


@timeless
async def test_a_waiter_whose_predecessor_was_served_while_its_connect_hangs_gets_a_connect_of_its_own(
    driver: StubDriver,
) -> None:
    async with pool_of(driver, 2, operation_timeout=3) as pool:
        held = await pool.acquire()
        driver.on_connect = hangs
        first = await queued(pool)
        second = await queued(pool)
        await pool.release(held)
        assert await first is held
        driver.on_connect = None
        other = await second  # once the hanging connect is given up
        assert (other is not held, driver.attempts) == (True, 3)
        await pool.release(held)
        await pool.release(other)


@timeless
async def test_a_failing_connect_reaches_its_caller_as_it_is_and_at_once(
    driver: StubDriver, recorder: Recorder
) -> None:
    failure = OSError("unable to open database file")
    driver.on_connect = fails(failure)
    async with pool_of(driver, subscribers=[recorder]) as pool:
        with pytest.raises(OSError, match="unable to open") as caught:
            await pool.acquire(label="GET /users")
        assert caught.value is failure
        assert recorder.names == ["pool_open", "create_fail", "acquire_fail"]
        (event,) = recorder.of(AcquireFailed)
        assert event.error == ErrorInfo("OSError", "unable to open database file")
        assert (event.label, event.pending) == ("GET /users", 0)
        assert pool.stats().used == 0


@timeless
async def test_a_failing_connect_says_once_which_pool_it_was_for(driver: StubDriver) -> None:
    failure = OSError("unable to open database file")
    driver.on_connect = fails(failure)
    async with pool_of(driver, name="app.db") as pool:
        for _ in range(2):
            with pytest.raises(OSError, match="unable to open"):
                await pool.acquire()
    assert failure.__notes__ == ["while pool 'app.db' opened a connection"]


@timeless
async def test_a_factory_that_raises_the_same_error_in_two_pools_disturbs_no_caller_of_the_first(
    driver: StubDriver,
) -> None:
    driver.on_connect = fails(OSError("unable to open database file"))
    first, second = pool_of(driver, name="first"), pool_of(driver, name="second")

    async def caller() -> None:
        with pytest.raises(OSError, match="unable to open"):
            await first.acquire()
        await asyncio.sleep(1)

    running = asyncio.create_task(caller())
    await settle()
    with pytest.raises(OSError, match="unable to open") as raised:
        await second.acquire()
    await running
    assert raised.value.__notes__ == [f"while pool {name!r} opened a connection" for name in ("first", "second")]
    await first.close()
    await second.close()


@timeless
async def test_a_failing_connect_wakes_the_next_waiter_to_try(driver: StubDriver) -> None:
    opening = asyncio.Event()

    async def fail_once() -> None:
        if driver.attempts == 1:
            await opening.wait()
            raise OSError("not yet")

    driver.on_connect = fail_once
    async with pool_of(driver, 1) as pool:
        first, second = await in_turn(pool, 2)
        opening.set()
        with pytest.raises(OSError, match="not yet"):
            await first
        assert await second is driver.connections[0]
        await pool.release(driver.connections[0])


@timeless
async def test_every_caller_learns_of_its_own_failure_to_connect(driver: StubDriver) -> None:
    driver.on_connect = fails(OSError("no"))
    async with pool_of(driver, 1) as pool:
        results = await asyncio.gather(*(pool.acquire() for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [OSError] * 5
        assert driver.attempts == 5


# -- what it tells


@timeless
async def test_a_new_connection_is_told_with_the_time_it_took(driver: StubDriver, recorder: Recorder) -> None:
    driver.on_connect = lambda: asyncio.sleep(0.5)
    async with pool_of(driver, subscribers=[recorder]) as pool, pool.connection(label="GET /users"):
        (created,) = recorder.of(ConnectionCreated)
        assert (created.connection, created.create_time) == (1, about(0.5))
        (event,) = recorder.of(ConnectionAcquired)
        assert (event.path, event.label, event.connection) == ("new", "GET /users", 1)
        assert (event.wait_time, event.create_time) == (about(0.5), about(0.5))
        assert (event.queue_time, event.check_time, event.pending) == (0.0, 0.0, 0)
        (slow,) = recorder.of(AcquireSlow)
        assert (slow.path, slow.wait_time, slow.create_time, slow.holders) == ("new", about(0.5), about(0.5), ())


@timeless
async def test_an_idle_connection_is_told_as_no_wait_at_all(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver) as pool:
        await pool.release(await pool.acquire())
        pool.subscribe(recorder)
        async with pool.connection(label="GET /users"):
            assert list(recorder) == [ConnectionAcquired("app.db", 1, "idle", 0.0, label="GET /users")]


@timeless
async def test_a_checked_connection_is_told_with_the_time_the_check_took(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, health_check_after=1) as pool:
        await pool.release(await pool.acquire())
        await asyncio.sleep(2)
        driver.connections[0].on_execute = lambda _: asyncio.sleep(0.25)
        pool.subscribe(recorder)
        async with pool.connection():
            (event,) = recorder.of(ConnectionAcquired)
            assert (event.path, event.connection) == ("idle", 1)
            assert (event.wait_time, event.check_time) == (about(0.25), about(0.25))
            assert (event.create_time, event.queue_time) == (0.0, 0.0)


@timeless
async def test_a_wait_in_the_queue_is_told_with_who_stood_before_and_who_was_waited_for(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, 2, subscribers=[recorder]) as pool:
        held = [(await queued(pool, label)).result() for label in ("one", "two")]
        first, second = await in_turn(pool, 2)
        await asyncio.sleep(3)
        for connection in held:
            await pool.release(connection)
        await pool.release(await first)
        await pool.release(await second)
        event = recorder.of(ConnectionAcquired)[-1]
        assert (event.path, event.label, event.pending) == ("queued", "waiter 2", 1)
        assert (event.wait_time, event.queue_time) == (about(3), about(3))
        slow = recorder.of(AcquireSlow)[-1]
        assert (slow.label, slow.pending, slow.wait_time) == ("waiter 2", 1, about(3))
        assert [each.label for each in slow.holders] == ["one", "two"]


@timeless
async def test_at_most_eight_holders_are_told_and_the_oldest_of_them(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 10, slow_acquire=0, subscribers=[recorder]) as pool:
        held = []
        for number in range(10):
            held.append(await pool.acquire(label=str(number)))
            await asyncio.sleep(1)
        waiter = await queued(pool)
        for connection in held:
            await pool.release(connection)
        await pool.release(await waiter)
        event = recorder.of(AcquireSlow)[-1]
        assert [each.label for each in event.holders] == [str(number) for number in range(8)]


@timeless
async def test_after_queueing_an_opening_is_told_as_part_of_the_wait(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 1, subscribers=[recorder]) as pool:
        held = await pool.acquire()
        waiter = await queued(pool)
        await asyncio.sleep(1)
        held.on_rollback = fails(OSError("broken"))
        driver.on_connect = lambda: asyncio.sleep(0.5)
        await pool.release(held)
        await pool.release(await waiter)
        event = recorder.of(ConnectionAcquired)[-1]
        assert event.path == "queued"
        assert (event.wait_time, event.queue_time) == (about(1.5), about(1))
        assert event.create_time == about(0.5)


@timeless
async def test_the_waiter_tells_of_its_acquire_in_its_own_task_and_context(driver: StubDriver) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="nobody")
    told: list[tuple[str, Any]] = []

    async def caller(name: str) -> None:
        request.set(name)
        async with pool.connection():
            pass

    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        pool.events.subscribe(ConnectionAcquired, lambda _: told.append((request.get(), asyncio.current_task())))
        tasks = [asyncio.create_task(caller("first")), asyncio.create_task(caller("second"))]
        await settle()
        request.set("the releaser")
        await pool.release(held)
        await asyncio.gather(*tasks)
    assert told == [("first", tasks[0]), ("second", tasks[1])]


@timeless
async def test_the_holders_of_a_slow_acquire_are_those_it_found_when_it_came(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, 1, subscribers=[recorder]) as pool:
        held = await pool.acquire(label="one")
        await asyncio.sleep(3)
        waiter = await queued(pool, "two")
        await asyncio.sleep(20)
        await pool.release(held)
        await pool.release(await waiter)
        (holder,) = recorder.of(AcquireSlow)[-1].holders
        assert (holder.label, holder.connection, holder.held) == ("one", 1, about(23))


@timeless
async def test_immediate_acquires_are_counted_without_a_subscriber(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        for _ in range(3):
            async with pool.connection():
                pass
        assert pool.events.immediate == 2  # the first had to open


@timeless
async def test_a_holder_has_the_context_in_which_it_acquired(driver: StubDriver, recorder: Recorder) -> None:
    span: contextvars.ContextVar[str] = contextvars.ContextVar("span")

    async def holder() -> None:
        span.set("the holder's span")
        async with pool.connection():
            span.set("a later span")
            await asyncio.sleep(5)

    async with pool_of(driver, 1, subscribers=[recorder]) as pool:
        task = asyncio.create_task(holder())
        await settle()
        async with pool.connection():
            await task
        (waited_for,) = recorder.of(AcquireSlow)[-1].holders
        assert waited_for.context is not None
        assert waited_for.context[span] == "the holder's span"


@timeless
async def test_without_a_subscriber_no_context_is_kept(driver: StubDriver) -> None:
    async with pool_of(driver) as pool, pool.connection():
        assert pool.holders()[0].context is None


@timeless
async def test_opening_runs_in_a_copy_of_the_callers_context(driver: StubDriver) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="nobody")
    told: list[str] = []
    async with pool_of(driver) as pool:
        pool.events.subscribe(ConnectionCreated, lambda _: told.append(request.get()))
        request.set("GET /users")
        async with pool.connection():
            pass
    assert told == ["GET /users"]


# -- loops that end too early


def test_a_loop_that_closes_around_callers_leaves_no_mess_and_a_pool_that_can_be_closed(
    driver: StubDriver, recorder: Recorder
) -> None:
    driver.on_connect = hangs
    pool = SQLiteConnectionPool(driver, 1, name="app.db", subscribers=[recorder])
    loop = asyncio.new_event_loop()
    callers = [loop.create_task(pool.acquire()) for _ in range(3)]  # one connects, two queue
    loop.run_until_complete(settle())
    loop.close()
    for caller in callers:
        caller._log_destroy_pending = False  # type: ignore[attr-defined]  # it is the test that left them
    del caller, callers
    gc.collect()  # whatever they leave behind, an unawaited coroutine or an exception nobody sees, fails the test
    asyncio.run(pool.close())
    assert recorder.names[-1] == "pool_close"
    assert driver.open == 0
