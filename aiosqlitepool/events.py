"""The events that a pool emits: plain slotted dataclasses. Their names are stable and part of the public API.

Every event carries `pool`, the pool's name. All times are seconds, floats. Connections are numbered from 1 in the
order in which their pool opened them. A handler runs in the task that the event belongs to, after the pool's state has
changed: inside a handler, `pool.stats()` includes the change. Handlers share an event and must not change it.
`PoolTimings` is a batch, not an event: subscribe to it by name to count many acquires at the cost of one call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

from .copying import CapturedContext
from .errors import ErrorInfo
from .kinds import BusyKind, CheckpointResult, CloseReason, RollbackCause, TransactionOutcome
from .stats import Holder
from .timings import AcquirePath, PoolTimings, SlowWait

# fmt: off
__all__ = [
    "AcquireCancelled", "AcquireFailed", "AcquirePath", "AcquireRejected", "AcquireSlow", "AcquireTimedOut", "BusyKind",
    "BusyRetried", "CheckpointBlocked", "CheckpointResult", "Checkpointed", "CloseReason", "ConnectionAcquired",
    "ConnectionClosed", "ConnectionCreateFailed", "ConnectionCreated", "ConnectionReleased", "ErrorInfo",
    "HealthCheckFailed", "IdleReplaced", "LeakReturned", "LeakSuspected", "PoolClosed", "PoolEvent", "PoolOpened",
    "PoolTimings", "RollbackCause", "RolledBackOnReturn", "SlowWait", "SubscriberFailed", "TransactionEnded",
    "TransactionOutcome", "event_types",
]
# fmt: on


@dataclass(slots=True)
class PoolEvent:
    """Parent of all events. Subscribing to it subscribes to every event."""

    name: ClassVar[str] = ""
    pool: str


@dataclass(slots=True)
class PoolOpened(PoolEvent):
    """The pool was opened, by `open()` or by its first acquire."""

    name: ClassVar[str] = "pool_open"
    min_size: int
    max_size: int
    max_waiting: int | None


@dataclass(slots=True)
class PoolClosed(PoolEvent):
    """The pool has closed. `abandoned` connections were not released in time; the pool closed them while in use."""

    name: ClassVar[str] = "pool_close"
    abandoned: int


@dataclass(slots=True)
class ConnectionCreated(PoolEvent):
    """A connection was opened. Emitted in a task of the pool, in a copy of the caller's context."""

    name: ClassVar[str] = "create"
    connection: int
    create_time: float


@dataclass(slots=True)
class ConnectionCreateFailed(PoolEvent):
    """The connection factory raised, timed out, or returned an object that cannot be pooled."""

    name: ClassVar[str] = "create_fail"
    create_time: float
    error: ErrorInfo


@dataclass(slots=True)
class ConnectionAcquired(PoolEvent):
    """A caller has acquired a connection. `wait_time` is the whole wait; the other times are parts of it.

    `wait_time` is 0.0 if an idle connection was acquired at once. `path` is "idle", "new" (the pool opened a
    connection for this caller) or "queued". `pending` callers were ahead of this one in the queue.
    """

    name: ClassVar[str] = "acquire_wait"
    connection: int
    path: AcquirePath
    wait_time: float
    queue_time: float = 0.0
    create_time: float = 0.0
    check_time: float = 0.0
    label: str | None = None
    pending: int = 0


@dataclass(slots=True)
class AcquireSlow(PoolEvent):
    """An acquire took at least the pool's `slow_acquire` seconds. Emitted directly before its `ConnectionAcquired`.

    No other acquire of the pool is emitted between the two. `holders` are the holders that this caller found when it
    joined the queue, oldest first, at most 8; empty unless `path` is "queued".
    """

    name: ClassVar[str] = "acquire_slow"
    connection: int
    path: AcquirePath
    wait_time: float
    queue_time: float = 0.0
    create_time: float = 0.0
    check_time: float = 0.0
    label: str | None = None
    pending: int = 0
    holders: tuple[Holder, ...] = ()


@dataclass(slots=True)
class AcquireTimedOut(PoolEvent):
    """An acquire reached its timeout. `pending` other callers still wait; `holders` (oldest first) hold connections."""

    name: ClassVar[str] = "acquire_timeout"
    wait_time: float
    pending: int
    holders: tuple[Holder, ...]
    label: str | None = None


@dataclass(slots=True)
class AcquireCancelled(PoolEvent):
    """A caller was cancelled while it waited. `pending` other callers still wait."""

    name: ClassVar[str] = "acquire_cancel"
    wait_time: float
    pending: int
    label: str | None = None


