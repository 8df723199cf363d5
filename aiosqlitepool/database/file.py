"""The database file: its path, how to connect to it in each role, and the size of its WAL."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

import aiosqlite

from ..driver import call, discard, is_busy, opened
from ..pool.settings import LONGEST_NAME
from .busy import pauses
from .guard import guarded_class
from .pragmas import IN_FILE, PragmaValue, Role, pragmas_for, set_pragmas

__all__ = ["DatabaseFile", "checked_connect_args"]

_MEMORY: Final = ":memory:"
# Parameters of a URI whose path is a name and not that of a file.
_NO_FILE: Final = re.compile(r"[?&](mode=memory|vfs=memdb)(&|$)")
# What is appended to its path for the other files of a database.
_BESIDE: Final = ("-wal", "-shm", "-journal", "-writer")
_numbers = itertools.count(1)
# Arguments of `sqlite3.connect` that the user cannot set, and why.
_DECIDED: Final = {
    "database": "it is the path of the database",
    "uri": 'a path that begins with "file:" is a URI',
    "timeout": "acquisition_timeout is the time to wait for the locks of other processes",
    "isolation_level": "the database begins and ends all transactions itself",
    "autocommit": "the database begins and ends all transactions itself",
    "check_same_thread": "the database decides which thread uses a connection",
}


class DatabaseFile:
    """One database, on disk or in memory, shared by all connections of a `SQLiteDatabase`.

    `path` is a path, ":memory:", or a URI ("file:app.db?vfs=...") as for `sqlite3.connect(uri=True)`. `connect_args`
    are passed to `sqlite3.connect`. `timeout` is the number of seconds that opening a connection waits for the locks of
    other processes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        pragmas: Mapping[str, PragmaValue],
        connect_args: Mapping[str, Any],
        timeout: float,
    ) -> None:
        given = _checked(path)
        self._connect_args = connect_args
        self._timeout = timeout
        self.in_memory: bool = given == _MEMORY
        self._is_uri: bool = self.in_memory or given.startswith("file:")
        # A named in-memory database is shared by all connections of the process. The real path still leads to the same
        # file after the program has changed its working directory, or where a symbolic link leads.
        memory = f"file:/aiosqlitepool-{os.getpid()}-{next(_numbers)}?vfs=memdb"
        if self.in_memory:
            self._target = memory
        else:
            self._target = _real_uri(given) if self._is_uri else os.path.realpath(given)
        # SQLite keeps the WAL beside the file itself, not beside a symbolic link to it.
        self.path: str = os.path.realpath(_path_of(self._target) if self._is_uri else self._target)
        # SQLite supports WAL only for files.
        self._pragmas = {"journal_mode": "MEMORY", **pragmas} if self.in_memory else dict(pragmas)
        self._anchor: sqlite3.Connection | None = None

    @property
    def name(self) -> str:
        """The default name of the database: the file's name, cut at the longest that a name may be, or ":memory:"."""
        return _MEMORY if self.in_memory else Path(self.path).name[:LONGEST_NAME]

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
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0

    def bytes(self) -> int | None:
        """Return the size of the database file, `None` if there is none. Safe to call from any thread."""
        try:
            return os.stat(self.path).st_size
        except OSError:
            return None

    def disk_free(self) -> int | None:
        """Return the bytes that the file system of the database has left for this process, `None` if it has none."""
        try:
            return None if self.in_memory else shutil.disk_usage(os.path.dirname(self.path)).free
        except OSError:
            return None

    def is_at(self, path: Path) -> bool:
        """Return whether `path` leads to the file of this database, or to where SQLite keeps one beside it."""
        try:
            return os.path.realpath(path).removeprefix(self.path) in _BESIDE or os.path.samefile(path, self.path)
        except OSError:
            return False

    def status(self) -> os.stat_result | None:
        """Return what `stat` says of the file, `None` for an in-memory database."""
        return None if self.in_memory else os.stat(self.path)

    def factory(self, role: Role, *, any_thread: bool = False) -> Callable[[], Awaitable[aiosqlite.Connection]]:
        """Return a connection factory for this role. With `any_thread`, a thread other than its worker may use it."""

        async def connect() -> aiosqlite.Connection:
            # isolation_level=None: sqlite3 itself never begins a transaction, only this package does.
            # timeout=0: the worker thread must not wait for a lock, where a cancellation could not reach it.
            fixed: dict[str, Any] = {"isolation_level": None, "uri": self._is_uri, "timeout": 0}
            fixed["check_same_thread"] = not any_thread
            kind = guarded_class(role, self._connect_args.get("factory", sqlite3.Connection))
            try:
                connecting = aiosqlite.connect(self._target, **{**self._connect_args, **fixed, "factory": kind})
                connection: aiosqlite.Connection = await opened(connecting)
                try:
                    await self.set_up(connection, role)
                except BaseException:
                    discard(connection)
                    raise
            except sqlite3.Error as error:
                error.add_note(self._described())  # SQLite's message does not name the file
                raise
            return connection

        return connect

    def _described(self) -> str:
        exists = self.in_memory or Path(self.path).parent.is_dir()
        return f"database: {self._target}" + ("" if exists else ", whose directory does not exist")

    async def set_up(self, connection: aiosqlite.Connection, role: Role) -> None:
        """Set the pragmas; repeat that while another process locks the database, until the timeout."""
        pausing = pauses(time.monotonic() + self._timeout)
        while True:
            try:
                return await call(connection, set_pragmas, tuple(pragmas_for(role, self._pragmas)))
            except sqlite3.Error as error:
                if not is_busy(error) or (pause := next(pausing, None)) is None:
                    raise
            await asyncio.sleep(pause)

    def session_sql(self, role: Role) -> Sequence[str]:
        """Return the statements that restore a connection's pragmas, except those stored in the file."""
        return [f"PRAGMA {name} = '{value}'" for name, value in pragmas_for(role, self._pragmas) if name not in IN_FILE]


