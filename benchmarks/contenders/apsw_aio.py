# /// script
# dependencies = ["apsw", "uvloop"]
# [tool.bench]
# title = "APSW's async mode, kept open, no pool"
# ///
"""APSW's own async mode (`apsw.aio`): a driver in C, with its own SQLite and a thread for each connection, but no pool.

Connections are kept open, as those of the floor: nothing is borrowed, and tasks share connections where there are more
of them. A function that runs in the thread makes one trip, and so does a statement that writes; execute() and
fetchone() make two, and `async for` three, for up to 64 rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import apsw
import apsw.aio

from . import PRAGMAS, Contender
from ._kept_open import KeptOpen


class ApswAio(Contender):
    queues = False

    async def open(self, path: str, size: int) -> None:
        self._open = KeptOpen([await self._connect(path) for _ in range(size)])

    @staticmethod
    async def _connect(path: str) -> Any:
        conn = await apsw.Connection.as_async(path)
        await (await conn.execute(PRAGMAS)).fetchall()
        return conn

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self._open.connection()

    async def close(self) -> None:
        for conn in self._open.connections:
            await conn.aclose()

    async def fetch(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        return await conn.async_run(lambda: conn.execute(sql, parameters).fetchall())  # type: ignore[no-any-return]

    async def one(self, sql: str, *parameters: object) -> Any:
        async with self.connection() as conn:
            return await conn.async_run(lambda: conn.execute(sql, parameters).fetchone())

    async def first(self, conn: Any, sql: str, *parameters: object) -> Any:
        return await (await conn.execute(sql, parameters)).fetchone()

    async def iterate(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        return [row async for row in await conn.execute(sql, parameters)]

    async def execute(self, conn: Any, sql: str, *parameters: object) -> None:
        await conn.execute(sql, parameters)


contender = ApswAio
