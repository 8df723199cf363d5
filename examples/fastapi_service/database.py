"""The database of the service: its schema, its settings, and what is written in one trip. Knows nothing of HTTP."""

from __future__ import annotations

import sqlite3

import aiosqlite

from aiosqlitepool import SQLiteDatabase

SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS user (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, posts INTEGER NOT NULL DEFAULT 0
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS post (
        id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES user, text TEXT NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS post_by_user ON post (user_id)",
)


async def rows_by_name(connection: aiosqlite.Connection) -> None:
    """Set up a new connection, for every block that uses it."""
    connection.row_factory = aiosqlite.Row


def make_database(path: str) -> SQLiteDatabase:
    """Return a database for one run of the application: once closed, it cannot be opened again."""
    # Refuse a request that gets no connection soon. More connections do not make SQLite faster.
    return SQLiteDatabase(path, readers=4, acquisition_timeout=5, max_waiting=200, on_connect=rows_by_name)


def make_tables(connection: sqlite3.Connection) -> None:
    """Create missing tables: all or none."""
    for statement in SCHEMA:
        connection.execute(statement)


def add_user(connection: sqlite3.Connection, name: str) -> int:
    """Add a user; returns the new row's id."""
    return connection.execute("INSERT INTO user (name) VALUES (?)", (name,)).lastrowid or 0
