from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
import structlog
from structlog.testing import CapturingLogger

from aiosqlitepool import PoolConnectionAcquireTimeoutError, SQLiteConnectionPool
from aiosqlitepool.events import (
    AcquireFailed,
    AcquireRejected,
    AcquireSlow,
    AcquireTimedOut,
    BackupEnded,
    BusyRetried,
    CheckpointBlocked,
    Checkpointed,
    CheckpointFailed,
    ConnectionAcquired,
    ConnectionClosed,
    ConnectionCreated,
    ConnectionReleased,
    DatabaseFailed,
    ErrorInfo,
    HealthCheckFailed,
    IdleReplaced,
    LeakReturned,
    LeakSuspected,
    PoolClosed,
    PoolOpened,
    RolledBackOnReturn,
    StatementSlow,
    TransactionEnded,
)
from aiosqlitepool.stats import Holder
from aiosqlitepool.subscribers.structlog import StructlogSubscriber

from ..support.acquires import acquired
from ..support.clock import Clock
from ..support.pools import StubPool, pool_of, queued
from ..support.stub import StubDriver, fails
from ..support.timeless import timeless
from .conftest import Telemetry

Records = list[tuple[str, dict[str, Any]]]


class Log:
    """A structlog logger of its own configuration that keeps what is logged."""

    def __init__(self, level: int = logging.DEBUG) -> None:
        self.capturing = CapturingLogger()
        wrapper = structlog.make_filtering_bound_logger(level)
        self.logger = structlog.wrap_logger(self.capturing, processors=[_unchanged], wrapper_class=wrapper)

    def subscriber(self, **options: Any) -> StructlogSubscriber:
        return StructlogSubscriber(self.logger, **options)

    def pool(self, **options: Any) -> StubPool:
        return SQLiteConnectionPool(StubDriver(), 2, name="app.db", subscribers=[self.subscriber(**options)])

    @property
    def records(self) -> Records:
        return [(call.method_name, dict(call.kwargs)) for call in self.capturing.calls]

    def names(self) -> list[str]:
        return [keys["event"] for _, keys in self.records]

    def only(self, event: str) -> tuple[str, dict[str, Any]]:
        """Level and keys of the only record of this name."""
        ((level, keys),) = [(level, keys) for level, keys in self.records if keys["event"] == event]
        return level, {key: value for key, value in keys.items() if key != "event"}


def _unchanged(logger: object, method: str, event: dict[str, Any]) -> dict[str, Any]:
    return event


@pytest.fixture
def log() -> Log:
    return Log()


def slow(pool: StubPool, wait_time: float = 0.05) -> None:
    acquired(pool.events, wait_time, pool=pool.name)


def timed_out(pool: StubPool) -> None:
    pool.events.emit(AcquireTimedOut(pool.name, 1.0, 0, ()))


# -- records


@timeless
async def test_the_life_of_a_pool_is_logged(log: Log) -> None:
    async with pool_of(StubDriver(), 2, max_waiting=7, subscribers=[log.subscriber()]) as pool, pool.connection():
        pass
    names = ["pool.opened", "pool.connection.created", "pool.connection.closed", "pool.closed"]
    assert log.names() == names
    limits = {"min_size": 0, "max_size": 2, "max_waiting": 7}
    assert log.only("pool.opened") == ("info", {"pool": "app.db", **limits})
    assert log.only("pool.closed") == ("info", {"pool": "app.db", "abandoned": 0})
    assert [level for level, _ in log.records] == ["info", "debug", "debug", "info"]


@timeless
async def test_a_slow_acquire_names_whom_it_waited_for() -> None:
    log = Log()
    async with pool_of(StubDriver(), 1, subscribers=[log.subscriber()]) as pool:
        async with pool.connection(label="nightly report"):
            waiter = await queued(pool, "GET /users")
            await asyncio.sleep(2)
        await pool.release(await waiter)
    level, keys = log.only("pool.acquire.slow")
    assert level == "warning"
    assert keys["wait_ms"] == keys["queue_ms"] == pytest.approx(2000, abs=1)
    assert (keys["path"], keys["connection"], keys["pending"], keys["label"]) == ("queued", 1, 0, "GET /users")
    (holder,) = keys["holders"]
    assert (holder["connection"], holder["label"]) == (1, "nightly report")
    assert json.dumps(keys)


