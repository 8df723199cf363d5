"""`SQLiteConnectionPool`: the public face, and the pool's own life from construction to close.

How connections are lent is in `lending`, how they are taken back in `returning`, how they are opened and replaced in
`stock`, `preparation` and `lifecycle`.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol

from ..bus import Detach, EventBus
from ..driver import Connection
from ..errors import PoolClosedError, PoolUsageError
from ..events import PoolClosed, PoolOpened
from ..log import log
from ..stats import Holder, PoolStats, Waiter
from . import exits
from . import process as registry
from .acquire import Lending
from .diagnosis import counts
from .diagnostics import Leases
from .housekeeper import Timer
from .inventory import Stock
from .lease import Lease
from .release import Returning
from .settings import PoolSettings, check_label, check_seconds

__all__ = ["PoolState", "SQLiteConnectionPool", "Subscriber", "checked_subscribers"]

if TYPE_CHECKING:
    import aiosqlite
    from typing_extensions import TypeVar

    # A bare `SQLiteConnectionPool` in an annotation is a pool of aiosqlite connections.
    C = TypeVar("C", bound=Connection, default=aiosqlite.Connection)
else:
    from typing import TypeVar

    C = TypeVar("C", bound=Connection)


class PoolState(Enum):
    """The life of a pool, in order; `forked` is where a child process finds its parent's."""

    UNOPENED = "unopened"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    FORKED = "forked"


class Subscriber(Protocol):
    """Something that wants a pool's events: it is shown the pool once and subscribes to what it needs."""

    def attach(self, pool: SQLiteConnectionPool[Any], /) -> Detach:
        """Subscribe to `pool.events`; returns what ends it."""
        ...


