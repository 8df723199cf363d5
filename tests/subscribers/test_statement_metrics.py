"""What the metrics say of statements, and of use time by label; parity says that both subscribers say the same."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from aiosqlitepool import SQLiteConnectionPool
from aiosqlitepool.events import ConnectionReleased, StatementKind, StatementSlow, StatementTimings
from aiosqlitepool.subscribers._counts import Counts, PoolCounts
from aiosqlitepool.subscribers._limits import MOST_LABELS, MOST_SLOW
from aiosqlitepool.subscribers._metrics import STATEMENT_TIME
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

from ..support.acquires import released
from ..support.pools import pool_of
from ..support.stub import StubDriver
from .conftest import POOL, Scrape, Telemetry

DURATION = "db_client_operation_duration_seconds"
SLOW = "aiosqlitepool_statement_slow_total"
TIME = "aiosqlitepool_statement_time_seconds_total"
USES = "db_client_connection_use_time_seconds"
LABEL = "aiosqlitepool_acquire_label"
SUMMARY = "db_query_summary"

FilePool = SQLiteConnectionPool[aiosqlite.Connection]


def file_pool(database: Path, *subscribers: Any, **settings: Any) -> FilePool:
    return SQLiteConnectionPool(
        lambda: aiosqlite.connect(database), 2, name="app.db", subscribers=subscribers, **settings
    )


def series(registry: CollectorRegistry, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """All samples of this name, by their labels without the pool's."""
    return {
        frozenset((label, value) for label, value in sample.labels.items() if label != POOL): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == name
    }


def by(registry: CollectorRegistry, name: str, label: str) -> dict[str, float]:
    return {dict(labels).get(label, ""): value for labels, value in series(registry, name).items()}


# -- the duration of operations


