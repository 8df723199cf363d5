"""The database file: where it is, how to connect to it in either role, and how large its WAL is."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiosqlite

from .profile import PragmaValue, Role, statements

__all__ = ["DatabaseFile", "OnConnect"]

OnConnect = Callable[[aiosqlite.Connection], Awaitable[Any]]

_MEMORY = ":memory:"
_numbers = itertools.count(1)


class DatabaseFile:
    """One database, on disk or shared in memory, for all connections of this process.

    `path` may be ":memory:", and may be a URI ("file:app.db?vfs=..."), as `sqlite3.connect(uri=True)` takes it.
    """

    def __init__(
        self, path: str | os.PathLike[str], pragmas: Mapping[str, PragmaValue], on_connect: OnConnect | None
    ) -> None:
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise TypeError(f"path must be a str or a path, not {path!r} ({type(path).__name__})")
        given = os.fspath(path)
        self.in_memory = given == _MEMORY
        # In memory by name, so that all connections of the process see the same one; WAL is for files.
        self._target = f"file:/aiosqlitepool-{os.getpid()}-{next(_numbers)}?vfs=memdb" if self.in_memory else given
        self._pragmas = {"journal_mode": "MEMORY", **pragmas} if self.in_memory else dict(pragmas)
        self._on_connect = on_connect
        self._anchor: sqlite3.Connection | None = None

    @property
    def name(self) -> str:
        """What the database is called unless it is given a name."""
        return _MEMORY if self.in_memory else Path(self._path).name

    @property
    def is_uri(self) -> bool:
        """Whether it is named by a URI."""
        return self._target.startswith("file:")

    def hold(self) -> None:
        """Keep a database in memory alive, whatever becomes of the pools' connections."""
        if self.in_memory:
            self._anchor = sqlite3.connect(self._target, uri=True, check_same_thread=False)

    def let_go(self) -> None:
        """Let a database in memory end with its last connection."""
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None

    def connect_natively(self) -> sqlite3.Connection:
        """A connection of its own, for use in any one thread."""
        return sqlite3.connect(self._target, uri=self.is_uri, check_same_thread=False, isolation_level=None)

    def wal_bytes(self) -> int:
        """The size of the WAL file, 0 without one. Safe in any thread.

        Looked up, never opened: closing any descriptor of the file would drop this process's locks on it.
        Source: sqlite.org/howtocorrupt.html, "POSIX advisory locks".
        """
        try:
            return os.stat(f"{self._path}-wal").st_size
        except OSError:
            return 0

    def is_at(self, path: Path) -> bool:
        """Whether that is the very file of this database."""
        try:
            return not self.in_memory and os.path.samefile(path, self._path)
        except OSError:
            return False

    @property
    def _path(self) -> str:
        return self._target.removeprefix("file:").partition("?")[0] if self.is_uri else self._target

    def factory(self, role: Role) -> Callable[[], Awaitable[aiosqlite.Connection]]:
        """What opens connections of this role."""

        async def connect() -> aiosqlite.Connection:
            # No isolation level: transactions begin where this package says so, and nowhere else.
            connecting = aiosqlite.connect(self._target, isolation_level=None, uri=self.is_uri)
            connecting._thread.daemon = True
            connection = await connecting
            try:
                for name, statement in statements(role, self._pragmas):
                    await self._set(connection, name, statement)
                if self._on_connect is not None:
                    await self._on_connect(connection)
            except BaseException:
                await connection.close()
                raise
            return connection

        return connect

    async def _set(self, connection: aiosqlite.Connection, name: str, statement: str) -> None:
        rows = list(await connection.execute_fetchall(statement))
        wanted = statement.rpartition(" ")[2]
        if name == "journal_mode" and rows and str(rows[0][0]).lower() != wanted.lower():
            raise sqlite3.OperationalError(f"{statement}: the database stayed in journal mode {rows[0][0]!r}")
