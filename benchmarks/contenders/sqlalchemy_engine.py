# /// script
# dependencies = ["sqlalchemy[asyncio]", "aiosqlite", "uvloop"]
# [tool.bench]
# title = "SQLAlchemy async engine"
# ///
"""SQLAlchemy's async engine on aiosqlite, without its ORM and without compiling SQL.

Its dialect makes a statement of four trips to the worker thread where aiosqlite's own shortcut needs one, and it rolls
back on every return: that is how it is made. Transactions are begun as its page on SQLite tells for those who want to
say BEGIN themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import create_async_engine

from . import PRAGMAS, TIMEOUT, Contender


class SqlalchemyEngine(Contender):
    share = 0.2

    async def open(self, path: str, size: int) -> None:
        url = URL.create("sqlite+aiosqlite", database=path)
        self._engine = create_async_engine(url, pool_size=size, max_overflow=0, pool_timeout=TIMEOUT)
        event.listen(self._engine.sync_engine, "connect", self._set_up)

    @staticmethod
    def _set_up(dbapi_connection: Any, record: Any) -> None:
        dbapi_connection.isolation_level = None
        dbapi_connection.run_async(lambda conn: conn.executescript(PRAGMAS))

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self._engine.connect()  # type: ignore[no-any-return]

    async def close(self) -> None:
        await self._engine.dispose()

    async def fetch(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        return (await conn.exec_driver_sql(sql, parameters)).all()  # type: ignore[no-any-return]

    async def first(self, conn: Any, sql: str, *parameters: object) -> Any:
        return (await conn.exec_driver_sql(sql, parameters)).first()

    async def iterate(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        return list(await conn.exec_driver_sql(sql, parameters))

    async def execute(self, conn: Any, sql: str, *parameters: object) -> None:
        await conn.exec_driver_sql(sql, parameters)


contender = SqlalchemyEngine
