"""The facts that a pool emits: plain slotted dataclasses. Names are stable and part of the public surface.

Every event carries `pool`, the pool's name. All times are seconds as floats. Connections are numbered from 1
in the order in which their pool opened them. A handler runs in the task the fact belongs to, after the pool's
state has changed, so `pool.stats()` inside a handler shows the world the event made.
"""

from __future__ import annotations

import contextvars
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal

from .stats import Holder

__all__ = [
    "AcquireCancelled",
    "AcquireFailed",
    "AcquirePath",
    "AcquireRejected",
    "AcquireTimedOut",
    "AcquiredAtOnce",
    "BusyKind",
    "BusyRetried",
    "CheckpointResult",
    "Checkpointed",
    "CloseReason",
    "ConnectionAcquired",
    "ConnectionClosed",
    "ConnectionCreateFailed",
    "ConnectionCreated",
    "ConnectionReleased",
    "ErrorInfo",
    "HealthCheckFailed",
    "IdleReplaced",
    "LeakReturned",
    "LeakSuspected",
    "PoolClosed",
    "PoolEvent",
    "PoolOpened",
    "RollbackCause",
    "RolledBackOnReturn",
    "SubscriberFailed",
    "TimesNoted",
    "TransactionEnded",
    "TransactionOutcome",
    "event_types",
]

AcquirePath = Literal["idle", "new", "queued"]
CloseReason = Literal["idle", "lifetime", "unhealthy", "reset_failed", "broken", "pool_closed"]
RollbackCause = Literal["in_flight", "transaction", "cursor"]
TransactionOutcome = Literal["committed", "rolled_back", "failed"]
BusyKind = Literal["busy", "snapshot"]
CheckpointResult = Literal["complete", "partial"]


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception as plain data, so that an event keeps no traceback and no frame alive."""

    type: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> ErrorInfo:
        """Name the exception as OpenTelemetry's `error.type` does: qualified unless it is a builtin."""
        kind = type(error)
        prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        return cls(f"{prefix}{kind.__qualname__}", str(error))

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


@dataclass(slots=True)
class PoolEvent:
    """Parent of all events; subscribing to it subscribes to every one of them."""

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
    """The pool has closed; `abandoned` connections did not come back in time and were closed under their holders."""

    name: ClassVar[str] = "pool_close"
    abandoned: int


@dataclass(slots=True)
class ConnectionCreated(PoolEvent):
    """A connection was opened; emitted by the pool's own task in a copy of its caller's context."""

    name: ClassVar[str] = "create"
    connection: int
    create_time: float


@dataclass(slots=True)
class ConnectionCreateFailed(PoolEvent):
    """The connection factory raised, hung past its time, or returned something that cannot be pooled."""

    name: ClassVar[str] = "create_fail"
    create_time: float
    error: ErrorInfo


