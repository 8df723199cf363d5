"""The database file: its path, how to connect to it in each role, and the size of its WAL."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import aiosqlite

from ..driver import opened
from .guard import ReaderConnection, WriterConnection
from .pragmas import FILE_PRAGMAS, PragmaValue, Role, settings

__all__ = ["DatabaseFile"]

_MEMORY: Final = ":memory:"
_numbers = itertools.count(1)


class DatabaseFile:
    """One database, on disk or in memory, shared by all connections of a `SQLiteDatabase`.

    `path` is a path, ":memory:", or a URI ("file:app.db?vfs=...") as for `sqlite3.connect(uri=True)`.
    """

    def __init__(self, path: str | os.PathLike[str], pragmas: Mapping[str, PragmaValue]) -> None:
        given = _checked(path)
        self.in_memory: bool = given == _MEMORY
        self._is_uri: bool = self.in_memory or given.startswith("file:")
        # A named in-memory database is shared by all connections of the process. An absolute path still leads to the
        # same file after the program has changed its working directory.
        memory = f"file:/aiosqlitepool-{os.getpid()}-{next(_numbers)}?vfs=memdb"
        self._target = memory if self.in_memory else given if self._is_uri else os.path.abspath(given)
        # SQLite keeps the WAL beside the file itself, not beside a symbolic link to it.
        self._path = os.path.realpath(unquote(urlsplit(self._target).path) if self._is_uri else self._target)
        # SQLite supports WAL only for files.
        self._pragmas = {"journal_mode": "MEMORY", **pragmas} if self.in_memory else dict(pragmas)
        self._anchor: sqlite3.Connection | None = None

    @property
    def name(self) -> str:
        """The default name of the database: the file's name, or ":memory:"."""
        return _MEMORY if self.in_memory else Path(self._path).name

    def open_anchor(self) -> None:
        """Keep an in-memory database alive, also while the pools have no connection to it."""
        if self.in_memory:
            self._anchor = self.connect_natively()

    def close_anchor(self) -> None:
        """Let an in-memory database end with its last connection."""
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None

    def connect_natively(self) -> sqlite3.Connection:
        """Open a `sqlite3.Connection` that never waits for a lock. Any thread may use it, one at a time."""
        return sqlite3.connect(self._target, timeout=0, uri=self._is_uri, check_same_thread=False, isolation_level=None)

    def wal_bytes(self) -> int:
        """Return the size of the WAL file in bytes, 0 if there is none. Safe to call from any thread.

        Uses `stat` and never opens the file: closing any descriptor of a file drops all locks that this process holds
        on it. Source: sqlite.org/howtocorrupt.html, "POSIX advisory locks".
        """
        try:
            return os.stat(f"{self._path}-wal").st_size
        except OSError:
            return 0

    def is_at(self, path: Path) -> bool:
        """Return whether `path` leads to the file of this database."""
        try:
            return not self.in_memory and os.path.samefile(path, self._path)
        except OSError:
            return False

    def factory(self, role: Role) -> Callable[[], Awaitable[aiosqlite.Connection]]:
        """Return a connection factory for this role."""

        async def connect() -> aiosqlite.Connection:
            # isolation_level=None: sqlite3 itself never begins a transaction, only this package does.
            kind = WriterConnection if role == "write" else ReaderConnection
            try:
                connecting = aiosqlite.connect(self._target, isolation_level=None, uri=self._is_uri, factory=kind)
                connection: aiosqlite.Connection = await opened(connecting)
                await self.set_up(connection, role)
            except sqlite3.Error as error:
                error.add_note(f"database: {self._target}")  # SQLite's message does not name the file
                raise
            return connection

        return connect

    async def set_up(self, connection: aiosqlite.Connection, role: Role) -> None:
        """Set the pragmas of a connection. The writer's set the journal mode of the file."""
        for name, value in settings(role, self._pragmas):
            statement = f"PRAGMA {name} = '{value}'"
            async with connection.execute(statement) as cursor:  # not execute_fetchall(): see `discard_locals`
                row: Any = await cursor.fetchone()
            if name == "journal_mode" and str(row[0]).lower() != value.lower():
                raise sqlite3.OperationalError(f"{statement}: the database stayed in journal mode {row[0]!r}")

    def session_sql(self, role: Role) -> Sequence[str]:
        """Return the statements that restore a connection's pragmas, except those stored in the file."""
        return [
            f"PRAGMA {name} = '{value}'" for name, value in settings(role, self._pragmas) if name not in FILE_PRAGMAS
        ]


def _checked(path: object) -> str:
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(given, str):
        raise TypeError(f"path must be a str or a path, not {path!r} ({type(path).__name__})")
    if not given:
        raise ValueError("path must not be empty; use ':memory:' for an in-memory database")
    return given
