from __future__ import annotations

import gc
import weakref

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import ConnectionReleased, TimesNoted
from aiosqlitepool.subscribers._counts import Account, Ledger
from aiosqlitepool.subscribers._metrics import ACQUIRES
from aiosqlitepool.subscribers._prometheus_multiprocess import _Watch

from ..support.pools import pool_of
from ..support.stub import StubDriver


def test_a_pool_that_is_about_to_be_collected_is_counted_to_its_last_words() -> None:
    """Bug: the collector clears all weak references first, and then lets each pool tell its end; a scrape in between
    closed the account, and what was told after that was lost."""
    ledger, counted = Ledger(Account), list[int]()

    class Pool(SQLiteConnectionPool[object]):
        def __del__(self) -> None:
            with ledger.reading() as (account,):
                assert account.pool is None
                assert not account.over
            self.events.acquired_at_once += 1
            self.events.tell_times()
            super().__del__()
            with ledger.reading() as (past,):
                counted.append(past.totals()[ACQUIRES, "idle"])

    pool = Pool(lambda: None)  # type: ignore[arg-type,return-value]
    account, _ = ledger.open(pool)
    pool.events.subscribe(TimesNoted, account.note)
    del pool, account
    gc.collect()
    assert counted == [1]


async def test_an_account_that_has_ended_hears_of_nothing_more(driver: StubDriver) -> None:
    ledger, pool = Ledger(Account), pool_of(driver)
    account, detaches = ledger.open(pool)
    pool.events.subscribe(TimesNoted, account.note)
    for detach in detaches:
        detach()
    pool.events.acquired_at_once += 1
    pool.events.subscribe(ConnectionReleased, lambda event: 1 / 0)
    pool.events.emit(ConnectionReleased(pool.name, 1, 0.25))
    assert pool.events.errors == 1
    account.ask()
    account.look()
    assert (account.counts[ACQUIRES, "idle"], account.errors) == (0, 0)


async def test_the_levels_can_be_looked_at_while_another_thread_is_told_of_times(driver: StubDriver) -> None:
    """Bug: whoever looked held its lock while it waited for the teller, who may want to look as well: a deadlock."""
    pool, free = pool_of(driver), list[bool]()
    watch = _Watch(lambda levels: None, lambda pool, errors: None)
    lock = watch._lock

    class Lock:
        """Knows whether it is held."""

        held = 0

        def __enter__(self) -> None:
            lock.acquire()
            self.held += 1

        def __exit__(self, *error: object) -> None:
            self.held -= 1
            lock.release()

    watch._lock = watched = Lock()  # type: ignore[assignment]
    pool.events.subscribe(TimesNoted, lambda times: free.append(watched.held == 0))
    detach = watch.begin(pool)
    pool.events.emit(ConnectionReleased(pool.name, 1, 0.25))
    watch.look()
    assert free == [True]
    detach()


async def test_a_watch_that_has_ended_keeps_no_pool_alive(driver: StubDriver) -> None:
    pool = pool_of(driver)
    _Watch(lambda levels: None, lambda pool, errors: None).begin(pool)()
    await pool.close()
    alive = weakref.ref(pool)
    del pool
    gc.collect()
    assert alive() is None
