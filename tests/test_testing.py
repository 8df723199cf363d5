from __future__ import annotations

from aiosqlitepool import Subscriber
from aiosqlitepool.events import ConnectionAcquired, ConnectionCreated, ConnectionReleased, PoolOpened
from aiosqlitepool.testing import Recorder

from .support.pools import pool_of
from .support.stub import StubDriver
from .support.timeless import timeless


def test_a_recorder_is_a_subscriber_and_a_list() -> None:
    subscriber: Subscriber = Recorder()
    assert isinstance(subscriber, list)


@timeless
async def test_a_recorder_records_every_event_in_order(driver: StubDriver) -> None:
    recorder = Recorder()
    async with pool_of(driver, subscribers=[recorder]) as pool:
        async with pool.connection():
            pass
        assert [type(event) for event in recorder] == [
            PoolOpened,
            ConnectionCreated,
            ConnectionAcquired,
            ConnectionReleased,
        ]


@timeless
async def test_a_recorder_tells_the_names_of_what_it_recorded(driver: StubDriver) -> None:
    recorder = Recorder()
    async with pool_of(driver, subscribers=[recorder]):
        pass
    assert recorder.names == ["pool_open", "pool_close"]


@timeless
async def test_a_recorder_finds_events_by_their_type(driver: StubDriver) -> None:
    recorder = Recorder()
    async with pool_of(driver, subscribers=[recorder]) as pool:
        async with pool.connection():
            pass
        assert [event.connection for event in recorder.of(ConnectionCreated)] == [1]
        assert recorder.of(PoolOpened) == [recorder[0]]


@timeless
async def test_a_recorder_can_be_detached_and_emptied(driver: StubDriver) -> None:
    recorder = Recorder()
    async with pool_of(driver) as pool:
        detach = recorder.attach(pool)
        async with pool.connection():
            pass
        detach()
        recorder.clear()
        async with pool.connection():
            pass
        assert recorder == []


@timeless
async def test_one_recorder_may_watch_several_pools(driver: StubDriver) -> None:
    recorder = Recorder()
    async with (
        pool_of(driver, name="read", subscribers=[recorder]),
        pool_of(driver, name="write", subscribers=[recorder]),
    ):
        pass
    assert [(event.pool, event.name) for event in recorder] == [
        ("read", "pool_open"),
        ("write", "pool_open"),
        ("write", "pool_close"),
        ("read", "pool_close"),
    ]
