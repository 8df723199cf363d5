"""`SQLiteConnectionPool`: construct a pool, acquire, release, look at it.

Connections are acquired in `acquire`, released in `release`, opened and replaced in `inventory`. The pool itself is
opened and closed in `lifecycle`; its methods for one statement are in `statements`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..bus import Detach, EventBus
from ..driver import Connection, factory_object, is_stale
from ..errors import PoolUsageError
from ..stats import Holder, PoolStats, StatementTable, Waiter
from . import registry
from .diagnostics import counts
from .lease import Lease
from .lifecycle import PoolState
from .registry import Subscriber
from .settings import LONGEST_NAME, OnConnect, PoolSettings, check_label, check_timeout, finite
from .statements import PoolStatements

__all__ = ["PoolState", "SQLiteConnectionPool", "Subscriber"]

if TYPE_CHECKING:
    import aiosqlite
    from typing_extensions import TypeVar

    # A bare `SQLiteConnectionPool` in an annotation is a pool of aiosqlite connections.
    C = TypeVar("C", bound=Connection, default=aiosqlite.Connection)
else:
    from typing import TypeVar

    C = TypeVar("C", bound=Connection)


class SQLiteConnectionPool(PoolStatements[C]):
    """Shares up to `pool_size` connections between the tasks of one event loop, first come, first served.

    Construct it anywhere; its first use, or `open()`, ties it to the running loop. Every argument is checked at
    once: `TypeError` or `ValueError` names the argument and its value. All times are seconds, ints or floats.

    Args:
        connection_factory: called without arguments, returns an awaitable of a connection: an object with
            awaitable `execute`, `rollback` and `close`. `lambda: aiosqlite.connect("app.db")` will do.
        pool_size: connections at most.
        acquisition_timeout: how long an acquire may take in all, queueing, opening and checking together.
            `None` sets no limit; `0` never queues: it takes or opens a connection, or fails at once.
        idle_timeout: how long a connection may be idle before it is replaced; `None` for any time.
        operation_timeout: how long one check, reset or close of a connection may take.
        min_size: connections kept open once the pool is.
        max_lifetime: how old a connection may become, less up to a tenth so that not all expire at once;
            `None` for any age.
        max_waiting: how many callers may queue; further ones get `PoolFullError`. `None` for any number.
        health_check_after: idle longer than this, a connection is checked when it is acquired; `0` checks always,
            `None` never.
        leak_threshold: a connection in use for longer than this logs a warning and emits `LeakSuspected`, once;
            `None` never.
        slow_acquire: an acquire that takes this long emits `AcquireSlow`; `None` never, `0` each acquire that did not
            get an idle connection at once.
        slow_statement: a statement of an aiosqlite connection that runs this long emits `StatementSlow`, with its query
            plan; `None` never, `0` each one.
        read_ahead: rows at most that a statement of an aiosqlite connection fetches when it is executed, for 0.2 ms at
            most; `0` fetches none.
        on_connect: awaited with each new connection, before its first use: pragmas, row factories, functions.
        name: the pool's name in every event, metric, span and log line; "pool-1", "pool-2", ... if not given. While
            another pool of the process has that name, "<name>#2" and so on, with a warning in the log.
        subscribers: objects whose `attach(pool)` is called now. If that raises, the error is logged, and the pool works
            without this subscriber.
        clock: returns the time in seconds, as `time.monotonic` does; tests pass their own.
    """

    def __init__(
        self,
        connection_factory: Callable[[], Awaitable[C]],
        pool_size: int = 20,
        acquisition_timeout: float | None = 30,
        idle_timeout: float | None = 86400,
        operation_timeout: float = 10,
        *,
        min_size: int = 0,
        max_lifetime: float | None = None,
        max_waiting: int | None = None,
        health_check_after: float | None = 1.0,
        leak_threshold: float | None = 60,
        slow_acquire: float | None = 0.05,
        slow_statement: float | None = 0.1,
        read_ahead: int = 64,
        on_connect: OnConnect | None = None,
        name: str | None = None,
        subscribers: Iterable[Subscriber] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not callable(connection_factory):
            raise TypeError(
                "connection_factory must be a function that opens a connection, such as "
                f"lambda: aiosqlite.connect('app.db'), not {connection_factory!r} ({type(connection_factory).__name__})"
            )
        given: Any = (
            pool_size, acquisition_timeout, idle_timeout, operation_timeout, min_size, max_lifetime, max_waiting,
            health_check_after, leak_threshold, slow_acquire, slow_statement, read_ahead, on_connect, clock, name
        )  # fmt: skip
        settings = PoolSettings(*given)
        subscribers = registry.checked_subscribers(subscribers)
        super().__init__(connection_factory, settings, is_named=name is not None)
        registry.register(self, subscribers)

    # -- acquire and release

    def connection(self, label: str | None = None, *, timeout: float | None = None) -> Lease[C]:
        """Acquire a connection for an `async with` block; leaving it rolls back what was not committed.

        Args:
            label: what for, in diagnoses, events and spans: "GET /users".
            timeout: seconds, instead of the pool's `acquisition_timeout`; infinity sets no limit.

        Entering the block raises `PoolConnectionAcquireTimeoutError`, `PoolFullError`, `PoolClosedError`,
        `PoolUsageError` in the wrong loop or process, or the driver's own exception when it cannot connect.
        """
        if label is not None and (not isinstance(label, str) or len(label) > LONGEST_NAME):
            label = check_label(label)
        if timeout is not None:
            timeout = check_timeout("timeout", timeout)
        return Lease(self._acquirer, self._releaser, label, timeout)

    async def acquire(self, label: str | None = None, *, timeout: float | None = None) -> C:
        """Acquire a connection until `release()`. Takes and raises what `connection()` does."""
        lease = self.connection(label=label, timeout=timeout)
        connection = await lease.__aenter__()
        lease.keep_nothing()
        return connection

    async def release(self, connection: C) -> None:
        """Release what `acquire()` returned, in any task.

        Raises `PoolUsageError` if it is not in use, or was released before. With a driver that the pool does not know,
        the latter shows only until the connection is in use again.
        """
        pooled = self._inventory.connector.connections.get(id(factory_object(connection)))
        lease = None if pooled is None else pooled.lease
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise self._wrong_loop()
        if isinstance(lease, Lease) and not is_stale(connection):
            await lease.__aexit__(None, None, None)
        # A pool that closes takes connections from their holders, who made no mistake.
        elif self._state not in (PoolState.CLOSING, PoolState.CLOSED):
            raise PoolUsageError(
                f"{connection!r} is not in use in pool {self.name!r}: released twice, or not its own. Release what "
                "acquire() of this pool returned, once, or use `async with pool.connection()`"
            )

    def expire_connections(self) -> None:
        """Replace every connection: idle ones now, others when they are released; after a migration, say."""
        for pooled in self._inventory.connector.connections.values():
            pooled.expire()
        self._housekeeper.trim(self._clock())

    # -- look at it

    @property
    def events(self) -> EventBus:
        """The bus on which this pool emits its events."""
        return self._bus

    def subscribe(self, subscriber: Subscriber) -> Detach:
        """Attach a subscriber; return a function that detaches it. One that is attached already is not attached twice.

        Raises `TypeError` if it has no `attach(pool)` method, or is a class instead of an object, and what `attach`
        raises.
        """
        registry.check_subscriber(subscriber)
        return self._bus.attach_once(subscriber, lambda: subscriber.attach(self))

    def stats(self) -> PoolStats:
        """Return the state of the pool now. Safe to call from any thread."""
        slots, diagnostics, now = self._inventory.slots, self._diagnostics, self._clock()
        idle = slots.idle
        return PoolStats(
            pool=self.name,
            state=self._state.value,
            max_size=self._settings.pool_size,
            min_size=self._settings.min_size,
            used=min(slots.used, self._settings.pool_size - idle),
            idle=idle,
            waiting=diagnostics.waiting,
            oldest_waiter=diagnostics.oldest_waiter(now),
            oldest_checkout=diagnostics.oldest_checkout(now),
            subscriber_errors=self._bus.errors,
            acquisition_timeout=finite(self._settings.acquisition_timeout),
            max_waiting=self._settings.max_waiting,
            leak_threshold=finite(self._settings.leak_threshold),
        )

    def holders(self) -> tuple[Holder, ...]:
        """Return who holds a connection now, longest first. Safe to call from any thread."""
        return self._diagnostics.holders()

    def waiters(self) -> tuple[Waiter, ...]:
        """Return who waits for a connection now, longest first. Safe to call from any thread."""
        return self._diagnostics.waiters()

    def statements(self) -> StatementTable:
        """Return what ran on aiosqlite connections, the longest total time first. Safe to call from any thread.

        One frozen row for each statement, normalized: literals are `?`. At most 500; the least used are forgotten
        first, and counted in `forgotten`. Not those that a function of `run_read()` or `run_write()` executes, or
        a method such as `SQLiteDatabase.execute()` inside the `write()` block of its task.
        """
        return self._statements.table()

    def reset_statements(self) -> None:
        """Forget all statements. Safe to call from any thread."""
        self._statements.reset()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._state.value}: {counts(self.stats())}>"
