"""The numbers at the top of each board: the present, at its worst."""

from __future__ import annotations

from aiosqlitepool.subscribers._metrics import ACQUIRES, OLDEST_WAITER, TIMEOUTS, USE_TIME, WAIT_TIME

from .panels import Panel, now, number
from .queries import (
    EACH,
    INSTANCE,
    POOL,
    POOL_AT,
    POOL_NAME,
    asked_for,
    in_range,
    limit,
    oldest,
    quantile,
    rate,
    used,
    waiting,
    worst,
)


def of_all_pools() -> list[Panel]:
    """Which pool is the worst, and how bad it is."""
    return [_fullest_pool(), _longest_queue(), _worst_wait(), _timeouts(), _oldest_waiter(), _traffic()]


def of_one_pool() -> list[Panel]:
    """Which instance is the worst, and what it needs."""
    return [_fullest_instance(), _longest_queue_by_instance(), _wait(), _hold(), _timeouts_of_one(), _enough()]


# -- of all pools


def _fullest_pool() -> Panel:
    return number(
        "Fullest pool",
        "Is it full?",
        "The mean of about the last minute. At 100 % the next caller waits. Look at Demand: near max, the pool is too "
        "small; far below, a caller holds connections for too long, see Use time. Alert: AiosqlitepoolSaturated.",
        "percentunit",
        # At any one moment, a pool of one connection is either full or empty.
        now(worst(1, f"{used(*EACH, lately=True)} / {limit(*EACH)}"), POOL_AT),
        warn=0.8,
        bad=1.0,
        decimals=0,
    )


def _longest_queue() -> Panel:
    return number(
        "Longest queue",
        "Do callers wait?",
        "A short queue is harmless: the pool is busy. A queue that stays means more demand than the pool can serve: "
        "shorten the use of connections before you raise pool_size. Alert: AiosqlitepoolSaturated.",
        "short",
        now(worst(1, waiting(*EACH)), POOL_AT),
        warn=1,
        bad=10,
        decimals=0,
    )


def _worst_wait() -> Panel:
    return number(
        "Worst P99 wait",
        "How bad is it for users?",
        "One request in a hundred waits longer than this before its first statement. Waits shows since when, Slow "
        "acquisitions shows the holders. Alert: AiosqlitepoolWaitSlow.",
        "s",
        now(worst(1, quantile(0.99, WAIT_TIME, POOL)), POOL_NAME),
        warn=0.1,
        bad=1.0,
    )


def _timeouts() -> Panel:
    return number(
        "Timeouts in range",
        "Did callers fail?",
        "Each is a request that got no connection within acquisition_timeout. Its error and its trace name the "
        "holders. Alert: AiosqlitepoolAcquireTimeoutsBurningBudget.",
        "short",
        now(f"round({in_range(TIMEOUTS)})", "all pools"),
        bad=1,
    )


def _oldest_waiter() -> Panel:
    return number(
        "Oldest waiter",
        "Is a caller stuck right now?",
        "The longest current wait. If it only grows, no connection is released: find the oldest checkout in Use time, "
        "and a task that acquires while it holds a connection. Alert: AiosqlitepoolWaiterStuck.",
        "s",
        now(worst(1, oldest(OLDEST_WAITER, *EACH)), POOL_AT),
        warn=1,
        bad=15,
    )


def _traffic() -> Panel:
    return number(
        "Acquires",
        "Is it used at all?",
        "Acquires per second. Zero although the service has traffic: the program does not use the pool, or Prometheus "
        "cannot scrape it.",
        "short",
        now(rate(ACQUIRES), "all pools, per second"),
    )


# -- of one pool


def _fullest_instance() -> Panel:
    return number(
        "Fullest instance",
        "Is it full?",
        "The mean of about the last minute. At 100 % the next caller waits. Compare the instances below. The row How "
        "large should it be? shows which size is enough.",
        "percentunit",
        # At any one moment, a pool of one connection is either full or empty.
        now(worst(1, f"{used(*EACH, lately=True)} / {limit(*EACH)}"), INSTANCE),
        warn=0.8,
        bad=1.0,
        decimals=0,
    )


def _longest_queue_by_instance() -> Panel:
    return number(
        "Longest queue",
        "Do callers wait?",
        "Callers wait for a holder to release its connection. P99 use time shows how long that takes.",
        "short",
        now(worst(1, waiting(*EACH)), INSTANCE),
        warn=1,
        bad=10,
        decimals=0,
    )


def _wait() -> Panel:
    return number(
        "P99 wait",
        "How bad is it for users?",
        "One request in a hundred waits longer than this for a connection. Above 100 ms, see Acquires by path.",
        "s",
        now(quantile(0.99, WAIT_TIME), "all instances"),
        warn=0.1,
        bad=1.0,
    )


def _hold() -> Panel:
    return number(
        "P99 use time",
        "How long is a connection in use?",
        "If it is long, callers do other work while they hold a connection, or run statements that need an index. "
        "Shorter use has the same effect as a larger pool.",
        "s",
        now(quantile(0.99, USE_TIME), "all instances"),
        warn=1,
        bad=10,
    )


def _timeouts_of_one() -> Panel:
    return number(
        "Timeouts in range",
        "Did callers fail?",
        "Each got no connection within acquisition_timeout. Their errors name the holders.",
        "short",
        now(f"round({in_range(TIMEOUTS)})", "all instances"),
        bad=1,
    )


def _enough() -> Panel:
    return number(
        "Enough for 99 %",
        "What pool_size would have been enough?",
        "With this many connections, no caller would have waited in 99 of 100 moments of the range, on the busiest "
        "instance. Far below max: make the pool smaller. Above max: see How large should it be? before you raise it.",
        "short",
        now(f"ceil({asked_for(0.99)})", "pool_size"),
        decimals=0,
    )
