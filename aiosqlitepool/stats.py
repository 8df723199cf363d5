"""The pool at one moment, as frozen values. Plain data: knows nothing of slots, drivers or clocks."""

from __future__ import annotations

import contextvars
from dataclasses import dataclass, field

__all__ = ["Holder", "PoolStats", "Waiter"]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a connection, and for how long. Ages are seconds, floats.

    `context` is the holder's `contextvars.Context` at the moment of lending, captured only while someone
    subscribes to `ConnectionAcquired`; it is how a waiter's trace finds the spans it waited for.
    """

    connection: int
    task: str
    label: str | None
    held: float
    context: contextvars.Context | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        label = "" if self.label is None else f" [{self.label}]"
        return f"{self.task}{label} has held connection {self.connection} for {self.held:.3f} s"


@dataclass(frozen=True, slots=True)
class Waiter:
    """Who queues for a connection, and for how long: seconds, a float."""

    task: str
    label: str | None
    waited: float

    def __str__(self) -> str:
        label = "" if self.label is None else f" [{self.label}]"
        return f"{self.task}{label} has waited for {self.waited:.3f} s"


@dataclass(frozen=True, slots=True)
class PoolStats:
    """One snapshot of a pool, taken at once. Counts are connections or callers; ages are seconds, floats.

    `used` counts every place that is neither idle nor vacant: lent, opening, being checked or being reset.
    `used + idle <= max_size` always holds, also when read from another thread.
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

    @property
    def size(self) -> int:
        """Places that hold or are getting a connection."""
        return self.used + self.idle
