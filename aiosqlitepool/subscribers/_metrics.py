"""Every metric. `_handlers.py` says which events increase a counter, `_levels.py` what a level is.

Imports no telemetry library.

Names that begin with `db.` follow the OpenTelemetry semantic conventions 1.44 (for connection pools: development); the
others are the project's own.
"""

from __future__ import annotations

import re
from typing import get_args

from aiosqlitepool import PoolClosedError
from aiosqlitepool.events import (
    AcquirePath,
    BackupResult,
    BusyKind,
    CheckpointResult,
    CloseReason,
    DatabaseCode,
    ErrorInfo,
    RollbackCause,
    StatementPlace,
    TransactionOutcome,
)

from ._attributes import (
    ACQUIRE_PATH,
    BACKUP_RESULT,
    BUSY_KIND,
    CHECKPOINT_RESULT,
    CLOSE_REASON,
    ERROR_TYPE,
    LABEL,
    NAMESPACE,
    OPERATION,
    OTHER,
    PLAN_WARNING,
    ROLLBACK_CAUSE,
    STATE,
    STATEMENT_PLACE,
    STATUS_CODE,
    SUMMARY,
    TRANSACTION_OUTCOME,
)
from ._metric import Metric, Values, label_name

# fmt: off
__all__ = [
    "ABANDONED", "ACQUIRES", "ACQUISITION_TIMEOUT", "BACKUPS", "BUSY_RETRIES", "CHECKPOINTS", "CLOSED", "COUNT",
    "COUNTERS", "CREATE_FAILURES", "CREATE_TIME", "DATABASE_ERRORS", "DATABASE_SIZE", "DISK_FREE",
    "HEALTH_FAILURES", "HISTOGRAMS", "IDLE_MAX", "IDLE_MIN", "INLINE_STALL", "LAST_BACKUP", "LEAKS",
    "LEAK_THRESHOLD", "LEVELS", "LOOP_LAG", "MAX", "MAX_PENDING", "METRICS", "OLDEST_CHECKOUT", "OLDEST_WAITER",
    "OPERATION_DURATION", "PENDING_REQUESTS", "ROLLBACKS", "SLOW_STATEMENTS", "STATEMENTS", "STATEMENT_TIME",
    "SUBSCRIBER_ERRORS", "TIMEOUTS", "TRANSACTION_TIME", "TRANSACTION_WAIT", "USE_TIME", "WAIT_TIME", "WAL_SIZE",
    "Metric", "Values", "error_type", "label_name", "namespace_of",
]

