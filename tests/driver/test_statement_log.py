"""What a pool remembers of the statements that ran, and what it emits of them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import threading
from collections.abc import Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final

import pytest

from aiosqlitepool.bus import EventBus
from aiosqlitepool.driver.statement_log import MOST_STATEMENTS, Figures, StatementLog
from aiosqlitepool.events import (
    PoolEvent,
    StatementExecuted,
    StatementKind,
    StatementPlace,
    StatementSlow,
    StatementTimings,
)

from ..support.clock import Clock
from ..support.stub import settle

NATIVE = sqlite3.connect(":memory:", check_same_thread=False)


def record(log: StatementLog, sql: Any, figures: Figures) -> None:
    log.record(sql, figures, 1, native=NATIVE, context=Context())


def log_of(*texts: str, label: str | None = None, ran: float = 0.001) -> StatementLog:
    log = StatementLog(clock=Clock())
    for text in texts:
        record(log, text, ("thread", label, 0.0005, ran, 1, 0, None))
    return log


def test_statements_that_differ_in_literals_only_are_one() -> None:
    log = log_of("SELECT 1", "SELECT 2", "SELECT  'three'", "SELECT a")
    assert [(row.statement, row.calls) for row in log.table()] == [("SELECT ?", 3), ("SELECT a", 1)]


def test_a_row_has_the_sums_and_the_extremes() -> None:
    clock = Clock()
    log = StatementLog(clock=clock)
    for number in range(1, 101):
        record(log, "SELECT a", ("thread", "GET /", 0.0, number / 1000, 2, 1, "ValueError" if number == 100 else None))
    (row,) = log.table()
    assert (row.operation, row.calls, row.errors, row.rows, row.rows_changed) == ("SELECT", 100, 1, 200, 100)
    assert (row.run_total, row.run_mean, row.run_max) == pytest.approx((5.05, 0.0505, 0.1))
    assert row.run_p99 == pytest.approx(0.099, rel=0.2)
    assert (row.wait_total, row.wait_max, row.wait_p99) == (0.0, 0.0, 0.0)
    assert (row.first_seen, row.last_seen, row.labels) == (clock(), clock(), ("GET /",))


def test_rows_fetched_later_add_to_their_statement_and_are_no_call() -> None:
    log = log_of("SELECT a", ran=1.0)
    record(log, "SELECT a", (None, None, 0.0, 0.5, 100, 0, None))
    (row,) = log.table()
    assert (row.calls, row.rows, row.run_total, row.run_mean, row.run_max) == (1, 101, 1.5, 1.0, 1.0)


def test_a_row_counts_the_calls_that_ran_in_the_loop_and_those_that_only_began_there() -> None:
    log = log_of("SELECT a")
    for place in ("inline", "inline", "retried", "thread"):
        record(log, "SELECT a", (place, None, 0.0, 0.5, 1, 0, None))
    (row,) = log.table()
    assert (row.calls, row.inline, row.retried) == (4, 2, 1)
    assert row.run_total == pytest.approx(2.001)  # the time of what began in the loop was spent, too


def test_rows_fetched_after_a_reset_divide_by_no_calls() -> None:
    log = StatementLog()
    record(log, "SELECT a", (None, None, 0.0, 0.5, 100, 0, None))
    (row,) = log.table()
    assert (row.calls, row.run_total, row.run_mean, row.run_p99) == (0, 0.5, 0.0, 0.0)


def test_at_most_eight_labels_are_kept() -> None:
    log = StatementLog()
    for number in range(20):
        record(log, "SELECT a", ("thread", f"label {number}", 0.0, 0.0, 0, 0, None))
    assert log.table()[0].labels == tuple(f"label {number}" for number in range(8))


def test_the_least_used_statements_are_forgotten_first_and_counted() -> None:
    log = log_of(*["SELECT often"] * 3, *(f"SELECT a{number}" for number in range(3 * MOST_STATEMENTS)))
    table = log.table()
    assert len(table) <= MOST_STATEMENTS
    assert len(table) + table.forgotten == 3 * MOST_STATEMENTS + 1
    assert "SELECT often" in {row.statement for row in table}


def test_the_longest_total_time_comes_first() -> None:
    log = log_of("SELECT a", "SELECT a")
    record(log, "SELECT b", ("thread", None, 0.0, 1.0, 0, 0, None))
    assert [row.statement for row in log.table()] == ["SELECT b", "SELECT a"]


def test_a_reset_forgets_everything() -> None:
    log = log_of(*(f"SELECT a{number}" for number in range(2 * MOST_STATEMENTS)))
    log.reset()
    assert (log.table(), log.table().forgotten) == ((), 0)


def test_threads_lose_no_record() -> None:
    log = StatementLog()

    def work() -> None:
        for _ in range(5_000):
            record(log, "SELECT 1", ("thread", None, 0.0, 0.0, 0, 0, None))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.table()
    assert log.table()[0].calls == 20_000


class Text(str):
    """SQL of a program's own class, with a method of its own."""

    def __getitem__(self, _: Any) -> str:
        raise AssertionError("the program's code does not run in passing")


