"""One acquire on its way: what it went through, and which event tells of its end. Knows no slots and awaits nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ..errors import PoolConnectionAcquireTimeoutError, PoolFullError
from ..events import (
    AcquireCancelled,
    AcquireFailed,
    AcquirePath,
    AcquireRejected,
    AcquireSlow,
    AcquireTimedOut,
    ConnectionAcquired,
    ErrorInfo,
)
from ..stats import Holder, Waiter

__all__ = ["Attempt", "Queued", "failure_of"]


class Queued:
    """Somebody who waits: since when, what for, and in which task."""

    __slots__ = ("began", "label", "task")

    def __init__(self, began: float, label: str | None, task: asyncio.Task[Any] | None = None) -> None:
        self.began: float = began
        self.label: str | None = label
        self.task: asyncio.Task[Any] | None = task

    def waiter(self, now: float) -> Waiter:
        """Who waits at `now`; only while it is queued."""
        task = self.task
        return Waiter("a callback" if task is None else task.get_name(), self.label, max(0.0, now - self.began))


class Attempt(Queued):
    """One acquire of a caller that did not get a connection at once. All times are readings of the pool's clock."""

    __slots__ = ("check_time", "create_time", "found", "path", "pending", "queue_time", "turn")

    def __init__(self, began: float, label: str | None) -> None:
        super().__init__(began, label)
        self.path: AcquirePath = "idle"
        self.queue_time: float = 0.0
        self.create_time: float = 0.0
        self.check_time: float = 0.0
        self.pending: int = 0
        # What tells it of its slot while it queues.
        self.turn: asyncio.Future[Any] | None = None
        # Who had the connections when it came, if it queued and somebody may want to know.
        self.found: Sequence[Any] = ()

    def acquired(self, pool: str, connection: int, now: float) -> ConnectionAcquired:
        """The event that it acquired that connection."""
        parts = (self.queue_time, self.create_time, self.check_time)
        return ConnectionAcquired(pool, connection, self.path, now - self.began, *parts, self.label, self.pending)

    def slow(self, pool: str, connection: int, now: float, holders: tuple[Holder, ...]) -> AcquireSlow:
        """The event that this took long."""
        parts = (self.queue_time, self.create_time, self.check_time)
        return AcquireSlow(pool, connection, self.path, now - self.began, *parts, self.label, self.pending, holders)


def failure_of(error: BaseException) -> tuple[Any, dict[str, Any]]:
    """The type of event that tells that an acquire ended with this error, and what it says beyond the attempt."""
    if isinstance(error, PoolConnectionAcquireTimeoutError):
        return AcquireTimedOut, {"holders": error.holders}
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return AcquireCancelled, {}
    if isinstance(error, PoolFullError):
        return AcquireRejected, {}
    return AcquireFailed, {"error": ErrorInfo.of(error)}
