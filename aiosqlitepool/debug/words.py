"""Events in words, one line each. Knows events only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from aiosqlitepool import Holder
from aiosqlitepool.events import (
    AcquireCancelled,
    AcquireFailed,
    AcquireRejected,
    AcquireSlow,
    AcquireTimedOut,
    BackupEnded,
    BusyRetried,
    CheckpointBlocked,
    Checkpointed,
    CheckpointFailed,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionCreated,
    ConnectionCreateFailed,
    ConnectionReleased,
    DatabaseFailed,
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

__all__ = ["Words", "describe", "duration"]

Level = Literal["info", "warning", "error"]

_NAMED = 2  # Holders that are named; the others are counted.
_SHORT = 200  # Characters of a statement.
_LEFT = {"in_flight": "a statement in flight", "transaction": "an open transaction", "cursor": "a half-read cursor"}


class Words(NamedTuple):
    """One event in words. Level "error" is a failure that a caller of the program has seen."""

    level: Level
    text: str


def duration(seconds: float) -> str:
    """Format a duration for people: 850 µs, 12.3 ms, 1.20 s, 3 min 5 s, 2 h 4 min."""
    if seconds < 0.9995:
        unit, value = ("ms", 1e3 * seconds) if seconds >= 0.001 else ("µs", 1e6 * seconds)
        return f"{value:.0f} {unit}" if value >= 100 or unit == "µs" else f"{value:.1f} {unit}"
    if seconds < 99.5:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def describe(event: PoolEvent) -> Words:
    """Describe an event. An event of an unknown type is described by its name."""
    if type(event) not in _SENTENCES:
        return Words("info", event.name)
    level, sentence = _SENTENCES[type(event)]
    return Words(level, sentence(event))


def _holders(holders: Sequence[Holder]) -> str:
    named = [_holder(holder) for holder in holders[:_NAMED]]
    rest = len(holders) - len(named)
    return ", ".join([*named, f"{rest} more"] if rest else named)


def _holder(holder: Holder) -> str:
    waits = "" if holder.waits_for is None else f", waits for {holder.waits_for}"
    return f"{holder.label or holder.coroutine or holder.task} ({duration(holder.held)}{waits})"


def _short(statement: str) -> str:
    return statement if len(statement) <= _SHORT else f"{statement[:_SHORT]}…"


def _leak_suspected(event: LeakSuspected) -> str:
    holder = event.holder
    text = f"{holder.coroutine or holder.task} has held connection {holder.connection} for too long"
    if holder.statement is None:
        return text
    short, took = _short(holder.statement), duration(holder.statement_time)
    return f"{text}, {took} of it in {short}" if holder.statement_runs else f"{text}, last in {short} for {took}"


def _others(count: int) -> str:
    return "1 other" if count == 1 else f"{count} others"


def _acquired(event: ConnectionAcquired | AcquireSlow) -> str:
    waited = duration(event.wait_time)
    if not event.wait_time:
        return f"connection {event.connection} at once"
    if event.path == "new":
        return f"connection {event.connection}, a new one, after {waited}"
    if event.path == "idle":
        return f"connection {event.connection} after {waited}, of which {duration(event.check_time)} for its check"
    behind = f", behind {event.pending}" if event.pending else ""
    return f"connection {event.connection} after {waited} in the queue{behind}"


def _acquired_slow(event: AcquireSlow) -> str:
    return f"{_acquired(event)}; held by {_holders(event.holders)}" if event.holders else _acquired(event)


def _timed_out(event: AcquireTimedOut) -> str:
    others = f"; {_others(event.pending)} still waiting" if event.pending else ""
    holders = f"; held by {_holders(event.holders)}" if event.holders else ""
    return f"gave up after {duration(event.wait_time)}{holders}{others}"


def _rolled_back(event: RolledBackOnReturn) -> str:
    return f"connection {event.connection} released with {_LEFT[event.cause]}, reset in {duration(event.reset_time)}"


def _pool_closed(event: PoolClosed) -> str:
    return f"closed, {event.abandoned} connections while in use" if event.abandoned else "closed"


def _statement_slow(event: StatementSlow) -> str:
    failed = "" if event.error is None else f", {event.error}"
    warnings = f"; {', '.join(event.plan_warnings)}" if event.plan_warnings else ""
    return f"{_short(event.statement)} took {duration(event.run_time)}{failed}{warnings}"


def _transaction_ended(event: TransactionEnded) -> str:
    outcome, waited = event.outcome.replace("_", " "), duration(event.wait_time)
    error = "" if event.error is None else f": {event.error}"
    return f"{outcome} after {duration(event.duration)}, begun after {waited}{error}"


def _database_failed(event: DatabaseFailed) -> str:
    statement = "" if event.statement is None else f" in {_short(event.statement)}"
    return f"{event.error.code}{statement}: {event.error}"


def _backup_ended(event: BackupEnded) -> str:
    error = "" if event.error is None else f": {event.error}"
    return f"backup to {event.target} {event.result} after {duration(event.backup_time)}{error}"


_SENTENCES: dict[type[PoolEvent], tuple[Level, Callable[[Any], str]]] = {
    PoolOpened: ("info", lambda it: f"opened, for {it.min_size} to {it.max_size} connections"),
    PoolClosed: ("info", _pool_closed),
    ConnectionCreated: ("info", lambda it: f"connection {it.connection} opened in {duration(it.create_time)}"),
    ConnectionCreateFailed: ("error", lambda it: f"could not connect within {duration(it.create_time)}: {it.error}"),
    ConnectionAcquired: ("info", _acquired),
    AcquireSlow: ("info", _acquired_slow),
    AcquireTimedOut: ("error", _timed_out),
    AcquireCancelled: ("info", lambda it: f"cancelled after {duration(it.wait_time)}"),
    AcquireRejected: ("error", lambda it: f"rejected, {_others(it.pending)} waiting already"),
    AcquireFailed: ("error", lambda it: f"failed after {duration(it.wait_time)}: {it.error}"),
    ConnectionReleased: ("info", lambda it: f"connection {it.connection} released after {duration(it.use_time)}"),
    RolledBackOnReturn: ("warning", _rolled_back),
    HealthCheckFailed: (
        "warning",
        lambda it: f"connection {it.connection} failed its check after {duration(it.idle_time)} idle: {it.error}",
    ),
    IdleReplaced: ("info", lambda it: f"connection {it.connection} was idle for {duration(it.idle_time)}"),
    ConnectionClosed: (
        "info",
        lambda it: f"connection {it.connection} closed ({it.reason.replace('_', ' ')}), {duration(it.age)} old",
    ),
    LeakSuspected: ("warning", _leak_suspected),
    LeakReturned: ("info", lambda it: f"connection {it.holder.connection} released after {duration(it.use_time)}"),
    StatementSlow: ("warning", _statement_slow),
    TransactionEnded: ("info", _transaction_ended),
    BusyRetried: (
        "warning",
        lambda it: f"another process holds the database ({it.kind}), retry in {duration(it.pause)}",
    ),
    Checkpointed: (
        "info",
        lambda it: f"{it.moved} of {it.pages} pages of the WAL copied in {duration(it.checkpoint_time)}",
    ),
    CheckpointBlocked: (
        "warning",
        lambda it: f"{it.wal_bytes / 1e6:.1f} MB of WAL, held by {_holders(it.holders) or 'another process'}",
    ),
    CheckpointFailed: ("error", lambda it: f"checkpoint failed, {it.wal_bytes / 1e6:.1f} MB of WAL: {it.error}"),
    DatabaseFailed: ("error", _database_failed),
    BackupEnded: ("info", _backup_ended),
    SubscriberFailed: ("error", lambda it: f"a handler failed on {it.event}: {it.error}"),
}
