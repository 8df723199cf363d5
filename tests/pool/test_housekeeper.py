from __future__ import annotations

import asyncio
import gc
import itertools
import math
import weakref
from contextvars import ContextVar

import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError
from aiosqlitepool.events import ConnectionClosed, IdleReplaced, LeakReturned, LeakSuspected
from aiosqlitepool.pool.background import Timer
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock
from ..support.pools import StubPool, pool_of, queued
from ..support.stub import StubDriver, fails, hangs, settle
from ..support.timeless import about, timeless

# -- the timer


class Kept:
    """What a timer calls: notes when it was swept, and returns the next of its own times."""

    def __init__(self, *then: float) -> None:
        self.swept: list[float] = []
        self.then = list(then)

    def sweep(self) -> float:
        self.swept.append(asyncio.get_running_loop().time())
        return self.then.pop(0) if self.then else math.inf


def timer_for(kept: Kept) -> Timer:
    """Return a timer that sweeps it, in the time of the running loop."""
    timer = Timer(asyncio.get_running_loop().time)
    timer.look = kept.sweep
    return timer


@timeless
async def test_a_timer_sweeps_at_the_earliest_moment_that_was_asked_for() -> None:
    kept, began = Kept(), asyncio.get_running_loop().time()
    timer = timer_for(kept)
    for delay in (5, 3, 4):
        timer.wake(began + delay)
    assert timer.wake_at == began + 3
    await asyncio.sleep(10)
    assert kept.swept == [about(began + 3)]


@timeless
async def test_a_timer_goes_on_at_the_time_its_sweep_returned() -> None:
    began = asyncio.get_running_loop().time()
    kept = Kept(began + 4, began + 5)
    timer = timer_for(kept)
    timer.wake(began + 1)
    await asyncio.sleep(10)
    assert kept.swept == [about(began + delay) for delay in (1, 4, 5)]
    assert timer.wake_at == math.inf


@timeless
async def test_a_timer_asked_for_the_past_sweeps_at_once() -> None:
    kept = Kept()
    timer = timer_for(kept)
    timer.wake(asyncio.get_running_loop().time() - 5)
    await settle()
    assert len(kept.swept) == 1


@timeless
async def test_a_stopped_timer_sweeps_no_more() -> None:
    kept = Kept()
    timer = timer_for(kept)
    timer.wake(asyncio.get_running_loop().time() + 1)
    timer.stop()
    timer.stop()
    await asyncio.sleep(5)
    assert kept.swept == []


@timeless
async def test_a_timer_that_calls_nothing_does_nothing() -> None:
    timer = Timer(asyncio.get_running_loop().time)
    timer.wake(asyncio.get_running_loop().time() + 1)
    await asyncio.sleep(5)
    assert timer.wake_at == math.inf


@timeless
async def test_a_loop_keeps_no_timer_alive_nor_what_it_calls() -> None:
    kept = Kept()
    timer = timer_for(kept)
    timer.wake(asyncio.get_running_loop().time() + 1)
    gone, gone_too = weakref.ref(kept), weakref.ref(timer)
    del kept, timer
    assert (gone(), gone_too()) == (None, None)
    await asyncio.sleep(5)  # it fires, and there is nothing left to call


@timeless
async def test_a_timer_keeps_no_context_of_the_request_that_set_it() -> None:
    class Large:
        """What a request has in its context."""

    variable: ContextVar[Large | None] = ContextVar("variable", default=None)
    seen: list[Large | None] = []

    class Looks(Kept):
        def sweep(self) -> float:
            seen.append(variable.get())
            return super().sweep()

    kept = Looks()
    timer = timer_for(kept)
    token = variable.set(Large())
    timer.wake(asyncio.get_running_loop().time() + 1)
    await asyncio.sleep(5)
    variable.reset(token)
    assert seen == [None]


# -- waiters that time out


@timeless
async def test_waiters_time_out_one_after_another(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=10) as pool, pool.connection():
        first = await queued(pool)
        await asyncio.sleep(4)
        second = await queued(pool)
        await asyncio.sleep(7)
        assert isinstance(first.exception(), PoolConnectionAcquireTimeoutError)
        assert not second.done()
        await asyncio.sleep(4)
        assert isinstance(second.exception(), PoolConnectionAcquireTimeoutError)
        assert pool.stats().waiting == 0


