"""Normalized SQL: one line, no comments, no literals."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosqlitepool.sql import first_word, normalized, operation_of, plan_warnings, summary_of


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", "SELECT ?"),
        ("SELECT 'it''s', 1e-5, x'ab', 0x1F FROM t", "SELECT ?, ?, ?, ? FROM t"),
        ("  SELECT a\n\t, b -- it's a comment\n FROM t /* '; */ ;", "SELECT a , b FROM t"),
        ("SELECT t1.c2, ?1, :name, $x, @y FROM t1", "SELECT t1.c2, ?1, :name, $x, @y FROM t1"),
        ("SELECT * FROM t WHERE id IN (1, 2, 3)", "SELECT * FROM t WHERE id IN (?, ...)"),
        ("SELECT * FROM t WHERE id IN (?,?)", "SELECT * FROM t WHERE id IN (?, ...)"),
        ("INSERT INTO t VALUES (?, ?), (?, ?), (?, ?)", "INSERT INTO t VALUES (?, ?), ..."),
        ('SELECT "t"."a" FROM "my table" WHERE b = "secret"', 'SELECT "t"."a" FROM "my table" WHERE b = ?'),
        ("PRAGMA key = 'secret'", "PRAGMA key = ?"),
        ("PRAGMA key(secret)", "PRAGMA key = ?"),
        ("PRAGMA main.hexkey=0123", "PRAGMA main.hexkey = ?"),
        ("PRAGMA user_version", "PRAGMA user_version"),
        ("PRAGMA [key] = secret", "PRAGMA [key] = ?"),
        ('PRAGMA main . "key" = secret', "PRAGMA main . ? = ?"),
        ("SELECT [it's], `it's`, 'secret'", "SELECT ?, ?, ?"),
        ("SELECT [a--'b], 'secret\n'", "SELECT ?, ?"),
        ("SELECT [a b], `c d` FROM t[1, 'secret'", "SELECT [a b], `c d` FROM t?"),
        ("SELECT .5, t.a5, 'a'", "SELECT ?, t.a5, ?"),
        ('SELECT 1 WHERE a IS NOT  DISTINCT  FROM "secret"', "SELECT ? WHERE a IS NOT DISTINCT FROM ?"),
        ('SELECT "a" IS DISTINCT\nFROM "sec""ret" FROM "t"', 'SELECT ? IS DISTINCT FROM ? FROM "t"'),
        ("SELECT a\ud800", "SELECT a?"),
        ("ATTACH 'other.db' AS other KEY 'secret'", "ATTACH ? AS other KEY ?"),
        ("SELECT 'never closed", "SELECT ?"),
        ("SELECT '\N{SNOWMAN}', \N{SNOWMAN} FROM t", "SELECT ?, \N{SNOWMAN} FROM t"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_statement_is_on_one_line_and_without_literals(sql: str, expected: str) -> None:
    assert normalized(sql) == expected


@given(st.text(), st.sampled_from(["SELECT '{}'", "PRAGMA key = '{}'", 'SELECT 1 WHERE a = "{}"', "SELECT 1 /* {} */"]))
def test_no_value_gets_through(value: str, sql: str) -> None:
    secret = value.replace("'", "''").replace('"', '""').replace("*/", "")
    assert "hunter2" not in normalized(sql.format(f"hunter2{secret}hunter2"))


@pytest.mark.parametrize(
    "sql", ["SELECT '" + "x" * 1_000_000, "SELECT " + "a, " * 500_000, "(" * 100_000, "--" * 100_000]
)
def test_a_statement_of_a_megabyte_takes_little(sql: str) -> None:
    began = time.thread_time()
    assert len(normalized(sql)) <= 2_000
    assert time.thread_time() - began < 5


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select 1", "SELECT"),
        ("-- why\nINSERT INTO t VALUES (1)", "INSERT"),
        ("WITH x AS (SELECT 1) SELECT * FROM x", "SELECT"),
        ("WITH x AS (SELECT 1) DELETE FROM t", "DELETE"),
        ("WITH x AS (SELECT 1) REPLACE INTO t SELECT * FROM x", "REPLACE"),
        ("WITH x AS (SELECT replace(a, 'b', 'c') FROM t) SELECT replace (a, 'b', 'c') FROM x", "SELECT"),
        ("COMMIT", "COMMIT"),
        ("SELECT(1)", "SELECT"),
        # Only words of SQLite's own: a program may send any.
        ("", "OTHER"),
        ("(nonsense)", "OTHER"),
        ("SELEC 1", "OTHER"),
        ("secret", "OTHER"),
        ("'secret'", "OTHER"),
        ("GRANT ALL", "OTHER"),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}t\N{LATIN SMALL LETTER E WITH ACUTE}", "OTHER"),
    ],
)
def test_the_operation_is_what_a_statement_does(sql: str, expected: str) -> None:
    assert operation_of(normalized(sql)) == expected


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("SELECT 1", "SELECT"),
        (" \ufeff; -- begin\n/* commit */insert into t", "INSERT"),
        ("rollback", "ROLLBACK"),
        ("/* never closed", ""),
        ("", ""),
        ("(1)", ""),
        ("begin2", ""),
    ],
)
def test_the_first_word_is_that_of_sqlite(sql: str, word: str) -> None:
    assert first_word(sql) == word


# fmt: off
WORDS = {
    "ALTER", "ANALYZE", "ATTACH", "BEGIN", "COMMIT", "CREATE", "DELETE", "DETACH", "DROP", "END", "EXPLAIN", "INSERT",
    "OTHER", "PRAGMA", "REINDEX", "RELEASE", "REPLACE", "ROLLBACK", "SAVEPOINT", "SELECT", "UPDATE", "VACUUM", "VALUES",
}
# fmt: on


@given(st.text() | st.text("SELECT WITH INSERT()'", max_size=20) | st.sampled_from(sorted(WORDS)))
def test_an_operation_is_one_of_few_words(sql: str) -> None:
    assert operation_of(normalized(sql)) in WORDS


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM orders o JOIN users u ON u.id = o.user_id", "SELECT orders"),
        ("select *\nfrom\torders", "SELECT orders"),
        ("SELECT * FROM main.orders", "SELECT orders"),
        ('SELECT * FROM "main"."my orders"', "SELECT my orders"),
        ("SELECT * FROM [my orders]", "SELECT my orders"),
        ("SELECT * FROM `my orders`", "SELECT my orders"),
        ("SELECT * FROM (SELECT * FROM orders)", "SELECT orders"),
        ("SELECT * FROM json_each('[1]')", "SELECT json_each"),
        ("SELECT a IS DISTINCT FROM b FROM orders", "SELECT orders"),
        ("WITH few AS (SELECT * FROM orders) SELECT * FROM few", "SELECT orders"),
        ("SELECT 1", "SELECT"),
        ("VALUES (1)", "VALUES"),
        ("SELECT * FROM 'secret'", "SELECT"),
        ("INSERT INTO orders (id) VALUES (1)", "INSERT orders"),
        ("INSERT OR REPLACE INTO orders SELECT * FROM lines", "INSERT orders"),
        ("INSERT INTO orders VALUES (1) ON CONFLICT DO UPDATE SET a = 1", "INSERT orders"),
        ("REPLACE INTO orders VALUES (1)", "REPLACE orders"),
        ("UPDATE orders SET a = (SELECT max(a) FROM lines)", "UPDATE orders"),
        ("UPDATE OR IGNORE main.orders SET a = 1", "UPDATE orders"),
        ("DELETE FROM orders WHERE id IN (SELECT id FROM lines)", "DELETE orders"),
        ("WITH few AS (SELECT * FROM lines) INSERT INTO orders SELECT * FROM few", "INSERT orders"),
        ("WITH few AS (SELECT * FROM lines) DELETE FROM orders", "DELETE orders"),
        ("CREATE TABLE IF NOT EXISTS orders (id)", "CREATE orders"),
        ("CREATE TEMP TABLE orders AS SELECT * FROM lines", "CREATE orders"),
        ("CREATE UNIQUE INDEX by_id ON orders (id)", "CREATE by_id"),
        ("CREATE VIEW recent AS SELECT * FROM orders", "CREATE recent"),
        ("CREATE TRIGGER audit AFTER INSERT ON orders BEGIN SELECT 1; END", "CREATE audit"),
        ("CREATE VIRTUAL TABLE notes USING fts5(body)", "CREATE notes"),
        ("DROP TABLE IF EXISTS orders", "DROP orders"),
        ("ALTER TABLE orders ADD COLUMN b", "ALTER orders"),
        ("EXPLAIN QUERY PLAN SELECT * FROM orders", "EXPLAIN orders"),
        ("PRAGMA key = 'secret'", "PRAGMA"),
        ("ATTACH 'secret' AS other", "ATTACH"),
        ("VACUUM INTO 'secret'", "VACUUM"),
        ("BEGIN IMMEDIATE", "BEGIN"),
        ("ROLLBACK TO before", "ROLLBACK"),
        ("REINDEX orders", "REINDEX"),
        ("", "OTHER"),
    ],
)
def test_a_summary_is_the_operation_and_the_first_table(sql: str, expected: str) -> None:
    assert summary_of(normalized(sql)) == expected


def test_a_summary_has_a_hundred_characters_at_most() -> None:
    assert summary_of(f"SELECT * FROM {'t' * 500}") == f"SELECT {'t' * 93}"


def test_the_warnings_of_a_plan_are_what_stands_behind_its_marks() -> None:
    plan = (
        "SEARCH a",
        "SCAN b  <-- full scan of b",
        "  USE TEMP B-TREE FOR ORDER BY  <-- temporary B-tree FOR ORDER BY",
    )
    assert plan_warnings(plan) == ("full scan of b", "temporary B-tree FOR ORDER BY")
    assert plan_warnings(()) == ()
