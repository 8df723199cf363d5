"""A Litestar service: accounts and transfers. The pool is in the app's state; with metrics and the debug page.

    pip install "aiosqlitepool[prometheus]" litestar uvicorn
    DATABASE=bank.db uvicorn --factory litestar_service:create_app --app-dir examples

    curl --json '{"owner": "Ada", "balance": 100}' localhost:8000/accounts
    curl localhost:8000/accounts/1
    curl localhost:8000/metrics          # and a page at http://localhost:8000/debug/pool/

Shows: an app factory that makes the pool, so that each test has its own app and file; a dependency that acquires a
connection for a request, with a label; a transfer that fails half-way and is rolled back.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any, cast

import aiosqlite
from litestar import Litestar, Request, Response, asgi, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import ClientException, NotFoundException
from litestar.params import FromPath, JSONBody
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec import Meta, Struct
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder

from aiosqlitepool import PoolConnectionAcquireTimeoutError, PoolFullError, SQLiteConnectionPool
from aiosqlitepool.debug import DebugApp
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

SCHEMA = """
CREATE TABLE IF NOT EXISTS account (
    id INTEGER PRIMARY KEY, owner TEXT NOT NULL, balance INTEGER NOT NULL CHECK (balance >= 0)
);
"""


class NewAccount(Struct):
    """A new account; the balance is in cents."""

    owner: Annotated[str, Meta(min_length=1, max_length=100)]
    balance: Annotated[int, Meta(ge=0)] = 0


class Account(NewAccount, kw_only=True):
    """An account."""

    id: int


class Transfer(Struct):
    """Money to be moved, in cents."""

    payer: int
    payee: int
    amount: Annotated[int, Meta(gt=0)]


Connection = NamedDependency[aiosqlite.Connection]


# -- handlers: each gets its connection by the name of the dependency


@post("/accounts")
async def open_account(data: JSONBody[NewAccount], connection: Connection) -> Account:
    """Add an account."""
    insert = "INSERT INTO account (owner, balance) VALUES (?, ?)"
    cursor = await connection.execute(insert, (data.owner, data.balance))
    await connection.commit()
    return Account(data.owner, data.balance, id=cursor.lastrowid or 0)


@get("/accounts/{number:int}")
async def read_account(number: FromPath[int], connection: Connection) -> Account:
    """One account."""
    select = "SELECT owner, balance FROM account WHERE id = ?"
    for row in await connection.execute_fetchall(select, (number,)):
        return Account(*row, id=number)
    raise NotFoundException(f"there is no account {number}")


@post("/transfers")
async def transfer(data: JSONBody[Transfer], connection: Connection) -> Transfer:
    """Move money: both balances change, or neither."""
    for number, amount in ((data.payer, -data.amount), (data.payee, data.amount)):
        update = "UPDATE account SET balance = balance + ? WHERE id = ?"
        try:
            changed = await connection.execute(update, (amount, number))
        except sqlite3.IntegrityError:
            raise ClientException(f"account {number} has less than {data.amount}", status_code=409) from None
        if not changed.rowcount:
            # The payer may have paid already. This is not committed: the pool rolls it back.
            raise NotFoundException(f"there is no account {number}")
    await connection.commit()
    return data


@get("/metrics", include_in_schema=False, sync_to_thread=True)
def metrics(request: Request[Any, Any, State], state: State) -> Response[bytes]:
    """The metrics for Prometheus."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(state.registry), headers={"Content-Type": content_type})


# -- the pool: made with the app, and open while the app runs


def make_pool(path: str, registry: CollectorRegistry) -> SQLiteConnectionPool[aiosqlite.Connection]:
    """A pool on this file, observed by Prometheus."""
    return SQLiteConnectionPool(
        lambda: aiosqlite.connect(path),
        pool_size=4,
        acquisition_timeout=5,
        max_waiting=200,
        name=os.path.basename(path),
        subscribers=[PrometheusSubscriber(registry)],
    )


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncGenerator[None, None]:
    """Make the tables, and open the pool until the server stops."""
    async with aiosqlite.connect(app.state.path) as connection:
        # The file keeps the mode. Set it once, alone: connections that set it at the same time fail.
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.executescript(SCHEMA)
    async with app.state.pool:
        yield


async def borrowed(request: Request[Any, Any, State], state: State) -> AsyncGenerator[aiosqlite.Connection, None]:
    """A connection for one request. Litestar ends this before it sends the response, and raises an error of it here."""
    pool = cast("SQLiteConnectionPool[aiosqlite.Connection]", state.pool)
    async with pool.connection(label=f"{request.method} {request.scope['path_template']}") as connection:
        yield connection


def busy(request: Request[Any, Any, State], error: Exception) -> Response[dict[str, str]]:
    """No connection in time: the caller may try again."""
    logging.getLogger(__name__).warning("%s", error)  # it names the holders
    return Response({"detail": "busy, try again"}, status_code=503, headers={"Retry-After": "1"})


def debug_page(pool: SQLiteConnectionPool[aiosqlite.Connection]) -> ASGIApp:
    """The debug page. It has no password: make it reachable for yourself only."""
    page = DebugApp(pool)

    @asgi("/debug/pool", is_mount=True, copy_scope=True)
    async def show(scope: Scope, receive: Receive, send: Send) -> None:
        await page(cast("dict[str, Any]", scope), cast(Any, receive), cast(Any, send))

    return cast(ASGIApp, show)


def create_app(path: str | None = None, registry: CollectorRegistry = REGISTRY) -> Litestar:
    """The service on this database file, or on the one that the environment names."""
    path = os.environ.get("DATABASE", "bank.db") if path is None else path
    pool = make_pool(path, registry)
    return Litestar(
        [open_account, read_account, transfer, metrics, debug_page(pool)],
        dependencies={"connection": Provide(borrowed)},
        exception_handlers={PoolConnectionAcquireTimeoutError: busy, PoolFullError: busy},
        lifespan=[lifespan],
        state=State({"path": path, "pool": pool, "registry": registry}),
    )
