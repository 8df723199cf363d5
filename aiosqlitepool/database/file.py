"""The database file: where it is, how to connect to it in either role, and how large its WAL is."""

from __future__ import annotations

import inspect
import itertools
import os
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import aiosqlite

from ..driver import prepare_to_await, stop
from .pragmas import PragmaValue, Role, settings

__all__ = ["DatabaseFile", "OnConnect"]

OnConnect = Callable[[aiosqlite.Connection], Awaitable[Any]]

_MEMORY: Final = ":memory:"
_numbers = itertools.count(1)


class DatabaseFile:
    """One database, on disk or shared in memory, for all connections of this process.

    `path` may be ":memory:", and may be a URI ("file:app.db?vfs=..."), as `sqlite3.connect(uri=True)` takes it.
    """

    def __init__(
        self, path: str | os.PathLike[str], pragmas: Mapping[str, PragmaValue], on_connect: OnConnect | None
    ) -> None:
        given = _checked(path)
        self.in_memory: bool = given == _MEMORY
        self.is_uri: bool = self.in_memory or given.startswith("file:")
        # In memory by name, so that all connections of the process see the same one; WAL is for files. A path is
        # made absolute, so that connections opened after a change of directory open the same file.
        memory = f"file:/aiosqlitepool-{os.getpid()}-{next(_numbers)}?vfs=memdb"
        self._target = memory if self.in_memory else given if self.is_uri else os.path.abspath(given)
        # Where SQLite keeps the WAL: beside the file itself, not beside a link to it.
        self._path = os.path.realpath(unquote(urlsplit(self._target).path) if self.is_uri else self._target)
        self._pragmas = {"journal_mode": "MEMORY", **pragmas} if self.in_memory else dict(pragmas)
        self._on_connect = on_connect
        self._anchor: sqlite3.Connection | None = None

    @property
    def name(self) -> str:
        """What the database is called unless it is given a name."""
        return _MEMORY if self.in_memory else Path(self._path).name

    def hold(self) -> None:
        """Keep a database in memory alive, whatever becomes of the pools' connections."""
        if self.in_memory:
            self._anchor = self.connect_natively()

    def let_go(self) -> None:
        """Let a database in memory end with its last connection."""
        if self._anchor is not None:
            self._anchor.close()
            self._anchor = None

    def connect_natively(self) -> sqlite3.Connection:
        """A connection of its own, for use in any one thread, which never waits for a lock."""
        return sqlite3.connect(self._target, timeout=0, uri=self.is_uri, check_same_thread=False, isolation_level=None)

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

    def factory(self, role: Role) -> Callable[[], Awaitable[aiosqlite.Connection]]:
        """What opens connections of this role."""

        async def connect() -> aiosqlite.Connection:
            # No isolation level: transactions begin where this package says so, and nowhere else.
            connecting = aiosqlite.connect(self._target, isolation_level=None, uri=self.is_uri)
            prepare_to_await(connecting)
            try:
                connection = await connecting
                await self._set_up(connection, role)
            except BaseException as error:
                if isinstance(error, sqlite3.Error):  # which says what is wrong, and not with which file
                    error.add_note(f"database: {self._target}")
                await stop(connecting)  # not close(), which would wait for what runs: the opening may be cancelled
                raise
            return connection

        return connect

    async def _set_up(self, connection: aiosqlite.Connection, role: Role) -> None:
        for name, value in settings(role, self._pragmas):
            statement = f"PRAGMA {name} = '{value}'"
            rows = list(await connection.execute_fetchall(statement))
            if name == "journal_mode" and str(rows[0][0]).lower() != value.lower():
                raise sqlite3.OperationalError(f"{statement}: the database stayed in journal mode {rows[0][0]!r}")
        if self._on_connect is not None:
            connected = self._on_connect(connection)
            if not inspect.isawaitable(connected):
                raise TypeError(f"on_connect must return an awaitable, not {connected!r} ({type(connected).__name__})")
            await connected


def _checked(path: object) -> str:
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(given, str):
        raise TypeError(f"path must be a str or a path, not {path!r} ({type(path).__name__})")
    if not given:
        raise ValueError("path must not be empty: ':memory:' is a database in memory")
    return given
