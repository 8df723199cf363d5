"""A job queue in SQLite, with asyncio workers that share a pool. A job checks whether a link still works.

    pip install aiosqlitepool httpx
    python examples/background_worker.py jobs.db add https://example.org/ https://example.org/old
    python examples/background_worker.py jobs.db work --workers 4     # until Ctrl-C or SIGTERM
    python examples/background_worker.py jobs.db show

Shows:

- jobs that are claimed atomically, by any number of workers and processes;
- retries with a delay that doubles each time;
- a result that is stored in the transaction that ends its job;
- a stop at which jobs finish, or are put back into the queue for another worker;
- labels, so that each error and log record says what a connection is used for.

No job is lost, and each result is stored once. The work outside the database (here: the request) may be repeated if its
process is killed, or takes too long: its claim then expires, and another worker claims the job.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import NamedTuple

import aiosqlite
import httpx

from aiosqlitepool import PoolError, SQLiteConnectionPool

log = logging.getLogger("worker")

# Seconds that a claim is valid. No job may take longer, so two workers never work on one job.
CLAIM = 300.0
POLL = 1.0  # seconds until an idle worker polls again
ATTEMPTS = 5
RETRY_AFTER = 2.0  # seconds, doubled for each failure

SCHEMA = """
CREATE TABLE IF NOT EXISTS job (
    id INTEGER PRIMARY KEY,
    url TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'failed')),
    due REAL NOT NULL DEFAULT 0, -- not before this time, in seconds since the epoch; a claim pushes it into the future
    claims INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    error TEXT
);
CREATE INDEX IF NOT EXISTS job_by_due ON job (due) WHERE state = 'waiting';
CREATE TABLE IF NOT EXISTS result (job INTEGER PRIMARY KEY REFERENCES job, status INTEGER NOT NULL);
"""

Pool = SQLiteConnectionPool[aiosqlite.Connection]


class Job(NamedTuple):
    """A claimed job. Only the newest claim may end it."""

    id: int
    url: str
    claims: int
    failures: int


class Queue:
    """The jobs of one database. Each statement is its own transaction, unless a method begins one."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.time) -> None:
        self._pool = pool
        self._clock = clock

    async def add(self, urls: Iterable[str]) -> None:
        """Add a job for each link: all or none."""
        async with self._pool.connection(label="add jobs") as connection:
            await connection.execute("BEGIN IMMEDIATE")
            await connection.executemany("INSERT INTO job (url) VALUES (?)", ((url,) for url in urls))
            await connection.commit()

    async def claim(self) -> Job | None:
        """Claim the job that is due for longest; None if none is due."""
        # One statement finds and claims it, so no other worker can claim it in between.
        claim = """
            UPDATE job SET claims = claims + 1, due = :now + :claim WHERE id = (
                SELECT id FROM job WHERE state = 'waiting' AND due <= :now ORDER BY due, id LIMIT 1
            ) RETURNING id, url, claims, failures
        """
        async with self._pool.connection(label="claim a job") as connection:
            for row in await connection.execute_fetchall(claim, {"now": self._clock(), "claim": CLAIM}):
                return Job(*row)
            return None

    async def finish(self, job: Job, status: int) -> bool:
        """End the job and store its result, both or neither; False if the claim has expired."""
        async with self._pool.connection(label=f"finish job {job.id}") as connection:
            # IMMEDIATE: wait for other writers at the beginning, so that no statement fails half-way.
            await connection.execute("BEGIN IMMEDIATE")
            mine = await self._change(connection, job, "state = 'done', error = NULL")
            if mine:
                await connection.execute("INSERT INTO result VALUES (?, ?)", (job.id, status))
                await connection.commit()
            return mine

    async def retry(self, job: Job, error: str) -> bool:
        """Schedule a retry, or fail the job for good after `ATTEMPTS` failures; False as from `finish()`."""
        due = self._clock() + RETRY_AFTER * 2**job.failures
        state = "failed" if job.failures + 1 >= ATTEMPTS else "waiting"
        async with self._pool.connection(label=f"retry job {job.id}") as connection:
            return await self._change(
                connection, job, "failures = failures + 1, state = ?, due = ?, error = ?", state, due, error
            )

    async def give_back(self, job: Job) -> bool:
        """Put the job back into the queue, due at once; False as from `finish()`, or if the job has ended."""
        async with self._pool.connection(label=f"requeue job {job.id}") as connection:
            return await self._change(connection, job, "due = 0")

    async def _change(self, connection: aiosqlite.Connection, job: Job, assignments: str, *values: object) -> bool:
        update = f"UPDATE job SET {assignments} WHERE id = ? AND claims = ? AND state = 'waiting'"
        return (await connection.execute(update, (*values, job.id, job.claims))).rowcount == 1


