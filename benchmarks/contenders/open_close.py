# /// script
# dependencies = ["aiosqlite", "uvloop"]
# [tool.bench]
# title = "open and close each time"
# ///
"""No pool: each borrower opens a connection and closes it, as aiosqlite's own first example does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from ._aiosqlite import AiosqliteContender, connect


class OpenAndClose(AiosqliteContender):
    queues = False
    share = 0.2

    async def open(self, path: str, size: int) -> None:
        self._path = path

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self._lend()

    @asynccontextmanager
    async def _lend(self) -> AsyncIterator[Any]:
        conn = await connect(self._path)
        try:
            yield conn
        finally:
            await conn.close()

    async def close(self) -> None: ...


contender = OpenAndClose
