"""aiosqlitepool / Overview: one panel for each question that is asked of all pools at once, the urgent ones first."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from aiosqlitepool.subscribers._semconv import (
    ACQUIRE_PATH,
    ACQUIRE_SPAN,
    ACQUIRES,
    CLOSED,
    COUNT,
    CREATE_TIME,
    ERROR_TYPE,
    HEALTH_FAILURES,
    OLDEST_CHECKOUT,
    OLDEST_WAITER,
    ROLLBACKS,
    SUBSCRIBER_ERRORS,
    TIMEOUTS,
    USE_TIME,
    WAIT_TIME,
)
from aiosqlitepool.subscribers._semconv import POOL as POOL_ATTRIBUTE

from .frame import DEPTH, OVERVIEW, Row, board, chosen, link_to
from .panels import Panel, columns, heat, lines, now, number, over_time, records, traces
from .queries import (
    CAUSE,
    EACH,
    ERROR,
    PATH,
    POOL,
    POOL_AT,
    POOL_NAME,
    REASON,
    STATE,
    buckets,
    busy,
    in_range,
    limit,
    oldest,
    per_minute,
    quantile,
    rate,
    share_over,
    total,
    used,
    waiting,
    worst,
)

_HOTTEST = 10


def make() -> dashboard.Dashboard:
    """The board."""
    return board(
        OVERVIEW,
        "Overview",
        "Connection pools for SQLite: are they large enough, do callers wait or fail, and what is to blame.",
        [
            Row("Now", 4, [_utilisation(), _waiting(), _wait(), _timeouts(), _oldest_waiter(), _traffic()]),
            Row("Is it large enough?", 8, [_headroom(), _demand(), _queue()]),
            Row("What do callers feel?", 9, [_waits(), _wait_heat()]),
            Row("How do acquires end?", 8, [_slow_share(), _paths(), _failures()]),
            Row("What do connections do?", 8, [_holds(), _creates(), _closes()]),
            Row("What goes wrong?", 7, [_health(), _rollbacks(), _subscribers()]),
            Row("Where, and for whom?", 9, [_hottest(), _slow_acquires()]),
            Row("What do the logs say? (needs Loki)", 10, [_logs()], collapsed=True),
        ],
        [
            chosen("job", "job"),
            chosen("instance", "instance", 'job=~"$job"'),
            chosen("pool", POOL, 'job=~"$job", instance=~"$instance"'),
        ],
    ).link(
        link_to(DEPTH, "Pool in depth", "One pool: by instance, the lives of its connections, how large it should be")
    )


# -- now


def _utilisation() -> Panel:
    return number(
        "Fullest pool",
        "Is it full?",
        "The mean of the last minute or so. At 100 % the next caller queues. Look at Demand: near max, the pool is too "
        "small; far below, somebody keeps connections, see Time out of the pool. Alert: AiosqlitepoolSaturated.",
        "percentunit",
        # At any one moment, a pool of one connection is either full or empty.
        now(worst(1, f"{used(*EACH, lately=True)} / {limit(*EACH)}"), POOL_AT),
        warn=0.8,
        bad=1.0,
        decimals=0,
    )


def _waiting() -> Panel:
    return number(
        "Longest queue",
        "Is anyone queueing?",
        "Callers that come and go are harmless: the pool is busy. A queue that stays means more demand than the pool "
        "can serve: shorten what holds connections before you raise pool_size. Alert: AiosqlitepoolSaturated.",
        "short",
        now(worst(1, waiting(*EACH)), POOL_AT),
        warn=1,
        bad=10,
        decimals=0,
    )


def _wait() -> Panel:
    return number(
        "Worst P99 wait",
        "How bad is it for users?",
        "One request in a hundred waits longer than this before its first statement. See Waits for since when, and "
        "Slow acquisitions for whom they waited for. Alert: AiosqlitepoolWaitSlow.",
        "s",
        now(worst(1, quantile(0.99, WAIT_TIME, POOL)), POOL_NAME),
        warn=0.1,
        bad=1.0,
    )


def _timeouts() -> Panel:
    return number(
        "Timeouts in range",
        "Did callers fail?",
        "Each is a request that got no connection within acquisition_timeout. Its error and its trace say who held the "
        "connections. Alert: AiosqlitepoolAcquireTimeoutsBurningBudget.",
        "short",
        now(f"round({in_range(TIMEOUTS)})", "all pools"),
        bad=1,
        decimals=0,
    )


def _oldest_waiter() -> Panel:
    return number(
        "Oldest waiter",
        "Is someone stuck right now?",
        "The age of the request that waits longest. If it only grows, no connection comes back: find the oldest "
        "checkout in Time out of the pool, and a task that waits for itself. Alert: AiosqlitepoolWaiterStuck.",
        "s",
        now(worst(1, oldest(OLDEST_WAITER, *EACH)), POOL_AT),
        warn=1,
        bad=15,
    )


def _traffic() -> Panel:
    return number(
        "Acquires",
        "Is it used at all?",
        "Connections lent per second. Nothing, although the service has traffic: the program does not use the pool, or "
        "Prometheus does not reach it.",
        "ops",
        now(rate(ACQUIRES), "all pools"),
    )


# -- is it large enough?


def _headroom() -> Panel:
    return lines(
        "Connections",
        "How much headroom is there?",
        "Used and idle, stacked, below the most that may be open. Used at max: callers queue. Far below max for days: "
        "a smaller pool_size does as well, and SQLite is rarely faster with more than 5.",
        "short",
        over_time(total(COUNT, where=f'{STATE}="used"'), "used"),
        over_time(total(COUNT, where=f'{STATE}="idle"'), "idle"),
        over_time(limit(), "max"),
        stacked=True,
    )


def _demand() -> Panel:
    return lines(
        "Demand",
        "What size would be enough?",
        "By Little's law, the time that connections are out per second is how many are out on average. Near max: raise "
        "pool_size or hold connections for less long. A connection counts when it comes back, so one that was out for "
        "minutes shows as a peak above max.",
        "short",
        over_time(busy(USE_TIME), "demand"),
        over_time(limit(), "max"),
    )


def _queue() -> Panel:
    return lines(
        "Queue",
        "Since when, and in which pool, do callers queue?",
        "Peaks are bursts: more than pool_size came at once. A plateau is a pool that cannot keep up. Nothing here "
        "while waits are long: opening or checking connections is slow, see Creating connections.",
        "short",
        over_time(worst(_HOTTEST, waiting(POOL)), POOL_NAME),
    )


# -- what do callers feel?


def _waits() -> Panel:
    return lines(
        "Waits",
        "How long do callers wait for a connection?",
        "All that acquired, and all that failed to. P99 up and P50 at nothing: bursts, or a few slow holders. All up: "
        "the pool is too small or something is stuck. A dot is a wait; click it for its trace. Alert: "
        "AiosqlitepoolWaitSlow.",
        "s",
        over_time(quantile(0.5, WAIT_TIME), "P50"),
        over_time(quantile(0.9, WAIT_TIME), "P90"),
        over_time(quantile(0.99, WAIT_TIME), "P99", exemplars=True),
        warn=0.1,
        bad=1.0,
    )


def _wait_heat() -> Panel:
    return heat(
        "Waits by duration",
        "Do all wait a little, or a few for long?",
        "Two bands are two kinds of callers: those who find a connection and those who queue. The upper one's height "
        "is how long the holders take. A band at acquisition_timeout is callers that fail.",
        buckets(WAIT_TIME),
    )


# -- how do acquires end?


def _slow_share() -> Panel:
    return lines(
        "Share of acquires over 100 ms",
        "How many users notice?",
        "Over 1 % for minutes is what AiosqlitepoolWaitSlow tells of. Compare with Acquires by path: if the share of "
        "queued ones grew with it, demand did. With wait_buckets of your own, keep 0.1 among them.",
        "percentunit",
        over_time(worst(_HOTTEST, share_over(0.1, WAIT_TIME, POOL)), POOL_NAME),
        warn=0.01,
        bad=0.05,
    )


def _paths() -> Panel:
    return lines(
        "Acquires by path",
        "Do callers find an idle connection?",
        "Idle is free, new opens a connection, queued waited for one to come back. Many new ones: connections end too "
        "soon, raise min_size or idle_timeout. Many queued ones: see Demand.",
        "ops",
        over_time(rate(ACQUIRES, PATH), f"{{{{{PATH}}}}}"),
        stacked=True,
        names=ACQUIRES.known,
    )


def _failures() -> Panel:
    return lines(
        "Failed acquires by type",
        "Who got no connection, and why?",
        "Timeouts: nothing came back in time. Rejected: max_waiting was reached. Cancelled: the caller gave up first, "
        "often a client that went away. Closed: the pool was shut under its callers. The rest are errors of "
        "connecting.",
        "cpm",
        # This one is counted from the start; the others have no series until the first.
        over_time(per_minute(TIMEOUTS), "timeout"),
        over_time(per_minute(WAIT_TIME, ERROR, where=f'{ERROR}!~"|timeout"'), f"{{{{{ERROR}}}}}"),
        names=("cancelled", "rejected", "closed"),
        bad=1,
    )


# -- what do connections do?


def _holds() -> Panel:
    return lines(
        "Time out of the pool",
        "How long is a connection out?",
        "What a caller does between acquire and release, its own awaits included. P99 up: look for work done while "
        "holding a connection. Oldest grows without end: a leak, or a task that is stuck. Alert: "
        "AiosqlitepoolConnectionHeldTooLong.",
        "s",
        over_time(quantile(0.5, USE_TIME), "P50"),
        over_time(quantile(0.99, USE_TIME), "P99"),
        over_time(oldest(OLDEST_CHECKOUT), "oldest"),
        warn=10,
        bad=60,
    )


def _creates() -> Panel:
    return lines(
        "Creating connections",
        "Is opening a connection slow, or frequent?",
        "A connection takes under 1 ms and the pragmas of the factory. Slow: the disk, or a factory that does too "
        "much. Frequent: see Connections closed for what ends them. Alert: AiosqlitepoolConnectionCreateFailing.",
        "s",
        over_time(quantile(0.99, CREATE_TIME), "P99"),
        over_time(rate(CREATE_TIME), "creates"),
        right={"creates": "ops"},
        warn=0.1,
        bad=1.0,
    )


def _closes() -> Panel:
    return lines(
        "Connections closed",
        "Why do connections end?",
        "Idle and lifetime are housekeeping, pool_closed is a shutdown. Unhealthy: the file was replaced or a worker "
        "died. Reset_failed and broken: what a caller left could not be undone. Alert: AiosqlitepoolChurn.",
        "cpm",
        over_time(per_minute(CLOSED, REASON), f"{{{{{REASON}}}}}"),
        stacked=True,
        names=CLOSED.known,
    )


# -- what goes wrong?


def _health() -> Panel:
    return lines(
        "Failed health checks",
        "Do connections die while they are idle?",
        "Callers do not see these: they get another connection. All at once: the database file was replaced, for "
        "instance by a restored backup. One by one: worker threads die. Alert: AiosqlitepoolHealthCheckFailing.",
        "cpm",
        over_time(per_minute(HEALTH_FAILURES, POOL), POOL_NAME),
        bad=1,
    )


def _rollbacks() -> Panel:
    return lines(
        "Returns with work undone",
        "Do callers forget to commit?",
        "The share of connections that came back with a transaction open, a statement running or a cursor half read. A "
        "transaction is work that its caller lost: look for a missing commit. Alert: AiosqlitepoolRollbacksOnReturn.",
        "percentunit",
        over_time(f"{rate(ROLLBACKS, CAUSE)} / on () group_left () {rate(USE_TIME)}", f"{{{{{CAUSE}}}}}"),
        names=ROLLBACKS.known,
        warn=0.01,
        bad=0.05,
    )


def _subscribers() -> Panel:
    return lines(
        "Errors of subscribers",
        "Can these numbers be trusted?",
        "A handler of the pool's events raised, and what it should have counted or told is missing. The logger "
        "aiosqlitepool has the traceback. Alert: AiosqlitepoolTelemetryErrors.",
        "cpm",
        over_time(per_minute(SUBSCRIBER_ERRORS, POOL), POOL_NAME),
        bad=1,
    )


# -- where, and for whom?


def _hottest() -> Panel:
    load = f"({used(*EACH, lately=True)} + {waiting(*EACH, lately=True)}) / {limit(*EACH)}"
    hottest = f"and on ({', '.join(EACH)}) {worst(_HOTTEST, load)}"
    return columns(
        "Hottest instances",
        "Which process is to blame?",
        "Load is used and waiting over max, the mean of the last minute or so: at 100 % the pool is full, above it "
        "callers queue. One hot instance among cold ones: its traffic or its tasks differ. All hot: demand grew. A row "
        "leads to its pool in depth.",
        "percentunit",
        {
            "Load": (worst(_HOTTEST, load), "percentunit"),
            "Waiting": (f"{waiting(*EACH, lately=True)} {hottest}", "short"),
            "P99 wait": (f"{quantile(0.99, WAIT_TIME, *EACH)} {hottest}", "s"),
            "Timeouts/min": (f"{per_minute(TIMEOUTS, *EACH)} {hottest}", "cpm"),
        },
        {"job": "job", "instance": "instance", POOL: "pool"},
        link=(
            "This pool in depth",
            f"/d/{DEPTH}?var-datasource=${{datasource}}&var-job=${{__data.fields.job}}"
            "&var-instance=${__data.fields.instance}&var-pool=${__data.fields.pool}&${__url_time_range}",
        ),
        warn=0.8,
        bad=1.0,
    )


def _slow_acquires() -> Panel:
    found = f'name = "{ACQUIRE_SPAN}" && span.{POOL_ATTRIBUTE} =~ "${{pool:pipe}}"'
    shown = ", ".join(f"span.{name}" for name in (POOL_ATTRIBUTE, ERROR_TYPE, ACQUIRE_PATH))
    return traces(
        "Slow acquisitions",
        "Whom did they wait for?",
        "Acquires that failed, or took longer than the subscriber's slow_acquire (50 ms). A span links to those of the "
        "callers that held the connections meanwhile: open them, and see what they did. Empty: nothing was slow, or no "
        "spans reach Tempo.",
        f"{{ {found} }} | select({shown})",
    )


# -- what do the logs say?


def _logs() -> Panel:
    return records(
        "Records of the pools",
        "What did the pools say at the time?",
        "The records of the structlog subscriber as JSON, slow and failed acquires, failed checks, rollbacks and "
        "suspected leaks among them. Nothing: choose a Loki data source, or the records are not JSON with `event` and "
        "`pool`.",
        '{service_name=~".+"} |= "pool." | json | event =~ "pool[.].+" | pool =~ "${pool:pipe}"',
    )
