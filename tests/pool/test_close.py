from __future__ import annotations

import asyncio
import contextlib
import math
import re
from typing import Any

import pytest

from aiosqlitepool import PoolClosedError, PoolError
from aiosqlitepool.events import AcquireFailed, ConnectionClosed, ConnectionReleased, PoolClosed, PoolOpened
from aiosqlitepool.testing import Recorder

from ..support.pools import immediately, in_turn, pool_of, queued, runs
from ..support.stub import StubConnection, StubDriver, fails, hangs, settle, waits_for
from ..support.timeless import about, takes, timeless

# -- open


@timeless
async def test_open_opens_the_pool(driver: StubDriver) -> None:
    pool = pool_of(driver)
    assert pool.stats().state == "unopened"
    await pool.open()
    assert pool.stats().state == "open"
    await pool.close()


@timeless
async def test_opening_an_open_pool_is_harmless(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, min_size=1, subscribers=[recorder]) as pool:
        await pool.open()
        await asyncio.gather(pool.open(), pool.open())
        assert (driver.attempts, len(recorder.of(PoolOpened))) == (1, 1)


@timeless
async def test_a_closed_pool_cannot_be_opened_again(driver: StubDriver) -> None:
    pool = pool_of(driver)
    await pool.close()
    with pytest.raises(PoolClosedError, match=r"'app\.db' is closed"):
        await pool.open()


@timeless
async def test_an_open_that_is_cancelled_stops_no_connection_from_opening(driver: StubDriver) -> None:
    opened = asyncio.Event()
    driver.on_connect = waits_for(opened)
    pool = pool_of(driver, min_size=2)
    opening = asyncio.create_task(pool.open())
    also_opening = asyncio.create_task(pool.open())
    await settle()
    opening.cancel()
    await settle()
    assert opening.cancelled()
    opened.set()
    await also_opening
    assert (pool.stats().idle, driver.attempts) == (2, 2)
    await pool.close()


@timeless
async def test_an_open_whose_pool_closes_meanwhile_says_so_and_leaves_nothing_open(driver: StubDriver) -> None:
    opened = asyncio.Event()
    driver.on_connect = waits_for(opened)
    pool = pool_of(driver, min_size=1)
    opening = asyncio.create_task(pool.open())
    await settle()
    closing = asyncio.create_task(pool.close())
    await settle()
    opened.set()
    with pytest.raises(PoolClosedError, match=r"'app\.db' closed while it was being opened"):
        await opening
    await closing
    assert (driver.attempts, driver.open) == (1, 0)


@timeless
async def test_an_open_whose_connect_hangs_while_the_pool_closes_says_so_and_is_not_cancelled(
    driver: StubDriver,
) -> None:
    driver.on_connect = hangs
    pool = pool_of(driver, min_size=1)
    opening = asyncio.create_task(pool.open())
    await settle()
    await pool.close()
    with pytest.raises(PoolClosedError, match="while it was being opened"):
        await opening


@timeless
async def test_an_open_whose_connect_hangs_fails_after_the_operation_timeout_and_is_not_cancelled(
    driver: StubDriver,
) -> None:
    driver.on_connect = hangs
    pool = pool_of(driver, min_size=2, operation_timeout=3)
    # A CancelledError here would end a task that nobody has cancelled, and say nothing.
    with takes(3), pytest.raises(PoolError, match="opening the connection took too long"):
        await pool.open()
    await pool.close()


@timeless
async def test_entering_the_pool_closes_it_again_if_it_cannot_be_opened(driver: StubDriver) -> None:
    driver.on_connect = fails(OSError("no"))
    pool = pool_of(driver, min_size=1)
    with pytest.raises(OSError, match="no"):
        async with pool:
            raise AssertionError("it did not open")
    assert pool.stats().state == "closed"


@timeless
async def test_a_closed_pool_cannot_be_entered(driver: StubDriver) -> None:
    pool = pool_of(driver)
    await pool.close()
    with pytest.raises(PoolClosedError, match=r"'app\.db' is closed"):
        async with pool:
            raise AssertionError("it did not open")


