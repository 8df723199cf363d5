"""One lending of one connection: the async context manager that `pool.connection()` returns."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..driver import Connection
from ..errors import PoolUsageError
from ..stats import Holder

if TYPE_CHECKING:
    from .pooled import PooledConnection

__all__ = ["Errand", "Lease"]

C = TypeVar("C", bound=Connection)


class Lender(Protocol[C]):
    """What a lease needs of its pool."""

    def try_lend(self, lease: Lease[C]) -> C | None:
        """Lend at once if an idle connection is fresh."""
        ...

    async def lend(self, lease: Lease[C]) -> C:
        """Lend as soon as it can be done."""
        ...

    def take_back(self, lease: Lease[C], /) -> Awaitable[None] | None:
        """End a lease: at once if nothing has to be awaited for it, else by awaiting what this returns."""
        ...


class Lease(Generic[C]):
    """Borrows a connection for the length of an `async with` block.

    Entering raises `PoolConnectionAcquireTimeoutError`, `PoolFullError`, `PoolClosedError`, or what the driver
    raised when it could not connect. Leaving rolls back what was not committed. Each lease serves one block.
    """

    __slots__ = ("_entered", "_lender", "connection", "context", "label", "leak_told", "pooled", "since", "task")

    # Set when the lease begins, and kept when it has ended: who waited for it may look later.
    since: float
    task: asyncio.Task[Any] | None
    connection: int

    def __init__(self, lender: Lender[C], label: str | None) -> None:
        self._lender = lender
        self.label: str | None = label
        self.pooled: PooledConnection[C] | None = None
        self.context: contextvars.Context | None = None
        self.leak_told: bool = False
        self._entered = False

    async def __aenter__(self) -> C:
        if self._entered:
            raise PoolUsageError("this lease serves one block only; call pool.connection() again for another one")
        self._entered = True
        connection = self._lender.try_lend(self)
        return await self._lender.lend(self) if connection is None else connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        rest = self._lender.take_back(self)
        if rest is not None:
            await rest

    def holder(self, now: float) -> Holder:
        """Who held this lease at `now`."""
        task = self.task
        return Holder(
            connection=self.connection,
            task=task.get_name() if task is not None else "a callback",
            label=self.label,
            held=max(0.0, now - self.since),
            context=self.context,
            ended=task is not None and task.done(),
        )


class Errand(Lease[C]):
    """A lease for one function, run with a connection that its caller never gets."""

    __slots__ = ()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.pooled is not None, "an errand is left by whoever entered it"
        self.pooled.link.excuse()
        await super().__aexit__(kind, error, trace)
