"""Tests of the service: each has a database of its own, in a directory of its own.

From a clone, they run with:

    pytest examples/fastapi_service
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from fastapi.testclient import TestClient

from .app import app


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "test.db"
    monkeypatch.setenv("DATABASE", str(path))  # read when the application starts
    return path


# -- with httpx, in the event loop of the test


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    # httpx does not run the lifespan of an application.
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="https://service.test") as client:
            yield client


@pytest.mark.asyncio
async def test_a_user_that_was_added_is_there(client: httpx.AsyncClient) -> None:
    added = await client.post("/users", json={"name": "Ada"})
    assert added.status_code == 201
    assert (await client.get("/users")).json() == [{"id": 1, "name": "Ada", "posts": 0}]


@pytest.mark.asyncio
async def test_every_test_begins_with_an_empty_database(client: httpx.AsyncClient) -> None:
    assert (await client.get("/users")).json() == []


@pytest.mark.asyncio
async def test_requests_at_the_same_time_are_all_served(client: httpx.AsyncClient) -> None:
    await asyncio.gather(*(client.post("/users", json={"name": f"user {number}"}) for number in range(50)))
    answers = await asyncio.gather(*(client.get("/users") for _ in range(50)))
    assert [len(answer.json()) for answer in answers] == [50] * 50


@pytest.mark.asyncio
async def test_a_post_of_an_unknown_user_leaves_nothing_behind(client: httpx.AsyncClient) -> None:
    assert (await client.post("/posts", json={"user_id": 7, "text": "Hello"})).status_code == 404
    assert (await client.get("/posts/1")).status_code == 404


@pytest.mark.asyncio
async def test_what_the_service_wrote_can_be_read_and_prepared(client: httpx.AsyncClient) -> None:
    database = app.state.database
    async with database.write() as connection:
        await connection.execute("INSERT INTO user (name) VALUES ('Grace')")
    await client.post("/posts", json={"user_id": 1, "text": "Hello"})
    async with database.read() as connection:
        (row,) = await connection.execute_fetchall("SELECT name, posts FROM user")
    assert tuple(row) == ("Grace", 1)


# -- with Starlette's TestClient, which runs the application in an event loop of its own


def test_a_second_user_of_the_same_name_is_a_conflict() -> None:
    with TestClient(app) as client:
        assert client.post("/users", json={"name": "Ada"}).status_code == 201
        assert client.post("/users", json={"name": "Ada"}).status_code == 409


def test_what_was_committed_is_there_after_a_restart(database: Path) -> None:
    with TestClient(app) as client:
        client.post("/users", json={"name": "Ada"})
    assert not database.with_name("test.db-wal").exists()  # closed, and the WAL is in the file
    with TestClient(app) as client:
        assert [user["name"] for user in client.get("/users").json()] == ["Ada"]
