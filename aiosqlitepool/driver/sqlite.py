"""What the pool asks of a `sqlite3.Connection`, in the thread that may use it, and of the file that this has opened.

Knows sqlite3, nothing of aiosqlite.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Any, NamedTuple

from ..errors import ConnectionBrokenError

__all__ = ["File", "autocommit", "file_of", "roll_back"]


class File(NamedTuple):
    """A database file: its path, and the device and inode that it had there when `file_of` looked."""

    path: str
    device: int
    inode: int

    def verify(self) -> None:
        """Raise if another is there now, or none."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise ConnectionBrokenError(f"the database file is gone: {error}") from error
        if (found.st_dev, found.st_ino) != (self.device, self.inode):
            raise ConnectionBrokenError(f"the database file {self.path!r} was replaced by another")


def autocommit(native: sqlite3.Connection) -> Any:
    """True or False where sqlite3 leaves, or keeps, transactions to itself (Python 3.12); else anything."""
    return getattr(native, "autocommit", None)


def roll_back(native: sqlite3.Connection) -> None:
    """Undo the open transaction; raises if it is open still, for the next borrower must not commit it."""
    mode = autocommit(native)
    if mode is True:  # where rollback() does nothing
        native.execute("ROLLBACK")
    else:
        native.rollback()
    if native.in_transaction and mode is not False:
        raise sqlite3.OperationalError("a transaction is still open after it was rolled back")


def file_of(native: sqlite3.Connection) -> File | None:
    """The file that it has opened, if it is one."""
    cursor, text_factory = native.cursor(), native.text_factory
    cursor.row_factory = None
    native.text_factory = bytes  # a file's name need not be UTF-8, and the program's own may make anything of it
    try:
        (name,) = cursor.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()
    finally:
        native.text_factory = text_factory
    path = os.fsdecode(name or b"")
    try:
        found = os.stat(path)
    except OSError:  # in memory, or a name of a virtual file system
        return None
    return File(path, found.st_dev, found.st_ino)
