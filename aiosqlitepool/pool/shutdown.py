"""Close all connections of a pool: wait for their holders, abandon those that stay, and close one after another."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextvars import Context

from ..stats import Holder
from .background import quietly
from .diagnostics import Diagnostics, closed_while_waiting
from .inventory import Inventory
from .release import Releaser

__all__ = ["Shutdown"]


class Shutdown:
    """Closes the connections of one pool, once."""

    def __init__(self, inventory: Inventory, diagnostics: Diagnostics, releaser: Releaser) -> None:
        self._inventory = inventory
        self._diagnostics = diagnostics
        self._releaser = releaser
        self._name, self._clock = inventory.name, inventory.clock
        # Waits for holders; set by `begin`.
        self._draining: asyncio.Task[None]

    def begin(self) -> None:
        """Raise `PoolClosedError` in all waiters, and close the idle connections."""
        inventory = self._inventory
        inventory.begin_closing()
        # An error for each: one that is raised in many tasks collects the tracebacks of all.
        while inventory.slots.fail_oldest(closed_while_waiting(self._name)):
            pass
        while (slot := inventory.slots.take_idle()) is not None:
            inventory.put_back(slot, self._clock())
        self._draining = quietly(self._drain())

    async def _drain(self) -> None:
        """Wait until every slot is back and every connection closed."""
        if self._inventory.slots.used:
            await self._inventory.all_back.wait()
        await self._inventory.background.wait(None)

    def hurry(self, timeout: float) -> None:
        """Let `run` wait for holders for `timeout` seconds from now at most. The earliest limit counts."""
        if timeout < math.inf:
            # In an empty context: a timer that is cancelled would keep the caller's until it would have been due.
            timer = asyncio.get_running_loop().call_later(timeout, self._draining.cancel, context=Context())
            self._draining.add_done_callback(lambda _: timer.cancel())

    async def run(self) -> tuple[Holder, ...]:
        """Close every connection; return the holders that did not release theirs in time."""
        background = self._inventory.background
        abandoned: tuple[Holder, ...] = ()
        try:
            await asyncio.wait((self._draining,))
            abandoned = self._taking_all(self._remove_leased)
            await background.wait()
            await self._wait_for_the_last()
            background.cancel()
            await background.wait()
        finally:
            # Runs also when the loop ends under this task, where nothing can be awaited any more.
            self._abandon_connections()
        return abandoned

    async def _wait_for_the_last(self) -> None:
        """Give the last connection, whose close checkpoints the WAL, as much time as any other."""
        background = self._inventory.background
        # Only the last one: a driver that hangs in one close would hang in the next.
        if len(background) == 1 and self._inventory.last_closing is not None:
            await background.wait(None)

    def _remove_leased(self) -> None:
        for slot in self._inventory.slots.all:
            pooled, sharers = slot.connection, [each for each in slot.sharing.requests if each.slot is not None]
            if pooled is None or not (pooled.lease or sharers):
                continue
            pooled.lease = None
            self._inventory.slots.end_sharing(slot)
            pooled.adapter.end_lease()
            for lease in sharers:
                lease.withdraw(closed_while_waiting(self._name))
            self._inventory.remove(slot, "pool_closed")
            for each in sharers or (None,):
                self._inventory.put_back_unused(slot, each)

    def abandon(self) -> tuple[Holder, ...]:
        """Let every connection close by itself, without a running loop; return the holders."""
        return self._taking_all(self._abandon_connections)

    def _taking_all(self, take: Callable[[], None]) -> tuple[Holder, ...]:
        """Call `take()`, which takes the connections from their holders; emit that, and return the holders."""
        holders, checkouts, now = self._diagnostics.holders(), self._diagnostics.checkouts(), self._clock()
        take()
        for checkout in checkouts:
            self._releaser.emit_released(checkout, now, True)
            checkout.task = checkout.context = None  # a program may keep a useless handle
        return holders

    def _abandon_connections(self) -> None:
        self._inventory.background.abandon()
        for pooled in tuple(self._inventory.connector.connections.values()):
            pooled.lease = None
            pooled.adapter.abandon()
            self._inventory.connector.closed(pooled, "pool_closed")
        for slot in self._inventory.slots.all:
            slot.connection = None
            slot.sharing.requests.clear()
