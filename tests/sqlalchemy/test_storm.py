"""Two thousand tasks over sessions, half of them cancelled: no connection is lost, and every commit is whole."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.sqlalchemy import create_async_engine

from ..support.storm import LONG, assert_whole, factory, make_database, nothing_left_behind, quiet

SEEDS = range(1, 1 + int(os.environ.get("AIOSQLITEPOOL_STORM_SEEDS", "1")))
TASKS = 2_000

Engines = Callable[[Path], "AsyncIterator[tuple[AsyncEngine, list[SQLiteConnectionPool]]]"]


class Base(DeclarativeBase):
    pass


class Half(Base):
    """Each commit has two: one alone would be half a commit."""

    __tablename__ = "half"

    owner: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)


@asynccontextmanager
async def over_path(path: Path) -> AsyncIterator[tuple[AsyncEngine, list[SQLiteConnectionPool]]]:
    engine = create_async_engine(
        path, pool_size=5, max_overflow=0, pool_timeout=None, connect_args={"timeout": 60},
        execution_options={"sqlite_role": "write"},
    )  # fmt: skip
    yield engine, [engine.pool.sqlite_pool]  # type: ignore[attr-defined]
    await engine.dispose()


@asynccontextmanager
async def over_pool(path: Path) -> AsyncIterator[tuple[AsyncEngine, list[SQLiteConnectionPool]]]:
    async with SQLiteConnectionPool(factory(path), 5, acquisition_timeout=None) as pool:
        yield create_async_engine(pool), [pool]


@asynccontextmanager
async def over_database(path: Path) -> AsyncIterator[tuple[AsyncEngine, list[SQLiteConnectionPool]]]:
    async with SQLiteDatabase(path, acquisition_timeout=None) as db:
        yield create_async_engine(db), [db.writer, db.readers]


class Storm:
    """What a seed makes of the tasks, and what they noted."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.acknowledged: set[int] = set()
        self.abandoned: set[int] = set()
        self.outcomes: Counter[str] = Counter()
        self._timers: list[asyncio.TimerHandle] = []

    async def run(self, engine: AsyncEngine) -> None:
        loop, tasks = asyncio.get_running_loop(), []
        works = [self.commit, self.abandon, self.read, self.stream, self.overrun]
        for number in range(TASKS):
            (work,) = self.random.choices(works, [40, 15, 25, 15, 5])
            doomed = self.random.random() < 0.5
            task = asyncio.create_task(self._work(work, engine, number, doomed))
            if doomed and self.random.random() < 0.5:
                self._timers.append(loop.call_later(self.random.uniform(0, 2), task.cancel))
            tasks.append(task)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            is_cancelled = isinstance(result, asyncio.CancelledError)
            self.outcomes["cancelled" if is_cancelled else "finished" if result is None else repr(result)] += 1
        for timer in self._timers:
            timer.cancel()

    async def _work(
        self, work: Callable[[AsyncSession, int], Awaitable[None]], engine: AsyncEngine, number: int, doomed: bool
    ) -> None:
        async with AsyncSession(engine) as session:
            task = asyncio.current_task()
            if doomed and task is not None:
                delay = self.random.choice([0, 0.0005, 0.002, 0.01])
                self._timers.append(asyncio.get_running_loop().call_later(delay, task.cancel))
            await work(session, number)

    async def commit(self, session: AsyncSession, number: int) -> None:
        for half in (1, 2):
            session.add(Half(owner=number, number=half))
            await session.flush()
        await session.commit()
        self.acknowledged.add(number)

    async def abandon(self, session: AsyncSession, number: int) -> None:
        self.abandoned.add(number)
        await session.execute(insert(Half).values(owner=number, number=1))
        if self.random.random() < 0.5:
            await session.rollback()

    async def read(self, session: AsyncSession, number: int) -> None:
        await session.get(Half, (number, 1))

    async def stream(self, session: AsyncSession, number: int) -> None:
        result = await session.stream(select(Half))
        await result.first() if self.random.random() < 0.5 else await result.fetchmany(3)

    async def overrun(self, session: AsyncSession, number: int) -> None:
        await session.execute(text(LONG))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("target", [over_path, over_pool, over_database])
async def test_nothing_is_lost_in_a_storm_of_cancelled_sessions(target: Engines, seed: int, tmp_path: Path) -> None:
    storm = Storm(seed)
    with nothing_left_behind():
        async with target(make_database(tmp_path / "storm.db")) as (engine, pools):  # type: ignore[attr-defined]
            async with engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            await storm.run(engine)
            for pool in pools:
                await quiet(pool)
                await assert_whole(pool)
            async with AsyncSession(engine) as session:
                rows = Counter(await session.scalars(select(Half.owner)))
    assert set(storm.outcomes) <= {"finished", "cancelled"}, storm.outcomes
    assert set(rows.values()) == {2}, "half a commit"
    assert storm.acknowledged <= set(rows)
    assert not storm.abandoned & set(rows)
    assert len(storm.acknowledged) > 100, storm.outcomes
    assert storm.outcomes["cancelled"] > 400, storm.outcomes
