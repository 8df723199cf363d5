"""The database of the service: its migrations, its engine, and the sessions that requests get."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from alembic import command
from alembic.config import Config
from fastapi import Depends, FastAPI, Request
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.sqlalchemy import create_async_engine

ALEMBIC = Config(Path(__file__).with_name("alembic.ini"))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Migrate and open a database while the service runs. Each run, and each test, has its own."""
    # In a thread: Alembic's environment runs its own event loop.
    await asyncio.to_thread(command.upgrade, ALEMBIC, "head")
    path = os.environ.get("DATABASE", "heroes.db")
    async with SQLiteDatabase(path, readers=4, acquisition_timeout=5, max_waiting=200) as database:
        app.state.database = database
        app.state.engine = create_async_engine(database)
        yield
        await app.state.engine.dispose()


def engine_of(request: Request, role: str) -> AsyncEngine:
    """The engine of the application, with a label for this request: errors and log records of waiters show it."""
    label = f"{request.method} {request.scope['route'].path}"
    engine: AsyncEngine = request.app.state.engine
    return engine.execution_options(sqlite_role=role, label=label)


async def reading(request: Request) -> AsyncIterator[AsyncSession]:
    """A session that reads, for one request."""
    async with AsyncSession(engine_of(request, "read")) as session:
        yield session


async def writing(request: Request) -> AsyncIterator[AsyncSession]:
    """A session that writes, for one request: it waits for the writer at its first statement, also if that reads.

    The end of the request commits; a request that fails is rolled back.
    """
    async with AsyncSession(engine_of(request, "write"), expire_on_commit=False) as session, session.begin():
        yield session


# With the scope of the function, a transaction is committed and its connection released before the response is sent.
Reading = Annotated[AsyncSession, Depends(reading, scope="function")]
Writing = Annotated[AsyncSession, Depends(writing, scope="function")]
