from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import sys
from collections import Counter
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any

import aiosqlite
import pytest

from aiosqlitepool import PoolConnectionAcquireTimeoutError, PoolFullError, SQLiteConnectionPool
from aiosqlitepool.events import (
    AcquireCancelled,
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
    ConnectionCreateFailed,
    ConnectionReleased,
    DatabaseFailed,
    ErrorInfo,
    HealthCheckFailed,
    IdleReplaced,
    LeakReturned,
    LeakSuspected,
    PoolClosed,
    PoolEvent,
    PoolOpened,
    RolledBackOnReturn,
    StatementSlow,
    SubscriberFailed,
    TransactionEnded,
    event_types,
)
from aiosqlitepool.testing import Recorder

from .support.pools import StubPool, pool_of, queued
from .support.stub import StubDriver, fails, settle
from .support.timeless import timeless

NAMES: dict[type[PoolEvent], str] = {
    ConnectionCreated: "create",
    ConnectionCreateFailed: "create_fail",
    ConnectionAcquired: "acquire_wait",
    AcquireSlow: "acquire_slow",
    AcquireTimedOut: "acquire_timeout",
    AcquireCancelled: "acquire_cancel",
    AcquireRejected: "acquire_reject",
    AcquireFailed: "acquire_fail",
    ConnectionReleased: "release",
    RolledBackOnReturn: "rollback_on_return",
    HealthCheckFailed: "health_fail",
    IdleReplaced: "idle_replace",
    ConnectionClosed: "close",
    LeakSuspected: "leak_suspect",
    LeakReturned: "leak_return",
    SubscriberFailed: "subscriber_fail",
    StatementSlow: "statement_slow",
    DatabaseFailed: "database_fail",
    TransactionEnded: "transaction",
    BusyRetried: "busy_retry",
    Checkpointed: "checkpoint",
    CheckpointBlocked: "checkpoint_block",
    CheckpointFailed: "checkpoint_fail",
    BackupEnded: "backup_end",
    PoolOpened: "pool_open",
    PoolClosed: "pool_close",
}


# Told of aiosqlite, of handlers, or of databases, in tests of their own.
ELSEWHERE = {
    "statement_slow",
    "rollback_on_return",
    "subscriber_fail",
    "transaction",
    "busy_retry",
    "checkpoint",
    "checkpoint_block",
    "checkpoint_fail",
    "backup_end",
    "database_fail",
}

# -- what they are


@pytest.mark.parametrize(("kind", "name"), NAMES.items(), ids=NAMES.values())
def test_an_event_has_the_name_it_always_had(kind: type[PoolEvent], name: str) -> None:
    assert kind.name == name


def test_all_events_are_known_and_none_is_forgotten() -> None:
    assert set(event_types()) == set(NAMES)


@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_an_event_is_a_slotted_value_that_names_its_pool_first(kind: Any) -> None:
    fields = dataclasses.fields(kind)
    assert fields[0].name == "pool"
    event = kind("app.db", *[None for _ in fields[1:]])
    assert event == kind("app.db", *[None for _ in fields[1:]])
    assert not hasattr(event, "__dict__")
    with pytest.raises(AttributeError):
        event.anything = "other"


@pytest.mark.parametrize("kind", NAMES, ids=lambda kind: kind.__name__)
def test_an_event_shows_its_type_and_its_fields(kind: Any) -> None:
    event = kind("app.db", *[None for _ in dataclasses.fields(kind)[1:]])
    assert repr(event).startswith(f"{kind.__name__}(pool='app.db'")


def test_a_builtin_error_is_named_by_its_name_alone() -> None:
    assert ErrorInfo.of(OSError("disk I/O error")) == ErrorInfo("OSError", "disk I/O error")


def test_any_other_error_is_named_with_its_module() -> None:
    error = ErrorInfo.of(aiosqlite.OperationalError("database is locked"))
    assert error == ErrorInfo("sqlite3.OperationalError", "database is locked")


def test_an_error_of_sqlite_has_its_extended_code_and_the_primary_one_if_the_database_failed() -> None:
    failures = {code: ErrorInfo("sqlite3.OperationalError", "", code).database_code for code in CODES}
    assert failures == CODES
    assert ErrorInfo.of(OSError()).code is None


CODES = {
    "SQLITE_FULL": "SQLITE_FULL",
    "SQLITE_IOERR_WRITE": "SQLITE_IOERR",
    "SQLITE_BUSY_SNAPSHOT": "SQLITE_BUSY",
    "SQLITE_NOTADB": "SQLITE_NOTADB",
    "SQLITE_ERROR": None,
    "SQLITE_CONSTRAINT_UNIQUE": None,
    "SQLITE_INTERRUPT": None,
}


