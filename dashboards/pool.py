"""aiosqlitepool / Pool in depth: one pool, by instance, how its connections live, and how large it should be."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from aiosqlitepool.subscribers._metrics import (
    CLOSED,
    COUNT,
    CREATE_FAILURES,
    CREATE_TIME,
    HEALTH_FAILURES,
    IDLE_MIN,
    OLDEST_CHECKOUT,
    OLDEST_WAITER,
    ROLLBACKS,
    SUBSCRIBER_ERRORS,
    USE_TIME,
    WAIT_TIME,
)

from . import databases, headlines, program, statements, storage
from .frame import DEPTH, OVERVIEW, Row, board, link_to
from .panels import Panel, lines, now, over_time, ranking
from .queries import (
    ASKED_FOR,
    CAUSE,
    EACH,
    ERROR,
    INSTANCE,
    REASON,
    STATE,
    asked_for,
    busy,
    busy_at,
    highest,
    limit,
    oldest,
    per_minute,
    quantile,
    rate,
    total,
    used,
    worst,
)
from .shared import create_heat, failures, hold_heat, paths, wait_heat, waits

_HOTTEST = 10


def make() -> dashboard.Dashboard:
    """The board."""
    return board(
        DEPTH,
        "Pool in depth",
        "One connection pool: its instances, waits and use times, the life of its connections, and the size that would "
        "have been enough.",
        [
            Row("Now", 4, headlines.of_one_pool()),
            Row("Which instance?", 8, [_load_by(), _queue_by(), _wait_by(), _demand_by()]),
            Row("How do acquires end?", 8, [paths(), waits(), failures()]),
            Row("How long does each thing take?", 9, [wait_heat(), hold_heat(), create_heat()]),
            statements.row(),
            Row("How large should it be?", 8, [_sizing(), _advice()], widths=(14, 10)),
            Row("How long do connections live?", 8, [_open(), _births_and_deaths(), _age(), _ages_now()]),
            Row("What goes wrong?", 8, [_rollbacks(), _createfailures(), _health(), _subscribers()], collapsed=True),
            program.row(),
            storage.row(),
            Row(
                "How do transactions go? (SQLiteDatabase)",
                8,
                [databases.transactions(), databases.durations(), databases.waits()],
            ),
            Row(
                "What delays writers? (SQLiteDatabase)",
                8,
                [databases.busy_retries(), databases.wal(), databases.checkpoints()],
            ),
        ],
        link=link_to(OVERVIEW, "Overview", "All pools at once"),
        one_pool=True,
    )


# -- which instance?


def _load_by() -> Panel:
    return lines(
        "Load",
        "Which instance is full?",
        "Used plus waiting, divided by max: above 100 %, callers wait. If one line differs from the others, that "
        "process has more traffic, or a task in it holds connections.",
        "percentunit",
        over_time(worst(_HOTTEST, f"({ASKED_FOR}) / {limit(*EACH)}"), INSTANCE),
        warn=0.8,
        bad=1.0,
    )


def _queue_by() -> Panel:
    return lines(
        "Oldest waiter",
        "On which instance is a caller stuck?",
        "A saw-tooth is a queue that moves. A line that rises by one second per second is a queue that does not: no "
        "connection is released. Alert: AiosqlitepoolWaiterStuck.",
        "s",
        over_time(worst(_HOTTEST, oldest(OLDEST_WAITER, *EACH)), INSTANCE),
        warn=1,
        bad=15,
        reaches=1,
    )


def _wait_by() -> Panel:
    return lines(
        "P99 wait by instance",
        "On which instance do callers wait?",
        "All instances: demand grew, or the database is slow. One instance: look at its load and its traces.",
        "s",
        over_time(worst(_HOTTEST, quantile(0.99, WAIT_TIME, *EACH)), INSTANCE),
        warn=0.1,
        bad=1.0,
    )


def _demand_by() -> Panel:
    return lines(
        "Demand",
        "Is traffic spread evenly?",
        "The mean number of connections in use, by Little's law. Uneven: the load balancer, or work of one process.",
        "short",
        over_time(worst(_HOTTEST, busy(USE_TIME, *EACH)), INSTANCE),
    )


# -- how do acquires end?


# -- how large should it be?


def _sizing() -> Panel:
    return lines(
        "Demand on the busiest instance",
        "How many connections did it need?",
        "Demand is the mean, by Little's law. Asked for is used plus waiting at that moment: above max, callers "
        "waited. Demand near max for minutes: the pool is too small. Demand low and asked for high: bursts, or "
        "connections that were not released.",
        "short",
        over_time(highest(busy(USE_TIME, *EACH)), "demand"),
        over_time(highest(ASKED_FOR), "asked for"),
        over_time(highest(limit(*EACH)), "max"),
    )


def _advice() -> Panel:
    return ranking(
        "What pool_size would have been enough?",
        "How large should it be?",
        "For the busiest instance, over the whole range: choose a range without an incident. Below demand, the pool "
        "cannot keep up. Demand at P99 assumes that every use takes as long as the slowest in a hundred, as precise as "
        "the histogram's buckets. With asked for, no caller waited in 99 of 100 moments. SQLite is rarely faster with "
        "more than 5: shorten the use of connections first.",
        "short",
        now(highest(f"avg_over_time(({busy(USE_TIME, *EACH)})[$__range:$__rate_interval])"), "demand"),
        now(highest(busy_at(0.99, USE_TIME, *EACH)), "demand at P99"),
        now(asked_for(0.99), "asked for"),
        now(highest(limit(*EACH)), "max"),
    )


# -- how do connections live?


def _open() -> Panel:
    return lines(
        "Open connections",
        "How many are open, and for what?",
        "If idle ones above min_size are never used, lower idle_timeout. Fewer than min_size: they cannot be opened, "
        "see Failures to connect.",
        "short",
        over_time(used(), "used"),
        over_time(total(COUNT, where=f'{STATE}="idle"'), "idle"),
        over_time(total(IDLE_MIN), "min_size"),
        stacked=True,
    )


def _births_and_deaths() -> Panel:
    return lines(
        "Created and closed",
        "Why are connections closed?",
        "Created, and closed by reason. Idle and lifetime are maintenance. If most connections are closed soon after "
        "they were created, raise idle_timeout, max_lifetime or min_size. Alert: AiosqlitepoolChurn.",
        "cpm",
        over_time(per_minute(CREATE_TIME), "created"),
        over_time(per_minute(CLOSED, REASON), f"{{{{{REASON}}}}}"),
        names=CLOSED.known,
    )


def _age() -> Panel:
    return lines(
        "How old connections get",
        "Do connections live long enough to be worth pooling?",
        "By Little's law, open connections divided by closes per second; a straight line where none was closed. A few "
        "seconds: each runs only a few statements, and its cache of prepared statements is lost with it.",
        "s",
        over_time(f"{total(COUNT)} / ({rate(CLOSED)} > 0)", "age"),
        connected=True,
    )


def _ages_now() -> Panel:
    return lines(
        "Oldest checkout",
        "Is a connection never released?",
        "The longest current use of a connection. If it only rises, the holder leaks it or hangs: the log record "
        "pool.checkout.leak_suspected names the holder. Alert: AiosqlitepoolConnectionHeldTooLong.",
        "s",
        over_time(worst(_HOTTEST, oldest(OLDEST_CHECKOUT, *EACH)), INSTANCE),
        warn=10,
        bad=60,
        reaches=1,
    )


# -- what goes wrong?


def _rollbacks() -> Panel:
    return lines(
        "Rollbacks on return",
        "What do callers leave behind?",
        "Transaction: a commit() is missing, and the writes are lost. In_flight: the caller was cancelled during a "
        "statement. Cursor: rows were not read to the end. Alert: AiosqlitepoolRollbacksOnReturn.",
        "cpm",
        over_time(per_minute(ROLLBACKS, CAUSE), f"{{{{{CAUSE}}}}}"),
        names=ROLLBACKS.known,
        stacked=True,
    )


def _createfailures() -> Panel:
    return lines(
        "Failures to connect",
        "Why can no connection be opened?",
        "By exception. OperationalError: the file cannot be opened or is locked: check the path, permissions, disk "
        "space and open files. Any other comes from the factory. Alert: AiosqlitepoolConnectionCreateFailing.",
        "cpm",
        over_time(per_minute(CREATE_FAILURES, ERROR), f"{{{{{ERROR}}}}}"),
        bad=1,
    )


def _health() -> Panel:
    return lines(
        "Failed health checks",
        "Do connections fail while they are idle?",
        "All instances at once: the database file was replaced. One instance: its worker threads end. Alert: "
        "AiosqlitepoolHealthCheckFailing.",
        "cpm",
        over_time(worst(_HOTTEST, per_minute(HEALTH_FAILURES, *EACH)), INSTANCE),
        bad=1,
    )


def _subscribers() -> Panel:
    return lines(
        "Errors of subscribers",
        "Are these numbers complete?",
        "A handler of the pool's events raised, so its metric, span or log record is missing. The logger aiosqlitepool "
        "has the traceback. Alert: AiosqlitepoolTelemetryErrors.",
        "cpm",
        over_time(worst(_HOTTEST, per_minute(SUBSCRIBER_ERRORS, *EACH)), INSTANCE),
        bad=1,
    )
