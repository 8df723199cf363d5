# /// script
# dependencies = ["aiosqlite", "uvloop"]
# [tool.bench]
# title = "this pool"
# tree = []
# ///
"""The pool of the working tree, nobody subscribed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiosqlitepool import SQLiteConnectionPool

from . import TIMEOUT
from ._aiosqlite import FactoryPool


class ThisPool(FactoryPool):
    async def open_with(self, factory: Callable[[], Awaitable[Any]], size: int) -> None:
        self._pool = SQLiteConnectionPool(
            factory, size, acquisition_timeout=TIMEOUT, name="bench", subscribers=self.subscribers()
        )
        await self._pool.open()

    def subscribers(self) -> Iterable[Any]:
        """Who listens."""
        return ()

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self._pool.connection()

    async def one(self, sql: str, *parameters: object) -> Any:
        return await self._pool.fetch_one(sql, parameters)

    async def close(self) -> None:
        await self._pool.close()


contender = ThisPool
