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
    def forgotten(self) -> None:
        raise AssertionError("the factory's own object is lent: the pool cannot notice that it is lost")


def test_an_unknown_driver_gets_the_generic_adapter() -> None:
    assert isinstance(adapter_for(StubConnection()), GenericAdapter)


def test_three_methods_make_a_connection() -> None:
    assert isinstance(StubConnection(), Connection)
    assert not isinstance(object(), Connection)


@timeless
async def test_a_connection_is_taken_as_it_is() -> None:
    connection = StubConnection()
    adapter = GenericAdapter(connection)
    immediately(adapter.attach())
    adapter.verify()
    assert adapter.begin_lease(Lessee()) is connection
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
async def test_every_lease_ends_with_a_rollback_of_which_nothing_is_known() -> None:
    connection = StubConnection()
    adapter = GenericAdapter(connection)
    adapter.begin_lease(Lessee())
    assert not adapter.end_lease()
    assert connection.rollbacks == 0
    assert await adapter.reset(patience=1) is None
    assert connection.rollbacks == 1


@timeless
async def test_a_rollback_that_fails_fails_the_reset() -> None:
    with pytest.raises(OSError, match="broken"):
        await GenericAdapter(StubConnection(on_rollback=fails(OSError("broken")))).reset(patience=1)


@timeless
async def test_a_rollback_goes_on_when_the_releasing_task_is_cancelled(driver: StubDriver) -> None:
    go_on = asyncio.Event()
    async with pool_of(driver, 1) as pool:
        connection = await pool.acquire()
        connection.on_rollback = waits_for(go_on)
        release = asyncio.create_task(pool.release(connection))
        await settle()
        release.cancel()
        await settle()
        assert release.cancelled()
        assert pool.stats().used == 1
        go_on.set()
        await settle()
        assert pool.stats().idle == 1


@timeless
async def test_abandoning_closes_without_waiting_and_closing_does_not_close_again() -> None:
    connection = StubConnection()
    adapter = GenericAdapter(connection)
    adapter.abandon()
    assert connection.closed == 0
    await adapter.close()
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
async def test_what_a_connection_of_an_unknown_driver_left_behind_is_not_known_and_not_emitted(
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


@timeless
async def test_a_driver_without_coroutines_can_be_abandoned() -> None:
    connection = OldStyle()
    GenericAdapter(connection).abandon()
    await settle()
    assert connection.closed


async def test_a_connection_that_is_taken_from_its_holder_is_closed_and_replaced(driver: StubDriver) -> None:
    async with pool_of(driver, 1) as pool:
        connection = await pool.acquire()
        lease = pool._inventory.connector.connections[id(connection)].lease
        assert lease is not None
        for _ in range(2):  # once taken, there is nothing left to take
            pool._releaser.revoke(lease, TimeoutError())
            await settle()
        assert (connection.closed, connection.rollbacks) == (1, 0)
        async with pool.connection() as other:
            assert other is not connection
    assert driver.open == 0
