"""The database of the service: its schema, its connections, its pool. Knows nothing of HTTP."""

from __future__ import annotations

import os

import aiosqlite

from aiosqlitepool import SQLiteConnectionPool

PATH = os.environ.get("DATABASE", "service.db")

SCHEMA = """
CREATE TABLE IF NOT EXISTS user (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, posts INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS post (
    id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES user, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS post_by_user ON post (user_id);
"""


async def connect() -> aiosqlite.Connection:
    """Open one connection. Runs in the pool, once for each; what is set here holds for every borrower."""
    connection = await aiosqlite.connect(PATH)
    connection.row_factory = aiosqlite.Row
    # Another process may be writing: wait for it rather than fail.
    await connection.execute("PRAGMA busy_timeout = 5000")
    await connection.execute("PRAGMA synchronous = NORMAL")
    return connection


async def prepare() -> None:
    """Make the tables, and set the journal mode, which stays in the file and which racing connections fail to set."""
    async with aiosqlite.connect(PATH) as connection:
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.executescript(SCHEMA)


# A request that cannot have a connection soon is better refused than kept. More connections make SQLite no faster.
pool = SQLiteConnectionPool(
    connect,
    pool_size=4,
    acquisition_timeout=5,
    max_waiting=200,
    leak_threshold=30,
    name=os.path.basename(PATH),
)
