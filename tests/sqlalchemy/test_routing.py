"""Which statements need the writer, by their text."""

from __future__ import annotations

import pytest

from aiosqlitepool.sqlalchemy.routing import needs_writer, reads_schema

READS = [
    "SELECT 1",
    "  -- why\n select 1",
    "/* what */ VALUES (1)",
    "EXPLAIN QUERY PLAN DELETE FROM note",
    "WITH a AS (SELECT 1) SELECT * FROM a",
    "PRAGMA table_info('note')",
]
WRITES = [
    "INSERT INTO note VALUES (1)",
    "WITH a AS (SELECT 1) INSERT INTO note SELECT * FROM a",
    "WITH a AS (SELECT 1) DELETE FROM note",
    "PRAGMA user_version = 3",
    "CREATE TABLE a (b)",
    "SAVEPOINT a",
    "",
]


@pytest.mark.parametrize("sql", READS)
def test_a_statement_that_reads_needs_no_writer(sql: str) -> None:
    assert not needs_writer(sql)


@pytest.mark.parametrize("sql", WRITES)
def test_a_statement_that_may_write_needs_the_writer(sql: str) -> None:
    assert needs_writer(sql)


@pytest.mark.parametrize(
    "sql", ["PRAGMA table_info('note')", "SELECT name FROM sqlite_master", "SELECT * FROM sqlite_schema"]
)
def test_what_reads_the_schema_is_known(sql: str) -> None:
    assert reads_schema(sql)


@pytest.mark.parametrize("sql", ["SELECT 1", "SELECT * FROM sqlite_sequence", "SELECT my_sqlite_master FROM note"])
def test_what_reads_a_table_does_not_read_the_schema(sql: str) -> None:
    assert not reads_schema(sql)
