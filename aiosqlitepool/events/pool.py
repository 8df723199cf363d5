"""What happens to a pool, its acquires and its connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..copying import CapturedContext
from ..errors import ErrorInfo
from ..kinds import CloseReason, RollbackCause
from ..stats import Holder
from ..timings import AcquirePath
from .base import PoolEvent

__all__ = [
    "AcquireCancelled",
    "AcquireFailed",
    "AcquireRejected",
    "AcquireSlow",
    "AcquireTimedOut",
    "ConnectionAcquired",
    "ConnectionClosed",
    "ConnectionCreateFailed",
    "ConnectionCreated",
    "ConnectionReleased",
    "HealthCheckFailed",
    "IdleReplaced",
    "LeakReturned",
    "LeakSuspected",
    "PoolClosed",
    "PoolOpened",
    "RolledBackOnReturn",
    "SubscriberFailed",
]


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
    joined the queue, oldest first, at most 8: as they were when they released, or as they are now; empty unless `path`
    is "queued".
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
class SubscriberFailed(PoolEvent):
    """A handler raised an exception on `event`, the name of another event. The pool is not affected."""

    name: ClassVar[str] = "subscriber_fail"
    event: str
    handler: str
    error: ErrorInfo
