"""Open, check, reset and close one connection. `operation_timeout` limits all but the opening: `inventory` does that.

Works on connections whose slot is taken, and knows nothing of slots. What reaches SQLite is the adapter's, in `driver`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ..bus import EventBus
from ..driver import INTERRUPT_PATIENCE, Adapter, connect, was_attached
from ..errors import ConnectionBrokenError, ErrorInfo, PoolUsageError
from ..events import (
    CloseReason,
    ConnectionClosed,
    HealthCheckFailed,
    IdleReplaced,
    RolledBackOnReturn,
)
from ..failures import LOG_INTERVAL
from .background import quietly
from .checkout import Checkout
from .settings import PoolSettings

__all__ = ["Connector", "PooledConnection"]

log: Final = logging.getLogger("aiosqlitepool")

# Lifetimes are shortened by up to a tenth, along the golden ratio: spread evenly over any number of connections, so
# that they do not all expire together, and the same in every run.
_JITTER: Final = 0.1
_GOLDEN: Final = (math.sqrt(5) - 1) / 2

# Seconds after which a connection that does not close no longer holds up the next one.
_STEP_ASIDE: Final = 0.2
# A pool of any size may have this many connections that do not stop, before a reset waits for one.
_LEAST_STUCK: Final = 4


class PooledConnection:
    """A connection and what the pool knows of it. All times are readings of the pool's clock."""

    def __init__(self, number: int, raw: Any, adapter: Adapter, *, began: float, now: float, settings: PoolSettings):
        self.number: int = number
        self.raw: Any = raw
        self.adapter: Adapter = adapter
        self.created_at: float = now
        self.idle_since: float = now
        self.create_time: float = now - began
        self.check_time: float = 0.0
        jitter = 1.0 - _JITTER * (number * _GOLDEN % 1.0)
        self.expires_at: float = now + settings.max_lifetime * jitter
        self._settings = settings
        self.checked(now)
        # The checkout that has it alone.
        self.lease: Checkout[Any] | None = None
        # The checkout that was suspected to leak.
        self.suspected: Checkout[Any] | None = None

    def checked(self, now: float) -> None:
        """Note that it was found healthy, and until when it need not be verified when it is released."""
        self.checked_at: float = now
        self.good_until: float = min(self.expires_at, now + self._settings.health_check_after)

    def expire(self) -> None:
        """Let it be replaced when it is next released or idle."""
        self.expires_at = self.good_until = -math.inf

    def why_expired(self, now: float) -> CloseReason | None:
        """Return why it has to be replaced while it is idle: `max_lifetime` or `idle_timeout`, if it is over."""
        if now >= self.expires_at:
            return "lifetime"
        return "idle" if now - self.idle_since >= self._settings.idle_timeout else None


