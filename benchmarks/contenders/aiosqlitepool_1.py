# /// script
# dependencies = ["aiosqlitepool==1.0.0", "aiosqlite", "uvloop"]
# [tool.bench]
# title = "aiosqlitepool 1.0.0"
# ///
"""The release before this one, as its README recommends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiosqlitepool import SQLiteConnectionPool

from . import TIMEOUT
from ._aiosqlite import FactoryPool


class AiosqlitePool1(FactoryPool):
    async def open_with(self, factory: Callable[[], Awaitable[Any]], size: int) -> None:
        self._pool = SQLiteConnectionPool(factory, pool_size=size, acquisition_timeout=TIMEOUT)

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self._pool.connection()

    async def close(self) -> None:
        await self._pool.close()


contender = AiosqlitePool1
