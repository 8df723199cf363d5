from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any

from aiosqlitepool.debug.stacks import _frames, stack_of

from ..support.stub import settle


async def _innermost(event: asyncio.Event) -> None:
    await event.wait()


async def _numbers(event: asyncio.Event) -> AsyncIterator[int]:
    await _innermost(event)
    yield 1


class _Awaitable:
    def __init__(self, event: asyncio.Event) -> None:
        self.event = event

    def __await__(self) -> Generator[Any, None, None]:
        yield from self.event.wait().__await__()


async def _stack(coroutine: Any, event: asyncio.Event) -> list[dict[str, str | int]]:
    task = asyncio.create_task(coroutine)
    await settle()
    stack = stack_of(task)
    event.set()
    await task
    assert stack_of(task) == []
    return stack


def _functions(stack: list[dict[str, str | int]]) -> list[str]:
    return [str(line["function"]).rpartition(".")[2] for line in stack]


async def test_it_shows_all_that_a_task_awaits_outermost_first() -> None:
    event = asyncio.Event()

    async def outer() -> None:
        await _innermost(event)

    stack = await _stack(outer(), event)
    assert _functions(stack) == ["outer", "_innermost", "wait"]
    assert stack[0]["code"] == "await _innermost(event)"
    assert stack[1]["line"] == _innermost.__code__.co_firstlineno + 1


async def test_it_goes_through_asynchronous_generators() -> None:
    event = asyncio.Event()

    async def outer() -> None:
        async for _ in _numbers(event):
            pass

    assert _functions(await _stack(outer(), event))[-2:] == ["_innermost", "wait"]


async def test_it_goes_through_objects_that_can_be_awaited() -> None:
    event = asyncio.Event()

    async def outer() -> None:
        await _Awaitable(event)

    assert _functions(await _stack(outer(), event)) == ["outer", "__await__", "wait"]


async def test_a_generator_that_has_ended_ends_the_chain() -> None:
    async def outer() -> None:
        pass

    ended = outer()
    await ended
    assert list(_frames(ended)) == []


async def test_a_file_is_named_from_where_it_was_imported() -> None:
    event = asyncio.Event()
    stack = await _stack(_innermost(event), event)
    assert stack[-1]["file"] == "asyncio/locks.py"


async def test_the_programs_own_code_is_told_from_that_of_others() -> None:
    event = asyncio.Event()
    stack = await _stack(_innermost(event), event)
    assert [line["own"] for line in stack] == [True, False]
