from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import weakref
from dataclasses import replace
from typing import Any

import pytest

from aiosqlitepool import Holder, PoolConnectionAcquireTimeoutError, PoolFullError, PoolStats
from aiosqlitepool.events import ErrorInfo
from aiosqlitepool.pool.diagnostics import counts, explain_deadlock, explain_full, explain_timeout

from ..support.pools import StubPool, immediately, in_turn, pool_of, queued
from ..support.stub import StubDriver, fails, settle
from ..support.timeless import about, timeless

STATS = PoolStats(
    "app.db", "open", 20, 0, used=3, idle=1, waiting=2, oldest_waiter=1.0, oldest_checkout=2.0, subscriber_errors=0
)


def holder(connection: int, held: float = 1.5, label: str | None = None) -> Holder:
    return Holder(connection, f"Task-{connection}", label, held)


def test_counts_are_the_levels_of_the_pool_in_words() -> None:
    assert counts(STATS) == "3 used, 1 idle of 20, 2 waiting"


def test_a_holder_is_named_with_task_label_connection_and_age() -> None:
    assert str(holder(7, 1.5, "GET /users")) == "Task-7 [GET /users] has held connection 7 for 1.500 s"
    assert str(holder(7)) == "Task-7 has held connection 7 for 1.500 s"


def test_a_timeout_says_how_long_the_caller_waited_and_what_the_levels_were() -> None:
    message = explain_timeout(0.9, STATS, (), (), None)
    assert message.startswith("no connection from pool 'app.db' within 0.900 s (3 used, 1 idle of 20, 2 waiting).")


def test_a_timeout_counts_the_connections_in_use_without_a_holder() -> None:
    message = explain_timeout(0.9, STATS, (holder(1), holder(2)), (), None)
    assert "1 of those used is being opened, checked, reset or handed on" in message


def test_a_timeout_names_the_last_failure_to_connect_and_its_age() -> None:
    message = explain_timeout(0.9, STATS, (), (), (ErrorInfo("OSError", "disk I/O error"), 2.5))
    assert "The last attempt to connect failed 2.500 s ago: OSError: disk I/O error." in message


def test_a_timeout_names_at_most_five_holders_and_counts_the_rest() -> None:
    message = explain_timeout(0.9, STATS, tuple(holder(number) for number in range(1, 8)), (), None)
    assert re.findall(r"Task-(\d)", message) == ["1", "2", "3", "4", "5"]
    assert message.endswith("; and 2 more.")


def test_with_five_holders_there_is_no_rest_to_count() -> None:
    assert "more" not in explain_timeout(0.9, STATS, tuple(holder(number) for number in range(1, 6)), (), None)


def test_a_timeout_names_the_connections_that_the_waiting_task_holds_itself() -> None:
    message = explain_timeout(0.9, STATS, (holder(1), holder(2)), list(explain_deadlock([2], [], [])), None)
    assert "The waiting task itself holds connection 2: " in message
    assert "deadlock" in message


def test_a_timeout_names_the_connections_of_tasks_that_wait_for_the_waiting_task() -> None:
    (text,) = explain_deadlock([], [1, 2], [])
    assert text.startswith("the holder of connections 1, 2 waits for this task to end: ")


def test_a_timeout_names_the_connections_of_other_pools_for_which_its_holders_wait() -> None:
    (text,) = explain_deadlock([], [], ["connection 1 of pool 'app.db/read' [auth]"])
    assert text.startswith(
        "the waiting task, or one that waits for it, holds connection 1 of pool 'app.db/read' [auth]"
    )


def test_a_holder_without_a_label_is_named_by_its_coroutine() -> None:
    assert str(Holder(7, "Task-7", None, 1.5, coroutine="OrderService.save")) == (
        "OrderService.save (Task-7) has held connection 7 for 1.500 s"
    )


def test_a_timeout_writes_the_name_of_a_coroutine_as_it_is() -> None:
    holders = (Holder(1, "Task-1", None, 1.5, coroutine="save"),)
    assert ". save (Task-1) has held" in explain_timeout(0.9, STATS, holders, ["because"], None)
    assert explain_timeout(0.9, STATS, holders, ["because"], None).endswith(" Because.")


def test_a_holder_is_named_with_the_pool_that_it_waits_for() -> None:
    assert str(Holder(7, "Task-7", "auth", 1.5, coroutine="main", waits_for="app.db/write", waited=1.2)) == (
        "Task-7 [auth] has held connection 7 for 1.500 s and has waited for app.db/write for 1.200 s"
    )


def test_a_full_queue_names_its_limit_and_the_levels_of_the_pool() -> None:
    message = explain_full(replace(STATS, max_waiting=2))
    assert message == (
        "pool 'app.db' is full: max_waiting=2 lets no more callers wait (3 used, 1 idle of 20, 2 waiting). "
        "Try again later, shorten the blocks that hold connections, or raise max_waiting"
    )


