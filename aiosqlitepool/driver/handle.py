"""What the holder of an aiosqlite connection gets: an object that works until its lease ends, and then never again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
import threading
import types
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

import aiosqlite
from aiosqlite.context import contextmanager

from ..errors import PoolUsageError
from .aiosqlite_adapter import AiosqliteAdapter
from .cursors import ReadAheadCursor, execute, new_cursor
from .executor import Guard
from .protocol import Lessee

__all__ = ["Handle", "ReadsAhead", "guarded", "handle_class"]

R = TypeVar("R")


class Handle:
    """Mixed into the class of the factory's connection, in front of its methods; holds the adapter and its lease.

    `isinstance` stays true, and a user's subclass keeps its methods. Everything that aiosqlite does passes `_conn` or
    `_execute`, here and in its cursors. After the lease has ended all of it raises `PoolUsageError`.
    """

    # Slots of the class that `handle_class` makes.
    _pool_adapter: AiosqliteAdapter
    _pool_lease: Lessee

    @property
    def _conn(self) -> sqlite3.Connection:
        adapter = self._pool_adapter
        if adapter.lease is not self._pool_lease:
            adapter.check_lease(self._pool_lease)
        if not adapter.is_alive and adapter.running is None:  # what was queued before the closing still runs
            raise adapter.closed_error("no active connection")
        return adapter.native

    @property
    def _connection(self) -> sqlite3.Connection | None:
        adapter = self._pool_adapter
        return adapter.native if adapter.lease is self._pool_lease and adapter.is_alive else None

    @property
    def _iter_chunk_size(self) -> int:
        return self._pool_adapter.raw._iter_chunk_size

    @property
    def _running(self) -> bool:
        return self._connection is not None

    def _execute(self, fn: Callable[..., R], *args: Any, **kwargs: Any) -> Awaitable[R]:
        return self._pool_adapter.execute(self._pool_lease, fn, args, kwargs)

    async def close(self) -> None:
        """Run what was queued before, and close the connection; the pool replaces it after the lease."""
        closing = self._pool_adapter.stop_for(self._pool_lease)
        if closing is not None:  # else it is closed
            self._pool_adapter.closing = closing
            await closing

    def stop(self) -> asyncio.Future[None] | None:
        """Close the connection behind what was queued before, without waiting for it."""
        return self._pool_adapter.stop_for(self._pool_lease)

    async def interrupt(self) -> None:
        """Interrupt the statement that runs, and refuse those that the limiter delays."""
        self._pool_adapter.interrupt_for(self._pool_lease)

    # Attributes are those of the factory's object: a lease reads, sets and deletes them there. Not by __getattr__: it
    # would slow down also every access that succeeds.

    def __setattr__(self, name: str, value: Any) -> None:
        self._pool_adapter.check_lease(self._pool_lease)
        forward([name], type(self))
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._pool_adapter.check_lease(self._pool_lease)
        if name in vars(self):
            super().__delattr__(name)
        else:
            delattr(self._pool_adapter.raw, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a connection of a pool cannot be copied or pickled: acquire one where it is used")

    def __del__(self) -> None:
        lease = self._pool_lease
        if self._pool_adapter.lease is lease:
            lease.forgotten()


class ReadsAhead:
    """Mixed in as well if the user's class has aiosqlite's own methods: statements and cursors that read ahead."""

    __slots__ = ()

    commit: Any  # that of the user's class

    @contextmanager
    async def execute(self: Any, sql: str, parameters: Iterable[Any] | None = None) -> aiosqlite.Cursor:
        """Execute a statement, and read its first rows."""
        given, limit = [] if parameters is None else parameters, self._pool_adapter.read_ahead
        return _Cursor(self, await self._execute(execute, sql, given, self._conn, limit))

    @contextmanager
    async def cursor(self: Any) -> aiosqlite.Cursor:
        """Return a new cursor."""
        return _Cursor(self, await self._execute(new_cursor, self._conn, self._pool_adapter.read_ahead))


class _Cursor(aiosqlite.Cursor):
    """A cursor that makes no trip to the worker thread for rows that were read ahead."""

    _conn: Any

    def _serves(self, name: str, size: int | None = None) -> bool:
        cursor: object = self._cursor
        # Not while the worker has something to do for this lease: that comes first.
        return (
            type(cursor) is ReadAheadCursor
            and cursor.can_serve(name, size)
            and self._conn._pool_adapter.is_idle_for(self._conn._pool_lease)
        )

    async def fetchone(self) -> Any:
        """Return the next row, or `None` after the last one."""
        return self._cursor.fetchone() if self._serves("fetchone") else await super().fetchone()

    async def fetchmany(self, size: int | None = None) -> Any:
        """Return the next rows, `arraysize` of them by default."""
        if self._serves("fetchmany", size):
            return self._cursor.fetchmany(self._cursor.arraysize if size is None else size)
        return await super().fetchmany(size)

    async def fetchall(self) -> Any:
        """Return all rows that are left."""
        return self._cursor.fetchall() if self._serves("fetchall") else await super().fetchall()

    async def close(self) -> None:
        """Close the cursor."""
        if self._serves("close"):
            self._cursor.close()
        else:
            await super().close()


@contextlib.contextmanager
def guarded(connection: object, guard: Guard) -> Iterator[None]:
    """Call `guard` before each operation of this handle: what it raises refuses the operation.

    Only for connections that have `session_sql`. Operations of the package itself, which pass `submit`, are not asked
    about.
    """
    _set_guard(connection, guard)
    try:
        yield
    finally:
        _set_guard(connection, None)


def _set_guard(connection: object, guard: Guard | None) -> None:
    # Not if the lease was ended early: the guard would be that of the next lease.
    if isinstance(connection, Handle) and connection._pool_adapter.lease is connection._pool_lease:
        connection._pool_adapter.guard = guard


def handle_class(raw: aiosqlite.Connection) -> type[aiosqlite.Connection]:
    """Return the class of handles to this connection: one for each class of connections."""
    of_its_class = _handle_class(type(raw))  # type: ignore[arg-type]
    forward(vars(raw), of_its_class)
    return of_its_class


# Up to aiosqlite 0.21 a connection is a thread; a handle, which is none that was set up, replaces what it inherits.
_NO_THREAD: dict[str, Any] = {
    "__repr__": object.__repr__,
    "is_alive": lambda handle: handle._pool_adapter.is_alive,
}


@functools.cache
def _handle_class(kind: type[aiosqlite.Connection]) -> type[aiosqlite.Connection]:
    attributes: dict[str, Any] = {name: _Forwarded(name, kind) for name in _plain_attributes(kind)}
    # aiosqlite would start the worker thread again. A user's class may give `async with` a meaning of its own.
    opening = (
        name for name in ("__aenter__", "__await__") if getattr(kind, name) is getattr(aiosqlite.Connection, name)
    )
    thread: Any = threading.Thread
    attributes |= {name: own for name, own in _NO_THREAD.items() if getattr(kind, name, None) is getattr(thread, name)}
    attributes |= dict.fromkeys(opening, _refuse_to_open) | {
        "__slots__": ("_pool_adapter", "_pool_lease"),
        "__module__": __name__,
        "__doc__": Handle.__doc__,
    }
    own = aiosqlite.Connection
    mixins = (ReadsAhead, Handle) if kind.execute is own.execute and kind.cursor is own.cursor else (Handle,)
    return type(f"{kind.__name__}Handle", (*mixins, kind), attributes)


def forward(names: Iterable[str], handle_class: type[Any]) -> None:
    """Let handles of this class read and set those attributes of the factory's object that the class itself lacks."""
    for name in names:
        if not hasattr(handle_class, name):
            setattr(handle_class, name, _Forwarded(name, object))


