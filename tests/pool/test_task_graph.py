from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from aiosqlitepool.pool.task_graph import awaiting, held_up_by

from ..support.stub import settle

Waits = Callable[[asyncio.Task[Any]], Awaitable[object]]


async def forever() -> None:
    await asyncio.Event().wait()


async def end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def is_held_up(waits: Waits) -> bool:
    """Whether a task that waits for another in this way is held up by it."""
    inner = asyncio.create_task(forever())
    outer: asyncio.Task[Any] = asyncio.create_task(waits(inner))  # type: ignore[arg-type]
    await settle()
    try:
        return outer in held_up_by(inner)
    finally:
        await end(inner, outer)


async def in_task_group(task: asyncio.Task[Any]) -> None:
    async def wrapped() -> None:
        await task

    async with asyncio.TaskGroup() as group:
        group.create_task(wrapped())
        group.create_task(asyncio.sleep(60))


async def waits_alone_in_a_task_group(task: asyncio.Task[Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.wait({task}))


async def in_anyio_task_group(task: asyncio.Task[Any]) -> None:
    async def wrapped() -> None:
        await task

    async with anyio.create_task_group() as group:
        group.start_soon(wrapped)


async def within_a_timeout(task: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(60):
        await task


async def through_two_tasks(task: asyncio.Task[Any]) -> None:
    await asyncio.create_task(asyncio.wait_for(asyncio.gather(task), 60))


async def through_two_tasks_at_once(task: asyncio.Task[Any]) -> None:
    await asyncio.wait([asyncio.create_task(awaits(task)) for _ in range(2)])


async def awaits(task: asyncio.Task[Any]) -> None:
    await task


@pytest.mark.parametrize(
    "waits",
    [
        awaits,
        within_a_timeout,
        in_task_group,
        waits_alone_in_a_task_group,
        in_anyio_task_group,
        through_two_tasks,
        through_two_tasks_at_once,
        lambda task: asyncio.wait_for(task, 60),
        lambda task: asyncio.wait_for(task, None),
        lambda task: asyncio.wait({task}),
        lambda task: asyncio.wait({task, asyncio.create_task(asyncio.sleep(0))}),
        lambda task: asyncio.wait({task}, return_when=asyncio.FIRST_COMPLETED),
        lambda task: gathered(task),
        lambda task: gathered(task, asyncio.sleep(0)),
        lambda task: gathered(task, return_exceptions=True),
    ],
)
async def test_a_task_is_held_up_by_another_that_it_waits_for(waits: Waits) -> None:
    assert await is_held_up(waits)


async def gathered(*awaitables: Any, return_exceptions: bool = False) -> None:
    await asyncio.gather(*awaitables, return_exceptions=return_exceptions)


async def shielded(task: asyncio.Task[Any]) -> None:
    await asyncio.shield(task)


async def in_the_block_of_a_task_group(task: asyncio.Task[Any]) -> None:
    async def wrapped() -> None:
        await task

    async with asyncio.TaskGroup() as group:
        group.create_task(wrapped())
        await asyncio.sleep(60)


async def waits_within_a_timeout(task: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(60):
        await asyncio.wait({task})


async def waits_in_a_task_within_a_timeout(task: asyncio.Task[Any]) -> None:
    async with asyncio.timeout(60):
        await gathered(asyncio.wait({task}))


async def waits_in_a_task_group(task: asyncio.Task[Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.wait({task}))
        group.create_task(asyncio.sleep(60))


async def is_cancelled_by_it(task: asyncio.Task[Any]) -> None:
    current = asyncio.current_task()
    assert current is not None
    task.add_done_callback(lambda _: current.cancel())
    task.add_done_callback(current.remove_done_callback)  # a method of a task
    await asyncio.sleep(60)


async def is_called_by_it(task: asyncio.Task[Any]) -> None:
    waiter, _counter = asyncio.get_running_loop().create_future(), 1
    task.add_done_callback(lambda _: waiter.set_result(_counter))
    task.add_done_callback(functools.partial(print, waiter))
    await waiter


@pytest.mark.parametrize(
    "waits",
    [
        lambda task: asyncio.sleep(60),
        shielded,
        waits_within_a_timeout,
        waits_in_a_task_within_a_timeout,
        waits_in_a_task_group,
        in_the_block_of_a_task_group,
        is_cancelled_by_it,
        is_called_by_it,
        lambda task: asyncio.wait({task}, timeout=60),
        lambda task: asyncio.wait_for(asyncio.wait({task}), 60),
        lambda task: asyncio.wait({task, asyncio.create_task(asyncio.sleep(60))}, return_when=asyncio.FIRST_COMPLETED),
        lambda task: asyncio.wait({task, asyncio.create_task(asyncio.sleep(60))}, return_when=asyncio.FIRST_EXCEPTION),
        lambda task: gathered(task, asyncio.sleep(60)),
        lambda task: asyncio.wait_for(asyncio.shield(task), 60),
    ],
)
async def test_a_task_that_can_go_on_by_itself_is_not_held_up(waits: Waits) -> None:
    assert not await is_held_up(waits)


def test_in_a_loop_that_does_not_show_its_timers_each_may_end_a_wait() -> None:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert not runner.run(is_held_up(lambda task: asyncio.wait({task})))
        assert runner.run(is_held_up(awaits))


@pytest.mark.parametrize(
    "waits", [waits_within_a_timeout, waits_in_a_task_group, lambda task: gathered(task, forever())]
)
async def test_a_task_waits_for_another_also_if_it_may_go_on_before(waits: Waits) -> None:
    inner = asyncio.create_task(forever())
    outer: asyncio.Task[Any] = asyncio.create_task(waits(inner))  # type: ignore[arg-type]
    await settle()
    assert outer in awaiting(inner)
    await end(inner, outer)


async def test_a_task_is_held_up_by_itself() -> None:
    task = asyncio.create_task(forever())
    await settle()
    assert held_up_by(task) == {task}
    await end(task)


async def test_a_gather_is_held_up_if_all_its_tasks_are() -> None:
    one, other = asyncio.create_task(forever()), asyncio.create_task(forever())
    both: asyncio.Task[Any] = asyncio.create_task(gathered(one, other))
    await settle()
    assert both not in held_up_by(one)
    assert both in held_up_by(one, lambda each: each is other)
    await end(one, other, both)


async def test_a_future_that_shows_nothing_of_itself_holds_nothing_up() -> None:
    class Other(asyncio.Task[Any]):
        _callbacks: Any = property(lambda _: None)

    other = Other(forever())
    waiting = asyncio.create_task(awaits(other))
    await settle()
    assert held_up_by(other) == {other}
    await end(other, waiting)


async def test_a_callback_that_is_no_function_holds_nothing_up() -> None:
    class Callback:
        def __call__(self, _: object) -> None:
            pass

    task = asyncio.create_task(forever())
    task.add_done_callback(Callback())
    assert held_up_by(task) == {task}
    await end(task)
