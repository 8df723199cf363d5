"""SQLAlchemy's side of a pool: the records and events that it has of connections which a pool of this package keeps."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any, cast

import aiosqlite
import sqlalchemy.pool
from sqlalchemy import event
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from ..bus import Detach
from ..database import SQLiteDatabase
from ..events import ConnectionClosed
from ..pool import SQLiteConnectionPool
from ..pool.settings import MOST_CONNECTIONS
from .adapted import acquired
from .leased import Leased
from .routed import Routed

__all__ = ["AioSQLitePool", "LeasingPool", "RoutingPool"]

# Idle connections that hold nothing, of which there may be any number.
_KEPT = 100


class _Pool(sqlalchemy.pool.Pool):
    """What the pools here have in common."""

    _is_asyncio = True  # pyright: ignore[reportAssignmentType]

    def _options(self) -> dict[str, Any]:
        """The arguments that every pool of SQLAlchemy's has, for `recreate()`."""
        return {
            "echo": self.echo,
            "logging_name": self._orig_logging_name,
            "reset_on_return": self._reset_on_return,
            "pre_ping": self._pre_ping,
            "_dispatch": self.dispatch,
            "dialect": self._dialect,
        }


class LeasingPool(_Pool):
    """Checks out connections of a `SQLiteConnectionPool` that its owner opens and closes."""

    def __init__(
        self, target: SQLiteConnectionPool[aiosqlite.Connection] | None, creator: Any = None, **options: Any
    ) -> None:
        super().__init__(creator or self._connect, **options)
        self._target = target
        self._records: dict[int, Any] = {}
        # What was acquired for a record that is about to be made.
        self._acquired: Leased | None = None
        self._detach: Detach | None = None
        event.listen(self, "invalidate", _note_cancellation)

    @property
    def sqlite_pool(self) -> SQLiteConnectionPool[aiosqlite.Connection]:
        """The pool that keeps the connections, with its `stats()`, `statements()`, `holders()` and `events`."""
        pool = self._target
        assert pool is not None
        if self._detach is None:
            self._detach = pool.events.subscribe(ConnectionClosed, self._closed)
        return pool

    # -- check out

    def _should_wrap_creator(self, creator: Any) -> Any:
        """Let records connect through this pool; `creator` opens the connections that it keeps."""
        return self._connect

    def _do_get(self) -> ConnectionPoolEntry:
        while True:
            leased = await_only(self._acquire())
            record = self._records.get(leased.number)
            if record is not None and record.dbapi_connection.was_cancelled:
                # It gave the connection up, and waits for the end of the release: then it has none.
                del self._records[leased.number]
                record = None
            if record is None:
                return self._new_record(leased)
            record.dbapi_connection.take_over(leased)
            if not record._is_hard_or_soft_invalidated():
                return record  # type: ignore[no-any-return]
            self._forget(record)

    async def _acquire(self) -> Leased:
        lease = self.sqlite_pool.connection()
        return Leased(await acquired(lease.__aenter__()), lease)

    def _new_record(self, leased: Leased) -> ConnectionPoolEntry:
        self._acquired = leased
        try:
            return self._create_connection()
        except BaseException:  # of a listener of `connect`, say. Older versions of SQLAlchemy leave it open
            self._records.pop(leased.number, None)
            leased.close()
            raise

    def _connect(self, rec: Any) -> Any:
        """Called by SQLAlchemy for a connection of a new record, or of a record that has lost its own."""
        leased, self._acquired = self._acquired or await_only(self._acquire()), None
        known = self._records.get(leased.number)
        if known is not None:
            known.close()  # holds nothing: its `close` event
        try:
            leased.check()
            leased.wait_for(leased.restore())
        except BaseException:
            leased.close()
            raise
        self._records[leased.number] = rec
        return leased

    # -- check in

    def _do_return_conn(self, record: Any) -> None:
        leased = record.dbapi_connection
        if leased is None:  # closed, or detached: it was released then, or will be
            self._records = {number: each for number, each in self._records.items() if each is not record}
            return
        leased.wait_for(leased.give_back())
        if self._records.get(leased.number) is not record:  # the pool has closed it meanwhile
            record.close()

    def _closed(self, closed: ConnectionClosed) -> None:
        """Forget a connection that the pool has closed."""
        record = self._records.pop(closed.connection, None)
        if record is not None and record.dbapi_connection is not None and not record.dbapi_connection.is_lent:
            record.close()

    def _forget(self, record: Any) -> None:
        self._records.pop(record.dbapi_connection.number, None)
        record.close()

    # -- the rest of a pool of SQLAlchemy's

    def recreate(self) -> LeasingPool:
        """Return a new pool over the same target."""
        assert self._target is not None
        return type(self)(self._target, **self._options())

    def dispose(self) -> None:
        """Forget the connections, which stay in the pool that keeps them."""
        if self._detach is not None:
            self._detach()
            self._detach = None
        for record in list(self._records.values()):
            if record.dbapi_connection is not None and not record.dbapi_connection.is_lent:
                self._forget(record)

    def size(self) -> int:
        """Connections at most."""
        return self.sqlite_pool.stats().max_size

    def checkedout(self) -> int:
        """Connections in use."""
        return self.sqlite_pool.stats().used

    def checkedin(self) -> int:
        """Idle connections."""
        return self.sqlite_pool.stats().idle

    def overflow(self) -> int:
        """Connections beyond `size()`: none."""
        return 0

    def status(self) -> str:
        """The pool in one line."""
        return repr(self.sqlite_pool)


