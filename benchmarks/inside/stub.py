"""A connection that does nothing at once, so that only the pool is left to measure."""

from __future__ import annotations

__all__ = ["StubConnection", "connect_stub"]


class StubConnection:
    """What the pools' common protocol asks of a connection."""

    async def execute(self, *args: object) -> StubConnection:
        return self

    async def rollback(self) -> None: ...

    async def close(self) -> None: ...


async def connect_stub() -> StubConnection:
    """The factory."""
    return StubConnection()