def test_an_error_reads_as_a_traceback_ends() -> None:
    assert str(ErrorInfo("OSError", "disk I/O error")) == "OSError: disk I/O error"
    assert str(ErrorInfo("OSError", "")) == "OSError"


def test_an_event_of_somebodys_own_is_one_too() -> None:
    class Paused(PoolOpened):
        """Somebody's own."""

    event = Paused("app.db", 0, 5, None)
    assert (type(event), event.pool, event.max_size) == (Paused, "app.db", 5)


# -- that they are told


async def everything_that_can_happen(pool: StubPool, driver: StubDriver) -> None:
    """Each event that a pool of one place over any driver can tell, at least once. Takes its time."""
    driver.on_connect = fails(OSError("no"))
    with pytest.raises(OSError, match="no"):
        await pool.acquire()
    driver.on_connect = None
    held = await pool.acquire(label="GET /users")
    cancelled = await queued(pool)
    with pytest.raises(PoolFullError):
        await pool.acquire()
    cancelled.cancel()
    await settle()
    with pytest.raises(PoolConnectionAcquireTimeoutError):
        await pool.acquire()
    await asyncio.sleep(40)  # a leak
    await pool.release(held)
    await asyncio.sleep(5)
    held.on_execute = fails(OSError("gone"))
    driver.on_connect = lambda: asyncio.sleep(1)
    await pool.release(await pool.acquire())  # a failing check, and a slow acquire
    await asyncio.sleep(100)  # too long idle
    await pool.close()


PLAINLY = {"acquisition_timeout": 3, "idle_timeout": 60, "leak_threshold": 30, "max_waiting": 1}


@timeless
async def test_every_event_but_the_rollback_is_told_for_any_driver(driver: StubDriver, recorder: Recorder) -> None:
    pool = pool_of(driver, 1, subscribers=[recorder], **PLAINLY)
    await everything_that_can_happen(pool, driver)
    assert set(recorder.names) == set(NAMES.values()) - ELSEWHERE
    assert {event.pool for event in recorder} == {"app.db"}


async def test_a_rollback_on_return_is_told_for_aiosqlite(database: Path, recorder: Recorder) -> None:
    pool = SQLiteConnectionPool(lambda: aiosqlite.connect(database), name="app.db", subscribers=[recorder])
    async with pool, pool.connection(label="POST /notes") as connection:
        await connection.execute("INSERT INTO note (text) VALUES ('never committed')")
    (event,) = recorder.of(RolledBackOnReturn)
    assert (event.pool, event.connection, event.cause, event.label) == ("app.db", 1, "transaction", "POST /notes")
    assert event.reset_time >= 0


@timeless
async def test_the_life_of_a_connection_is_told_in_order(driver: StubDriver, recorder: Recorder) -> None:
    async with pool_of(driver, 1, idle_timeout=60, subscribers=[recorder]) as pool:
        for _ in range(2):
            async with pool.connection():
                pass
        await asyncio.sleep(61)
    assert recorder.names == [
        "pool_open",
        "create",
        *["acquire_wait", "release"] * 2,
        "idle_replace",
        "close",
        "pool_close",
    ]


# -- when they are told: after the pool has changed


@pytest.mark.usefixtures("clean_releases")
@timeless
async def test_an_event_tells_of_a_pool_that_has_changed_already(driver: StubDriver) -> None:
    seen: dict[str, tuple[int, int, int]] = {}

    def look(event: PoolEvent) -> None:
        stats = pool.stats()
        seen.setdefault(event.name, (stats.used, stats.idle, stats.waiting))

    pool = pool_of(driver, 1, **PLAINLY)
    pool.events.subscribe(PoolEvent, look)
    await everything_that_can_happen(pool, driver)
    used_idle_waiting = {
        "pool_open": (0, 0, 0),
        "create_fail": (0, 0, 0),
        "acquire_fail": (0, 0, 0),
        "create": (1, 0, 1),
        "acquire_wait": (1, 0, 0),
        "acquire_slow": (1, 0, 0),
        "acquire_reject": (1, 0, 1),
        "acquire_cancel": (1, 0, 0),
        "acquire_timeout": (1, 0, 0),
        "leak_suspect": (1, 0, 0),
        "release": (0, 1, 0),
        "leak_return": (0, 1, 0),
        "health_fail": (1, 0, 1),
        "idle_replace": (0, 0, 0),
        "pool_close": (0, 0, 0),
    }
    del seen["close"]  # a close ends when the driver has closed: at no particular moment
    assert seen == used_idle_waiting


