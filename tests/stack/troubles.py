"""A program in which everything goes wrong that there is an alert for, each to a pool of its own, until it is relieved.

    python -m tests.stack.troubles FOLDER PORT SUBSCRIBER

A pool is named after its alert and the subscriber that shows it to Prometheus: "prometheus", or "opentelemetry", whose
exporter adds labels of its own; and after its role, if it is one of a database's. Its trouble ends when FOLDER has a
file of the alert's name; then it is used as it should be. One more pool, "healthy", never has any trouble. Metrics are
served on PORT.

Run it in a mount namespace of its own, if that can be: it mounts small file systems in FOLDER, to have disks that are
full.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

from aiosqlitepool import (
    PoolConnectionAcquireTimeoutError,
    PoolFullError,
    SQLiteConnectionPool,
    SQLiteDatabase,
    subscribe_all,
)
from aiosqlitepool.events import ConnectionReleased
from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

from ..support.other import other_process

Pool = SQLiteConnectionPool[aiosqlite.Connection]
Connect = Callable[[], Awaitable[aiosqlite.Connection]]


SUBSCRIBERS = ("prometheus", "opentelemetry")
# What ends only once many acquires have been served beside those that timed out.
OFTEN = "AiosqlitepoolAcquireTimeouts"
# Which of a database's two pools has the trouble.
ROLES = {
    "AiosqlitepoolWriterQueueSlow": "write",
    "AiosqlitepoolTransactionsFailing": "write",
    "AiosqlitepoolBusyRetries": "write",
    "AiosqlitepoolWalLarge": "write",
    "AiosqlitepoolDatabaseBroken": "write",
    "AiosqlitepoolDiskFilling": "write",
    "AiosqlitepoolBackupFailing": "write",
    "AiosqlitepoolReaderPinsWal": "read",
}


def pool_name(alert: str, subscriber: str) -> str:
    """The name of the pool that is to raise this alert."""
    name = f"{alert} by {subscriber}"
    return f"{name}/{ROLES[alert]}" if alert in ROLES else name


class Trouble:
    """What one trouble has to do with: where it is, and whether it is over."""

    def __init__(self, folder: Path, alert: str, subscriber: str) -> None:
        self.folder = folder
        self.file = folder / f"{alert}.db"
        self._end = folder / alert
        self._pool_name = pool_name(alert, subscriber)

    @property
    def lasts(self) -> bool:
        return not self._end.exists()

    async def over(self) -> None:
        while self.lasts:
            await asyncio.sleep(0.1)

    def pool(self, size: int = 2, connect: Connect | None = None, **more: Any) -> Pool:
        return SQLiteConnectionPool(
            connect or (lambda: aiosqlite.connect(self.file)), size, name=self._pool_name, **more
        )

    @contextlib.asynccontextmanager
    async def database(self, **more: Any) -> AsyncIterator[SQLiteDatabase]:
        """A database of one row, for the trouble and, after that, for ever."""
        async with SQLiteDatabase(
            self.file, name=self._pool_name.rpartition("/")[0], inline_reads=True, **more
        ) as database:
            async with database.write() as connection:
                await connection.execute("CREATE TABLE note (text BLOB)")
                await connection.execute("INSERT INTO note VALUES ('')")
            yield database
            await use_well(database.writer)


async def read(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute_fetchall("SELECT count(*) FROM sqlite_master")


async def use_well(pool: Pool) -> None:
    """For ever. Where a machine is busy, also a caller of a pool that is used well can wait for too long."""
    while True:
        with contextlib.suppress(PoolConnectionAcquireTimeoutError, PoolFullError):
            await read(pool)
            for _ in range(50 if pool.name.startswith(OFTEN) else 1):
                async with pool.connection():
                    pass
        await asyncio.sleep(0.1)


async def hold(pool: Pool, seconds: float) -> None:
    async with pool.connection():
        await asyncio.sleep(seconds)


async def crowd(trouble: Trouble, pool: Pool, callers: int, seconds: float) -> None:
    """So many callers who take turns, each with a connection for so long."""

    async def caller() -> None:
        while trouble.lasts:
            await hold(pool, seconds)

    await asyncio.gather(*(caller() for _ in range(callers)))


async def fail_beside_a_holder(trouble: Trouble, pool: Pool, seconds: float) -> None:
    """One has the only connection for so long, and another asks for it."""
    while trouble.lasts:
        holder = asyncio.create_task(hold(pool, seconds))
        await asyncio.sleep(seconds / 10)
        # On a busy machine, opening the connection may take the holder too long, too.
        for caller in (read(pool), holder):
            with contextlib.suppress(PoolConnectionAcquireTimeoutError, PoolFullError):
                await caller


# -- the troubles, by the name of their alert


async def callers_time_out(trouble: Trouble) -> Pool:
    pool = trouble.pool(1, acquisition_timeout=0.05)
    await fail_beside_a_holder(trouble, pool, 0.2)
    return pool


async def a_caller_in_250_times_out(trouble: Trouble) -> Pool:
    pool = trouble.pool(1)
    while trouble.lasts:
        for _ in range(250):
            await read(pool)
        async with pool.connection():
            with contextlib.suppress(PoolConnectionAcquireTimeoutError):
                await pool.acquire(timeout=0.01)
        await asyncio.sleep(0.1)
    return pool


async def every_caller_times_out(trouble: Trouble) -> Pool:
    pool = trouble.pool(1)
    async with pool.connection():
        while trouble.lasts:
            with contextlib.suppress(PoolConnectionAcquireTimeoutError):
                await pool.acquire(timeout=0.05)
    return pool


async def callers_wait(trouble: Trouble) -> Pool:
    pool = trouble.pool(1)
    await crowd(trouble, pool, 4, 0.1)
    return pool


async def callers_are_refused(trouble: Trouble) -> Pool:
    pool = trouble.pool(1, max_waiting=0)
    await fail_beside_a_holder(trouble, pool, 0.05)
    return pool


async def more_callers_than_connections(trouble: Trouble) -> Pool:
    pool = trouble.pool(2)
    await crowd(trouble, pool, 6, 0.02)
    return pool


async def the_only_connection_is_kept(trouble: Trouble) -> Pool:
    pool = trouble.pool(1, acquisition_timeout=20)

    async def wait() -> None:
        while trouble.lasts:
            with contextlib.suppress(PoolConnectionAcquireTimeoutError):
                await read(pool)

    async with pool.connection(label="the slow holder"):
        waiter = asyncio.create_task(wait())
        await trouble.over()
    await waiter
    return pool


async def a_connection_leaks(trouble: Trouble) -> Pool:
    pool = trouble.pool(leak_threshold=10)
    leaked = await pool.acquire(label="the leak")
    await trouble.over()
    await pool.release(leaked)
    return pool


async def the_directory_is_missing(trouble: Trouble) -> Pool:
    directory = trouble.folder / "missing"
    pool = trouble.pool(connect=lambda: aiosqlite.connect(directory / "app.db"))
    while trouble.lasts:
        with contextlib.suppress(aiosqlite.OperationalError):
            await read(pool)
        await asyncio.sleep(0.2)
    directory.mkdir()
    return pool


async def the_file_is_deleted_again_and_again(trouble: Trouble) -> Pool:
    pool = trouble.pool(health_check_after=0)
    while trouble.lasts:
        await read(pool)
        trouble.file.unlink()
        await asyncio.sleep(0.5)
    return pool


async def connections_do_not_live_long_enough(trouble: Trouble) -> Pool:
    pool = trouble.pool(idle_timeout=0.05)
    while trouble.lasts:
        await read(pool)
        await asyncio.sleep(0.2)
    await pool.close()
    return trouble.pool()


async def nobody_commits(trouble: Trouble) -> Pool:
    pool = trouble.pool()
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE note (text TEXT)")
        await connection.commit()
    while trouble.lasts:
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO note VALUES ('forgotten')")
        await asyncio.sleep(0.1)
    return pool


async def nobody_reads_to_the_end(trouble: Trouble) -> Pool:
    pool = trouble.pool()
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000) SELECT i FROM n"
    while trouble.lasts:
        async with pool.connection() as connection:
            await (await connection.execute(numbers)).fetchone()
        await asyncio.sleep(0.1)
    return pool


async def an_index_is_missing(trouble: Trouble) -> Pool:
    pool = trouble.pool(connect=lambda: connect_with_nap(trouble.file))
    async with pool.connection() as connection:
        await connection.execute("CREATE TABLE orders (customer TEXT)")
        await connection.execute("INSERT INTO orders VALUES ('Ada')")
        await connection.commit()
    while trouble.lasts:
        async with pool.connection() as connection:
            # As long as a scan of many rows, on any machine.
            await connection.execute_fetchall("SELECT nap(0.15) FROM orders WHERE customer = 'Ada'")
    return pool


async def connect_with_nap(file: Path) -> aiosqlite.Connection:
    connection = await aiosqlite.connect(file)
    await connection.create_function("nap", 1, time.sleep)
    return connection


async def a_subscriber_raises(trouble: Trouble) -> Pool:
    pool = trouble.pool()

    def broken(event: ConnectionReleased) -> None:
        raise ValueError("the handler is broken")

    detach = pool.events.subscribe(ConnectionReleased, broken)
    while trouble.lasts:
        await read(pool)
        await asyncio.sleep(0.1)
    detach()
    return pool


async def writers_think_in_their_transactions(trouble: Trouble) -> None:
    async with trouble.database() as database:

        async def writer() -> None:
            while trouble.lasts:
                async with database.write():
                    await asyncio.sleep(0.5)

        await asyncio.gather(*(writer() for _ in range(4)))


async def another_process_writes(trouble: Trouble) -> None:
    async with trouble.database() as database:

        async def writer() -> None:
            while trouble.lasts:
                await database.run_write(write, b"ours")

        async with other_process(trouble.file) as other:
            writing = asyncio.create_task(writer())
            while trouble.lasts:
                await other.does("BEGIN IMMEDIATE")
                await asyncio.sleep(0.2)
                await other.does("ROLLBACK")
                await asyncio.sleep(0.1)
            await writing


async def another_process_keeps_the_lock(trouble: Trouble) -> None:
    async with trouble.database(acquisition_timeout=0.5) as database, other_process(trouble.file) as other:
        await other.does("BEGIN IMMEDIATE")
        while trouble.lasts:
            with contextlib.suppress(sqlite3.OperationalError):
                await database.run_write(write, b"ours")
        await other.does("ROLLBACK")


async def another_process_reads_while_much_is_written(trouble: Trouble) -> None:
    async with trouble.database() as database:
        async with other_process(trouble.file, "BEGIN") as other:
            await other.does("SELECT count(*) FROM note")
            while (database.writer.stats().wal_bytes or 0) < 72_000_000:
                await database.run_write(write, os.urandom(2_000_000))
            await trouble.over()
        await database.checkpoint()


async def a_report_reads_for_long(trouble: Trouble) -> None:
    async with trouble.database() as database:
        async with database.read(snapshot=True, label="the report"):
            while (database.writer.stats().wal_bytes or 0) < 18_000_000:
                # What is the same as before, SQLite does not write again.
                await database.run_write(write, os.urandom(2_000_000))
            await trouble.over()
        await database.checkpoint()


async def the_disk_is_full(trouble: Trouble) -> None:
    disk = mount(trouble.folder / "full", "4m")
    trouble.file = disk / "app.db"
    # Where nothing can be mounted, SQLite is told that the disk ends here.
    pragmas = {} if disk.is_mount() else {"max_page_count": 4}
    async with trouble.database(pragmas=pragmas) as database:
        with contextlib.suppress(OSError), (disk / "filler").open("wb") as filler:
            while disk.is_mount():
                filler.write(bytes(4096))
        while trouble.lasts:
            with contextlib.suppress(sqlite3.OperationalError):
                await database.run_write(write, os.urandom(100_000))
            await asyncio.sleep(0.2)
        (disk / "filler").unlink()


async def the_disk_is_nearly_full(trouble: Trouble) -> None:
    disk = mount(trouble.folder / "nearly full", "50m")
    trouble.file = disk / "app.db"
    async with trouble.database() as database:
        if not disk.is_mount():
            database._file.disk_free = lambda: 50_000_000  # type: ignore[method-assign]
        await trouble.over()
        if disk.is_mount():
            subprocess.run(["mount", "-o", "remount,size=300m", disk], check=True, timeout=60)
        else:
            del database._file.disk_free


def mount(folder: Path, size: str) -> Path:
    """A file system of this size; a plain folder where nothing can be mounted, as in most containers."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "aiosqlitepool", folder], check=False, timeout=60)
    return folder


