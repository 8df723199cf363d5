from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from aiosqlitepool import Connection, SQLiteConnectionPool
from aiosqlitepool.driver import GenericAdapter, adapter_for
from aiosqlitepool.events import RolledBackOnReturn
from aiosqlitepool.testing import Recorder

from ..support.pools import immediately, pool_of
from ..support.stub import StubConnection, StubDriver, fails, hangs, settle, waits_for
from ..support.timeless import timeless


class Lessee:
    task: asyncio.Task[Any] | None = None


def test_an_unknown_driver_gets_the_plain_link() -> None:
    assert isinstance(adapter_for(StubConnection()), GenericAdapter)


def test_three_methods_make_a_connection() -> None:
    assert isinstance(StubConnection(), Connection)
    assert not isinstance(object(), Connection)


@timeless
async def test_a_connection_is_taken_as_it_is() -> None:
    connection = StubConnection()
    link = GenericAdapter(connection)
    immediately(link.adopt())
    link.verify()
    assert link.lend(Lessee())
    assert (connection.executed, connection.rollbacks, connection.closed) == ([], 0, 0)


@timeless
async def test_a_check_is_a_select() -> None:
    connection = StubConnection()
    await GenericAdapter(connection).check()
    assert connection.executed == ["SELECT 1"]


@timeless
async def test_a_check_that_fails_raises_what_the_driver_raised() -> None:
    with pytest.raises(OSError, match="gone"):
        await GenericAdapter(StubConnection(on_execute=fails(OSError("gone")))).check()


@timeless
async def test_a_rollback_that_need_not_wait_settles_at_once() -> None:
    connection = StubConnection()
    assert GenericAdapter(connection).settle() is True
    assert connection.rollbacks == 1


@timeless
async def test_a_rollback_that_waits_is_finished_by_awaiting_it_and_begun_only_once() -> None:
    event = asyncio.Event()
    connection = StubConnection(on_rollback=waits_for(event))
    rest = GenericAdapter(connection).settle()
    assert not isinstance(rest, bool)

    async def finish() -> None:
        await rest

    task = asyncio.create_task(finish())
    await settle()
    assert not task.done()
    event.set()
    await task
    assert connection.rollbacks == 1


@timeless
async def test_a_rollback_may_wait_many_times() -> None:
    async def often(connection: StubConnection) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
            await asyncio.sleep(1)

    rest = GenericAdapter(StubConnection(on_rollback=often)).settle()
    assert not isinstance(rest, bool)
    await rest


@timeless
async def test_a_rollback_that_fails_at_once_fails_when_it_is_awaited() -> None:
    rest = GenericAdapter(StubConnection(on_rollback=fails(OSError("broken")))).settle()
    assert not isinstance(rest, bool)
    with pytest.raises(OSError, match="broken"):
        await rest


@timeless
async def test_a_rollback_that_fails_later_fails_when_it_is_awaited() -> None:
    async def later(connection: StubConnection) -> None:
        await asyncio.sleep(1)
        raise OSError("broken")

    rest = GenericAdapter(StubConnection(on_rollback=later)).settle()
    assert not isinstance(rest, bool)
    with pytest.raises(OSError, match="broken"):
        await rest


@timeless
async def test_a_rollback_may_handle_an_error_of_what_it_waits_for() -> None:
    waits_for_this: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handles(connection: StubConnection) -> None:
        with pytest.raises(OSError, match="inside"):
            await waits_for_this
        await asyncio.sleep(1)

    rest = GenericAdapter(StubConnection(on_rollback=handles)).settle()
    assert not isinstance(rest, bool)
    waits_for_this.set_exception(OSError("inside"))
    await rest


@timeless
async def test_a_rollback_sees_the_cancellation_of_the_releasing_task() -> None:
    seen: list[str] = []

    async def cleans_up(connection: StubConnection) -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    rest = GenericAdapter(StubConnection(on_rollback=cleans_up)).settle()
    assert not isinstance(rest, bool)

    async def finish() -> None:
        await rest

    task = asyncio.create_task(finish())
    await settle()
    task.cancel()
    await settle()
    assert task.cancelled()
    assert seen == ["cancelled"]


@timeless
async def test_a_reset_is_a_rollback_of_which_nothing_is_known() -> None:
    connection = StubConnection()
    assert await GenericAdapter(connection).reset(patience=1) is None
    assert connection.rollbacks == 1


@timeless
async def test_abandoning_closes_without_waiting_and_closing_does_not_close_again() -> None:
    connection = StubConnection()
    link = GenericAdapter(connection)
    link.abandon()
    assert connection.closed == 0
    await link.close()
    await settle()
    assert connection.closed == 1


def test_a_loop_that_ends_before_an_abandoned_connection_has_closed_complains_of_nothing() -> None:
    complaints: list[dict[str, Any]] = []
    connection = StubConnection(on_close=hangs)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        GenericAdapter(connection).abandon()
        await settle()

    asyncio.run(main())  # which cancels what still runs
    assert connection.closed == 1
    assert complaints == []


def test_abandoning_without_a_loop_can_do_nothing() -> None:
    connection = StubConnection()
    GenericAdapter(connection).abandon()
    assert connection.closed == 0


@timeless
async def test_what_a_plain_connection_left_behind_is_never_told_for_it_is_not_known(
    driver: StubDriver, recorder: Recorder
) -> None:
    async with pool_of(driver, subscribers=[recorder]) as pool:
        async with pool.connection():
            pass
        async with pool.connection() as connection:
            connection.on_rollback = lambda _: asyncio.sleep(1)
    assert recorder.of(RolledBackOnReturn) == []


class OldStyle:
    """A driver whose methods are plain functions that return futures or objects with `__await__`."""

    class Done:
        def __await__(self) -> Generator[Any, Any, None]:
            yield from asyncio.sleep(0).__await__()

    def __init__(self) -> None:
        self.closed = False

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return self.Done()

    def rollback(self) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, None)
        return future

    def close(self) -> Any:
        self.closed = True
        return self.Done()


@timeless
async def test_a_driver_without_coroutines_will_do() -> None:
    made: list[OldStyle] = []

    async def factory() -> OldStyle:
        made.append(OldStyle())
        return made[-1]

    async with SQLiteConnectionPool(factory, 1, health_check_after=0) as pool:
        for _ in range(3):
            async with pool.connection() as connection:
                assert connection is made[0]
    assert made[0].closed
