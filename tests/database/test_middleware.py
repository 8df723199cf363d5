"""Clients that hang up on a service with four `BaseHTTPMiddleware`s, whose task groups cancel through anyio."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from aiosqlitepool import SQLiteDatabase

from ..support.databases import add, insert
from ..support.serving import served
from ..support.storm import assert_whole, quiet

CLIENTS = 200

Work = Callable[[SQLiteDatabase, str], Awaitable[None]]


class PassOn(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


async def in_a_block(db: SQLiteDatabase, client: str) -> None:
    async with db.write() as connection:
        await insert(connection, client)
        await asyncio.sleep(0.005)
        async with db.write():
            await insert(connection, client)


async def in_a_function(db: SQLiteDatabase, client: str) -> None:
    def add_two(native: sqlite3.Connection) -> None:
        add(native, client)
        time.sleep(0.005)
        add(native, client)

    await db.run_write(add_two)


async def in_a_read(db: SQLiteDatabase, client: str) -> None:
    async with db.read(snapshot=True) as connection:
        await connection.execute_fetchall("SELECT count(*) FROM note")
        await asyncio.sleep(0.02)


WORK: list[Work] = [in_a_block, in_a_function, in_a_read]


class Service:
    """Streams three pieces of work to each client, and counts the streams that were cancelled."""

    def __init__(self, db: SQLiteDatabase) -> None:
        self.db = db
        self.cancelled = 0
        routes = [Route(f"/{number}", self.endpoint(work)) for number, work in enumerate(WORK)]
        self.app = Starlette(routes=routes, middleware=[Middleware(PassOn)] * 4)

    def endpoint(self, work: Work) -> Callable[[Request], Awaitable[Response]]:
        async def pieces(client: str) -> AsyncIterator[bytes]:
            try:
                for number in range(3):
                    yield b"."
                    await work(self.db, f"{client}-{number}")
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

        async def respond(request: Request) -> Response:
            return StreamingResponse(pieces(request.query_params["client"]))

        return respond


async def ask_and_hang_up(address: str, path: str, after: float, *, begun: bool = True) -> None:
    """Hang up so many seconds after the request or, if `begun`, after the answer has begun, however late that is."""
    url = urlsplit(address)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        if begun:
            await reader.readline()
        async with asyncio.timeout(after):
            await reader.read()
    except TimeoutError:
        pass
    finally:
        writer.close()


async def test_clients_that_hang_up_cost_no_connection_and_leave_nothing_half_written(database: Path) -> None:
    choose = random.Random(17)
    async with SQLiteDatabase(database) as db:
        service = Service(db)
        async with served(service.app, lifespan="off") as address:
            paths = [f"/{number % len(WORK)}?client={number}" for number in range(CLIENTS)]
            await asyncio.gather(
                *(
                    ask_and_hang_up(address, path, choose.uniform(0.01, 0.3), begun=number % 2 == 0)
                    for number, path in enumerate(paths)
                )
            )
            await ask_and_hang_up(address, "/0?client=patient", after=60)
            for pool in (db.writer, db.readers):
                while pool.stats().waiting:
                    await asyncio.sleep(0.001)
                await quiet(pool)
                await assert_whole(pool)
            burned = time.process_time()
            await asyncio.sleep(1)
            assert time.process_time() - burned < 0.5
        assert service.cancelled > CLIENTS / 10
        counts = await db.run_read(
            lambda native: native.execute("SELECT text, count(*) FROM note GROUP BY text").fetchall()
        )
    assert ("patient-0", 2) in counts
    assert {count for _, count in counts} == {2}