async def the_backups_have_nowhere_to_go(trouble: Trouble) -> None:
    target = trouble.folder / "backups" / "copy.db"
    async with trouble.database() as database:
        while trouble.lasts:
            with contextlib.suppress(FileNotFoundError):
                await database.backup(target)
            await asyncio.sleep(0.5)
        target.parent.mkdir()
        await database.backup(target)


def write(connection: sqlite3.Connection, text: bytes) -> None:
    connection.execute("UPDATE note SET text = ?", (text,))


TROUBLES: dict[str, Callable[[Trouble], Awaitable[Pool | None]]] = {
    "AiosqlitepoolAcquireTimeoutsBurningBudget": callers_time_out,
    "AiosqlitepoolAcquireTimeoutsSlowBurn": a_caller_in_250_times_out,
    "AiosqlitepoolInstanceTimingOut": every_caller_times_out,
    "AiosqlitepoolWaitSlow": callers_wait,
    "AiosqlitepoolAcquiresRejected": callers_are_refused,
    "AiosqlitepoolSaturated": more_callers_than_connections,
    "AiosqlitepoolWaiterStuck": the_only_connection_is_kept,
    "AiosqlitepoolConnectionHeldTooLong": a_connection_leaks,
    "AiosqlitepoolSlowStatements": an_index_is_missing,
    "AiosqlitepoolConnectionCreateFailing": the_directory_is_missing,
    "AiosqlitepoolHealthCheckFailing": the_file_is_deleted_again_and_again,
    "AiosqlitepoolChurn": connections_do_not_live_long_enough,
    "AiosqlitepoolRollbacksOnReturn": nobody_reads_to_the_end,
    "AiosqlitepoolWorkLost": nobody_commits,
    "AiosqlitepoolTelemetryErrors": a_subscriber_raises,
    "AiosqlitepoolWriterQueueSlow": writers_think_in_their_transactions,
    "AiosqlitepoolTransactionsFailing": another_process_keeps_the_lock,
    "AiosqlitepoolBusyRetries": another_process_writes,
    "AiosqlitepoolWalLarge": another_process_reads_while_much_is_written,
    "AiosqlitepoolReaderPinsWal": a_report_reads_for_long,
    "AiosqlitepoolDatabaseBroken": the_disk_is_full,
    "AiosqlitepoolDiskFilling": the_disk_is_nearly_full,
    "AiosqlitepoolBackupFailing": the_backups_have_nowhere_to_go,
}


async def run(folder: Path, subscriber: str) -> None:
    async def have(alert: str, make_trouble: Callable[[Trouble], Awaitable[Pool | None]]) -> None:
        pool = await make_trouble(Trouble(folder, alert, subscriber))
        assert pool is not None  # a database is used well for ever
        await use_well(pool)

    async with asyncio.TaskGroup() as group:
        group.create_task(use_well(Trouble(folder, "healthy", subscriber).pool()))
        for alert, make_trouble in TROUBLES.items():
            group.create_task(have(alert, make_trouble))


def observe(subscriber: str) -> None:
    if subscriber == "prometheus":
        subscribe_all(PrometheusSubscriber())
    else:
        provider = MeterProvider([PrometheusMetricReader()])
        subscribe_all(OpenTelemetrySubscriber(meter_provider=provider, spans="off"))


if __name__ == "__main__":
    observe(sys.argv[3])
    start_http_server(int(sys.argv[2]), addr="127.0.0.1")
    asyncio.run(run(Path(sys.argv[1]), sys.argv[3]))
