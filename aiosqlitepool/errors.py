"""What the pool raises. The driver's own errors pass through untouched."""

from __future__ import annotations

from .stats import Holder, PoolStats

__all__ = [
    "PoolClosedError",
    "PoolConnectionAcquireTimeoutError",
    "PoolError",
    "PoolFullError",
    "PoolUsageError",
]


class PoolError(Exception):
    """Parent of everything the pool itself raises."""

    @property
    def message(self) -> str:
        """The error's text, under the name it had in version 1.0."""
        return str(self)


class PoolClosedError(PoolError):
    """The pool is closed, or closed while the caller waited."""


class PoolFullError(PoolError):
    """As many callers as `max_waiting` allows wait already; nothing was queued."""


class PoolConnectionAcquireTimeoutError(PoolError, TimeoutError):
    """No connection could be lent within `acquisition_timeout`; the message is a diagnosis.

    `waited` is in seconds; `stats` and `holders` are the pool at that moment, holders oldest first.
    """

    def __init__(
        self,
        message: str = "no connection could be acquired from the pool in time",
        *,
        waited: float = 0.0,
        stats: PoolStats | None = None,
        holders: tuple[Holder, ...] = (),
    ) -> None:
        super().__init__(message)
        self.waited = waited
        self.stats = stats
        self.holders = holders


class ConnectionBrokenError(PoolError):
    """A connection cannot be used any more: its worker thread is dead, it was closed, or its file replaced."""


class PoolUsageError(PoolError, RuntimeError):
    """The pool or a connection was used in a way that cannot work: another loop, after a fork, after release."""