COUNT = Metric(
    "db.client.connection.count", "level", "{connection}",
    "The number of connections that are currently in state described by the `state` attribute.",
    (STATE,), ("idle", "used"),
)
MAX = Metric(
    "db.client.connection.max", "level", "{connection}",
    "The maximum number of open connections allowed.",
)
IDLE_MAX = Metric(
    "db.client.connection.idle.max", "level", "{connection}",
    "The maximum number of idle open connections allowed.",
)
IDLE_MIN = Metric(
    "db.client.connection.idle.min", "level", "{connection}",
    "The minimum number of idle open connections allowed.",
)
PENDING_REQUESTS = Metric(
    "db.client.connection.pending_requests", "level", "{request}",
    "The number of current pending requests for an open connection.",
)
OLDEST_WAITER = Metric(
    "aiosqlitepool.oldest_waiter.age", "gauge", "s",
    "The time that the oldest pending request has waited so far.",
)
OLDEST_CHECKOUT = Metric(
    "aiosqlitepool.oldest_checkout.age", "gauge", "s",
    "The time that the oldest checkout has lasted so far.",
)
ACQUISITION_TIMEOUT = Metric(
    "aiosqlitepool.acquisition_timeout", "gauge", "s",
    "The time after which an acquire times out. Absent without a limit.",
)
MAX_PENDING = Metric(
    "aiosqlitepool.pending_requests.max", "level", "{request}",
    "The maximum number of pending requests allowed. Absent without a limit.",
)
LEAK_THRESHOLD = Metric(
    "aiosqlitepool.leak_threshold", "gauge", "s",
    "The time in use after which a connection is suspected to leak. Absent without a limit.",
)
LOOP_LAG = Metric(
    "aiosqlitepool.loop.lag", "gauge", "s",
    "The longest delay of the pool's event loop in the last 15 seconds.",
)
INLINE_STALL = Metric(
    "aiosqlitepool.inline.stall", "gauge", "s",
    "The longest time, of late, for which SQLite in the event loop's own thread kept it from other work.",
)
LEAKS = Metric(
    "aiosqlitepool.leaks.suspected", "counter", "{connection}",
    "The number of connections that were in use for longer than the leak threshold, or that their holders lost, by the "
    "label and the last statement of the holder.",
    (LABEL, SUMMARY), ("",),
)
ABANDONED = Metric(
    "aiosqlitepool.connection.abandoned", "counter", "{connection}",
    "The number of connections that were in use when their pool closed.",
)
TIMEOUTS = Metric(
    "db.client.connection.timeouts", "counter", "{timeout}",
    "The number of connection timeouts that have occurred trying to obtain a connection from the pool.",
)
ACQUIRES = Metric(
    "aiosqlitepool.acquires", "counter", "{acquire}",
    "The number of connections acquired, by path.",
    (ACQUIRE_PATH,), get_args(AcquirePath),
)
CLOSED = Metric(
    "aiosqlitepool.connection.closed", "counter", "{connection}",
    "The number of connections that left the pool, by reason.",
    (CLOSE_REASON,), get_args(CloseReason),
)
CREATE_FAILURES = Metric(
    "aiosqlitepool.connection.create_failures", "counter", "{failure}",
    "The number of connections that could not be opened, by exception.",
    # SQLite raises it for a file that it cannot open. Other exceptions of a factory are not known in advance.
    (ERROR_TYPE,), ("sqlite3.OperationalError",),
)
HEALTH_FAILURES = Metric(
    "aiosqlitepool.health_check.failures", "counter", "{failure}",
    "The number of connections that failed a health check, or whose database file was replaced.",
)
ROLLBACKS = Metric(
    "aiosqlitepool.return.rollbacks", "counter", "{rollback}",
    "The number of connections released with unfinished work, by its kind.",
    (ROLLBACK_CAUSE,), get_args(RollbackCause),
)
SUBSCRIBER_ERRORS = Metric(
    "aiosqlitepool.subscriber.errors", "counter", "{error}",
    "The number of exceptions that handlers of the pool's events raised.",
)
WAIT_TIME = Metric(
    "db.client.connection.wait_time", "histogram", "s",
    "The time it took to obtain an open connection from the pool.",
    (ERROR_TYPE,),
)
CREATE_TIME = Metric(
    "db.client.connection.create_time", "histogram", "s",
    "The time it took to create a new connection.",
)
USE_TIME = Metric(
    "db.client.connection.use_time", "histogram", "s",
    "The time between borrowing a connection and returning it to the pool.",
    (LABEL,),
)
WAL_SIZE = Metric(
    "aiosqlitepool.wal.size", "gauge", "By",
    "The size of the database's WAL file.",
    database=True,
)
DATABASE_SIZE = Metric(
    "aiosqlitepool.database.size", "gauge", "By",
    "The size of the database file, without its WAL.",
    database=True,
)
DISK_FREE = Metric(
    "aiosqlitepool.disk.free", "gauge", "By",
    "The space that the file system of the database has left.",
    database=True,
)
DATABASE_ERRORS = Metric(
    "aiosqlitepool.database.errors", "counter", "{error}",
    "The number of errors that mean a failure of the database, its locks or its disk, by SQLite's primary error code.",
    (STATUS_CODE,), get_args(DatabaseCode),
)
BACKUPS = Metric(
    "aiosqlitepool.backups", "counter", "{backup}",
    "The number of backups, by result.",
    (BACKUP_RESULT,), get_args(BackupResult), database=True,
)
LAST_BACKUP = Metric(
    "aiosqlitepool.backup.last_time", "time", "s",
    "The Unix time at which the last backup ended, by result.",
    (BACKUP_RESULT,), database=True,
)
TRANSACTION_TIME = Metric(
    "aiosqlitepool.transaction.duration", "histogram", "s",
    "The duration of a transaction, by outcome.",
    (TRANSACTION_OUTCOME,), get_args(TransactionOutcome), database=True,
)
TRANSACTION_WAIT = Metric(
    "aiosqlitepool.transaction.wait_time", "histogram", "s",
    "The time from the request for a transaction to its beginning: in the queue, and for other processes.",
    database=True,
)
BUSY_RETRIES = Metric(
    "aiosqlitepool.busy_retries", "counter", "{retry}",
    "The number of times that a transaction began again because another process held the database, by kind.",
    (BUSY_KIND,), get_args(BusyKind), database=True,
)
CHECKPOINTS = Metric(
    "aiosqlitepool.checkpoints", "counter", "{checkpoint}",
    "The number of checkpoints, by whether they were complete, blocked by readers, or failed with an error.",
    (CHECKPOINT_RESULT,), (*get_args(CheckpointResult), "blocked", "failed"), database=True,
)
OPERATION_DURATION = Metric(
    "db.client.operation.duration", "histogram", "s",
    "Duration of database client operations.",
    (OPERATION, ERROR_TYPE), ("SELECT", "INSERT", "UPDATE", "DELETE"), (SUMMARY, NAMESPACE),
)
STATEMENTS = Metric(
    "aiosqlitepool.statements", "counter", "{statement}",
    "The number of statements that ran, by where: in the event loop, in a worker thread, or in both, one after the "
    "other.",
    (STATEMENT_PLACE,), get_args(StatementPlace),
)
SLOW_STATEMENTS = Metric(
    "aiosqlitepool.statement.slow", "counter", "{statement}",
    "The number of slow statements, by what makes their query plan slow.",
    (SUMMARY, PLAN_WARNING), (OTHER,),
)
STATEMENT_TIME = Metric(
    "aiosqlitepool.statement.time", "counter", "s",
    "The time that statements ran in the worker threads: those with the longest total.",
    (SUMMARY,),
)
# fmt: on