async def test_statements_are_counted_by_operation_and_error(
    database: Path, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    async with file_pool(database, prometheus) as pool, pool.connection() as connection:
        for _ in range(3):
            await connection.execute_fetchall("SELECT text FROM note")
        await connection.execute("INSERT INTO note (text) VALUES ('x')")
        with pytest.raises(sqlite3.OperationalError):
            await connection.execute("SELECT nothing FROM note")
        counts = {
            (operation, error): scrape(f"{DURATION}_count", db_operation_name=operation, **error_label)
            for operation in ("SELECT", "INSERT", "UPDATE", "DELETE")
            for error, error_label in (("", {}), ("failed", {"error_type": "sqlite3.OperationalError"}))
        }
    assert counts == {
        ("SELECT", ""): 3, ("SELECT", "failed"): 1,
        ("INSERT", ""): 1, ("INSERT", "failed"): None,
        ("UPDATE", ""): 0, ("UPDATE", "failed"): None,
        ("DELETE", ""): 0, ("DELETE", "failed"): None,
    }  # fmt: skip


async def test_a_duration_is_the_time_in_the_worker_thread(
    database: Path, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    async with file_pool(database, prometheus) as pool, pool.connection() as connection:
        await connection.execute_fetchall("SELECT text FROM note")
        (row,) = pool.statements()
        assert scrape(f"{DURATION}_sum", db_operation_name="SELECT") == pytest.approx(row.run_total)


async def test_statements_are_observed_when_a_pool_closes_without_a_scrape(
    database: Path, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    async with file_pool(database, prometheus) as pool, pool.connection() as connection:
        await connection.execute_fetchall("SELECT text FROM note")
    assert scrape(f"{DURATION}_count", db_operation_name="SELECT") == 1


def test_what_a_program_sends_makes_no_operation_of_its_own(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    pool = SQLiteConnectionPool(driver, name="app.db", subscribers=[prometheus])
    pool.events.emit_statements({StatementKind("SELECT", f"SELECT t{n}", None): (0.1,) for n in range(10_000)})
    assert len(series(scrape.registry, f"{DURATION}_count")) == 4
    assert scrape(f"{DURATION}_count", db_operation_name="SELECT") == 10_000


# -- slow statements


async def test_a_slow_statement_is_counted_with_what_makes_its_plan_slow(
    database: Path, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    async with file_pool(database, prometheus, slow_statement=0) as pool, pool.connection() as connection:
        await connection.execute_fetchall("SELECT text FROM note WHERE text = 'secret'")
        await connection.execute_fetchall("SELECT text FROM note WHERE id = 1")
    scan = {SUMMARY: "SELECT note", "aiosqlitepool_statement_plan_warning": "full scan of note"}
    assert scrape(SLOW, **scan) == 1
    assert scrape(SLOW, **{SUMMARY: "SELECT note"}) == 1
    assert scrape(SLOW, **{SUMMARY: "other"}) == 0


def test_slow_statements_have_so_many_series_and_no_more(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    pool = SQLiteConnectionPool(driver, name="app.db", subscribers=[prometheus])
    for number in range(10_000):
        summary = f"SELECT t{number}"
        pool.events.emit(StatementSlow("app.db", 1, "SQL", "SELECT", summary, 0.0, 1.0, 0.0, 0, 0))
    found = by(scrape.registry, SLOW, SUMMARY)
    assert len(found) == MOST_SLOW + 1
    assert (found["SELECT t0"], found["other"]) == (1, 10_000 - MOST_SLOW)


# -- time by statement


async def test_time_is_shown_by_summary_if_it_is_asked_for(
    database: Path, scrape: Scrape, telemetry: Telemetry
) -> None:
    subscribers = (PrometheusSubscriber(scrape.registry, statement_summaries=5), telemetry.subscriber())
    async with file_pool(database, *subscribers) as pool, pool.connection() as connection:
        for sql in ("SELECT text FROM note", "SELECT id FROM note", "SELECT name FROM sqlite_master"):
            await connection.execute_fetchall(sql)
        expected = {"SELECT note": 0.0, "SELECT sqlite_master": 0.0}
        for row in pool.statements():
            expected[row.summary] += row.run_total
        assert by(scrape.registry, TIME, SUMMARY) == pytest.approx(expected)
        shown = {
            dict(labels)["db.query.summary"]: point.value  # type: ignore[union-attr]
            for labels, point in telemetry.points("aiosqlitepool.statement.time").items()
        }
        assert shown == pytest.approx(expected)


async def test_time_is_not_shown_and_no_table_read_if_it_is_not_asked_for(
    database: Path, prometheus: PrometheusSubscriber, scrape: Scrape, telemetry: Telemetry
) -> None:
    reads = list[object]()

    class Pool(FilePool):
        def statements(self) -> Any:
            reads.append(self)
            return super().statements()

    subscribers = (prometheus, telemetry.subscriber(statement_summaries=0))
    async with (
        Pool(lambda: aiosqlite.connect(database), name="app.db", subscribers=subscribers) as pool,
        pool.connection() as connection,
    ):
        await connection.execute_fetchall("SELECT text FROM note")
        assert series(scrape.registry, TIME) == {}
        assert telemetry.points("aiosqlitepool.statement.time") == {}
    assert reads == []


async def test_without_summaries_opentelemetry_tells_operations_apart_by_name_only(
    database: Path, telemetry: Telemetry
) -> None:
    async with file_pool(database, telemetry.subscriber(statement_summaries=0)) as pool:
        async with pool.connection() as connection:
            await connection.execute_fetchall("SELECT text FROM note")
    (labels,) = telemetry.points("db.client.operation.duration")
    assert dict(labels) == {
        "db.client.connection.pool.name": "app.db",
        "db.system.name": "sqlite",
        "db.namespace": "app.db",
        "db.operation.name": "SELECT",
    }


async def test_time_goes_on_where_it_was_after_the_table_was_reset(database: Path, scrape: Scrape) -> None:
    subscriber = PrometheusSubscriber(scrape.registry, statement_summaries=5)
    async with file_pool(database, subscriber) as pool, pool.connection() as connection:
        shown = list[float]()
        for _ in range(3):
            await connection.execute_fetchall("SELECT text FROM note")
            shown.append(by(scrape.registry, TIME, SUMMARY)["SELECT note"])
            pool.reset_statements()
            shown.append(by(scrape.registry, TIME, SUMMARY)["SELECT note"])
        assert shown == sorted(shown)
        assert shown[0] == shown[1] < shown[2] == shown[3] < shown[4] == shown[5]


async def test_time_is_read_when_a_pool_closes_and_goes_on_with_the_next_of_its_name(
    database: Path, scrape: Scrape
) -> None:
    subscriber, expected = PrometheusSubscriber(scrape.registry, statement_summaries=5), 0.0
    for _ in range(2):
        async with file_pool(database, subscriber) as pool:
            async with pool.connection() as connection:
                await connection.execute_fetchall("SELECT text FROM note")
            expected += pool.statements()[0].run_total
        assert by(scrape.registry, TIME, SUMMARY) == {"SELECT note": pytest.approx(expected)}


async def test_time_is_read_when_a_pool_is_detached(database: Path, scrape: Scrape) -> None:
    async with file_pool(database) as pool, pool.connection() as connection:
        detach = pool.subscribe(PrometheusSubscriber(scrape.registry, statement_summaries=5))
        await connection.execute_fetchall("SELECT text FROM note")
        detach()
        expected = pool.statements()[0].run_total
        await connection.execute_fetchall("SELECT text FROM note")
        assert by(scrape.registry, TIME, SUMMARY) == {"SELECT note": pytest.approx(expected)}


async def test_a_table_that_another_thread_reads_is_not_read_and_never_waited_for(database: Path) -> None:
    async with file_pool(database) as pool, pool.connection() as connection:
        every = Counts(lambda name: PoolCounts(name, 5), reads_statements=True)
        every.attach(pool)
        await connection.execute_fetchall("SELECT text FROM note")
        with every._reading:
            assert (STATEMENT_TIME, "app.db", ("SELECT note",)) not in every.counters()
        assert every.counters()[STATEMENT_TIME, "app.db", ("SELECT note",)] > 0


# -- use time by label


async def test_use_time_is_shown_by_label_if_it_is_asked_for(
    database: Path, scrape: Scrape, telemetry: Telemetry
) -> None:
    subscribers = (PrometheusSubscriber(scrape.registry, by_label=True), telemetry.subscriber(by_label=True))
    async with file_pool(database, *subscribers) as pool:
        for label in ("GET /", "GET /", "POST /", None):
            async with pool.connection(label):
                pass
    assert by(scrape.registry, f"{USES}_count", LABEL) == {"GET /": 2, "POST /": 1, "": 1}
    shown = {
        dict(labels).get("aiosqlitepool.acquire.label"): point.count  # type: ignore[union-attr]
        for labels, point in telemetry.points("db.client.connection.use_time").items()
    }
    assert shown == {"GET /": 2, "POST /": 1, None: 1}


async def test_without_it_a_release_is_no_event_and_all_labels_are_one(
    database: Path, prometheus: PrometheusSubscriber, scrape: Scrape, telemetry: Telemetry
) -> None:
    async with file_pool(database, prometheus, telemetry.subscriber()) as pool:
        assert ConnectionReleased not in pool.events.handlers
        for label in ("GET /", "POST /", None):
            async with pool.connection(label):
                pass
    assert by(scrape.registry, f"{USES}_count", LABEL) == {"": 3}
    assert telemetry.point("db.client.connection.use_time").count == 3  # type: ignore[union-attr]


def test_labels_have_so_many_series_and_no_more(driver: StubDriver, scrape: Scrape, telemetry: Telemetry) -> None:
    subscribers = [PrometheusSubscriber(scrape.registry, by_label=True), telemetry.subscriber(by_label=True)]
    pool = SQLiteConnectionPool(driver, name="app.db", subscribers=subscribers)
    for number in range(10_000):
        released(pool.events, 0.01, label=f"GET /{number}")
    found = by(scrape.registry, f"{USES}_count", LABEL)
    assert len(found) == MOST_LABELS + 2, "the others, and none"
    assert (found["GET /0"], found["other"], found[""]) == (1, 10_000 - MOST_LABELS, 0)
    assert len(telemetry.points("db.client.connection.use_time")) == MOST_LABELS + 1


def test_no_label_makes_a_scrape_fail(driver: StubDriver, scrape: Scrape) -> None:
    pool = SQLiteConnectionPool(
        driver, name="app.db", subscribers=[PrometheusSubscriber(scrape.registry, by_label=True)]
    )
    for label in ("half a pair \ud800", 'say "hi"\nand \\go', "x" * 100_000, "\x00", "{}=,'", ""):
        released(pool.events, 0.01, label=label)
    found = by(scrape.registry, f"{USES}_count", LABEL)
    assert found == {"half a pair ?": 1, 'say "hi"\nand \\go': 1, "x" * 200: 1, "\x00": 1, "{}=,'": 1, "": 1}


# -- what a program sends

SECRETS = (
    "PRAGMA key='s3cret'",
    'PRAGMA key = "s3cret"',
    "PRAGMA s3cret_less = 's3cret'",
    "ATTACH 'file:s3cret?key=s3cret' AS other",
    "SELECT 's3cret' FROM note -- it's s3cret",
    "SELECT text FROM note WHERE text = 's3cret' /* s3cret ' */ OR id = 1",
    "SELECT text FROM note WHERE text = 'it''s s3cret' AND text = x'533f' ORDER BY text",
    'SELECT "s3cret" FROM note WHERE text IS NOT DISTINCT FROM "s3cret"',
    "INSERT INTO note (text) VALUES ('s3cret'), ('数据库 \ud800 s3cret')",
    "VACUUM INTO 's3cret'",
    "-- s3cret's\nUPDATE note SET text = 's3cret'",
    "DELETE FROM note WHERE text = '\x00s3cret",
    "s3cret_word",
    "'s3cret",
)


async def test_no_literal_and_no_comment_is_in_any_label(
    tmp_path: Path, scrape: Scrape, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where one of the statements makes a file
    options = {"statement_summaries": 100, "by_label": True}
    subscribers = (PrometheusSubscriber(scrape.registry, **options), telemetry.subscriber(**options))  # type: ignore[arg-type]
    async with file_pool(tmp_path / "app.db", *subscribers, slow_statement=0) as pool:
        async with pool.connection() as connection:
            await connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text)")
            for sql in SECRETS:
                with contextlib.suppress(sqlite3.Error, UnicodeError, ValueError):
                    await connection.execute(sql)
        text = generate_latest(scrape.registry).decode()
        assert "SELECT note" in text
        assert "s3cret" not in text
        collected = repr(telemetry.reader.get_metrics_data())
        assert "SELECT note" in collected
        assert "s3cret" not in collected


async def test_ten_thousand_statements_and_labels_have_so_many_series_and_no_more(
    database: Path, scrape: Scrape, telemetry: Telemetry
) -> None:
    subscribers = (
        PrometheusSubscriber(scrape.registry, statement_summaries=20, by_label=True),
        telemetry.subscriber(by_label=True),
    )
    async with file_pool(database, *subscribers, slow_statement=0) as pool:
        for number in range(1000):
            async with pool.connection(f"GET /{number}") as connection:
                for each in range(10):
                    with pytest.raises(sqlite3.OperationalError, match="no such table"):
                        await connection.execute(f"SELECT x FROM t{number}_{each}")
    counted = {
        name: (len(found := series(scrape.registry, name)), sum(found.values()))
        for name in (f"{DURATION}_count", SLOW, f"{USES}_count")
    }
    assert counted == {f"{DURATION}_count": (5, 10_000), SLOW: (21, 10_000), f"{USES}_count": (52, 1000)}
    assert len(series(scrape.registry, TIME)) == 20
    numbers = {
        name: len(telemetry.points(name))
        for name in ("db.client.operation.duration", "aiosqlitepool.statement.time", "aiosqlitepool.statement.slow")
    }
    assert numbers == {
        "db.client.operation.duration": 21,
        "aiosqlitepool.statement.time": 20,
        "aiosqlitepool.statement.slow": 21,
    }


# -- threads


async def test_scrapes_and_collections_while_statements_run_lose_none(
    database: Path, scrape: Scrape, telemetry: Telemetry
) -> None:
    subscribers = (PrometheusSubscriber(scrape.registry, statement_summaries=5), telemetry.subscriber())
    done, failures, times = threading.Event(), list[Exception](), list[float]()

    def look() -> None:
        while not done.is_set():
            try:
                times.append(by(scrape.registry, TIME, SUMMARY).get("SELECT note", 0.0))
                telemetry.reader.get_metrics_data()
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(2)]
    async with file_pool(database, *subscribers) as pool:

        async def work() -> None:
            for _ in range(300):
                async with pool.connection() as connection:
                    await connection.execute_fetchall("SELECT text FROM note")

        threads[0].start()
        threads[1].start()
        try:
            await asyncio.gather(*(work() for _ in range(4)))
        finally:
            done.set()
            for thread in threads:
                await asyncio.to_thread(thread.join)
        expected = pool.statements()[0].run_total
    assert failures == []
    assert scrape(f"{DURATION}_count", db_operation_name="SELECT") == 1200
    collected = telemetry.points("db.client.operation.duration").values()
    assert [point.count for point in collected] == [1200]  # type: ignore[union-attr]
    assert by(scrape.registry, TIME, SUMMARY)["SELECT note"] == pytest.approx(expected)


async def test_a_batch_that_a_worker_thread_delivers_is_observed(
    database: Path, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    delivered = list[str]()
    async with file_pool(database, prometheus) as pool, pool.connection() as connection:
        pool.events.subscribe(StatementTimings, lambda timings: delivered.append(threading.current_thread().name))
        for _ in range(300):
            await connection.execute_fetchall("SELECT text FROM note")
        assert delivered
        assert threading.current_thread().name not in delivered
        assert scrape(f"{DURATION}_count", db_operation_name="SELECT") == 300


async def test_a_pool_without_statements_shows_that_there_were_none(
    driver: StubDriver, prometheus: PrometheusSubscriber, scrape: Scrape
) -> None:
    async with pool_of(driver, subscribers=[prometheus]) as pool, pool.connection() as connection:
        await connection.execute("SELECT 1")
    assert scrape(f"{DURATION}_count", db_operation_name="SELECT") == 0