def _refuse_to_open(handle: Handle) -> NoReturn:
    handle._pool_adapter.check_lease(handle._pool_lease)
    raise PoolUsageError(
        "a connection of a pool is open already, and its pool closes it: use it without `await` or `async with`. The "
        "block of pool.connection() ends its use"
    )


class _Forwarded:
    """An attribute of the factory's object, also one for which a user's class has a slot or a default."""

    def __init__(self, name: str, kind: type) -> None:
        self._name = name
        self._kind = kind

    def __get__(self, handle: Handle | None, kind: type) -> Any:
        if handle is None:
            return getattr(self._kind, self._name, self)
        handle._pool_adapter.check_lease(handle._pool_lease)
        return getattr(handle._pool_adapter.raw, self._name)

    def __set__(self, handle: Handle, value: Any) -> None:
        object.__setattr__(handle._pool_adapter.raw, self._name, value)


def _plain_attributes(kind: type[aiosqlite.Connection]) -> Iterator[str]:
    """Names of what a user's class defines, except methods, properties and the like."""
    for each in kind.__mro__:
        if not issubclass(aiosqlite.Connection, each):
            for name, value in vars(each).items():
                is_plain = isinstance(value, types.MemberDescriptorType) or not hasattr(type(value), "__get__")
                if is_plain and not name.startswith("__"):
                    yield name
