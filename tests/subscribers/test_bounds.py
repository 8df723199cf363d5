"""Names, labels and types of errors by the thousand: the series of each subscriber stay bounded, and add up."""

from __future__ import annotations

import gc
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import AcquireFailed, ConnectionCreated, ErrorInfo
from aiosqlitepool.subscribers._counts import Counts, PoolCounts
from aiosqlitepool.subscribers._limits import MOST_ERRORS, MOST_LABELS
from aiosqlitepool.subscribers._metrics import ACQUIRES, CLOSED, LAST_BACKUP
from aiosqlitepool.subscribers._pool_names import MOST_PAST, PoolNames
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

from ..support.acquires import acquired, released
from ..support.stub import StubDriver
from .conftest import Telemetry
from .test_statement_times import row

POOL, LABEL, ERROR = "db_client_connection_pool_name", "aiosqlitepool_acquire_label", "error_type"
MANY = 1_000
WAITS, USES = "db_client_connection_wait_time_seconds", "db_client_connection_use_time_seconds"
ACQUIRED = "aiosqlitepool_acquires_total"


def hostile(number: int) -> str:
    return f'"}}{number}\n\\{"x" * 1_000}'


def samples(registry: CollectorRegistry, name: str) -> list[tuple[dict[str, str], float]]:
    return [
        (sample.labels, sample.value)
        for family in registry.collect()
        for sample in family.samples
        if sample.name == name
    ]


def total(registry: CollectorRegistry, name: str) -> float:
    return sum(value for _, value in samples(registry, name))


async def use(pool: SQLiteConnectionPool[Any], number: int) -> None:
    """Let happen to a pool what has series: an acquire, a use with a label, an error of a type."""
    acquired(pool.events, 0.001, "queued")
    released(pool.events, 0.001, label=hostile(number))
    error = ErrorInfo(f"m.Error{number}", hostile(number))
    pool.events.emit(AcquireFailed(pool.name, 0.1, 0, error))
    pool.events.emit(ConnectionCreated(pool.name, 1, 0.01))
    await pool.close()


@pytest.mark.parametrize("named", [True, False], ids=["names", "no names"])
async def test_pools_without_end_have_a_bounded_number_of_series_that_add_up(driver: StubDriver, named: bool) -> None:
    registry = CollectorRegistry()
    subscriber = PrometheusSubscriber(registry, by_label=True, statement_summaries=5)
    for number in range(MANY):
        name = f"tenant-{number}-{'é' * 180}" if named else None
        await use(SQLiteConnectionPool(driver, name=name, subscribers=[subscriber]), number)
    pools = {labels[POOL] for labels, _ in samples(registry, ACQUIRED)}
    assert len(pools) == (MOST_PAST + 1 if named else 1)
    assert ("_OTHER" in pools, "unnamed" in pools) == (named, not named)
    # Of one pool at most 100 labels and types of errors are shown, of past pools together as many.
    for name, label in ((f"{USES}_count", LABEL), (f"{WAITS}_count", ERROR)):
        by_pool = Counter(labels[POOL] for labels, _ in samples(registry, name) if label in labels)
        assert max(by_pool.values()) <= 101
    assert total(registry, ACQUIRED) == MANY
    assert total(registry, f"{USES}_count") == MANY
    assert total(registry, f"{WAITS}_count") == 2 * MANY
    assert total(registry, "db_client_connection_create_time_seconds_count") == MANY
    # 101 names with 200 series each, nearly all of them buckets.
    assert sum(len(family.samples) for family in registry.collect()) < (25_000 if named else 5_000)
    assert generate_latest(registry).isascii() is not named


async def test_one_pool_with_labels_and_errors_without_end_has_a_bounded_number_of_series(driver: StubDriver) -> None:
    registry = CollectorRegistry()
    pool = SQLiteConnectionPool(driver, name="a" * 200, subscribers=[PrometheusSubscriber(registry, by_label=True)])
    for number in range(MANY):
        released(pool.events, 0.001, label=hostile(number))
        pool.events.emit(AcquireFailed(pool.name, 0.1, 0, ErrorInfo(f"m.Error{number}", "")))
    uses, waits = samples(registry, f"{USES}_count"), samples(registry, f"{WAITS}_count")
    assert len(uses) == MOST_LABELS + 2  # without a label, and "other"
    assert len(waits) == MOST_ERRORS + 2  # without an error, and "_OTHER"
    assert max(len(labels.get(LABEL, "")) for labels, _ in uses) == 200
    assert (sum(value for _, value in uses), sum(value for _, value in waits)) == (MANY, MANY)


