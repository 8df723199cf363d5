"""How late the event loop is: measured in it, read from anywhere."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import ConnectionCreated
from aiosqlitepool.subscribers import _loop_lag
from aiosqlitepool.subscribers._loop_lag import LoopLag, PoolLag

from ..support.clock import Clock
from ..support.pools import pool_of
from ..support.stub import StubDriver
from .conftest import Scrape


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """No timer runs by itself: the test calls `measure`."""
    set_up: list[object] = []
    monkeypatch.setattr(asyncio.BaseEventLoop, "call_later", lambda loop, *args, **_: set_up.append(args))
    return set_up


async def test_it_is_the_longest_delay_of_the_last_measurements(timers: list[object]) -> None:
    clock = Clock()
    lag = LoopLag(asyncio.get_running_loop(), clock)
    for delay in (0.5, 0.125, 0.25):
        clock.advance(0.25 + delay)
        lag.measure()
    assert lag.seconds() == 0.5
    for _ in range(_loop_lag._KEPT - 2):
        clock.advance(0.25)
        lag.measure()
    assert lag.seconds() == 0.25
    assert len(timers) == _loop_lag._KEPT + 2


@pytest.mark.usefixtures("timers")
async def test_a_delay_that_lasts_counts_already(timers: list[object]) -> None:
    clock = Clock()
    lag = LoopLag(asyncio.get_running_loop(), clock)
    assert lag.seconds() == 0.0
    clock.advance(3.25)
    assert lag.seconds() == 3.0


async def test_pools_of_one_loop_share_one_timer_which_ends_with_the_last_of_them(driver: StubDriver) -> None:
    lags = [PoolLag(), PoolLag()]
    pools = [pool_of(driver, name=f"{number}.db") for number in range(2)]
    for lag, pool in zip(lags, pools, strict=True):
        lag.watch(pool)
        await pool.open()
    shared = {id(lag._lag) for lag in lags}
    assert len(shared) == 1
    measured = weakref.ref(lags[0]._lag)  # type: ignore[arg-type]
    await pools[0].close()
    assert lags[0].seconds() is None
    assert lags[1].seconds() is not None
    await pools[1].close()
    gc.collect()
    assert measured() is None


async def test_the_timer_of_nobody_does_not_go_on() -> None:
    lag = LoopLag(asyncio.get_running_loop())
    gone = weakref.ref(lag)
    del lag
    gc.collect()
    _loop_lag._measure(gone)
    assert gone() is None


async def test_the_timer_goes_on_while_it_is_wanted(timers: list[object]) -> None:
    lag = LoopLag(asyncio.get_running_loop())
    _loop_lag._measure(weakref.ref(lag))
    assert len(timers) == 2


async def test_an_open_pool_is_measured_from_its_next_connection_on(driver: StubDriver) -> None:
    async with pool_of(driver) as pool:
        lag = PoolLag()
        detaches = lag.watch(pool)
        assert lag.seconds() is None
        async with pool.connection():
            assert lag.seconds() is not None
        for detach in detaches:
            detach()
        assert lag.seconds() is None


def test_an_event_outside_of_a_loop_measures_none(driver: StubDriver) -> None:
    pool = SQLiteConnectionPool(driver, name="app.db")
    lag = PoolLag()
    lag.watch(pool)
    pool.events.emit(ConnectionCreated("app.db", 1, 0.1))
    assert lag.seconds() is None


async def test_it_is_shown_while_the_pool_is_open(
    driver: StubDriver, prometheus: object, scrape: Scrape, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoopLag, "seconds", lambda lag: 1.5)
    async with pool_of(driver, subscribers=[prometheus]):
        assert scrape("aiosqlitepool_loop_lag_seconds") == 1.5
    assert scrape("aiosqlitepool_loop_lag_seconds") is None