def checked_connect_args(connect_args: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the user's arguments of `sqlite3.connect`. Raises `TypeError` or `ValueError` that names a wrong one."""
    if connect_args is not None and not isinstance(connect_args, Mapping):
        kind = type(connect_args).__name__
        raise TypeError(f"connect_args must be a mapping of names to values, not {connect_args!r} ({kind})")
    checked = dict(connect_args or {})
    for name, reason in _DECIDED.items():
        if name in checked:
            raise ValueError(f"connect_args: {name!r} cannot be set: {reason}")
    if checked:
        try:
            sqlite3.connect(":memory:", **checked).close()
        except (TypeError, ValueError, OverflowError) as error:
            kinds = TypeError if isinstance(error, TypeError) else ValueError
            raise kinds(f"connect_args: sqlite3.connect() does not take {checked!r}: {error}") from error
    return checked


def _checked(path: object) -> str:
    given = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(given, str):
        raise TypeError(f"path must be a str or a path, not {path!r} ({type(path).__name__})")
    if not given:
        raise ValueError("path must not be empty; use ':memory:' for an in-memory database")
    return given


def _split(uri: str) -> tuple[str, str]:
    """Split a URI as SQLite does: the path, still encoded, and the rest from the question mark on."""
    path, *parameters = re.split(r"(?=\?)", uri.removeprefix("file:").partition("#")[0], maxsplit=1)
    return re.sub("^//[^/]*", "", path), "".join(parameters)


def _path_of(uri: str) -> str:
    return os.fsdecode(unquote_to_bytes(_split(uri)[0]))


def _real_uri(uri: str) -> str:
    """Resolve the path of a URI, so that it leads to the same file after a change of the directory or of a link."""
    path, parameters = _split(uri)
    real_path = os.path.realpath(_path_of(uri))
    if path.startswith(":memory:") or not path or _NO_FILE.search(parameters) or real_path == _path_of(uri):
        return uri
    return f"file:{quote(os.fsencode(real_path))}{parameters}"