async def test_in_opentelemetry_too_past_pools_have_a_bounded_number_of_series(
    driver: StubDriver, telemetry: Telemetry
) -> None:
    subscriber = telemetry.subscriber(by_label=True)
    async with SQLiteConnectionPool(driver, name="open", subscribers=[subscriber]):
        for number in range(3 * MOST_PAST):
            pool = SQLiteConnectionPool(driver, name=f"tenant-{number}", subscribers=[subscriber])
            await use(pool, number)
        nameless = SQLiteConnectionPool(driver, subscribers=[subscriber])
        await use(nameless, 0)
        for metric in (ACQUIRES.name, "db.client.connection.wait_time", "db.client.connection.create_time"):
            pools = {dict(attributes)["db.client.connection.pool.name"] for attributes in telemetry.points(metric)}
            assert pools == {*(f"tenant-{number}" for number in range(MOST_PAST)), "_OTHER", "unnamed"} | (
                {"open"} if metric == ACQUIRES.name else set()
            )
        acquires = sum(getattr(point, "value", 0) for point in telemetry.points(ACQUIRES.name).values())
        assert acquires == 3 * MOST_PAST + 1


# -- which name a pool has


async def test_open_pools_have_series_of_their_own_however_many_have_closed(driver: StubDriver) -> None:
    names = PoolNames()
    opened = [SQLiteConnectionPool(driver, name=f"open-{number}") for number in range(2 * MOST_PAST)]
    assert [names.shown(pool) for pool in opened] == [pool.name for pool in opened]
    for pool in opened:
        await pool.close()
    assert names.shown(SQLiteConnectionPool(driver, name="late")) == "_OTHER"
    assert names.shown(SQLiteConnectionPool(driver, name="open-0")) == "open-0"


async def test_a_pool_that_is_collected_is_a_past_one(driver: StubDriver) -> None:
    names = PoolNames()
    for number in range(MOST_PAST):
        names.shown(SQLiteConnectionPool(driver, name=f"lost-{number}"))
    gc.collect()
    assert names.shown(SQLiteConnectionPool(driver, name="late")) == "_OTHER"


async def test_pools_without_a_name_are_one_to_metrics(driver: StubDriver) -> None:
    first, second = SQLiteConnectionPool(driver, 2), SQLiteConnectionPool(driver, 3)
    registry = CollectorRegistry()
    subscriber = PrometheusSubscriber(registry)
    subscriber.attach(first)
    subscriber.attach(second)
    assert samples(registry, "db_client_connection_max") == [({POOL: "unnamed", "db_system_name": "sqlite"}, 5)]
    for pool, seconds in ((first, 0.001), (second, 0.002)):
        acquired(pool.events, seconds, "queued")
    assert total(registry, f"{WAITS}_count") == 2
    await first.close()
    acquired(first.events, 0.003, "queued")  # as of a lease that outlives its pool
    first.events.flush_timings()
    acquired(second.events, 0.003, "queued")
    assert samples(registry, f"{WAITS}_count") == [({POOL: "unnamed", "db_system_name": "sqlite"}, 4)]
    assert total(registry, f"{WAITS}_sum") == pytest.approx(0.009)
    assert samples(registry, "db_client_connection_max")[0][1] == 3
    await second.close()


def test_a_pool_knows_whether_it_was_given_a_name(driver: StubDriver) -> None:
    assert SQLiteConnectionPool(driver, name="pool-1").is_named
    assert not SQLiteConnectionPool(driver).is_named


# -- moving numbers


def test_numbers_are_added_and_of_times_the_last_counts() -> None:
    one, other = PoolCounts("a", 1), PoolCounts("_OTHER", 1)
    for counts, number, ended in ((one, 2, 30.0), (other, 3, 20.0)):
        counts.count(CLOSED, "idle", number=number)
        counts.note(LAST_BACKUP, "completed", number=ended)
        counts.errors = number
        counts.statement_times.read([row("SELECT 1", number)])
    one.move_to(other)
    assert (one.statement_times.shown(), other.statement_times.shown()) == ([], [("SELECT", 5.0)])
    assert (other.counts[CLOSED, ("idle",)], other.counts[LAST_BACKUP, ("completed",)], other.errors) == (5, 30.0, 5)
    assert (one.counts, one.errors) == ({}, 0)


async def test_of_times_of_pools_of_one_series_the_last_counts(driver: StubDriver) -> None:
    every: Counts[PoolCounts] = Counts(PoolCounts)
    for ended in (30.0, 20.0):
        counts, _ = every.attach(pool := SQLiteConnectionPool(driver))
        counts.note(LAST_BACKUP, "completed", number=ended)
        await pool.close()
    assert every.counters()[LAST_BACKUP, "unnamed", ("completed",)] == 30.0


@pytest.mark.parametrize("make", [lambda name: SQLiteConnectionPool(StubDriver(), name=name)], ids=["pool"])
def test_a_name_has_at_most_200_characters(make: Callable[[str], object]) -> None:
    make("a" * 200)
    with pytest.raises(ValueError, match=re.escape("name must have at most 200 characters, not 201: 'aaaa")):
        make("a" * 201)
