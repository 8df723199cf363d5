"""A connection that runs no statement, so that only the pool is left to measure."""

from __future__ import annotations

from typing import Any

__all__ = ["connect_idle"]


async def connect_idle() -> Any:
    """The factory: an aiosqlite connection, in memory."""
    import aiosqlite  # not every contender has it

    return await aiosqlite.connect(":memory:")