@dataclass(slots=True)
class ConnectionAcquired(PoolEvent):
    """A caller has its connection. `wait_time` is the whole wait; the other times are its parts.

    `wait_time` is 0.0 if an idle connection was lent at once. `pending` callers stood before it in the queue, and
    `waited_for` are the holders (oldest first, at most 8) it found there; a connection on its way from one task to the
    next has no holder. Both are empty unless `path` is "queued" and somebody listened to events when it came.
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
    waited_for: Sequence[Holder] = ()


@dataclass(slots=True)
class AcquiredAtOnce(ConnectionAcquired):
    """An idle connection was lent without any wait: by far the most frequent of all facts, so it can be told apart.

    Whoever subscribes to `ConnectionAcquired` is told of these too, unless it says `exact=True`; how many there were
    is counted anyway, in `pool.events.acquired_at_once`.
    """


@dataclass(slots=True)
class AcquireTimedOut(PoolEvent):
    """A caller gave up at its deadline; `pending` others still wait, `holders` (oldest first) hold the rest."""

    name: ClassVar[str] = "acquire_timeout"
    wait_time: float
    pending: int
    holders: tuple[Holder, ...]
    label: str | None = None


@dataclass(slots=True)
class AcquireCancelled(PoolEvent):
    """A caller was cancelled while it waited; `pending` others still wait."""

    name: ClassVar[str] = "acquire_cancel"
    wait_time: float
    pending: int
    label: str | None = None


@dataclass(slots=True)
class AcquireRejected(PoolEvent):
    """A caller was turned away at once because `max_waiting` others wait already."""

    name: ClassVar[str] = "acquire_reject"
    wait_time: float
    pending: int
    label: str | None = None


@dataclass(slots=True)
class AcquireFailed(PoolEvent):
    """An acquire ended in an error of another kind: the pool closed, or the driver could not connect."""

    name: ClassVar[str] = "acquire_fail"
    wait_time: float
    pending: int
    error: ErrorInfo
    label: str | None = None


@dataclass(slots=True)
class ConnectionReleased(PoolEvent):
    """A holder gave its connection back, or the pool closed it under its holder.

    `needs_reset` says whether something had to be undone or closed.
    """

    name: ClassVar[str] = "release"
    connection: int
    use_time: float
    label: str | None = None
    needs_reset: bool = False
    context: contextvars.Context | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class RolledBackOnReturn(PoolEvent):
    """A connection came back with work undone: a statement in flight, an open transaction or a half-read cursor."""

    name: ClassVar[str] = "rollback_on_return"
    connection: int
    cause: RollbackCause
    reset_time: float
    label: str | None = None


@dataclass(slots=True)
class HealthCheckFailed(PoolEvent):
    """A connection was found dead or its database file replaced; it is closed and another takes its place."""

    name: ClassVar[str] = "health_fail"
    connection: int
    idle_time: float
    error: ErrorInfo


@dataclass(slots=True)
class IdleReplaced(PoolEvent):
    """A connection stood idle longer than `idle_timeout` and was closed."""

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
    """A connection has been out for longer than `leak_threshold`; told once per lease."""

    name: ClassVar[str] = "leak_suspect"
    holder: Holder
    use_time: float


@dataclass(slots=True)
class LeakReturned(PoolEvent):
    """A connection that was suspected to leak came back after all."""

    name: ClassVar[str] = "leak_return"
    holder: Holder
    use_time: float


@dataclass(slots=True)
class TransactionEnded(PoolEvent):
    """A transaction of a `SQLiteDatabase` ended: "committed", "rolled_back" by its own code, or "failed".

    It failed to commit, or to begin at all. It was asked for `wait_time` before its (last) `BEGIN`, from which
    `duration` counts; it was begun again `retries` times because another process was in the way.
    """

    name: ClassVar[str] = "transaction"
    outcome: TransactionOutcome
    wait_time: float
    duration: float
    retries: int = 0
    label: str | None = None


@dataclass(slots=True)
class BusyRetried(PoolEvent):
    """Another process held the database; the transaction was begun again after `pause` seconds.

    `kind` is "busy" for a lock held by another, "snapshot" for a commit of another since this one began to read.
    """

    name: ClassVar[str] = "busy_retry"
    kind: BusyKind
    pause: float
    label: str | None = None


@dataclass(slots=True)
class Checkpointed(PoolEvent):
    """What the WAL holds was copied into the database file: `moved` of `pages`, "partial" if a reader was in the way.

    `wal_bytes` is the size of the WAL file afterwards.
    """

    name: ClassVar[str] = "checkpoint"
    result: CheckpointResult
    pages: int
    moved: int
    checkpoint_time: float
    wal_bytes: int


@dataclass(slots=True)
class SubscriberFailed(PoolEvent):
    """A handler raised while it was told of `event`, the name of another event; the pool went on."""

    name: ClassVar[str] = "subscriber_fail"
    event: str
    handler: str
    error: ErrorInfo


@dataclass(slots=True)
class TimesNoted(PoolEvent):
    """How long connections were waited for and out since the last of these: no fact of its own, but the sum of many.

    `at_once` idle connections were lent without a wait; `waits` has, by path, how long it took to obtain the others,
    and `uses` how long those were out that came back. Told after every 64 returns, and whenever `tell_times()` is
    called, in the thread that does. Only who subscribes to it by name is told: who hears of every event has heard
    of all this.
    """

    name: ClassVar[str] = "times"
    at_once: int
    waits: Mapping[AcquirePath, Sequence[float]]
    uses: Sequence[float]


def event_types() -> tuple[type[PoolEvent], ...]:
    """Return every concrete event, in the order of their definition. `TimesNoted` is a batch, not an event."""
    # Not __subclasses__(): a slotted dataclass is a second class, and the first stays in that list.
    return _EVENTS


_EVENTS: Final = tuple(
    each
    for each in tuple(globals().values())
    if isinstance(each, type) and issubclass(each, PoolEvent) and each not in (PoolEvent, TimesNoted)
)
