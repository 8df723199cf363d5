"""What all contenders on bare aiosqlite connections share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import aiosqlite

from . import PRAGMAS, Contender

__all__ = ["AiosqliteContender", "FactoryPool", "connect"]


async def connect(path: str) -> aiosqlite.Connection:
    """A connection as everybody opens it: two trips to its worker thread."""
    conn = await aiosqlite.connect(path, isolation_level=None)
    await conn.executescript(PRAGMAS)
    return conn


class AiosqliteContender(Contender):
    """Lends aiosqlite connections; fetching all rows is one trip to the worker thread, a cursor takes several."""

    async def fetch(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        return list(await conn.execute_fetchall(sql, parameters))

    async def first(self, conn: Any, sql: str, *parameters: object) -> Any:
        cursor = await conn.execute(sql, parameters)
        return await cursor.fetchone()

    async def iterate(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        async with conn.execute(sql, parameters) as cursor:
            return [row async for row in cursor]

    async def execute(self, conn: Any, sql: str, *parameters: object) -> None:
        await conn.execute(sql, parameters)


class FactoryPool(AiosqliteContender):
    """A pool that takes a connection factory, and so could lend anything."""

    async def open(self, path: str, size: int) -> None:
        await self.open_with(partial(connect, path), size)

    @abstractmethod
    async def open_with(self, factory: Callable[[], Awaitable[Any]], size: int) -> None:
        """Get ready to lend up to `size` of what `factory` makes."""
