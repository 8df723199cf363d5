from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import AcquireSlow
from aiosqlitepool.subscribers.opentelemetry_instrumentor import AioSQLitePoolInstrumentor

from ..support.otlp import over_http
from ..support.stub import StubDriver
from .conftest import Telemetry


@pytest.fixture
def instrumentor(telemetry: Telemetry) -> Iterator[AioSQLitePoolInstrumentor]:
    instrumentor = AioSQLitePoolInstrumentor()
    instrumentor.instrument(
        tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider, skip_dep_check=True
    )
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def slow(pool: SQLiteConnectionPool[object]) -> None:  # type: ignore[type-var]
    pool.events.emit(AcquireSlow(pool.name, 1, "queued", 1.0))


def test_pools_made_later_are_observed(instrumentor: AioSQLitePoolInstrumentor, telemetry: Telemetry) -> None:
    slow(SQLiteConnectionPool(StubDriver(), name="later.db"))  # type: ignore[arg-type]
    assert (telemetry.span("aiosqlitepool.acquire").attributes or {})["db.client.connection.pool.name"] == "later.db"


def test_pools_made_earlier_are_observed(telemetry: Telemetry) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="earlier.db")
    instrumentor = AioSQLitePoolInstrumentor()
    instrumentor.instrument(tracer_provider=telemetry.tracer_provider, metrics=False, skip_dep_check=True)
    slow(pool)  # type: ignore[arg-type]
    instrumentor.uninstrument()
    assert len(telemetry.spans("aiosqlitepool.acquire")) == 1


def test_after_uninstrumenting_nothing_is_observed(
    instrumentor: AioSQLitePoolInstrumentor, telemetry: Telemetry
) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db")
    instrumentor.uninstrument()
    slow(pool)  # type: ignore[arg-type]
    assert pool.events.handlers == {}
    assert telemetry.spans("aiosqlitepool.acquire") == []


def test_it_depends_on_nothing_that_may_be_missing() -> None:
    assert list(AioSQLitePoolInstrumentor().instrumentation_dependencies()) == []


APP = """
import asyncio, aiosqlite
from aiosqlitepool import SQLiteConnectionPool

async def main():
    async with SQLiteConnectionPool(lambda: aiosqlite.connect(":memory:"), 1, name="app.db") as pool:
        async with pool.connection() as connection:
            await connection.execute("SELECT 1")

asyncio.run(main())
"""


def test_opentelemetry_instrument_observes_a_program_that_knows_nothing_of_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with over_http() as receiver:
        environment = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "none",
        }
        program = str(Path(sys.executable).with_name("opentelemetry-instrument"))
        subprocess.run([program, sys.executable, "app.py"], cwd=tmp_path, env=environment, check=True, timeout=100)
    assert receiver.span("aiosqlitepool.connect")
    (point,) = receiver.metric("db.client.connection.use_time").histogram.data_points
    assert point.count == 1