@timeless
async def test_entering_the_pool_returns_it_and_leaving_it_closes_it(driver: StubDriver) -> None:
    pool = pool_of(driver)
    async with pool as entered:
        assert entered is pool
        assert pool.stats().state == "open"
    assert pool.stats().state == "closed"


@timeless
async def test_an_error_in_the_block_of_the_pool_passes_through_and_closes_it(driver: StubDriver) -> None:
    pool = pool_of(driver, min_size=1)
    with pytest.raises(ZeroDivisionError):
        async with pool:
            raise ZeroDivisionError
    assert (pool.stats().state, driver.open) == ("closed", 0)


# -- close


@timeless
async def test_closing_closes_idle_connections(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 3, min_size=3, subscribers=[recorder]):
        await asyncio.sleep(5)
    assert [connection.closed for connection in driver.connections] == [1, 1, 1]
    assert [event.reason for event in recorder.of(ConnectionClosed)] == ["pool_closed"] * 3
    assert [event.age for event in recorder.of(ConnectionClosed)] == [about(5)] * 3
    assert recorder[-1] == PoolClosed("app.db", abandoned=0)


@timeless
async def test_closing_twice_is_harmless(driver: StubDriver, recorder: Recorder) -> None:
    pool = pool_of(driver, min_size=1, subscribers=[recorder])
    await pool.open()
    await pool.close()
    immediately(pool.close())
    assert (driver.connections[0].closed, recorder.names.count("pool_close")) == (1, 1)


@timeless
async def test_closing_a_pool_that_was_never_opened_is_harmless(driver: StubDriver) -> None:
    pool = pool_of(driver)
    await pool.close()
    assert (pool.stats().state, driver.attempts) == ("closed", 0)


@timeless
async def test_a_closed_pool_lends_nothing_and_says_so(driver: StubDriver, recorder: Recorder) -> None:
    pool = pool_of(driver, subscribers=[recorder])
    await pool.open()
    await pool.close()
    with pytest.raises(PoolClosedError, match=r"'app\.db' is closed"):
        await pool.acquire()
    with pytest.raises(PoolClosedError):
        async with pool.connection():
            raise AssertionError("it lent something")
    assert driver.attempts == 0


@timeless
async def test_a_pool_closed_before_its_first_use_lends_nothing(driver: StubDriver) -> None:
    pool = pool_of(driver)
    await pool.close()
    with pytest.raises(PoolClosedError):
        await pool.acquire()


@timeless
async def test_an_acquire_from_a_closed_pool_is_told_as_a_failure(driver: StubDriver, recorder: Recorder) -> None:
    pool = pool_of(driver, subscribers=[recorder])
    await pool.close()
    for attempt in (pool.acquire(label="one"), pool.connection(label="two").__aenter__()):
        with pytest.raises(PoolClosedError):
            await attempt
    events = recorder.of(AcquireFailed)
    assert [(event.label, event.error.type) for event in events] == [
        ("one", "aiosqlitepool.errors.PoolClosedError"),
        ("two", "aiosqlitepool.errors.PoolClosedError"),
    ]


