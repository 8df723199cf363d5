"""Programs as they were written for version 1.0, with nothing changed: they must run, and do what they did."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import aiosqlite
import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Request

from aiosqlitepool import PoolClosedError, PoolConnectionAcquireTimeoutError, SQLiteConnectionPool

from .support.files import make_database, notes
from .support.stub import settle


def run(program: str, path: Path) -> str:
    """What a program prints that is started with the path of a database."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


# -- whole programs


def test_a_pool_made_at_module_level_before_any_loop(database: Path) -> None:
    program = """
        import asyncio, sys
        import aiosqlite
        from aiosqlitepool import SQLiteConnectionPool

        async def connect():
            return await aiosqlite.connect(sys.argv[1])

        pool = SQLiteConnectionPool(connect)

        async def main():
            async with pool.connection() as conn:
                await conn.execute("INSERT INTO note (text) VALUES (?)", ("first",))
                await conn.commit()
                cursor = await conn.execute("SELECT text FROM note")
                print(*await cursor.fetchone())
            await pool.close()

        asyncio.run(main())
    """
    assert run(program, database) == "first\n"


def test_a_lambda_as_the_factory(database: Path) -> None:
    program = """
        import asyncio, sys
        import aiosqlite
        from aiosqlitepool import SQLiteConnectionPool

        async def main():
            async with SQLiteConnectionPool(lambda: aiosqlite.connect(sys.argv[1]), pool_size=2) as pool:
                async with pool.connection() as conn:
                    cursor = await conn.execute("SELECT count(*) FROM note")
                    print((await cursor.fetchone())[0])

        asyncio.run(main())
    """
    assert run(program, database) == "0\n"


def test_a_row_factory_and_pragmas_set_in_the_factory(database: Path) -> None:
    program = """
        import asyncio, sys
        import aiosqlite
        from aiosqlitepool import SQLiteConnectionPool

        async def connect() -> aiosqlite.Connection:
            conn = await aiosqlite.connect(sys.argv[1])
            conn.row_factory = aiosqlite.Row
            await conn.execute("PRAGMA journal_mode = WAL")
            await conn.execute("PRAGMA foreign_keys = ON")
            await conn.execute("PRAGMA cache_size = 10000")
            return conn

        async def main():
            pool = SQLiteConnectionPool(connection_factory=connect)
            for _ in range(2):
                async with pool.connection() as conn:
                    async with conn.execute("PRAGMA foreign_keys") as cursor:
                        print((await cursor.fetchone())["foreign_keys"])
            await pool.close()

        asyncio.run(main())
    """
    assert run(program, database) == "1\n1\n"


def test_a_program_that_is_done_without_closing_its_pool_ends(database: Path) -> None:
    program = """
        import asyncio, logging, sys, warnings
        import aiosqlite
        from aiosqlitepool import SQLiteConnectionPool

        warnings.simplefilter("ignore", ResourceWarning)
        logging.getLogger("aiosqlitepool").setLevel("ERROR")
        pool = SQLiteConnectionPool(lambda: aiosqlite.connect(sys.argv[1]))

        async def main():
            async with pool.connection() as conn:
                await conn.execute("SELECT 1")

        asyncio.run(main())
        print("done")
    """
    assert run(program, database) == "done\n"


# -- parameters, transactions, errors


async def test_the_parameters_of_1_0_by_name_and_by_position(database: Path) -> None:
    async def connect() -> aiosqlite.Connection:
        return await aiosqlite.connect(database)

    by_name = SQLiteConnectionPool(
        connection_factory=connect, pool_size=3, acquisition_timeout=5, idle_timeout=60, operation_timeout=7
    )
    by_position = SQLiteConnectionPool(connect, 3, 5, 60, 7)
    for pool in (by_name, by_position):
        async with pool, pool.connection() as connection:
            await connection.execute("SELECT 1")
            assert pool.stats().max_size == 3


async def test_commit_is_left_to_the_user(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), pool_size=1) as pool:
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('kept')")
            await connection.commit()
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('never committed')")
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO note (text) VALUES ('rolled back')")
            await connection.rollback()
            await connection.execute("INSERT INTO note (text) VALUES ('kept too')")
            await connection.commit()
    assert notes(database) == ["kept", "kept too"]