def test_an_acquire_that_is_not_slow_is_not_logged(log: Log) -> None:
    slow(log.pool(), 0.0499)
    assert log.records == []


@timeless
async def test_what_is_slow_is_what_the_pool_says(log: Log) -> None:
    async with pool_of(StubDriver(), 1, slow_acquire=1, subscribers=[log.subscriber()]) as pool:
        for seconds in (0.9, 1.1):
            async with pool.connection():
                waiter = await queued(pool)
                await asyncio.sleep(seconds)
            await pool.release(await waiter)
    assert log.only("pool.acquire.slow")[1]["wait_ms"] == pytest.approx(1100, abs=1)


@timeless
async def test_a_timeout_is_an_error_that_names_the_holders() -> None:
    log = Log()
    subscribers = [log.subscriber()]
    async with pool_of(StubDriver(), 1, acquisition_timeout=2, subscribers=subscribers) as pool:
        held = await pool.acquire()
        with pytest.raises(PoolConnectionAcquireTimeoutError):
            await pool.acquire(label="GET /users")
        await pool.release(held)
    level, keys = log.only("pool.acquire.timeout")
    assert level == "error"
    assert keys["wait_ms"] == pytest.approx(2000, abs=1)
    assert keys["label"] == "GET /users"
    assert [holder["connection"] for holder in keys["holders"]] == [1]


async def test_a_failed_connect_is_an_error_with_its_reason(log: Log) -> None:
    driver = StubDriver()
    driver.on_connect = fails(OSError("disk on fire"))
    async with pool_of(driver, 1, subscribers=[log.subscriber()]) as pool:
        with pytest.raises(OSError, match="disk on fire"):
            await pool.acquire()
    level, keys = log.only("pool.connection.create_failed")
    assert (level, keys["error"], keys["error_type"]) == ("error", "OSError: disk on fire", "OSError")


FULL = ErrorInfo("sqlite3.OperationalError", "disk is full", "SQLITE_FULL")
FULL_KEYS = {
    "error": "sqlite3.OperationalError: disk is full",
    "error_type": "sqlite3.OperationalError",
    "error_code": "SQLITE_FULL",
}
HOLDER = Holder(1, "Task-1", "report", 90.0)
CROSSWISE = Holder(1, "Task-1", None, 90.0, coroutine="save", waits_for="app.db/write", waited=1.2)
SHOWN = [{"connection": 1, "task": "Task-1", "label": "report", "held_ms": 90000.0}]


