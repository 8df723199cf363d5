"""One SQLite file for a whole program: one writer and many readers, as two pools composed.

SQLite lets one connection write at a time. Connections that all write collide in its busy handler, which sleeps and is
no queue. Here writers queue, in order, for the one connection that writes, and readers never wait for it.
"""

from .database import SQLiteDatabase

__all__ = ["SQLiteDatabase"]
