"""`SQLiteDatabase`: one writer connection and several reader connections to one SQLite file.

SQLite allows one writer at a time. Concurrent writers retry in its busy handler, which polls instead of queueing.
`SQLiteDatabase` queues writers (FIFO) for one connection. In WAL mode, readers never wait for the writer.
"""

from .database import SQLiteDatabase
from .migrations import Step

__all__ = ["SQLiteDatabase", "Step"]