@pytest.mark.parametrize(
    ("event", "name", "level", "keys"),
    [
        (
            HealthCheckFailed("app.db", 1, 60.0, ErrorInfo("OSError", "gone")),
            "pool.health.failed",
            "warning",
            {"connection": 1, "idle_ms": 60000.0, "error": "OSError: gone", "error_type": "OSError"},
        ),
        (
            IdleReplaced("app.db", 1, 60.0),
            "pool.connection.idle_replaced",
            "info",
            {"connection": 1, "idle_ms": 60000.0},
        ),
        (
            RolledBackOnReturn("app.db", 1, "transaction", 0.0015),
            "pool.return.rolled_back",
            "warning",
            {"connection": 1, "cause": "transaction", "reset_ms": 1.5},
        ),
        (
            LeakSuspected("app.db", HOLDER, 90.0),
            "pool.checkout.leak_suspected",
            "warning",
            {"use_ms": 90000.0, "holders": SHOWN},
        ),
        (
            LeakReturned("app.db", HOLDER, 90.0),
            "pool.checkout.leak_returned",
            "info",
            {"use_ms": 90000.0, "holders": SHOWN},
        ),
        (
            ConnectionCreated("app.db", 1, 0.002),
            "pool.connection.created",
            "debug",
            {"connection": 1, "create_ms": 2.0},
        ),
        (
            TransactionEnded("app.db", "failed", 0.001, 0.002, 3, "POST /users"),
            "pool.transaction.failed",
            "warning",
            {"wait_ms": 1.0, "duration_ms": 2.0, "retries": 3, "label": "POST /users"},
        ),
        (
            BusyRetried("app.db", "busy", 0.004, "POST /users"),
            "pool.busy.retried",
            "info",
            {"kind": "busy", "pause_ms": 4.0, "label": "POST /users"},
        ),
        (
            CheckpointBlocked("app.db", 70_000_000, (Holder(1, "Task-1", "report", 12.0),)),
            "pool.checkpoint.blocked",
            "warning",
            {
                "wal_bytes": 70_000_000,
                "holders": [{"connection": 1, "task": "Task-1", "held_ms": 12000.0, "label": "report"}],
            },
        ),
        (
            CheckpointFailed("app.db", FULL, 70_000_000),
            "pool.checkpoint.failed",
            "error",
            {"wal_bytes": 70_000_000, **FULL_KEYS},
        ),
        (
            DatabaseFailed("app.db", FULL, "POST /users", "INSERT INTO users VALUES (?)"),
            "pool.database.failed",
            "error",
            {**FULL_KEYS, "statement": "INSERT INTO users VALUES (?)", "label": "POST /users"},
        ),
        (DatabaseFailed("app.db", FULL), "pool.database.failed", "error", FULL_KEYS),
        (
            BackupEnded("app.db", "failed", "/backups/app.db", 0.5, 1.7e9, error=FULL),
            "pool.backup.failed",
            "error",
            {"target": "/backups/app.db", "backup_ms": 500.0, **FULL_KEYS},
        ),
        (
            TransactionEnded("app.db", "failed", 0.001, 0.002, error=FULL),
            "pool.transaction.failed",
            "warning",
            {"wait_ms": 1.0, "duration_ms": 2.0, "retries": 0, **FULL_KEYS},
        ),
        (
            Checkpointed("app.db", "partial", 10, 4, 0.002, 40960),
            "pool.checkpointed",
            "debug",
            {"result": "partial", "pages": 10, "moved": 4, "wal_bytes": 40960, "time_ms": 2.0},
        ),
        (
            ConnectionClosed("app.db", 1, "idle", 60.0),
            "pool.connection.closed",
            "debug",
            {"connection": 1, "reason": "idle", "age_ms": 60000.0},
        ),
    ],
)
def test_each_record_has_its_level_and_keys(
    log: Log, event: Any, name: str, level: str, keys: dict[str, object]
) -> None:
    log.pool().events.emit(event)
    assert log.only(name) == (level, {"pool": "app.db", **keys})


def test_a_holder_without_a_label_is_named_by_its_coroutine_with_what_it_waits_for(log: Log) -> None:
    log.pool().events.emit(LeakSuspected("app.db", CROSSWISE, 90.0))
    (shown,) = log.only("pool.checkout.leak_suspected")[1]["holders"]
    assert shown == {
        "connection": 1,
        "task": "Task-1",
        "held_ms": 90000.0,
        "coroutine": "save",
        "waits_for": "app.db/write",
        "waited_ms": 1200.0,
    }


@pytest.mark.parametrize("outcome", ["committed", "rolled_back"])
def test_a_transaction_that_ended_as_its_code_wanted_is_no_record(log: Log, outcome: Any) -> None:
    log.pool().events.emit(TransactionEnded("app.db", outcome, 0.001, 0.002))
    assert log.records == []


async def test_failing_handlers_of_others_are_an_error(log: Log) -> None:
    def broken(event: object) -> None:
        raise RuntimeError

    async with pool_of(StubDriver(), subscribers=[log.subscriber()]) as pool:
        pool.events.subscribe(ConnectionReleased, broken)
        async with pool.connection():
            pass
    level, keys = log.only("pool.subscriber.error")
    assert (level, keys["failed_event"], keys["error_type"]) == ("error", "release", "RuntimeError")
    assert "broken" in str(keys["handler"])


# -- traces


def test_inside_a_span_a_record_has_its_trace(log: Log, telemetry: Telemetry) -> None:
    pool = log.pool()
    with telemetry.tracer.start_as_current_span("request") as span:
        slow(pool)
    _, keys = log.only("pool.acquire.slow")
    context = span.get_span_context()
    assert (keys["trace_id"], keys["span_id"]) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")


def test_outside_a_span_a_record_has_no_trace(log: Log) -> None:
    slow(log.pool())
    _, keys = log.only("pool.acquire.slow")
    assert not {"trace_id", "span_id"} & set(keys)


