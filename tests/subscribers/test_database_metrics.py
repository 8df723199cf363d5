"""What a real `SQLiteDatabase` shows to Prometheus, in one process; parity says the same of OpenTelemetry."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry

from aiosqlitepool import SQLiteConnectionPool, SQLiteDatabase
from aiosqlitepool.events import ConnectionCreateFailed, DatabaseCode, ErrorInfo, HealthCheckFailed
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

from ..support.stub import StubDriver

WRITE, READ = "app.db/write", "app.db/read"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def value(registry: CollectorRegistry, name: str, pool: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, {"db_client_connection_pool_name": pool, **labels})


async def test_transactions_are_shown_by_outcome_with_how_long_they_were_waited_for(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    async with SQLiteDatabase(tmp_path / "app.db", subscribers=[PrometheusSubscriber(registry)]) as database:
        await database.run_write(lambda connection: connection.execute("CREATE TABLE t (x)").close())
        with contextlib.suppress(ZeroDivisionError):
            async with database.write():
                raise ZeroDivisionError
        await database.run_read(lambda connection: connection.execute("SELECT x FROM t").fetchall())
        count = "aiosqlitepool_transaction_duration_seconds_count"
        outcomes = {
            outcome: value(registry, count, WRITE, aiosqlitepool_transaction_outcome=outcome)
            for outcome in ("committed", "rolled_back", "failed")
        }
        assert outcomes == {"committed": 1, "rolled_back": 1, "failed": 0}
        assert value(registry, "aiosqlitepool_transaction_wait_time_seconds_count", WRITE) == 2
        assert value(registry, count, READ, aiosqlitepool_transaction_outcome="committed") == 1


async def test_what_has_not_happened_yet_is_zero_and_not_absent(tmp_path: Path, registry: CollectorRegistry) -> None:
    async with SQLiteDatabase(tmp_path / "app.db", subscribers=[PrometheusSubscriber(registry)]):
        for pool in (WRITE, READ):
            for kind in ("busy", "snapshot"):
                assert value(registry, "aiosqlitepool_busy_retries_total", pool, aiosqlitepool_busy_kind=kind) == 0


async def test_the_size_of_the_wal_is_shown_and_a_checkpoint_takes_it_to_nothing(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    async with SQLiteDatabase(tmp_path / "app.db", subscribers=[PrometheusSubscriber(registry)]) as database:
        await database.run_write(lambda connection: connection.execute("CREATE TABLE t (x)").close())
        wal = (tmp_path / "app.db-wal").stat().st_size
        assert value(registry, "aiosqlitepool_wal_size_bytes", WRITE) == wal > 0
        assert value(registry, "aiosqlitepool_wal_size_bytes", READ) is None
        await database.checkpoint()
        assert value(registry, "aiosqlitepool_wal_size_bytes", WRITE) == 0
        complete = {"aiosqlitepool_checkpoint_result": "complete"}
        assert value(registry, "aiosqlitepool_checkpoints_total", WRITE, **complete) == 1


async def test_two_databases_of_one_name_have_series_of_their_own(tmp_path: Path, registry: CollectorRegistry) -> None:
    subscriber = PrometheusSubscriber(registry)
    async with (
        SQLiteDatabase(tmp_path / "1.db", name="app.db", subscribers=[subscriber]) as first,
        SQLiteDatabase(tmp_path / "2.db", name="app.db", subscribers=[subscriber]) as second,
    ):
        await second.run_write(lambda connection: connection.execute("CREATE TABLE t (x)").close())
        assert [database.name for database in (first, second)] == ["app.db", "app.db#2"]
        assert value(registry, "aiosqlitepool_wal_size_bytes", WRITE) == first.writer.stats().wal_bytes
        assert value(registry, "aiosqlitepool_wal_size_bytes", "app.db#2/write") == second.writer.stats().wal_bytes


async def test_failures_of_the_database_are_counted_by_the_primary_code(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    def count(pool: str, code: str) -> float | None:
        return value(registry, "aiosqlitepool_database_errors_total", pool, db_response_status_code=code)

    subscriber = PrometheusSubscriber(registry)
    pragmas = {"max_page_count": 10}
    async with SQLiteDatabase(tmp_path / "app.db", pragmas=pragmas, subscribers=[subscriber]) as database:
        await database.run_write(lambda connection: connection.execute("CREATE TABLE t (x)").close())
        assert [count(pool, code) for pool in (WRITE, READ) for code in CODES] == [0] * 20
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await database.execute("INSERT INTO t VALUES (zeroblob(100000))")
        assert [code for code in CODES if count(WRITE, code)] == ["SQLITE_FULL"]
        outcome = {"aiosqlitepool_transaction_outcome": "failed"}
        assert value(registry, "aiosqlitepool_transaction_duration_seconds_count", WRITE, **outcome) == 1


CODES = get_args(DatabaseCode)


@pytest.mark.parametrize("event_type", [ConnectionCreateFailed, HealthCheckFailed])
def test_a_connection_that_cannot_be_opened_or_is_found_broken_counts_with_its_code(
    registry: CollectorRegistry, event_type: Any
) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[PrometheusSubscriber(registry)])
    for code in ("SQLITE_CANTOPEN_ISDIR", None):
        error = ErrorInfo("sqlite3.OperationalError", "unable to open database file", code)
        numbers = (1.0,) if event_type is ConnectionCreateFailed else (1, 1.0)
        pool.events.emit(event_type("app.db", *numbers, error))
    labels = {"db_response_status_code": "SQLITE_CANTOPEN"}
    assert value(registry, "aiosqlitepool_database_errors_total", "app.db", **labels) == 1


async def test_the_size_of_the_database_and_what_its_disk_has_left_are_shown(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    async with SQLiteDatabase(tmp_path / "app.db", subscribers=[PrometheusSubscriber(registry)]):
        size = (tmp_path / "app.db").stat().st_size
        assert value(registry, "aiosqlitepool_database_size_bytes", WRITE) == size
        free = value(registry, "aiosqlitepool_disk_free_bytes", WRITE)
        assert free is not None
        assert free > 0
        assert value(registry, "aiosqlitepool_disk_free_bytes", READ) is None


async def test_backups_are_counted_by_result_with_the_time_of_the_last_one(
    tmp_path: Path, registry: CollectorRegistry
) -> None:
    def backups(name: str) -> list[float | None]:
        return [value(registry, name, WRITE, aiosqlitepool_backup_result=each) for each in ("completed", "failed")]

    count, last = "aiosqlitepool_backups_total", "aiosqlitepool_backup_last_time_seconds"
    async with SQLiteDatabase(tmp_path / "app.db", subscribers=[PrometheusSubscriber(registry)]) as database:
        assert (backups(count), backups(last)) == ([0, 0], [None, None])
        before = time.time()
        await database.backup(tmp_path / "copy.db")
        with contextlib.suppress(FileNotFoundError):
            await database.backup(tmp_path / "missing" / "copy.db")
        completed, failed = backups(last)
        assert backups(count) == [1, 1]
        assert completed is not None
        assert failed is not None
        assert before <= completed <= failed <= time.time()
