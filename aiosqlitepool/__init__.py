"""A fast, observable asyncio connection pool for SQLite."""

from .database import SQLiteDatabase
from .driver import Connection, Executed
from .errors import (
    ConnectionBrokenError,
    PoolClosedError,
    PoolConnectionAcquireTimeoutError,
    PoolError,
    PoolFullError,
    PoolUsageError,
)
from .pool.pool import SQLiteConnectionPool, Subscriber
from .pool.registry import subscribe_all
from .stats import Holder, PoolStats, StatementStats, StatementTable, Waiter

__all__ = [
    "Connection",
    "ConnectionBrokenError",
    "Executed",
    "Holder",
    "PoolClosedError",
    "PoolConnectionAcquireTimeoutError",
    "PoolError",
    "PoolFullError",
    "PoolStats",
    "PoolUsageError",
    "SQLiteConnectionPool",
    "SQLiteDatabase",
    "StatementStats",
    "StatementTable",
    "Subscriber",
    "Waiter",
    "subscribe_all",
]

__version__ = "2.0.0"
