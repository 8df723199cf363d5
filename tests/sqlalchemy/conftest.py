from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiosqlite
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.sqlalchemy import create_async_engine

from .models import make_tables


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[SQLiteConnectionPool]:
    path = tmp_path / "pool.db"
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(path), 2, name="pool.db", acquisition_timeout=30) as pool:
        yield pool


@pytest_asyncio.fixture
async def db(tmp_path: Path) -> AsyncIterator[SQLiteDatabase]:
    async with SQLiteDatabase(tmp_path / "app.db", readers=2) as db:
        yield db


@pytest_asyncio.fixture
async def over_path(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """An engine over the path of a file, with the table."""
    engine = create_async_engine(tmp_path / "path.db", pool_size=1, max_overflow=1)
    await make_tables(engine)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def over_pool(pool: SQLiteConnectionPool) -> AsyncIterator[AsyncEngine]:
    """An engine over a pool, with the table."""
    engine = create_async_engine(pool)
    await make_tables(engine)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def over_db(db: SQLiteDatabase) -> AsyncIterator[AsyncEngine]:
    """An engine over a database, with the table."""
    engine = create_async_engine(db)
    await make_tables(engine)
    yield engine
    await engine.dispose()


@pytest.fixture(params=["over_path", "over_pool", "over_db"])
def engine(request: pytest.FixtureRequest) -> AsyncEngine:
    """An engine over each kind of target."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]
