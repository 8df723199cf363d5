"""A real program that does to its pools everything that a board can show, scraped like any other.

`python -m tests.dashboards.driver DIRECTORY` serves `/metrics`, prints the port, and goes on until it is killed. Its
"day" is as long as it is told: traffic swells and ebbs once a day, and each day has the same incidents.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import math
import os
import random
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, start_http_server

from aiosqlitepool import PoolError, SQLiteConnectionPool
from aiosqlitepool.events import RolledBackOnReturn

from .orders import Orders

Pool = SQLiteConnectionPool[aiosqlite.Connection]

TIMEOUT = 1.0
READERS = 4
MAX_WAITING = 40

SELECT, INSERT = "SELECT text FROM note WHERE id = 7", "INSERT INTO note (text) VALUES ('kept')"
# Slow as a scan of many rows.
SEARCH = "SELECT nap(0.15) FROM note WHERE text = 'note 7'"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def subscriber(through: str, registry: CollectorRegistry, tracing: TracerProvider) -> Any:
    """What turns the pools' events into metrics in the registry."""
    if through == "prometheus":
        from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

        return PrometheusSubscriber(registry, statement_summaries=20, by_label=True)
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider

    from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber

    metering = MeterProvider([PrometheusMetricReader(registry=registry)])
    return OpenTelemetrySubscriber(tracing, metering, by_label=True)