@timeless
async def test_a_waiter_with_a_timeout_of_its_own_times_out_before_those_in_front_of_it(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=10) as pool:
        held = await pool.acquire()
        time = asyncio.get_running_loop().time
        began = time()
        ended: dict[str, float] = {}

        async def waits(name: str, timeout: float | None) -> None:
            with pytest.raises(PoolConnectionAcquireTimeoutError) as caught:
                await pool.acquire(timeout=timeout)
            ended[name] = time()
            assert caught.value.waited == about(time() - began)

        await asyncio.gather(waits("patient", 60), waits("usual", None), waits("hasty", 2), waits("usual too", None))
        await pool.release(held)
    assert list(ended) == ["hasty", "usual", "usual too", "patient"]
    assert list(ended.values()) == [about(began + delay) for delay in (2, 10, 10, 60)]


@timeless
async def test_a_waiter_may_wait_for_ever_among_others_that_time_out(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=10) as pool:
        held = await pool.acquire()
        patient = asyncio.create_task(pool.acquire(timeout=math.inf))
        await settle()
        other = await queued(pool)
        await asyncio.sleep(1000)
        assert isinstance(other.exception(), PoolConnectionAcquireTimeoutError)
        assert not patient.done()
        await pool.release(held)
        await pool.release(await patient)


# -- idle connections


@timeless
async def test_a_connection_idle_too_long_is_closed_without_a_caller(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, idle_timeout=60, subscribers=[recorder]) as pool:
        async with pool.connection():
            await asyncio.sleep(100)  # in use is not idle
        await asyncio.sleep(59)
        assert driver.open == 1
        await asyncio.sleep(2)
        assert (driver.open, pool.stats().idle, pool.stats().used) == (0, 0, 0)
        assert recorder.of(IdleReplaced) == [IdleReplaced("app.db", 1, about(60))]
        assert recorder.of(ConnectionClosed) == [ConnectionClosed("app.db", 1, "idle", about(160))]


@timeless
async def test_each_connection_has_an_idle_time_of_its_own(driver: StubDriver) -> None:
    async with pool_of(driver, idle_timeout=60) as pool:
        first, second = await pool.acquire(), await pool.acquire()
        await pool.release(first)
        await asyncio.sleep(30)
        await pool.release(second)
        await asyncio.sleep(31)
        assert (first.closed, second.closed) == (1, 0)
        await asyncio.sleep(30)
        assert second.closed == 1


@timeless
async def test_being_used_ends_being_idle(driver: StubDriver) -> None:
    async with pool_of(driver, idle_timeout=60) as pool:
        for _ in range(5):
            async with pool.connection():
                pass
            await asyncio.sleep(40)
        assert driver.attempts == 1


@timeless
async def test_without_an_idle_timeout_connections_stay_for_ever(driver: StubDriver) -> None:
    async with pool_of(driver, idle_timeout=None, leak_threshold=None) as pool:
        async with pool.connection():
            pass
        await asyncio.sleep(365 * 86400)
        assert driver.open == 1


@timeless
async def test_with_an_idle_timeout_of_zero_no_connection_is_kept(driver: StubDriver) -> None:
    async with pool_of(driver, idle_timeout=0) as pool:
        for _ in range(2):
            async with pool.connection():
                pass
            await asyncio.sleep(0.01)
            assert driver.open == 0
        assert driver.attempts == 2


@timeless
async def test_a_connection_found_idle_too_long_at_an_acquire_is_replaced_there_and_then(
    driver: StubDriver, recorder: Recorder
) -> None:
    clock = Clock()  # stands still for the timer, so only the acquire can notice
    async with pool_of(driver, idle_timeout=60, clock=clock, subscribers=[recorder]) as pool:
        async with pool.connection():
            pass
        clock.advance(61)
        async with pool.connection() as connection:
            assert connection is driver.connections[1]
        assert recorder.of(IdleReplaced) == [IdleReplaced("app.db", 1, 61.0)]


@timeless
async def test_a_pool_kept_small_by_little_use_shrinks(driver: StubDriver) -> None:
    async with pool_of(driver, 5, idle_timeout=60) as pool:
        for connection in [await pool.acquire() for _ in range(5)]:
            await pool.release(connection)
        for _ in range(10):
            await asyncio.sleep(10)
            async with pool.connection():
                pass
        assert driver.open == 1


@timeless
async def test_the_idle_event_finds_a_pool_that_has_removed_the_connection(driver: StubDriver) -> None:
    seen: list[tuple[int, int]] = []
    async with pool_of(driver, idle_timeout=60) as pool:
        pool.events.subscribe(IdleReplaced, lambda _: seen.append((pool.stats().used, pool.stats().idle)))
        async with pool.connection():
            pass
        await asyncio.sleep(61)
    assert seen == [(0, 0)]