@timeless
async def test_the_timeout_of_a_full_pool_names_its_holders_their_labels_and_their_ages(driver: StubDriver) -> None:
    async with pool_of(driver, 2, acquisition_timeout=0.9) as pool:
        held = [(await queued(pool, "GET /users")).result()]
        await asyncio.sleep(10)
        held.append((await queued(pool, "POST /users")).result())
        with pytest.raises(PoolConnectionAcquireTimeoutError) as caught:
            await pool.acquire()
        message = str(caught.value)
        assert message.startswith("no connection from pool 'app.db' within 0.900 s (2 used, 0 idle of 2, 0 waiting)")
        assert "GET /users [GET /users] has held connection 1 for 10.900 s" in message
        assert "POST /users [POST /users] has held connection 2 for 0.900 s" in message
        assert "deadlock" not in message
        for connection in held:
            await pool.release(connection)


@timeless
async def test_the_timeout_has_its_facts_as_attributes(driver: StubDriver) -> None:
    async with pool_of(driver, 2, acquisition_timeout=0.9) as pool:
        held = [await pool.acquire(label=label) for label in ("first", "second")]
        with pytest.raises(PoolConnectionAcquireTimeoutError) as caught:
            await pool.acquire()
        for connection in held:
            await pool.release(connection)
        assert caught.value.waited == about(0.9)
        assert caught.value.stats is not None
        assert (caught.value.stats.used, caught.value.stats.max_size) == (2, 2)
        assert [each.label for each in caught.value.holders] == ["first", "second"]
        assert caught.value.message == str(caught.value)


@timeless
async def test_the_timeout_of_a_task_that_waits_for_its_own_connection_says_so(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=0.9) as pool, pool.connection():
        with pytest.raises(
            PoolConnectionAcquireTimeoutError, match=r"waiting task itself holds connection 1: .*deadlock"
        ):
            await pool.acquire()


@timeless
async def test_a_holder_whose_task_has_ended_is_marked(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=1) as pool:
        held = await asyncio.create_task(pool.acquire(label="forgotten"), name="Brief")
        assert [holder.ended for holder in pool.holders()] == [True]
        with pytest.raises(PoolConnectionAcquireTimeoutError, match=r"Brief \[forgotten\] has .* s \(and has ended\)"):
            await pool.acquire()
        await pool.release(held)


@timeless
async def test_callers_that_time_out_together_share_one_description_of_the_pool(driver: StubDriver) -> None:
    async with pool_of(driver, 2, acquisition_timeout=3) as pool:
        held = [await pool.acquire(), await pool.acquire()]
        together = [asyncio.create_task(pool.acquire()) for _ in range(5)]
        await asyncio.sleep(1)
        later = asyncio.create_task(pool.acquire())
        await asyncio.wait({*together, later})
        errors = [task.exception() for task in together]
        assert all(isinstance(error, PoolConnectionAcquireTimeoutError) for error in errors)
        assert len({id(error) for error in errors}) == 5
        assert len({id(error.holders) for error in errors}) == 1  # type: ignore[union-attr]
        last = later.exception()
        assert isinstance(last, PoolConnectionAcquireTimeoutError)
        assert [holder.held for holder in last.holders] == [about(4), about(4)]
        for connection in held:
            await pool.release(connection)


@timeless
async def test_the_timeout_does_not_suspect_a_task_that_released_its_connection(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=0.9) as pool:
        async with pool.connection():
            pass
        other = await queued(pool)
        with pytest.raises(PoolConnectionAcquireTimeoutError) as caught:
            await pool.acquire()
        assert "deadlock" not in str(caught.value)
        await pool.release(other.result())


@timeless
async def test_the_timeout_of_a_waiter_names_the_last_failure_to_connect(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=5) as pool:
        driver.on_connect = fails(OSError("disk I/O error"))
        with pytest.raises(OSError, match="disk"):
            await pool.acquire()
        await asyncio.sleep(2)
        driver.on_connect = asyncio.Event().wait
        with pytest.raises(
            PoolConnectionAcquireTimeoutError, match=r"connect failed 7\.\d+ s ago: OSError: disk I/O error"
        ):
            await pool.acquire()


@timeless
async def test_a_failure_to_connect_is_forgotten_once_connecting_succeeds(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=5) as pool:
        driver.on_connect = fails(OSError("disk I/O error"))
        with pytest.raises(OSError, match="disk"):
            await pool.acquire()
        driver.on_connect = None
        async with pool.connection():
            with pytest.raises(PoolConnectionAcquireTimeoutError) as caught:
                await pool.acquire()
        assert "disk" not in str(caught.value)


@timeless
async def test_a_rejected_caller_learns_the_limit(driver: StubDriver) -> None:
    async with pool_of(driver, 1, max_waiting=0) as pool, pool.connection():
        with pytest.raises(
            PoolFullError, match=r"max_waiting=0 lets no more callers wait \(1 used, 0 idle of 1, 0 waiting\)"
        ):
            await pool.acquire()


