from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from prometheus_client import CollectorRegistry

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.cli.top.endpoint import EndpointError
from aiosqlitepool.cli.top.page import page_url
from aiosqlitepool.cli.top.statements import SORTS, PoolStatements, read
from aiosqlitepool.debug import DebugApp
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

from ...support.pools import pool_of
from ...support.serving import served
from ...support.stub import StubDriver
from .rows import row

ODD = "\u202e\u2028é 表 🗂 \u200d"


async def test_it_reads_what_every_pool_of_a_page_says(database: Path) -> None:
    async with SQLiteDatabase(database, name="shop") as db, served(DebugApp(db)) as url:
        await db.execute("INSERT INTO note (text) VALUES ('secret')", label="POST /notes \ud800")
        await db.fetch_all(f"SELECT text AS [{ODD}] FROM note /* {'x' * 1_000_000} */")
        found = await asyncio.to_thread(read, page_url(url), lambda: 7.0)
        tables = (db.writer.statements(), db.readers.statements())
    assert found.at == 7.0
    assert found.now == pytest.approx(time.time(), abs=60)
    assert found.pools == tuple(
        PoolStatements(name, tuple(table), 0) for name, table in zip(("shop/write", "shop/read"), tables, strict=True)
    )
    assert "secret" not in repr(found)


async def test_it_reads_five_hundred_and_how_many_were_forgotten(database: Path) -> None:
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1) as pool, served(DebugApp(pool)) as url:
        async with pool.connection() as connection:
            for number in range(620):
                await connection.execute(f"SELECT 1 AS a{number}, 1 AS {'x' * 2_000}")
        (found,) = (await asyncio.to_thread(read, page_url(url))).pools
        table = pool.statements()
    assert (len(found.statements), found.forgotten) == (len(table), table.forgotten)
    assert len(table) + table.forgotten == 620


async def test_a_query_of_the_url_is_kept(driver: StubDriver) -> None:
    queries: list[str] = []

    async with pool_of(driver) as pool:
        app = DebugApp(pool)

        async def heard(scope: Any, receive: Any, send: Any) -> None:
            queries.append(scope["query_string"].decode())
            await app(scope, receive, send)

        async with served(heard) as url:
            await asyncio.to_thread(read, page_url(url))
            await asyncio.to_thread(read, page_url(f"{url}?token=7"))
    assert queries == ["statements", "token=7&statements"]


@pytest.mark.parametrize("sort", SORTS)
def test_they_are_sorted_by_one_figure_the_largest_first(sort: str) -> None:
    small, large = row("SELECT a", **{SORTS[sort]: 1}), row("SELECT b", **{SORTS[sort]: 2})
    assert PoolStatements("app.db", (small, large), 0).sorted_by(sort) == (large, small)


# -- addresses


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:8000", "http://localhost:8000/"),
        ("localhost:8000/debug/pool", "http://localhost:8000/debug/pool/"),
        ("https://app.test/debug/pool/#top", "https://app.test/debug/pool/"),
        ("http://localhost:8000/debug/pool/data.json", "http://localhost:8000/debug/pool/"),
        ("http://localhost:8000/debug/pool/data.json?token=7", "http://localhost:8000/debug/pool/?token=7"),
    ],
)
def test_the_address_is_that_of_the_page_or_of_its_json(text: str, url: str) -> None:
    assert page_url(text) == url


def test_what_is_no_address_is_refused_with_one_of_a_page() -> None:
    with pytest.raises(ValueError, match="must be a URL like http://127.0.0.1:8000/debug/pool/, not 'ftp://x'"):
        page_url("ftp://x")


# -- what is not a debug page


def test_metrics_are_told(driver: StubDriver, endpoint: Callable[[CollectorRegistry], str]) -> None:
    registry = CollectorRegistry()
    PrometheusSubscriber(registry).attach(_pool := SQLiteConnectionPool(driver, name="app.db"))
    with pytest.raises(EndpointError, match="serves Prometheus metrics, .*: pass the URL at which .*DebugApp is"):
        read(page_url(endpoint(registry)))


GOOD = {"pool": "app.db", "statements": [], "statements_forgotten": 0}


def page(**changes: Any) -> bytes:
    return json.dumps({"at": 1.0, "pools": [{**GOOD, **changes}]}).encode()


def statement(**changes: Any) -> bytes:
    known = row("SELECT 1")
    return page(statements=[{**{name: getattr(known, name) for name in known.__slots__}, **changes}])


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((404, "text/html", b""), "returned HTTP status 404 Not Found; pass the URL at which"),
        ((200, "text/html", b"<html>"), "returned no JSON of a debug page, but text/html: pass the URL"),
        ((200, "", b"hello"), "returned no JSON of a debug page, but content of unknown type"),
        ((200, "application/json", b"[" * 100_000), "returned no JSON of a debug page"),
        ((200, "application/json", b"[]"), "returned JSON without the statements of pools"),
        ((200, "application/json", b'{"at": 1, "pools": 7}'), "returned JSON without the statements of pools"),
        ((200, "application/json", b'{"at": NaN, "pools": []}'), "float instead of a finite number"),
        ((200, "application/json", page(pool=None)), "NoneType instead of a text"),
        ((200, "application/json", page(statements=[{}])), r"KeyError\('statement'\)"),
        ((200, "application/json", page(statements_forgotten="1")), "str instead of a finite number"),
        ((200, "application/json", statement(calls=10**400)), "OverflowError"),
        ((200, "application/json", statement(labels=[7])), "int instead of a text"),
    ],
)
def test_an_answer_that_is_of_no_use_is_told(says: Callable[..., str], answer: Any, complaint: str) -> None:
    with pytest.raises(EndpointError, match=complaint):
        read(page_url(says(answer)))


def test_fields_of_a_later_version_are_ignored(says: Callable[..., str]) -> None:
    url = page_url(says((200, "application/json", statement(colour="red"))))
    assert read(url).pools[0].statements == (row("SELECT 1"),)
