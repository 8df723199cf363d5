# /// script
# dependencies = ["aiosqlite", "uvloop"]
# [tool.bench]
# title = "this database, run_write()"
# tree = []
# workloads = ["inserts", "mix", "writers"]
# ///
"""The same, and each transaction is a function that runs in the thread that writes: one trip."""

from __future__ import annotations

import sqlite3
import time

from .this_database import ThisDatabase


class ThisDatabaseFunctions(ThisDatabase):
    async def write(self, sql: str, *parameters: object, held: float | None = None) -> None:
        def transaction(conn: sqlite3.Connection) -> None:
            conn.execute(sql, parameters)
            if held:
                time.sleep(held)

        await self._database.run_write(transaction)


contender = ThisDatabaseFunctions