@timeless
async def test_a_timeout_names_a_callback_that_holds_a_connection(driver: StubDriver) -> None:
    lent: list[Any] = []
    async with pool_of(driver, 1, acquisition_timeout=2) as pool:
        await pool.release(await pool.acquire())
        asyncio.get_running_loop().call_soon(lambda: lent.append(immediately(pool.acquire())))
        with pytest.raises(PoolConnectionAcquireTimeoutError, match="A callback has held connection 1 for 2.000 s"):
            await asyncio.create_task(_later(pool))
        await pool.release(lent[0])


async def _later(pool: StubPool) -> None:
    await asyncio.sleep(0)
    await pool.acquire()


# -- holders and waiters


@timeless
async def test_holders_and_waiters_are_listed_longest_first(driver: StubDriver) -> None:
    async with pool_of(driver, 2) as pool:
        held = []
        for label in ("first", "second"):
            held.append((await queued(pool, label)).result())
            await asyncio.sleep(2)
        waiters = await in_turn(pool, 2)
        await asyncio.sleep(3)
        assert [(each.label, each.held) for each in pool.holders()] == [("first", about(7)), ("second", about(5))]
        assert [(each.task, each.waited) for each in pool.waiters()] == [
            ("waiter 1", about(3)),
            ("waiter 2", about(3)),
        ]
        stats = pool.stats()
        assert (stats.oldest_checkout, stats.oldest_waiter, stats.waiting) == (about(7), about(3), 2)
        for connection in held:
            await pool.release(connection)
        for waiter in waiters:
            await pool.release(await waiter)
        assert (pool.holders(), pool.waiters()) == ((), ())
        assert (pool.stats().oldest_checkout, pool.stats().oldest_waiter) == (0, 0)


async def save(pool: StubPool) -> None:
    async with pool.connection():
        await asyncio.sleep(10)


@timeless
async def test_a_holder_is_known_by_the_coroutine_of_its_task(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        saving = asyncio.create_task(save(pool), name="Task-0")
        await asyncio.sleep(1)
        assert [str(each) for each in pool.holders()] == ["save (Task-0) has held connection 1 for 1.000 s"]
        await saving


# -- who waits for whom, across pools


async def first_one_then_the_other(one: StubPool, other: StubPool, label: str) -> None:
    async with one.connection(label=label):
        await asyncio.sleep(1)
        async with other.connection():
            pass


@timeless
async def test_the_timeout_of_two_that_wait_crosswise_names_both(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=3) as one, pool_of(driver, 1, name="other") as other:
        reading = asyncio.create_task(first_one_then_the_other(other, one, "auth"), name="Reading")
        writing = asyncio.create_task(first_one_then_the_other(one, other, "order"), name="Writing")
        with pytest.raises(PoolConnectionAcquireTimeoutError) as caught:
            await reading
        assert "Writing [order] has held connection 1 for 4.000 s and has waited for other for 3.000 s." in str(
            caught.value
        )
        assert "one that waits for it, holds connection 1 of pool 'other' [auth], for which a holder" in str(
            caught.value
        )
        (holder,) = caught.value.holders
        assert (holder.waits_for, holder.waited) == ("other", about(3))
        await writing


@timeless
async def test_a_timeout_that_is_handled_leaves_nothing_to_the_garbage_collector(driver: StubDriver) -> None:
    async def waits() -> None:
        local = Local()
        seen.append(weakref.ref(local))
        with contextlib.suppress(PoolConnectionAcquireTimeoutError):
            await pool.acquire()

    seen: list[weakref.ref[Local]] = []
    async with pool_of(driver, 1, acquisition_timeout=3) as pool:
        held = await pool.acquire()
        gc.disable()
        try:
            await asyncio.wait({asyncio.create_task(waits())})
            await settle()
            assert seen[0]() is None
        finally:
            gc.enable()
        await pool.release(held)


class Local:
    """Something in a frame."""


@timeless
async def test_a_holder_that_waits_no_longer_waits_for_nothing(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as one, pool_of(driver, 1, name="other") as other:
        held = await other.acquire()
        async with one.connection():
            waiting = asyncio.create_task(other.acquire())
            await settle()
            waiting.cancel()
            await settle()
            assert [each.waits_for for each in one.holders()] == [None]
        assert not other._diagnostics.requests
        await other.release(held)


@timeless
async def test_a_holder_that_waits_in_a_pool_of_its_own_is_shown_so(driver: StubDriver) -> None:
    async with pool_of(driver, 2, acquisition_timeout=3) as pool:
        tasks = [asyncio.create_task(first_one_then_the_other(pool, pool, "one"))]
        await asyncio.sleep(0.5)
        tasks.append(asyncio.create_task(first_one_then_the_other(pool, pool, "two")))
        await asyncio.sleep(1.5)
        assert [(each.waits_for, each.waited) for each in pool.holders()] == [
            ("app.db", about(1)),
            ("app.db", about(0.5)),
        ]
        await asyncio.wait(tasks)
        errors = [task.exception() for task in tasks]
        # Each may go on when the other times out, so neither is refused early.
        assert isinstance(errors[0], PoolConnectionAcquireTimeoutError)
        assert (errors[0].waited, errors[1]) == (about(3), None)
