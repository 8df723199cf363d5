"""Subscribers that misbehave: the pool keeps its promises, counts what they did, and logs it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolClosedError, PoolConnectionAcquireTimeoutError, SQLiteConnectionPool, subscribe_all
from aiosqlitepool.events import (
    AcquireTimedOut,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionCreated,
    ConnectionReleased,
    ErrorInfo,
    HealthCheckFailed,
    IdleReplaced,
    PoolClosed,
    PoolEvent,
    PoolOpened,
    SubscriberFailed,
    event_types,
)
from aiosqlitepool.testing import Recorder

from .support.slots import check_slots
from .support.stub import StubDriver, fails, settle
from .support.timeless import block, timeless

PATIENCE = 60.0

Pool = SQLiteConnectionPool[Any]


def pool_of(driver: StubDriver, **settings: Any) -> Pool:
    return SQLiteConnectionPool(driver, **{"pool_size": 2, "name": "app.db", **settings})


def timed_pool_of(driver: StubDriver, **settings: Any) -> Pool:
    """A pool in a timeless loop, whose clock is that loop's own."""
    return pool_of(driver, clock=asyncio.get_running_loop().time, **settings)


def raises(error: BaseException) -> Callable[[PoolEvent], None]:
    def handler(event: PoolEvent) -> None:
        raise error

    return handler


async def works(pool: Pool) -> None:
    async with asyncio.timeout(PATIENCE), contextlib.AsyncExitStack() as stack:
        lent = [await stack.enter_async_context(pool.connection()) for _ in range(pool.stats().max_size)]
        assert len(set(map(id, lent))) == pool.stats().max_size
    check_slots(pool._inventory.slots)
    assert pool.stats().used == 0


async def a_whole_life(pool: Pool, driver: StubDriver) -> None:
    """Makes the pool tell of opening, lending, queueing, timing out, failing, closing."""
    async with pool.connection() as first, pool.connection():
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire()
        first.on_rollback = fails(OSError("no rollback"))
    driver.on_connect = fails(OSError("no connect"))
    async with pool.connection():
        with pytest.raises(OSError, match="no connect"):
            await pool.acquire()
    driver.on_connect = None


BAD_NEWS = [
    ValueError("plain"),
    StopIteration("odd"),
    BaseException("base"),
    GeneratorExit("base too"),
    asyncio.CancelledError("cancelled"),
    TimeoutError("late"),
]


@pytest.mark.parametrize("error", BAD_NEWS, ids=lambda error: type(error).__name__)
@timeless
async def test_a_handler_that_raises_at_every_event_changes_nothing(error: BaseException, driver: StubDriver) -> None:
    pool = timed_pool_of(driver, acquisition_timeout=2)
    pool.events.subscribe(PoolEvent, raises(error))
    await a_whole_life(pool, driver)
    await works(pool)
    await pool.close()
    assert driver.open == 0


@pytest.mark.parametrize("error", BAD_NEWS, ids=lambda error: type(error).__name__)
@timeless
async def test_every_failure_of_a_handler_is_counted(error: BaseException, driver: StubDriver) -> None:
    recorder = Recorder()
    pool = timed_pool_of(driver, acquisition_timeout=2, subscribers=[recorder])
    pool.events.subscribe(PoolEvent, raises(error))
    await a_whole_life(pool, driver)
    await pool.close()
    told = recorder.of(SubscriberFailed)
    assert pool.stats().subscriber_errors == len(told) == len(recorder) - len(told) > 5


async def test_a_failure_is_told_to_the_others_after_the_event_that_it_failed_on(driver: StubDriver) -> None:
    recorder, failing = Recorder(), raises(ValueError("no disk"))
    pool = pool_of(driver)
    pool.events.subscribe(ConnectionReleased, failing)
    pool.subscribe(recorder)
    async with pool, pool.connection():
        pass
    released = recorder.names.index("release")
    assert recorder[released + 1] == SubscriberFailed(
        "app.db", "release", repr(failing), ErrorInfo("ValueError", "no disk")
    )