def test_sql_of_a_class_of_the_programs_own_is_recorded_and_anything_else_is_not() -> None:
    log = log_of(Text("SELECT 1"))
    record(log, 7, ("thread", None, 0.0, 0.0, 0, 0, None))
    assert [row.statement for row in log.table()] == ["SELECT ?"]


# -- events

request: ContextVar[str] = ContextVar("request", default="nobody")
FETCH: Final = None


class Observed:
    """The log of a pool with a bus, a real connection and a clock."""

    def __init__(self, native: sqlite3.Connection, slow_after: float = 0.1) -> None:
        self.native = native
        self.clock = Clock()
        self.bus = EventBus(pool="app.db")
        self.log = StatementLog(
            "app.db", slow_after, self.bus.handlers, self.bus.emit, self.bus.emit_statements, self.clock
        )
        self.bus.flush_statements = self.log.flush
        self.log.loop = asyncio.get_running_loop()
        self.got: list[Any] = []

    def subscribe(self, *types: Any) -> None:
        for event_type in types:
            self.bus.subscribe(event_type, self.got.append)

    async def run(
        self,
        ran: float,
        sql: str = "SELECT * FROM orders WHERE total = 7",
        *,
        place: StatementPlace | None = "thread",
        error: str | None = None,
    ) -> None:
        """Record a statement in another thread, as a worker does, and wait until its caller would continue."""
        figures: Figures = (place, "GET /", 0.25, ran, 3, 2, error)
        await asyncio.to_thread(self.log.record, sql, figures, 1, self.native, copy_context())
        await asyncio.sleep(0)  # from Python 3.15, the loop need not turn for a thread that is done already


@pytest.fixture
def native() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as native:
        native.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total INTEGER)")
        yield native


FIELDS = {
    "pool": "app.db",
    "connection": 1,
    "statement": "SELECT * FROM orders WHERE total = ?",
    "operation": "SELECT",
    "summary": "SELECT orders",
    "wait_time": 0.25,
    "run_time": 0.5,
    "ended_at": 1000.0,
    "rows": 3,
    "rows_changed": 2,
    "error": None,
    "label": "GET /",
}


