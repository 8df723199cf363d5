# /// script
# dependencies = ["asqlite", "uvloop"]
# [tool.bench]
# title = "asqlite's pool"
# ///
"""asqlite's pool: a driver and a pool of its own. It resets nothing when a connection comes back, and checks nothing.

Its callers cannot give up waiting. Its shortcut to fetch all rows makes three trips to the worker thread. Its cursors
have no `async for`: their rows are fetched at once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import asqlite

from . import PRAGMAS, Contender


class AsqlitePool(Contender):
    async def open(self, path: str, size: int) -> None:
        self._pool = await asqlite.create_pool(path, init=self._set_up, size=size)

    @staticmethod
    def _set_up(conn: sqlite3.Connection) -> None:
        conn.executescript(PRAGMAS)

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self._pool.acquire()  # type: ignore[no-any-return]

    async def close(self) -> None:
        await self._pool.close()

    async def fetch(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        return await conn.fetchall(sql, *parameters)  # type: ignore[no-any-return]

    async def first(self, conn: Any, sql: str, *parameters: object) -> Any:
        cursor = await conn.execute(sql, *parameters)
        return await cursor.fetchone()

    async def iterate(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        async with conn.execute(sql, *parameters) as cursor:
            return await cursor.fetchall()  # type: ignore[no-any-return]

    async def execute(self, conn: Any, sql: str, *parameters: object) -> None:
        await conn.execute(sql, *parameters)


contender = AsqlitePool