class Worker:
    """Runs `check` for the jobs of a queue, one after the other, until it is stopped.

    Only `check` is cancelled, never an operation of the database, so its result is always known.
    """

    def __init__(self, queue: Queue, check: Callable[[str], Awaitable[int]], stop: asyncio.Event) -> None:
        self._queue = queue
        self._check = check
        self._stop = stop
        self._limit: asyncio.Timeout | None = None

    async def run(self) -> None:
        """Run until the worker is stopped, and its current job is done or back in the queue."""
        while not self._stop.is_set():
            try:
                if job := await self._queue.claim():
                    await (self._give_back(job) if self._stop.is_set() else self._carry_out(job))
                    continue
            except (PoolError, sqlite3.Error):
                # A lock of another process, a full disk: go on. The job is due again when its claim expires.
                log.exception("the database refused; trying again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), POLL)

    def break_off(self) -> None:
        """Cancel the check of the current job, so that it is put back into the queue. Call it only after a stop."""
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def _carry_out(self, job: Job) -> None:
        try:
            status = await self._checked(job)
        except Exception as error:
            if self._stop.is_set() and isinstance(error, TimeoutError):
                await self._give_back(job)
            else:
                log.warning("job %d: %r", job.id, error)
                await self._queue.retry(job, repr(error))
        else:
            mine = await self._queue.finish(job, status)
            log.info("job %d: %s answers %d%s", job.id, job.url, status, "" if mine else ", too late")

    async def _checked(self, job: Job) -> int:
        # No connection is held here: a slow link must not block other callers.
        try:
            async with asyncio.timeout(CLAIM * 0.9) as self._limit:
                return await self._check(job.url)
        finally:
            self._limit = None

    async def _give_back(self, job: Job) -> None:
        await self._queue.give_back(job)
        log.info("job %d: put back into the queue", job.id)


async def check_link(http: httpx.AsyncClient, url: str) -> int:
    """Return the HTTP status of the link; raises `httpx.HTTPError` if the check should be repeated."""
    answer = await http.get(url)
    if answer.is_server_error:
        answer.raise_for_status()
    return answer.status_code


@contextlib.asynccontextmanager
async def opened(path: str, workers: int) -> AsyncIterator[Queue]:
    """Open the queue of this file. A few connections serve many workers: none is held while a job runs."""
    async with aiosqlite.connect(path) as connection:
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.executescript(SCHEMA)
    async with SQLiteConnectionPool(
        # No implicit BEGIN. Wait for a lock instead of failing: other processes use this file too.
        lambda: aiosqlite.connect(path, isolation_level=None, timeout=30),
        pool_size=min(workers, 4),
        name="jobs",
    ) as pool:
        yield Queue(pool)


async def work(path: str, count: int, grace: float) -> None:
    """Run the workers until SIGTERM or Ctrl-C. Put jobs that are not done `grace` seconds later back into the queue."""
    stop = asyncio.Event()
    for wish in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(wish, stop.set)
    async with opened(path, count) as queue, httpx.AsyncClient(timeout=30) as http, asyncio.TaskGroup() as group:
        workers = [Worker(queue, lambda url: check_link(http, url), stop) for _ in range(count)]
        # Errors and log records also show the name of a task.
        tasks = [group.create_task(each.run(), name=f"worker-{number}") for number, each in enumerate(workers, 1)]
        log.info("%d workers are at work", count)
        await stop.wait()
        log.info("stopping: running jobs have %g s to finish", grace)
        await asyncio.wait(tasks, timeout=grace)
        for each in workers:
            each.break_off()


async def add(path: str, urls: list[str]) -> None:
    """Add a job for each link."""
    async with opened(path, 1) as queue:
        await queue.add(urls)


def show(path: str) -> None:
    """Print every job and its result."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for row in connection.execute("SELECT id, state, status, url, error FROM job LEFT JOIN result ON job = id"):
            print(*("-" if value is None else value for value in row))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="See which links still work.")
    parser.add_argument("database", help="the file that the jobs are in")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("add", help="add a job for each link").add_argument("urls", nargs="+")
    working = commands.add_parser("work", help="work off the jobs until Ctrl-C or SIGTERM")
    working.add_argument("--workers", type=int, default=4, help="jobs at the same time (default: %(default)s)")
    working.add_argument("--grace", type=float, default=20.0, help="seconds to finish in (default: %(default)s)")
    commands.add_parser("show", help="print all jobs")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if options.command == "add":
        asyncio.run(add(options.database, options.urls))
    elif options.command == "work":
        asyncio.run(work(options.database, options.workers, options.grace))
    else:
        show(options.database)


if __name__ == "__main__":
    main()
