"""The whole pool in a small world where everything goes wrong, on a virtual clock and from one seed.

One *step* is one turn of the event loop; after each the invariants are checked and the world may act. A world is
one pool with settings of its own, a few hundred turns of trouble, and an end: either the pool is closed in the
middle of it, or the trouble ceases and the pool must lend every one of its connections at once.
"""

from __future__ import annotations

import asyncio
import gc
import random
import warnings
from collections import Counter, deque
from collections.abc import Callable
from typing import Any
from unittest import mock

from aiosqlitepool import PoolClosedError, PoolError, SQLiteConnectionPool
from aiosqlitepool.driver import GenericAdapter
from aiosqlitepool.events import (
    AcquireCancelled,
    AcquireFailed,
    AcquireRejected,
    AcquireTimedOut,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionCreated,
    PoolEvent,
)
from aiosqlitepool.failures import log
from aiosqlitepool.pool import lifecycle

from .slots import check_slots
from .stub import StubConnection, StubDriver
from .virtual import DeadlockError, VirtualLoop, run

ENDS_OF_ACQUIRE = (ConnectionAcquired, AcquireTimedOut, AcquireCancelled, AcquireRejected, AcquireFailed)

# Long enough for every time limit of a world to pass, several times over.
LONG = 120.0


class SimulationError(AssertionError):
    """The pool broke a promise; the message says which, and how to see it again."""


class Injected(Exception):
    """What the stub driver raises."""


class ResettingAdapter(GenericAdapter):
    """An adapter that, like the one for aiosqlite, knows whether there is anything to undo."""

    def __init__(self, raw: Any) -> None:
        super().__init__(raw)
        self._connection = raw

    def end_lease(self) -> bool:
        return bool(self._connection.clean)


