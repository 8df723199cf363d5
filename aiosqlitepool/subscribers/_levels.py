"""The levels of pools at this moment: read, never counted. Knows no metrics library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from aiosqlitepool import PoolStats, SQLiteConnectionPool

from ._metrics import (
    ACQUISITION_TIMEOUT,
    COUNT,
    DATABASE_SIZE,
    DISK_FREE,
    IDLE_MAX,
    IDLE_MIN,
    INLINE_STALL,
    LEAK_THRESHOLD,
    MAX,
    MAX_PENDING,
    OLDEST_CHECKOUT,
    OLDEST_WAITER,
    PENDING_REQUESTS,
    WAL_SIZE,
    Metric,
    Values,
)

__all__ = ["AnyPool", "Series", "levels", "open_pools"]

AnyPool = SQLiteConnectionPool[Any]
# A metric, the name of a pool, and the values of the metric's attributes.
Series = tuple[Metric, str, Values]


def open_pools(pools: Iterable[AnyPool | None]) -> Iterator[PoolStats]:
    """Yield a snapshot of each pool that is not closed; of a pool that occurs twice, one."""
    for pool in {id(pool): pool for pool in pools if pool is not None}.values():
        stats = pool.stats()
        if stats.state not in ("closed", "forked"):
            yield stats


def levels(pools: Iterable[PoolStats]) -> dict[Series, float]:
    """Return the levels of these pools by name. Pools of one name are summed; of ages and WAL sizes, the maximum."""
    found: dict[Series, float] = {}
    for stats in pools:
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
                found[metric, stats.pool, values] = found.get((metric, stats.pool, values), 0) + number
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
                found[metric, stats.pool, ()] = max(found.get((metric, stats.pool, ()), 0.0), most)
    return found
