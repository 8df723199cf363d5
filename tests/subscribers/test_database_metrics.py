"""What a real `SQLiteDatabase` shows to Prometheus, in one process; parity says the same of OpenTelemetry."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from aiosqlitepool import SQLiteDatabase
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

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
