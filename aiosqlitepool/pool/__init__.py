"""The pool: connections for callers, first come, first served. Runs no SQL: what a connection is, `driver` knows.

Read `pool.py` first, then `slots.py`, `acquire.py`, `release.py` and `inventory.py`.
"""

from .pool import PoolState, SQLiteConnectionPool
from .registry import Subscriber

__all__ = ["PoolState", "SQLiteConnectionPool", "Subscriber"]
