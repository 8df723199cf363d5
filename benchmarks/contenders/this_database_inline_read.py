# /// script
# dependencies = ["aiosqlite", "uvloop"]
# [tool.bench]
# title = "this database, inline, read()"
# tree = []
# workloads = ["fetch"]
# ///
"""The same, through a read() block and a cursor, as programs written for aiosqlite read a row."""

from __future__ import annotations

from typing import Any

from .this_database_inline import ThisDatabaseInline


class ThisDatabaseInlineRead(ThisDatabaseInline):
    async def one(self, sql: str, *parameters: object) -> Any:
        async with self.connection() as conn:
            return await self.first(conn, sql, *parameters)


contender = ThisDatabaseInlineRead