LEVELS = (
    COUNT,
    MAX,
    IDLE_MAX,
    IDLE_MIN,
    PENDING_REQUESTS,
    OLDEST_WAITER,
    OLDEST_CHECKOUT,
    ACQUISITION_TIMEOUT,
    MAX_PENDING,
    LEAK_THRESHOLD,
    LOOP_LAG,
    INLINE_STALL,
    WAL_SIZE,
    DATABASE_SIZE,
    DISK_FREE,
    LAST_BACKUP,
)
COUNTERS = (
    TIMEOUTS,
    ACQUIRES,
    CLOSED,
    CREATE_FAILURES,
    HEALTH_FAILURES,
    ROLLBACKS,
    SUBSCRIBER_ERRORS,
    LEAKS,
    ABANDONED,
    BUSY_RETRIES,
    CHECKPOINTS,
    DATABASE_ERRORS,
    BACKUPS,
    STATEMENTS,
    SLOW_STATEMENTS,
    STATEMENT_TIME,
)
HISTOGRAMS = (WAIT_TIME, CREATE_TIME, USE_TIME, TRANSACTION_TIME, TRANSACTION_WAIT, OPERATION_DURATION)
METRICS = (*LEVELS, *COUNTERS, *HISTOGRAMS)

_POOL_CLOSED = ErrorInfo.of(PoolClosedError()).type


def error_type(error: ErrorInfo) -> str:
    """Return the value of `error.type` for an acquire that raised this error: "closed" or the exception's name."""
    return "closed" if error.type == _POOL_CLOSED else error.type


def namespace_of(pool: str) -> str:
    """Return the value of `db.namespace`: the database's name, which a pool of a `SQLiteDatabase` begins with."""
    return re.sub(r"/(?:read|write)\Z", "", pool)
