# /// script
# dependencies = ["aiosqlite", "uvloop"]
# [tool.bench]
# title = "kept open, no pool (the floor)"
# ///
"""Connections kept open without a pool: nothing is asked, checked, awaited or undone. No pool can cost less.

Each task uses one connection, always the same; where there are more tasks than connections, tasks share one.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from ._aiosqlite import AiosqliteContender, connect
from ._kept_open import KeptOpen


class Floor(AiosqliteContender):
    queues = False

    async def open(self, path: str, size: int) -> None:
        self._open = KeptOpen([await connect(path) for _ in range(size)])

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self._open.connection()

    async def one(self, sql: str, *parameters: object) -> Any:
        async with self.connection() as conn:
            rows = await conn.execute_fetchall(sql, parameters)  # one trip; with a cursor, it would be three
            return rows[0] if rows else None

    async def close(self) -> None:
        for conn in self._open.connections:
            await conn.close()


contender = Floor
