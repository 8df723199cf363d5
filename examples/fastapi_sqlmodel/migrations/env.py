"""How Alembic connects: its async template, with the URL from the environment."""

import asyncio
import os

from alembic import context
from fastapi_sqlmodel import models  # type: ignore[import-not-found]  # found by alembic.ini
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import async_engine_from_config
from sqlalchemy.pool import NullPool

URL = f"sqlite+aiosqlite:///{os.environ.get('DATABASE', 'heroes.db')}"


def migrate(connection: Connection) -> None:
    # SQLite cannot change all of a table: Alembic copies the table instead.
    context.configure(connection=connection, target_metadata=models.SQLModel.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


async def connect_and_migrate() -> None:
    engine = async_engine_from_config({"sqlalchemy.url": URL}, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("migrations run against a database: leave --sql out")
asyncio.run(connect_and_migrate())
