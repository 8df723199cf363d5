"""Tests of the service: each has a database of its own, in a directory of its own.

From a clone, they run with:

    cd examples && pytest fastapi_sqlmodel
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from alembic import command

from .app import app
from .database import ALEMBIC


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "test.db"
    monkeypatch.setenv("DATABASE", str(path))  # read when the application starts
    return path


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    # httpx does not run the lifespan of an application.
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="https://service.test") as client:
            yield client


@pytest.mark.asyncio
async def test_a_hero_that_was_added_is_there(client: httpx.AsyncClient) -> None:
    added = await client.post("/heroes", json={"name": "Ada"})
    assert (added.status_code, added.json()) == (201, {"id": 1, "name": "Ada", "strength": 0})
    assert (await client.get("/heroes/1")).json() == added.json()
    assert (await client.get("/heroes")).json() == [added.json()]


@pytest.mark.asyncio
async def test_every_test_begins_with_an_empty_database(client: httpx.AsyncClient) -> None:
    assert (await client.get("/heroes")).json() == []


@pytest.mark.asyncio
async def test_a_hero_who_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    assert (await client.get("/heroes/7")).status_code == 404
    assert (await client.post("/heroes/7/training", json={"by": 1})).status_code == 404


@pytest.mark.asyncio
async def test_a_second_hero_of_the_same_name_is_a_conflict(client: httpx.AsyncClient) -> None:
    assert (await client.post("/heroes", json={"name": "Ada"})).status_code == 201
    assert (await client.post("/heroes", json={"name": "Ada"})).status_code == 409
    assert len((await client.get("/heroes")).json()) == 1


@pytest.mark.asyncio
async def test_no_training_is_lost_when_all_train_at_once(client: httpx.AsyncClient) -> None:
    await client.post("/heroes", json={"name": "Ada"})
    await asyncio.gather(*(client.post("/heroes/1/training", json={"by": 1}) for _ in range(50)))
    assert (await client.get("/heroes/1")).json()["strength"] == 50


@pytest.mark.asyncio
async def test_readers_do_not_wait_for_the_writer(client: httpx.AsyncClient) -> None:
    async with app.state.database.write():
        assert (await client.get("/heroes")).status_code == 200


# -- migrations


def test_the_migrations_make_what_the_models_say() -> None:
    command.upgrade(ALEMBIC, "head")
    command.check(ALEMBIC)


def test_a_hero_of_the_first_version_is_still_there_in_the_last_and_back_in_the_first(database: Path) -> None:
    command.upgrade(ALEMBIC, "0001")
    heroes = sqlite3.connect(database, isolation_level=None)
    heroes.execute("INSERT INTO hero (name) VALUES ('Ada')")
    command.upgrade(ALEMBIC, "head")
    assert heroes.execute("SELECT name, strength FROM hero").fetchall() == [("Ada", 0)]
    command.downgrade(ALEMBIC, "0001")
    assert heroes.execute("SELECT name FROM hero").fetchall() == [("Ada",)]
    heroes.close()
