"""What a pool remembers of the statements that ran."""

from __future__ import annotations

import sqlite3
import threading
from contextvars import Context
from types import SimpleNamespace
from typing import Any

import pytest

from aiosqlitepool.driver.statements import MOST_STATEMENTS, Figures, StatementLog

from ..support.clock import Clock

NATIVE = sqlite3.connect(":memory:", check_same_thread=False)
LEASE: Any = SimpleNamespace(connection=1)


def record(log: StatementLog, sql: Any, figures: Figures) -> None:
    log.record(sql, figures, LEASE, native=NATIVE, context=Context())


def log_of(*texts: str, label: str | None = None, ran: float = 0.001) -> StatementLog:
    log = StatementLog(clock=Clock())
    for text in texts:
        record(log, text, (True, label, 0.0005, ran, 1, 0, None))
    return log


def test_statements_that_differ_in_literals_only_are_one() -> None:
    log = log_of("SELECT 1", "SELECT 2", "SELECT  'three'", "SELECT a")
    assert [(row.statement, row.calls) for row in log.table()] == [("SELECT ?", 3), ("SELECT a", 1)]


def test_a_row_has_the_sums_and_the_extremes() -> None:
    clock = Clock()
    log = StatementLog(clock=clock)
    for number in range(1, 101):
        record(log, "SELECT a", (True, "GET /", 0.0, number / 1000, 2, 1, "ValueError" if number == 100 else None))
    (row,) = log.table()
    assert (row.operation, row.calls, row.errors, row.rows, row.rows_changed) == ("SELECT", 100, 1, 200, 100)
    assert (row.run_total, row.run_mean, row.run_max) == pytest.approx((5.05, 0.0505, 0.1))
    assert row.run_p99 == pytest.approx(0.099, rel=0.2)
    assert (row.wait_total, row.wait_max, row.wait_p99) == (0.0, 0.0, 0.0)
    assert (row.first_seen, row.last_seen, row.labels) == (clock(), clock(), ("GET /",))


def test_rows_fetched_later_add_to_their_statement_and_are_no_call() -> None:
    log = log_of("SELECT a", ran=1.0)
    record(log, "SELECT a", (False, None, 0.0, 0.5, 100, 0, None))
    (row,) = log.table()
    assert (row.calls, row.rows, row.run_total, row.run_max) == (1, 101, 1.5, 1.0)


def test_rows_fetched_after_a_reset_divide_by_no_calls() -> None:
    log = StatementLog()
    record(log, "SELECT a", (False, None, 0.0, 0.5, 100, 0, None))
    assert (log.table()[0].calls, log.table()[0].run_mean, log.table()[0].run_p99) == (0, 0.5, 0.0)


def test_at_most_eight_labels_are_kept() -> None:
    log = StatementLog()
    for number in range(20):
        record(log, "SELECT a", (True, f"label {number}", 0.0, 0.0, 0, 0, None))
    assert log.table()[0].labels == tuple(f"label {number}" for number in range(8))


def test_the_least_used_statements_are_forgotten_first_and_counted() -> None:
    log = log_of(*["SELECT often"] * 3, *(f"SELECT a{number}" for number in range(3 * MOST_STATEMENTS)))
    table = log.table()
    assert len(table) <= MOST_STATEMENTS
    assert len(table) + table.forgotten == 3 * MOST_STATEMENTS + 1
    assert "SELECT often" in {row.statement for row in table}


def test_the_longest_total_time_comes_first() -> None:
    log = log_of("SELECT a", "SELECT a")
    record(log, "SELECT b", (True, None, 0.0, 1.0, 0, 0, None))
    assert [row.statement for row in log.table()] == ["SELECT b", "SELECT a"]


def test_a_reset_forgets_everything() -> None:
    log = log_of(*(f"SELECT a{number}" for number in range(2 * MOST_STATEMENTS)))
    log.reset()
    assert (log.table(), log.table().forgotten) == ((), 0)


def test_threads_lose_no_record() -> None:
    log = StatementLog()

    def work() -> None:
        for _ in range(5_000):
            record(log, "SELECT 1", (True, None, 0.0, 0.0, 0, 0, None))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.table()
    assert log.table()[0].calls == 20_000
