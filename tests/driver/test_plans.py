"""The query plan of a slow statement: whatever its parameters are, and without harm to the program's connection."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aiosqlitepool.driver.plans import query_plan
from aiosqlitepool.sql import normalized, plan_warnings

SCHEMA = """
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, total INTEGER);
CREATE TABLE lines (id INTEGER PRIMARY KEY, order_id INTEGER, product TEXT);
CREATE INDEX orders_customer ON orders (customer);
CREATE VIRTUAL TABLE notes USING fts5(body);
"""
BY_KEY = ("SEARCH orders USING INTEGER PRIMARY KEY (rowid=?)",)
FULL_SCAN = ("SCAN orders  <-- full scan of orders",)
# Python 3.12 warns of such a statement wherever it is executed, also by the program.
of_python = pytest.mark.filterwarnings("ignore:Binding:DeprecationWarning")


@pytest.fixture
def native() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:")) as native:
        native.executescript(SCHEMA)
        yield native


def plan_of(native: Any, sql: str) -> tuple[str, ...]:
    return query_plan(native, sql, normalized(sql))


# -- parameters


@pytest.mark.parametrize(
    "where",
    [
        "id = 7",
        "id = ?",
        "id = ? AND total = ?",
        "id = :id",
        "id = :id AND total = @total",
        "id = $id",
        "id = ?1 AND total = ?1",
        "id = ?3",
    ],
)
@of_python
def test_a_plan_needs_no_parameters(native: sqlite3.Connection, where: str) -> None:
    assert plan_of(native, f"SELECT * FROM orders WHERE {where}") == BY_KEY


@pytest.mark.parametrize("number", ["?", "?2"])
@of_python
def test_a_plan_needs_no_parameters_if_only_some_have_names(native: sqlite3.Connection, number: str) -> None:
    expected = BY_KEY if sys.version_info < (3, 14) else ()  # which executes no such statement
    assert plan_of(native, f"SELECT * FROM orders WHERE id = {number} AND total = :total") == expected


# -- what makes a plan slow


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM orders", ["full scan of orders"]),
        ("SELECT customer FROM orders", ["full scan of orders"]),  # of an index
        ("SELECT * FROM orders AS o WHERE total > 7", ["full scan of o"]),
        ("UPDATE orders SET total = 0 WHERE total < 0", ["full scan of orders"]),
        ("DELETE FROM orders WHERE total < 0", ["full scan of orders"]),
        ("INSERT INTO lines (product) SELECT customer FROM orders", ["full scan of orders"]),
        ("WITH few AS (SELECT * FROM orders LIMIT 5) DELETE FROM lines WHERE id = 1", []),
        ("SELECT * FROM orders WHERE customer = 'a' ORDER BY total", ["temporary B-tree FOR ORDER BY"]),
        ("SELECT total FROM orders GROUP BY total", ["full scan of orders", "temporary B-tree FOR GROUP BY"]),
        (
            "SELECT * FROM orders CROSS JOIN lines ON lines.order_id = orders.total",
            ["full scan of orders", "automatic index on lines (order_id=?)"],
        ),
        ("SELECT * FROM orders LEFT JOIN lines", ["full scan of orders", "full scan of lines"]),
        ("SELECT * FROM orders WHERE id = 1", []),
        ("SELECT max(customer) FROM orders", []),
        # What is no table, or one that the statement itself makes.
        ("SELECT 1", []),
        ("VALUES (1), (2)", []),
        ("SELECT * FROM json_each('[1]')", []),
        ("SELECT * FROM notes WHERE notes MATCH 'a'", []),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT * FROM n", []),
        ("WITH n AS MATERIALIZED (SELECT max(id) FROM lines) SELECT * FROM n, n", []),
        ("SELECT * FROM (SELECT id FROM orders WHERE id > 5 LIMIT 5) JOIN lines ON lines.id = 1", []),
    ],
)
def test_marks_say_what_makes_a_plan_slow(native: sqlite3.Connection, sql: str, expected: list[str]) -> None:
    assert list(plan_warnings(plan_of(native, sql))) == expected


def test_a_step_is_indented_below_the_step_that_it_belongs_to(native: sqlite3.Connection) -> None:
    assert plan_of(native, "SELECT * FROM orders WHERE customer IN (SELECT product FROM lines)") == (
        "SEARCH orders USING INDEX orders_customer (customer=?)",
        "LIST SUBQUERY 1",
        "  SCAN lines  <-- full scan of lines",
    )


def test_a_plan_has_fifty_lines_at_most(native: sqlite3.Connection) -> None:
    assert len(plan_of(native, " UNION ALL ".join(["SELECT id FROM orders"] * 100))) == 50


def test_a_line_has_two_hundred_characters_and_its_mark(native: sqlite3.Connection) -> None:
    native.execute(f"CREATE TABLE {'t' * 500} (a)")
    (line,) = plan_of(native, f"SELECT * FROM {'t' * 500}")
    assert line.startswith(f"SCAN {'t' * 195}  <-- full scan of ")
    assert len(line) < 450


def test_a_plan_shows_no_value(native: sqlite3.Connection) -> None:
    sql = "SELECT * FROM orders, notes WHERE notes MATCH 'secret' AND customer LIKE 'secret%' AND total = 'secret'"
    plan = plan_of(native, sql)
    assert plan
    assert "secret" not in "".join(plan)


# -- statements without a plan


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA user_version",
        "BEGIN",
        "CREATE TABLE other AS SELECT * FROM orders",
        "EXPLAIN SELECT * FROM orders",
        "INSERT INTO orders (total) VALUES (1)",
        "SELEC * FROM orders",
        "SELECT * FROM missing",
        "SELECT * FROM orders; DELETE FROM orders",
        "SELECT \0",
        "SELECT \ud800 FROM orders",
        "",
    ],
)
def test_what_has_no_plan_has_no_lines(native: sqlite3.Connection, sql: str) -> None:
    assert plan_of(native, sql) == ()


def test_a_closed_connection_has_no_plan(native: sqlite3.Connection) -> None:
    native.close()
    assert plan_of(native, "SELECT * FROM orders") == ()


# -- whatever the program has set, and without a change of it


def refuse(*_: Any) -> Any:
    raise ValueError("nothing of the program's is a plan")


@pytest.mark.parametrize(
    ("text_factory", "expected"),
    [(bytes, FULL_SCAN), (bytearray, FULL_SCAN), (lambda text: text.decode().lower(), ("scan orders",)), (refuse, ())],
)
def test_a_text_factory_of_the_program_does_no_harm(
    native: sqlite3.Connection, text_factory: Any, expected: tuple[str, ...]
) -> None:
    native.text_factory = text_factory
    assert plan_of(native, "SELECT * FROM orders") == expected
    assert native.text_factory is text_factory


def test_a_row_factory_of_the_program_does_no_harm(native: sqlite3.Connection) -> None:
    native.row_factory = refuse
    assert plan_of(native, "SELECT * FROM orders") == FULL_SCAN


class OwnConnection(sqlite3.Connection):
    """A connection of a program's own class, which makes cursors of its own."""

    cursor = execute = refuse