class Connector:
    """Opens, checks, resets and closes the connections of one pool."""

    def __init__(
        self,
        factory: Callable[[], Awaitable[Any]],
        adapter_for: Callable[[Any], Adapter],
        settings: PoolSettings,
        bus: EventBus,
    ) -> None:
        self._factory, self._adapter_for = factory, adapter_for
        self._settings = settings
        self._name = settings.name
        self._bus = bus
        self._clock = settings.clock
        self._opened = self._apart = 0  # how many, and how many of them without the data of the others
        # Every connection from opening until it has closed, by the identity of the factory's object.
        self.connections: dict[int, PooledConnection] = {}
        self._attaching: set[int] = set()
        # How many openings in a row have failed, the newest failure, and when it was.
        self.failures: int = 0
        self.last_failure: tuple[ErrorInfo, float] | None = None
        # When lost work may be logged again.
        self._quiet_until = -math.inf

    # -- opening

    async def open(self) -> PooledConnection:
        """Open a connection; raises what the factory, `on_connect` or the driver raised."""
        began = self._clock()
        try:
            raw = await self._connect()
            adapter, warning = await self._attach(raw)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):  # they end more than this opening
            raise
        except BaseException as error:
            # "database is locked" in a factory that sets the journal mode is not about the caller's statement.
            note = f"while pool {self._name!r} opened a connection"
            if note not in getattr(error, "__notes__", ()):  # a factory may raise the same error again
                error.add_note(note)
            raise
        self._opened += 1
        self._apart += warning is not None
        if warning is not None and self._apart == 2:
            log.warning("pool %r: connection %d %s", self._name, self._opened, warning)
        self.failures, self.last_failure = 0, None
        pooled = PooledConnection(self._opened, raw, adapter, began=began, now=self._clock(), settings=self._settings)
        self.connections[id(raw)] = pooled
        return pooled

    def failed(self, error: BaseException, now: float) -> None:
        """Record a failure to open."""
        self.failures += 1
        self.last_failure = (ErrorInfo.of(error), now)

    async def _connect(self) -> Any:
        raw = await connect(self._factory)
        again = id(raw) in self.connections or id(raw) in self._attaching
        if again or was_attached(raw):
            where = "again, which is in the pool already" if again else "that is, or was, in another pool"
            raise PoolUsageError(f"connection_factory made {raw!r} {where}: let it make a connection in each call")
        return raw

    async def _attach(self, raw: Any) -> tuple[Adapter, str | None]:
        self._attaching.add(id(raw))
        adapter: Adapter | None = None
        try:
            if (on_connect := self._settings.on_connect) is not None:
                connected = on_connect(raw)
                if not inspect.isawaitable(connected):
                    kind = type(connected).__name__
                    raise TypeError(f"on_connect must return an awaitable, not {connected!r} ({kind})")
                await connected
            adapter = self._adapter_for(raw)
            return adapter, await adapter.attach()
        except (Exception, asyncio.CancelledError):  # the program never sees this connection: nothing else closes it
            closing = quietly(raw.close() if adapter is None else adapter.close())
            await asyncio.wait({closing}, timeout=self._settings.operation_timeout)
            raise
        finally:
            self._attaching.discard(id(raw))

    # -- checking and resetting

    async def check(self, pooled: PooledConnection) -> Exception | None:
        """Return why it cannot be used: it does not answer, or its file was replaced."""
        began, limit = self._clock(), self._settings.operation_timeout
        patience = asyncio.timeout(limit)
        try:
            async with patience:
                await pooled.adapter.check()
        except Exception as error:
            return TimeoutError(f"it did not answer within {limit:g} s") if patience.expired() else error
        pooled.checked(self._clock())
        pooled.check_time = pooled.checked_at - began
        return None

    def verify(self, pooled: PooledConnection, now: float) -> Exception | None:
        """The part of `check` that makes no trip to the driver."""
        try:
            pooled.adapter.verify()
        except Exception as error:
            return error
        pooled.checked(now)
        return None

    def emit_unhealthy(self, pooled: PooledConnection, idle_time: float, error: Exception) -> None:
        """Log and emit that a connection was replaced because of `error`."""
        log.warning("pool %r: connection %d is unhealthy: %s", self._name, pooled.number, ErrorInfo.of(error))
        self._bus.emit_new(HealthCheckFailed, pooled.number, idle_time, ErrorInfo.of(error))

    def emit_replaced(self, pooled: PooledConnection, reason: CloseReason, now: float) -> None:
        """Emit that an idle connection was replaced."""
        if reason == "idle":
            self._bus.emit_new(IdleReplaced, pooled.number, now - pooled.idle_since)

    async def reset(self, pooled: PooledConnection, label: str | None, *, warns: bool) -> CloseReason | None:
        """Undo what the last lease left; return why the connection must be closed if that failed.

        Warns of work that is lost, if a transaction is rolled back, with `warns`.
        """
        began = self._clock()
        # A statement that does not stop is not waited for, unless so many are left behind already that replacing
        # still more connections would pile up threads.
        limit, size = self._settings.operation_timeout, self._settings.pool_size
        closing = len(self.connections) - size  # their worker threads still run
        patience = limit if closing >= max(size, _LEAST_STUCK) else min(INTERRUPT_PATIENCE, limit)
        try:
            async with asyncio.timeout(limit):
                cause = await pooled.adapter.reset(patience)
        except Exception as error:
            log.warning(
                "pool %r: connection %d could not be reset and is replaced: %r", self._name, pooled.number, error
            )
            return "broken" if isinstance(error, ConnectionBrokenError) else "reset_failed"
        if cause == "transaction" and warns:
            self._warn_of_lost_work(label)
        if cause is not None:
            self._bus.emit_new(RolledBackOnReturn, pooled.number, cause, self._clock() - began, label)
        return None

    def _warn_of_lost_work(self, label: str | None) -> None:
        now = self._clock()
        if now >= self._quiet_until:
            self._quiet_until = now + LOG_INTERVAL
            of = "" if label is None else f" of {label!r}"
            log.warning(
                "pool %r: uncommitted work%s was rolled back when its connection was released: call commit() first "
                "(logged once in %g s)", self._name, of, LOG_INTERVAL
            )  # fmt: skip

    # -- closing

    async def close(self, pooled: PooledConnection, after: asyncio.Task[None] | None = None) -> None:
        """Close within `operation_timeout`; past that the driver is left to finish by itself.

        Connections close one after another: this one after `after`, unless that takes long.
        """
        if after is not None:
            await asyncio.wait((after,), timeout=_STEP_ASIDE)
        closing, limit = quietly(pooled.adapter.close()), self._settings.operation_timeout
        try:
            # Not wait_for: a driver that swallows the cancellation would hold the pool past its deadline.
            await asyncio.wait({closing}, timeout=limit)
            if closing.done() and not closing.cancelled() and (error := closing.exception()) is not None:
                log.warning("pool %r: connection %d failed to close: %r", self._name, pooled.number, error)
        finally:
            if not closing.done():
                log.warning("pool %r: connection %d did not close within %g s", self._name, pooled.number, limit)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                closing.cancel()

    async def discard(self, pooled: PooledConnection) -> None:
        """Close a connection that was opened too late to be emitted as an event."""
        try:
            await self.close(pooled)
        finally:
            self.connections.pop(id(pooled.raw), None)

    def closed(self, pooled: PooledConnection, reason: CloseReason) -> None:
        """Forget a connection that has closed, or that can only be left to close by itself, and emit that."""
        if self.connections.pop(id(pooled.raw), None) is not None:
            self._bus.emit_new(ConnectionClosed, pooled.number, reason, self._clock() - pooled.created_at)