async def test_a_handler_that_fails_to_hear_of_failures_is_counted_and_told_to_nobody(driver: StubDriver) -> None:
    recorder = Recorder()
    pool = pool_of(driver, subscribers=[recorder])
    pool.events.subscribe(ConnectionReleased, raises(ValueError()))
    pool.events.subscribe(SubscriberFailed, raises(ValueError()))
    async with pool, pool.connection():
        pass
    assert (pool.stats().subscriber_errors, recorder.names.count("subscriber_fail")) == (2, 1)


async def test_a_handler_that_raises_does_not_keep_the_event_from_the_others(driver: StubDriver) -> None:
    before, after = Recorder(), Recorder()
    pool = pool_of(driver, subscribers=[before])
    pool.events.subscribe(PoolEvent, raises(ValueError("in between")))
    pool.subscribe(after)
    async with pool, pool.connection():
        pass
    others = [event for event in before if not isinstance(event, SubscriberFailed)]
    assert others == [event for event in after if not isinstance(event, SubscriberFailed)]
    assert {"pool_open", "create", "acquire_wait", "release", "close", "pool_close"} <= set(after.names)


async def test_failures_of_a_handler_are_logged_once_and_then_rarely(
    driver: StubDriver, caplog: pytest.LogCaptureFixture
) -> None:
    pool = pool_of(driver)
    pool.events.subscribe(ConnectionReleased, raises(ValueError("over and over")))
    with caplog.at_level(logging.ERROR, "aiosqlitepool"):
        async with pool:
            for _ in range(100):
                async with pool.connection():
                    pass
    (record,) = [record for record in caplog.records if "subscriber" in record.message]
    assert "release" in record.message
    assert record.exc_info is not None
    assert "over and over" in str(record.exc_info[1])
    assert pool.stats().subscriber_errors == 100


