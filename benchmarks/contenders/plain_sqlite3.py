# /// script
# dependencies = ["uvloop"]
# [tool.bench]
# title = "plain sqlite3, one thread (the limit)"
# ///
"""The sqlite3 module in the loop's own thread: no worker to wake, and nobody else runs meanwhile. The physical limit.

No way to write a server, where every query would stop every client. One connection, lent to one task at a time.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from typing import Any

from . import PRAGMAS, Contender


class PlainSqlite3(Contender):
    most = 1

    async def open(self, path: str, size: int) -> None:
        self._conn = sqlite3.connect(path, isolation_level=None)
        self._conn.executescript(PRAGMAS)
        self._turn = asyncio.Lock()

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self._lend()

    @asynccontextmanager
    async def _lend(self) -> AsyncIterator[sqlite3.Connection]:
        async with self._turn:
            yield self._conn

    async def close(self) -> None:
        self._conn.close()

    async def fetch(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        return conn.execute(sql, parameters).fetchall()  # type: ignore[no-any-return]

    async def first(self, conn: Any, sql: str, *parameters: object) -> Any:
        return conn.execute(sql, parameters).fetchone()

    async def iterate(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        with closing(conn.execute(sql, parameters)) as cursor:
            return list(cursor)

    async def one(self, sql: str, *parameters: object) -> Any:
        return self._conn.execute(sql, parameters).fetchone()

    async def execute(self, conn: Any, sql: str, *parameters: object) -> None:
        conn.execute(sql, parameters)


contender = PlainSqlite3