@timeless
async def test_connections_made_to_expire_are_replaced_at_once_or_when_released(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, 2, subscribers=[recorder]) as pool:
        held, other = await pool.acquire(), await pool.acquire()
        await pool.release(other)
        pool.expire_connections()
        await settle()
        assert (held.closed, other.closed) == (0, 1)
        await pool.release(held)
        await settle()
        assert held.closed == 1
        async with pool.connection() as connection:
            assert connection is driver.connections[2]
    assert [event.reason for event in recorder.of(ConnectionClosed)] == ["lifetime", "lifetime", "pool_closed"]


@timeless
async def test_connections_made_to_expire_are_replaced_up_to_min_size(driver: StubDriver) -> None:
    async with pool_of(driver, 5, min_size=2) as pool:
        pool.expire_connections()
        await asyncio.sleep(1)
        assert (driver.attempts, driver.open, pool.stats().idle) == (4, 2, 2)


# -- lifetimes


@timeless
async def test_a_connection_too_old_is_closed_without_a_caller(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, idle_timeout=None, max_lifetime=100, subscribers=[recorder]) as pool:
        async with pool.connection():
            pass
        await asyncio.sleep(89)
        assert driver.open == 1
        await asyncio.sleep(12)
        assert driver.open == 0
        (event,) = recorder.of(ConnectionClosed)
        assert event.reason == "lifetime"
        assert 90 <= event.age <= 100.001


@timeless
async def test_connections_opened_together_do_not_expire_together(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 10, idle_timeout=None, max_lifetime=100, subscribers=[recorder]) as pool:
        for connection in [await pool.acquire() for _ in range(10)]:
            await pool.release(connection)
        await asyncio.sleep(101)
        ages = sorted(event.age for event in recorder.of(ConnectionClosed))
        assert len(ages) == 10
        assert ages[0] >= 90
        assert ages[-1] <= 100.001
        assert min(later - earlier for earlier, later in itertools.pairwise(ages)) > 0.1


@timeless
async def test_a_connection_that_grew_too_old_in_use_is_closed_on_release(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, 1, max_lifetime=100, subscribers=[recorder]) as pool:
        async with pool.connection() as connection:
            await asyncio.sleep(150)
            assert not connection.closed  # never under its holder
        await settle()
        assert [event.reason for event in recorder.of(ConnectionClosed)] == ["lifetime"]
        assert (pool.stats().used, pool.stats().idle) == (0, 0)


@timeless
async def test_a_waiter_gets_a_new_connection_instead_of_one_too_old(driver: StubDriver) -> None:
    async with pool_of(driver, 1, max_lifetime=100, acquisition_timeout=None) as pool:
        held = await pool.acquire()
        waiter = await queued(pool)
        await asyncio.sleep(150)
        await pool.release(held)
        assert await waiter is driver.connections[1]
        await pool.release(driver.connections[1])


@timeless
async def test_a_connection_found_too_old_at_an_acquire_is_replaced(driver: StubDriver, recorder: Recorder) -> None:
    clock = Clock()
    async with pool_of(driver, idle_timeout=None, max_lifetime=100, clock=clock, subscribers=[recorder]) as pool:
        async with pool.connection():
            pass
        clock.advance(101)
        async with pool.connection() as connection:
            assert connection is driver.connections[1]
        await settle()
        assert [event.reason for event in recorder.of(ConnectionClosed)] == ["lifetime"]


# -- min_size


@timeless
async def test_open_opens_min_size_connections(driver: StubDriver) -> None:
    async with pool_of(driver, 5, min_size=3) as pool:
        assert (driver.open, pool.stats().idle, pool.stats().used) == (3, 3, 0)


@timeless
async def test_the_first_acquire_opens_min_size_connections_as_well(driver: StubDriver) -> None:
    pool = pool_of(driver, 5, min_size=3)
    async with pool.connection():
        await settle()
        assert driver.open >= 3
    await pool.close()


@timeless
@pytest.mark.parametrize("min_size", [1, 2, 3])
async def test_connections_idle_too_long_are_replaced_up_to_min_size(driver: StubDriver, min_size: int) -> None:
    async with pool_of(driver, 5, min_size=min_size, idle_timeout=60) as pool:
        first = list(driver.connections)
        await asyncio.sleep(61)
        assert all(connection.closed for connection in first)
        assert (driver.open, pool.stats().idle) == (min_size, min_size)