class SQLiteConnectionPool(Generic[C]):
    """Lends up to `pool_size` connections to the tasks of one event loop, first come, first served.

    Construct it anywhere; its first use, or `open()`, ties it to the running loop. Every argument is checked at
    once: `TypeError` or `ValueError` names the argument and its value. All times are seconds, ints or floats.

    Args:
        connection_factory: called without arguments, returns an awaitable of a connection: an object with
            awaitable `execute`, `rollback` and `close`. `lambda: aiosqlite.connect("app.db")` will do.
        pool_size: connections at most.
        acquisition_timeout: how long an acquire may take in all, queueing, opening and checking together.
            `None` waits for ever; `0` never queues: it takes or opens a connection, or fails at once.
        idle_timeout: how long a connection may stand idle before it is closed; `None` never closes it.
        operation_timeout: how long one check, reset or close of a connection may take.
        min_size: connections kept open once the pool is.
        max_lifetime: how old a connection may become, less up to a tenth so that not all expire at once;
            `None` for any age.
        max_waiting: how many callers may queue; further ones get `PoolFullError`. `None` for any number.
        health_check_after: idle longer than this, a connection is checked before it is lent; `0` checks always,
            `None` never.
        leak_threshold: a connection out for longer than this is told of as a suspected leak; `None` never.
        slow_acquire: an acquire that takes this long emits `AcquireSlow`; `None` never, `0` each acquire that did not
            get an idle connection at once.
        name: the pool's name in every event, metric, span and log line; "pool-1", "pool-2", ... if not given.
        subscribers: objects whose `attach(pool)` is called now, as by `subscribe()`.
        clock: what time it is, as `time.monotonic` tells it; tests pass their own.
    """

    # For __del__, which runs also for a pool whose arguments were refused.
    _state = PoolState.CLOSED

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
        leak_threshold: float | None = None,
        slow_acquire: float | None = 0.05,
        name: str | None = None,
        subscribers: Iterable[Subscriber] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for argument, value in (("connection_factory", connection_factory), ("clock", clock)):
            if not callable(value):
                raise TypeError(f"{argument} must be callable, not {value!r} ({type(value).__name__})")
        settings = PoolSettings(
            pool_size=pool_size,
            acquisition_timeout=acquisition_timeout,
            idle_timeout=idle_timeout,
            operation_timeout=operation_timeout,
            min_size=min_size,
            max_lifetime=max_lifetime,
            max_waiting=max_waiting,
            health_check_after=health_check_after,
            leak_threshold=leak_threshold,
            slow_acquire=slow_acquire,
            name=name,
        )
        self._settings = settings
        self._clock = clock
        self._bus = EventBus(clock, str(settings.name))
        self._timer = Timer(self, clock)
        self._stock: Stock[C] = Stock(connection_factory, settings, self._bus, clock, self._timer)
        self._leases: Leases[C] = Leases(self._stock.slots, settings, self._bus, clock)
        self._returning: Returning[C] = Returning(self._stock, self._leases, settings, self._bus, clock)
        self._lending: Lending[C] = Lending(
            self._stock,
            self._leases,
            self._returning,
            settings,
            self._bus,
            clock,
            self._timer,
            enter=self._enter,
            stats=self.stats,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self._state = PoolState.UNOPENED
        for subscriber in checked_subscribers(subscribers):
            self.subscribe(subscriber)
        registry.register(self)

    # -- borrowing

    def connection(self, *, label: str | None = None) -> Lease[C]:
        """Borrow a connection for an `async with` block; leaving it rolls back what was not committed.

        `label` says what for, in diagnoses, events and spans: "GET /users". Entering the block raises
        `PoolConnectionAcquireTimeoutError`, `PoolFullError`, `PoolClosedError`, `PoolUsageError` in the wrong loop
        or process, or the driver's own exception when it cannot connect.
        """
        if label is not None and not isinstance(label, str):
            check_label(label)
        return Lease(self._lending, label)

    async def acquire(self, *, label: str | None = None) -> C:
        """Borrow a connection until `release()`; raises what `connection()` does."""
        return await self.connection(label=label).__aenter__()

    async def release(self, connection: C) -> None:
        """Give back what `acquire()` returned, for oneself or for the task that did.

        Raises `PoolUsageError` for anything that is not lent, and if this task gave it back before and the pool has
        lent it to another task since; of a driver that the pool does not know, that cannot be told.
        """
        pooled = self._stock.lifecycle.connections.get(id(connection))
        lease = None if pooled is None else pooled.lease
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise self._wrong_loop()
        # A pool that closes takes connections from under their holders, who are not to blame for it.
        if lease is None and self._state is not PoolState.CLOSING and self._state is not PoolState.CLOSED:
            raise PoolUsageError(f"{connection!r} is not lent by pool {self.name!r}: released twice, or not its own")
        if pooled is not None and lease is not None:
            pooled.link.challenge()
            await lease.__aexit__(None, None, None)

    # -- the pool's own life

    async def open(self) -> None:
        """Open the pool in the running loop, with `min_size` connections; harmless when it is open.

        Raises the driver's exception if they cannot be opened, and `PoolClosedError` after `close()`.
        """
        self._enter()
        await self._stock.filled()
        if self._state is not PoolState.OPEN:
            raise PoolClosedError(f"pool {self.name!r} closed while it was being opened")

    async def close(self, timeout: float | None = None) -> None:
        """Close the pool: nothing more is lent, idle connections close, lent ones when they come back.

        After `timeout` seconds (default `operation_timeout`) what is still out is interrupted and closed, and a
        `ResourceWarning` names the holders. Harmless when closed; concurrent calls await the same end, which a
        cancellation of this one does not stop, and of their timeouts the one that ends first counts. The last
        connection to close, which may have a long WAL to fold in, gets `operation_timeout` whatever `timeout` says.
        """
        default = self._settings.operation_timeout
        patience = default if timeout is None else check_seconds("timeout", timeout)
        loop = asyncio.get_running_loop()
        if self._state is PoolState.CLOSED or self._state is PoolState.FORKED:
            return
        if self._loop is None or self._loop.is_closed():
            self._end(len(self._returning.abandon_all()))
            return
        if loop is not self._loop:
            raise PoolUsageError(f"pool {self.name!r} must be closed in the event loop that it was opened in")
        self._stock.hurry(patience)
        if self._closing is None:
            self._stop_lending()
            # Awaited by every caller of close() and owned by none: a cancelled one must not leave it half done.
            self._closing = loop.create_task(self._close(), name=f"{self.name}:close-pool")
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> SQLiteConnectionPool[C]:
        try:
            await self.open()
        except BaseException:
            if self._state is PoolState.OPEN:
                await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _enter(self) -> None:
        """Let the running loop in: open the pool in it, or say why not."""
        if self._state is PoolState.FORKED:
            raise PoolUsageError(
                f"pool {self.name!r} was opened before this process was forked; SQLite connections cannot cross a "
                "fork: make a pool of its own in each process"
            )
        if self._state is not PoolState.UNOPENED and self._state is not PoolState.OPEN:
            raise PoolClosedError(f"pool {self.name!r} is {self._state.value}")
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop is not None:
            raise self._wrong_loop()
        self._loop = loop
        self._lending.start()
        self._state = PoolState.OPEN
        exits.watch(self)
        if PoolOpened in self._bus.handlers:
            limits = self._settings
            self._bus.emit(PoolOpened(self.name, limits.min_size, limits.pool_size, limits.max_waiting))
        self._stock.fill()

    def _wrong_loop(self) -> PoolUsageError:
        return PoolUsageError(
            f"pool {self.name!r} belongs to another event loop; close it there before that loop ends, and make a pool "
            "of its own for each loop"
        )

    def _stop_lending(self) -> None:
        self._state = PoolState.CLOSING
        self._lending.stop()
        self._timer.stop()
        self._stock.close_idle()

    async def _close(self) -> None:
        abandoned: tuple[Holder, ...] = ()
        try:
            await self._stock.drain()
            abandoned = self._returning.abandon()
            await self._stock.tasks.rest()
            await self._stock.close_last()
            self._stock.tasks.cancel()
            await self._stock.tasks.rest()
        finally:
            # Also when the loop is being torn down around this task: then nothing is left to await with.
            self._stock.abandon()
            self._end(len(abandoned))
        if abandoned:
            who = "; ".join(map(str, abandoned))
            self._complain(f"pool {self.name!r} closed connections under their holders: {who}")

    def _end(self, abandoned: int) -> None:
        self._state = PoolState.CLOSED
        self._lending.stop()
        self._bus.flush_timings()
        exits.forget(self)
        if PoolClosed in self._bus.handlers:
            self._bus.emit(PoolClosed(self.name, abandoned))

    def sweep(self) -> float:
        """Do what is due (called by the pool's timer); returns when the next thing will be."""
        now = self._clock()
        return min(self._stock.sweep(now), self._lending.expire_waiters(now), self._leases.suspect_leaks(now))

    def abandon_at_exit(self) -> None:
        """Leave the connections to close by themselves, and say so (called when the program ends)."""
        if self._state is PoolState.OPEN or self._state is PoolState.CLOSING:
            left, holders = f"{self!r} was never closed", self._returning.abandon_all()
            self._end(len(holders))
            self._complain(f"{left}{': ' if holders else ''}{'; '.join(map(str, holders))}")

    def _complain(self, message: str) -> None:
        # Logged too, because Python shows no ResourceWarning unless it is asked to.
        log.warning(message)
        warnings.warn(message, ResourceWarning, stacklevel=3, source=self)

    def forked(self) -> None:
        """Become useless (called in a forked child)."""
        self._state = PoolState.FORKED
        self._lending.stop()
        self._bus.forked()

    def __del__(self) -> None:
        try:
            self.abandon_at_exit()
        finally:
            if "_bus" in vars(self):
                self._bus.ended = True

    # -- looking at it

    @property
    def name(self) -> str:
        """The pool's name."""
        return str(self._settings.name)

    @property
    def events(self) -> EventBus:
        """The bus on which this pool tells its events."""
        return self._bus

    def subscribe(self, subscriber: Subscriber) -> Detach:
        """Show the pool to a subscriber; returns a function that detaches it.

        Raises `TypeError` if it has no `attach(pool)` method, or is a class where an object of it was meant.
        """
        registry.check_subscriber(subscriber)
        return subscriber.attach(self)

    def stats(self) -> PoolStats:
        """The pool at this moment. Safe to call from any thread."""
        slots, now = self._stock.slots, self._clock()
        oldest = slots.oldest_caller
        idle = slots.idle
        return PoolStats(
            pool=self.name,
            state=self._state.value,
            max_size=self._settings.pool_size,
            min_size=self._settings.min_size,
            used=min(slots.used, self._settings.pool_size - idle),
            idle=idle,
            waiting=slots.waiting,
            oldest_waiter=0.0 if oldest is None else max(0.0, now - oldest.began),
            oldest_checkout=self._leases.oldest(now),
            subscriber_errors=self._bus.errors,
        )

    def holders(self) -> tuple[Holder, ...]:
        """Who holds a connection now, longest first. Safe to call from any thread."""
        return self._leases.holders()

    def waiters(self) -> tuple[Waiter, ...]:
        """Who queues for a connection now, longest first. Safe to call from any thread."""
        return self._lending.waiters()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._state.value}: {counts(self.stats())}>"


def checked_subscribers(subscribers: Iterable[Subscriber]) -> tuple[Subscriber, ...]:
    """Return them all; raises `TypeError` naming the value if it is nothing to go through."""
    try:
        return tuple(subscribers)
    except TypeError:
        raise TypeError(f"subscribers must be an iterable of subscribers, not {subscribers!r}") from None