async def test_a_caller_that_waited_too_long_gets_the_error_it_knows(database: Path) -> None:
    pool = SQLiteConnectionPool(lambda: aiosqlite.connect(database), pool_size=1, acquisition_timeout=0)
    async with pool, pool.connection():
        with pytest.raises(PoolConnectionAcquireTimeoutError) as caught:
            async with pool.connection():
                raise AssertionError("there was none to lend")
    assert caught.value.message


async def test_a_caller_after_the_close_gets_the_error_it_knows(database: Path) -> None:
    pool = SQLiteConnectionPool(lambda: aiosqlite.connect(database))
    async with pool.connection():
        pass
    await pool.close()
    with pytest.raises(PoolClosedError) as caught:
        async with pool.connection():
            raise AssertionError("it lent something")
    assert caught.value.message


async def test_a_connection_is_lent_through_an_exit_stack(database: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        pool = await stack.enter_async_context(SQLiteConnectionPool(lambda: aiosqlite.connect(database)))
        connection = await stack.enter_async_context(pool.connection())
        await connection.execute("SELECT 1")


async def test_many_workers_share_few_connections(database: Path) -> None:
    async def worker(number: int) -> None:
        for turn in range(5):
            async with pool.connection() as connection:
                await connection.execute("INSERT INTO note (text) VALUES (?)", (f"{number}-{turn}",))
                await connection.commit()

    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database, timeout=60), pool_size=2) as pool:
        await asyncio.gather(*(worker(number) for number in range(20)))
        assert pool.stats().idle <= 2
    assert len(notes(database)) == 100


# -- FastAPI


async def connection_of(request: Request) -> AsyncGenerator[aiosqlite.Connection, None]:
    async with request.app.state.pool.connection() as connection:
        yield connection


Database = Annotated[aiosqlite.Connection, Depends(connection_of)]


def make_app(path: Path) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def connect() -> aiosqlite.Connection:
            connection = await aiosqlite.connect(path)
            connection.row_factory = aiosqlite.Row
            return connection

        app.state.pool = SQLiteConnectionPool(connection_factory=connect, pool_size=2)
        yield
        await app.state.pool.close()

    app = FastAPI(lifespan=lifespan)

    @app.get("/notes/{number}")
    async def read(number: int, database: Database) -> dict[str, Any]:
        cursor = await database.execute("SELECT id, text FROM note WHERE id = ?", (number,))
        row = await cursor.fetchone()
        if row is None:
            raise HTTPException(404)
        return dict(row)

    @app.post("/notes/{text}")
    async def write(text: str, database: Database) -> int | None:
        cursor = await database.execute("INSERT INTO note (text) VALUES (?)", (text,))
        if text == "teapot":
            raise HTTPException(418)
        await database.commit()
        return cursor.lastrowid

    return app


@contextlib.asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client,
    ):
        yield client


async def test_fastapi_makes_the_pool_in_its_lifespan_and_lends_by_a_dependency(database: Path) -> None:
    app = make_app(database)
    async with client_of(app) as client:
        assert (await client.post("/notes/first")).json() == 1
        assert (await client.get("/notes/1")).json() == {"id": 1, "text": "first"}
    assert app.state.pool.stats().state == "closed"


async def test_fastapi_serves_more_requests_than_there_are_connections(tmp_path: Path) -> None:
    app = make_app(make_database(tmp_path / "many.db", "first"))
    async with client_of(app) as client:
        answers = await asyncio.gather(*(client.get("/notes/1") for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        await settle()
        assert (app.state.pool.stats().used, app.state.pool.stats().idle) == (0, 2)


async def test_fastapi_gives_the_connection_back_clean_after_an_error(database: Path) -> None:
    app = make_app(database)
    async with client_of(app) as client:
        assert (await client.post("/notes/teapot")).status_code == 418
        assert (await client.get("/notes/1")).status_code == 404
        assert (await client.post("/notes/second")).status_code == 200
    assert notes(database) == ["second"]
