from __future__ import annotations

import pytest

from aiosqlitepool import Holder
from aiosqlitepool.events import StatementSlow
from aiosqlitepool.subscribers._limits import MOST_LABELS, MOST_LEAKS, MOST_SLOW, PoolLimits


def slow(summary: str, *plan: str) -> StatementSlow:
    return StatementSlow("app.db", 1, "SQL", "SELECT", summary, 0.0, 1.0, 0.0, 0, 0, plan=plan)


def test_the_first_labels_are_shown_and_all_later_ones_as_one() -> None:
    limits = PoolLimits()
    shown = [limits.label(str(number)) for number in range(10_000)]
    assert shown == [*map(str, range(MOST_LABELS)), *["other"] * (10_000 - MOST_LABELS)]
    assert limits.label("0") == "0"


def test_no_label_is_absent_and_takes_no_place() -> None:
    limits = PoolLimits()
    assert {limits.label(None) for _ in range(MOST_LABELS)} == {""}
    assert limits.label("GET /") == "GET /"


@pytest.mark.parametrize(
    ("label", "shown"),
    [("half a pair \ud800", "half a pair ?"), ("a" * 10_000, "a" * 200), ("数据库\n\x00", "数据库\n\x00")],
    ids=["surrogate", "long", "odd"],
)
def test_a_label_is_shown_as_telemetry_can_send_it(label: str, shown: str) -> None:
    assert PoolLimits().label(label) == shown


def test_the_first_pairs_of_a_slow_statement_are_shown_and_all_later_ones_as_one() -> None:
    limits = PoolLimits()
    shown = [limits.slow(slow(f"SELECT t{number}", "SCAN t  <-- full scan of t")) for number in range(10_000)]
    expected = [(f"SELECT t{number}", "full scan of t") for number in range(MOST_SLOW)]
    assert shown == [*expected, *[("other", "")] * (10_000 - MOST_SLOW)]


def test_of_several_warnings_the_first_is_shown_and_of_none_none() -> None:
    limits = PoolLimits()
    plan = ("SEARCH u", "SCAN t  <-- full scan of t", "USE TEMP B-TREE FOR ORDER BY  <-- temporary B-tree for ORDER BY")
    assert limits.slow(slow("SELECT t", *plan)) == ("SELECT t", "full scan of t")
    assert limits.slow(slow("SELECT t", "SEARCH u")) == ("SELECT t", "")
    assert limits.slow(slow("SELECT t", "SCAN \ud800  <-- full scan of \ud800")) == ("SELECT t", "full scan of ?")


@pytest.mark.parametrize(
    ("label", "statement", "shown"),
    [
        ("GET /report", "SELECT * FROM orders WHERE id = ?", ("GET /report", "SELECT orders")),
        ("GET /report", None, ("GET /report", "")),
        (None, None, ("", "")),
        ("half a pair \ud800", None, ("half a pair ?", "")),
    ],
)
def test_a_leak_is_shown_by_its_label_and_the_summary_of_its_statement(
    label: str | None, statement: str | None, shown: tuple[str, str]
) -> None:
    assert PoolLimits().leak(Holder(1, "Task-1", label, 60.0, statement=statement)) == shown


def test_the_first_pairs_of_a_leak_are_shown_and_all_later_ones_as_one() -> None:
    limits = PoolLimits()
    shown = [limits.leak(Holder(1, "Task-1", str(number), 60.0)) for number in range(10_000)]
    assert shown == [*((str(number), "") for number in range(MOST_LEAKS)), *[("other", "")] * (10_000 - MOST_LEAKS)]


@pytest.mark.parametrize(("most", "shown"), [(0, ["", "", ""]), (2, ["a", "b", "other"]), (3, ["a", "b", "c"])])
def test_as_many_summaries_are_shown_as_were_asked_for(most: int, shown: list[str]) -> None:
    limits = PoolLimits(most)
    assert [limits.summary(summary) for summary in ("a", "b", "c")] == shown


def test_types_of_errors_beyond_the_first_twenty_are_other() -> None:
    limits = PoolLimits()
    first = [f"error.{number}" for number in range(20)]
    assert [limits.error(each) for each in first] == first
    assert [limits.error(f"error.{number}") for number in range(20, 1000)] == ["_OTHER"] * 980
    assert limits.error("error.3") == "error.3"
    assert limits.error(None) == ""


def test_what_ends_acquires_otherwise_takes_no_place_of_an_error() -> None:
    limits = PoolLimits()
    for number in range(1000):
        limits.error(f"error.{number}")
    assert [limits.error(each) for each in ("timeout", "cancelled", "rejected", "closed")] == [
        "timeout",
        "cancelled",
        "rejected",
        "closed",
    ]