@timeless
async def test_while_it_closes_a_pool_lends_nothing(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        held, idle = await pool.acquire(), await pool.acquire()
        await pool.release(idle)
        closing = asyncio.create_task(pool.close())
        await settle()
        assert pool.stats().state == "closing"
        with pytest.raises(PoolClosedError, match="closing"):
            await pool.acquire()
        await pool.release(held)
        await closing


@timeless
async def test_those_who_wait_are_told_that_the_pool_closed(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        waiters = await in_turn(pool, 3)
        pool.subscribe(recorder)
        closing = asyncio.create_task(pool.close())
        await settle()
        assert [type(waiter.exception()) for waiter in waiters] == [PoolClosedError] * 3
        assert [event.error.type for event in recorder.of(AcquireFailed)] == [
            "aiosqlitepool.errors.PoolClosedError"
        ] * 3
        await pool.release(held)
        await closing


@timeless
@pytest.mark.parametrize("on_connect", [None, hangs], ids=["queued", "opening"])
async def test_each_of_those_who_wait_gets_an_error_of_its_own(driver: StubDriver, on_connect: Any) -> None:
    pool = pool_of(driver, 2)
    held = [] if on_connect else [await pool.acquire(), await pool.acquire()]
    driver.on_connect = on_connect
    waiters = await in_turn(pool, 2)
    closing = asyncio.create_task(pool.close())
    await settle()
    first, second = (waiter.exception() for waiter in waiters)
    assert isinstance(first, PoolClosedError)
    assert isinstance(second, PoolClosedError)
    assert first is not second
    for connection in held:
        await pool.release(connection)
    await closing


@timeless
async def test_those_whose_connection_opens_are_told_that_the_pool_closed(driver: StubDriver) -> None:
    opened = asyncio.Event()
    driver.on_connect = waits_for(opened)
    async with pool_of(driver, 1) as pool:
        caller = await queued(pool)
        closing = asyncio.create_task(pool.close())
        await settle()
        assert isinstance(caller.exception(), PoolClosedError)
        assert await runs(closing)  # what opens will be closed, not dropped
        opened.set()
        await closing
    assert (driver.attempts, driver.open) == (1, 0)


@timeless
async def test_a_waiter_that_has_its_place_but_not_its_connection_when_the_pool_closes_is_told_so(
    driver: StubDriver,
) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        waiter = await queued(pool)
        held.on_rollback = fails(OSError("broken"))
        await pool.release(held)
        await pool.close()  # before the waiter has run
        with pytest.raises(PoolClosedError):
            await waiter
    assert driver.open == 0


@timeless
async def test_a_waiter_that_has_its_connection_when_the_pool_closes_may_use_it(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        held = await pool.acquire()
        waiter = await queued(pool)
        await pool.release(held)
        closing = asyncio.create_task(pool.close())
        try:
            connection = await waiter
        except PoolClosedError:
            pass
        else:
            assert not connection.closed
            await pool.release(connection)
        await closing
    assert driver.open == 0


# -- with connections out


@timeless
async def test_a_connection_in_use_closes_when_it_comes_back_and_not_before(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        held = await pool.acquire()
        closing = asyncio.create_task(pool.close())
        await asyncio.sleep(5)
        assert not held.closed
        await pool.release(held)
        await closing
        assert (held.rollbacks, held.closed) == (1, 1)


@timeless
async def test_closing_waits_the_operation_timeout_for_what_is_out_and_then_names_the_holders(
    driver: StubDriver, recorder: Recorder
) -> None:
    pool = pool_of(driver, operation_timeout=7, subscribers=[recorder])
    first = (await queued(pool, "GET /users")).result()
    second = (await queued(pool, "GET /posts")).result()
    named = r"'app.db'.*GET /users.*connection 1.*GET /posts.*connection 2"
    with takes(7, within=0.6), pytest.warns(ResourceWarning, match=named):
        await pool.close()
    assert (first.closed, second.closed) == (1, 1)
    assert recorder[-1] == PoolClosed("app.db", abandoned=2)
    assert [event.reason for event in recorder.of(ConnectionClosed)] == ["pool_closed"] * 2


@timeless
async def test_closing_waits_as_long_as_it_is_told(driver: StubDriver) -> None:
    pool = pool_of(driver)
    await pool.acquire()
    with takes(2.5, within=0.6), pytest.warns(ResourceWarning, match="under their holders"):
        await pool.close(timeout=2.5)


@timeless
async def test_closing_without_patience_takes_connections_away_at_once(driver: StubDriver) -> None:
    time = asyncio.get_running_loop().time
    pool = pool_of(driver)
    held = await pool.acquire()
    began = time()
    with pytest.warns(ResourceWarning, match="under their holders"):
        await pool.close(timeout=0)
    assert held.closed == 1
    assert time() - began < 1


@timeless
async def test_closing_with_infinite_patience_waits_for_ever(driver: StubDriver) -> None:
    async with pool_of(driver, operation_timeout=1) as pool:
        held = await pool.acquire()
        closing = asyncio.create_task(pool.close(timeout=math.inf))
        await asyncio.sleep(10_000)
        assert not held.closed
        await pool.release(held)
        await closing
        assert driver.open == 0


@pytest.mark.parametrize("timeout", [True, "5", b"5", [5]])
@timeless
async def test_the_patience_of_close_must_be_a_number(driver: StubDriver, timeout: object) -> None:
    pool = pool_of(driver)
    with pytest.raises(TypeError, match=f"timeout.*{re.escape(repr(timeout))}"):
        await pool.close(timeout=timeout)  # type: ignore[arg-type]
    assert pool.stats().state == "unopened"


@pytest.mark.parametrize("timeout", [-1, -0.5, math.nan])
@timeless
async def test_the_patience_of_close_must_not_be_negative(driver: StubDriver, timeout: float) -> None:
    with pytest.raises(ValueError, match=f"timeout.*{timeout!r}"):
        await pool_of(driver).close(timeout=timeout)


@timeless
async def test_a_connection_taken_away_by_close_is_told_as_released_once(
    driver: StubDriver, recorder: Recorder
) -> None:
    pool = pool_of(driver, subscribers=[recorder])
    async with pool.connection(label="GET /users"):
        await asyncio.sleep(2)
        with pytest.warns(ResourceWarning, match="under their holders"):
            await pool.close(timeout=1)
    (event,) = recorder.of(ConnectionReleased)
    assert (event.connection, event.label, event.needs_reset) == (1, "GET /users", True)
    assert event.use_time == about(3)


@timeless
async def test_a_connection_taken_away_by_close_can_still_be_given_back(driver: StubDriver) -> None:
    pool = pool_of(driver)
    with pytest.warns(ResourceWarning, match="under their holders"):
        async with pool.connection():
            await pool.close(timeout=0)
    held = driver.connections[0]
    await pool.release(held)
    assert held.closed == 1


@timeless
async def test_a_connection_in_the_middle_of_a_hanging_rollback_is_closed_as_well(
    driver: StubDriver, recorder: Recorder
) -> None:
    pool = pool_of(driver, operation_timeout=100, subscribers=[recorder])
    held = await pool.acquire()
    held.on_rollback = hangs
    release = asyncio.create_task(pool.release(held))
    await settle()
    await pool.close(timeout=1)
    await settle()
    closed = held.closed
    release.cancel()
    await settle()
    assert closed == 1
    assert [event.reason for event in recorder.of(ConnectionClosed)] == ["pool_closed"]


@pytest.mark.parametrize("cancelled", [False, True], ids=["awaited", "left to the pool"])
@pytest.mark.parametrize("tenths", range(21))
@timeless
async def test_a_rollback_that_ends_at_any_moment_of_the_closing_has_its_connection_closed_once(
    driver: StubDriver, recorder: Recorder, tenths: int, cancelled: bool
) -> None:
    pool = pool_of(driver, 2, operation_timeout=100, subscribers=[recorder])
    held, other = await pool.acquire(), await pool.acquire()
    await pool.release(other)
    held.on_rollback = lambda _: asyncio.sleep(tenths / 10)
    release = asyncio.create_task(pool.release(held))
    await settle()
    if cancelled:
        release.cancel()
    await pool.close(timeout=1)
    await asyncio.wait({release})
    await settle()
    assert (held.closed, other.closed) == (1, 1)
    assert [event.reason for event in recorder.of(ConnectionClosed)] == ["pool_closed"] * 2
    assert pool.stats().state == "closed"


@timeless
async def test_a_connect_that_hangs_does_not_hold_up_the_close_for_ever(driver: StubDriver) -> None:
    time = asyncio.get_running_loop().time
    driver.on_connect = hangs
    pool = pool_of(driver)
    caller = await queued(pool)
    began = time()
    await pool.close(timeout=3)
    assert time() - began < 4
    assert isinstance(caller.exception(), PoolClosedError)
    assert pool.stats().state == "closed"


@timeless
async def test_closing_waits_for_the_last_connection_as_for_every_other(driver: StubDriver) -> None:
    closed: list[int] = []

    async def checkpoint(connection: StubConnection) -> None:  # as SQLite does when the last connection closes
        await asyncio.sleep(5)
        closed.append(connection.number)

    driver.scripts["on_close"] = checkpoint
    async with pool_of(driver, min_size=2, operation_timeout=20) as pool:
        await pool.open()
    assert sorted(closed) == [1, 2]


@timeless
async def test_a_last_connection_that_does_not_close_in_time_is_left_and_told_of(
    driver: StubDriver, caplog: pytest.LogCaptureFixture
) -> None:
    driver.scripts["on_close"] = hangs
    # Its limit is its own: the timeout of close() is for what others hold, and this one may be folding a long WAL.
    pool = pool_of(driver, min_size=1, operation_timeout=20)
    await pool.open()
    with takes(20, within=1):
        await pool.close(timeout=3)  # for what is lent; the last to close may have a long WAL to fold in
    assert "connection 1 did not close within" in caplog.text


@timeless
async def test_a_driver_that_hangs_in_close_does_not_hold_up_the_close_for_ever(
    driver: StubDriver, recorder: Recorder
) -> None:
    driver.scripts["on_close"] = hangs
    pool = pool_of(driver, min_size=2, subscribers=[recorder])
    await pool.open()
    with takes(3, within=1):
        await pool.close(timeout=3)
    assert len(recorder.of(ConnectionClosed)) == 2
    assert recorder.names[-1] == "pool_close"


@timeless
@pytest.mark.parametrize("count", [1, 3])
async def test_closing_ends_when_the_last_connection_has_closed_however_long_that_takes(
    driver: StubDriver, recorder: Recorder, count: int
) -> None:
    closed: list[int] = []

    async def slowly(connection: StubConnection) -> None:
        await asyncio.sleep(8)
        closed.append(connection.number)

    driver.scripts["on_close"] = slowly
    pool = pool_of(driver, count, min_size=count, subscribers=[recorder])
    await pool.open()
    await pool.close()
    assert len(closed) == count
    assert recorder.names[-1 - count :] == ["close"] * count + ["pool_close"]


@timeless
async def test_an_error_of_the_driver_in_close_is_logged_and_closes_the_pool(
    driver: StubDriver, caplog: pytest.LogCaptureFixture, recorder: Recorder
) -> None:
    driver.scripts["on_close"] = fails(OSError("disk I/O error"))
    async with pool_of(driver, min_size=1, subscribers=[recorder]):
        pass
    assert "failed to close" in caplog.text
    assert "disk I/O error" in caplog.text
    assert recorder.names[-2:] == ["close", "pool_close"]


# -- several at once


@timeless
async def test_concurrent_closes_await_the_same_end(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, subscribers=[recorder]) as pool:
        held = await pool.acquire()
        closes = [asyncio.create_task(pool.close()) for _ in range(3)]
        await settle()
        assert not any(close.done() for close in closes)
        await pool.release(held)
        await asyncio.gather(*closes)
    assert (held.closed, recorder.names.count("pool_close")) == (1, 1)


@timeless
@pytest.mark.parametrize("timeouts", [(60, 2), (2, 60), (None, 2), (2, None), (math.inf, 2)])
async def test_of_several_closes_the_least_patient_one_counts(
    driver: StubDriver, timeouts: tuple[float | None, float | None]
) -> None:
    pool = pool_of(driver)
    await pool.acquire()
    # The task that closes the pool, too, is made inside: filters of warnings may belong to a context.
    with takes(2), pytest.warns(ResourceWarning, match="under their holders"):
        first = asyncio.create_task(pool.close(timeouts[0]))
        await settle()
        await pool.close(timeouts[1])
    await first


@timeless
async def test_a_second_close_in_the_same_turn_shortens_the_first(driver: StubDriver) -> None:
    pool = pool_of(driver)
    await pool.acquire()
    with takes(0), pytest.warns(ResourceWarning, match="under their holders"):
        await asyncio.gather(pool.close(60), pool.close(0))


@timeless
async def test_a_close_that_is_cancelled_does_not_stop_the_closing(driver: StubDriver) -> None:
    pool = pool_of(driver)
    held = await pool.acquire()
    first = asyncio.create_task(pool.close())
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    await pool.release(held)
    await pool.close()
    assert (pool.stats().state, held.closed) == ("closed", 1)


@timeless
async def test_closing_from_within_a_lease_takes_nothing_away_before_its_time(driver: StubDriver) -> None:
    pool = pool_of(driver)
    async with pool.connection():
        closing = asyncio.create_task(pool.close())
        await settle()
        assert driver.open == 1
    await closing
    assert driver.open == 0


@timeless
async def test_nothing_is_refilled_while_a_pool_closes(driver: StubDriver) -> None:
    async with pool_of(driver, 3, min_size=3):
        pass
    await asyncio.sleep(100)
    assert (driver.attempts, driver.open) == (3, 0)


@timeless
async def test_a_closed_pool_tells_of_its_end_after_it_has_ended(driver: StubDriver) -> None:
    states: list[str] = []
    pool = pool_of(driver, min_size=1)
    pool.events.subscribe(PoolClosed, lambda _: states.append(repr(pool)))
    await pool.open()
    await pool.close()
    assert states == ["<SQLiteConnectionPool 'app.db' closed: 0 used, 0 idle of 2, 0 waiting>"]


@timeless
async def test_a_connection_whose_reset_is_cut_short_by_close_has_closed_when_close_returns(
    driver: StubDriver, recorder: Recorder
) -> None:
    closed: list[int] = []

    async def closes(connection: StubConnection) -> None:
        await asyncio.sleep(0.01)
        closed.append(connection.number)

    driver.scripts = {"on_rollback": hangs, "on_close": closes}
    pool = pool_of(driver, 2, operation_timeout=100, subscribers=[recorder])
    for connection in [await pool.acquire(), await pool.acquire()]:
        release = asyncio.create_task(pool.release(connection))
        await settle()
        release.cancel()
    await pool.close(timeout=0.1)
    assert sorted(closed) == [1, 2]
    assert [event.reason for event in recorder.of(ConnectionClosed)] == ["pool_closed"] * 2


# Close waits 0.1 s for the reset, 0.2 s more before it cancels the reset, and 0.2 s for the reset to end.
@timeless
@pytest.mark.parametrize("seconds", [0.4, 0.7], ids=["ends in time", "ends too late"])
async def test_a_connection_whose_reset_swallows_its_cancellation_is_closed_too(
    seconds: float, driver: StubDriver
) -> None:
    async def rolls_back(_: StubConnection) -> None:
        resetting = asyncio.ensure_future(asyncio.sleep(seconds))
        while not resetting.done():
            with contextlib.suppress(asyncio.CancelledError):  # a driver must not do so, and one does
                await asyncio.shield(resetting)

    driver.scripts = {"on_rollback": rolls_back}
    pool = pool_of(driver, 1)
    release = asyncio.create_task(pool.release(await pool.acquire()))
    await settle()
    await pool.close(timeout=0.1)
    assert pool.stats().state == "closed"
    await release
    await settle()
    assert driver.connections[0].closed == 1


@timeless
async def test_the_last_connection_has_the_operation_timeout_to_close_however_short_the_timeout_of_close(
    driver: StubDriver,
) -> None:
    closed: list[int] = []

    async def slowly(connection: StubConnection) -> None:
        await asyncio.sleep(8)
        closed.append(connection.number)

    driver.scripts["on_close"] = slowly
    pool = pool_of(driver, 1, min_size=1)
    await pool.open()
    await pool.close(timeout=0)
    assert closed == [1]


@timeless
@pytest.mark.usefixtures("clean_releases")
async def test_a_waiter_that_is_handed_a_dead_connection_by_a_pool_that_closes_is_told_so(
    driver: StubDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(driver, 1)
    held = await pool.acquire()
    waiter = await queued(pool)
    await pool.release(held)
    (slot,) = pool._inventory.slots.all
    assert slot.connection is not None
    monkeypatch.setattr(type(slot.connection.adapter), "begin_lease", lambda *_: None)
    closing = asyncio.create_task(pool.close())
    pool._inventory.closing = True  # as `closing` finds it a turn of the loop later
    with pytest.raises(PoolClosedError):
        await waiter
    await closing
    assert driver.open == 0