# -- in whose context


@timeless
async def test_an_event_is_told_in_the_task_it_belongs_to(driver: StubDriver) -> None:
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="nobody")
    told: list[tuple[str, str]] = []

    async def caller(name: str, seconds: float) -> None:
        request.set(name)
        async with pool.connection():
            await asyncio.sleep(seconds)

    async with pool_of(driver, 1, acquisition_timeout=3) as pool:
        pool.events.subscribe(PoolEvent, lambda event: told.append((event.name, request.get())))
        first = asyncio.create_task(caller("first", 2))
        await settle()
        second = asyncio.create_task(caller("second", 5))
        await settle()
        third = asyncio.create_task(caller("third", 0))
        await settle()
        fourth = asyncio.create_task(caller("fourth", 0))
        await settle()
        fourth.cancel()
        await asyncio.gather(first, second, third, fourth, return_exceptions=True)
    assert told[:-2] == [
        ("create", "first"),
        ("acquire_wait", "first"),
        ("acquire_cancel", "fourth"),
        ("release", "first"),
        ("acquire_slow", "second"),
        ("acquire_wait", "second"),
        ("acquire_timeout", "third"),
        ("release", "second"),
    ]


# -- at no price when nobody listens


class Constructions:
    """Counts how often an event is made, by watching for calls of their constructors. Touches no class."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        # By identity: the constructors of two events with the same fields have equal code.
        self._names: dict[int, str] = {
            id(function.__code__): kind.__name__
            for kind in event_types()
            for function in (vars(kind).get("__init__"), vars(kind).get("__new__"))
            if isinstance(function, FunctionType)
        }
        assert set(self._names.values()) == {kind.__name__ for kind in event_types()}

    def _see(self, frame: FrameType, what: str, _: object) -> None:
        if what == "call" and id(frame.f_code) in self._names:
            self.made[self._names[id(frame.f_code)]] += 1

    def __enter__(self) -> Counter[str]:
        sys.setprofile(self._see)
        return self.made

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


@timeless
async def test_an_event_nobody_subscribed_to_is_never_made(driver: StubDriver) -> None:
    pool = pool_of(driver, 1, **PLAINLY)
    with Constructions() as made:
        await everything_that_can_happen(pool, driver)
    assert pool.events.handlers == {}
    assert made == Counter()


@timeless
async def test_only_what_somebody_subscribed_to_is_made(driver: StubDriver, recorder: Recorder) -> None:
    pool = pool_of(driver, 1, **PLAINLY)
    pool.events.subscribe(IdleReplaced, recorder.append)
    with Constructions() as made:
        await everything_that_can_happen(pool, driver)
    assert made == Counter(IdleReplaced=1)
    assert recorder.names == ["idle_replace"]


@timeless
async def test_with_a_subscriber_each_event_is_made_once(driver: StubDriver, recorder: Recorder) -> None:
    pool = pool_of(driver, 1, subscribers=[recorder, Recorder()], **PLAINLY)
    with Constructions() as made:
        await everything_that_can_happen(pool, driver)
    assert made == Counter(type(event).__name__ for event in recorder)


@timeless
async def test_a_subscriber_that_raises_changes_nothing_for_the_pool(driver: StubDriver) -> None:
    def raises(event: PoolEvent) -> None:
        raise BaseException("broken")

    pool = pool_of(driver, 1, **PLAINLY)
    pool.events.subscribe(PoolEvent, raises)
    await everything_that_can_happen(pool, driver)
    stats = pool.stats()
    assert (stats.state, stats.used, stats.idle, driver.open) == ("closed", 0, 0, 0)
    assert stats.subscriber_errors >= len(NAMES) - len(ELSEWHERE)


@timeless
async def test_a_handler_may_use_the_pool(driver: StubDriver) -> None:
    tasks: list[asyncio.Task[Any]] = []
    async with pool_of(driver, 2) as pool:
        detach = pool.events.subscribe(ConnectionReleased, lambda _: tasks.append(asyncio.create_task(pool.acquire())))
        async with pool.connection():
            pass
        detach()
        await pool.release(await tasks[0])
        while pool.stats().used:  # a second connection was begun to be opened for it, while the first was reset
            await asyncio.sleep(0)
        assert len(tasks) == 1
