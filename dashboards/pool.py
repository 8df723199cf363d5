"""aiosqlitepool / Pool in depth: one pool, by instance, how its connections live, and how large it should be."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from aiosqlitepool.subscribers._semconv import (
    ACQUIRES,
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
    TIMEOUTS,
    USE_TIME,
    WAIT_TIME,
)

from .frame import DEPTH, OVERVIEW, Row, board, chosen, link_to
from .panels import Panel, heat, lines, now, number, over_time, ranking
from .queries import (
    CAUSE,
    EACH,
    ERROR,
    PATH,
    POOL,
    REASON,
    STATE,
    buckets,
    busy,
    highest,
    in_range,
    limit,
    oldest,
    per_minute,
    quantile,
    rate,
    total,
    used,
    waiting,
    worst,
)

_HOTTEST = 10
_INSTANCE = "{{instance}}"
# Of one instance: how many connections it would have lent at this moment, had it had them.
_ASKED_FOR = f"{used(*EACH)} + {waiting(*EACH)}"
# And how many it would need if every connection were out for as long as the P99 one.
_AT_P99 = f"{rate(USE_TIME, *EACH)} * {quantile(0.99, USE_TIME, *EACH)}"


def make() -> dashboard.Dashboard:
    """The board."""
    return board(
        DEPTH,
        "Pool in depth",
        "One connection pool: which instance, by which path, for how long, what ends its connections, and what size "
        "would have been enough.",
        [
            Row("Now", 4, [_in_use(), _waiting(), _wait(), _hold(), _timeouts(), _enough()]),
            Row("Which instance?", 8, [_load_by(), _queue_by(), _wait_by(), _demand_by()]),
            Row("How do acquires end?", 8, [_paths(), _waits(), _failures()]),
            Row("How long does each thing take?", 9, [_wait_heat(), _hold_heat(), _create_heat()]),
            Row("How large should it be?", 8, [_sizing(), _advice()], widths=(14, 10)),
            Row("How do connections live?", 8, [_open(), _births_and_deaths(), _age(), _ages_now()]),
            Row("What goes wrong?", 8, [_rollbacks(), _create_failures(), _health(), _subscribers()]),
        ],
        [
            chosen("job", "job"),
            chosen("instance", "instance", 'job=~"$job"'),
            chosen("pool", POOL, 'job=~"$job", instance=~"$instance"', one=True),
        ],
    ).link(link_to(OVERVIEW, "Overview", "All pools at once"))


# -- now


def _in_use() -> Panel:
    return number(
        "Fullest instance",
        "Is it full?",
        "The mean of the last minute or so. At 100 % the next caller queues. Compare instances below, then see How "
        "large should it be.",
        "percentunit",
        # At any one moment, a pool of one connection is either full or empty.
        now(worst(1, f"{used(*EACH, lately=True)} / {limit(*EACH)}"), _INSTANCE),
        warn=0.8,
        bad=1.0,
        decimals=0,
    )


def _waiting() -> Panel:
    return number(
        "Longest queue",
        "Is anyone queueing?",
        "Callers that stay here wait for a holder to finish. Time out of the pool says how long that takes.",
        "short",
        now(worst(1, waiting(*EACH)), _INSTANCE),
        warn=1,
        bad=10,
        decimals=0,
    )


def _wait() -> Panel:
    return number(
        "P99 wait",
        "How bad is it for users?",
        "One request in a hundred waits longer for a connection. Over 100 ms, see by which path acquires end.",
        "s",
        now(quantile(0.99, WAIT_TIME), "all instances"),
        warn=0.1,
        bad=1.0,
    )


def _hold() -> Panel:
    return number(
        "P99 time out",
        "How long is a connection out?",
        "Long: callers do other work while they hold one, or run statements that need an index. What is shortened here "
        "needs no larger pool.",
        "s",
        now(quantile(0.99, USE_TIME), "all instances"),
        warn=1,
        bad=10,
    )


def _timeouts() -> Panel:
    return number(
        "Timeouts in range",
        "Did callers fail?",
        "Each got no connection within acquisition_timeout. Their errors name the holders.",
        "short",
        now(f"round({in_range(TIMEOUTS)})", "all instances"),
        bad=1,
        decimals=0,
    )


def _enough() -> Panel:
    return number(
        "Enough for 99 %",
        "What pool_size would have been enough?",
        "With so many connections, nobody would have queued in 99 of 100 moments of the range, on the busiest "
        "instance. Much less than max: make the pool smaller. More: see How large should it be before you raise it.",
        "short",
        now(f"ceil({_at_most(0.99)})", "pool_size"),
        decimals=0,
    )


def _at_most(share: float) -> str:
    return highest(f"quantile_over_time({share}, ({_ASKED_FOR})[$__range:$__interval])")


# -- which instance?


def _load_by() -> Panel:
    return lines(
        "Load",
        "Which instance is full?",
        "Used and waiting over max: above 100 % callers queue. One line apart from the others: that process has more "
        "traffic, or a task in it keeps connections.",
        "percentunit",
        over_time(worst(_HOTTEST, f"({_ASKED_FOR}) / {limit(*EACH)}"), _INSTANCE),
        warn=0.8,
        bad=1.0,
    )


def _queue_by() -> Panel:
    return lines(
        "Oldest waiter",
        "Where is someone stuck?",
        "A sawtooth is a queue that moves. A line that climbs at one second per second is one that does not: nothing "
        "comes back. Alert: AiosqlitepoolWaiterStuck.",
        "s",
        over_time(worst(_HOTTEST, oldest(OLDEST_WAITER, *EACH)), _INSTANCE),
        warn=1,
        bad=15,
    )


def _wait_by() -> Panel:
    return lines(
        "P99 wait by instance",
        "Whose callers wait?",
        "All instances alike: demand, or the database itself. One: look at that process's load and its traces.",
        "s",
        over_time(worst(_HOTTEST, quantile(0.99, WAIT_TIME, *EACH)), _INSTANCE),
        warn=0.1,
        bad=1.0,
    )


def _demand_by() -> Panel:
    return lines(
        "Demand",
        "Is traffic spread evenly?",
        "Connections out on average, by Little's law. Uneven: the balancer, or work that only one process does.",
        "short",
        over_time(worst(_HOTTEST, busy(USE_TIME, *EACH)), _INSTANCE),
    )


# -- how do acquires end?


def _paths() -> Panel:
    return lines(
        "Acquires by path",
        "Do callers find an idle connection?",
        "Idle is free. New opens a connection: many of them mean that connections end too soon. Queued waited for one "
        "to come back: many of them mean that the pool is too small for its traffic.",
        "ops",
        over_time(rate(ACQUIRES, PATH), f"{{{{{PATH}}}}}"),
        stacked=True,
        names=ACQUIRES.known,
    )


def _waits() -> Panel:
    return lines(
        "Waits",
        "How long do callers wait for a connection?",
        "P99 up and P50 at nothing: bursts, or a few slow holders. All up: too small, or stuck. A dot is a wait; click "
        "it for its trace, which links to whom it waited for. Alert: AiosqlitepoolWaitSlow.",
        "s",
        over_time(quantile(0.5, WAIT_TIME), "P50"),
        over_time(quantile(0.9, WAIT_TIME), "P90"),
        over_time(quantile(0.99, WAIT_TIME), "P99", exemplars=True),
        warn=0.1,
        bad=1.0,
    )


def _failures() -> Panel:
    return lines(
        "Failed acquires by type",
        "Who got no connection, and why?",
        "Timeouts: nothing came back in time. Rejected: max_waiting was reached. Cancelled: the caller gave up first. "
        "Closed: the pool was shut. The rest are errors of connecting, by exception.",
        "cpm",
        # This one is counted from the start; the others have no series until the first.
        over_time(per_minute(TIMEOUTS), "timeout"),
        over_time(per_minute(WAIT_TIME, ERROR, where=f'{ERROR}!~"|timeout"'), f"{{{{{ERROR}}}}}"),
        names=("cancelled", "rejected", "closed"),
        bad=1,
    )


# -- how long does each thing take?


def _wait_heat() -> Panel:
    return heat(
        "Waits by duration",
        "Do all wait a little, or a few for long?",
        "The upper band is those who queue; its height is how long the holders take. A band at acquisition_timeout is "
        "callers that fail.",
        buckets(WAIT_TIME),
    )


def _hold_heat() -> Panel:
    return heat(
        "Time out of the pool by duration",
        "Are there two kinds of holders?",
        "A second band far above the first is the work that makes others wait. If it can wait itself, give it a pool "
        "of its own.",
        buckets(USE_TIME),
    )


def _create_heat() -> Panel:
    return heat(
        "Creating by duration",
        "Is opening a connection slow?",
        "A band above 10 ms is a slow disk, or a factory that does more than its pragmas. A caller on the path new "
        "waits for all of it.",
        buckets(CREATE_TIME),
    )


# -- how large should it be?


def _sizing() -> Panel:
    return lines(
        "Demand on the busiest instance",
        "How many connections did it need?",
        "Demand is the mean, by Little's law. Asked for is used and waiting at that moment. Demand at P99 is what it "
        "would need if every connection were out as long as the slowest in a hundred. A pool_size between asked for "
        "and demand at P99 bears bursts; beyond that, shorten the holds instead.",
        "short",
        over_time(highest(busy(USE_TIME, *EACH)), "demand"),
        over_time(highest(_ASKED_FOR), "asked for"),
        over_time(highest(_AT_P99), "demand at P99"),
        over_time(highest(limit(*EACH)), "max"),
    )


def _advice() -> Panel:
    return ranking(
        "What pool_size would have been enough?",
        "How large should it be?",
        "For the busiest instance over the whole range. Below the first, the pool cannot keep up at all. The second "
        "would have left nobody waiting in 99 of 100 moments. The third bears the worst burst of holds that all take "
        "as long as the P99. SQLite is rarely faster with more than 5, so shorten the holds before you go there.",
        "short",
        now(highest(f"avg_over_time(({busy(USE_TIME, *EACH)})[$__range:$__rate_interval])"), "demand"),
        now(_at_most(0.99), "asked for"),
        now(highest(f"max_over_time(({_AT_P99})[$__range:$__rate_interval])"), "demand at P99"),
        now(highest(limit(*EACH)), "max"),
    )


# -- how do connections live?


def _open() -> Panel:
    return lines(
        "Open connections",
        "How many are open, and for what?",
        "Idle ones above min_size that never become used can go: lower idle_timeout. Fewer than min_size: they cannot "
        "be opened, see Failures to connect.",
        "short",
        over_time(used(), "used"),
        over_time(total(COUNT, where=f'{STATE}="idle"'), "idle"),
        over_time(total(IDLE_MIN), "min_size"),
        stacked=True,
    )


def _births_and_deaths() -> Panel:
    return lines(
        "Created and closed",
        "What ends connections?",
        "Created as a line, closed by reason below it. Idle and lifetime are housekeeping. If most of what is created "
        "is soon closed, the pool does not pool: raise idle_timeout, max_lifetime or min_size. Alert: "
        "AiosqlitepoolChurn.",
        "cpm",
        over_time(per_minute(CREATE_TIME), "created"),
        over_time(per_minute(CLOSED, REASON), f"{{{{{REASON}}}}}"),
        names=CLOSED.known,
    )


def _age() -> Panel:
    return lines(
        "How old connections get",
        "Do connections live long enough to be worth pooling?",
        "By Little's law, open connections over closes per second; nothing where none was closed. Seconds: each is "
        "opened for a handful of statements, and its cache of prepared ones is lost with it.",
        "s",
        over_time(f"{total(COUNT)} / ({rate(CLOSED)} > 0)", "age"),
    )


def _ages_now() -> Panel:
    return lines(
        "Oldest checkout",
        "Is a connection lost?",
        "The age of the connection that is out for longest. It climbs without end: its holder leaks it or hangs; the "
        "record pool.checkout.leak_suspected names it. Alert: AiosqlitepoolConnectionHeldTooLong.",
        "s",
        over_time(worst(_HOTTEST, oldest(OLDEST_CHECKOUT, *EACH)), _INSTANCE),
        warn=10,
        bad=60,
    )


# -- what goes wrong?


def _rollbacks() -> Panel:
    return lines(
        "Rollbacks on return",
        "What do callers leave behind?",
        "Transaction: a commit is missing, and the work is gone. In_flight: the caller was cancelled in a statement. "
        "Cursor: rows were not read to the end. Alert: AiosqlitepoolRollbacksOnReturn.",
        "cpm",
        over_time(per_minute(ROLLBACKS, CAUSE), f"{{{{{CAUSE}}}}}"),
        names=ROLLBACKS.known,
        stacked=True,
    )


def _create_failures() -> Panel:
    return lines(
        "Failures to connect",
        "Why can no connection be opened?",
        "By exception. OperationalError: the file cannot be opened or is locked; check path, rights, disk and open "
        "files. Any other comes from the factory. No data: none ever failed. Alert: "
        "AiosqlitepoolConnectionCreateFailing.",
        "cpm",
        over_time(per_minute(CREATE_FAILURES, ERROR), f"{{{{{ERROR}}}}}"),
        bad=1,
    )


def _health() -> Panel:
    return lines(
        "Failed health checks",
        "Do connections die while they are idle?",
        "All instances at once: the database file was replaced. One: its worker threads die. Alert: "
        "AiosqlitepoolHealthCheckFailing.",
        "cpm",
        over_time(worst(_HOTTEST, per_minute(HEALTH_FAILURES, *EACH)), _INSTANCE),
        bad=1,
    )


def _subscribers() -> Panel:
    return lines(
        "Errors of subscribers",
        "Can these numbers be trusted?",
        "A handler of the pool's events raised, and what it should have counted or told is missing. The logger "
        "aiosqlitepool has the traceback. Alert: AiosqlitepoolTelemetryErrors.",
        "cpm",
        over_time(worst(_HOTTEST, per_minute(SUBSCRIBER_ERRORS, *EACH)), _INSTANCE),
        bad=1,
    )