async def test_a_handler_that_raises_cancelled_error_cancels_nobody(driver: StubDriver) -> None:
    pool = pool_of(driver)
    pool.events.subscribe(ConnectionAcquired, raises(asyncio.CancelledError()))
    me = asyncio.current_task()
    assert me is not None
    async with pool:
        async with pool.connection():
            await asyncio.sleep(0)
        assert me.cancelling() == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt("Ctrl-C"), SystemExit(3)], ids=["KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("event_type", [ConnectionCreated, ConnectionAcquired, ConnectionReleased, PoolOpened])
def test_an_interrupt_in_a_handler_ends_the_program_and_leaves_the_pool_whole(
    error: BaseException, event_type: type[PoolEvent], driver: StubDriver
) -> None:
    pool = pool_of(driver)
    whole: list[str] = []

    def handler(event: PoolEvent) -> None:
        detach()
        raise error

    async def main() -> None:
        try:
            async with pool.connection():
                await asyncio.sleep(0)
            await asyncio.sleep(PATIENCE)
        finally:
            await works(pool)
            await pool.close()
            whole.append(repr(pool))

    detach = pool.events.subscribe(event_type, handler)
    with pytest.raises(type(error)):
        asyncio.run(main())
    assert whole == ["<SQLiteConnectionPool 'app.db' closed: 0 used, 0 idle of 2, 0 waiting>"]
    assert pool.stats().subscriber_errors == 1
    assert driver.open == 0


async def test_a_handler_that_unsubscribes_itself_is_not_called_again(driver: StubDriver) -> None:
    calls: list[PoolEvent] = []
    pool = pool_of(driver)

    def once(event: PoolEvent) -> None:
        calls.append(event)
        detach()

    detach = pool.events.subscribe(ConnectionReleased, once)
    async with pool:
        for _ in range(3):
            async with pool.connection():
                pass
    assert len(calls) == 1


async def test_a_handler_that_unsubscribes_another_does_not_keep_this_event_from_a_third(driver: StubDriver) -> None:
    second, third = Recorder(), Recorder()
    pool = pool_of(driver)
    pool.events.subscribe(ConnectionReleased, lambda event: detach_second())
    detach_second = pool.subscribe(second)
    pool.subscribe(third)
    async with pool:
        for _ in range(2):
            async with pool.connection():
                pass
    assert len(third.of(ConnectionReleased)) == 2
    assert len(second.of(ConnectionReleased)) <= 1


async def test_a_handler_that_subscribes_another_adds_it_from_the_next_event_on(driver: StubDriver) -> None:
    late = Recorder()
    pool = pool_of(driver)

    def handler(event: PoolEvent) -> None:
        detach()
        pool.subscribe(late)

    detach = pool.events.subscribe(ConnectionAcquired, handler)
    async with pool, pool.connection():
        pass
    assert late.names[0] == "release"


async def test_a_handler_that_subscribes_itself_anew_each_time_does_not_go_on_for_ever(driver: StubDriver) -> None:
    calls: list[PoolEvent] = []
    pool = pool_of(driver)

    def handler(event: PoolEvent) -> None:
        calls.append(event)
        pool.events.subscribe(ConnectionAcquired, handler)

    pool.events.subscribe(ConnectionAcquired, handler)
    async with pool:
        for _ in range(3):
            async with pool.connection():
                pass
    assert len(calls) == 1 + 2 + 4


async def test_a_handler_that_unsubscribes_itself_and_then_raises_is_forgotten(driver: StubDriver) -> None:
    pool = pool_of(driver)

    def handler(event: PoolEvent) -> None:
        detach()
        raise ValueError("and goodbye")

    detach = pool.events.subscribe(ConnectionAcquired, handler)
    async with pool, pool.connection():
        pass
    assert pool.stats().subscriber_errors == 1
    assert not pool.events._failures._silenced, "the bus remembers a handler that is gone"


@pytest.mark.parametrize("event_type", event_types(), ids=lambda event_type: event_type.name)
@timeless
async def test_what_a_handler_reads_of_the_pool_adds_up_at_every_event(
    event_type: type[PoolEvent], driver: StubDriver
) -> None:
    seen: list[Any] = []
    pool = timed_pool_of(driver, acquisition_timeout=2)

    def handler(event: PoolEvent) -> None:
        stats = pool.stats()
        assert 0 <= stats.used <= stats.max_size
        assert stats.used + stats.idle <= stats.max_size
        check_slots(pool._inventory.slots, len(pool._inventory._preparing))
        assert len(pool.holders()) <= stats.used
        seen.append(repr(pool))

    pool.events.subscribe(event_type, handler)
    await a_whole_life(pool, driver)
    await pool.close()
    assert pool.stats().subscriber_errors == 0, seen


@pytest.mark.usefixtures("clean_releases")
async def test_a_handler_sees_the_world_that_its_event_made(driver: StubDriver) -> None:
    worlds: dict[str, tuple[int, int, str]] = {}
    pool = pool_of(driver)

    def handler(event: PoolEvent) -> None:
        stats = pool.stats()
        worlds[event.name] = (stats.used, stats.idle, stats.state)

    pool.events.subscribe(PoolEvent, handler)
    async with pool, pool.connection():
        pass
    assert worlds == {
        "pool_open": (0, 0, "open"),
        "create": (1, 0, "open"),
        "acquire_wait": (1, 0, "open"),
        "release": (0, 1, "open"),
        "close": (0, 0, "closing"),
        "pool_close": (0, 0, "closed"),
    }


@pytest.mark.parametrize(
    "event_type", [ConnectionCreated, ConnectionAcquired, ConnectionReleased, AcquireTimedOut, ConnectionClosed]
)
@timeless
async def test_a_handler_that_starts_a_task_which_acquires_gets_its_connection(
    event_type: type[PoolEvent], driver: StubDriver
) -> None:
    pool = timed_pool_of(driver, acquisition_timeout=1)
    tasks: list[asyncio.Task[None]] = []

    async def borrow() -> None:
        with contextlib.suppress(PoolConnectionAcquireTimeoutError, PoolClosedError):
            async with pool.connection(label="from a handler"):
                await asyncio.sleep(0)

    def handler(event: PoolEvent) -> None:
        if len(tasks) < 5:
            tasks.append(asyncio.ensure_future(borrow()))

    pool.events.subscribe(event_type, handler)
    async with asyncio.timeout(PATIENCE):
        async with pool.connection() as connection:
            if event_type is ConnectionClosed:
                connection.on_rollback = fails(OSError())
        if event_type is AcquireTimedOut:
            async with pool.connection(), pool.connection():
                with pytest.raises(PoolConnectionAcquireTimeoutError):
                    await pool.acquire()
        await settle()
        assert tasks
        await asyncio.gather(*tasks)
        await works(pool)
        await pool.close()


@pytest.mark.parametrize(
    "event_type", [PoolOpened, ConnectionCreated, ConnectionAcquired, ConnectionReleased, HealthCheckFailed]
)
async def test_a_handler_that_closes_the_pool_closes_it(event_type: type[PoolEvent], driver: StubDriver) -> None:
    pool = pool_of(driver, health_check_after=0)
    closing: list[asyncio.Task[None]] = []

    def handler(event: PoolEvent) -> None:
        if not closing:
            closing.append(asyncio.ensure_future(pool.close()))

    pool.events.subscribe(event_type, handler)
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(PoolClosedError):
            async with pool.connection():
                await settle()
            driver.connections[0].on_execute = fails(OSError("dead"))
            async with pool.connection():
                await settle()
        await closing[0]
    assert pool.stats().state == "closed"
    assert driver.open == 0
    with pytest.raises(PoolClosedError):
        await pool.acquire()


async def test_a_handler_of_the_pools_own_close_may_close_it_again(driver: StubDriver) -> None:
    pool = pool_of(driver)
    again: list[asyncio.Task[None]] = []
    pool.events.subscribe(PoolClosed, lambda event: again.append(asyncio.ensure_future(pool.close())))
    async with pool, pool.connection():
        pass
    await asyncio.gather(*again)
    assert len(again) == 1


async def test_a_handler_that_gives_the_connection_back_behind_its_holder_breaks_nothing(driver: StubDriver) -> None:
    pool = pool_of(driver)

    def handler(event: PoolEvent) -> None:
        with contextlib.suppress(StopIteration):
            pool.release(driver.connections[0]).send(None)  # as wrong as can be: a release within the acquire

    detach = pool.events.subscribe(ConnectionAcquired, handler)
    with contextlib.suppress(RuntimeError):
        async with pool.connection():
            pass
    detach()
    await works(pool)
    await pool.close()
    assert driver.open == 0


@timeless
async def test_a_handler_that_blocks_delays_and_loses_nothing(driver: StubDriver) -> None:
    recorder = Recorder()
    pool = timed_pool_of(driver, subscribers=[recorder], acquisition_timeout=PATIENCE)
    pool.events.subscribe(ConnectionReleased, lambda event: block(0.005))

    async def borrow() -> None:
        async with pool.connection():
            await asyncio.sleep(0)

    async with pool:
        await asyncio.gather(*(borrow() for _ in range(20)))
        await works(pool)
    assert recorder.names.count("acquire_wait") == recorder.names.count("release") == 22


@pytest.mark.usefixtures("clean_releases")
@timeless
async def test_a_handler_that_blocks_past_the_deadline_lets_who_was_handed_a_place_have_it(
    driver: StubDriver,
) -> None:
    pool = timed_pool_of(driver, pool_size=1, acquisition_timeout=5)
    async with pool:
        first = await pool.acquire()
        waiting = asyncio.ensure_future(pool.acquire())
        await settle()
        detach = pool.events.subscribe(ConnectionReleased, lambda event: block(6))
        await pool.release(first)
        detach()
        # Late it is, but it was its turn and the place was free in time.
        assert await waiting is first
        await pool.release(first)


class Broken:
    """Subscribes to something, and then fails."""

    def __init__(self) -> None:
        self.events = list[PoolEvent]()

    def attach(self, pool: Pool) -> Callable[[], None]:
        pool.events.subscribe(PoolEvent, self.events.append)
        raise RuntimeError("no exporter")


async def test_a_subscriber_that_fails_to_attach_is_logged_and_left_out_of_a_new_pool(
    driver: StubDriver, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken()
    async with pool_of(driver, subscribers=[broken, recorder]) as pool:
        await works(pool)
    assert (broken.events, recorder.names[0]) == ([], "pool_open")
    (record,) = caplog.records
    assert "pool 'app.db': subscriber" in record.message
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "no exporter"


async def test_a_subscriber_of_all_pools_that_fails_to_attach_is_left_out_of_a_new_pool(
    driver: StubDriver, caplog: pytest.LogCaptureFixture
) -> None:
    class Fickle(Recorder):
        fails = False

        def attach(self, pool: Pool, /) -> Callable[[], None]:
            if self.fails:
                raise RuntimeError("no exporter")
            return super().attach(pool)

    fickle = Fickle()
    detach = subscribe_all(fickle)
    fickle.fails = True
    try:
        async with pool_of(driver) as pool:
            await works(pool)
    finally:
        detach()
    assert "could not be attached and is left out" in caplog.text


async def test_a_subscriber_that_fails_to_attach_to_a_pool_that_exists_raises(driver: StubDriver) -> None:
    broken = Broken()
    async with pool_of(driver) as pool:
        with pytest.raises(RuntimeError, match="no exporter"):
            pool.subscribe(broken)
        await works(pool)
    assert broken.events == []


@pytest.mark.parametrize("wrong", [object(), Recorder])
def test_what_is_no_subscriber_is_refused_at_once(wrong: Any, driver: StubDriver) -> None:
    with pytest.raises(TypeError, match="subscriber must"):
        pool_of(driver, subscribers=[wrong])
    assert pool_of(driver).name == "app.db"


@timeless
async def test_a_handler_that_raises_while_idle_connections_are_trimmed_stops_no_trimming(driver: StubDriver) -> None:
    pool = timed_pool_of(driver, idle_timeout=1)
    pool.events.subscribe(IdleReplaced, raises(BaseException("trim")))
    async with pool:
        async with pool.connection(), pool.connection():
            pass
        async with asyncio.timeout(PATIENCE):
            while pool.stats().size:
                await asyncio.sleep(0.005)
    assert pool.stats().subscriber_errors == 2


async def test_on_a_real_file_handlers_that_raise_at_everything_cost_no_row(tmp_path: Path) -> None:
    pool = SQLiteConnectionPool(lambda: aiosqlite.connect(tmp_path / "app.db"), 2, name="app.db")
    pool.events.subscribe(PoolEvent, raises(asyncio.CancelledError()))
    async with asyncio.timeout(PATIENCE), pool:
        async with pool.connection() as connection:
            await connection.execute("CREATE TABLE t (x)")
            await connection.execute("INSERT INTO t VALUES (1)")
            await connection.commit()
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO t VALUES (2)")  # not committed: undone on return
        async with pool.connection() as connection:
            assert await connection.execute_fetchall("SELECT x FROM t") == [(1,)]


def test_a_ctrl_c_in_a_handler_outside_any_loop_is_logged_before_it_ends_the_program(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = pool_of(StubDriver())
    pool.events.subscribe(ConnectionReleased, raises(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        pool.events.emit(ConnectionReleased("app.db", 1, 0.1))
    assert "failed on 'release'" in caplog.text
    assert pool.stats().subscriber_errors == 1
