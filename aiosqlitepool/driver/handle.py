"""What a lease of an aiosqlite connection lends: an object that works until its lease ends, and then never again."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
import types
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import aiosqlite

from .aiosqlite_adapter import AiosqliteAdapter, Guard
from .protocol import Lessee

__all__ = ["Handle", "guarded", "handle_class"]

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
        if not adapter.is_open and adapter.running is None:  # what was queued before the closing still runs
            raise ValueError("no active connection")  # as aiosqlite itself says it
        return adapter.native

    @property
    def _connection(self) -> sqlite3.Connection | None:
        adapter = self._pool_adapter
        return adapter.native if adapter.lease is self._pool_lease and adapter.is_open else None

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
        await self._pool_adapter.close_for(self._pool_lease)

    def stop(self) -> asyncio.Future[None] | None:
        """Close the connection behind what was queued before, without waiting for it."""
        return self._pool_adapter.stop_for(self._pool_lease)

    async def interrupt(self) -> None:
        """Interrupt the statement that runs, and refuse those that the limiter delays."""
        self._pool_adapter.interrupt_for(self._pool_lease)

    # Attributes are those of the factory's object: a lease reads, sets and deletes them there.

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and name not in ("_pool_adapter", "_pool_lease"):
            self._pool_adapter.check_lease(self._pool_lease)
            attributes = vars(self._pool_adapter.raw)
            if name in attributes:
                return attributes[name]
            of_the_users_class = getattr(super(), "__getattr__", None)
            if of_the_users_class is not None:
                return of_the_users_class(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self._pool_adapter.check_lease(self._pool_lease)
        if hasattr(type(self), name):  # a property, such as row_factory
            super().__setattr__(name, value)
        else:
            setattr(self._pool_adapter.raw, name, value)

    def __delattr__(self, name: str) -> None:
        self._pool_adapter.check_lease(self._pool_lease)
        if name in vars(self):
            super().__delattr__(name)
        else:
            delattr(self._pool_adapter.raw, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a connection of a pool cannot be copied or pickled")

    def __del__(self) -> None:
        lease = self._pool_lease
        if self._pool_adapter.lease is lease:
            lease.forgotten()


@contextlib.contextmanager
def guarded(connection: object, guard: Guard) -> Iterator[None]:
    """Call `guard` before each operation of this handle: what it raises refuses the operation.

    Only for connections that have `session_sql`. Operations of the package itself, which pass `submit`, are not asked
    about.
    """
    if isinstance(connection, Handle):
        connection._pool_adapter.guard = guard
    try:
        yield
    finally:
        if isinstance(connection, Handle):
            connection._pool_adapter.guard = None


@functools.cache
def handle_class(kind: type[aiosqlite.Connection]) -> type[aiosqlite.Connection]:
    """Return the class of handles to connections of this class."""
    attributes: dict[str, Any] = {name: _Forwarded(name, kind) for name in _plain_attributes(kind)}
    attributes |= {
        "__slots__": ("_pool_adapter", "_pool_lease"),
        "__module__": __name__,
        "__doc__": Handle.__doc__,
    }
    return type(f"{kind.__name__}Handle", (Handle, kind), attributes)


class _Forwarded:
    """An attribute for which a user's class has a slot or a default: that of the factory's object."""

    def __init__(self, name: str, kind: type) -> None:
        self._name = name
        self._kind = kind

    def __get__(self, handle: Handle | None, kind: type) -> Any:
        if handle is None:
            return getattr(self._kind, self._name)
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
