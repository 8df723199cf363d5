"""SQLite's query plan of a statement, with marks at what makes it slow."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Container
from contextlib import closing
from typing import Any, Final

from ..sql import PLAN_WARNING, operation_of
from .proxies import held

__all__ = ["query_plan"]

_PLANNED: Final = frozenset({"SELECT", "INSERT", "REPLACE", "UPDATE", "DELETE", "VALUES"})
# Lines of a plan, and characters of one.
_MOST_LINES: Final = 50
_LONGEST: Final = 200

_COUNT: Final = re.compile(r"uses (\d+)")
# Not of constants, which SQLite 3.53 calls VALUES.
_SCAN: Final = re.compile(
    r"SCAN (?:TABLE )?(?!\d* ?CONSTANT ROW|\d+-ROW VALUES|.*VIRTUAL TABLE)([^(].*?)(?= USING| AS | LEFT-JOIN|$)"
)
# A table that exists for the length of the statement only: it must be scanned.
_TEMPORARY: Final = re.compile(r"(?:CO-ROUTINE|MATERIALIZE) (\S+)")
_SORT: Final = re.compile(r"USE TEMP B-TREE(.*)")
_AUTOMATIC: Final = re.compile(r"SEARCH (?:TABLE )?(\S+) USING AUTOMATIC .*INDEX (\(.*\))")


class _Nulls(dict[str, None]):
    """Parameters: NULL for every name."""

    def __missing__(self, name: str) -> None:
        return None


def query_plan(native: sqlite3.Connection, sql: str, statement: str) -> tuple[str, ...]:
    """Return the lines of the query plan, indented by depth; empty for a statement without one. Never raises an error.

    `statement` is the same SQL, normalized. Belongs to the worker thread. Parameters are NULL: the plan may differ from
    those of the values for LIKE and GLOB, and if SQLite was compiled with STAT4.
    """
    if operation_of(statement) not in _PLANNED:
        return ()
    try:
        rows = _rows(native, f"EXPLAIN QUERY PLAN {sql}")
        depths, lines, temporary = {0: -1}, [], set()
        for number, parent, _, detail in rows[:_MOST_LINES]:
            depths[number] = depth = depths.get(parent, -1) + 1
            text = detail.decode("utf-8", "replace") if isinstance(detail, bytes | bytearray) else str(detail)
            if found := _TEMPORARY.match(text):
                temporary.add(found[1])
            lines.append("  " * depth + _marked(text[:_LONGEST], temporary))
    except Exception:  # of SQLite, or of a text factory: a plan is a courtesy
        return ()
    return tuple(lines)


def _rows(native: sqlite3.Connection, sql: str) -> list[Any]:
    own = held(native, sqlite3.Connection)  # a tracer may have put a proxy around it
    with closing(sqlite3.Cursor(own)) as cursor:  # type: ignore[arg-type]  # not own.cursor(): that has a row factory
        ((patience,),) = cursor.execute("PRAGMA busy_timeout").fetchall()
        # A connection that could not read the schema yet would wait for the lock of another process, as the statement
        # has done, before its caller gets the error.
        cursor.execute("PRAGMA busy_timeout = 0")
        try:
            return _explained(cursor, sql)
        finally:
            cursor.execute(f"PRAGMA busy_timeout = {patience}")


def _explained(cursor: sqlite3.Cursor, sql: str) -> list[Any]:
    try:
        return cursor.execute(sql, _Nulls()).fetchall()
    except sqlite3.ProgrammingError:  # a parameter without a name
        try:
            return cursor.execute(sql).fetchall()
        except sqlite3.ProgrammingError as error:
            found = _COUNT.search(str(error))
            return cursor.execute(sql, (None,) * int(found[1] if found else 0)).fetchall()


def _marked(detail: str, temporary: Container[str]) -> str:
    if (found := _SCAN.match(detail)) and found[1] not in temporary:
        return f"{detail}{PLAN_WARNING}full scan of {found[1]}"
    if found := _SORT.match(detail):
        return f"{detail}{PLAN_WARNING}temporary B-tree{found[1]}"
    if found := _AUTOMATIC.match(detail):
        return f"{detail}{PLAN_WARNING}automatic index on {found[1]} {found[2]}"
    return detail
