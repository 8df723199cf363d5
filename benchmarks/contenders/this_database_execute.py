# /// script
# dependencies = ["aiosqlite", "uvloop"]
# [tool.bench]
# title = "this database, execute()"
# tree = []
# workloads = ["inserts"]
# ///
"""The same, and each statement that writes is a transaction by itself: one trip, and no function."""

from __future__ import annotations

from .this_database import ThisDatabase


class ThisDatabaseExecute(ThisDatabase):
    async def write(self, sql: str, *parameters: object, held: float | None = None) -> None:
        assert not held, "a transaction of one statement cannot be held"
        await self._database.execute(sql, parameters)


contender = ThisDatabaseExecute