class Service:
    """Readers, a writer and jobs on one database file, with traffic `share` times that of its siblings.

    Beside them is a `SQLiteDatabase` with a file of its own.
    """

    def __init__(self, directory: Path, observer: Any, tracer: trace.Tracer, day: float, share: float) -> None:
        self._path = directory / "app.db"
        self._observer = observer
        self._tracer = tracer
        self._day = day
        self._share = share
        self._began = time.monotonic()
        self._choose = random.Random(str(share))
        with contextlib.closing(sqlite3.connect(self._path)) as connection:
            connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)")
            connection.executemany("INSERT INTO note (text) VALUES (?)", [(f"note {n}",) for n in range(200)])
            connection.commit()
        shutil.copy(self._path, directory / "backup.db")
        self.read = self._pool("read", READERS, max_waiting=MAX_WAITING)
        self.write = self._pool("write", 1)
        self.orders = Orders(directory, observer, self.traffic)
        # A handler that is wrong now and then: the pool's own count of such errors is on the board too.
        self.read.events.subscribe(RolledBackOnReturn, self._stumble)

    def _pool(self, name: str, size: int, **settings: Any) -> Pool:
        return SQLiteConnectionPool(
            self._connect,
            size,
            TIMEOUT,
            idle_timeout=self._day / 12,
            operation_timeout=0.5,
            max_lifetime=self._day / 6,
            health_check_after=0.1,
            leak_threshold=2 * TIMEOUT,
            min_size=1,
            name=f"app.db/{name}",
            subscribers=[self._observer],
            **settings,
        )

    async def _connect(self) -> aiosqlite.Connection:
        connection = await aiosqlite.connect(f"file:{self._path}?mode=rw", uri=True, isolation_level=None)
        await connection.create_function("nap", 1, time.sleep)
        return connection

    def _stumble(self, event: RolledBackOnReturn) -> None:
        if event.cause == "cursor":
            raise RuntimeError("this handler is wrong about cursors")

    # -- traffic

    def traffic(self) -> float:
        """How much there is at this time of the day, from 0.2 to 1.8 times the share."""
        hour = (time.monotonic() - self._began) / self._day % 1.0
        rush = 1.1 * math.exp(-(((hour - 0.7) / 0.06) ** 2))
        return self._share * (0.2 + 0.8 * math.sin(math.pi * hour) ** 2 + rush)

    @contextlib.asynccontextmanager
    async def borrow(self, pool: Pool, label: str) -> AsyncIterator[aiosqlite.Connection]:
        """A connection, within a trace, as a web framework would."""
        with self._tracer.start_as_current_span(label, record_exception=False, set_status_on_exception=False):
            async with pool.connection(label=label) as connection:
                yield connection

    async def visitor(self, pool: Pool, label: str, statement: str, pause: float, hold: float) -> None:
        """Someone who comes back for ever: a query, and some work while holding the connection."""
        while True:
            await asyncio.sleep(self._choose.expovariate(1 / pause) / self.traffic())
            with contextlib.suppress(PoolError, sqlite3.Error):
                async with self.borrow(pool, label) as connection:
                    await connection.execute_fetchall(statement)
                    await asyncio.sleep(hold * self._choose.lognormvariate(0, 0.6))

    # -- incidents

    async def forget(self) -> None:
        """Leave a transaction open, a cursor half read, a statement running; give up waiting."""
        async with self.borrow(self.write, "forgets to commit") as connection:
            await connection.execute("BEGIN")
            await connection.execute("INSERT INTO note (text) VALUES ('lost')")
        async with self.borrow(self.read, "reads one row") as connection:
            cursor = await connection.execute("SELECT id FROM note")
            await cursor.fetchone()
        for statement in (ENDLESS, "SELECT nap(0.5)"):  # one that can be interrupted, and one that cannot
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02), self.borrow(self.read, "gives up") as connection:
                    await connection.execute(statement)

    async def burst(self) -> None:
        """More at once than may even queue, some of whom do not care to wait."""

        async def one(patience: float) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience), self.borrow(self.read, "GET /burst"):
                    await asyncio.sleep(0.03)

        crowd = [one(self._choose.choice((0.05, 5.0))) for _ in range(2 * MAX_WAITING)]
        await asyncio.gather(*crowd, return_exceptions=True)

    async def report(self) -> None:
        """Hold every reader for longer than others are willing to wait, as a leak does."""

        async def one() -> None:
            async with self.borrow(self.read, "monthly report"):
                await asyncio.sleep(2.5 * TIMEOUT)

        await asyncio.gather(*(one() for _ in range(READERS)), return_exceptions=True)

    async def restore(self) -> None:
        """Put the backup in the place of the file, as an operator would."""
        copy = self._path.with_name("restored.db")
        shutil.copy(self._path.with_name("backup.db"), copy)
        os.replace(copy, self._path)

    async def unplug(self) -> None:
        """Take the file away for a moment."""
        away = self._path.rename(self._path.with_name("away.db"))
        await asyncio.sleep(0.6)
        away.rename(self._path)

    async def deploy(self) -> None:
        """Close a pool while somebody waits for it."""
        async with self._pool("jobs", 1) as jobs:

            async def one(hold: float) -> None:
                async with self.borrow(jobs, "job"):
                    await asyncio.sleep(hold)

            working = [asyncio.create_task(one(0.02)) for _ in range(3)]
            await asyncio.sleep(max(1.0, self._day / 10))
            working += [asyncio.create_task(one(0.5)) for _ in range(3)]
            await asyncio.sleep(0.1)
        await asyncio.gather(*working, return_exceptions=True)

    async def live(self) -> None:
        """Days, one after the other, for ever."""
        await self.read.open()
        await self.write.open()
        schedule: dict[float, Callable[[], Awaitable[None]]] = {
            **{hour / 20: self.forget for hour in range(1, 20, 3)},
            0.18: self.orders.incident,
            0.52: self.orders.incident,
            0.13: self.restore,
            0.28: self.burst,
            0.38: self.report,
            0.48: self.deploy,
            0.62: self.unplug,
            0.72: self.burst,
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(self.orders.live())
            for _ in range(24):
                group.create_task(self.visitor(self.read, "GET /notes/7", SELECT, 0.5, 0.02))
            for _ in range(5):
                group.create_task(self.visitor(self.write, "POST /notes", INSERT, 0.6, 0.004))
            group.create_task(self.visitor(self.read, "GET /search", SEARCH, 3.0, 0.0))
            for day in itertools.count():
                for hour, incident in sorted(schedule.items()):
                    await asyncio.sleep(max(0.0, self._began + (day + hour) * self._day - time.monotonic()))
                    group.create_task(self._attempt(incident))

    async def _attempt(self, incident: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(PoolError, sqlite3.Error):
            await incident()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where its database is to be")
    parser.add_argument("--through", choices=("prometheus", "opentelemetry"), default="prometheus")
    parser.add_argument("--day", type=float, default=12.0, help="seconds")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--tethered", action="store_true", help="end when standard input does")
    options = parser.parse_args()
    if options.tethered:
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    registry, tracing = CollectorRegistry(), TracerProvider()
    server, _ = start_http_server(0, "127.0.0.1", registry)
    observer = subscriber(options.through, registry, tracing)
    service = Service(options.directory, observer, tracing.get_tracer("driver"), options.day, options.share)
    print(server.server_port, flush=True)
    asyncio.run(service.live())


if __name__ == "__main__":
    main()
