"""Which events increase which counters, which mean a failed acquire, and uses by label. Knows no metrics library."""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

from aiosqlitepool.events import (
    AcquireCancelled,
    AcquireFailed,
    AcquireRejected,
    AcquireTimedOut,
    BackupEnded,
    BusyRetried,
    CheckpointBlocked,
    Checkpointed,
    CheckpointFailed,
    ConnectionClosed,
    ConnectionCreateFailed,
    ConnectionReleased,
    DatabaseFailed,
    HealthCheckFailed,
    LeakSuspected,
    PoolClosed,
    PoolEvent,
    PoolTimings,
    RolledBackOnReturn,
    StatementSlow,
    StatementTimings,
)

from ._limits import PoolLimits
from ._metrics import (
    ABANDONED,
    BACKUPS,
    BUSY_RETRIES,
    CHECKPOINTS,
    CLOSED,
    CREATE_FAILURES,
    DATABASE_ERRORS,
    HEALTH_FAILURES,
    LAST_BACKUP,
    LEAKS,
    ROLLBACKS,
    SLOW_STATEMENTS,
    STATEMENTS,
    TIMEOUTS,
    error_type,
)

__all__ = ["Handlers", "count_events", "fail_events", "uses_by_label"]

Handlers = Iterator[tuple[type[PoolEvent | PoolTimings | StatementTimings], Callable[[Any], None]]]


def count_events(count: Callable[..., None], note: Callable[..., None], limits: PoolLimits) -> Handlers:
    """Yield each event type that increases a counter, and a handler that calls `count(metric, *values, number=1)`.

    Times of events are noted by `note(metric, *values, number=...)`.
    """
    yield AcquireTimedOut, lambda event: count(TIMEOUTS)
    yield ConnectionClosed, lambda event: count(CLOSED, event.reason)
    yield ConnectionCreateFailed, lambda event: count(CREATE_FAILURES, limits.error(event.error.type))
    yield HealthCheckFailed, lambda event: count(HEALTH_FAILURES)
    yield RolledBackOnReturn, lambda event: count(ROLLBACKS, event.cause)
    yield LeakSuspected, lambda event: count(LEAKS, *limits.leak(event.holder))
    yield PoolClosed, lambda event: count(ABANDONED, number=event.abandoned)
    yield BusyRetried, lambda event: count(BUSY_RETRIES, event.kind)
    yield Checkpointed, lambda event: count(CHECKPOINTS, event.result)
    yield CheckpointBlocked, lambda event: count(CHECKPOINTS, "blocked")
    yield CheckpointFailed, lambda event: count(CHECKPOINTS, "failed")
    yield BackupEnded, lambda event: count(BACKUPS, event.result)
    yield BackupEnded, lambda event: note(LAST_BACKUP, event.result, number=event.ended_at)
    yield StatementSlow, lambda event: count(SLOW_STATEMENTS, *limits.slow(event))

    def ran(timings: StatementTimings) -> None:
        for kind, runs in timings.runs.items():
            count(STATEMENTS, kind.place, number=len(runs))

    yield StatementTimings, ran

    def failed(event: ConnectionCreateFailed | HealthCheckFailed | DatabaseFailed) -> None:
        if (code := event.error.database_code) is not None:
            count(DATABASE_ERRORS, code)

    yield from ((kind, failed) for kind in (ConnectionCreateFailed, HealthCheckFailed, DatabaseFailed))


def fail_events(fail: Callable[[Any, str], None]) -> Handlers:
    """Yield each event type of a failed acquire, and a handler that calls `fail(event, error_type)`."""
    yield AcquireTimedOut, lambda event: fail(event, "timeout")
    yield AcquireCancelled, lambda event: fail(event, "cancelled")
    yield AcquireRejected, lambda event: fail(event, "rejected")
    yield AcquireFailed, lambda event: fail(event, error_type(event.error))


def uses_by_label(observe_all: Callable[[str | None, list[float]], None]) -> Handlers:
    """Yield handlers that call `observe_all(label, seconds)` for each label of a batch.

    To observe one use, with the search for its series, takes longer than to release its connection.
    """
    pending = deque[tuple[str | None, float]]()

    def add(_batch: PoolTimings) -> None:
        by_label = defaultdict[str | None, list[float]](list)
        with contextlib.suppress(IndexError):  # a batch delivered within this one has taken the rest
            for _ in range(len(pending)):
                label, seconds = pending.popleft()
                by_label[label].append(seconds)
        for label, many in by_label.items():
            observe_all(label, many)

    yield ConnectionReleased, lambda event: pending.append((event.label, event.use_time))
    yield PoolTimings, add
