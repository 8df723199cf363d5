"""Three subscribers: a log of slow acquires, the events before an error, and StatsD.

    pip install aiosqlitepool
    python examples/custom_subscribers.py

A subscriber is an object with a method `attach(pool)`. The method subscribes to events, and returns a function that
ends this. Handlers run in the task that caused the event, so a context variable identifies its request. They delay that
task, so they must be fast. Their exceptions are only logged. Levels, such as the number of connections in use, come
from `pool.stats()`, not from counting events.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import aiosqlite

from aiosqlitepool import PoolConnectionAcquireTimeoutError, SQLiteConnectionPool, Subscriber
from aiosqlitepool.events import AcquireSlow, ConnectionAcquired, ConnectionReleased, PoolClosed, PoolEvent, PoolOpened

Pool = SQLiteConnectionPool[Any]
Detach = Callable[[], None]

log = logging.getLogger(__name__)


# -- one: a log of slow acquires


class SlowAcquires:
    """Logs each acquire that took the pool's `slow_acquire` seconds, and the holders it waited for."""

    def attach(self, pool: Pool, /) -> Detach:
        """Log the slow acquires of this pool."""
        return pool.events.subscribe(AcquireSlow, self._log)

    def _log(self, event: AcquireSlow) -> None:
        holders = "; ".join(map(str, event.holders)) or "no holder"
        log.warning("%s waited %.3f s for pool %s: %s", event.label, event.wait_time, event.pool, holders)


# -- two: the events before an error


_trail: ContextVar[deque[PoolEvent] | None] = ContextVar("trail", default=None)


class Trails:
    """Adds each event to the trail of its request, if the request keeps one."""

    def attach(self, pool: Pool, /) -> Detach:
        """Watch this pool."""
        return pool.events.subscribe(PoolEvent, self._note)

    def _note(self, event: PoolEvent) -> None:
        trail = _trail.get()
        if trail is not None:
            trail.append(event)


@contextlib.contextmanager
def trail(length: int = 20) -> Iterator[deque[PoolEvent]]:
    """Keep the last pool events of a request and its subtasks; an exception that leaves the block has them as notes.

    Notes are part of every traceback, and so of every error report.
    """
    events: deque[PoolEvent] = deque(maxlen=length)
    token = _trail.set(events)
    try:
        yield events
    except Exception as error:
        for event in events:
            error.add_note(f"before that: {event}")
        raise
    finally:
        _trail.reset(token)


# -- three: StatsD


class StatsD:
    """Sends metrics to a StatsD server: each event as it happens, and the levels every `interval` seconds.

    Acquires that waited are timed, the others only counted. If no server listens, the datagrams are lost.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8125, *, interval: float = 10.0) -> None:
        self._interval = interval
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # The name is resolved once, here. A full buffer drops a datagram instead of blocking the loop.
        self._socket.connect((host, port))
        self._socket.setblocking(False)

    def attach(self, pool: Pool, /) -> Detach:
        """Send the metrics of this pool."""
        return _PoolMetrics(pool, self._send, self._interval).start()

    def _send(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(line.encode())

    def close(self) -> None:
        """Close the socket; later metrics are dropped."""
        self._socket.close()


class _PoolMetrics:
    """The metrics of one pool: StatsD has no labels, so its name is part of theirs."""

    def __init__(self, pool: Pool, send: Callable[[str], None], interval: float) -> None:
        self._pool = pool
        self._send = send
        self._interval = interval
        self._prefix = f"aiosqlitepool.{re.sub(r'[^A-Za-z0-9_-]', '_', pool.name)}"
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> Detach:
        subscribe = self._pool.events.subscribe
        detaches = [
            subscribe(PoolEvent, self._count),
            subscribe(ConnectionAcquired, self._acquired),
            subscribe(ConnectionReleased, lambda event: self._time("use", event.use_time)),
            subscribe(PoolOpened, lambda event: self._tell_levels()),
            subscribe(PoolClosed, lambda event: self._stop()),
        ]
        if self._pool.stats().state == "open":
            self._tell_levels()

        def detach() -> None:
            self._stop()
            for each in detaches:
                each()

        return detach

    def _count(self, event: PoolEvent) -> None:
        self._send(f"{self._prefix}.{event.name}:1|c")

    def _acquired(self, event: ConnectionAcquired) -> None:
        if event.path != "idle" or event.wait_time:
            self._time("wait", event.wait_time)

    def _time(self, name: str, seconds: float) -> None:
        self._send(f"{self._prefix}.{name}:{seconds * 1000:.3f}|ms")

    def _tell_levels(self) -> None:
        stats = self._pool.stats()
        for level in ("used", "idle", "waiting"):
            self._send(f"{self._prefix}.{level}:{getattr(stats, level)}|g")
        self._timer = asyncio.get_running_loop().call_later(self._interval, self._tell_levels)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def main() -> None:
    """Run two tasks that want the only connection, and print the output of each subscriber."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    subscribers: list[Subscriber] = [SlowAcquires(), Trails(), StatsD()]
    async with SQLiteConnectionPool(
        lambda: aiosqlite.connect(":memory:"),
        pool_size=1,
        min_size=1,
        name="app.db",
        subscribers=subscribers,
    ) as pool:

        async def hold(seconds: float) -> None:
            async with pool.connection(label="nightly report"):
                await asyncio.sleep(seconds)

        async def ask(timeout: float) -> None:
            with trail():
                async with pool.connection(label="GET /users", timeout=timeout):
                    pass

        for seconds, timeout in ((0.1, 30.0), (1.0, 0.2)):
            holder = asyncio.create_task(hold(seconds))
            await asyncio.sleep(0)
            try:
                await ask(timeout)
            except PoolConnectionAcquireTimeoutError:
                log.exception("GET /users failed")
            await holder


if __name__ == "__main__":
    asyncio.run(main())
