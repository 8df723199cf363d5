"""The spans of statements: which have one, whose child it is, and what it says and does not say."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.events import StatementExecuted
from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber

from ..support.worker import ENDLESS, began
from .conftest import Telemetry

READ = "SELECT note"


def pool_on(database: Path, telemetry: Telemetry, mode: str, **settings: Any) -> SQLiteConnectionPool[Any]:
    return SQLiteConnectionPool(
        lambda: aiosqlite.connect(database), 1, name="app.db", subscribers=[telemetry.subscriber(statements=mode)],
        **settings,
    )  # fmt: skip


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    assert span.attributes is not None
    return span.attributes


@pytest.mark.parametrize(("mode", "slow_after", "spans"), [
    ("off", 0, 0), ("slow", 0, 1), ("slow", 60, 0), ("slow", None, 0), ("all", 0, 1), ("all", 60, 1), ("all", None, 1),
])  # fmt: skip
async def test_the_mode_says_which_statements_have_a_span_and_none_has_two(
    database: Path, telemetry: Telemetry, mode: str, slow_after: float | None, spans: int
) -> None:
    async with pool_on(database, telemetry, mode, slow_statement=slow_after) as pool:
        await pool.fetch_all("SELECT * FROM note")
    assert len(telemetry.spans(READ)) == spans


async def test_only_the_mode_all_asks_for_every_statement(database: Path, telemetry: Telemetry) -> None:
    for mode, asks in (("slow", False), ("all", True)):
        async with pool_on(database, telemetry, mode) as pool:
            assert (StatementExecuted in pool.events.handlers) is asks


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="statements must be one of 'off', 'slow', 'all', not 'some'"):
        OpenTelemetrySubscriber(statements="some")  # type: ignore[arg-type]


async def test_a_span_says_what_ran_where_and_what_makes_its_plan_slow(database: Path, telemetry: Telemetry) -> None:
    async with pool_on(database, telemetry, "slow", slow_statement=0) as pool, pool.connection("GET /") as connection:
        await connection.execute_fetchall("SELECT id FROM note WHERE text = ?", ("secret",))
    span = telemetry.span(READ)
    said = dict(attributes(span))
    assert said.pop("aiosqlitepool.statement.wait_time") >= 0
    assert span.kind is SpanKind.CLIENT
    assert said == {
        "db.system.name": "sqlite",
        "db.namespace": "app.db",
        "db.client.connection.pool.name": "app.db",
        "db.operation.name": "SELECT",
        "db.query.summary": READ,
        "db.query.text": "SELECT id FROM note WHERE text = ?",
        "db.response.returned_rows": 0,
        "aiosqlitepool.connection.id": 1,
        "aiosqlitepool.acquire.label": "GET /",
        "aiosqlitepool.statement.plan": ("SCAN note  <-- full scan of note",),
        "aiosqlitepool.statement.plan_warning": "full scan of note",
    }


async def test_a_statement_whose_plan_is_good_has_no_warning(database: Path, telemetry: Telemetry) -> None:
    async with pool_on(database, telemetry, "slow", slow_statement=0) as pool, pool.connection() as connection:
        await connection.execute_fetchall("SELECT text FROM note WHERE id = 1")
        await connection.execute_fetchall("PRAGMA user_version")
    found = attributes(telemetry.span(READ))
    assert "aiosqlitepool.statement.plan" in found
    assert "aiosqlitepool.statement.plan_warning" not in found
    assert "aiosqlitepool.acquire.label" not in found
    assert "aiosqlitepool.statement.plan" not in attributes(telemetry.span("PRAGMA"))


@pytest.mark.parametrize("mode", ["slow", "all"])
async def test_the_span_is_a_child_of_the_callers_and_lies_within_it(
    database: Path, telemetry: Telemetry, mode: str
) -> None:
    async with SQLiteDatabase(
        database, name="app.db", slow_statement=0, subscribers=[telemetry.subscriber(statements=mode)]
    ) as db:
        with telemetry.tracer.start_as_current_span("request") as request:
            await db.execute("INSERT INTO note (text) VALUES ('a')")
            await db.fetch_all("SELECT * FROM note")
            async with db.write() as connection:
                await connection.execute("DELETE FROM note")
    parent = request.get_span_context()
    for name in ("INSERT note", READ, "DELETE note"):
        span = telemetry.span(name)
        assert span.parent is not None
        assert (span.parent.span_id, span.context.trace_id) == (parent.span_id, parent.trace_id)  # type: ignore[union-attr]
        assert attributes(span)["db.namespace"] == "app.db"
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time


async def test_a_statement_that_fails_is_an_error_without_its_message(database: Path, telemetry: Telemetry) -> None:
    async with pool_on(database, telemetry, "all") as pool:
        with pytest.raises(sqlite3.OperationalError):
            await pool.fetch_all("SELECT * FROM secret_table")
    span = telemetry.span("SELECT secret_table")
    assert span.status.status_code is StatusCode.ERROR
    assert (span.status.description, span.events) == (None, ())
    assert attributes(span)["error.type"] == "sqlite3.OperationalError"


async def test_a_cancelled_statement_is_no_error(database: Path, telemetry: Telemetry) -> None:
    async with pool_on(database, telemetry, "slow", slow_statement=0) as pool:
        async with pool.connection() as connection:
            running = await began(connection)
        task = asyncio.create_task(pool.fetch_all(ENDLESS))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (span,) = [each for each in telemetry.exporter.get_finished_spans() if "error.type" in (each.attributes or {})]
    assert attributes(span)["error.type"] == "cancelled"
    assert span.status.status_code is StatusCode.UNSET


async def test_no_value_gets_into_a_span(database: Path, telemetry: Telemetry) -> None:
    async with pool_on(database, telemetry, "all", slow_statement=0) as pool, pool.connection() as connection:
        await connection.execute_fetchall("PRAGMA key = 'hunter2'")
        await connection.execute_fetchall("SELECT 'hunter2' -- it's hunter2\n WHERE 1 = ?", ("hunter2",))
        await connection.execute_fetchall(f"SELECT '{'hunter2' * 150_000}'")
    shown = [span.to_json() for span in telemetry.exporter.get_finished_spans()]
    assert len(shown) >= 3
    assert not any("hunter2" in each for each in shown)
    assert all(len(each) < 10_000 for each in shown)


async def test_a_span_that_is_not_recorded_says_nothing_and_harms_nothing(database: Path) -> None:
    subscriber = OpenTelemetrySubscriber(statements="all", metrics=False)  # without an SDK
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(database), 1, subscribers=[subscriber]) as pool:
        assert await pool.fetch_val("SELECT 1") == 1
        assert pool.stats().subscriber_errors == 0
