"""A replica of one database on each machine: a pool over `turso.aio`, for when one machine is not enough.

    pip install aiosqlitepool pyturso
    python examples/embedded_replica.py notes.db "a note"                   # one machine, one file, no network

    npx turso@0.6 server.db --sync-server 127.0.0.1:8080                    # a server to try it with; or one of Turso's
    python examples/embedded_replica.py here.db --remote http://127.0.0.1:8080 "written here"
    python examples/embedded_replica.py there.db --remote http://127.0.0.1:8080 "written there"

Shows: a pool over another driver than aiosqlite; reads and writes of a local file, which are fast and also work without
a network; a task that sends local commits and fetches those of other machines. The task has its own connection, so a
slow network uses none of the pool.

Limits of pyturso 0.8, each with a test of this example:

- Replicas are eventually consistent. Until it is sent, a commit is only on this machine.
- If two machines change the same row, the last one to send wins, without an error. The same is true for two *new* rows
  with the same key: use globally unique keys, as here, and no counters.
- A pull during a write transaction fails as busy, and is retried. Keep transactions short.
- Only writes over connections of `turso.aio.sync` are sent. A file that was created without a server cannot be
  synchronised later.
- Only the first start needs the server.
- The only time limit of a request to the server is `socket.setdefaulttimeout()`.
- With an unknown driver, the pool rolls back at each release, and cannot interrupt a statement.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import sqlite3
import uuid
from collections.abc import AsyncIterator

import turso
import turso.aio
import turso.aio.sync
from turso.lib_sync_aio import ConnectionSync

from aiosqlitepool import SQLiteConnectionPool

log = logging.getLogger("replica")

NETWORK_TIMEOUT = 30.0  # seconds
SCHEMA = "CREATE TABLE IF NOT EXISTS note (id TEXT PRIMARY KEY, text TEXT NOT NULL)"


class Replica:
    """A database file on this machine, and its copy on a server if `remote` is given."""

    def __init__(self, path: str, remote: str | None = None, token: str | None = None) -> None:
        self._path = path
        self._remote = remote
        self._token = token
        self._line: ConnectionSync | None = None
        # There is one writer at a time, as in SQLite, so a few connections are enough.
        self.pool = SQLiteConnectionPool[turso.aio.Connection](self._connect, pool_size=4, name=os.path.basename(path))

    async def _connect(self) -> turso.aio.Connection:
        connection: turso.aio.Connection = await (
            turso.aio.connect(self._path) if self._remote is None else self._synced(self._remote)
        )
        # Wait for another writer, or for a pull, instead of failing.
        await connection.execute("PRAGMA busy_timeout = 5000")
        return connection

    def _synced(self, remote: str) -> ConnectionSync:
        return turso.aio.sync.connect(self._path, remote, auth_token=self._token)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Replica]:
        """Keep the database open in the block. Raises `turso.Error` if there is neither a file nor a server."""
        async with contextlib.AsyncExitStack() as stack:
            if self._remote is not None:
                # First, and alone: this fetches a file that does not exist yet.
                self._line = await stack.enter_async_context(self._synced(self._remote))
            pool = await stack.enter_async_context(self.pool)
            async with pool.connection(label="schema") as connection:
                await connection.execute(SCHEMA)
                await connection.commit()
            yield self

    async def synchronise(self) -> bool:
        """Send local commits and fetch those of other machines; True if there were any.

        One call is enough for all connections of the file. Raises `turso.Error` if the server cannot be reached or the
        database is busy. Nothing is lost then: the next call sends the rest.
        """
        if self._line is None:
            return False
        await self._line.push()
        return bool(await self._line.pull())

    async def keep_synchronised(self, stop: asyncio.Event, every: float = 5.0) -> None:
        """Synchronise at this interval in seconds until the stop, and once more then, to send all commits."""
        while True:
            last = stop.is_set()
            try:
                await self.synchronise()
            except turso.Error as error:
                log.warning("not synchronised, %s: %s", "and stopping" if last else "trying again", error)
            if last:
                return
            # Woken, not cancelled: a request that has begun cannot be cancelled.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), every)

    async def add_note(self, text: str) -> None:
        """Write a note into the local file."""
        async with self.pool.connection(label="add note") as connection:
            await connection.execute("INSERT INTO note VALUES (?, ?)", (uuid.uuid4().hex, text))
            await connection.commit()

    async def copy_notes(self, path: str) -> None:
        """Copy the notes of a database that was none of these replicas: of a `SQLiteDatabase`, say."""
        with contextlib.closing(sqlite3.connect(path)) as old:
            rows = old.execute("SELECT id, text FROM note").fetchall()
        async with self.pool.connection(label="copy notes") as connection:
            await connection.executemany("INSERT INTO note VALUES (?, ?)", rows)
            await connection.commit()

    async def notes(self) -> list[str]:
        """Every note of the local file, sorted by text."""
        async with self.pool.connection(label="list notes") as connection:
            rows = await (await connection.execute("SELECT text FROM note ORDER BY text")).fetchall()
        return [row[0] for row in rows]


async def run(path: str, remote: str | None, texts: list[str]) -> None:
    """Write these notes, synchronise as a service would, and print all notes."""
    stop = asyncio.Event()
    async with Replica(path, remote, os.environ.get("TURSO_AUTH_TOKEN")).opened() as replica:
        async with asyncio.TaskGroup() as service:
            service.create_task(replica.keep_synchronised(stop))
            await asyncio.gather(*(replica.add_note(text) for text in texts))
            stop.set()
        print(*await replica.notes(), sep="\n")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Write notes into a replica, and print all that there are.")
    parser.add_argument("database", help="the file on this machine")
    parser.add_argument("texts", nargs="*", metavar="NOTE", help="what to write")
    parser.add_argument("--remote", metavar="URL", help="the server; its token is in TURSO_AUTH_TOKEN")
    options = parser.parse_intermixed_args()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    # The driver sets no timeout, and its thread would wait without limit. This is for the whole process.
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    asyncio.run(run(options.database, options.remote, options.texts))


if __name__ == "__main__":
    main()
