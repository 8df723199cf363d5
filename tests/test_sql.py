"""Normalized SQL: one line, no comments, no literals."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiosqlitepool.sql import first_word, normalized, operation_of


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
        ("COMMIT", "COMMIT"),
        ("", "OTHER"),
        ("(nonsense)", "OTHER"),
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
