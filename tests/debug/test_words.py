from __future__ import annotations

from dataclasses import replace

import pytest

from aiosqlitepool import Holder
from aiosqlitepool.debug.words import describe, duration
from aiosqlitepool.events import (
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
    ConnectionCreateFailed,
    DatabaseFailed,
    ErrorInfo,
    HealthCheckFailed,
    LeakSuspected,
    PoolClosed,
    PoolEvent,
    RolledBackOnReturn,
    StatementSlow,
    SubscriberFailed,
    TransactionEnded,
    event_types,
)

CROSSWISE = Holder(1, "Task-1", None, 12.0, coroutine="save", waits_for="db/write", waited=11.0)
SLOW = StatementSlow(
    "db", 1, "SELECT * FROM orders", "SELECT", "SELECT orders", 0.0, 1.2, 1.7e9, 5, 0,
    plan=("SCAN orders  <-- full scan of orders",),
)  # fmt: skip
HOLDERS = (Holder(1, "Task-1", "GET /users", 12.0), Holder(2, "Task-2", None, 0.2), Holder(3, "Task-3", None, 0.1))
FULL = ErrorInfo("sqlite3.OperationalError", "disk is full", "SQLITE_FULL")
BROKEN = ErrorInfo("sqlite3.OperationalError", "unable to open database file")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 µs"),
        (0.00085, "850 µs"),
        (0.0123, "12.3 ms"),
        (0.25, "250 ms"),
        (0.9999, "1.00 s"),
        (9.99, "9.99 s"),
        (42.04, "42.0 s"),
        (185.0, "3 min 5 s"),
        (7440.0, "2 h 4 min"),
    ],
)
def test_a_time_reads_well_at_every_size(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("event", "level", "text"),
    [
        (
            AcquireSlow("db", 2, "queued", 0.031, 0.031, pending=3, holders=HOLDERS),
            "info",
            "connection 2 after 31.0 ms in the queue, behind 3; held by GET /users (12.0 s), Task-2 (200 ms), 1 more",
        ),
        (AcquireSlow("db", 2, "new", 0.25), "info", "connection 2, a new one, after 250 ms"),
        (ConnectionAcquired("db", 2, "queued", 0.031), "info", "connection 2 after 31.0 ms in the queue"),
        (ConnectionAcquired("db", 2, "new", 0.002), "info", "connection 2, a new one, after 2.0 ms"),
        (
            ConnectionAcquired("db", 2, "idle", 0.002, check_time=0.001),
            "info",
            "connection 2 after 2.0 ms, of which 1.0 ms for its check",
        ),
        (
            AcquireTimedOut("db", 0.5, 1, HOLDERS[:1]),
            "error",
            "gave up after 500 ms; held by GET /users (12.0 s); 1 other still waiting",
        ),
        (AcquireTimedOut("db", 0.5, 0, ()), "error", "gave up after 500 ms"),
        (
            AcquireTimedOut("db", 0.5, 0, (CROSSWISE,)),
            "error",
            "gave up after 500 ms; held by save (12.0 s, waits for db/write)",
        ),
        (AcquireRejected("db", 0.0, 7), "error", "rejected, 7 others waiting already"),
        (
            ConnectionCreateFailed("db", 0.001, BROKEN),
            "error",
            "could not connect within 1.0 ms: sqlite3.OperationalError: unable to open database file",
        ),
        (
            HealthCheckFailed("db", 4, 3.0, BROKEN),
            "warning",
            "connection 4 failed its check after 3.00 s idle: sqlite3.OperationalError: unable to open database file",
        ),
        (
            RolledBackOnReturn("db", 4, "transaction", 0.0002),
            "warning",
            "connection 4 released with an open transaction, reset in 200 µs",
        ),
        (ConnectionClosed("db", 4, "reset_failed", 300.0), "info", "connection 4 closed (reset failed), 5 min 0 s old"),
        (PoolClosed("db", 0), "info", "closed"),
        (ConnectionAcquired("db", 2, "idle", 0.0), "info", "connection 2 at once"),
        (TransactionEnded("db", "rolled_back", 0.001, 0.2), "info", "rolled back after 200 ms, begun after 1.0 ms"),
        (
            TransactionEnded("db", "failed", 0.001, 0.2, error=FULL),
            "info",
            "failed after 200 ms, begun after 1.0 ms: sqlite3.OperationalError: disk is full",
        ),
        (
            DatabaseFailed("db", FULL, "POST", "INSERT INTO t VALUES (?)"),
            "error",
            "SQLITE_FULL in INSERT INTO t VALUES (?): sqlite3.OperationalError: disk is full",
        ),
        (DatabaseFailed("db", FULL), "error", "SQLITE_FULL: sqlite3.OperationalError: disk is full"),
        (
            CheckpointFailed("db", FULL, 70_000_000),
            "error",
            "checkpoint failed, 70.0 MB of WAL: sqlite3.OperationalError: disk is full",
        ),
        (BackupEnded("db", "completed", "/b/a.db", 2.0, 1.7e9), "info", "backup to /b/a.db completed after 2.00 s"),
        (
            BackupEnded("db", "failed", "/b/a.db", 2.0, 1.7e9, error=FULL),
            "info",
            "backup to /b/a.db failed after 2.00 s: sqlite3.OperationalError: disk is full",
        ),
        (SLOW, "warning", "SELECT * FROM orders took 1.20 s; full scan of orders"),
        (replace(SLOW, error="OSError", plan=()), "warning", "SELECT * FROM orders took 1.20 s, OSError"),
        # The page shows the label of an event beside its words.
        (TransactionEnded("db", "committed", 0.0, 0.2, 0, "POST"), "info", "committed after 200 ms, begun after 0 µs"),
        (BusyRetried("db", "busy", 0.004), "warning", "another process holds the database (busy), retry in 4.0 ms"),
        (Checkpointed("db", "partial", 9, 4, 0.2, 0), "info", "4 of 9 pages of the WAL copied in 200 ms"),
        (CheckpointBlocked("db", 70_000_000), "warning", "70.0 MB of WAL, held by another process"),
        (
            CheckpointBlocked("db", 70_000_000, (Holder(1, "Task-1", "report", 12.0),)),
            "warning",
            "70.0 MB of WAL, held by report (12.0 s)",
        ),
        (
            SubscriberFailed("db", "release", "<function f>", ErrorInfo("OSError", "no disk")),
            "error",
            "a handler failed on release: OSError: no disk",
        ),
        (
            LeakSuspected("db", HOLDERS[0], 12.0),
            "warning",
            "Task-1 has held connection 1 for too long",
        ),
        (
            LeakSuspected(
                "db", replace(CROSSWISE, statement="SELECT 1", statement_time=3.0, statement_runs=True), 12.0
            ),
            "warning",
            "save has held connection 1 for too long, 3.00 s of it in SELECT 1",
        ),
        (
            LeakSuspected("db", replace(CROSSWISE, statement="x" * 300, statement_time=0.003), 12.0),
            "warning",
            f"save has held connection 1 for too long, last in {'x' * 200}… for 3.0 ms",
        ),
        (PoolClosed("db", 2), "info", "closed, 2 connections while in use"),
    ],
)
def test_an_event_is_told_in_a_sentence(event: PoolEvent, level: str, text: str) -> None:
    assert describe(event) == (level, text)


def test_every_event_there_is_has_a_sentence() -> None:
    from aiosqlitepool.debug.words import _SENTENCES

    assert set(_SENTENCES) == set(event_types())


def test_an_event_of_a_kind_that_is_not_known_is_told_by_its_name() -> None:
    class Another(PoolEvent):
        name = "another"

    assert describe(Another("db")) == ("info", "another")