@dataclass(slots=True)
class AcquireRejected(PoolEvent):
    """An acquire was rejected at once: `max_waiting` callers were waiting already."""

    name: ClassVar[str] = "acquire_reject"
    wait_time: float
    pending: int
    label: str | None = None


@dataclass(slots=True)
class AcquireFailed(PoolEvent):
    """An acquire raised another error: the pool was closed, or the driver could not connect."""

    name: ClassVar[str] = "acquire_fail"
    wait_time: float
    pending: int
    error: ErrorInfo
    label: str | None = None


@dataclass(slots=True)
class ConnectionReleased(PoolEvent):
    """A holder released its connection, or the pool closed the connection while it was in use.

    `needs_reset` is true if the pool has to roll back or close something before the next holder. `context` is the
    holder's context when it acquired, captured only while `AcquireSlow` has a subscriber. Deep copies have none.
    """

    name: ClassVar[str] = "release"
    connection: int
    use_time: float
    label: str | None = None
    needs_reset: bool = False
    context: CapturedContext | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class RolledBackOnReturn(PoolEvent):
    """A connection was released with a statement in flight, an open transaction or a half-read cursor."""

    name: ClassVar[str] = "rollback_on_return"
    connection: int
    cause: RollbackCause
    reset_time: float
    label: str | None = None


@dataclass(slots=True)
class HealthCheckFailed(PoolEvent):
    """A connection failed its check, or its database file was replaced. The pool closes it and opens another."""

    name: ClassVar[str] = "health_fail"
    connection: int
    idle_time: float
    error: ErrorInfo


@dataclass(slots=True)
class IdleReplaced(PoolEvent):
    """A connection was idle for longer than `idle_timeout` and was closed."""

    name: ClassVar[str] = "idle_replace"
    connection: int
    idle_time: float


@dataclass(slots=True)
class ConnectionClosed(PoolEvent):
    """A connection left the pool. `age` counts from its opening."""

    name: ClassVar[str] = "close"
    connection: int
    reason: CloseReason
    age: float


@dataclass(slots=True)
class LeakSuspected(PoolEvent):
    """A connection has been in use for longer than `leak_threshold`. Emitted once per lease."""

    name: ClassVar[str] = "leak_suspect"
    holder: Holder
    use_time: float


@dataclass(slots=True)
class LeakReturned(PoolEvent):
    """A connection that was suspected to leak was released after all."""

    name: ClassVar[str] = "leak_return"
    holder: Holder
    use_time: float


@dataclass(slots=True)
class TransactionEnded(PoolEvent):
    """A `SQLiteDatabase` transaction ended: "committed", "rolled_back" by its code, or "failed" to begin or commit.

    `wait_time` runs from the call to the (last) `BEGIN`, `duration` from there to the end. `retries` is how often it
    began again because another process held the database.
    """

    name: ClassVar[str] = "transaction"
    outcome: TransactionOutcome
    wait_time: float
    duration: float
    retries: int = 0
    label: str | None = None


@dataclass(slots=True)
class BusyRetried(PoolEvent):
    """The transaction begins again after `pause` seconds, because another process held the lock ("busy"), or because
    another process committed after this transaction began to read ("snapshot").
    """

    name: ClassVar[str] = "busy_retry"
    kind: BusyKind
    pause: float
    label: str | None = None


@dataclass(slots=True)
class Checkpointed(PoolEvent):
    """A checkpoint copied `moved` of the WAL's `pages` into the database; "partial" if a reader prevented the rest.

    `wal_bytes` is the size of the WAL file afterwards.
    """

    name: ClassVar[str] = "checkpoint"
    result: CheckpointResult
    pages: int
    moved: int
    checkpoint_time: float
    wal_bytes: int


@dataclass(slots=True)
class CheckpointBlocked(PoolEvent):
    """`holders` (oldest first; another process if none) kept the WAL from being emptied while new readers waited."""

    name: ClassVar[str] = "checkpoint_block"
    wal_bytes: int
    holders: tuple[Holder, ...] = ()


@dataclass(slots=True)
class SubscriberFailed(PoolEvent):
    """A handler raised an exception on `event`, the name of another event. The pool is not affected."""

    name: ClassVar[str] = "subscriber_fail"
    event: str
    handler: str
    error: ErrorInfo


def event_types() -> tuple[type[PoolEvent], ...]:
    """Return every event type, in the order of definition."""
    # Not __subclasses__(): a slotted dataclass is a second class, and the first stays in that list.
    return _EVENTS


_types = [each for each in tuple(globals().values()) if isinstance(each, type)]
_EVENTS: Final = tuple(each for each in _types if issubclass(each, PoolEvent) and each is not PoolEvent)
