"""A replica of one database on each machine: a pool over `turso.aio`, for when one machine is not enough.

    pip install aiosqlitepool pyturso
    python examples/embedded_replica.py notes.db "a note"                   # one machine, one file, no network

    npx turso@0.6 server.db --sync-server 127.0.0.1:8080                    # a server to try it with; or one of Turso's
    python examples/embedded_replica.py here.db --remote http://127.0.0.1:8080 "written here"
    python examples/embedded_replica.py there.db --remote http://127.0.0.1:8080 "written there"

Shows: a pool over another driver than aiosqlite; reads and writes that go to a file at hand, as fast as ever and also
when the network is down; a task that sends what was committed here and fetches what was committed elsewhere, over a
connection of its own, so that a slow network takes none from the pool.

Know the limits before you build on it. Each was seen with pyturso 0.8, and the tests of this example hold it to them:

- Replicas agree in the end, not at once. A commit is safe on this machine only, until it was sent.
- Of two that change the same row, the last to send wins, silently. That is so for two *new* rows with the same key,
  too: give rows keys that are unique everywhere, as here, and no numbers counted up.
- A pull while a transaction writes is refused as busy, and comes round again. Keep transactions short.
- What is written to the file over any other connection than `turso.aio.sync` makes is never sent. A file that began
  without a server is not one to go on with.
- The very first start needs the server; later ones do not.
- A request to the server has no time limit but that of `socket.setdefaulttimeout()`.
- For a driver that the pool does not know, it rolls back at each return, and cannot interrupt a statement.
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
    """A database file on this machine, and if `remote` is given, its other self on a server."""

    def __init__(self, path: str, remote: str | None = None, token: str | None = None) -> None:
        self._path = path
        self._remote = remote
        self._token = token
        self._line: ConnectionSync | None = None
        # Writers take turns as in SQLite, so a few connections are plenty.
        self.pool = SQLiteConnectionPool[turso.aio.Connection](self._connect, pool_size=4, name=os.path.basename(path))

    async def _connect(self) -> turso.aio.Connection:
        connection: turso.aio.Connection = await (
            turso.aio.connect(self._path) if self._remote is None else self._synced(self._remote)
        )
        # Wait for another writer, or for a pull, rather than fail.
        await connection.execute("PRAGMA busy_timeout = 5000")
        return connection

    def _synced(self, remote: str) -> ConnectionSync:
        return turso.aio.sync.connect(self._path, remote, auth_token=self._token)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Replica]:
        """Open it until the block ends. Raises `turso.Error` if there is no file yet and no server to fetch it from."""
        async with contextlib.AsyncExitStack() as stack:
            if self._remote is not None:
                # First and alone: a file that is not there yet is fetched now.
                self._line = await stack.enter_async_context(self._synced(self._remote))
            pool = await stack.enter_async_context(self.pool)
            async with pool.connection(label="schema") as connection:
                await connection.execute(SCHEMA)
                await connection.commit()
            yield self

    async def synchronise(self) -> bool:
        """Send what was committed here, fetch what was committed elsewhere; True if there was any such.

        One call does it for all connections of the file. Raises `turso.Error` if the server cannot be reached or the
        database is busy; nothing is lost then, and the next call does the rest.
        """
        if self._line is None:
            return False
        await self._line.push()
        return bool(await self._line.pull())

    async def keep_synchronised(self, stop: asyncio.Event, every: float = 5.0) -> None:
        """Synchronise every so many seconds until it is to stop, and once more then, so that nothing stays unsent."""
        while True:
            last = stop.is_set()
            try:
                await self.synchronise()
            except turso.Error as error:
                log.warning("not synchronised, %s: %s", "and stopping" if last else "trying again", error)
            if last:
                return
            # Woken, not cancelled: a request that is under way cannot be taken back.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), every)

    async def add_note(self, text: str) -> None:
        """Write a note into the file at hand."""
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
        """Every note in the file at hand, by text."""
        async with self.pool.connection(label="list notes") as connection:
            rows = await (await connection.execute("SELECT text FROM note ORDER BY text")).fetchall()
        return [row[0] for row in rows]


async def run(path: str, remote: str | None, texts: list[str]) -> None:
    """Write these notes, as a service would that runs for a while, and print all that there are then."""
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
    # The driver sets none, and its thread would wait for ever. This is for the whole process.
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    asyncio.run(run(options.database, options.remote, options.texts))


if __name__ == "__main__":
    main()