def test_a_class_of_the_program_does_no_harm() -> None:
    with contextlib.closing(sqlite3.connect(":memory:", factory=OwnConnection)) as native:
        native.executescript(SCHEMA)
        assert plan_of(native, "SELECT * FROM orders") == FULL_SCAN


class Proxy:
    """What a tracer puts around a connection."""

    def __init__(self, wrapped: object) -> None:
        self._wrapped = wrapped


def test_a_proxy_of_a_tracer_has_the_plan_of_its_connection(native: sqlite3.Connection) -> None:
    assert plan_of(Proxy(Proxy(native)), "SELECT * FROM orders") == FULL_SCAN
    assert plan_of(Proxy(None), "SELECT * FROM orders") == ()


def test_an_authorizer_that_refuses_leaves_no_plan_and_the_busy_timeout(native: sqlite3.Connection) -> None:
    native.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
    assert plan_of(native, "SELECT * FROM orders") == ()
    native.set_authorizer(None)
    assert native.execute("PRAGMA busy_timeout").fetchone() == (5000,)


def test_a_half_read_cursor_and_a_transaction_go_on(native: sqlite3.Connection) -> None:
    native.execute("INSERT INTO orders (total) VALUES (1), (2), (3)")
    changes, cursor = native.total_changes, native.execute("SELECT total FROM orders")
    assert cursor.fetchone() == (1,)
    assert plan_of(native, "INSERT INTO lines (product) SELECT customer FROM orders")
    assert plan_of(native, "DELETE FROM orders WHERE total > 0")
    assert cursor.fetchall() == [(2,), (3,)]
    assert (native.in_transaction, native.total_changes) == (True, changes)


def test_a_plan_begins_no_transaction(native: sqlite3.Connection) -> None:
    plan_of(native, "DELETE FROM orders WHERE total > 0")
    assert not native.in_transaction


def test_a_plan_waits_for_no_other_process(tmp_path: Path) -> None:
    """A connection that has not read the schema yet needs a lock for it: the statement that failed waited enough."""
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as other,
        contextlib.closing(sqlite3.connect(tmp_path / "app.db", timeout=60)) as native,
    ):
        other.executescript(SCHEMA)
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        assert plan_of(native, "SELECT * FROM orders") == ()
        assert time.monotonic() - began < 50
        assert native.execute("PRAGMA busy_timeout").fetchone() == (60_000,)
