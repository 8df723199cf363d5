# /// script
# dependencies = ["aiosqlite", "uvloop"]
# [tool.bench]
# title = "this database, write()"
# tree = []
# workloads = ["fetch", "inserts", "mix", "processes", "writers"]
# ///
"""The `SQLiteDatabase` of the working tree, nobody subscribed: readers, and one connection that writes, in blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

from aiosqlitepool import SQLiteDatabase

from . import TIMEOUT
from ._aiosqlite import AiosqliteContender

# What everybody gets, and it does not set by itself.
_PRAGMAS = {"cache_size": -8000, "mmap_size": 268435456}


class ThisDatabase(AiosqliteContender):
    most = 1  # that write; readers are beside it
    options: ClassVar[Mapping[str, Any]] = {}
    """What a variant of it sets."""

    async def open(self, path: str, size: int) -> None:
        self._database = SQLiteDatabase(
            path, readers=size, pragmas=_PRAGMAS, acquisition_timeout=TIMEOUT, name="bench", **self.options
        )
        await self._database.open()

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self._database.read()

    async def one(self, sql: str, *parameters: object) -> Any:
        return await self._database.fetch_one(sql, parameters)

    async def write(self, sql: str, *parameters: object, held: float | None = None) -> None:
        async with self._database.write() as conn:
            await conn.execute(sql, parameters)
            if held:
                await asyncio.sleep(held)

    async def close(self) -> None:
        await self._database.close()


contender = ThisDatabase
