"""Callers that wait for a connection whose holder waits for them: told at once, and only if it can never succeed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError
from aiosqlitepool.events import AcquireTimedOut
from aiosqlitepool.testing import Recorder

from ..support.pools import StubPool, pool_of
from ..support.stub import StubDriver
from ..support.timeless import about, timeless

Outer = Callable[[StubPool], Coroutine[Any, Any, None]]


async def use(pool: StubPool, timeout: float | None = None) -> None:
    async with pool.connection(timeout=timeout):
        pass


async def in_a_task(pool: StubPool) -> None:
    await asyncio.create_task(use(pool))


async def in_a_gather(pool: StubPool) -> None:
    await asyncio.gather(use(pool), use(pool))


async def in_a_task_group(pool: StubPool) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(use(pool))
        group.create_task(asyncio.sleep(100))


async def in_a_grandchild(pool: StubPool) -> None:
    await asyncio.wait_for(asyncio.create_task(in_a_gather(pool)), 20)


async def one_error(work: Coroutine[Any, Any, object]) -> PoolConnectionAcquireTimeoutError:
    """Return the only error of a kind that this raises."""
    try:
        await work
    except* PoolConnectionAcquireTimeoutError as group:
        (error,) = group.exceptions
    assert isinstance(error, PoolConnectionAcquireTimeoutError)
    return error


@timeless
@pytest.mark.parametrize("child", [in_a_task, in_a_gather, in_a_task_group, in_a_grandchild])
async def test_a_caller_for_which_the_holder_waits_is_refused_at_once(
    driver: StubDriver, recorder: Recorder, child: Outer
) -> None:
    async with pool_of(driver, 1, acquisition_timeout=30, subscribers=[recorder]) as pool:

        async def outer() -> None:
            async with pool.connection(label="outer"):
                await child(pool)

        error = await one_error(outer())
        assert error.waited == about(0.25)
        assert "[outer] has held connection 1" in str(error)
        assert "The holder of connection 1 waits for this task to end: " in str(error)
        assert str(error).endswith("The pool did not wait until the timeout, because that would not help.")
        assert recorder.of(AcquireTimedOut)[0].wait_time == about(0.25)


@timeless
async def test_a_caller_that_holds_every_connection_itself_is_refused_at_once(driver: StubDriver) -> None:
    async with pool_of(driver, 2, acquisition_timeout=30) as pool:
        async with pool.connection(), pool.connection():
            error = await one_error(use(pool))
    assert error.waited == about(0.25)
    assert "The waiting task itself holds connections 1, 2: " in str(error)


@timeless
async def test_a_caller_is_refused_as_soon_as_the_holder_begins_to_wait_for_it(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=30) as pool:
        async with pool.connection():
            child = asyncio.create_task(use(pool))
            await asyncio.sleep(5.1)
            error = await one_error(asyncio.gather(child))
    assert error.waited == about(5.25, within=0.2)


@timeless
async def test_a_caller_whose_holders_are_several_that_all_wait_for_it_is_refused_at_once(driver: StubDriver) -> None:
    async with pool_of(driver, 2, acquisition_timeout=30) as pool:

        async def inner() -> None:
            async with pool.connection():
                await in_a_task(pool)

        async with pool.connection():
            error = await one_error(asyncio.gather(inner()))
    assert error.waited == about(0.25)
    assert "The holder of connections 1, 2 waits for this task to end: " in str(error)


@timeless
async def test_others_that_wait_for_the_same_connection_get_it(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=30) as pool:
        async with pool.connection():
            before = asyncio.create_task(use(pool))
            await asyncio.sleep(0)
            await one_error(in_a_task(pool))
        await before


@timeless
async def test_of_two_callers_for_which_a_holder_waits_the_first_to_time_out_is_refused_first(
    driver: StubDriver,
) -> None:
    async with pool_of(driver, 1, acquisition_timeout=30) as pool:
        async with pool.connection():
            both = await asyncio.gather(use(pool), use(pool, timeout=20), return_exceptions=True)
        assert [type(each) for each in both] == [PoolConnectionAcquireTimeoutError] * 2
        assert [each.waited for each in both if isinstance(each, PoolConnectionAcquireTimeoutError)] == [
            about(0.5),
            about(0.25),
        ]


@timeless
@pytest.mark.parametrize(
    "waits",
    [
        lambda child: asyncio.sleep(10),
        lambda child: asyncio.wait({child}, timeout=10),
        lambda child: asyncio.wait_for(asyncio.shield(child), 10),
        lambda child: asyncio.wait({child, asyncio.create_task(asyncio.sleep(10))}, return_when="FIRST_COMPLETED"),
        lambda child: asyncio.gather(child, fail_after(10)),
    ],
)
async def test_a_caller_is_not_refused_if_the_holder_goes_on_without_it(
    driver: StubDriver, waits: Callable[[asyncio.Task[None]], Any]
) -> None:
    async with pool_of(driver, 1, acquisition_timeout=30) as pool:
        try:
            async with pool.connection():
                child = asyncio.create_task(use(pool))
                await waits(child)
        except (TimeoutError, ValueError):
            pass
        await child


@timeless
async def test_a_caller_is_not_refused_if_a_timeout_ends_the_holder_and_not_the_caller(driver: StubDriver) -> None:
    async def outer() -> None:
        async with pool.connection():
            await asyncio.wait({child})

    async with pool_of(driver, 1, acquisition_timeout=30) as pool:
        holding = asyncio.create_task(outer())
        await asyncio.sleep(0)
        child = asyncio.create_task(use(pool))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(holding, 10)
        await child


async def fail_after(seconds: float) -> None:
    await asyncio.sleep(seconds)
    raise ValueError


@timeless
async def test_a_caller_is_not_refused_if_one_that_it_does_not_hold_up_has_a_connection(driver: StubDriver) -> None:
    async def report() -> None:
        async with pool.connection():
            await asyncio.sleep(10)

    async with pool_of(driver, 2, acquisition_timeout=30) as pool, pool.connection():
        reporting = asyncio.create_task(report())
        await asyncio.sleep(0)
        await in_a_task(pool)
        await reporting


@timeless
async def test_a_caller_is_not_refused_if_another_task_releases_what_the_holder_acquired(driver: StubDriver) -> None:
    async def release(connection: Any) -> None:
        await asyncio.sleep(10)
        await pool.release(connection)

    async with pool_of(driver, 1, acquisition_timeout=30) as pool:
        held = await pool.acquire()
        async with asyncio.TaskGroup() as group:
            group.create_task(release(held))
            group.create_task(use(pool))


@timeless
async def test_a_callback_that_waits_is_refused_at_its_timeout_only(driver: StubDriver) -> None:
    async with pool_of(driver, 1, acquisition_timeout=30) as pool, pool.connection():
        waiting = use(pool)
        context: list[Any] = []
        asyncio.get_running_loop().call_soon(lambda: context.append(waiting.send(None)))
        await asyncio.sleep(29)
        assert pool.stats().waiting == 1
        await asyncio.sleep(2)
        assert pool.stats().waiting == 0
        waiting.close()
