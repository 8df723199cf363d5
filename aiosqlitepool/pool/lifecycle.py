"""The life of a pool: open it in a loop, close it, abandon it when the program ends, disable it after a fork."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import warnings
from enum import Enum
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

from ..bus import EventBus
from ..driver import Connection
from ..errors import PoolClosedError, PoolUsageError
from ..events import PoolClosed, PoolOpened
from ..stats import Holder
from . import process
from .acquire import Acquirer
from .background import Timer
from .checkout import Checkout
from .diagnostics import Diagnostics, closed_while_waiting
from .inventory import Inventory
from .release import Releaser
from .settings import PoolSettings, check_seconds

__all__ = ["PoolLifecycle", "PoolState", "Shutdown"]

C = TypeVar("C", bound=Connection)

log: Final = logging.getLogger("aiosqlitepool")

# Seconds that closing gives to connections that are being opened.
_OPENING_GRACE = 1.0


class PoolState(Enum):
    """The life of a pool, in order; `forked` is where a child process finds its parent's."""

    UNOPENED = "unopened"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    FORKED = "forked"


class Shutdown(Generic[C]):
    """Closes the connections of one inventory, once."""

    def __init__(
        self, inventory: Inventory[C], diagnostics: Diagnostics, releaser: Releaser[C], settings: PoolSettings
    ) -> None:
        self._inventory = inventory
        self._diagnostics = diagnostics
        self._releaser = releaser
        self._clock = settings.clock
        self._name = str(settings.name)
        # Until when it waits for holders, in loop time.
        self._deadline = math.inf
        self._patience: asyncio.Timeout | None = None

    def hurry(self, timeout: float | None) -> None:
        """Let `run` wait for holders so many seconds from now at most; the shortest time asked for counts."""
        if timeout is not None:
            deadline = asyncio.get_running_loop().time() + timeout
            if deadline < self._deadline:
                self._deadline = deadline
                if self._patience is not None and not self._patience.expired():
                    self._patience.reschedule(deadline)

    def begin(self) -> None:
        """Fail everybody who waits with `PoolClosedError`, and close what is idle."""
        inventory = self._inventory
        inventory.begin_closing()
        for request in inventory.slots.dismiss():
            with contextlib.suppress(asyncio.InvalidStateError):  # cancelled a moment ago
                # One for each: an exception that is raised in many tasks gathers the tracebacks of all.
                request.turn.set_exception(closed_while_waiting(self._name))
        inventory.preparations.give_up_all(_OPENING_GRACE)
        while (slot := inventory.slots.take_idle()) is not None:
            inventory.put_back(slot, self._clock())
        inventory.note_all_back()

    async def run(self) -> tuple[Holder, ...]:
        """Close every connection; return the holders that did not release theirs in time."""
        background = self._inventory.background
        abandoned: tuple[Holder, ...] = ()
        try:
            await self._drain()
            abandoned = self._abandon_leases()
            await background.wait()
            await self._wait_for_the_last()
            background.cancel()
            await background.wait()
        finally:
            # Also when the loop is being torn down around this task: then nothing is left to await with.
            self._abandon_connections()
        return abandoned

    async def _wait_for_the_last(self) -> None:
        """Give the last connection, which may fold a long WAL into the database, the time that each has to close."""
        background = self._inventory.background
        # Not several: a driver that hangs in one close would hang in the next.
        if len(background) == 1 and self._inventory.last_closing is not None:
            await background.wait(None)

    async def _drain(self) -> None:
        """Wait until every slot is back and every connection closed, as long as `hurry` allows."""
        with contextlib.suppress(TimeoutError):
            deadline = None if math.isinf(self._deadline) else self._deadline
            async with asyncio.timeout_at(deadline) as self._patience:
                await self._inventory.all_back.wait()
                await self._inventory.background.wait(None)
        self._patience = None

    def _abandon_leases(self) -> tuple[Holder, ...]:
        """Close every connection that is in use, under its holder; return who they were."""
        holders, checkouts, now = self._diagnostics.holders(), self._diagnostics.checkouts(), self._clock()
        for slot in self._inventory.slots.all:
            pooled = slot.connection
            if pooled is None or not (pooled.lease or pooled.sharers):
                continue
            sharers, pooled.sharers, pooled.lease = pooled.sharers, {}, None
            self._inventory.slots.end_sharing(slot)
            pooled.adapter.end_lease()
            for lease in sharers:
                lease.withdraw(closed_while_waiting(self._name))
            self._inventory.remove(slot, "pool_closed")
            for _ in sharers or (None,):
                self._inventory.put_back_unused(slot)
        self._emit_abandoned(checkouts, now)
        return holders

    def abandon(self) -> tuple[Holder, ...]:
        """Let every connection close by itself, without a running loop; return who held one."""
        holders, checkouts, now = self._diagnostics.holders(), self._diagnostics.checkouts(), self._clock()
        self._abandon_connections()
        self._emit_abandoned(checkouts, now)
        return holders

    def _emit_abandoned(self, checkouts: list[Checkout[Any]], now: float) -> None:
        for checkout in checkouts:
            self._releaser.emit_released(checkout, now, True)
            checkout.task = checkout.context = None  # a program may keep a handle that is of no use any more

    def _abandon_connections(self) -> None:
        self._inventory.background.abandon()
        for pooled in tuple(self._inventory.connector.connections.values()):
            pooled.lease = None
            pooled.adapter.abandon()
            self._inventory.connector.closed(pooled, "pool_closed")
        for slot in self._inventory.slots.all:
            slot.connection = None


