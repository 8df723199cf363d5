"""Errors as SQLAlchemy knows them."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.util import greenlet_spawn

from aiosqlitepool import ConnectionBrokenError, SQLiteDatabase
from aiosqlitepool.sqlalchemy.routed import Routed


async def test_a_connection_that_broke_before_its_statement_began_is_a_lost_one(db: SQLiteDatabase) -> None:
    async def breaks() -> None:
        raise ConnectionBrokenError("its worker thread is dead")

    with pytest.raises(sqlite3.OperationalError, match="connection closed: its worker thread is dead"):
        await greenlet_spawn(Routed(db).wait_for, breaks())
