"""A snapshot of a pool as frozen values. Plain data: knows nothing of slots, drivers or clocks."""

from __future__ import annotations

import contextvars
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Holder", "PoolRole", "PoolStats", "Waiter"]

PoolRole = Literal["read", "write"]


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of one connection. `held` is in seconds, a float.

    `context` is the holder's `contextvars.Context` when it acquired the connection, captured only while `AcquireSlow`
    has a subscriber; it leads from a waiter's trace to the holder's span. `ended` is true if the task that acquired
    the connection has ended: it was a helper such as `wait_for(pool.acquire(), 1)`, or it forgot to release.
    `coroutine` is the qualified name of the task's coroutine. `waits_for` is the pool for whose connection the task
    waits meanwhile, and `waited` for how many seconds.
    """

    connection: int
    task: str
    label: str | None
    held: float
    context: contextvars.Context | None = field(default=None, repr=False, compare=False)
    ended: bool = False
    coroutine: str | None = None
    waits_for: str | None = None
    waited: float = 0.0

    @property
    def who(self) -> str:
        """The task and the label; without a label, the coroutine and the task."""
        if self.label is not None:
            return f"{self.task} [{self.label}]"
        return self.task if self.coroutine is None else f"{self.coroutine} ({self.task})"

    def __str__(self) -> str:
        waits = "" if self.waits_for is None else f" and waits for {self.waits_for} since {self.waited:.3f} s"
        ended = " (and has ended)" if self.ended else ""
        return f"{self.who} has held connection {self.connection} for {self.held:.3f} s{waits}{ended}"


@dataclass(frozen=True, slots=True)
class Waiter:
    """A caller that waits for a connection. `waited` is in seconds, a float."""

    task: str
    label: str | None
    waited: float

    def __str__(self) -> str:
        label = "" if self.label is None else f" [{self.label}]"
        return f"{self.task}{label} has waited for {self.waited:.3f} s"


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A snapshot of a pool. Counts are connections or callers; ages are seconds, floats.

    `used` counts every slot that is neither idle nor vacant: its connection is in use, being opened, checked or reset.
    `used + idle <= max_size` always holds, also when read from another thread. `role` is set for the two pools of a
    `SQLiteDatabase`, and `wal_bytes`, the size of its WAL file, for the one that writes.
    """

    pool: str
    state: str
    max_size: int
    min_size: int
    used: int
    idle: int
    waiting: int
    oldest_waiter: float
    oldest_checkout: float
    subscriber_errors: int
    role: PoolRole | None = None
    wal_bytes: int | None = None

    @property
    def size(self) -> int:
        """Slots that have a connection or are about to have one."""
        return self.used + self.idle