@timeless
async def test_a_pool_never_stays_below_min_size_when_lifetimes_end_one_by_one(driver: StubDriver) -> None:
    async with pool_of(driver, 5, min_size=3, idle_timeout=None, max_lifetime=100) as pool:
        for _ in range(50):
            await asyncio.sleep(7)
            assert (driver.open, pool.stats().idle) == (3, 3)
        assert driver.attempts > 6


@timeless
async def test_a_broken_connection_is_replaced_up_to_min_size(driver: StubDriver) -> None:
    async with pool_of(driver, 5, min_size=1) as pool:
        async with pool.connection() as connection:
            connection.on_rollback = fails(OSError("broken"))
        await asyncio.sleep(1)
        assert (driver.open, pool.stats().idle) == (1, 1)
        assert driver.attempts == 2


@timeless
async def test_what_is_above_min_size_is_not_replaced(driver: StubDriver) -> None:
    async with pool_of(driver, 5, min_size=1, idle_timeout=60) as pool:
        for connection in [await pool.acquire() for _ in range(3)]:
            await pool.release(connection)
        await asyncio.sleep(61)
        assert driver.open == 1


@timeless
async def test_connections_in_use_count_towards_min_size(driver: StubDriver) -> None:
    async with pool_of(driver, 5, min_size=2) as pool:
        async with pool.connection(), pool.connection(), pool.connection() as third:
            third.on_rollback = fails(OSError("broken"))
        await asyncio.sleep(1)
        assert (driver.attempts, pool.stats().idle) == (3, 2)


@timeless
async def test_a_refill_that_fails_is_tried_again_and_less_and_less_often(driver: StubDriver) -> None:
    time, attempts = asyncio.get_running_loop().time, list[float]()

    async def connect() -> None:
        attempts.append(time())
        if len(attempts) > 1:
            raise OSError("no")

    driver.on_connect = connect
    async with pool_of(driver, 5, min_size=1, idle_timeout=60) as pool:
        await asyncio.sleep(600)
        pauses = [later - earlier for earlier, later in itertools.pairwise(attempts[1:])]
        assert pauses[:5] == [about(pause, within=0.01) for pause in (1, 2, 4, 8, 16)]
        assert pauses[5:] == [about(30, within=0.01)] * len(pauses[5:])
        driver.on_connect = None
        await asyncio.sleep(31)
        assert pool.stats().idle == 1


@timeless
async def test_open_raises_what_the_driver_raised(driver: StubDriver) -> None:
    failure = OSError("unable to open database file")
    driver.on_connect = fails(failure)
    pool = pool_of(driver, min_size=1)
    with pytest.raises(OSError, match="unable to open") as caught:
        await pool.open()
    assert caught.value is failure
    await pool.close()


@timeless
async def test_a_pool_can_be_opened_again_after_the_driver_failed(driver: StubDriver) -> None:
    driver.on_connect = fails(OSError("no"))
    pool = pool_of(driver, min_size=1)
    with pytest.raises(OSError, match="no"):
        await pool.open()
    driver.on_connect = None
    await pool.open()
    assert pool.stats().idle == 1
    await pool.close()


# -- leaks


@timeless
async def test_a_connection_in_use_for_too_long_is_reported_once_without_a_caller(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, leak_threshold=30) as pool:
        pool.events.subscribe(LeakSuspected, recorder.append)
        async with pool.connection(label="GET /users"):
            await asyncio.sleep(29)
            assert recorder == []
            await asyncio.sleep(2)
            (event,) = recorder.of(LeakSuspected)
            assert (event.holder.label, event.holder.connection) == ("GET /users", 1)
            assert (event.use_time, event.holder.held) == (about(30), about(30))
            await asyncio.sleep(500)
        assert len(recorder) == 1


@timeless
async def test_a_suspected_leak_that_is_released_is_reported(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, leak_threshold=30) as pool:
        pool.subscribe(recorder)
        async with pool.connection(label="GET /users"):
            await asyncio.sleep(100)
        (event,) = recorder.of(LeakReturned)
        assert (event.holder.label, event.holder.connection, event.use_time) == ("GET /users", 1, about(100))
        assert recorder.names[-2:] == ["release", "leak_return"]


@timeless
async def test_a_connection_released_in_time_is_no_leak(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, leak_threshold=30, subscribers=[recorder]) as pool:
        for _ in range(5):
            async with pool.connection():
                await asyncio.sleep(20)
        await asyncio.sleep(60)
    assert recorder.of(LeakSuspected) == []
    assert recorder.of(LeakReturned) == []


