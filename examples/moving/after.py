"""A small service: users, their posts and their sessions, and a job that ends old sessions.

Requests share the connections of a SQLiteDatabase. To run it:

    DATABASE=app.db uvicorn after:app --app-dir examples/moving
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import aiosqlite
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel

from aiosqlitepool import SQLiteDatabase

PATH = os.environ.get("DATABASE", "app.db")
SESSION_SECONDS = 3600
SCHEMA = [
    "CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, posts INTEGER DEFAULT 0)",
    "CREATE TABLE IF NOT EXISTS posts (id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users, text TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS sessions (token TEXT PRIMARY KEY, user_id INTEGER REFERENCES users, expires REAL)",
]


class NewUser(BaseModel):
    name: str


class NewPost(BaseModel):
    text: str


async def set_up(conn: aiosqlite.Connection) -> None:
    conn.row_factory = aiosqlite.Row


def label(request: Request) -> str:
    return f"{request.method} {request.scope['route'].path}"


async def reading(request: Request) -> AsyncIterator[aiosqlite.Connection]:
    async with request.app.state.db.read(label(request)) as conn:
        yield conn


async def writing(request: Request) -> AsyncIterator[aiosqlite.Connection]:
    async with request.app.state.db.write(label(request)) as conn:
        yield conn


Reading = Annotated[aiosqlite.Connection, Depends(reading, scope="function")]
Writing = Annotated[aiosqlite.Connection, Depends(writing, scope="function")]


async def end_old_sessions(db: SQLiteDatabase) -> None:
    while True:
        async with db.write("end old sessions") as conn:
            await conn.execute("DELETE FROM sessions WHERE expires < ?", (time.time(),))
        await asyncio.sleep(60)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with SQLiteDatabase(PATH, on_connect=set_up) as db:
        async with db.write("create tables") as conn:
            for statement in SCHEMA:
                await conn.execute(statement)
        app.state.db = db
        job = asyncio.create_task(end_old_sessions(db))
        yield
        job.cancel()
        await asyncio.wait([job])


app = FastAPI(lifespan=lifespan)


async def user_of_session(conn: aiosqlite.Connection, token: str) -> int:
    query = "SELECT user_id FROM sessions WHERE token = ? AND expires >= ?"
    for row in await conn.execute_fetchall(query, (token, time.time())):
        return int(row["user_id"])
    raise HTTPException(401, "log in first")


@app.post("/users", status_code=201)
async def create_user(new: NewUser, conn: Writing) -> dict[str, Any]:
    try:
        cursor = await conn.execute("INSERT INTO users (name) VALUES (?)", (new.name,))
    except sqlite3.IntegrityError:
        raise HTTPException(409, f"there is a user {new.name!r} already") from None
    return {"id": cursor.lastrowid, "name": new.name}


@app.post("/sessions", status_code=201)
async def log_in(user: NewUser, conn: Writing) -> dict[str, str]:
    token = secrets.token_hex(16)
    for row in await conn.execute_fetchall("SELECT id FROM users WHERE name = ?", (user.name,)):
        session = (token, row["id"], time.time() + SESSION_SECONDS)
        await conn.execute("INSERT INTO sessions VALUES (?, ?, ?)", session)
        return {"token": token}
    raise HTTPException(404, f"there is no user {user.name!r}")


@app.post("/posts", status_code=201)
async def create_post(new: NewPost, conn: Writing, token: Annotated[str, Header()]) -> dict[str, Any]:
    user_id = await user_of_session(conn, token)
    await conn.execute("UPDATE users SET posts = posts + 1 WHERE id = ?", (user_id,))
    cursor = await conn.execute("INSERT INTO posts (user_id, text) VALUES (?, ?)", (user_id, new.text))
    return {"id": cursor.lastrowid, "text": new.text}


@app.get("/users/{user_id}")
async def read_user(user_id: int, conn: Reading) -> dict[str, Any]:
    for row in await conn.execute_fetchall("SELECT * FROM users WHERE id = ?", (user_id,)):
        return dict(row)
    raise HTTPException(404, f"there is no user {user_id}")


@app.get("/users/{user_id}/posts")
async def list_posts(user_id: int, conn: Reading) -> list[dict[str, Any]]:
    query = "SELECT id, text FROM posts WHERE user_id = ? ORDER BY id"
    return [dict(row) for row in await conn.execute_fetchall(query, (user_id,))]