async def test_a_slow_statement_is_an_event_with_its_plan(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    observed.subscribe(StatementSlow)
    await observed.run(0.5)
    assert observed.got == [StatementSlow(**FIELDS, plan=("SCAN orders  <-- full scan of orders",))]  # type: ignore[arg-type]
    assert observed.got[0].plan_warnings == ("full scan of orders",)


@pytest.mark.parametrize(
    ("slow_after", "slow"), [(0.1, [0.1, 0.5]), (0, [0.0, 0.0999, 0.1, 0.5]), (0.6, []), (math.inf, [])]
)
async def test_a_statement_is_slow_from_the_threshold_on(
    native: sqlite3.Connection, slow_after: float, slow: list[float]
) -> None:
    observed = Observed(native, slow_after)
    observed.subscribe(StatementSlow)
    for seconds in (0.0, 0.0999, 0.1, 0.5):
        await observed.run(seconds)
    assert [event.run_time for event in observed.got] == slow


async def test_an_event_is_emitted_in_the_loop_in_the_context_of_its_statement(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    seen: list[tuple[str, str, threading.Thread]] = []
    for kind in (StatementSlow, StatementExecuted):
        observed.bus.subscribe(
            kind, lambda event: seen.append((type(event).__name__, request.get(), threading.current_thread()))
        )
    request.set("GET /orders")
    await observed.run(0.5)
    loop = threading.current_thread()
    assert seen == [("StatementSlow", "GET /orders", loop), ("StatementExecuted", "GET /orders", loop)]


async def test_each_statement_is_an_event_for_those_that_ask_for_it(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    observed.subscribe(StatementExecuted)
    await observed.run(0.5)
    await observed.run(0.0, error="sqlite3.OperationalError")
    first, second = observed.got
    assert first == StatementExecuted(**FIELDS, is_slow=True)  # type: ignore[arg-type]
    assert (second.run_time, second.error, second.is_slow) == (0.0, "sqlite3.OperationalError", False)


async def test_rows_fetched_slowly_are_slow_and_no_execution(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    observed.subscribe(StatementSlow, StatementExecuted)
    await observed.run(0.5, place=FETCH)
    await observed.run(0.0, place=FETCH)
    assert [type(event) for event in observed.got] == [StatementSlow]


async def test_all_events_are_not_all_statements(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    observed.subscribe(PoolEvent)
    await observed.run(0.0)
    await observed.run(0.5)
    observed.log.flush()
    assert [type(event) for event in observed.got] == [StatementSlow]


async def test_a_handler_that_is_gone_by_then_is_not_called(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    detach = observed.bus.subscribe(StatementSlow, observed.got.append)
    observed.log.record("SELECT 1", ("thread", None, 0.0, 1.0, 0, 0, None), 1, native, copy_context())
    detach()
    await settle()
    assert observed.got == []


async def test_before_a_connection_is_open_and_after_the_loop_has_closed_nothing_is_emitted(
    native: sqlite3.Connection,
) -> None:
    observed = Observed(native)
    observed.subscribe(StatementSlow)
    closed = asyncio.new_event_loop()
    closed.close()
    for loop in (None, closed):
        observed.log.loop = loop
        await observed.run(0.5)
    assert observed.got == []
    assert observed.log.table()[0].calls == 2


# -- plans


async def test_a_plan_is_asked_for_at_most_once_a_second(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    observed.subscribe(StatementSlow)
    await observed.run(0.5)
    native.execute("CREATE INDEX orders_total ON orders (total)")
    observed.clock.advance(0.75)
    await observed.run(0.5)
    observed.clock.advance(0.25)
    await observed.run(0.5)
    scan, search = "SCAN orders  <-- full scan of orders", "SEARCH orders USING COVERING INDEX orders_total (total=?)"
    assert [event.plan for event in observed.got] == [(scan,), (scan,), (search,)]
    assert observed.log.table()[0].plan == (search,)


async def test_statements_that_become_slow_at_the_same_time_all_have_the_plan(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    observed.subscribe(StatementSlow)
    with contextlib.closing(sqlite3.connect(":memory:", check_same_thread=False)) as other:
        other.execute("CREATE TABLE orders (total)")

        def meanwhile(*_: object) -> int:
            native.set_authorizer(None)
            sql, figures = "SELECT * FROM orders WHERE total = 7", ("thread", None, 0.0, 0.5, 0, 0, None)
            observed.log.record(sql, figures, 1, other, copy_context())
            return sqlite3.SQLITE_OK

        native.set_authorizer(meanwhile)
        await observed.run(0.5)
    await settle()
    assert [event.plan_warnings for event in observed.got] == [("full scan of orders",)] * 2


async def test_a_plan_that_cannot_be_had_leaves_the_one_before(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    await observed.run(0.5)
    native.execute("DROP TABLE orders")
    observed.clock.advance(1.0)
    await observed.run(0.5)
    assert observed.log.table()[0].plan_warnings == ("full scan of orders",)


async def test_a_statement_that_is_not_slow_has_no_plan(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    await observed.run(0.0)
    (row,) = observed.log.table()
    assert (row.plan, row.plan_warnings) == ((), ())


# -- batches of times

SELECT = StatementKind("SELECT", "SELECT orders", None)


async def test_times_come_in_a_batch_of_256_in_the_thread_that_ran_the_last_one(native: sqlite3.Connection) -> None:
    observed, threads = Observed(native), list[threading.Thread]()
    observed.subscribe(StatementTimings)
    observed.bus.subscribe(StatementTimings, lambda _: threads.append(threading.current_thread()))
    for _ in range(255):
        await observed.run(0.01)
    assert observed.got == []
    await observed.run(0.02)
    (batch,) = observed.got
    assert (batch.pool, batch.runs) == ("app.db", {SELECT: [0.01] * 255 + [0.02]})
    assert threads != [threading.current_thread()]


async def test_a_flush_emits_what_is_there_by_kind_without_fetches(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    observed.subscribe(StatementTimings)
    await observed.run(0.01)
    await observed.run(0.02, place=FETCH)
    await observed.run(0.03, error="cancelled")
    await observed.run(0.04, "COMMIT")
    observed.bus.flush_timings()
    observed.bus.flush_timings()
    (batch,) = observed.got
    assert batch.runs == {
        SELECT: [0.01],
        SELECT._replace(error="cancelled"): [0.03],
        StatementKind("COMMIT", "COMMIT", None): [0.04],
    }


async def test_a_subscriber_gets_no_times_from_before_or_after_its_subscription(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    await observed.run(0.01)
    detach = observed.bus.subscribe(StatementTimings, observed.got.append)
    await observed.run(0.02)
    detach()
    await observed.run(0.03)
    observed.bus.flush_timings()
    assert [batch.runs for batch in observed.got] == [{SELECT: [0.02]}]
    assert observed.log.table()[0].calls == 3


async def test_a_reset_loses_no_time_of_a_subscriber(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    observed.subscribe(StatementTimings)
    await observed.run(0.01)
    observed.log.reset()
    assert [batch.runs for batch in observed.got] == [{SELECT: [0.01]}]
    assert observed.log.table() == ()


async def test_a_handler_of_times_may_look_at_the_statements(native: sqlite3.Connection) -> None:
    observed, seen = Observed(native), list[int]()
    observed.bus.subscribe(StatementTimings, lambda _: seen.append(observed.log.table()[0].calls))
    await observed.run(0.01)
    assert observed.log.table()[0].calls == 1
    assert seen == [1]


async def test_a_forked_child_keeps_nothing_that_its_parent_delivers(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    observed.subscribe(StatementTimings)
    await observed.run(0.01)
    lock = observed.log._lock
    lock.acquire()  # by a thread that the child does not have
    observed.log.forked()
    lock.release()
    observed.log.flush()
    assert observed.got == []
    await observed.run(0.02)
    observed.log.flush()
    assert [batch.runs for batch in observed.got] == [{SELECT: [0.02]}]


async def test_a_thread_that_finds_another_one_counting_leaves_its_records_to_it(native: sqlite3.Connection) -> None:
    observed = Observed(native)
    with observed.log._lock:
        for _ in range(300):
            await observed.run(0.01)
    assert observed.log.table()[0].calls == 300
