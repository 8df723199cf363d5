# /// script
# dependencies = ["sqlspec", "aiosqlite", "uvloop"]
# [tool.bench]
# title = "sqlspec's aiosqlite pool"
# ///
"""sqlspec's pool of aiosqlite connections, used without its SQL parser: the connections themselves are lent."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from sqlspec.adapters.aiosqlite import AiosqliteConfig

from . import PRAGMAS, TIMEOUT
from ._aiosqlite import AiosqliteContender


class SqlspecPool(AiosqliteContender):
    async def open(self, path: str, size: int) -> None:
        self._config = AiosqliteConfig(
            connection_config={
                "database": path,
                "isolation_level": None,
                "pool_size": size,
                "connect_timeout": float(TIMEOUT),
            },
            driver_features={"on_connection_create": self._set_up},
        )
        await self._config.provide_pool()

    @staticmethod
    async def _set_up(conn: Any) -> None:
        await conn.executescript(PRAGMAS)

    def connection(self) -> AbstractAsyncContextManager[Any]:
        return self._config.provide_connection()  # type: ignore[no-any-return]

    async def close(self) -> None:
        await self._config.close_pool()


contender = SqlspecPool
