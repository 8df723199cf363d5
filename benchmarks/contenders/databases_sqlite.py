# /// script
# dependencies = ["databases", "sqlalchemy", "aiosqlite", "uvloop"]
# [tool.bench]
# title = "databases, on aiosqlite"
# ///
"""`databases` with its SQLite backend, which has no pool: each borrow opens a connection and closes it.

Its statements take named parameters. Pragmas are set by a connection class, for it has no hook for a new connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any

from databases import Database

from . import PRAGMAS, Contender


class _Connection(sqlite3.Connection):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.executescript(PRAGMAS)


@cache
def _with_names(sql: str) -> str:
    """The statement with `:p0`, `:p1` and so on in place of its question marks."""
    first, *others = sql.split("?")
    return first + "".join(f":p{number}{part}" for number, part in enumerate(others))


def _bound(sql: str, parameters: Sequence[object]) -> tuple[str, dict[str, object]]:
    return _with_names(sql), {f"p{number}": value for number, value in enumerate(parameters)}


class DatabasesSqlite(Contender):
    queues = False
    share = 0.2

    async def open(self, path: str, size: int) -> None:
        self._database = Database(f"sqlite+aiosqlite:///{path}", factory=_Connection)
        await self._database.connect()

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self._database.connection()  # type: ignore[no-any-return]

    async def close(self) -> None:
        await self._database.disconnect()

    async def one(self, sql: str, *parameters: object) -> Any:
        return await self._database.fetch_one(*_bound(sql, parameters))

    async def fetch(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        return await conn.fetch_all(*_bound(sql, parameters))  # type: ignore[no-any-return]

    async def first(self, conn: Any, sql: str, *parameters: object) -> Any:
        return await conn.fetch_one(*_bound(sql, parameters))

    async def iterate(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        return [row async for row in conn.iterate(*_bound(sql, parameters))]

    async def execute(self, conn: Any, sql: str, *parameters: object) -> None:
        await conn.execute(*_bound(sql, parameters))


contender = DatabasesSqlite
