"""The life of one connection: open, check, reset, close, each bounded in time and told as an event.

Works on connections whose slot is taken; knows nothing of slots, of callers or of who waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..bus import EventBus
from ..driver import (
    INTERRUPT_PATIENCE,
    Adapter,
    Connection,
    adapter_for,
    is_adopted,
    prepare_to_await,
    running_threads,
    see_off,
)
from ..errors import ConnectionBrokenError, PoolUsageError
from ..events import (
    CloseReason,
    ConnectionClosed,
    ConnectionCreated,
    ConnectionCreateFailed,
    ErrorInfo,
    HealthCheckFailed,
    RolledBackOnReturn,
)
from ..log import log
from .pooled import PooledConnection
from .settings import PoolSettings

if TYPE_CHECKING:
    from .slots import Slot

__all__ = ["Lifecycle", "OpenFailed"]

C = TypeVar("C", bound=Connection)

_LEAST_CONDEMNED = 4


class OpenFailed(Exception):  # noqa: N818 - never leaves the pool
    """Carries a failure to open, and how many seconds it took, to whoever tells of it."""

    def __init__(self, error: BaseException, create_time: float) -> None:
        super().__init__(error)
        self.error = error
        self.create_time = create_time


class Lifecycle(Generic[C]):
    """Opens, checks, resets and closes the connections of one pool."""

    def __init__(
        self,
        factory: Callable[[], Awaitable[C]],
        settings: PoolSettings,
        bus: EventBus,
        clock: Callable[[], float],
    ) -> None:
        self._factory = factory
        self._settings = settings
        self._name = str(settings.name)
        self._bus = bus
        self._clock = clock
        self._opened = 0
        # Every connection from opening until it has closed, by the identity of the driver's object.
        self.connections: dict[int, PooledConnection[C]] = {}
        self._adopting: set[int] = set()
        # How many connections are closing although they did not stop: their worker threads still run.
        self._condemned = 0
        self._most_condemned = max(settings.pool_size, _LEAST_CONDEMNED)
        # The newest failure to open and when it was, until an opening succeeds.
        self.last_failure: tuple[ErrorInfo, float] | None = None

    async def open(self, slot: Slot[PooledConnection[C]]) -> PooledConnection[C]:
        """Open a connection for a taken slot; raises `OpenFailed`."""
        began = self._clock()
        try:
            raw = await self._connect()
            link = await self._adopt(raw)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):  # they end more than this opening
            raise
        except BaseException as error:
            self._say_where(error)
            raise self.failed_to_open(error, began) from error
        self._opened += 1
        self.last_failure = None
        now = self._clock()
        pooled = PooledConnection(slot, self._opened, raw, link, began=began, now=now, settings=self._settings)
        self.connections[id(raw)] = pooled
        return pooled

    def _say_where(self, error: BaseException) -> None:
        # "database is locked" while a factory sets the journal mode is not the statement that the caller waits to run.
        note = f"while pool {self._name!r} opened a connection"
        if note not in getattr(error, "__notes__", ()):  # a factory may raise one and the same again
            error.add_note(note)

    def failed_to_open(self, error: BaseException, began: float) -> OpenFailed:
        """Note a failure to open."""
        now = self._clock()
        self.last_failure = (ErrorInfo.of(error), now)
        return OpenFailed(error, now - began)

    def tell_create_failed(self, failure: OpenFailed) -> None:
        """Tell that a connection could not be opened, once its slot is free for the next attempt."""
        if ConnectionCreateFailed in self._bus.handlers:
            info = ErrorInfo.of(failure.error)
            self._bus.emit(ConnectionCreateFailed(self._name, failure.create_time, info))

    def tell_created(self, pooled: PooledConnection[C]) -> None:
        """Tell that a connection was opened, once its slot holds it."""
        if ConnectionCreated in self._bus.handlers:
            self._bus.emit(ConnectionCreated(self._name, pooled.number, pooled.create_time))

    async def _connect(self) -> C:
        made = self._factory()
        if not inspect.isawaitable(made):
            raise TypeError(f"connection_factory must return an awaitable, not {made!r} ({type(made).__name__})")
        prepare_to_await(made)
        before = running_threads()
        try:
            raw = await made
        except BaseException as error:
            await see_off(made, error, before)
            raise
        missing = [name for name in ("execute", "rollback", "close") if not callable(getattr(raw, name, None))]
        if missing:
            raise TypeError(f"connection_factory made {raw!r}, which has no {' and no '.join(missing)}()")
        if isinstance(raw, sqlite3.Connection):
            raise TypeError(
                f"connection_factory made {raw!r}, whose methods cannot be awaited; use aiosqlite.connect()"
            )
        if id(raw) in self.connections or id(raw) in self._adopting:
            raise PoolUsageError(f"connection_factory made {raw!r} again, which is in the pool already")
        if is_adopted(raw):
            raise PoolUsageError(f"connection_factory made {raw!r}, which is, or was, in another pool")
        return raw

    async def _adopt(self, raw: C) -> Adapter:
        self._adopting.add(id(raw))
        try:
            link = adapter_for(raw)
            await link.adopt()
        except (Exception, asyncio.CancelledError):
            # The caller never sees this connection, so nobody else could close it.
            closing = _quietly(raw.close())
            await asyncio.wait({closing}, timeout=self._settings.operation_timeout)
            raise
        finally:
            self._adopting.discard(id(raw))
        return link

    async def check(self, pooled: PooledConnection[C]) -> Exception | None:
        """What speaks against lending it: it does not answer, or its file is not the one on disk."""
        began, limit = self._clock(), self._settings.operation_timeout
        patience = asyncio.timeout(limit)
        try:
            async with patience:
                await pooled.link.check()
        except Exception as error:
            return TimeoutError(f"it did not answer within {limit:g} s") if patience.expired() else error
        pooled.checked(self._clock())
        pooled.check_time = pooled.checked_at - began
        return None

    def verify(self, pooled: PooledConnection[C], now: float) -> Exception | None:
        """The part of `check` that needs no trip to the driver."""
        try:
            pooled.link.verify()
        except Exception as error:
            return error
        pooled.checked(now)
        return None

    def tell_unhealthy(self, pooled: PooledConnection[C], idle_time: float, error: Exception) -> None:
        """Tell that a connection was replaced because of `error`."""
        log.warning("pool %r: connection %d is unhealthy: %s", self._name, pooled.number, ErrorInfo.of(error))
        if HealthCheckFailed in self._bus.handlers:
            self._bus.emit(HealthCheckFailed(self._name, pooled.number, idle_time, ErrorInfo.of(error)))

    async def reset(self, pooled: PooledConnection[C], label: str | None) -> CloseReason | None:
        """Undo what the last lease left; returns why the connection must go if that failed."""
        began = self._clock()
        # A statement that cannot be interrupted is not waited for, unless so many were left behind already that
        # replacing still more connections would breed threads.
        limit = self._settings.operation_timeout
        patience = limit if self._condemned >= self._most_condemned else min(INTERRUPT_PATIENCE, limit)
        try:
            async with asyncio.timeout(limit):
                cause = await pooled.link.reset(patience)
        except Exception as error:
            return self._unfit(pooled, error)
        if cause is not None and RolledBackOnReturn in self._bus.handlers:
            took = self._clock() - began
            self._bus.emit(RolledBackOnReturn(self._name, pooled.number, cause, took, label))
        return None

    async def finish(self, pooled: PooledConnection[C], rest: Awaitable[None]) -> CloseReason | None:
        """Await the rest of a rollback that the releasing task began; returns as `reset` does."""
        try:
            async with asyncio.timeout(self._settings.operation_timeout):
                await rest
        except Exception as error:
            return self._unfit(pooled, error)
        return None

    def _unfit(self, pooled: PooledConnection[C], error: Exception) -> CloseReason:
        log.warning("pool %r: connection %d could not be reset: %r", self._name, pooled.number, error)
        return "broken" if isinstance(error, ConnectionBrokenError) else "reset_failed"

    async def close(self, pooled: PooledConnection[C]) -> None:
        """Close within `operation_timeout`; past that the driver is left to finish by itself."""
        self._condemned += 1
        closing = _quietly(pooled.link.close())
        try:
            # Not wait_for: a driver that swallows the cancellation would hold the pool past its deadline.
            await asyncio.wait({closing}, timeout=self._settings.operation_timeout)
            if closing.done() and not closing.cancelled() and (error := closing.exception()) is not None:
                log.warning("pool %r: connection %d failed to close: %r", self._name, pooled.number, error)
        finally:
            if not closing.done():
                log.warning("pool %r: connection %d did not close in time", self._name, pooled.number)
            with contextlib.suppress(RuntimeError):  # the loop is gone
                closing.cancel()
            self._condemned -= 1

    async def discard(self, pooled: PooledConnection[C]) -> None:
        """Close a connection that came too late to be told of."""
        try:
            await self.close(pooled)
        finally:
            self.connections.pop(id(pooled.raw), None)

    def left(self, pooled: PooledConnection[C], reason: CloseReason) -> None:
        """Forget a connection that has closed, or that can only be left to close by itself, and tell of it."""
        if self.connections.pop(id(pooled.raw), None) is not None and ConnectionClosed in self._bus.handlers:
            age = self._clock() - pooled.created_at
            self._bus.emit(ConnectionClosed(self._name, pooled.number, reason, age))


def _quietly(closing: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run to the end, also if nobody waits that long; a failure is not one that nobody looked at."""
    task = asyncio.get_running_loop().create_task(closing)
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # see Stock.spawn
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task