class PoolLifecycle(Generic[C]):
    """Opens and closes a pool. The base of `SQLiteConnectionPool`, which constructs its parts."""

    _settings: PoolSettings
    _bus: EventBus
    _timer: Timer
    _inventory: Inventory[C]
    _acquirer: Acquirer[C]
    _releaser: Releaser[C]
    _shutdown: Shutdown[C]
    _loop: asyncio.AbstractEventLoop | None
    _closing: asyncio.Task[None] | None
    # For __del__, which runs also for a pool whose arguments were refused.
    _state: PoolState = PoolState.CLOSED

    @property
    def name(self) -> str:
        """The pool's name."""
        return str(self._settings.name)

    async def open(self) -> None:
        """Open the pool in the running loop, with `min_size` connections; harmless when it is open.

        Raises the driver's exception if they cannot be opened, and `PoolClosedError` after `close()`.
        """
        self._enter()
        await self._inventory.filled()
        if self._state is not PoolState.OPEN:
            raise PoolClosedError(f"pool {self.name!r} closed while it was being opened")

    async def close(self, timeout: float | None = None) -> None:
        """Close the pool: lend nothing more, close idle connections now and others when they are released.

        After `timeout` seconds (default `operation_timeout`) connections still in use are interrupted and closed, and
        a `ResourceWarning` names their holders. Harmless when closed. Concurrent calls await the same end, which a
        cancellation of one of them does not stop; of their timeouts the one that ends first counts. The last
        connection to close, which may have a long WAL to fold in, gets `operation_timeout` whatever `timeout` is.
        """
        patience = self._settings.operation_timeout if timeout is None else check_seconds("timeout", timeout)
        loop = asyncio.get_running_loop()
        if self._state in (PoolState.CLOSED, PoolState.FORKED):
            return
        if self._loop is None or self._loop.is_closed():
            self._end(len(self._shutdown.abandon()))
            return
        if loop is not self._loop:
            raise PoolUsageError(f"pool {self.name!r} must be closed in the event loop that it was opened in")
        self._shutdown.hurry(patience)
        if self._closing is None:
            self._stop_lending()
            # A task of its own: a cancelled caller must not leave it half done.
            self._closing = loop.create_task(self._close(), name=f"{self.name}:close-pool")
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
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
        """Open the pool in the running loop if it is not open; raise if it cannot be used there."""
        if self._state is PoolState.FORKED:
            raise PoolUsageError(
                f"pool {self.name!r} was opened before this process was forked; SQLite connections cannot cross a "
                "fork: make a pool of its own in each process"
            )
        if self._state not in (PoolState.UNOPENED, PoolState.OPEN):
            raise PoolClosedError(f"pool {self.name!r} is {self._state.value}")
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop is not None:
            raise self._wrong_loop()
        self._loop = self._releaser.loop = loop
        self._acquirer.start()
        self._state = PoolState.OPEN
        process.opened(self)
        if PoolOpened in self._bus.handlers:
            size = self._settings
            self._bus.emit(PoolOpened(self.name, size.min_size, size.pool_size, size.max_waiting))
        self._inventory.fill()

    def _wrong_loop(self) -> PoolUsageError:
        return PoolUsageError(
            f"pool {self.name!r} belongs to another event loop; close it there before that loop ends, and make a pool "
            "of its own for each loop"
        )

    def _stop_lending(self) -> None:
        self._state = PoolState.CLOSING
        self._acquirer.stop()
        self._timer.stop()
        self._shutdown.begin()

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
        process.closed(self)
        if PoolClosed in self._bus.handlers:
            self._bus.emit(PoolClosed(self.name, abandoned))

    def abandon_at_exit(self) -> None:
        """Warn, and leave the connections to close by themselves. Called when the program ends."""
        if self._state is PoolState.OPEN or self._state is PoolState.CLOSING:
            left, holders = f"{self!r} was never closed", self._shutdown.abandon()
            self._end(len(holders))
            self._warn(f"{left}{': ' if holders else ''}{'; '.join(map(str, holders))}")

    def _warn(self, message: str) -> None:
        # Logged too, because Python shows no ResourceWarning unless it is asked to.
        log.warning(message)
        warnings.warn(message, ResourceWarning, stacklevel=3, source=self)

    def forked(self) -> None:
        """Become unusable. Called in a forked child process."""
        self._state = PoolState.FORKED
        self._acquirer.stop()
        self._bus.forked()

    def __del__(self) -> None:
        try:
            self.abandon_at_exit()
        finally:
            if "_bus" in vars(self):
                self._bus.ended = True
