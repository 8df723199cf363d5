from __future__ import annotations

import pytest

from aiosqlitepool import StatementStats
from aiosqlitepool.subscribers import _statement_times
from aiosqlitepool.subscribers._statement_times import StatementTimes


def row(statement: str, run_total: float, first_seen: float = 1.0) -> StatementStats:
    return StatementStats(statement, "SELECT", 1, 0, 0, 0, run_total, *[0.0] * 7, first_seen, 2.0, ())


def times_of(*tables: list[StatementStats], most: int = 10) -> StatementTimes:
    times = StatementTimes(most)
    for table in tables:
        times.read(table)
    return times


def test_statements_of_one_summary_are_added_up() -> None:
    times = times_of([row("SELECT a FROM t", 1.0), row("SELECT b FROM t", 2.0), row("SELECT a FROM u", 4.0)])
    assert times.shown() == [("SELECT u", 4.0), ("SELECT t", 3.0)]


def test_what_was_read_before_is_not_added_again() -> None:
    times = times_of([row("SELECT t", 1.0)], [row("SELECT t", 1.0)], [row("SELECT t", 1.5)])
    assert times.shown() == [("SELECT", 1.5)]


def test_a_total_goes_on_after_its_statement_was_forgotten() -> None:
    times = times_of([row("SELECT a", 2.0)], [])
    assert times.shown() == [("SELECT", 2.0)]
    times.read([row("SELECT a", 0.5, first_seen=9.0)])
    assert times.shown() == [("SELECT", 2.5)]


def test_a_statement_that_was_forgotten_and_has_run_longer_since_is_added_whole() -> None:
    assert times_of([row("SELECT a", 2.0)], [row("SELECT a", 3.0, first_seen=9.0)]).shown() == [("SELECT", 5.0)]


def test_a_total_does_not_fall_where_the_clock_stands_still() -> None:
    assert times_of([row("SELECT a", 2.0)], [row("SELECT a", 0.5)]).shown() == [("SELECT", 2.0)]


@pytest.mark.parametrize(("most", "shown"), [(0, []), (2, [2.0, 1.0]), (5, [2.0, 1.0, 0.0])])
def test_the_longest_totals_are_shown(most: int, shown: list[float]) -> None:
    times = times_of([row(f"SELECT x FROM t{number}", float(number)) for number in range(3)], most=most)
    assert [seconds for _, seconds in times.shown()] == shown


def test_a_summary_that_comes_back_has_not_fallen() -> None:
    first, second = row("SELECT x FROM t", 1.0), row("SELECT x FROM u", 2.0)
    times = times_of([first], [first, second], most=1)
    assert times.shown() == [("SELECT u", 2.0)]
    times.read([row("SELECT x FROM t", 4.0), second])
    assert times.shown() == [("SELECT t", 4.0)]


def test_the_longest_of_any_number_of_summaries_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_statement_times, "_MOST", 3)
    times = StatementTimes(10)
    for number in range(100):
        times.read([row(f"SELECT x FROM t{number}", float(number))])
    assert times.shown() == [("SELECT t99", 99.0), ("SELECT t98", 98.0), ("SELECT t97", 97.0)]


def test_at_the_end_what_is_shown_is_kept_and_a_new_table_adds_to_it() -> None:
    times = times_of([row("SELECT x FROM t", 1.0), row("SELECT x FROM u", 2.0)], most=1)
    times.end()
    assert times.shown() == [("SELECT u", 2.0)]
    times.read([row("SELECT x FROM u", 0.25)])
    assert times.shown() == [("SELECT u", 2.25)]
