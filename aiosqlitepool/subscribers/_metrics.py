"""Every name that telemetry shows, once: metrics, attributes, spans, and how Prometheus spells them.

What begins with `db.` follows the OpenTelemetry semantic conventions 1.44 (development, for connection pools), the rest
is ours. Imports no telemetry library; knows nothing of how a metric is made.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from aiosqlitepool import PoolClosedError
from aiosqlitepool.events import (
    AcquirePath,
    BusyKind,
    CheckpointResult,
    CloseReason,
    ErrorInfo,
    RollbackCause,
    TransactionOutcome,
)

__all__ = [
    "ACQUIRES",
    "BUSY_RETRIES",
    "CHECKPOINTS",
    "CLOSED",
    "COUNT",
    "COUNTERS",
    "CREATE_BUCKETS",
    "CREATE_FAILURES",
    "CREATE_TIME",
    "HEALTH_FAILURES",
    "HISTOGRAMS",
    "IDLE_MAX",
    "IDLE_MIN",
    "LEVELS",
    "MAX",
    "METRICS",
    "OLDEST_CHECKOUT",
    "OLDEST_WAITER",
    "PENDING_REQUESTS",
    "POOL",
    "ROLLBACKS",
    "SCHEMA_URL",
    "SCOPE",
    "SUBSCRIBER_ERRORS",
    "TIMEOUTS",
    "TRANSACTION_BUCKETS",
    "TRANSACTION_TIME",
    "TRANSACTION_WAIT",
    "USE_BUCKETS",
    "USE_TIME",
    "WAIT_BUCKETS",
    "WAIT_TIME",
    "WAL_SIZE",
    "Metric",
    "Buckets",
    "checked_bounds",
    "checked_buckets",
    "checked_seconds",
    "error_type",
    "label_name",
]

SCOPE = "aiosqlitepool"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

# -- attributes

POOL = "db.client.connection.pool.name"
STATE = "db.client.connection.state"
SYSTEM = "db.system.name"
ERROR_TYPE = "error.type"
ERROR_MESSAGE = "error.message"
ACQUIRE_PATH = "aiosqlitepool.acquire.path"
LABEL = "aiosqlitepool.acquire.label"
QUEUE_TIME = "aiosqlitepool.acquire.queue_time"
ACQUIRE_CREATE_TIME = "aiosqlitepool.acquire.create_time"
CHECK_TIME = "aiosqlitepool.acquire.check_time"
PENDING = "aiosqlitepool.acquire.pending"
USED = "aiosqlitepool.pool.used"
POOL_MAX = "aiosqlitepool.pool.max"
CONNECTION = "aiosqlitepool.connection.id"
HELD_TIME = "aiosqlitepool.connection.held_time"
IDLE_TIME = "aiosqlitepool.connection.idle_time"
RESET_TIME = "aiosqlitepool.connection.reset_time"
ROLLED_BACK = "aiosqlitepool.connection.rolled_back"
CLOSE_REASON = "aiosqlitepool.connection.close_reason"
ROLLBACK_CAUSE = "aiosqlitepool.rollback.cause"
TRANSACTION_OUTCOME = "aiosqlitepool.transaction.outcome"
BUSY_KIND = "aiosqlitepool.busy.kind"
CHECKPOINT_RESULT = "aiosqlitepool.checkpoint.result"

# -- spans and span events

ACQUIRE_SPAN = "aiosqlitepool.acquire"
CONNECT_SPAN = "aiosqlitepool.connect"
CHECKOUT_SPAN = "aiosqlitepool.checkout"
HEALTH_FAILED = "aiosqlitepool.health_check.failed"
RETURN_ROLLED_BACK = "aiosqlitepool.return.rolled_back"
IDLE_REPLACED = "aiosqlitepool.connection.idle_replaced"

# -- metrics

Kind = Literal["counter", "level", "gauge", "histogram"]


# Compared by identity: they are keys of dicts that events write to.
@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric: `kind` "level" may be summed over pools and processes, "gauge" may not.

    `attribute` is what it is told apart by beside the pool, `known` the values that it starts with, at 0. A `database`
    metric is one of the pools of a `SQLiteDatabase` only.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    attribute: str | None = None
    known: tuple[str, ...] = ()
    database: bool = False

    @property
    def family(self) -> str:
        """The name of its family in Prometheus, which a counter's samples suffix with `_total`."""
        name = label_name(self.name)
        return f"{name}_{self.prometheus_unit}" if self.prometheus_unit else name

    @property
    def prometheus_unit(self) -> str:
        """How Prometheus spells its unit: "" if that is only a remark."""
        return {"s": "seconds", "By": "bytes"}.get(self.unit, "")

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its labels in Prometheus."""
        return tuple(label_name(name) for name in (POOL, self.attribute) if name is not None)


def label_name(attribute: str) -> str:
    """Spell an attribute's name as OpenTelemetry's translation to Prometheus does."""
    return re.sub(r"[^a-zA-Z0-9]+", "_", attribute)


COUNT = Metric(
    "db.client.connection.count",
    "level",
    "{connection}",
    "The number of connections that are currently in state described by the `state` attribute.",
    STATE,
    ("idle", "used"),
)
MAX = Metric("db.client.connection.max", "level", "{connection}", "The maximum number of open connections allowed.")
IDLE_MAX = Metric(
    "db.client.connection.idle.max", "level", "{connection}", "The maximum number of idle open connections allowed."
)
IDLE_MIN = Metric(
    "db.client.connection.idle.min", "level", "{connection}", "The minimum number of idle open connections allowed."
)
PENDING_REQUESTS = Metric(
    "db.client.connection.pending_requests",
    "level",
    "{request}",
    "The number of current pending requests for an open connection.",
)
OLDEST_WAITER = Metric(
    "aiosqlitepool.oldest_waiter.age", "gauge", "s", "How long the request that waits longest has waited so far."
)
OLDEST_CHECKOUT = Metric(
    "aiosqlitepool.oldest_checkout.age", "gauge", "s", "How long the connection lent longest has been out so far."
)
TIMEOUTS = Metric(
    "db.client.connection.timeouts",
    "counter",
    "{timeout}",
    "The number of connection timeouts that have occurred trying to obtain a connection from the pool.",
)
ACQUIRES = Metric(
    "aiosqlitepool.acquires",
    "counter",
    "{acquire}",
    "The number of connections lent, by the path they took.",
    ACQUIRE_PATH,
    get_args(AcquirePath),
)
CLOSED = Metric(
    "aiosqlitepool.connection.closed",
    "counter",
    "{connection}",
    "The number of connections that left the pool, by reason.",
    CLOSE_REASON,
    get_args(CloseReason),
)
CREATE_FAILURES = Metric(
    "aiosqlitepool.connection.create_failures",
    "counter",
    "{failure}",
    "The number of connections that could not be opened, by exception.",
    ERROR_TYPE,
    # What SQLite raises for a file that it cannot open. Whatever else a factory raises, nobody knows beforehand.
    ("sqlite3.OperationalError",),
)
HEALTH_FAILURES = Metric(
    "aiosqlitepool.health_check.failures",
    "counter",
    "{failure}",
    "The number of connections found dead, or whose database file was replaced.",
)
ROLLBACKS = Metric(
    "aiosqlitepool.return.rollbacks",
    "counter",
    "{rollback}",
    "The number of connections that came back with work undone, by what was left.",
    ROLLBACK_CAUSE,
    get_args(RollbackCause),
)
SUBSCRIBER_ERRORS = Metric(
    "aiosqlitepool.subscriber.errors",
    "counter",
    "{error}",
    "The number of exceptions that handlers of the pool's events raised.",
)
WAIT_TIME = Metric(
    "db.client.connection.wait_time",
    "histogram",
    "s",
    "The time it took to obtain an open connection from the pool.",
    ERROR_TYPE,
)
CREATE_TIME = Metric(
    "db.client.connection.create_time", "histogram", "s", "The time it took to create a new connection."
)
USE_TIME = Metric(
    "db.client.connection.use_time",
    "histogram",
    "s",
    "The time between borrowing a connection and returning it to the pool.",
)
WAL_SIZE = Metric(
    "aiosqlitepool.wal.size",
    "gauge",
    "By",
    "The size of the database's WAL file, which checkpoints fold into the database.",
    database=True,
)
TRANSACTION_TIME = Metric(
    "aiosqlitepool.transaction.duration",
    "histogram",
    "s",
    "The time from the beginning of a transaction to its end, by outcome.",
    TRANSACTION_OUTCOME,
    get_args(TransactionOutcome),
    database=True,
)
TRANSACTION_WAIT = Metric(
    "aiosqlitepool.transaction.wait_time",
    "histogram",
    "s",
    "The time from asking for a transaction to its beginning: in the queue, and for other processes.",
    database=True,
)
BUSY_RETRIES = Metric(
    "aiosqlitepool.busy_retries",
    "counter",
    "{retry}",
    "The number of attempts at a transaction that another process was in the way of, by kind.",
    BUSY_KIND,
    get_args(BusyKind),
    database=True,
)
CHECKPOINTS = Metric(
    "aiosqlitepool.checkpoints",
    "counter",
    "{checkpoint}",
    "The number of checkpoints made while nobody wrote, by how far they went.",
    CHECKPOINT_RESULT,
    get_args(CheckpointResult),
    database=True,
)

LEVELS = (COUNT, MAX, IDLE_MAX, IDLE_MIN, PENDING_REQUESTS, OLDEST_WAITER, OLDEST_CHECKOUT, WAL_SIZE)
COUNTERS = (
    TIMEOUTS,
    ACQUIRES,
    CLOSED,
    CREATE_FAILURES,
    HEALTH_FAILURES,
    ROLLBACKS,
    SUBSCRIBER_ERRORS,
    BUSY_RETRIES,
    CHECKPOINTS,
)
HISTOGRAMS = (WAIT_TIME, CREATE_TIME, USE_TIME, TRANSACTION_TIME, TRANSACTION_WAIT)
METRICS = (*LEVELS, *COUNTERS, *HISTOGRAMS)

# -- buckets, in seconds

# The bounds of each histogram's buckets.
Buckets = dict[Metric, tuple[float, ...]]

# fmt: off
WAIT_BUCKETS = (
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)
CREATE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
USE_BUCKETS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
TRANSACTION_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)
# fmt: on


def checked_bounds(
    wait: Iterable[float], create: Iterable[float], use: Iterable[float], transaction: Iterable[float]
) -> Buckets:
    """The bounds of every histogram; `ValueError` names the argument that makes no sense."""
    waits = checked_buckets("wait_buckets", wait)
    return {
        WAIT_TIME: waits,
        CREATE_TIME: checked_buckets("create_buckets", create),
        USE_TIME: checked_buckets("use_buckets", use),
        TRANSACTION_TIME: checked_buckets("transaction_buckets", transaction),
        TRANSACTION_WAIT: waits,
    }


def checked_buckets(argument: str, bounds: Iterable[float]) -> tuple[float, ...]:
    """Return bucket bounds as floats, without a final infinity; `ValueError` names the argument if they are none."""
    try:
        checked = tuple(float(bound) for bound in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"{argument} must be numbers of seconds, not {bounds!r}") from None
    if checked and checked[-1] == math.inf:
        checked = checked[:-1]
    rising = all(low < high for low, high in itertools.pairwise(checked))
    if not checked or not rising or checked[0] < 0 or not all(map(math.isfinite, checked)):
        raise ValueError(f"{argument} must be finite, 0 or more, and strictly rising, not {bounds!r}")
    return checked


def checked_seconds(argument: str, seconds: float) -> float:
    """Return a threshold as float; `ValueError` names the argument if it is none."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
        raise ValueError(f"{argument} must be 0 or more seconds, not {seconds!r}")
    return float(seconds)


_POOL_CLOSED = ErrorInfo.of(PoolClosedError()).type


def error_type(error: ErrorInfo) -> str:
    """The value of `error.type` for an acquire that ended in this error: "closed" or the exception's name."""
    return "closed" if error.type == _POOL_CLOSED else error.type
