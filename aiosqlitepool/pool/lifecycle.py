"""The life of a pool: assembled, opened in a loop, closed, abandoned when the program ends, disabled after a fork.

How its connections are closed is in `shutdown`.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from enum import Enum
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from ..bus import EventBus
from ..copying import NotCopyable
from ..driver import Adapter, Connection, InlineReads, StatementLog, adapter_for, shielded
from ..errors import PoolClosedError, PoolUsageError
from ..events import PoolClosed, PoolOpened
from ..stats import Holder, PoolStats
from . import registry
from .acquire import Acquirer
from .background import Timer, begin_later, running_loop
from .connection import Connector
from .diagnostics import Diagnostics, closed_for_good
from .housekeeper import Housekeeper
from .inventory import Inventory
from .release import Releaser
from .settings import PoolSettings, check_timeout
from .shutdown import Shutdown

__all__ = ["PoolLifecycle", "PoolState"]

C = TypeVar("C", bound=Connection)

log: Final = logging.getLogger("aiosqlitepool")


class PoolState(Enum):
    """The life of a pool, in order; `forked` is where a child process finds its parent's."""

    UNOPENED = "unopened"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    FORKED = "forked"


class PoolLifecycle(NotCopyable, Generic[C]):
    """Makes the parts of a pool, and opens and closes it. The base of `SQLiteConnectionPool`."""

    # What restores the pragmas of a connection, after a lease that used one.
    session_sql: Sequence[str] = ()
    # What runs short reads of connections in the loop's own thread.
    inline: InlineReads | None = None
    # For __del__, which runs also for a pool whose arguments were refused.
    _state: PoolState = PoolState.CLOSED

    def __init__(
        self, connection_factory: Callable[[], Awaitable[C]], settings: PoolSettings, *, is_named: bool
    ) -> None:
        self._is_named = is_named
        self._settings = settings = replace(settings, name=registry.claim_name(self, settings.name))
        self._clock = settings.clock
        self._bus = bus = EventBus(settings.clock, settings.name)
        self._timer = Timer(settings.clock)
        self._statements = StatementLog(
            settings.name, settings.slow_statement, bus.handlers, bus.emit, bus.emit_statements
        )
        bus.flush_statements = self._statements.flush
        connector = Connector(connection_factory, self._adapter_for, settings, bus)
        self._inventory = Inventory(connector, settings, bus, self._timer)
        self._diagnostics = Diagnostics(self._inventory, self.stats)
        self._releaser = Releaser(self._inventory, self._diagnostics.ended)
        self._acquirer = Acquirer(self._inventory, self._diagnostics, self._enter)
        self._housekeeper = Housekeeper(self._inventory, self._diagnostics)
        self._timer.look = self._housekeeper.sweep
        self._shutdown = Shutdown(self._inventory, self._diagnostics, self._releaser)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        self._state = PoolState.UNOPENED

    def _adapter_for(self, raw: C) -> Adapter:
        return adapter_for(raw, self.session_sql, self._settings.read_ahead, self._statements, self.inline)

    @abstractmethod
    def stats(self) -> PoolStats:
        """Return the state of the pool now. Safe to call from any thread."""
        ...

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._settings.name

    @property
    def is_named(self) -> bool:
        """Whether the pool was given a name. Pools without one share the series `unnamed` in metrics."""
        return self._is_named

    async def open(self) -> None:
        """Open the pool in the running loop, with `min_size` connections; harmless when it is open.

        Raises the driver's exception if they cannot be opened, and `PoolClosedError` after `close()`.
        """
        self._enter()
        await self._inventory.filled()
        if self._state is not PoolState.OPEN:
            raise PoolClosedError(f"pool {self.name!r} closed while it was being opened")

    async def close(self, timeout: float | None = None) -> None:
        """Close the pool: refuse further callers, close idle connections now and others when they are released.

        After `timeout` seconds (default `operation_timeout`) connections still in use are interrupted and closed, and
        a `ResourceWarning` names their holders. Harmless when closed. Concurrent calls await the same end, which a
        cancellation of one of them does not stop; of their timeouts the one that ends first counts. The last
        connection to close, which may have a long WAL to checkpoint, gets `operation_timeout` whatever `timeout` is.
        """
        patience = self._settings.operation_timeout if timeout is None else check_timeout("timeout", timeout)
        loop = running_loop(f"pool {self.name!r}")
        if self._state in (PoolState.CLOSED, PoolState.FORKED):
            return
        if self._loop is None or self._loop.is_closed():
            self._end(len(self._shutdown.abandon()))
            return
        if loop is not self._loop:
            raise PoolUsageError(f"pool {self.name!r} must be closed in the event loop that it was opened in")
        if self._closing is None:
            self._state = PoolState.CLOSING
            self._acquirer.stop()
            self._timer.stop()
            self._shutdown.begin()
            # A task of its own: a cancelled caller must not leave it half done.
            self._closing = begin_later(self._close(), name=f"{self.name}:close-pool")
        self._shutdown.hurry(patience)
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            if self._state is PoolState.OPEN:
                await shielded(self.close())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await shielded(self.close())

    def _enter(self) -> None:
        """Open the pool in the running loop if it is not open; raise if it cannot be used there."""
        if self._state is PoolState.FORKED:
            raise PoolUsageError(
                f"pool {self.name!r} was opened before this process was forked; SQLite connections cannot cross a "
                "fork: make a pool of its own in each process"
            )
        if self._state not in (PoolState.UNOPENED, PoolState.OPEN):
            raise closed_for_good(f"pool {self.name!r} is {self._state.value}")
        loop = running_loop(f"pool {self.name!r}")
        if loop is self._loop:
            return
        if self._loop is not None:
            raise self._wrong_loop()
        self._loop = self._releaser.loop = self._statements.loop = loop
        self._inventory.closing_began = loop.create_future()
        self._acquirer.start()
        self._state = PoolState.OPEN
        settings = self._settings
        self._bus.emit_new(PoolOpened, settings.min_size, settings.pool_size, settings.max_waiting)
        self._inventory.fill()

    def _wrong_loop(self) -> PoolUsageError:
        return PoolUsageError(
            f"pool {self.name!r} belongs to another event loop: make one per asyncio.run() or test, and close it there"
        )

    async def _close(self) -> None:
        abandoned: tuple[Holder, ...] = ()
        try:
            abandoned = await self._shutdown.run()
        finally:
            self._end(len(abandoned))
        if abandoned:
            self._warn(f"pool {self.name!r} closed connections under their holders: {'; '.join(map(str, abandoned))}")

    def _end(self, abandoned: int) -> None:
        self._state = PoolState.CLOSED
        self._acquirer.stop()
        self._bus.flush_timings()
        registry.release_name(self, self.name)
        self._bus.emit_new(PoolClosed, abandoned)
        self._bus.end()

    def _is_open(self) -> bool:
        return self._state is PoolState.OPEN or self._state is PoolState.CLOSING

    def abandon_at_exit(self) -> None:
        """Warn, and leave the connections to close by themselves. Called when the program ends."""
        if self._is_open():
            left = f"{self!r} was never closed: use `async with pool:`, or await close()"
            holders = self._shutdown.abandon()
            self._end(len(holders))
            self._warn(". ".join((left, *map(str, holders))))

    def _warn(self, message: str) -> None:
        # Logged too, because Python shows no ResourceWarning unless it is asked to.
        log.warning(message)
        warnings.warn(message, ResourceWarning, stacklevel=3, source=self)

    def forked(self) -> None:
        """Become unusable if it is open. Called in a forked child process."""
        if self._is_open():
            self._state = PoolState.FORKED
            self._acquirer.stop()
            self._bus.forked()
            self._statements.forked()
            registry.release_name(self, self.name)

    def __del__(self) -> None:
        self.abandon_at_exit()
        # Not vars(): it makes a new dict, from which the garbage collector concludes that the pool is still in use.
        getattr(self, "_bus", EventBus()).flush_timings()
