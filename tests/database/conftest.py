from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.testing import Recorder

# Python 3.12 has brought eager tasks.
collect_ignore = ["test_eager_tasks.py"] if sys.version_info < (3, 12) else []


@pytest.fixture
async def db(database: Path, recorder: Recorder) -> AsyncIterator[SQLiteDatabase]:
    """An open database with a table `note(id, text)`."""
    async with SQLiteDatabase(database, subscribers=[recorder]) as db:
        yield db


@pytest.fixture
async def memory(recorder: Recorder) -> AsyncIterator[SQLiteDatabase]:
    """An open database in memory with a table `note(id, text)`."""
    async with SQLiteDatabase(":memory:", subscribers=[recorder]) as db:
        await db.run_write(
            lambda native: native.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)").close()
        )
        yield db