def test_in_a_program_without_opentelemetry_a_record_has_no_trace(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    slow(log.pool())
    _, keys = log.only("pool.acquire.slow")
    assert not {"trace_id", "span_id"} & set(keys)


# -- floods


def test_a_flood_is_limited_and_says_how_much_was_left_out(log: Log, clock: Clock) -> None:
    pool = log.pool(burst=3, interval=10, clock=clock)
    for _ in range(100):
        slow(pool)
    clock.advance(10)
    slow(pool)
    slow(pool)
    assert [keys.get("left_out") for _, keys in log.records] == [None, None, None, 97, None]


def test_what_is_left_out_is_not_worked_out(log: Log, clock: Clock) -> None:
    """Most slow acquires of a full pool are left out."""

    class Unread:
        """A holder that must not be looked at."""

    pool = log.pool(burst=1, clock=clock)
    slow(pool)
    pool.events.emit(AcquireSlow(pool.name, 1, "queued", 1.0, holders=(Unread(),)))  # type: ignore[arg-type]
    assert log.names() == ["pool.acquire.slow"]
    assert pool.stats().subscriber_errors == 0


def test_one_flood_drowns_nothing_else(log: Log, clock: Clock) -> None:
    pool = log.pool(burst=1, clock=clock)
    for _ in range(10):
        slow(pool)
        timed_out(pool)
    assert log.names() == ["pool.acquire.slow", "pool.acquire.timeout"]


def test_one_pools_flood_drowns_no_other_pool(log: Log, clock: Clock) -> None:
    subscriber = log.subscriber(burst=1, clock=clock)
    for name in ("a.db", "b.db"):
        pool = SQLiteConnectionPool(StubDriver(), name=name, subscribers=[subscriber])
        slow(pool)
        slow(pool)
    assert [keys["pool"] for _, keys in log.records] == ["a.db", "b.db"]


def test_what_the_last_flood_left_out_is_told_when_the_pool_closes(log: Log, clock: Clock) -> None:
    pool = log.pool(burst=1, clock=clock)
    for _ in range(5):
        slow(pool)
    pool.events.emit(PoolClosed("app.db", 0))
    assert log.only("pool.closed")[1]["left_out"] == {"pool.acquire.slow": 4}


@timeless
async def test_what_was_left_out_is_logged_when_its_interval_ends(log: Log) -> None:
    clock = asyncio.get_running_loop().time
    pool = log.pool(burst=1, interval=10, clock=clock)
    slow(pool)
    await asyncio.sleep(4)
    for _ in range(5):
        slow(pool)
        timed_out(pool)
    await asyncio.sleep(5.5)
    assert log.names() == ["pool.acquire.slow", "pool.acquire.timeout"]
    await asyncio.sleep(1)
    left_out = log.records[-1]
    assert left_out == (
        "warning", {"event": "pool.records.left_out", "pool": "app.db", "left_out": {"pool.acquire.slow": 5}}
    )  # fmt: skip
    await asyncio.sleep(100)
    assert log.records[-1][0] == "error"
    assert log.records[-1][1]["left_out"] == {"pool.acquire.timeout": 4}
    assert len(log.records) == 4
    slow(pool)  # says nothing of what was logged already
    assert "left_out" not in log.records[-1][1]
    await pool.close()


@timeless
async def test_what_a_later_record_has_said_is_not_logged_again(log: Log, clock: Clock) -> None:
    pool = log.pool(burst=1, interval=10, clock=clock)
    slow(pool)
    slow(pool)
    clock.advance(10)
    slow(pool)
    await asyncio.sleep(20)
    assert [keys.get("left_out") for _, keys in log.records] == [None, 1]
    await pool.close()


@timeless
async def test_a_timer_of_an_earlier_interval_waits_for_the_end_of_the_later_one(log: Log, clock: Clock) -> None:
    pool = log.pool(burst=1, interval=10, clock=clock)
    slow(pool)
    slow(pool)
    clock.advance(10)
    slow(pool)
    slow(pool)
    await asyncio.sleep(10.5)
    assert [keys.get("left_out") for _, keys in log.records] == [None, 1]
    clock.advance(10)
    await asyncio.sleep(10.5)
    assert log.records[-1][1]["left_out"] == {"pool.acquire.slow": 1}
    await pool.close()


# -- the culprit


def test_a_holder_has_its_label_its_statement_and_whether_its_task_has_ended(log: Log) -> None:
    holder = Holder(1, "Task-3", "GET /export", 8.2, ended=True, statement="SELECT 1", statement_time=0.5)
    pool = log.pool()
    pool.events.emit(AcquireTimedOut("app.db", 1.0, 0, (holder,)))
    assert log.only("pool.acquire.timeout")[1]["holders"] == [
        {
            "connection": 1, "task": "Task-3", "held_ms": 8200.0, "label": "GET /export", "statement": "SELECT 1",
            "statement_ms": 500.0, "statement_runs": False, "ended": True,
        }
    ]  # fmt: skip


def test_a_rejected_acquire_is_a_warning(log: Log) -> None:
    log.pool().events.emit(AcquireRejected("app.db", 0.0, 7, "GET /"))
    level, keys = log.only("pool.acquire.rejected")
    assert (level, keys["pending"], keys["label"]) == ("warning", 7, "GET /")


def test_an_acquire_that_failed_is_an_error(log: Log) -> None:
    error = ErrorInfo("sqlite3.OperationalError", "unable to open database file")
    log.pool().events.emit(AcquireFailed("app.db", 0.25, 2, error, "GET /"))
    level, keys = log.only("pool.acquire.failed")
    assert (level, keys["wait_ms"], keys["pending"], keys["label"]) == ("error", 250.0, 2, "GET /")
    assert (keys["error_type"], keys["error"]) == (error.type, str(error))


# -- levels


def test_at_info_nothing_listens_to_what_is_only_worth_debugging() -> None:
    info, debug = Log(logging.INFO).pool(), Log(logging.DEBUG).pool()
    assert ConnectionCreated in debug.events.handlers
    assert ConnectionCreated not in info.events.handlers


def test_at_error_nothing_listens_to_acquires() -> None:
    assert AcquireSlow not in Log(logging.ERROR).pool().events.handlers


def test_above_error_nothing_listens_at_all() -> None:
    assert Log(logging.CRITICAL).pool().events.handlers == {}


def test_releases_and_acquires_that_are_not_slow_are_not_subscribed_to(log: Log) -> None:
    assert not {ConnectionReleased, ConnectionAcquired} & set(log.pool().events.handlers)


async def test_a_detached_pool_is_not_logged(log: Log) -> None:
    async with pool_of(StubDriver()) as pool:
        detach = pool.subscribe(log.subscriber())
        detach()
        detach()
        assert pool.events.handlers == {}


# -- the user's own configuration


@pytest.fixture
def configured() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_without_a_logger_the_configured_one_is_used_even_if_it_is_configured_later(configured: None) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[StructlogSubscriber()])
    out = StringIO()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(out),
    )
    slow(pool)
    record = json.loads(out.getvalue())
    assert (record["event"], record["level"], record["pool"]) == ("pool.acquire.slow", "warning", "app.db")


