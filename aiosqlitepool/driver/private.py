"""Whether a connection has a database that no other connection has: in memory, or temporary."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from typing import Final

from .sqlite import name_of

__all__ = ["PRIVATE", "is_private"]

# Marks a database in memory: a size in pages that it never reaches, which connections of a shared cache have in common.
_MARK: Final = 2**30 - 2
_marking: Final = threading.Lock()

# What a pool says of a second connection to such a database.
PRIVATE: Final = (
    "has an in-memory database of its own, without what earlier connections wrote: use SQLiteDatabase(':memory:'), "
    "whose connections share one, or pool_size=1 with idle_timeout=None"
)


def is_private(native: sqlite3.Connection) -> bool:
    """Whether the connection has a database that no earlier connection of a pool has: in memory, or temporary."""
    with _marking, contextlib.suppress(sqlite3.Error):  # another connection that shares it changes its schema
        if name_of(native):
            return False
        cursor = native.cursor()
        cursor.row_factory = None
        if _is_shared_by_name(cursor):
            return False
        (most,) = cursor.execute("PRAGMA main.max_page_count").fetchone()
        if most > _MARK:
            cursor.execute(f"PRAGMA main.max_page_count = {_MARK}").fetchall()
            return True
    return False


def _is_shared_by_name(cursor: sqlite3.Cursor) -> bool:
    """Whether the database is one of SQLite's VFS `memdb`, whose name SQLite 3.53 no longer tells.

    Of all databases in memory, its journal alone can be something other than in memory.
    """
    if cursor.execute("PRAGMA main.journal_mode").fetchone() != ("memory",):
        return False
    (mode,) = cursor.execute("PRAGMA main.journal_mode = DELETE").fetchone()
    if mode == "delete":
        cursor.execute("PRAGMA main.journal_mode = MEMORY").fetchall()
    return bool(mode == "delete")