class World:
    """One pool and what befalls it."""

    def __init__(self, seed: int, turns: int = 400) -> None:
        self.seed = seed
        self.turns = turns
        self.dice = random.Random(seed)
        self.loop = VirtualLoop()
        self.trouble = True
        self.closing = False
        self.history: deque[str] = deque(maxlen=60)
        self.complaints: list[str] = []
        self.clients: dict[asyncio.Task[None], bool] = {}  # and whether the world has cancelled it
        self.acquiring = 0
        self.acquires = 0
        self.ends = 0
        self.lent: dict[StubConnection, asyncio.Task[Any] | None] = {}
        self.holds: list[asyncio.Future[None]] = []
        self.hanging: list[asyncio.Future[None]] = []
        self.queue: list[Any] = []
        self.events: Counter[type[PoolEvent]] = Counter()
        self.closers: list[asyncio.Task[None]] = []

    # -- the driver

    def _fate(self, ok: int, slow: int, fail: int, hang: int, cancelled: int = 0) -> str:
        if not self.trouble:
            return "ok"
        return self.dice.choices(("ok", "slow", "fail", "hang", "cancelled"), (ok, slow, fail, hang, cancelled))[0]

    async def _suffer(self, what: str, fate: str) -> None:
        if fate == "ok":
            return
        self.history.append(f"{what}: {fate}")
        if fate == "cancelled":
            raise asyncio.CancelledError(f"{what} was cancelled inside the driver")
        if fate == "hang":
            future: asyncio.Future[None] = self.loop.create_future()
            self.hanging.append(future)
            await future
            return
        if fate == "slow" or self.dice.random() < 0.5:
            await asyncio.sleep(self.dice.choice((0, 0, 0.0625, 0.25, 0.5, 2)))
        if fate == "fail":
            raise Injected(f"{what} failed")

    async def _connect(self) -> None:
        await self._suffer("connect", self._fate(60, 20, 10, 5, 1))

    async def _execute(self, connection: StubConnection) -> None:
        await self._suffer("check", self._fate(60, 15, 15, 5, 1))

    async def _rollback(self, connection: StubConnection) -> None:
        self._own(connection, "rollback")
        await self._suffer("rollback", self._fate(75, 15, 4, 3, 1))

    async def _close(self, connection: StubConnection) -> None:
        self._own(connection, "close")
        if connection.closed > 1:
            self.complaints.append(f"connection {connection.number} was closed {connection.closed} times")
        await self._suffer("close", self._fate(75, 15, 5, 3, 1))

    def _own(self, connection: StubConnection, what: str) -> None:
        if connection in self.lent and not self.closing:
            self.complaints.append(f"{what}() of connection {connection.number} while it is lent")

    # -- the pool

    def _make_pool(self) -> SQLiteConnectionPool[StubConnection]:
        pick = self.dice.choice
        size = pick((1, 1, 2, 3, 5))
        self.driver = StubDriver(on_execute=self._execute, on_rollback=self._rollback, on_close=self._close)
        self.driver.on_connect = self._connect
        self.size = size
        self.settings: dict[str, Any] = {
            "pool_size": size,
            "acquisition_timeout": pick((None, 0, 0.25, 1, 4)),
            "idle_timeout": pick((None, 0, 0.5, 4)),
            "operation_timeout": pick((0.25, 1, 2)),
            "min_size": pick((0, 0, 1, size)),
            "max_lifetime": pick((None, 0.5, 4)),
            "max_waiting": pick((None, None, 0, 3)),
            "health_check_after": pick((None, 0, 0.25)),
            "leak_threshold": pick((None, 0.5)),
        }
        if self.settings["idle_timeout"] == 0:
            self.settings["min_size"] = 0  # to keep what must not stand idle is a contradiction
        return SQLiteConnectionPool(self.driver, name="sim", clock=self.loop.time, **self.settings)

    def _count(self, event: PoolEvent) -> None:
        kind = type(event)
        self.events[kind] += 1
        if isinstance(event, ENDS_OF_ACQUIRE):
            self.ends += 1

    # -- the clients

    async def _client(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        try:
            self.acquires += 1
            self.acquiring += 1
            entered = False
            lease = self.pool.connection(label="sim")
            try:
                connection = await lease.__aenter__()
                entered = True
            finally:
                self.acquiring -= 1
                if not entered:
                    self.history.append(f"{me.get_name()} got nothing")
            error: BaseException | None = None
            try:
                await self._use(connection, me)
            except BaseException as raised:
                error = raised
            finally:
                self.lent.pop(connection, None)
            await lease.__aexit__(type(error), error, None)
            if error is not None:
                raise error
        except (PoolError, Injected):
            pass

    async def _use(self, connection: StubConnection, me: asyncio.Task[Any]) -> None:
        self.history.append(f"{me.get_name()} has {connection.number}")
        if connection in self.lent:
            self.complaints.append(f"connection {connection.number} is lent to two tasks")
        if connection.closed and not self.closing:
            self.complaints.append(f"connection {connection.number} is lent although it was closed")
        self.lent[connection] = me
        connection.clean = self.dice.random() < 0.6  # type: ignore[attr-defined]
        way = self.dice.randrange(6)
        if way == 0:
            return
        if way == 1:
            await asyncio.sleep(0)
        elif way < 4:
            await asyncio.sleep(self.dice.choice((0, 0.0625, 0.25, 0.5, 2)))
        elif self.trouble:
            hold = self.loop.create_future()
            self.holds.append(hold)
            try:
                await hold
            except asyncio.CancelledError:
                if way == 4:  # as `except Exception: pass` around an await never does, and `except:` does
                    raise
        if self.dice.random() < 0.1:
            raise Injected("the client's own")

    def _start_client(self) -> None:
        task = self.loop.create_task(self._client(), name=f"client-{self.acquires}-{self.loop.turns}")
        self.clients[task] = False
        task.add_done_callback(self._client_ended)

    def _client_ended(self, task: asyncio.Task[None]) -> None:
        was_cancelled = self.clients.pop(task)
        if task.cancelled():
            if was_cancelled:
                return
            self.complaints.append(f"{task.get_name()} got a CancelledError although nobody cancelled it")

    # -- what happens, at random

    def _act(self) -> None:
        dice = self.dice
        roll = dice.random()
        if roll < 0.45:
            if len(self.clients) < 3 * self.size + 3:
                self._start_client()
        elif roll < 0.60:
            if self.clients:
                victim = dice.choice(list(self.clients))
                self.history.append(f"cancel {victim.get_name()}")
                self.clients[victim] = True
                victim.cancel()
        elif roll < 0.85:
            self._resolve(self.holds)
        elif roll < 0.88:
            self._resolve(self.hanging)
        elif roll < 0.90 and self.ends_in_trouble and self.loop.turns > self.turns // 2:
            self._close_pool()
        elif roll > 0.96:
            self._hold_or_resume()

    def _hold_or_resume(self) -> None:
        self.history.append("resume" if self.slots.is_held else "hold")
        inventory = self.pool._inventory
        (inventory.resume if self.slots.is_held else inventory.hold)()

    def _resolve(self, futures: list[asyncio.Future[None]]) -> None:
        if futures:
            future = futures.pop(self.dice.randrange(len(futures)))
            if not future.done():
                future.set_result(None)

    def _close_pool(self) -> None:
        self.closing = True
        self.history.append("close the pool")
        work = self.pool.close(self.dice.choice((None, 0, 0.25, 1)))
        self.closers.append(self.loop.create_task(work, name="closer"))

    # -- what must be true

    def _on_turn(self) -> None:
        self._check()
        if self.trouble and self.dice.random() < 0.5:
            self._act()

    def _check(self) -> None:
        slots = self.slots
        check_slots(slots, len(self.pool._inventory._preparing))
        queue = [request.answer for request in slots.queue()]
        if queue or self.queue:
            self._check_order(set(queue))
            self.queue = queue
        if not self.loop.turns & 7:
            stats = self.pool.stats()
            assert stats.used + stats.idle <= stats.max_size, f"too many: {stats}"
            assert stats.waiting <= max(self.acquiring, 0), f"{self.acquiring} callers, but {stats}"
        if self.complaints:
            raise AssertionError("; ".join(self.complaints))

    def _check_order(self, queued: set[Any]) -> None:
        passed = False
        for waiter in self.queue:
            if waiter in queued and not waiter.done():
                passed = True
            elif passed and not waiter.cancelled() and waiter.done() and not waiter.exception() and waiter.result():
                raise AssertionError("a later waiter got a slot before an earlier one")

    async def _main(self) -> None:
        self.loop.set_exception_handler(self._unhandled)
        self.pool = self._make_pool()
        self.pool.events.subscribe(PoolEvent, self._count)
        self.slots = self.pool._inventory.slots
        self.ends_in_trouble = self.dice.random() < 0.5
        self._start_client()
        self.loop.on_turn = self._on_turn
        limit = self.loop.turns + self.turns
        while self.loop.turns < limit and not self.closers:
            await asyncio.sleep(self.dice.choice((0, 0, 0.0625)))
        for _ in range(self.dice.randrange(20) if self.closers else 0):
            await asyncio.sleep(0)
        self.history.append("the trouble ceases")
        self.trouble = False
        self.pool._inventory.resume()
        for hold in self.holds:
            if not hold.done():
                hold.set_result(None)
        await asyncio.sleep(LONG)
        await self._rest_clients()
        if not self.closing:
            await self._everything_can_be_lent()
            self._close_pool()
        await self._is_closed()

    async def _rest_clients(self) -> None:
        """All that may still wait, and only without a time limit, are those whose connect hangs for ever."""
        if self.clients and self.settings["acquisition_timeout"] is not None:
            raise AssertionError(f"forgotten: {[task.get_name() for task in self.clients]}")
        for task in list(self.clients):
            self.clients[task] = True
            task.cancel()
        await asyncio.sleep(LONG)
        if self.clients:
            raise AssertionError(f"cannot be cancelled: {[task.get_name() for task in self.clients]}")

    async def _everything_can_be_lent(self) -> None:
        # Without any patience an acquire may meet a slot that is being refilled at that very moment.
        for last in (False, False, True):
            if await self._all_lent(last):
                return
            await asyncio.sleep(1.3)

    async def _all_lent(self, last: bool) -> bool:
        takers = [asyncio.ensure_future(self.pool.acquire()) for _ in range(self.size)]
        self.acquiring = self.acquires = self.size  # of no use any more but as upper bounds
        done, late = await asyncio.wait(takers, timeout=LONG)
        failed = [task.exception() for task in done if task.exception() is not None]
        if late or failed:
            for task in takers:
                if task in late:
                    task.cancel()
                elif task.exception() is None:
                    task.result().clean = True  # type: ignore[attr-defined]
                    await self.pool.release(task.result())
            if not last and not late:
                return False
            raise AssertionError(f"only {len(done) - len(failed)} of {self.size} can be lent: {self.pool!r} {failed}")
        connections = [task.result() for task in takers]
        if len(set(connections)) < self.size:
            raise AssertionError("one connection was lent twice at once")
        for connection in connections:
            connection.clean = True
            await self.pool.release(connection)
        await asyncio.sleep(LONG)
        size = self.pool.stats().size
        if size < self.settings["min_size"]:
            raise AssertionError(f"min_size={self.settings['min_size']} but only {size} after a quiet time")
        return True

    async def _is_closed(self) -> None:
        for closer in self.closers:
            done, _ = await asyncio.wait([closer], timeout=LONG)
            if not done:
                raise AssertionError("close() does not end")
            await closer
        await asyncio.sleep(LONG)
        tasks = [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if tasks:
            raise AssertionError(f"tasks are left: {tasks}")
        unclosed = [connection.number for connection in self.driver.connections if not connection.closed]
        if unclosed:
            raise AssertionError(f"connections {unclosed} were never closed")
        if self.pool._inventory.connector.connections:
            raise AssertionError(f"closed but not forgotten: {self.pool._inventory.connector.connections}")
        if self.events[ConnectionCreated] != self.events[ConnectionClosed]:
            raise AssertionError(f"created and closed do not match: {self.events}")
        try:
            await self.pool.acquire()
        except PoolClosedError:
            return
        raise AssertionError("a closed pool lends")

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, Injected) and "the client" in str(error)):
            self.complaints.append(f"the loop was told: {context.get('message')} {error!r}")

    def play(self) -> int:
        """Play it to its end; returns how many turns that took. Raises `SimulationError`."""
        try:
            run(self._main(), self.loop, self._tidy)
            if self.complaints:
                raise AssertionError("; ".join(self.complaints))
        except (AssertionError, RuntimeError, asyncio.InvalidStateError, asyncio.CancelledError, PoolError) as error:
            raise SimulationError(self._explain(error)) from error
        return self.loop.turns

    def _tidy(self) -> None:
        """After a failure: the pool was not closed, and need not say so."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            self.pool.abandon_at_exit()

    def _explain(self, error: BaseException) -> str:
        lines = "\n  ".join(self.history)
        kind = "" if isinstance(error, AssertionError) and not isinstance(error, DeadlockError) else repr(error) + " "
        return (
            f"{kind}{error}\nseed {self.seed}, turn {self.loop.turns}, time {self.loop.now}; see it again with "
            f"AIOSQLITEPOOL_SIM_SEED={self.seed} AIOSQLITEPOOL_SIM_STEPS=1\n{self.settings}\n  {lines}"
        )


def simulate(seed: int, steps: int, report: Callable[[str], None] = print) -> tuple[int, int]:
    """Play worlds from `seed` on, each with the next seed, until `steps` turns are done; returns turns and worlds."""
    done = worlds = 0
    was_disabled, log.disabled = log.disabled, True
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            while done < steps:
                world = World(seed + worlds)
                adapter = ResettingAdapter if (seed + worlds) % 2 else GenericAdapter
                with mock.patch.object(lifecycle, "adapter_for", lambda raw, *_, adapter=adapter: adapter(raw)):
                    done += world.play()
                worlds += 1
                if not worlds % 64:
                    gc.collect()
                    report(f"seed {seed + worlds}: {done} steps")
    finally:
        log.disabled = was_disabled
        if collecting:
            gc.enable()
    return done, worlds
