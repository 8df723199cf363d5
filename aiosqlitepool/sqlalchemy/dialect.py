"""The dialect `sqlite+aiosqlitepool`: SQLAlchemy's own for aiosqlite, with connections of this package."""

from __future__ import annotations

import sqlite3
from typing import Any

import aiosqlite
import sqlalchemy.pool
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_dbapi,
    SQLiteDialect_aiosqlite,
    SQLiteExecutionContext_aiosqlite,
)
from sqlalchemy.util import await_only

from ..driver import opened
from .leased import Leased
from .options import checked
from .pools import AioSQLitePool
from .routed import Routed

__all__ = ["PooledDialect"]


class _DBAPI(AsyncAdapt_aiosqlite_dbapi):
    """Opens connections of this package's kind, for whatever pool: without a lease, they close themselves."""

    def __init__(self, driver: Any, sqlite: Any) -> None:
        super().__init__(driver, sqlite)
        self.has_stop = True  # with each aiosqlite: `Adapted.terminate` needs no stop() of it, which 0.22.1 brought

    def connect(self, *args: Any, async_creator_fn: Any = None, **kwargs: Any) -> Any:
        """Open a connection."""
        return Leased(await_only(opened((async_creator_fn or aiosqlite.connect)(*args, **kwargs))))


class _ExecutionContext(SQLiteExecutionContext_aiosqlite):
    """Passes the execution options of a statement on to its cursor."""

    def create_default_cursor(self) -> Any:
        """Return a cursor that fetches all rows at once."""
        return self._dbapi_connection.cursor(options=self.execution_options)

    def create_server_side_cursor(self) -> Any:
        """Return a cursor that fetches rows as they are needed."""
        return self._dbapi_connection.cursor(server_side=True, options=self.execution_options)


class PooledDialect(SQLiteDialect_aiosqlite):
    """SQLite by aiosqlite, pooled by this package, with the execution options `label` and `sqlite_role`."""

    driver = "aiosqlitepool"
    supports_statement_cache = True
    has_terminate = True
    execution_ctx_cls: Any = _ExecutionContext

    @classmethod
    def import_dbapi(cls) -> Any:
        """Return the module of the DBAPI."""
        return _DBAPI(aiosqlite, sqlite3)

    @classmethod
    def get_pool_class(cls, url: Any) -> type[sqlalchemy.pool.Pool]:
        """Return the pool for this URL: for a database in memory, SQLAlchemy's own, which has one connection."""
        own = super().get_pool_class(url)
        return own if own is sqlalchemy.pool.StaticPool else AioSQLitePool

    def set_connection_execution_options(self, connection: Any, opts: Any) -> None:
        """Check the options of a connection."""
        checked(opts)
        super().set_connection_execution_options(connection, opts)

    def set_engine_execution_options(self, engine: Any, opts: Any) -> None:
        """Check the options of an engine."""
        checked(opts)
        super().set_engine_execution_options(engine, opts)

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        """Set the isolation level."""
        if isinstance(dbapi_connection, Routed):
            dbapi_connection.level = level
        else:
            super().set_isolation_level(dbapi_connection, level)

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        """Return the isolation level."""
        if isinstance(dbapi_connection, Routed):
            return dbapi_connection.level
        return super().get_isolation_level(dbapi_connection)  # type: ignore[no-untyped-call]