class AioSQLitePool(LeasingPool):
    """A `poolclass` for `create_async_engine()`: the engine opens connections, and a pool of this package keeps them.

    Args:
        creator: opens a connection; what SQLAlchemy passes to each pool.
        pool_size, max_overflow: their sum is the maximum number of connections, all of which are kept.
        timeout: seconds to wait for a connection, `None` for no limit. An option of the engine under the name
            `pool_timeout`.
        recycle: seconds after which a connection is replaced, -1 for never. As an option, `pool_recycle`.
        pool_settings: further arguments of the `SQLiteConnectionPool`: `name`, `subscribers`, `leak_threshold`, ...
    """

    def __init__(
        self,
        creator: Any,
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        recycle: int = -1,
        pool_settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(None, creator, **options)
        self._arguments: dict[str, Any] = {
            "pool_size": pool_size, "max_overflow": max_overflow, "timeout": timeout, "recycle": recycle,
            "pool_settings": pool_settings,
        }  # fmt: skip
        unlimited = pool_size == 0 or max_overflow < 0
        self._settings: dict[str, Any] = {
            "pool_size": MOST_CONNECTIONS if unlimited else pool_size + max_overflow,
            "acquisition_timeout": timeout,
            "max_lifetime": None if recycle < 0 else recycle,
            **(pool_settings or {}),
        }
        self._closing: asyncio.Task[None] | None = None

    @property
    def sqlite_pool(self) -> SQLiteConnectionPool[aiosqlite.Connection]:
        """The pool that keeps the connections, with its `stats()`, `statements()`, `holders()` and `events`."""
        if self._target is None:
            self._target = SQLiteConnectionPool(self._open, **self._settings)
        return super().sqlite_pool

    async def _open(self) -> aiosqlite.Connection:
        adapted = await greenlet_spawn(self._creator)
        connection: aiosqlite.Connection = adapted.driver_connection
        return connection

    async def _acquire(self) -> Leased:
        loop = None if self._target is None else self._target._loop
        if loop is not None and loop.is_closed():  # an earlier asyncio.run(), which did not dispose of the engine
            await self._let_go()
        return await super()._acquire()

    async def _let_go(self) -> None:
        pool, self._target = self._target, None
        super().dispose()
        self._records = {}  # another pool has the same numbers
        assert pool is not None
        await pool.close(math.inf)

    def recreate(self) -> AioSQLitePool:
        """Return a new pool with the same arguments."""
        return type(self)(self._creator, **self._arguments, **self._options())

    def dispose(self) -> None:
        """Close idle connections now, and others when they come back."""
        if self._target is None or not in_greenlet():
            return  # without a loop, the pool closes when it is collected, with a ResourceWarning
        if self.checkedout():
            self._closing = asyncio.get_running_loop().create_task(self._let_go())
        else:
            await_only(self._let_go())


class RoutingPool(_Pool):
    """Checks out connections that hold nothing until they are used, any number of them."""

    def __init__(self, db: SQLiteDatabase, **options: Any) -> None:
        super().__init__(lambda rec: cast(Any, Routed(db)), **options)
        self._db = db
        self._idle: list[Any] = []

    def _do_get(self) -> ConnectionPoolEntry:
        if self._idle:
            return self._idle.pop()  # type: ignore[no-any-return]
        record = self._create_connection()
        record.dbapi_connection.begin()  # type: ignore[union-attr]
        return record

    def _do_return_conn(self, record: Any) -> None:
        if record.dbapi_connection is not None and len(self._idle) < _KEPT:
            self._idle.append(record)

    def recreate(self) -> RoutingPool:
        """Return a new pool over the same database."""
        return type(self)(self._db, **self._options())

    def dispose(self) -> None:
        """Forget the connections, which hold nothing."""
        idle, self._idle = self._idle, []
        for record in idle:
            record.close()

    def status(self) -> str:
        """The database in one line."""
        return repr(self._db)


def _note_cancellation(leased: Any, _: ConnectionPoolEntry, error: BaseException | None) -> None:
    """Let the pool keep a connection that SQLAlchemy gives up because its task was cancelled, or its program ends."""
    leased.was_cancelled = error is not None and not isinstance(error, Exception)
