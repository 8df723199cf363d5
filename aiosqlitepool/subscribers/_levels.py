"""The levels of pools at this moment: read, never counted. Knows no metrics library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from aiosqlitepool import PoolStats, SQLiteConnectionPool

from ._loop_lag import PoolLag
from ._metrics import (
    ACQUISITION_TIMEOUT,
    COUNT,
    DATABASE_SIZE,
    DISK_FREE,
    IDLE_MAX,
    IDLE_MIN,
    INLINE_STALL,
    LEAK_THRESHOLD,
    LOOP_LAG,
    MAX,
    MAX_PENDING,
    OLDEST_CHECKOUT,
    OLDEST_WAITER,
    PENDING_REQUESTS,
    WAL_SIZE,
    Metric,
    Values,
)

__all__ = ["AnyPool", "Series", "lags", "levels", "open_pools"]

AnyPool = SQLiteConnectionPool[Any]
# A metric, the name of a pool, and the values of the metric's attributes.
Series = tuple[Metric, str, Values]


def open_pools(pools: Iterable[tuple[str, AnyPool | None]]) -> Iterator[tuple[str, PoolStats]]:
    """Yield the name in metrics and a snapshot of each pool that is not closed; of a pool that occurs twice, one."""
    for shown, pool in {id(pool): (shown, pool) for shown, pool in pools}.values():
        if pool is not None and (stats := pool.stats()).state not in ("closed", "forked"):
            yield shown, stats


def levels(pools: Iterable[tuple[str, PoolStats]]) -> dict[Series, float]:
    """Return the levels of these pools by name. Pools of one name are summed; of ages and WAL sizes, the maximum."""
    found: dict[Series, float] = {}
    for pool, stats in pools:
        for metric, values, number in (
            (COUNT, ("idle",), stats.idle),
            (COUNT, ("used",), stats.used),
            (MAX, (), stats.max_size),
            (IDLE_MAX, (), stats.max_size),
            (IDLE_MIN, (), stats.min_size),
            (PENDING_REQUESTS, (), stats.waiting),
            (MAX_PENDING, (), stats.max_waiting),
        ):
            if number is not None:
                found[metric, pool, values] = found.get((metric, pool, values), 0) + number
        for metric, most in (
            (OLDEST_WAITER, stats.oldest_waiter),
            (OLDEST_CHECKOUT, stats.oldest_checkout),
            (ACQUISITION_TIMEOUT, stats.acquisition_timeout),
            (LEAK_THRESHOLD, stats.leak_threshold),
            (INLINE_STALL, stats.inline_stall),
            (WAL_SIZE, stats.wal_bytes),
            (DATABASE_SIZE, stats.database_bytes),
            (DISK_FREE, stats.disk_free),
        ):
            if most is not None:
                found[metric, pool, ()] = max(found.get((metric, pool, ()), 0.0), most)
    return found


def lags(pools: Iterable[tuple[str, PoolLag]]) -> dict[Series, float]:
    """Return the delay of the loop by the name of the pool in metrics, of pools of one name the longest."""
    found: dict[Series, float] = {}
    for pool, lag in pools:
        if (seconds := lag.seconds()) is not None:
            found[LOOP_LAG, pool, ()] = max(found.get((LOOP_LAG, pool, ()), 0.0), seconds)
    return found
