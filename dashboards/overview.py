"""aiosqlitepool / Overview: one panel for each question that is asked of all pools at once, the urgent ones first."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from aiosqlitepool.subscribers._attributes import ACQUIRE_PATH, ACQUIRE_SPAN, ERROR_TYPE
from aiosqlitepool.subscribers._attributes import POOL as POOL_ATTRIBUTE
from aiosqlitepool.subscribers._metrics import (
    CLOSED,
    COUNT,
    CREATE_TIME,
    HEALTH_FAILURES,
    OLDEST_CHECKOUT,
    ROLLBACKS,
    SUBSCRIBER_ERRORS,
    TIMEOUTS,
    USE_TIME,
    WAIT_TIME,
)

from . import databases, headlines, statements
from .found import records, traces
from .frame import DEPTH, OVERVIEW, Row, board, link_to
from .panels import Panel, columns, lines, over_time
from .queries import (
    CAUSE,
    EACH,
    POOL,
    POOL_NAME,
    REASON,
    STATE,
    busy,
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
from .shared import failures, paths, wait_heat, waits

_HOTTEST = 10


def make() -> dashboard.Dashboard:
    """The board."""
    return board(
        OVERVIEW,
        "Overview",
        "Connection pools for SQLite: are they large enough, do callers wait or fail, and what is the cause?",
        [
            Row("Now", 4, headlines.of_all_pools()),
            Row("Is it large enough?", 8, [_headroom(), _demand(), _queue()]),
            Row("What do callers feel?", 9, [waits(), wait_heat()]),
            Row("How do acquires end?", 8, [_slow_share(), paths(), failures()]),
            Row("What do connections do?", 8, [_holds(), _creates(), _closes()]),
            statements.row(),
            Row("What goes wrong?", 7, [_health(), _rollbacks(), _subscribers()], collapsed=True),
            Row("Which instance, and which caller?", 9, [_hottest(), _slow_acquires()]),
            Row(
                "How do databases write? (SQLiteDatabase)",
                8,
                [databases.transactions(), databases.waits_by_pool(), databases.wal_by_pool()],
            ),
            Row("What do the logs say? (needs Loki)", 10, [_logs()], collapsed=True),
        ],
        link=link_to(
            DEPTH, "Pool in depth", "One pool: its instances, the life of its connections, and the right size"
        ),
    )


# -- is it large enough?


def _headroom() -> Panel:
    return lines(
        "Connections",
        "How much headroom is there?",
        "Used and idle, stacked; max is the most that may be open. Used at max: callers wait. Far below max for days: "
        "use a smaller pool_size. SQLite is rarely faster with more than 5.",
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
        "The mean number of connections in use: by Little's law, the use time per second. Near max: shorten the use of "
        "connections, or raise pool_size. A connection counts when it is released, so one that was in use for minutes "
        "is a peak above max.",
        "short",
        over_time(busy(USE_TIME), "demand"),
        over_time(limit(), "max"),
    )


def _queue() -> Panel:
    return lines(
        "Queue",
        "Since when, and in which pool, do callers wait?",
        "Peaks are bursts: more than pool_size callers at once. A plateau is a pool that cannot keep up. Zero while "
        "waits are long: opening or checking connections is slow, see Creating connections.",
        "short",
        over_time(worst(_HOTTEST, waiting(POOL)), POOL_NAME),
    )


# -- what do callers feel?


# -- how do acquires end?


def _slow_share() -> Panel:
    return lines(
        "Share of acquires over 100 ms",
        "How many users notice?",
        "Compare with Acquires by path: if queued ones grew too, demand grew. With your own wait_buckets, keep 0.1 "
        "among them. Over 1 % for minutes raises the alert AiosqlitepoolWaitSlow.",
        "percentunit",
        over_time(worst(_HOTTEST, share_over(0.1, WAIT_TIME, POOL)), POOL_NAME),
        warn=0.01,
        bad=0.05,
    )


# -- what do connections do?


def _holds() -> Panel:
    return lines(
        "Use time",
        "How long is a connection in use?",
        "The time between acquire and release, with everything else that the caller awaits. P99 rises: look for other "
        "work inside the block. Oldest only grows: a leak, or a stuck task. Alert: AiosqlitepoolConnectionHeldTooLong.",
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
        "Opening takes less than 1 ms, plus the pragmas of the factory. Slow: the disk, or a factory that does too "
        "much. Frequent: see Connections closed for the reason. Alert: AiosqlitepoolConnectionCreateFailing.",
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
        "Why are connections closed?",
        "Idle and lifetime are maintenance, pool_closed is a shutdown. Unhealthy: the file was replaced, or a worker "
        "thread ended. Reset_failed and broken: the connection could not be reset. Alert: AiosqlitepoolChurn.",
        "cpm",
        over_time(per_minute(CLOSED, REASON), f"{{{{{REASON}}}}}"),
        stacked=True,
        names=CLOSED.known,
    )


# -- what goes wrong?


def _health() -> Panel:
    return lines(
        "Failed health checks",
        "Do connections fail while they are idle?",
        "Callers do not see these: they get another connection. All at once: the database file was replaced, for "
        "example by a restored backup. One by one: worker threads end. Alert: AiosqlitepoolHealthCheckFailing.",
        "cpm",
        over_time(per_minute(HEALTH_FAILURES, POOL), POOL_NAME),
        bad=1,
    )


def _rollbacks() -> Panel:
    return lines(
        "Rolled back on return",
        "Do callers forget to commit?",
        "The share of releases with an open transaction, a running statement or a half-read cursor. A transaction is "
        "work that its caller lost: look for a missing commit(). Alert: AiosqlitepoolWorkLost.",
        "percentunit",
        over_time(f"{rate(ROLLBACKS, CAUSE)} / on () group_left () {rate(USE_TIME)}", f"{{{{{CAUSE}}}}}"),
        names=ROLLBACKS.known,
        warn=0.01,
        bad=0.05,
    )


def _subscribers() -> Panel:
    return lines(
        "Errors of subscribers",
        "Are these numbers complete?",
        "A handler of the pool's events raised, so its metric, span or log record is missing. The logger aiosqlitepool "
        "has the traceback. Alert: AiosqlitepoolTelemetryErrors.",
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
        "Which process is the cause?",
        "Load is used plus waiting, divided by max; the mean of about the last minute. At 100 % the pool is full, "
        "above it callers wait. One hot instance: its traffic or its tasks differ. All hot: demand grew. A row links "
        "to the board of its pool.",
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
            f"/d/{DEPTH}?var-datasource=${{datasource:percentencode}}"
            + "".join(f"&var-{name}=${{__data.fields.{name}:percentencode}}" for name in ("job", "instance", "pool"))
            + "&${__url_time_range}",
        ),
        warn=0.8,
        bad=1.0,
    )


def _slow_acquires() -> Panel:
    found = f'name = "{ACQUIRE_SPAN}" && span.{POOL_ATTRIBUTE} =~ `${{pool:regex}}`'
    shown = ", ".join(f"span.{name}" for name in (POOL_ATTRIBUTE, ERROR_TYPE, ACQUIRE_PATH))
    return traces(
        "Slow acquisitions",
        "Which holders did they wait for?",
        "Acquires that failed, or took longer than the pool's slow_acquire (50 ms). Each links to the spans of the "
        "holders: open them to see their statements. Empty: no acquire was slow, or no spans reach Tempo.",
        f"{{ {found} }} | select({shown})",
    )


# -- what do the logs say?


def _logs() -> Panel:
    return records(
        "Records of the pools",
        "What did the pools log at the time?",
        "The records of the structlog subscriber as JSON: slow and failed acquires, failed checks, rollbacks, "
        "suspected leaks. Empty: choose a Loki data source, or check that the records are JSON with `event` and "
        "`pool`.",
        '{service_name=~".+"} |= "pool." | json | event =~ "pool[.].+" | pool =~ `${pool:regex}`',
    )
