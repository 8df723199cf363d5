"""The service: users and their posts, over HTTP.

    DATABASE=service.db uvicorn fastapi_service.app:app --app-dir examples

A request that reads uses a read-only connection. One that writes waits for the writer, and is a transaction: it is
committed before the response is sent, and a failure rolls it back.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import aiosqlite
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from aiosqlitepool import PoolConnectionAcquireTimeoutError, PoolFullError, SQLiteDatabase

from . import telemetry
from .database import add_user, make_database, make_tables


class NewUser(BaseModel):
    """A new user."""

    name: str = Field(min_length=1, max_length=100)


class User(NewUser):
    """A user, and how many posts they wrote."""

    id: int
    posts: int


class NewPost(BaseModel):
    """A new post."""

    user_id: int
    text: str = Field(min_length=1, max_length=10_000)


class Post(NewPost):
    """A post."""

    id: int


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open a database while the service runs. Each run, and each test, has its own."""
    try:
        async with make_database(os.environ.get("DATABASE", "service.db")) as database:
            await database.run_write(make_tables)
            app.state.database = database
            yield
    finally:
        await telemetry.close(app)


app = FastAPI(title="Users and posts", lifespan=lifespan)
telemetry.observe(app)


def database_of(request: Request) -> SQLiteDatabase:
    """The database of the application that serves this request."""
    return request.app.state.database  # type: ignore[no-any-return]


def label(request: Request) -> str:
    """The label of a lease: errors and log records of waiters show it."""
    return f"{request.method} {request.scope['route'].path}"


async def reading(request: Request) -> AsyncIterator[aiosqlite.Connection]:
    """A connection that reads, for one request."""
    async with database_of(request).read(label(request)) as connection:
        yield connection


async def writing(request: Request) -> AsyncIterator[aiosqlite.Connection]:
    """The connection that writes, for one request: a transaction, which is rolled back if the request fails."""
    async with database_of(request).write(label(request)) as connection:
        yield connection


# With the scope of the function, a transaction is committed and its connection released before the response is sent.
Reading = Annotated[aiosqlite.Connection, Depends(reading, scope="function")]
Writing = Annotated[aiosqlite.Connection, Depends(writing, scope="function")]
Limit = Annotated[int, Query(ge=1, le=1000)]


@app.exception_handler(PoolConnectionAcquireTimeoutError)
@app.exception_handler(PoolFullError)
async def busy(request: Request, error: Exception) -> JSONResponse:
    """No connection, or no writer, in time: the client may retry. The pool's log records have the reason."""
    return JSONResponse({"detail": "busy, try again"}, status_code=503, headers={"Retry-After": "1"})


@app.get("/users")
async def list_users(connection: Reading, limit: Limit = 50) -> list[User]:
    """The newest users."""
    rows = await connection.execute_fetchall("SELECT * FROM user ORDER BY id DESC LIMIT ?", (limit,))
    return [User(**row) for row in rows]


@app.post("/users", status_code=201)
async def create_user(new: NewUser, request: Request) -> User:
    """Add a user in one trip to the worker thread, which is the fastest way."""
    try:
        number = await database_of(request).run_write(add_user, new.name, label=label(request))
    except sqlite3.IntegrityError:
        raise HTTPException(409, f"there is a user {new.name!r} already") from None
    return User(id=number, posts=0, **new.model_dump())


@app.get("/users/{user_id}")
async def read_user(user_id: int, connection: Reading) -> User:
    """One user."""
    for row in await connection.execute_fetchall("SELECT * FROM user WHERE id = ?", (user_id,)):
        return User(**row)
    raise HTTPException(404, f"there is no user {user_id}")


@app.get("/users/{user_id}/posts")
async def list_posts(user_id: int, connection: Reading, limit: Limit = 50) -> list[Post]:
    """The newest posts of one user."""
    select = "SELECT * FROM post WHERE user_id = ? ORDER BY id DESC LIMIT ?"
    return [Post(**row) for row in await connection.execute_fetchall(select, (user_id, limit))]


@app.post("/posts", status_code=201)
async def create_post(new: NewPost, connection: Writing) -> Post:
    """Add a post, and count it with its user: both or neither."""
    await connection.execute("UPDATE user SET posts = posts + 1 WHERE id = ?", (new.user_id,))
    try:
        cursor = await connection.execute("INSERT INTO post (user_id, text) VALUES (?, ?)", (new.user_id, new.text))
    except sqlite3.IntegrityError:
        # The block of the connection rolls back all earlier writes.
        raise HTTPException(404, f"there is no user {new.user_id}") from None
    return Post(id=cursor.lastrowid or 0, **new.model_dump())


@app.get("/posts/{post_id}")
async def read_post(post_id: int, connection: Reading) -> Post:
    """One post."""
    for row in await connection.execute_fetchall("SELECT * FROM post WHERE id = ?", (post_id,)):
        return Post(**row)
    raise HTTPException(404, f"there is no post {post_id}")


@app.get("/health", include_in_schema=False)
async def health(connection: Reading) -> dict[str, str]:
    """Whether the database answers within the time limit."""
    await connection.execute_fetchall("SELECT 1 FROM user LIMIT 1")
    return {"status": "ok"}
