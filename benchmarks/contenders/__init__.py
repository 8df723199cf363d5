"""The contenders: one file each, found by being here. A file whose name begins with `_` is shared by several.

A file says at its top, as inline script metadata, what its environment must hold, what it is called in the tables, and
which `workloads` it is for, if not all; versions are pinned in `../versions.txt`. Its `contender` is a subclass of
`Contender`. Everybody gets the same pragmas, the same SQL, and the cheapest way that its own documentation knows to run
a statement and fetch its rows.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

__all__ = ["PRAGMAS", "TIMEOUT", "Contender"]

TIMEOUT = 30
"""Seconds that everybody lets a caller wait for a connection."""

PRAGMAS = """
PRAGMA busy_timeout = 5000;
PRAGMA synchronous = NORMAL;
PRAGMA foreign_keys = ON;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -8000;
PRAGMA mmap_size = 268435456;
"""


class Contender(ABC):
    """A way to have up to `size` connections to one database. Connections are in autocommit mode."""

    queues: ClassVar[bool] = True
    """Whether a caller waits while all connections are out."""
    most: ClassVar[float] = math.inf
    """How many connections it can have."""

    share: ClassVar[float] = 1.0
    """Which part of a long load it is sent, where all of it would take many seconds and tell no more."""

    @abstractmethod
    async def open(self, path: str, size: int) -> None:
        """Get ready to lend up to `size` connections to the database at `path`, which is in WAL mode."""

    @abstractmethod
    def connection(self) -> AbstractAsyncContextManager[Any]:
        """A connection for an `async with` block: the library's own context manager, with nothing around it."""

    async def write(self, sql: str, *parameters: object, held: float | None = None) -> None:
        """Run a statement that writes: by itself, or in a transaction that then stays open for `held` seconds."""
        async with self.connection() as conn:
            if held is None:
                await self.execute(conn, sql, *parameters)
                return
            await self.execute(conn, "BEGIN IMMEDIATE")
            await self.execute(conn, sql, *parameters)
            if held:
                await asyncio.sleep(held)
            await self.execute(conn, "COMMIT")

    async def one(self, sql: str, *parameters: object) -> Any:
        """The first row of a query that stands alone, by the shortest way that there is."""
        async with self.connection() as conn:
            return await self.first(conn, sql, *parameters)

    @abstractmethod
    async def close(self) -> None:
        """Close everything."""

    def settle(self) -> None:
        """Do what was put off while requests were served; called once they are, and timed by itself."""
        return

    @abstractmethod
    async def fetch(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        """All rows of a query."""

    @abstractmethod
    async def first(self, conn: Any, sql: str, *parameters: object) -> Any:
        """The first row of a query, fetched from its cursor as programs do."""

    @abstractmethod
    async def iterate(self, conn: Any, sql: str, *parameters: object) -> Sequence[Any]:
        """All rows of a query, one by one from its cursor, which is then closed."""

    @abstractmethod
    async def execute(self, conn: Any, sql: str, *parameters: object) -> None:
        """Run a statement that returns no rows."""
