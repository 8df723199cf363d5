"""The pool at one moment, as frozen values. Plain data: knows nothing of slots, drivers or clocks."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

__all__ = ["Holder", "Holders", "PoolRole", "PoolStats", "Waiter"]

PoolRole = Literal["read", "write"]


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a connection, and for how long. Ages are seconds, floats.

    `context` is the holder's `contextvars.Context` at the moment of lending, captured only while someone subscribes to
    `ConnectionAcquired` for more than samples; it is how a waiter's trace finds the spans it waited for. `ended` tells
    of a task that was made for nothing but the acquiring, as by `wait_for(pool.acquire(), 1)`, or that forgot to give
    it back.
    """

    connection: int
    task: str
    label: str | None
    held: float
    context: contextvars.Context | None = field(default=None, repr=False, compare=False)
    ended: bool = False

    def __str__(self) -> str:
        label = "" if self.label is None else f" [{self.label}]"
        ended = " (and has ended)" if self.ended else ""
        return f"{self.task}{label} has held connection {self.connection} for {self.held:.3f} s{ended}"


class Holders(Sequence[Holder]):
    """Holders as they were at one moment, oldest first: a tuple that is built when somebody first looks at it.

    Nearly every wait in a queue ends before anybody would want to know whom it waited for.
    """

    __slots__ = ("_build", "_built")

    def __init__(self, build: Callable[[], tuple[Holder, ...]]) -> None:
        self._build: Callable[[], tuple[Holder, ...]] | None = build
        self._built: tuple[Holder, ...] = ()

    def _all(self) -> tuple[Holder, ...]:
        if self._build is not None:
            # Only then forgotten: two threads that look at once both find something.
            self._built = self._build()
            self._build = None
        return self._built

    @overload
    def __getitem__(self, index: int) -> Holder: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Holder, ...]: ...
    def __getitem__(self, index: int | slice) -> Holder | tuple[Holder, ...]:
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._all())

    def __eq__(self, other: Any) -> bool:
        return self._all() == (other._all() if isinstance(other, Holders) else other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())


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
    `used + idle <= max_size` always holds, also when read from another thread. `role` is which of its two pools this is
    for a `SQLiteDatabase`; `wal_bytes` is the size of its WAL file, which the pool that writes knows.
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
        """Places that hold or are getting a connection."""
        return self.used + self.idle
