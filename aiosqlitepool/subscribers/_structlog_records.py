"""The log records of one pool, for structlog. Part of `structlog`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextvars import Context
from functools import partial
from typing import Any

from aiosqlitepool import Holder, SQLiteConnectionPool
from aiosqlitepool.events import (
    AcquireFailed,
    AcquireRejected,
    AcquireSlow,
    AcquireTimedOut,
    BackupEnded,
    BusyRetried,
    CheckpointBlocked,
    Checkpointed,
    CheckpointFailed,
    ConnectionClosed,
    ConnectionCreated,
    ConnectionCreateFailed,
    DatabaseFailed,
    ErrorInfo,
    HealthCheckFailed,
    IdleReplaced,
    LeakReturned,
    LeakSuspected,
    PoolClosed,
    PoolEvent,
    PoolOpened,
    RolledBackOnReturn,
    StatementSlow,
    SubscriberFailed,
    TransactionEnded,
)

from ._common import current_trace

__all__ = ["PoolLog"]

Handler = Callable[[Any], None]
Keys = dict[str, Any]


class PoolLog:
    """Writes the records of one pool."""

    def __init__(
        self,
        logger: Any,
        pool: SQLiteConnectionPool[Any],
        burst: int,
        interval: float,
        clock: Callable[[], float],
    ) -> None:
        self._logger = logger
        self._name = pool.name
        self._burst, self._interval, self._clock = burst, interval, clock
        # By name of a limited record: when its interval began, how many were written and left out since.
        self._limited: dict[str, tuple[float, int, int]] = {}

    def handlers(self) -> Iterator[tuple[type[PoolEvent], int, Handler]]:
        """Yield each event type that is logged, its level, and its handler."""
        yield PoolOpened, logging.INFO, self._opened
        yield PoolClosed, logging.INFO, self._closed
        yield ConnectionCreated, logging.DEBUG, self._created
        yield ConnectionClosed, logging.DEBUG, self._connection_closed
        yield AcquireSlow, logging.WARNING, self._acquire_slow
        yield AcquireTimedOut, logging.ERROR, self._timed_out
        yield AcquireRejected, logging.WARNING, self._rejected
        yield AcquireFailed, logging.ERROR, self._acquire_failed
        yield ConnectionCreateFailed, logging.ERROR, self._create_failed
        yield HealthCheckFailed, logging.WARNING, self._health_failed
        yield IdleReplaced, logging.INFO, self._idle_replaced
        yield RolledBackOnReturn, logging.WARNING, self._rolled_back
        yield LeakSuspected, logging.WARNING, self._leak_suspected
        yield LeakReturned, logging.INFO, self._leak_returned
        yield SubscriberFailed, logging.ERROR, self._subscriber_failed
        yield TransactionEnded, logging.WARNING, self._transaction_ended
        yield BusyRetried, logging.INFO, self._busy_retried
        yield Checkpointed, logging.DEBUG, self._checkpointed
        yield CheckpointBlocked, logging.WARNING, self._checkpoint_blocked
        yield CheckpointFailed, logging.ERROR, self._checkpoint_failed
        yield BackupEnded, logging.ERROR, self._backup_ended
        yield DatabaseFailed, logging.ERROR, self._database_failed
        yield StatementSlow, logging.WARNING, self._statement_slow

    # -- records

    def _opened(self, event: PoolOpened) -> None:
        limits = {"min_size": event.min_size, "max_size": event.max_size, "max_waiting": event.max_waiting}
        self._log("info", "pool.opened", **limits)

    def _closed(self, event: PoolClosed) -> None:
        # The last records that were left out have no later record to be counted in.
        left_out = {name: left_out for name, (_, _, left_out) in self._limited.items() if left_out}
        self._limited.clear()
        self._log("info", "pool.closed", abandoned=event.abandoned, **({"left_out": left_out} if left_out else {}))

    def _created(self, event: ConnectionCreated) -> None:
        self._log("debug", "pool.connection.created", connection=event.connection, create_ms=_ms(event.create_time))

    def _connection_closed(self, event: ConnectionClosed) -> None:
        what = {"connection": event.connection, "reason": event.reason, "age_ms": _ms(event.age)}
        self._log("debug", "pool.connection.closed", **what)

    def _acquire_slow(self, event: AcquireSlow) -> None:
        self._log_limited("pool.acquire.slow", "warning", partial(_slow_acquire, event))

    def _timed_out(self, event: AcquireTimedOut) -> None:
        waiting = {"wait_ms": _ms(event.wait_time), "pending": event.pending, **_labelled(event.label)}
        self._log_limited("pool.acquire.timeout", "error", partial(_held_by, event.holders), **waiting)

    def _rejected(self, event: AcquireRejected) -> None:
        self._log_limited("pool.acquire.rejected", pending=event.pending, **_labelled(event.label))

    def _acquire_failed(self, event: AcquireFailed) -> None:
        what = {**_error(event.error), **_labelled(event.label)}
        self._log_limited("pool.acquire.failed", "error", wait_ms=_ms(event.wait_time), pending=event.pending, **what)

    def _create_failed(self, event: ConnectionCreateFailed) -> None:
        what = _error(event.error)
        self._log_limited("pool.connection.create_failed", "error", create_ms=_ms(event.create_time), **what)

    def _health_failed(self, event: HealthCheckFailed) -> None:
        what = _error(event.error)
        self._log_limited("pool.health.failed", connection=event.connection, idle_ms=_ms(event.idle_time), **what)

    def _idle_replaced(self, event: IdleReplaced) -> None:
        self._log("info", "pool.connection.idle_replaced", connection=event.connection, idle_ms=_ms(event.idle_time))

    def _rolled_back(self, event: RolledBackOnReturn) -> None:
        what = {"cause": event.cause, "reset_ms": _ms(event.reset_time), **_labelled(event.label)}
        self._log_limited("pool.return.rolled_back", connection=event.connection, **what)

    def _leak_suspected(self, event: LeakSuspected) -> None:
        self._log_limited("pool.checkout.leak_suspected", "warning", partial(_leak, event))

    def _leak_returned(self, event: LeakReturned) -> None:
        self._log("info", "pool.checkout.leak_returned", **_leak(event))

    def _subscriber_failed(self, event: SubscriberFailed) -> None:
        what = {"failed_event": event.event, "handler": event.handler, **_error(event.error)}
        self._log_limited("pool.subscriber.error", "error", **what)

    def _transaction_ended(self, event: TransactionEnded) -> None:
        if event.outcome == "failed":
            self._log_limited(
                "pool.transaction.failed",
                wait_ms=_ms(event.wait_time),
                duration_ms=_ms(event.duration),
                retries=event.retries,
                **_error(event.error),
                **_labelled(event.label),
            )

    def _busy_retried(self, event: BusyRetried) -> None:
        self._log_limited(
            "pool.busy.retried", "info", kind=event.kind, pause_ms=_ms(event.pause), **_labelled(event.label)
        )

    def _checkpointed(self, event: Checkpointed) -> None:
        pages = {"pages": event.pages, "moved": event.moved, "wal_bytes": event.wal_bytes}
        self._log("debug", "pool.checkpointed", result=event.result, **pages, time_ms=_ms(event.checkpoint_time))

    def _checkpoint_blocked(self, event: CheckpointBlocked) -> None:
        self._log_limited(
            "pool.checkpoint.blocked", "warning", partial(_held_by, event.holders), wal_bytes=event.wal_bytes
        )

    def _checkpoint_failed(self, event: CheckpointFailed) -> None:
        self._log_limited("pool.checkpoint.failed", "error", wal_bytes=event.wal_bytes, **_error(event.error))

    def _backup_ended(self, event: BackupEnded) -> None:
        if event.result == "failed":
            what = {"target": event.target, "backup_ms": _ms(event.backup_time), **_error(event.error)}
            self._log_limited("pool.backup.failed", "error", **what)

    def _database_failed(self, event: DatabaseFailed) -> None:
        statement = {} if event.statement is None else {"statement": event.statement}
        self._log_limited("pool.database.failed", "error", **_error(event.error), **statement, **_labelled(event.label))

    def _statement_slow(self, event: StatementSlow) -> None:
        self._log_limited("pool.statement.slow", "warning", partial(_slow_statement, event))

    # -- writing

    def _log_limited(self, name: str, level: str = "warning", more: Callable[[], Keys] = dict, /, **keys: Any) -> None:
        """Log a record, unless its name has used up its `burst` in this interval: then `more()` is not called."""
        now = self._clock()
        since, written, left_out = self._limited.get(name, (now, 0, 0))
        if now - since >= self._interval:
            since, written = now, 0
        if written >= self._burst:
            self._limited[name] = (since, written, left_out + 1)
            if not left_out:
                self._flush_after(since + self._interval - now, level, name)
            return
        self._limited[name] = (since, written + 1, 0)
        self._log(level, name, **keys, **more(), **({"left_out": left_out} if left_out else {}))

    def _flush_after(self, seconds: float, level: str, name: str) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # emitted in a thread: the next record of the name says how many were left out
            return
        # In an empty context: the record is of no trace.
        loop.call_later(seconds, self._flush, level, name, context=Context())

    def _flush(self, level: str, name: str) -> None:
        """Say how many records of a name were left out, unless a later record has said so."""
        since, _, left_out = self._limited.get(name, (0.0, 0, 0))
        if not left_out:
            return
        if (remaining := since + self._interval - self._clock()) > 0:  # of a later interval
            self._flush_after(remaining, level, name)
            return
        del self._limited[name]
        self._log(level, "pool.records.left_out", left_out={name: left_out})

    def _log(self, level: str, name: str, **keys: Any) -> None:
        getattr(self._logger, level)(name, pool=self._name, **keys, **(current_trace() or {}))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _error(error: ErrorInfo | None) -> dict[str, str]:
    if error is None:
        return {}
    code = {} if error.code is None else {"error_code": error.code}
    return {"error": str(error), "error_type": error.type, **code}


def _labelled(label: str | None) -> dict[str, str]:
    return {} if label is None else {"label": label}


# -- keys that are worked out only if their record is written: most slow acquires of a full pool are left out


def _slow_acquire(event: AcquireSlow) -> Keys:
    return {
        "connection": event.connection,
        "path": event.path,
        "wait_ms": _ms(event.wait_time),
        "queue_ms": _ms(event.queue_time),
        "create_ms": _ms(event.create_time),
        "check_ms": _ms(event.check_time),
        "pending": event.pending,
        **_held_by(event.holders),
        **_labelled(event.label),
    }


def _slow_statement(event: StatementSlow) -> Keys:
    error = {} if event.error is None else {"error": event.error}
    plan = {"plan": [*event.plan], "plan_warnings": [*event.plan_warnings]} if event.plan else {}
    return {
        "connection": event.connection,
        "statement": event.statement,
        "operation": event.operation,
        "wait_ms": _ms(event.wait_time),
        "run_ms": _ms(event.run_time),
        "rows": event.rows,
        "rows_changed": event.rows_changed,
        **error,
        **plan,
        **_labelled(event.label),
    }


def _leak(event: LeakSuspected | LeakReturned) -> Keys:
    return {"use_ms": _ms(event.use_time), **_held_by((event.holder,))}


def _held_by(holders: Sequence[Holder]) -> Keys:
    return {"holders": [_holder(each) for each in holders]}


def _holder(holder: Holder) -> Keys:
    shown = {"connection": holder.connection, "task": holder.task, "held_ms": _ms(holder.held)}
    named = {"coroutine": holder.coroutine} if holder.label is None and holder.coroutine else _labelled(holder.label)
    waits = {} if holder.waits_for is None else {"waits_for": holder.waits_for, "waited_ms": _ms(holder.waited)}
    ended = {"ended": True} if holder.ended else {}
    return {**shown, **named, **_statement(holder), **waits, **ended}


def _statement(holder: Holder) -> Keys:
    if holder.statement is None:
        return {}
    took = _ms(holder.statement_time)
    return {"statement": holder.statement, "statement_ms": took, "statement_runs": holder.statement_runs}
