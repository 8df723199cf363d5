from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest

from aiosqlitepool import (
    PoolClosedError,
    PoolConnectionAcquireTimeoutError,
    PoolError,
    PoolFullError,
    PoolUsageError,
    SQLiteConnectionPool,
    subscribe_all,
)
from aiosqlitepool.events import ConnectionAcquired, PoolClosed, PoolEvent, PoolOpened
from aiosqlitepool.testing import Recorder

from ..support.clock import Clock
from ..support.pools import StubPool, in_turn, pool_of, queued
from ..support.slots import check_slots
from ..support.stub import StubDriver, hangs, settle, waits_for
from ..support.timeless import about, timeless


def python(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter of its own; one that does not end is an error."""
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )


# -- names and looks


def test_a_pool_has_the_name_it_was_given() -> None:
    assert SQLiteConnectionPool(StubDriver(), name="app.db").name == "app.db"


def test_pools_without_a_name_are_numbered_in_the_order_of_their_making() -> None:
    program = """
        from aiosqlitepool import SQLiteConnectionPool
        pools = [SQLiteConnectionPool(print), SQLiteConnectionPool(print, name="mine"), SQLiteConnectionPool(print)]
        print(*[pool.name for pool in pools])
    """
    assert python(program).stdout == "pool-1 mine pool-2\n"


def test_a_pool_that_was_not_opened_shows_it() -> None:
    pool = SQLiteConnectionPool(StubDriver(), 20, name="app.db")
    assert repr(pool) == "<SQLiteConnectionPool 'app.db' unopened: 0 used, 0 idle of 20, 0 waiting>"


@timeless
async def test_a_pool_shows_what_it_is_and_how_full_it_is(driver: StubDriver) -> None:
    async with pool_of(driver, 3) as pool:
        held = [await pool.acquire() for _ in range(3)]
        waiting = await in_turn(pool, 2)
        assert repr(pool) == "<SQLiteConnectionPool 'app.db' open: 3 used, 0 idle of 3, 2 waiting>"
        for connection in held:
            await pool.release(connection)
        for task in waiting:
            await pool.release(await task)
    assert repr(pool) == "<SQLiteConnectionPool 'app.db' closed: 0 used, 0 idle of 3, 0 waiting>"


# -- stats and holders


@timeless
async def test_stats_tell_the_limits_and_the_state(driver: StubDriver) -> None:
    pool = pool_of(driver, 3, min_size=1)
    stats = pool.stats()
    assert (stats.pool, stats.state, stats.min_size, stats.max_size) == ("app.db", "unopened", 1, 3)
    async with pool:
        assert pool.stats().state == "open"
    assert pool.stats().state == "closed"


@timeless
async def test_stats_count_used_idle_and_waiting(driver: StubDriver) -> None:
    async with pool_of(driver, 2) as pool:
        first, second = await pool.acquire(), await pool.acquire()
        (waiter,) = await in_turn(pool, 1)
        assert (pool.stats().used, pool.stats().idle, pool.stats().waiting) == (2, 0, 1)
        await pool.release(first)
        await pool.release(second)
        assert (pool.stats().used, pool.stats().idle, pool.stats().waiting) == (1, 1, 0)
        assert pool.stats().size == 2
        await pool.release(await waiter)


@timeless
async def test_a_connection_that_opens_counts_as_used(driver: StubDriver) -> None:
    opened = asyncio.Event()
    driver.on_connect = waits_for(opened)
    async with pool_of(driver, 2) as pool:
        task = await queued(pool)
        assert (pool.stats().used, pool.holders()) == (1, ())
        opened.set()
        await pool.release(await task)


@timeless
async def test_a_connection_that_is_being_reset_counts_as_used_and_is_held_by_nobody(driver: StubDriver) -> None:
    reset = asyncio.Event()
    driver.scripts["on_rollback"] = waits_for(reset)
    async with pool_of(driver, 2) as pool:
        task = asyncio.create_task(pool.release(await pool.acquire()))
        await settle()
        assert (pool.stats().used, pool.holders()) == (1, ())
        reset.set()
        await task
        assert (pool.stats().used, pool.stats().idle) == (0, 1)


@timeless
async def test_stats_tell_the_longest_wait_and_the_longest_lease(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=None) as pool:
        assert (pool.stats().oldest_waiter, pool.stats().oldest_checkout) == (0.0, 0.0)
        held = await pool.acquire()
        await asyncio.sleep(5)
        first = await queued(pool)
        await asyncio.sleep(2)
        second = await queued(pool)
        await asyncio.sleep(1)
        assert pool.stats().oldest_waiter == about(3)
        assert pool.stats().oldest_checkout == about(8)
        await pool.release(held)
        await pool.release(await first)
        await pool.release(await second)
        assert (pool.stats().oldest_waiter, pool.stats().oldest_checkout) == (0.0, 0.0)


async def test_no_age_is_negative_though_a_lease_begins_while_stats_are_being_read(driver: StubDriver) -> None:
    time = 100.0
    pool = pool_of(driver, clock=lambda: time)
    async with pool, pool.connection():
        time = 99.0  # as if the reader had looked at its clock before the lease began
        assert pool.stats().oldest_checkout == 0.0
        assert [holder.held for holder in pool.holders()] == [0.0]


@timeless
async def test_stats_count_what_subscribers_got_wrong(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        pool.events.subscribe(ConnectionAcquired, lambda event: 1 / 0)
        async with pool.connection():
            pass
        assert pool.stats().subscriber_errors == 1


@timeless
async def test_stats_are_a_value_that_later_events_do_not_change(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        before = pool.stats()
        async with pool.connection():
            assert before.used == 0
            with pytest.raises(AttributeError):
                before.used = 5  # type: ignore[misc]


@timeless
async def test_holders_are_told_longest_first_with_task_label_and_age(driver: StubDriver) -> None:
    async with pool_of(driver, 2) as pool:
        first = await queued(pool, "GET /users")
        await asyncio.sleep(3)
        second = await queued(pool, "GET /posts")
        await asyncio.sleep(1)
        holders = pool.holders()
        assert [(each.connection, each.task, each.label) for each in holders] == [
            (1, "GET /users", "GET /users"),
            (2, "GET /posts", "GET /posts"),
        ]
        assert [each.held for each in holders] == [about(4), about(1)]
        await pool.release(first.result())
        assert [each.connection for each in pool.holders()] == [2]
        await pool.release(second.result())
        assert pool.holders() == ()


@timeless
async def test_waiters_are_told_longest_first_with_task_label_and_age(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        async with pool.connection():
            first = await queued(pool, "GET /users")
            await asyncio.sleep(3)
            second = await queued(pool)
            second.set_name("renamed")
            await asyncio.sleep(1)
            assert [(each.task, each.label, each.waited) for each in pool.waiters()] == [
                ("GET /users", "GET /users", about(4)),
                ("renamed", None, about(1)),
            ]
            assert str(pool.waiters()[0]) == "GET /users [GET /users] has waited for 4.000 s"
            first.cancel()
            await settle()
            assert [each.task for each in pool.waiters()] == ["renamed"]
        await pool.release(await second)
        assert pool.waiters() == ()


@timeless
async def test_stats_and_holders_can_be_read_from_another_thread(driver: StubDriver) -> None:
    seen: list[Any] = []
    async with pool_of(driver, 2) as pool, pool.connection(label="GET /users"):
        thread = threading.Thread(target=lambda: seen.extend((pool.stats().used, pool.holders()[0].label, repr(pool))))
        thread.start()
        thread.join()
    assert seen == [1, "GET /users", "<SQLiteConnectionPool 'app.db' open: 1 used, 0 idle of 2, 0 waiting>"]


# -- subscribers


@timeless
async def test_a_subscriber_given_at_construction_sees_the_pool_open(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 3, min_size=0, max_waiting=7, subscribers=[recorder]):
        assert list(recorder) == [PoolOpened("app.db", min_size=0, max_size=3, max_waiting=7)]


@timeless
async def test_a_subscriber_can_come_later_and_leave_again(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver) as pool:
        detach = pool.subscribe(recorder)
        async with pool.connection():
            pass
        assert recorder.names == ["create", "acquire_wait", "release"]
        detach()
        async with pool.connection():
            pass
        assert len(recorder) == 3
        assert pool.events.handlers == {}


async def test_a_subscriber_is_attached_to_a_pool_once_until_it_is_detached_as_often(driver: StubDriver) -> None:
    recorder = Recorder()
    async with SQLiteConnectionPool(driver, subscribers=[recorder, recorder]) as pool:
        again = pool.subscribe(recorder)
        async with pool.connection():
            pass
        again()
        again()
        async with pool.connection():
            pass
    assert recorder.names.count("release") == 2


async def test_a_subscriber_that_is_detached_as_often_as_it_was_attached_can_be_attached_again(
    driver: StubDriver,
) -> None:
    recorder = Recorder()
    async with SQLiteConnectionPool(driver) as pool:
        for _ in range(2):
            for detach in [pool.subscribe(recorder) for _ in range(2)]:
                detach()
        async with pool.connection():
            pass
        assert recorder == []
        pool.subscribe(recorder)
        async with pool.connection():
            pass
    assert recorder.names.count("release") == 1


async def test_a_subscriber_of_a_pool_and_of_all_pools_is_attached_once(driver: StubDriver) -> None:
    recorder = Recorder()
    detach = subscribe_all(recorder)
    try:
        async with SQLiteConnectionPool(driver, subscribers=[recorder]) as pool, pool.connection():
            pass
    finally:
        detach()
    assert recorder.names.count("release") == 1


def test_what_cannot_attach_cannot_subscribe() -> None:
    with pytest.raises(TypeError, match="attach"):
        SQLiteConnectionPool(StubDriver()).subscribe(print)  # type: ignore[arg-type]


@timeless
async def test_several_subscribers_see_the_same_events(driver: StubDriver) -> None:
    first, second = Recorder(), Recorder()
    async with pool_of(driver, subscribers=(each for each in (first, second))) as pool, pool.connection():
        pass
    assert first == second
    assert first.names == ["pool_open", "create", "acquire_wait", "release", "close", "pool_close"]


@timeless
async def test_a_subscriber_to_all_pools_sees_those_that_are_and_those_to_come(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, name="before") as before:
        detach = subscribe_all(recorder)
        async with pool_of(driver, name="after") as after, before.connection(), after.connection():
            pass
        detach()
        detach()  # harmless
        async with before.connection(), pool_of(driver, name="too late"):
            pass
    assert {event.pool for event in recorder} == {"before", "after"}
    assert before.events.handlers == after.events.handlers == {}


def test_who_fails_to_attach_to_a_pool_that_is_stays_with_none_and_spoils_no_later_one(driver: StubDriver) -> None:
    recorder = Recorder()

    class OnlyOnce:
        def attach(self, pool: SQLiteConnectionPool[Any]) -> Callable[[], None]:
            if recorder:
                raise ZeroDivisionError
            detach = recorder.attach(pool)
            pool.events.emit(PoolClosed(pool.name, 0))
            return detach

    pools = [SQLiteConnectionPool(driver) for _ in range(2)]
    with pytest.raises(ZeroDivisionError):
        subscribe_all(OnlyOnce())
    later = SQLiteConnectionPool(driver)
    assert all(pool.events.handlers == {} for pool in (*pools, later))


def test_what_cannot_attach_cannot_subscribe_to_all_pools() -> None:
    with pytest.raises(TypeError, match=r"attach.*5"):
        subscribe_all(5)


async def test_a_class_where_a_subscriber_was_meant_is_refused() -> None:
    class Classwide:
        """A class whose `attach` needs no object of it."""

        @classmethod
        def attach(cls, pool: object) -> Callable[[], None]:
            return lambda: None

    async with pool_of(StubDriver()) as pool:
        for attach in (pool.subscribe, subscribe_all):
            with pytest.raises(TypeError, match=r"subscriber must be an object: Recorder\(\.\.\.\), not the class"):
                attach(Recorder)  # type: ignore[arg-type]
            attach(Classwide)()


# -- where it can be used


def test_a_pool_can_be_made_outside_a_loop_and_used_in_one(driver: StubDriver) -> None:
    pool = SQLiteConnectionPool(driver)

    async def program() -> int:
        async with pool, pool.connection() as connection:
            return connection.number

    assert asyncio.run(program()) == 1


def test_a_pool_opens_with_its_first_use(driver: StubDriver) -> None:
    pool = SQLiteConnectionPool(driver)

    async def program() -> None:
        async with pool.connection():
            assert pool.stats().state == "open"
        await pool.close()

    asyncio.run(program())


def test_a_second_loop_is_told_what_to_do(driver: StubDriver) -> None:
    pool = SQLiteConnectionPool(driver)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        connection = first.run(pool.acquire())
        for attempt in (pool.acquire, pool.open, pool.close):
            with pytest.raises(PoolUsageError, match=r"another event loop|the event loop that it was opened in"):
                second.run(attempt())
        assert pool.stats().used == 1
        first.run(pool.release(connection))
        first.run(pool.close())


def test_a_connection_cannot_be_given_back_in_another_loop(driver: StubDriver) -> None:
    pool = SQLiteConnectionPool(driver)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        connection = first.run(pool.acquire())
        with contextlib.suppress(PoolUsageError):
            second.run(pool.release(connection))
        still_used = pool.stats().used
        if still_used:
            first.run(pool.release(connection))
        first.run(pool.close())
    assert still_used == 1


def test_a_pool_whose_loop_has_ended_is_told_so_and_can_be_closed_from_another(driver: StubDriver) -> None:
    pool = SQLiteConnectionPool(driver)
    with asyncio.Runner() as first:
        first.run(pool.open())
    with asyncio.Runner() as second:
        with pytest.raises(PoolUsageError, match="another event loop"):
            second.run(pool.acquire())
        second.run(pool.close())
    assert pool.stats().state == "closed"


def test_a_forked_child_is_told_to_make_a_pool_of_its_own() -> None:
    done = python("""
        import asyncio, os, sys
        from aiosqlitepool import PoolUsageError, SQLiteConnectionPool
        from tests.support.stub import StubDriver

        pool = SQLiteConnectionPool(StubDriver(), name="app.db")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(pool.open())
        child = os.fork()
        if child == 0:
            for attempt in (pool.acquire, pool.open):
                try:
                    asyncio.run(attempt())
                except PoolUsageError as error:
                    print(error, pool.stats().state, flush=True)
            asyncio.run(pool.close())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("parent:", status, pool.stats().state)
        loop.run_until_complete(pool.close())
        loop.close()
    """)
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    assert all("'app.db'" in line and "fork" in line and line.endswith("forked") for line in lines[:2])
    assert "a pool of its own" in lines[0]
    assert lines[2] == "parent: 0 open"


# -- errors


@pytest.mark.parametrize("kind", [PoolClosedError, PoolFullError, PoolConnectionAcquireTimeoutError, PoolUsageError])
def test_every_error_of_the_pool_is_a_pool_error(kind: type[Exception]) -> None:
    assert issubclass(kind, PoolError)


def test_the_timeout_is_a_timeout_error_and_can_be_made_without_arguments() -> None:
    error = PoolConnectionAcquireTimeoutError()
    assert isinstance(error, TimeoutError)
    assert (error.waited, error.stats, error.holders) == (0.0, None, ())
    assert "in time" in error.message


def test_misuse_is_a_runtime_error() -> None:
    assert issubclass(PoolUsageError, RuntimeError)


# -- what always holds


@timeless
async def test_the_counts_add_up_during_everything(driver: StubDriver) -> None:
    """A storm: half of the callers are cancelled, at every possible moment; every event looks at the pool."""
    seen: set[str] = set()

    def look(event: Any) -> None:
        stats = pool.stats()
        check_slots(pool._inventory.slots)
        assert 0 <= stats.used <= 3
        assert 0 <= stats.idle <= 3
        assert stats.used + stats.idle <= stats.max_size
        assert len(pool.holders()) <= stats.used
        seen.add(event.name)

    async def connect() -> None:
        attempt = driver.attempts
        await asyncio.sleep(attempt % 3)
        if attempt % 7 == 0:
            raise OSError("no more")

    async def undo(connection: Any) -> None:
        if connection.rollbacks % 3 == 0:
            await asyncio.sleep(0.5)
        if connection.rollbacks % 11 == 0:
            raise OSError("cannot roll back")

    async def caller(number: int) -> None:
        await asyncio.sleep(number * 0.1)
        async with pool.connection(label=str(number)):
            await asyncio.sleep(number % 4 * 0.3)

    driver.on_connect = connect
    driver.scripts["on_rollback"] = undo
    pool = pool_of(driver, 3, min_size=1, acquisition_timeout=20, max_lifetime=15, idle_timeout=2, max_waiting=30)
    async with pool:
        pool.events.subscribe(PoolEvent, look)
        tasks = [asyncio.create_task(caller(number)) for number in range(300)]
        for number, task in enumerate(tasks):
            if number % 2:
                asyncio.get_running_loop().call_later(number * 0.1 + number % 13 * 0.4, task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(5)
        assert pool.stats().subscriber_errors == 0
        assert {type(result) for result in results} <= {type(None), asyncio.CancelledError, OSError, PoolFullError}
        assert (pool.stats().used, pool.stats().waiting) == (0, 0)
        driver.on_connect = None
        held = [await pool.acquire() for _ in range(3)]
        assert len(held) == pool.stats().used == 3  # after all that, every place can still be lent
        for connection in held:
            await pool.release(connection)
    assert driver.open == 0
    assert {"create", "create_fail", "acquire_wait", "acquire_cancel", "release", "close"} <= seen


@timeless
async def test_storms_of_cancellations_lose_no_place(driver: StubDriver) -> None:
    async def caller(turns: int) -> None:
        async with pool.connection():
            for _ in range(turns % 5):
                await asyncio.sleep(0)

    driver.scripts["on_rollback"] = lambda _: asyncio.sleep(0)
    async with pool_of(driver, 5, health_check_after=0) as pool:
        tasks = [asyncio.create_task(caller(number)) for number in range(2000)]
        for number, task in enumerate(tasks):
            if number % 2:
                task.cancel()
            if number % 7 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        await settle()
        check_slots(pool._inventory.slots)
        held = [await pool.acquire() for _ in range(5)]
        assert pool.stats().used == 5
        for connection in held:
            await pool.release(connection)
    assert driver.open == 0


def test_the_clock_can_be_given(clock: Clock) -> None:
    async def program() -> None:
        pool: StubPool = SQLiteConnectionPool(StubDriver(), clock=clock)
        async with pool, pool.connection():
            clock.advance(5)
            assert pool.holders()[0].held == 5.0

    asyncio.run(program())


@timeless
async def test_a_hanging_connect_takes_one_place_only(driver: StubDriver) -> None:
    async with pool_of(driver, 2, acquisition_timeout=None) as pool:
        held = await pool.acquire()
        driver.on_connect = hangs
        first = await queued(pool)
        await pool.release(held)
        assert await first is held
        await pool.release(held)
        async with pool.connection() as connection:
            assert connection is held
        assert pool.stats().used == 1  # the hanging connect