def test_context_variables_of_the_program_are_in_the_records(configured: None) -> None:
    out = StringIO()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(out),
    )
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[StructlogSubscriber()])
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        slow(pool)
    assert json.loads(out.getvalue())["request_id"] == "r-1"


@pytest.fixture
def stdlib(configured: None) -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def test_with_the_standard_library_behind_it_records_go_to_its_logger(
    stdlib: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "aiosqlitepool"):
        slow(SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[StructlogSubscriber()]))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("aiosqlitepool", "WARNING")
    assert json.loads(record.getMessage())["event"] == "pool.acquire.slow"


def test_with_the_standard_library_behind_it_its_level_counts(stdlib: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "aiosqlitepool"):
        pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[StructlogSubscriber()])
    assert AcquireSlow not in pool.events.handlers


async def test_an_asynchronous_logger_is_used_synchronously_for_nobody_would_await_it(
    stdlib: None, caplog: pytest.LogCaptureFixture
) -> None:
    structlog.configure(wrapper_class=structlog.stdlib.AsyncBoundLogger)
    with caplog.at_level(logging.WARNING, "aiosqlitepool"):
        pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[StructlogSubscriber()])
        slow(pool)
    (record,) = caplog.records
    assert json.loads(record.getMessage())["event"] == "pool.acquire.slow"
    assert PoolOpened not in pool.events.handlers


def test_a_logger_that_knows_no_levels_gets_everything() -> None:
    capturing = CapturingLogger()
    logger = structlog.wrap_logger(capturing, processors=[_unchanged], wrapper_class=structlog.BoundLogger)
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[StructlogSubscriber(logger)])
    pool.events.emit(ConnectionCreated("app.db", 1, 0.002))
    assert [call.method_name for call in capturing.calls] == ["debug"]


