"""What the pool needs of a connection, and of the adapter through which it drives one."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from ..events import RollbackCause

__all__ = ["Adapter", "Connection", "Lessee"]


@runtime_checkable
class Connection(Protocol):
    """The three methods that a pooled connection must have."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Run a statement; awaitable."""
        ...

    def rollback(self) -> Any:
        """Roll back what was not committed; awaitable."""
        ...

    def close(self) -> Any:
        """Close the connection; awaitable."""
        ...


class Lessee(Protocol):
    """A lease, as an adapter sees it: compared by identity, and notified when its handle is lost."""

    # What for.
    label: str | None
    # The number of the connection.
    connection: int
    # What it runs or ran last, and when that began and ended by `perf_counter`. Written by the worker thread.
    activity: tuple[Any, float, float | None]

    def forgotten(self) -> None:
        """Called, in any thread, when the handle was garbage collected although the lease has not ended."""
        ...

    def refusal(self) -> Exception | None:
        """Return a new error for a use after the end, if the pool ended the lease under its holder. In any thread."""
        ...


class Adapter(Protocol):
    """Drives one connection. Only the taker of its slot calls it, in the event loop unless stated otherwise."""

    @property
    def may_read(self) -> bool:
        """Whether a statement runs, or a transaction or a half-read cursor is open, as far as that is known."""
        ...

    @property
    def is_busy(self) -> bool:
        """Whether an operation runs in its worker thread for longer than a millisecond, as far as that is known."""
        ...

    async def attach(self) -> str | None:
        """Take over a connection fresh from its factory. Raises if it cannot be pooled.

        Returns what to warn of if the pool has had another such connection before: that this one has other data.
        """
        ...

    def verify(self) -> None:
        """Raise `ConnectionBrokenError` if it is dead or its file was replaced. Makes no trip to the driver."""
        ...

    async def check(self) -> None:
        """Raise if the connection does not answer."""
        ...

    def begin_lease(self, lease: Lessee) -> Any:
        """Begin a lease; return what its holder gets, or `None` if the connection is dead and no lease began."""
        ...

    def end_lease(self) -> bool:
        """End the lease. False if `reset()` must undo what it left behind."""
        ...

    def revoke(self, error: Exception) -> None:
        """Refuse the handle from now on, and raise `error` in what runs, under a holder whose lease will be ended."""
        ...

    async def reset(self, patience: float) -> RollbackCause | None:
        """Undo what the last lease left behind; return what that was.

        Raises if it cannot, or if a statement in flight does not stop within `patience` seconds.
        """
        ...

    async def close(self) -> None:
        """Interrupt what runs, and close."""
        ...

    def abandon(self) -> None:
        """Let it close by itself, without waiting. Safe from any thread, and without a running loop."""
        ...
