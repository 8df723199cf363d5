"""What the pool needs of a connection, and what it asks of its own hold on one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol, runtime_checkable

from ..events import RollbackCause

__all__ = ["Connection", "Lessee", "Adapter"]


@runtime_checkable
class Connection(Protocol):
    """The three methods a pooled connection must have."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Run a statement; awaitable."""
        ...

    def rollback(self) -> Any:
        """Undo what was not committed; awaitable."""
        ...

    def close(self) -> Any:
        """Close the connection; awaitable."""
        ...


class Lessee(Protocol):
    """What a link needs of a lease: the task that took it."""

    task: asyncio.Task[Any] | None


class Adapter(Protocol):
    """The pool's hold on one connection. Only the taker of its slot calls it."""

    async def adopt(self) -> None:
        """Get to know a connection fresh from its factory; raises if it cannot be pooled."""
        ...

    def verify(self) -> None:
        """Raise `ConnectionBrokenError` if it is dead or its file was replaced: no trip to the driver."""
        ...

    async def check(self) -> None:
        """Raise if the connection does not answer."""
        ...

    def lend(self, lease: Lessee) -> bool:
        """Begin a lease; False if the connection is dead and none began."""
        ...

    def challenge(self) -> None:
        """Raise `PoolUsageError` if there is evidence that the running task's hold on it has ended."""
        ...

    def excuse(self) -> None:
        """The holder never got the connection: when it uses it later, it does so for somebody else."""
        ...

    def settle(self) -> Awaitable[None] | bool:
        """End the lease. True if nothing is left to undo; False if `reset()` must do it, in any task;
        or the rest of a rollback that began, for this very task to await."""
        ...

    async def reset(self, patience: float) -> RollbackCause | None:
        """Undo what the last lease left behind; returns what that was.

        Raises if it cannot, or if a statement in flight does not stop within `patience` seconds.
        """
        ...

    async def close(self) -> None:
        """Close, interrupting what runs."""
        ...

    def abandon(self) -> None:
        """Make it close by itself, without waiting. Safe from any thread, and without a running loop."""
        ...
