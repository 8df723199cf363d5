"""Real SQLite files, made without the pool."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

__all__ = ["make_database", "notes"]


def make_database(path: Path, *rows: str) -> Path:
    """A file in WAL mode with a table `note(id, text)` and these rows in it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)")
        connection.executemany("INSERT INTO note (text) VALUES (?)", [(row,) for row in rows])
        connection.commit()
    return path


def notes(path: Path) -> list[str]:
    """What the file holds, seen by an outsider."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [str(text) for (text,) in connection.execute("SELECT text FROM note ORDER BY id")]
