from __future__ import annotations

import gc
import weakref

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import ConnectionReleased, PoolTimings
from aiosqlitepool.subscribers._counts import Counts, PoolCounts
from aiosqlitepool.subscribers._level_updater import LevelUpdater
from aiosqlitepool.subscribers._loop_lag import PoolLag
from aiosqlitepool.subscribers._metrics import ACQUIRES

from ..support.acquires import acquired, released
from ..support.pools import pool_of
from ..support.stub import StubDriver


async def test_each_acquire_of_a_batch_is_counted_once(driver: StubDriver) -> None:
    pool = pool_of(driver)
    counts, _ = Counts(PoolCounts).attach(pool)
    pool.events.subscribe(PoolTimings, counts.count_acquires)
    for path in ("idle", "new", "queued"):
        for wait in (0.0, 0.001, 0.5):
            acquired(pool.events, wait, path)  # type: ignore[arg-type]
    pool.events.flush_timings()
    assert [counts.counts[ACQUIRES, (path,)] for path in ("idle", "new", "queued")] == [3, 3, 3]


async def test_a_pool_that_is_collected_leaves_nothing_but_its_counts(driver: StubDriver) -> None:
    pool = pool_of(driver)
    counts, detaches = Counts(PoolCounts).attach(pool)
    gone = weakref.ref(pool)
    del pool, detaches
    gc.collect()
    assert gone() is None
    assert counts.is_closed


async def test_a_pool_that_has_closed_leaves_nothing_but_its_counts(driver: StubDriver) -> None:
    every, pool = Counts(PoolCounts), pool_of(driver)
    counts, _ = every.attach(pool)
    await pool.close()
    assert counts.is_closed
    assert every.levels() == {}
    with every.reading() as (same,):
        assert same is counts


async def test_detaching_a_pool_that_has_closed_leaves_the_next_one_of_its_name_attached(driver: StubDriver) -> None:
    every, pool = Counts(PoolCounts), pool_of(driver)
    _, detaches = every.attach(pool)
    await pool.close()
    following = pool_of(driver)
    counts, _ = every.attach(following)
    for detach in detaches:
        detach()
    assert counts.pool is following


def test_a_pool_that_is_about_to_be_collected_is_counted_to_its_last_event() -> None:
    """The collector clears all weak references first, and then runs each pool's `__del__`, which may emit events."""
    every, counted = Counts(PoolCounts), list[int]()

    class Pool(SQLiteConnectionPool[object]):
        def __del__(self) -> None:
            with every.reading() as (counts,):
                assert counts.is_closed
            self.events.immediate += 1
            super().__del__()
            with every.reading() as (past,):
                counted.append(past.totals()[ACQUIRES, ("idle",)])

    pool = Pool(lambda: None, name="app.db")  # type: ignore[arg-type,return-value]
    counts, _ = every.attach(pool)
    pool.events.subscribe(PoolTimings, counts.count_acquires)
    del pool, counts
    gc.collect()
    assert counted == [1]


async def test_counts_that_are_closed_count_nothing_more(driver: StubDriver) -> None:
    pool = pool_of(driver)
    counts, detaches = Counts(PoolCounts).attach(pool)
    pool.events.subscribe(PoolTimings, counts.count_acquires)
    for detach in detaches:
        detach()
    pool.events.immediate += 1
    pool.events.subscribe(ConnectionReleased, lambda event: 1 / 0)
    released(pool.events, 0.25)
    assert pool.events.errors == 1
    counts.flush()
    counts.read_errors()
    assert (counts.counts[ACQUIRES, ("idle",)], counts.errors) == (0, 0)


async def test_the_levels_can_be_written_while_another_thread_delivers_timings(driver: StubDriver) -> None:
    """Bug: an update held its lock while it waited for a delivery, whose handler may update as well: a deadlock."""
    pool, free = pool_of(driver), list[bool]()
    updater = LevelUpdater(lambda levels: None, lambda pool, errors: None)
    lock = updater._lock

    class Lock:
        """Knows whether it is held."""

        held = 0

        def __enter__(self) -> None:
            lock.acquire()
            self.held += 1

        def __exit__(self, *error: object) -> None:
            self.held -= 1
            lock.release()

    updater._lock = watched = Lock()  # type: ignore[assignment]
    pool.events.subscribe(PoolTimings, lambda timings: free.append(watched.held == 0))
    detach = updater.add(pool, pool.name, PoolLag())
    released(pool.events, 0.25)
    updater.update()
    assert free == [True]
    detach()


async def test_an_updater_keeps_no_detached_pool_alive(driver: StubDriver) -> None:
    pool = pool_of(driver)
    LevelUpdater(lambda levels: None, lambda pool, errors: None).add(pool, pool.name, PoolLag())()
    await pool.close()
    alive = weakref.ref(pool)
    del pool
    gc.collect()
    assert alive() is None
