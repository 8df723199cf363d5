"""The Prometheus subscriber and the OpenTelemetry pipeline show the same, so that one set of rules serves both."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import NamedTuple

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from aiosqlitepool import Holder, PoolStats, SQLiteConnectionPool, StatementStats, StatementTable
from aiosqlitepool.events import (
    AcquireCancelled,
    AcquireFailed,
    AcquireRejected,
    AcquireTimedOut,
    BackupEnded,
    BusyRetried,
    CheckpointBlocked,
    Checkpointed,
    CheckpointFailed,
    ConnectionClosed,
    ConnectionCreated,
    ConnectionCreateFailed,
    DatabaseFailed,
    ErrorInfo,
    HealthCheckFailed,
    LeakSuspected,
    PoolEvent,
    RolledBackOnReturn,
    StatementKind,
    StatementSlow,
    TransactionEnded,
)
from aiosqlitepool.pool.registry import release_name
from aiosqlitepool.subscribers import _attributes, _metrics
from aiosqlitepool.subscribers._loop_lag import PoolLag
from aiosqlitepool.subscribers.opentelemetry import OpenTelemetrySubscriber
from aiosqlitepool.subscribers.prometheus import PrometheusSubscriber

from ..support.acquires import acquired, released
from ..support.stub import StubConnection, StubDriver

DURATIONS = (0.0, 0.0001, 0.0004, 0.003, 0.05, 0.051, 0.7, 12.0, 400.0)
OUTCOMES = ("committed", "rolled_back", "failed")
REASONS = ("idle", "lifetime", "unhealthy", "reset_failed", "broken", "pool_closed")

CODES = ("SQLITE_FULL", "SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_ERROR")

ERROR = "sqlite3.OperationalError"
SCAN = "SCAN orders  <-- full scan of orders"
# By normalized statement: the operation, and the times of those that succeeded and of those that failed.
STATEMENTS = {
    "SELECT id FROM orders": ("SELECT", DURATIONS, (0.3,)),
    "SELECT id FROM users": ("SELECT", (0.2, 0.3), ()),
    "INSERT INTO orders VALUES (?)": ("INSERT", (0.00002,), (5.0, 6.0)),
    "UPDATE orders SET id = ?": ("UPDATE", (0.25,), ()),
    "DELETE FROM orders": ("DELETE", (0.125,), ()),
    "PRAGMA user_version": ("PRAGMA", (0.0625,), ()),
}
# What only OpenTelemetry has.
EXTRA = {"db_query_summary", "db_system_name", "db_namespace"}

Shown = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Wanted(NamedTuple):
    """What both subscribers are asked to show."""

    statement_summaries: int
    by_label: bool


def emit_everything(pool: SQLiteConnectionPool[StubConnection]) -> None:
    """Emit and record all that a metric is made of, with every value of every label."""
    for path in ("idle", "new", "queued"):
        for wait in DURATIONS:
            acquired(pool.events, wait, path, pool.name)  # type: ignore[arg-type]
    for use in DURATIONS:
        for label in (None, "GET /", "POST /"):
            released(pool.events, use, pool.name, label)
    pool.events.emit_statements(runs())
    for event in everything(pool.name):
        pool.events.emit(event)


def everything(pool: str) -> list[PoolEvent]:
    """Every event that a metric is made of, but acquires and releases."""
    error, closed = (
        ErrorInfo("sqlite3.OperationalError", "locked"),
        ErrorInfo("aiosqlitepool.errors.PoolClosedError", ""),
    )
    return [
        *(ConnectionCreated(pool, 1, time) for time in DURATIONS),
        *(ConnectionClosed(pool, 1, reason, 60.0) for reason in REASONS),  # type: ignore[arg-type]
        *(RolledBackOnReturn(pool, 1, cause, 0.1) for cause in ("in_flight", "transaction", "cursor")),  # type: ignore[arg-type]
        ConnectionCreateFailed(pool, 1.0, error),
        HealthCheckFailed(pool, 1, 60.0, error),
        AcquireTimedOut(pool, 30.0, 0, ()),
        AcquireCancelled(pool, 2.0, 0),
        AcquireRejected(pool, 0.0, 5),
        AcquireFailed(pool, 0.2, 0, error),
        AcquireFailed(pool, 0.3, 0, closed),
        *(TransactionEnded(pool, outcome, 0.2, time) for outcome in OUTCOMES for time in DURATIONS),  # type: ignore[arg-type]
        *(BusyRetried(pool, kind, 0.001) for kind in ("busy", "snapshot")),  # type: ignore[arg-type]
        *(Checkpointed(pool, result, 10, 10, 0.1, 0) for result in ("complete", "partial")),  # type: ignore[arg-type]
        CheckpointBlocked(pool, 70_000_000),
        LeakSuspected(pool, Holder(1, "Task-1", None, 60.0), 60.0),
        *(LeakSuspected(pool, Holder(1, "Task-1", f"GET /{n}", 60.0, statement="SELECT 1"), 60.0) for n in range(30)),
        CheckpointFailed(pool, error, 70_000_000),
        *(DatabaseFailed(pool, ErrorInfo("sqlite3.OperationalError", "", code)) for code in CODES),
        *(BackupEnded(pool, result, "copy.db", 2.0, 1.7e9) for result in ("completed", "failed", "cancelled")),  # type: ignore[arg-type]
        *(slow(pool, *each) for each in (("SELECT orders", SCAN), ("SELECT orders", SCAN), ("INSERT orders", ""))),
        *(slow(pool, f"SELECT t{number}", SCAN) for number in range(30)),
    ]


def slow(pool: str, summary: str, plan: str) -> StatementSlow:
    return StatementSlow(pool, 1, "SQL", "SELECT", summary, 0.0, 1.0, 0.0, 0, 0, plan=(plan,))


def runs() -> dict[StatementKind, tuple[float, ...]]:
    """The times of all statements, as a batch has them."""
    return {
        StatementKind(row.operation, row.summary, error): times
        for row in table()
        for error, times in zip((None, ERROR), STATEMENTS[row.statement][1:], strict=True)
        if times
    }


def table() -> StatementTable:
    """The same, as a pool has them."""
    return StatementTable(
        StatementStats(
            statement, operation, len(done + failed), len(failed), 0, 0, sum(done + failed), *[0.0] * 7, 1.0, 2.0, ()
        )
        for statement, (operation, done, failed) in STATEMENTS.items()
    )


class ObservedPool(SQLiteConnectionPool[StubConnection]):
    """Has run statements."""

    def statements(self) -> StatementTable:
        return table()


class WriterPool(ObservedPool):
    """As `SQLiteDatabase` has one."""

    def stats(self) -> PoolStats:
        return replace(
            super().stats(), role="write", wal_bytes=4096, database_bytes=8192, disk_free=10**9, inline_stall=0.001
        )


def shown(registry: CollectorRegistry) -> Shown:
    """Every sample as Prometheus reads it: an empty label is none. What only OpenTelemetry has is summed over."""
    found: Shown = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        extra = EXTRA if family.name == _metrics.OPERATION_DURATION.family else set()
        for sample in family.samples:
            labels = frozenset(
                (label, value)
                for label, value in sample.labels.items()
                if value and label not in extra and not label.startswith("otel_scope_")
            )
            found[sample.name, labels] = found.get((sample.name, labels), 0.0) + sample.value
    return found


@pytest.fixture(params=[Wanted(0, False), Wanted(3, True)], ids=["default", "opted in"])
def wanted(request: pytest.FixtureRequest) -> Wanted:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def both(wanted: Wanted, monkeypatch: pytest.MonkeyPatch) -> tuple[Shown, Shown]:
    """What each shows after the same events."""
    monkeypatch.setattr(PoolLag, "seconds", lambda lag: 0.25)  # without a loop, there is none to measure
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    provider = MeterProvider(
        [PrometheusMetricReader(registry=theirs, disable_target_info=True)], shutdown_on_exit=False
    )
    subscribers = [
        PrometheusSubscriber(ours, **wanted._asdict()),
        OpenTelemetrySubscriber(None, provider, spans="off", **wanted._asdict()),
    ]
    clock = iter(range(10_000)).__next__
    pools = [
        WriterPool(StubDriver(), size, max_waiting=9, name=name, subscribers=subscribers, clock=lambda: float(clock()))
        for name, size in (("app.db/write", 1), ("other.db/write", 4))
    ]
    for pool in pools:
        pool.events.subscribe(HealthCheckFailed, _broken)
        emit_everything(pool)
    return shown(ours), shown(theirs)


def _broken(event: object) -> None:
    raise RuntimeError


def test_the_same_series_are_shown(both: tuple[Shown, Shown]) -> None:
    ours, theirs = both
    assert set(ours) == set(theirs)


def test_the_same_values_are_shown(both: tuple[Shown, Shown]) -> None:
    ours, theirs = both
    assert ours == pytest.approx(theirs)


def test_both_show_every_metric_of_the_catalogue(both: tuple[Shown, Shown], wanted: Wanted) -> None:
    suffixes = {"counter": "_total", "histogram": "_bucket", "level": "", "gauge": "", "time": ""}
    absent = set() if wanted.statement_summaries else {_metrics.STATEMENT_TIME}
    expected = {metric.family + suffixes[metric.kind] for metric in set(_metrics.METRICS) - absent}
    for side in both:
        assert expected <= {name for name, _ in side}


def test_the_descriptions_and_types_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def described(registry: CollectorRegistry) -> dict[str, tuple[str, str, str]]:
        return {family.name: (family.type, family.documentation, family.unit) for family in registry.collect()}

    ours, theirs = CollectorRegistry(), CollectorRegistry()
    provider = MeterProvider(
        [PrometheusMetricReader(registry=theirs, disable_target_info=True)], shutdown_on_exit=False
    )
    subscribers = [
        PrometheusSubscriber(ours, statement_summaries=3),
        OpenTelemetrySubscriber(None, provider, spans="off"),
    ]
    monkeypatch.setattr(PoolLag, "seconds", lambda lag: 0.25)
    pool = WriterPool(StubDriver(), max_waiting=9, name="app.db", subscribers=subscribers)
    emit_everything(pool)
    assert described(ours) == described(theirs)


def test_a_pool_of_no_database_has_no_series_of_one() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    provider = MeterProvider(
        [PrometheusMetricReader(registry=theirs, disable_target_info=True)], shutdown_on_exit=False
    )
    subscribers = [PrometheusSubscriber(ours), OpenTelemetrySubscriber(None, provider, spans="off")]
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=subscribers)
    of_databases = {metric.family for metric in _metrics.METRICS if metric.database}
    for side in map(shown, (ours, theirs)):
        assert side
        assert not [name for name, _ in side if name.startswith(tuple(of_databases))]
    assert pool.stats().role is None


def test_the_names_of_the_semantic_conventions_are_theirs() -> None:
    from opentelemetry.semconv._incubating.attributes import db_attributes
    from opentelemetry.semconv._incubating.metrics import db_metrics
    from opentelemetry.semconv.metrics.db_metrics import DB_CLIENT_OPERATION_DURATION

    official = {value for name, value in vars(db_metrics).items() if name.startswith("DB_CLIENT_CONNECTION_")}
    official.add(DB_CLIENT_OPERATION_DURATION)
    assert {metric.name for metric in _metrics.METRICS if metric.name.startswith("db.")} == official
    assert db_attributes.DB_CLIENT_CONNECTION_POOL_NAME == _attributes.POOL
    assert db_attributes.DB_CLIENT_CONNECTION_STATE == _attributes.STATE
    assert db_attributes.DB_SYSTEM_NAME == _attributes.SYSTEM
    assert db_attributes.DB_NAMESPACE == _attributes.NAMESPACE
    assert db_attributes.DB_OPERATION_NAME == _attributes.OPERATION
    assert db_attributes.DB_RESPONSE_STATUS_CODE == _attributes.STATUS_CODE
    assert db_attributes.DB_QUERY_SUMMARY == _attributes.SUMMARY


def test_the_operation_has_the_attributes_of_the_semantic_conventions() -> None:
    reader = InMemoryMetricReader()
    subscriber = OpenTelemetrySubscriber(None, MeterProvider([reader], shutdown_on_exit=False), spans="off")
    pool = ObservedPool(StubDriver(), name="app.db/read", subscribers=[subscriber])
    pool.events.emit_statements({StatementKind("SELECT", "SELECT orders", ERROR): (0.5,)})
    (metric,) = (
        metric
        for resource in reader.get_metrics_data().resource_metrics  # type: ignore[union-attr]
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "db.client.operation.duration"
    )
    (point,) = metric.data.data_points
    assert (metric.unit, metric.description) == ("s", "Duration of database client operations.")
    assert dict(point.attributes or {}) == {
        "db.client.connection.pool.name": "app.db/read",
        "db.system.name": "sqlite",
        "db.namespace": "app.db",
        "db.operation.name": "SELECT",
        "db.query.summary": "SELECT orders",
        "error.type": ERROR,
    }


@pytest.mark.parametrize(
    ("pool", "namespace"), [("app.db/read", "app.db"), ("a/b.db/write", "a/b.db"), ("app.db", "app.db"), ("/read", "")]
)
def test_the_namespace_is_the_name_of_the_database(pool: str, namespace: str) -> None:
    assert _metrics.namespace_of(pool) == namespace


def test_the_back_end_for_several_processes_shows_what_the_other_one_does(
    monkeypatch: pytest.MonkeyPatch, wanted: Wanted
) -> None:
    # It admits the summaries that come first, and shows all others as one: here there are no others.
    wanted = wanted._replace(statement_summaries=2 * wanted.statement_summaries)

    def observed() -> Shown:
        registry = CollectorRegistry()
        subscriber = PrometheusSubscriber(registry, **wanted._asdict())
        # A clock that stands still: ages are the same at every look.
        pool = ObservedPool(StubDriver(), 3, name="app.db", subscribers=[subscriber], clock=lambda: 5.0)
        pool.events.subscribe(HealthCheckFailed, _broken)
        emit_everything(pool)
        subscriber.refresh()
        release_name(pool, pool.name)
        return {key: value for key, value in shown(registry).items() if not key[0].endswith("_created")}

    alone = observed()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")  # asked by us now; by prometheus_client, at its import
    assert observed() == pytest.approx(alone)


async def test_the_back_end_for_several_processes_forgets_a_pool_that_was_detached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    registry = CollectorRegistry()
    subscriber = PrometheusSubscriber(registry)
    async with SQLiteConnectionPool(StubDriver(), 3, name="app.db") as pool:
        detach = pool.subscribe(subscriber)
        async with pool.connection():
            pass
        detach()
        detach()
        async with pool.connection():
            pass
        pool_label = {"db_client_connection_pool_name": "app.db"}
        assert registry.get_sample_value("db_client_connection_max", {**pool_label, "db_system_name": "sqlite"}) == 0
        new, idle = ({**pool_label, "aiosqlitepool_acquire_path": path} for path in ("new", "idle"))
        assert registry.get_sample_value("aiosqlitepool_acquires_total", new) == 1
        assert registry.get_sample_value("aiosqlitepool_acquires_total", idle) == 0
        assert pool.events.handlers == {}


def test_the_back_end_for_several_processes_keeps_no_pool_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "/nowhere")
    registry = CollectorRegistry()
    subscriber = PrometheusSubscriber(registry)
    pool = SQLiteConnectionPool(StubDriver(), 3, name="app.db", subscribers=[subscriber])
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    subscriber.refresh()
    assert gone() is None
    assert (
        registry.get_sample_value(
            "db_client_connection_max", {"db_client_connection_pool_name": "app.db", "db_system_name": "sqlite"}
        )
        == 0
    )