@timeless
async def test_every_lease_has_a_threshold_of_its_own(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 2, leak_threshold=30, subscribers=[recorder]) as pool:
        first = await pool.acquire(label="first")
        await asyncio.sleep(20)
        second = await pool.acquire(label="second")
        await asyncio.sleep(15)
        assert [event.holder.label for event in recorder.of(LeakSuspected)] == ["first"]
        await asyncio.sleep(20)
        assert [event.holder.label for event in recorder.of(LeakSuspected)] == ["first", "second"]
        await pool.release(first)
        await pool.release(second)


@timeless
async def test_a_connection_that_leaks_twice_is_reported_twice(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 1, leak_threshold=30, subscribers=[recorder]) as pool:
        for _ in range(2):
            async with pool.connection():
                await asyncio.sleep(40)
    assert recorder.names.count("leak_suspect") == recorder.names.count("leak_return") == 2


@timeless
async def test_a_suspected_leak_whose_handle_is_collected_is_reported_once(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, 1, leak_threshold=30, subscribers=[recorder]) as pool:
        await pool.acquire(label="lost")
        await asyncio.sleep(40)
        (pooled,) = pool._inventory.connector.connections.values()
        assert pooled.lease is not None
        pool._releaser.forgotten(pooled.lease)
        await asyncio.sleep(1)
        assert pool.stats().used == 0
    assert [name for name in recorder.names if name.startswith("leak")] == ["leak_suspect", "leak_return"]


@timeless
async def test_a_long_lease_logs_one_warning_by_default(driver: StubDriver, caplog: pytest.LogCaptureFixture) -> None:
    async with pool_of(driver, idle_timeout=None) as pool:
        async with pool.connection():
            pass
        await asyncio.sleep(1000)
        async with pool.connection(label="GET /export"):
            await asyncio.sleep(1000)
    (record,) = [each for each in caplog.records if "has held" in each.getMessage()]
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("pool 'app.db': ")
    assert (
        "[GET /export] has held connection 1 for 60.000 s; longer than 60 s. Release it earlier" in record.getMessage()
    )


@timeless
async def test_a_lease_of_a_connection_that_was_opened_in_advance_is_suspected_in_time(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, 1, min_size=1, idle_timeout=None, subscribers=[recorder]) as pool:
        await asyncio.sleep(1000.5)
        async with pool.connection():
            await asyncio.sleep(100)
    (event,) = recorder.of(LeakSuspected)
    assert event.use_time == about(60)


@timeless
async def test_without_a_threshold_nothing_leaks(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, leak_threshold=None, subscribers=[recorder]) as pool, pool.connection():
        await asyncio.sleep(10**6)
    assert recorder.of(LeakSuspected) == []


# -- a pool that is forgotten


@timeless
async def test_a_pool_that_is_forgotten_warns_and_names_its_holders(driver: StubDriver) -> None:
    pools: list[StubPool] = [pool_of(driver, idle_timeout=60, leak_threshold=5)]
    await queued(pools[0], "GET /users")
    pools.clear()
    with pytest.warns(ResourceWarning, match=r"'app.db' .*never closed.*GET /users"):
        gc.collect()


@timeless
async def test_a_pool_that_was_never_opened_may_be_forgotten(driver: StubDriver) -> None:
    pool_of(driver)
    gc.collect()  # a warning would be an error


@timeless
async def test_a_pool_that_was_closed_may_be_forgotten(driver: StubDriver) -> None:
    async with pool_of(driver, min_size=1):
        pass
    gc.collect()


@timeless
async def test_a_refill_that_fails_while_the_pool_closes_is_not_tried_again(driver: StubDriver) -> None:
    async with pool_of(driver, 5, min_size=1, idle_timeout=60):
        opening = asyncio.Event()

        async def connect() -> None:
            await opening.wait()
            raise OSError("no")

        driver.on_connect = connect
        await asyncio.sleep(61)
        assert driver.attempts == 2
        asyncio.get_running_loop().call_later(1, opening.set)
    await asyncio.sleep(100)
    assert driver.attempts == 2


@timeless
async def test_a_refill_that_hangs_does_not_keep_its_slot_for_ever(driver: StubDriver) -> None:
    async with pool_of(driver, 1, min_size=1, idle_timeout=60, operation_timeout=10) as pool:
        driver.on_connect = hangs
        await asyncio.sleep(61)
        assert pool.stats().used == 1
        driver.on_connect = None
        await asyncio.sleep(100)
        async with pool.connection() as connection:
            assert connection is driver.connections[-1]