def test_a_processor_that_fails_is_never_noticed_by_the_pool(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("no disk")

    logger = structlog.wrap_logger(CapturingLogger(), processors=[broken])
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[StructlogSubscriber(logger)])
    slow(pool)
    assert pool.stats().subscriber_errors == 2  # the second is that it could not log the first
    assert "no disk" in caplog.text


def test_a_logger_of_another_library_is_refused() -> None:
    with pytest.raises(TypeError, match=r"logger must be a structlog logger.*wrap_logger"):
        StructlogSubscriber(logging.getLogger("app"))


ARGUMENTS = [
    ("interval", -1),
    ("interval", "10"),
    ("burst", 0),
    ("burst", "5"),
    ("burst", True),
    ("burst", float("nan")),
    ("clock", 3),
]


@pytest.mark.parametrize(("argument", "value"), ARGUMENTS)
def test_an_argument_that_makes_no_sense_is_refused_by_name(argument: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=argument):
        StructlogSubscriber(**{argument: value})


def test_several_subscribers_of_one_logger_log_each_event_once(log: Log) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db", subscribers=[log.subscriber(), log.subscriber()])
    acquired(pool.events, 1.0)
    assert len(log.capturing.calls) == 1


async def test_a_logger_that_cannot_say_which_levels_are_on_gets_every_record() -> None:
    out = StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(out),
        processors=[structlog.processors.JSONRenderer()],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    async with pool_of(StubDriver(), subscribers=[StructlogSubscriber(logger)]):
        pass
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["pool.opened", "pool.closed"]


def test_a_forgotten_pool_is_not_kept_by_what_detaches_it(log: Log) -> None:
    pool = SQLiteConnectionPool(StubDriver(), name="app.db")
    detach = pool.subscribe(log.subscriber())
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    detach()


# -- statements

SLOW = StatementSlow(
    "app.db", 3, "SELECT * FROM orders WHERE id > ?", "SELECT", "SELECT orders", 0.002, 1.5, 1.7e9, 7, 0,
    label="GET /", plan=("SCAN orders  <-- full scan of orders",),
)  # fmt: skip


def test_a_slow_statement_is_logged_with_its_plan() -> None:
    log = Log()
    log.pool().events.emit(SLOW)
    ((level, record),) = log.records
    assert (level, record) == (
        "warning",
        {
            "event": "pool.statement.slow",
            "pool": "app.db",
            "connection": 3,
            "label": "GET /",
            "statement": "SELECT * FROM orders WHERE id > ?",
            "operation": "SELECT",
            "wait_ms": 2.0,
            "run_ms": 1500.0,
            "rows": 7,
            "rows_changed": 0,
            "plan": ["SCAN orders  <-- full scan of orders"],
            "plan_warnings": ["full scan of orders"],
        },
    )


def test_a_slow_statement_that_failed_without_a_plan_says_so() -> None:
    log = Log()
    log.pool().events.emit(replace(SLOW, error="sqlite3.OperationalError", plan=(), label=None))
    ((_, record),) = log.records
    assert record["error"] == "sqlite3.OperationalError"
    assert not {"plan", "plan_warnings", "label"} & set(record)


def test_records_of_slow_statements_are_limited_and_say_how_many_were_left_out() -> None:
    log, clock = Log(), Clock()
    pool = log.pool(burst=2, interval=10, clock=clock)
    for _ in range(5):
        pool.events.emit(SLOW)
    clock.advance(10)
    pool.events.emit(SLOW)
    assert [record.get("left_out") for _, record in log.records] == [None, None, 3]


def test_a_holder_in_a_record_says_which_statement_it_runs() -> None:
    log, pool = Log(), StubPool(StubDriver(), name="app.db")
    pool.subscribe(log.subscriber())
    runs = Holder(1, "Task-1", "GET /", 12.0, statement="SELECT a", statement_time=11.5, statement_runs=True)
    pool.events.emit(LeakSuspected("app.db", runs, 12.0))
    ((_, record),) = log.records
    (holder,) = record["holders"]
    assert (holder["statement"], holder["statement_ms"], holder["statement_runs"]) == ("SELECT a", 11500.0, True)


def test_a_backup_that_is_complete_needs_no_record(log: Log) -> None:
    log.pool().events.emit(BackupEnded("app.db", "completed", "/backups/app.db", 0.5, 1.7e9))
    assert log.records == []
