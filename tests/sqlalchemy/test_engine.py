"""`create_async_engine`: its targets, their life, and their options."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.ext.asyncio
from sqlalchemy import event, exc, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.pool import NullPool, StaticPool

from aiosqlitepool import PoolClosedError, PoolUsageError, SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.driver.internals import thread_of
from aiosqlitepool.sqlalchemy import AioSQLitePool, create_async_engine
from aiosqlitepool.testing import Recorder

from .models import Note, make_tables


async def scalar(engine: AsyncEngine, sql: str) -> Any:
    async with engine.connect() as connection:
        return (await connection.execute(text(sql))).scalar_one()


async def test_what_a_session_commits_is_there(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add_all([Note(text="a"), Note(text="b")])
        await session.commit()
    async with AsyncSession(engine) as session:
        assert list(await session.scalars(select(Note.text).order_by(Note.id))) == ["a", "b"]


async def test_what_a_session_rolls_back_is_not_there(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(Note(text="a"))
        await session.flush()
        await session.rollback()
    assert await scalar(engine, "SELECT count(*) FROM note") == 0


async def test_a_savepoint_is_rolled_back_alone(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(Note(text="a"))
        await session.flush()
        async with session.begin_nested() as nested:
            session.add(Note(text="b"))
            await session.flush()
            await nested.rollback()
        await session.commit()
    assert await scalar(engine, "SELECT group_concat(text) FROM note") == "a"


async def test_autocommit_commits_each_statement(engine: AsyncEngine) -> None:
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.execute(text("INSERT INTO note (text) VALUES ('a')"))
        assert (await connection.execute(text("SELECT count(*) FROM note"))).scalar_one() == 1
        await connection.rollback()
    assert await scalar(engine, "SELECT count(*) FROM note") == 1


async def test_the_isolation_level_can_be_read(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await connection.get_isolation_level() == "SERIALIZABLE"
        changed = await connection.execution_options(isolation_level="AUTOCOMMIT")
        assert (await changed.get_raw_connection()).isolation_level is None
    async with engine.connect() as connection:
        assert (await connection.get_raw_connection()).isolation_level == ""


async def test_the_functions_that_sqlalchemy_adds_are_there(engine: AsyncEngine) -> None:
    assert await scalar(engine, "SELECT 'abc' REGEXP 'b'") == 1
    assert await scalar(engine, "SELECT 'abc' REGEXP 'x'") == 0


# -- targets


@pytest.mark.parametrize("prefix", ["", "sqlite:///", "sqlite+aiosqlite:///", "sqlite+aiosqlitepool:///"])
async def test_a_url_of_any_driver_and_a_path_are_targets(prefix: str, tmp_path: Path) -> None:
    engine = create_async_engine(f"{prefix}{tmp_path}/a.db")
    assert engine.url.drivername == "sqlite+aiosqlitepool"
    assert engine.dialect.name == "sqlite"
    assert await scalar(engine, "SELECT 7") == 7
    assert engine.pool.sqlite_pool.name == "a.db"  # type: ignore[attr-defined]
    await engine.dispose()


async def test_a_url_object_keeps_its_parameters(tmp_path: Path) -> None:
    engine = create_async_engine(make_url(f"sqlite:///file:{tmp_path}/a.db?mode=ro&uri=true"))
    with pytest.raises(exc.OperationalError, match="unable to open database file"):
        await scalar(engine, "SELECT 7")
    await engine.dispose()


def test_another_database_is_refused() -> None:
    with pytest.raises(ValueError, match="target must be a URL of SQLite, such as 'sqlite:///app.db', not postgresql"):
        create_async_engine("postgresql://somewhere/app")


def test_what_is_no_target_is_refused() -> None:
    with pytest.raises(TypeError, match=r"target must be a URL, a path, a SQLiteConnectionPool .* not 7 \(int\)"):
        create_async_engine(7)  # type: ignore[arg-type]


def test_the_dialect_is_found_by_its_name_in_an_installed_package() -> None:
    entry_points = Path(__file__).parents[2] / "pyproject.toml"
    assert '"sqlite.aiosqlitepool" = "aiosqlitepool.sqlalchemy:PooledDialect"' in entry_points.read_text("utf-8")


async def test_the_engine_of_sqlalchemy_itself_takes_the_url(tmp_path: Path) -> None:
    engine = sqlalchemy.ext.asyncio.create_async_engine(f"sqlite+aiosqlitepool:///{tmp_path}/a.db")
    assert type(engine.pool) is AioSQLitePool
    assert await scalar(engine, "SELECT 7") == 7
    await engine.dispose()


async def test_the_engine_of_sqlalchemy_itself_takes_the_pool_class(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/a.db"
    engine = sqlalchemy.ext.asyncio.create_async_engine(url, poolclass=AioSQLitePool, pool_size=3, max_overflow=0)
    await make_tables(engine)
    async with async_sessionmaker(engine)() as session:
        session.add(Note(text="a"))
        await session.commit()
        assert [note.text async for note in await session.stream_scalars(select(Note))] == ["a"]
    assert engine.pool.size() == 3  # type: ignore[attr-defined]
    await engine.dispose()


async def test_a_database_in_memory_has_the_one_connection_that_sqlalchemy_gives_it() -> None:
    engine = create_async_engine("sqlite://")
    assert type(engine.pool) is StaticPool
    await make_tables(engine)
    async with AsyncSession(engine) as session:
        session.add(Note(text="a"))
        await session.commit()
    assert await scalar(engine, "SELECT count(*) FROM note") == 1
    await engine.dispose()


async def test_another_pool_class_opens_connections_of_its_own(tmp_path: Path) -> None:
    engine = create_async_engine(tmp_path / "a.db", poolclass=NullPool)
    await make_tables(engine)
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO note (text) VALUES ('a')"), execution_options={"label": "unused"})
        raw = (await connection.get_raw_connection()).dbapi_connection
    assert not raw.is_lent  # type: ignore[union-attr]
    assert await scalar(engine, "SELECT count(*) FROM note") == 1
    await engine.dispose()


async def test_a_connection_of_another_pool_class_that_is_forgotten_is_closed(tmp_path: Path) -> None:
    engine = create_async_engine(tmp_path / "a.db", poolclass=NullPool)
    connection: Any = await engine.connect()
    raw: Any = (await connection.get_raw_connection()).driver_connection
    with pytest.warns(exc.SAWarning, match="garbage collector"):
        del connection
        gc.collect()
    while thread_of(raw).is_alive():
        await asyncio.sleep(0.001)


# -- options


async def test_the_options_of_the_engine_are_those_of_its_pool(tmp_path: Path) -> None:
    events = Recorder()
    settings = {"name": "mine", "subscribers": [events]}
    engine = create_async_engine(
        tmp_path / "a.db", pool_size=1, max_overflow=2, pool_timeout=7, pool_recycle=5, pool_settings=settings
    )
    pool = engine.pool.sqlite_pool  # type: ignore[attr-defined]
    assert (pool.name, pool.stats().max_size) == ("mine", 3)
    assert (pool._settings.acquisition_timeout, pool._settings.max_lifetime) == (7, 5)
    assert await scalar(engine, "SELECT 7") == 7
    assert events
    await engine.dispose()


@pytest.mark.parametrize("options", [{"pool_size": 0}, {"max_overflow": -1}])
def test_no_limit_is_as_many_connections_as_a_pool_may_have(options: dict[str, int]) -> None:
    engine = create_async_engine("a.db", **options)
    assert engine.pool.size() == 10_000  # type: ignore[attr-defined]


async def test_options_that_the_owner_of_the_target_decides_are_refused(
    pool: SQLiteConnectionPool, db: SQLiteDatabase
) -> None:
    for target in (pool, db):
        with pytest.raises(TypeError, match="Invalid argument.*'pool_size'"):
            create_async_engine(target, pool_size=5)
        with pytest.raises(TypeError, match="connect_args: the connections are opened by <SQLite"):
            create_async_engine(target, connect_args={"timeout": 5})


async def test_sqlalchemy_can_ping_each_connection_before_it_is_used(tmp_path: Path) -> None:
    engine = create_async_engine(tmp_path / "a.db", pool_pre_ping=True)
    for _ in range(3):
        assert await scalar(engine, "SELECT 7") == 7
    assert "SELECT ?" in {row.statement for row in engine.pool.sqlite_pool.statements()}  # type: ignore[attr-defined]
    await engine.dispose()


# -- life


async def test_disposing_closes_the_pool_of_an_engine_and_the_next_use_opens_another(over_path: AsyncEngine) -> None:
    first = over_path.pool.sqlite_pool  # type: ignore[attr-defined]
    await over_path.dispose()
    assert first.stats().state == "closed"
    assert await scalar(over_path, "SELECT 7") == 7
    assert over_path.pool.sqlite_pool is not first  # type: ignore[attr-defined]


async def test_disposing_leaves_a_connection_to_its_holder_until_it_comes_back(over_path: AsyncEngine) -> None:
    pool = over_path.pool.sqlite_pool  # type: ignore[attr-defined]
    async with over_path.connect() as connection:
        await over_path.dispose()
        assert (await connection.execute(text("SELECT 7"))).scalar_one() == 7
        assert pool.stats().state in {"open", "closing"}
    await pool.close()
    assert pool.stats().state == "closed"


async def test_disposing_leaves_the_target_to_its_owner(
    over_pool: AsyncEngine, over_db: AsyncEngine, pool: SQLiteConnectionPool, db: SQLiteDatabase
) -> None:
    for engine in (over_pool, over_db):
        await engine.dispose()
        assert await scalar(engine, "SELECT 7") == 7
    assert {each.stats().state for each in (pool, db.writer, db.readers)} == {"open"}


async def test_a_target_that_is_closed_says_so(over_pool: AsyncEngine, pool: SQLiteConnectionPool) -> None:
    await pool.close()
    with pytest.raises(PoolClosedError, match="pool 'pool.db' is closed"):
        await scalar(over_pool, "SELECT 7")


async def test_a_database_that_is_not_open_says_so(tmp_path: Path) -> None:
    engine = create_async_engine(SQLiteDatabase(tmp_path / "a.db"))
    with pytest.raises(PoolUsageError, match="database 'a.db' is not open"):
        await scalar(engine, "SELECT 7")


def test_an_engine_of_a_module_serves_one_event_loop_after_another(tmp_path: Path) -> None:
    engine = create_async_engine(tmp_path / "a.db")
    for _ in range(3):
        assert asyncio.run(scalar(engine, "SELECT 7")) == 7
    asyncio.run(engine.dispose())


def test_a_connection_left_open_in_an_earlier_loop_is_not_taken_for_one_of_this_loop(tmp_path: Path) -> None:
    engine = create_async_engine(tmp_path / "a.db")
    connects: list[object] = []
    event.listen(engine.sync_engine, "connect", lambda *_: connects.append(1))

    async def leave_open() -> Any:
        return await engine.connect()

    left = asyncio.run(leave_open())
    assert asyncio.run(scalar(engine, "SELECT 7")) == 7
    assert len(connects) == 2
    with pytest.warns(exc.SAWarning, match="garbage collector"):
        del left
        gc.collect()
    assert asyncio.run(scalar(engine, "SELECT 7")) == 7
    asyncio.run(engine.dispose())


def test_disposing_without_a_loop_leaves_the_pool_to_its_end(tmp_path: Path) -> None:
    engine = create_async_engine(tmp_path / "a.db")
    asyncio.run(scalar(engine, "SELECT 7"))
    pool = engine.pool
    pool.dispose()
    assert pool.sqlite_pool.stats().state == "open"  # type: ignore[attr-defined]
    asyncio.run(engine.dispose())


async def test_pools_say_what_they_are(over_path: AsyncEngine, over_db: AsyncEngine) -> None:
    assert "'path.db' open: 0 used, 1 idle of 2" in over_path.pool.status()
    assert "SQLiteDatabase 'app.db'" in over_db.pool.status()
    async with over_path.connect():
        pool: Any = over_path.pool
        assert (pool.size(), pool.checkedout(), pool.checkedin(), pool.overflow()) == (2, 1, 0, 0)


def test_the_versions_that_the_extra_names_are_those_that_were_tried() -> None:
    assert importlib.metadata.version("sqlalchemy").startswith(("2.0.", "2.1."))
